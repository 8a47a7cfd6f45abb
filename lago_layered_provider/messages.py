"""Fold the lines of messages for people."""

from __future__ import annotations

MESSAGE_COLUMNS = 79


def fold(text: str, first: str = '') -> str:
    """Break lines at 79 columns, where words allow; indents stay.

    Args:
        first: a word that stays before the text, whatever its length.
    """
    import textwrap  # only who has a message pays for it

    folded = []
    for line in text.splitlines():
        indent = ' ' * (len(line) - len(line.lstrip(' -')))
        folded += textwrap.wrap(
            line, MESSAGE_COLUMNS - len(first), subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )
    return first + '\n'.join(folded)
