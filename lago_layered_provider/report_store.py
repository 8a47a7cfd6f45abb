"""What a store holds, as people see it: a table or a tree, and a summary."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Iterable, List, Mapping, Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .core.sizes import size_text
from .prefixes import Survey
from .store import Unfinished


def print_store(
    root: str,
    rows: List[Dict[str, Any]],
    unfinished: List[Unfinished],
    survey: Survey,
    console: Console,
    *,
    tree: bool = False,
) -> None:
    """Print the images of a store, and what else there is to say of it.

    Args:
        rows: the images, as `lago template-repo store` gives them to
            programs.
    """
    if rows:
        # Where it is no terminal, a row is a line, however wide.
        width = None if console.is_terminal else 1000
        console.print(
            _tree(rows) if tree else _table(rows), soft_wrap=False,
            width=width,
        )
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


def _table(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column('IMAGE', overflow='fold')
    for name in ('OWN', 'CHAIN'):
        table.add_column(name, justify='right', no_wrap=True)
    table.add_column('DATE', no_wrap=True)
    table.add_column('NEEDED BY', overflow='fold')
    for row in rows:
        date = datetime.date.fromtimestamp(row['time'])
        table.add_row(
            row['name'], size_text(row['on_disk']),
            size_text(row['chain_on_disk']), date.isoformat(), _state(row),
        )
    return table


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
