"""Tables and trees of images, as people see them.

On a terminal long names are folded. In a pipe every row stays on one line,
however long, with two blanks between the columns: for grep and awk.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Sequence, Set, Tuple

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..core.model import visible
from ..core.sizes import size_text
from .console import Screen
from .plan import TREE_COLUMNS, print_tree

#: What a level of a tree takes for its branches.
BRANCH_COLUMNS = 4

#: A column that may be folded is not made narrower.
FOLDED_COLUMNS = 12

STYLES = {'present': 'green', 'partly here': 'yellow', 'missing': 'cyan'}


@dataclass
class Node:
    """A line of a tree; `fetch` and `keep` are sizes as text."""

    label: str
    fetch: str = ''
    keep: str = ''
    state: str = ''
    above: List[Node] = field(default_factory=list)


def print_templates(
    rows: Sequence[Mapping[str, Any]], console: Screen, *,
    several: bool = False,
) -> None:
    """Print a table of images.

    Args:
        several: they are of several repositories; say which.
    """
    columns = ['TEMPLATE', 'VERSION', 'DATE', 'BASE', 'FETCH', 'KEEP', 'STATE']
    lines: List[Tuple[str, ...]] = [
        (
            row['template'], row['version'], date_text(row['timestamp']),
            row['base'] or '-', size_text(row['to_fetch']),
            size_text(row['to_keep']), state_text(row['present']),
        )
        for row in rows
    ]
    if several:
        columns.insert(0, 'REPO')
        lines = [
            (row['repository'], *line) for row, line in zip(rows, lines)
        ]
    print_table(
        columns, lines, console, right=('FETCH', 'KEEP'),
        whole=('DATE', 'STATE'),
    )


def print_table(
    columns: Sequence[str],
    rows: Sequence[Tuple[str, ...]],
    console: Screen,
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print a table.

    Args:
        right: the columns that are flush right, and never folded.
        whole: others that are never folded.
    """
    rows = [tuple(map(visible, row)) for row in rows]
    if not console.is_terminal:
        # rich would take ten seconds for 20,000 rows.
        _print_plain(columns, rows, console, right)
        return
    if console.width < _least_width(columns, rows, {*right, *whole}):
        _print_cells(columns, rows, console)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(
            name, justify='right' if name in right else 'left',
            no_wrap=name in right or name in whole, overflow='fold',
        )
    for row in rows:
        table.add_row(*(
            Text(cell, STYLES.get(cell, '')) for cell in row
        ))
    console.print(table, soft_wrap=False)


def _print_plain(
    columns: Sequence[str], rows: Sequence[Tuple[str, ...]],
    console: Screen, right: Sequence[str],
) -> None:
    lines = [tuple(columns), *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    for line in lines:
        text = '  '.join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths)
        )
        console.write(text.rstrip())


def _least_width(
    columns: Sequence[str], rows: Sequence[Tuple[str, ...]],
    whole: Set[str],
) -> int:
    """Return the columns of a table whose cells are folded as far as may be.
    """
    widths = [
        max(map(len, cells)) if name in whole else min(
            max(map(len, cells)), FOLDED_COLUMNS
        ) for name, cells in zip(columns, zip(columns, *rows))
    ]
    return sum(widths) + 2 * (len(widths) - 1)


def _print_cells(
    columns: Sequence[str], rows: Sequence[Tuple[str, ...]], console: Screen
) -> None:
    """Print a line for each cell, where a row has no room."""
    for first, *cells in rows:
        console.print(first)
        for name, cell in zip(columns[1:], cells):
            console.print(f'  {name.lower()} {cell}')


def print_trees(roots: Sequence[Node], console: Screen) -> None:
    """Print trees of images, with their sizes beside them."""
    width = min(_width(roots), TREE_COLUMNS)
    console.print(_with_columns('IMAGE', width, 'FETCH', 'KEEP', 'STATE'))
    forest = Tree('', guide_style='dim', hide_root=True)
    todo = [(root, forest, 0) for root in reversed(roots)]
    while todo:
        node, below, used = todo.pop()
        text = Text(_with_columns(
            node.label, width - used, node.fetch, node.keep, ''
        ) if node.state else node.label)
        text.append(node.state, STYLES.get(node.state, ''))
        branch = below.add(text)
        todo.extend(
            (each, branch, used + BRANCH_COLUMNS)
            for each in reversed(node.above)
        )
    print_tree(forest, console)


def _with_columns(
    label: str, width: int, fetch: str, keep: str, state: str
) -> str:
    return f'{label:<{max(width, 0)}}  {fetch:>9}  {keep:>9}  {state}'


def _width(roots: Sequence[Node]) -> int:
    """Return the columns of the longest label with its branches."""
    width = len('IMAGE')
    todo = [(root, 0) for root in roots]
    while todo:
        node, used = todo.pop()
        if node.state:
            width = max(width, used + len(node.label))
        todo.extend((each, used + BRANCH_COLUMNS) for each in node.above)
    return width


def date_text(timestamp: Optional[float]) -> str:
    """Return a date for people, '?' for what is none."""
    try:
        return datetime.date.fromtimestamp(timestamp or 0).isoformat()
    except (ValueError, OverflowError, OSError):
        return '?'


def state_text(present: bool) -> str:
    """Return whether an image is in the store, for people."""
    return 'present' if present else 'missing'
