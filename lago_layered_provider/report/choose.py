"""Which display shows the progress of a command."""

from __future__ import annotations

from rich.console import Console

from .progress import Lines, Progress, Silent, Words


def make_progress(
    kind: str, console: Console, words: Words = Words()
) -> Progress:
    """Return the progress for a `progress` setting.

    Bars need a terminal that lets its cursor be moved; without, lines do.
    """
    if kind == 'none':
        display = Silent(console, words)
    elif kind == 'line' or not (
        console.file.isatty() and console.is_terminal
        and not console.is_dumb_terminal
    ):
        display = Lines(console, words)
    else:
        # It takes longer than a plan where nothing is missing.
        from .bars import Bars

        display = Bars(console, words)
    return Progress(display, console)
