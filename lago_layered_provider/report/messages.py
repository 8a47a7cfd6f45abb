"""Fold the lines of messages for people."""

from __future__ import annotations

import shutil
from typing import Optional

from ..core.model import visible

MESSAGE_COLUMNS = 79


def fold(
    text: str, first: str = '', columns: Optional[int] = None
) -> str:
    """Break lines where words allow; indents stay.

    No terminal gets control characters.

    Args:
        first: a word that stays before the text, whatever its length.
        columns: that are there; if none are given at most 79, and less on a
            narrow terminal.
    """
    import textwrap  # only who has a message pays for it

    if columns is None:
        terminal = shutil.get_terminal_size().columns
        columns = min(MESSAGE_COLUMNS, terminal - 1)
    folded = []
    for line in visible(text).split('\n'):
        if len(line) <= columns - len(first):
            folded.append(line)
            continue
        indent = ' ' * (len(line) - len(line.lstrip(' -')))
        folded += textwrap.wrap(
            line, max(columns - len(first), 1), subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )
    return first + '\n'.join(folded)
