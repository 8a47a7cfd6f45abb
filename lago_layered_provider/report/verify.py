"""What a check of the store looks like, while it runs and at its end."""

from __future__ import annotations

import collections
import textwrap
import threading
import time
from typing import Any, List, Sequence

from rich.text import Text

from ..core.sizes import size_text
from ..store.audit_rules import State, Verdict
from .choose import make_progress
from .console import Screen
from .progress import Words

#: Who is done before that need not see that it has begun.
QUIET_SECONDS = 1.0

#: What a check is called beside a bar, and what the progress says.
NAME = 'checking'
WORDS = Words('reading', 'read', 'are read')

STYLES = {
    State.INTACT: 'green',
    State.UNPROVEN: 'yellow',
    State.DAMAGED: 'red',
    State.ON_DAMAGED: 'yellow',
    State.SKIPPED: 'cyan',
}
WIDTH = max(len(state.value) for state in State)


def print_verdicts(verdicts: Sequence[Verdict], console: Screen) -> None:
    """Print a line for each image: its state, its name; then why."""
    console.print(f'{"STATE":<{WIDTH}}  IMAGE')
    for verdict in verdicts:
        word = f'{verdict.state.value:<{WIDTH}}'
        console.print(Text.assemble(
            (word, STYLES[verdict.state]), f'  {verdict.name}'
        ))
        for reason in verdict.reasons:
            for line in _fold(reason, console.text_columns):
                console.print(line)


def _fold(text: str, columns: int) -> List[str]:
    indent = ' ' * (WIDTH + 2)
    return textwrap.wrap(
        text, columns, initial_indent=f'{indent}- ',
        subsequent_indent=f'{indent}  ', break_on_hyphens=False,
        break_long_words=False,
    )


def summary(verdicts: Sequence[Verdict], count: int, seconds: float) -> str:
    """Return how many images are what, and how long it took."""
    states = collections.Counter(verdict.state for verdict in verdicts)
    found = ', '.join(
        f'{states[state]} {state.value}' for state in State if states[state]
    )
    images = f'{len(verdicts)} image{"s" * (len(verdicts) != 1)}'
    return (
        f'{images}{f": {found}" if found else ""}; {size_text(count)} read '
        f'in {seconds:.1f} s'
    )


class Watch:
    """Shows how far a check is when it takes a while; for threads.

    Args:
        kind: of the setting `progress`.
        total: bytes to read.
    """

    def __init__(self, kind: str, total: int, console: Screen) -> None:
        self.count = 0
        self._total = total
        self._progress = make_progress(kind, console, WORDS)
        self._lock = threading.Lock()
        self._shown = False
        self._began = time.monotonic()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: Any) -> None:
        with self._lock:
            if self._shown:
                self._progress.__exit__(*exc)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def advance(self, count: int) -> None:
        """Count bytes that were read."""
        with self._lock:
            if not self._shown and self.seconds >= QUIET_SECONDS:
                self._shown = True
                self._progress.__enter__()
                self._progress.begin(NAME, self._total, self.count)
            self.count += count
            if self._shown:
                self._progress.advance(NAME, count)
