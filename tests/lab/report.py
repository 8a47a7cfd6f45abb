"""Print steps, paragraphs and tables: for the demo and for measurements.

80 columns, plain text; bold headings only on a terminal.
"""

from __future__ import annotations

import sys
import textwrap
from typing import Iterable, List, Mapping, Optional, Sequence

WIDTH = 79
INDENT = '    '


def say(*lines: str) -> None:
    """Print lines at once, so that they keep their order with a child's."""
    print('\n'.join(lines), flush=True)


def tell(text: str) -> None:
    """Print a paragraph, folded, and an empty line."""
    say(textwrap.fill(' '.join(text.split()), WIDTH), '')


def quote(text: str) -> None:
    """Print lines indented."""
    lines = text.rstrip('\n').split('\n')
    say(*(f'{INDENT}{line}'.rstrip() for line in lines))


def bold(text: str) -> str:
    """Return text for a terminal in bold, for a log as it is."""
    return f'\033[1m{text}\033[0m' if sys.stdout.isatty() else text


class Steps:
    """Number the headings of a report."""

    def __init__(self) -> None:
        self._number = 0

    def begin(self, title: str) -> None:
        """Print the heading of the next step."""
        self._number += 1
        title = f'{self._number}. {title}'
        say('', bold(title), bold('-' * len(title)), '')


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> None:
    """Print columns under a header.

    Args:
        left: so many columns hold text, set left; the others hold numbers.
    """
    table = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    table.insert(1, ['-' * width for width in widths])
    for row in table:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ]
        say(f'{INDENT}{"   ".join(cells)}'.rstrip())


def tree(
    bases: Mapping[str, Optional[str]], base: Optional[str] = None
) -> List[str]:
    """Draw names under the names that they stand on.

    Args:
        bases: name -> name of its base, or None.
    """
    names = [name for name, one in bases.items() if one == base]
    lines = []
    for name in names:
        last = name == names[-1]
        first, rest = ('└─ ', '   ') if last else ('├─ ', '│  ')
        below = tree(bases, name)
        if base is None:
            lines += [name, *below]
        else:
            lines += [first + name, *(rest + line for line in below)]
    return lines


def mib(size: float) -> str:
    """Return a number of bytes in MiB."""
    return f'{size / (1 << 20):.1f} MiB'
