"""What a store holds, as people see it: a table or a tree, and a summary."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional

from rich.text import Text
from rich.tree import Tree

from ..core.sizes import size_text
from ..environments.survey import Survey
from ..store import Unfinished
from .console import Screen
from .plan import print_tree
from .tables import date_text, print_table


def print_store(
    root: str,
    rows: List[Dict[str, Any]],
    unfinished: List[Unfinished],
    survey: Survey,
    console: Screen,
    *,
    tree: bool = False,
) -> None:
    """Print the images of a store, and what else there is to say of it.

    Args:
        rows: the images, as `lago template-repo store` gives them to
            programs.
    """
    if rows:
        if tree:
            print_tree(_tree(rows), console)
        else:
            _print_table(rows, console)
    for line in _summary(root, rows, unfinished, survey):
        console.print(line)


def _state(row: Mapping[str, Any]) -> str:
    """Say in few words who needs an image."""
    words = []
    if row['locked']:
        words.append('locked')
    if row['held'] is not None:
        words.append('held')
    for key, one in (('environments', 'disk'), ('images', 'image')):
        count = len(row[key])
        if count:
            words.append(f'{count} {one}{"s" * (count > 1)}')
    return ', '.join(words) or 'unused'


def _print_table(rows: Iterable[Mapping[str, Any]], console: Screen) -> None:
    print_table(
        ['IMAGE', 'OWN', 'CHAIN', 'DATE', 'NEEDED BY'],
        [
            (
                row['name'], size_text(row['on_disk']),
                size_text(row['chain_on_disk']), date_text(row['time']),
                _state(row),
            ) for row in rows
        ],
        console, right=('OWN', 'CHAIN'), whole=('DATE',),
    )


def _tree(rows: Iterable[Mapping[str, Any]]) -> Tree:
    """Draw bases with what stands on them; each image has one base."""
    forest = Tree('', guide_style='dim', hide_root=True)
    waiting: List[Mapping[str, Any]] = list(rows)
    names = {row['name'] for row in waiting}
    nodes: Dict[Optional[str], Tree] = {}
    while waiting:
        later = []
        for row in waiting:
            base = row['base']
            if base in names and base not in nodes:
                later.append(row)
                continue
            missing = '' if base is None or base in names else (
                f' on {base}, which is missing'
            )
            nodes[row['name']] = nodes.get(base, forest).add(Text(
                f'{row["name"]}  {size_text(row["on_disk"])}  '
                f'{_state(row)}{missing}'
            ))
        if len(later) == len(waiting):
            break  # they stand on each other
        waiting = later
    return forest


def _summary(
    root: str,
    rows: List[Dict[str, Any]],
    unfinished: List[Unfinished],
    survey: Survey,
) -> Iterable[str]:
    total = sum(row['on_disk'] for row in rows)
    yield (
        f'\n{root}: {len(rows)} image{"s" * (len(rows) != 1)}, '
        f'{size_text(total)}; {len(survey.notes)} '
        f'environment{"s" * (len(survey.notes) != 1)}'
    )
    for row in rows:
        if row['locked']:
            yield f'{row["name"]}: locked by {row["locked"]}'
    for one in unfinished:
        who = one.holder or 'nobody is at it'
        yield f'{one.name}: unfinished, {size_text(one.disk)}; {who}'
    for note in survey.gone:
        yield f'{note.prefix}: this environment is gone'
