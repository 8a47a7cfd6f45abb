"""Show what was measured, for people."""

from __future__ import annotations

import textwrap
from typing import Iterator, List, Tuple

from tests.lab.report import INDENT, WIDTH, say, show_table

from . import ways
from .content import MIB
from .figures import MEGABYTE, Figures, middle, spread
from .goals import evaluate
from .lines import CONNECTIONS
from .transfers import Case

Row = Tuple[str, ...]


def show(figures: Figures) -> None:
    """Print all tables."""
    _show_images(figures)
    _show_summary(figures)
    for case in figures.cases:
        _show_case(figures, case)
    _show_lago(figures)
    _show_left_out(figures)
    _show_starts(figures)
    _show_scale(figures)
    _show_memory(figures)
    _show_goals(figures)


def _head(text: str) -> None:
    say('', text, '')


def _note(text: str) -> None:
    say('', *textwrap.wrap(
        text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
    ))


def _show_images(figures: Figures) -> None:
    sizes, packed = figures['image_bytes'], figures['published_bytes']
    total = sum(sizes.values())
    say(f'A chain of {len(sizes)}, {total / MEGABYTE:.0f} MB in all, into an '
        'empty store', '')
    disk = figures['transfers']['disk_bytes']
    rows = [
        (name, *(f'{size / MEGABYTE:.0f}' for size in (
            figures['files_bytes'][name], sizes[name], packed['xz'][name],
            packed['zst'][name], disk.get('ours-xz', {}).get(name, 0),
            disk.get('lago-xz', {}).get(name, 0),
        )))
        for name in sizes
    ]
    show_table(('image, MB', 'files', 'qcow2', '.xz', '.zst', 'stored',
                'by Lago, flat'), rows)
    machine = figures['machine']
    _note(
        f'The index announces {" and ".join(figures["announced"])}. '
        f'{machine["cpus"]} processors, {machine["architecture"]}, Python '
        f'{machine["python"]}, xz {machine["xz"]}, TCP {machine["tcp"]}; '
        f'load before {figures["loads"][0]}, at the end '
        f'{figures["loads"][1]} (of which 2 or 3 are the benchmark).'
    )


def _show_summary(figures: Figures) -> None:
    _head('Seconds, medians')
    cases = figures.cases
    rows: List[Row] = []
    for way, title in ways.TITLES.items():
        found = [middle(figures.walls(case.name, way)) for case in cases]
        rows.append((title, *(
            '' if seconds is None else f'{seconds:.1f}' for seconds in found
        )))
    floors = [middle(figures.floors(case, 'xz')) for case in cases]
    rows.append(('floor of .xz', *(f'{floor or 0:.1f}' for floor in floors)))
    show_table(('', *(case.short for case in cases)), rows)


def _show_case(figures: Figures, case: Case) -> None:
    rounds = len(figures.walls(case.name, case.ways[0]))
    _head(f'{case.title[0].upper()}{case.title[1:]}; rounds: {rounds}')
    rows: List[Row] = []
    for way in case.ways:
        costs = figures.costs(case.name, way)
        kind = way.partition('-')[2]
        floor = figures.over_floor(case, way) if kind == 'xz' else []
        rows.append((
            way.replace('-', ' .'), *spread([cost.wall for cost in costs], 1),
            spread([cost.cpu for cost in costs], 1)[0],
            f'{max(cost.tree for cost in costs) / MEGABYTE:.0f}',
            *spread(figures.ratios(case.name, 'lago-xz', way), 2),
            spread(floor, 2)[0],
        ))
    show_table(('', 'wall s', '', 'CPU s', 'MB', 'x Lago', '', 'x floor'),
               rows)
    if case.line != 'unlimited':
        _show_line(figures, case)


def _show_line(figures: Figures, case: Case) -> None:
    """Say what the floor of a case is, and what delaying cost."""
    floors = spread(figures.floors(case, 'xz'), 1)[0]
    text = (
        f'Floor {floors} s: the most of decoding alone and of '
        f'{figures.to_fetch(case, "xz") / MEGABYTE:.0f} MB on the line, with '
        f'{CONNECTIONS} connections at the most.'
    )
    relayed = figures['transfers']['relay_cpu_s'].get(case.name)
    if relayed:
        text += (
            ' Packets were held by a process, as this kernel has no netem; '
            'of the processors it took '
            + ', '.join(f'{spread(seconds, 1)[0]} s ({way})'
                        for way, seconds in relayed.items()) + '.'
        )
    _note(text)


def _show_lago(figures: Figures) -> None:
    phases = figures['transfers']['lago_phases_s']
    if phases:
        _note('Lago\'s seconds, unlimited: ' + ', '.join(
            f'{phase} {spread([each[phase] for each in phases], 1)[0]}'
            for phase in phases[0]
        ) + '.')


def _show_left_out(figures: Figures) -> None:
    for name, reason in figures['left_out'].items():
        say('', f'LEFT OUT, line "{name}": {reason}')


def _show_starts(figures: Figures) -> None:
    starts = figures['starts']
    if not starts:
        return
    _head('Starting lago, all images present, seconds')
    rows: List[Row] = []
    for verb, command in (('init', 'lago init'), ('help', 'lago --help')):
        for side in ('with', 'without'):
            costs = starts[verb][side]
            rows.append((
                f'{command}, {side} us',
                *spread([cost['wall_s'] for cost in costs], 2),
                *spread([cost['cpu_s'] for cost in costs], 2),
            ))
    show_table(('', 'wall', '', 'CPU', ''), rows)


def _show_scale(figures: Figures) -> None:
    rows = list(_scale_rows(figures))
    if rows:
        _head('Scale; seconds without interpreter and imports')
        show_table(('', 's', '', 'MB'), rows)
    many = figures['many']
    if many:
        ends = many['ends_s']
        _note(
            f'{many["processes"]} processes pulled one .xz chain into one '
            f'empty store, unlimited: the first ended after '
            f'{min(ends):.1f} s, the last after {max(ends):.1f} s. Files of '
            f'{many["file_bytes"] / MEGABYTE:.1f} MB, sent '
            f'{many["sent_bytes"] / MEGABYTE:.1f} MB, of which again '
            f'{many["again_bytes"] / MEGABYTE:.3f} MB.'
        )


def _scale_rows(figures: Figures) -> Iterator[Row]:
    index = figures['index']
    for key, title in (('first', 'first'), ('kept', 'kept')) if index else ():
        yield (
            f'resolve in {index["versions"]} versions '
            f'({index["index_bytes"] / MIB:.0f} MiB), {title}',
            *spread(index[key]['seconds'], 2),
            f'{index[key]["peak_bytes"] / MEGABYTE:.0f}',
        )
    chain = figures['long_chain']
    if chain:
        yield (
            f'pull of {chain["layers"]} layers, all present',
            *spread(chain['seconds'], 3),
            f'{chain["peak_bytes"] / MEGABYTE:.0f}',
        )


def _show_memory(figures: Figures) -> None:
    peaks = figures.peaks()
    if peaks:
        _head('Peak memory of our process')
        show_table(('', 'MB'), [
            (name, f'{size / MEGABYTE:.0f}') for name, size in peaks.items()
        ])


def _show_goals(figures: Figures) -> None:
    _head('Goals')
    show_table(('', 'wanted', 'found', '', ''), [
        (goal.what, goal.wanted, goal.found or '-', goal.spread, goal.verdict)
        for goal in evaluate(figures)
    ])
    say('')
