"""Say what was measured: a table for people, JSON for comparing later."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from statistics import median
from typing import Any, Dict, List, Sequence, Tuple

from tests.lab.commands import run
from tests.lab.report import say, show_table

from .images import MIB, Chain
from .processes import Cost
from .starts import SIDES, Starts
from .transfers import Transfers

MEGABYTE = 10 ** 6

XZ_TIMES = 1.4
ZST_TIMES = 4.0
PEAK_BYTES = 300 * MEGABYTE
INIT_SECONDS = 0.3
HELP_SECONDS = 0.1

NAMES = {
    'lago-xz': 'Lago, .xz',
    'ours-xz': 'ours, .xz',
    'ours-zst': 'ours, .zst',
}

Sides = Dict[str, List[Cost]]


@dataclass(frozen=True)
class Goal:
    """What was wanted, and what was found."""

    what: str
    wanted: str
    found: str
    met: bool


@dataclass(frozen=True)
class Results:
    """All that was measured, and how busy the machine was.

    Attributes:
        loads: processes that wanted to run, in the minute before the start
            and in the last one; one of them at the end is the benchmark.
    """

    chain: Chain
    transfers: Transfers
    starts: Starts
    loads: Tuple[float, float]

    def goals(self) -> List[Goal]:
        """Compare with what is wanted."""
        xz = median(self.transfers.ratios('ours-xz'))
        zst = median(self.transfers.ratios('ours-zst'))
        peak = max(
            cost.peak for way, costs in self.transfers.costs.items()
            if way != 'lago-xz' for cost in costs
        )
        init, helped = added(self.starts.init), added(self.starts.help)
        return [
            Goal('.xz, times as fast as Lago', f'>= {XZ_TIMES:.1f}',
                 f'{xz:.2f}', xz >= XZ_TIMES),
            Goal('.zst, times as fast as Lago on .xz', f'>= {ZST_TIMES:.1f}',
                 f'{zst:.2f}', zst >= ZST_TIMES),
            Goal('peak memory, MB', f'< {PEAK_BYTES // MEGABYTE}',
                 f'{peak / MEGABYTE:.0f}', peak < PEAK_BYTES),
            Goal('lago init, all present, adds s', f'< {INIT_SECONDS}',
                 f'{init:.3f}', init < INIT_SECONDS),
            Goal('lago --help adds s', f'<= {HELP_SECONDS}',
                 f'{helped:.3f}', helped <= HELP_SECONDS),
        ]

    def show(self) -> None:
        """Print the tables."""
        self._show_images()
        self._show_transfers()
        self._show_starts()
        say('', 'Goals', '')
        show_table(('', 'wanted', 'found', ''), [
            (goal.what, goal.wanted, goal.found,
             'met' if goal.met else 'MISSED') for goal in self.goals()
        ])
        say('')

    def _show_images(self) -> None:
        chain = self.chain
        total = sum(chain.sizes.values())
        say(f'A chain of {len(chain.sizes)}, {total / MIB:.0f} MiB in all, '
            f'into an empty store', '')
        show_table(('image', 'MiB', '.xz', '.zst'), [
            (name, *(f'{size / MIB:.0f}' for size in (
                chain.sizes[name], chain.packed['xz'][name],
                chain.packed['zst'][name],
            )))
            for name in chain.names
        ])

    def _show_transfers(self) -> None:
        found = self.transfers
        say('')
        show_table(
            ('', 'wall s', '', 'CPU s', 'peak MB', 'times', ''),
            [
                (NAMES[way], *spread([cost.wall for cost in costs], 1),
                 f'{median(cost.cpu for cost in costs):.1f}',
                 f'{max(cost.peak for cost in costs) / MEGABYTE:.0f}',
                 *spread(found.ratios(way), 2))
                for way, costs in found.costs.items()
            ],
        )
        phases = ', '.join(
            f'{phase} {median(each[phase] for each in found.phases):.1f}'
            for phase in found.phases[0]
        )
        without = median(found.ratios_unconverted('ours-xz'))
        say('', f'    Lago\'s seconds: {phases}.',
            '    Times as fast on .xz as a Lago that would convert in no '
            f'time: {without:.2f}.')

    def _show_starts(self) -> None:
        say('', 'Starting lago, seconds; the last column is of CPU', '')
        show_table(('', 'with', '', 'without', '', 'added', 'CPU'), [
            (name, *spread([cost.wall for cost in sides['with']], 2),
             *spread([cost.wall for cost in sides['without']], 2),
             f'{added(sides):.3f}', f'{added_cpu(sides):.3f}')
            for name, sides in (
                ('lago init', self.starts.init),
                ('lago --help', self.starts.help),
            )
        ])

    def to_json(self) -> Dict[str, Any]:
        """Return all of it as JSON's values; nothing names the machine."""
        return {
            'machine': describe_machine(),
            'loads': [round(load, 1) for load in self.loads],
            'image_bytes': self.chain.sizes,
            'published_bytes': self.chain.packed,
            'transfers': self.transfers.to_json(),
            'starts': {
                verb: {
                    side: [cost.to_json() for cost in costs]
                    for side, costs in sides.items()
                }
                for verb, sides in vars(self.starts).items()
            },
            'goals': [vars(goal) for goal in self.goals()],
        }


def spread(values: Sequence[float], digits: int) -> Tuple[str, str]:
    """Return the median, and the least and the most."""
    return (
        f'{median(values):.{digits}f}',
        f'{min(values):.{digits}f}-{max(values):.{digits}f}',
    )


def added(sides: Sides) -> float:
    """Return the seconds between the medians of both sides."""
    with_us, without = (
        median(cost.wall for cost in sides[side]) for side in SIDES
    )
    return with_us - without


def added_cpu(sides: Sides) -> float:
    """Return the same of CPU seconds, which other processes change less."""
    with_us, without = (
        median(cost.cpu for cost in sides[side]) for side in SIDES
    )
    return with_us - without


def describe_machine() -> Dict[str, Any]:
    """Return what explains the figures."""
    return {
        'cpus': len(os.sched_getaffinity(0)),
        'architecture': platform.machine(),
        'python': platform.python_version(),
        'xz': run('xz', '--version').split('\n')[0].split()[-1],
        'qemu-img': run('qemu-img', '--version').split()[2],
    }
