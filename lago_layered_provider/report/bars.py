"""The progress as bars, for people at a terminal."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from ..core.sizes import size_text
from .progress import Count, Lines, Words, label

LABEL_COLUMNS = 26

#: What the echo of Ctrl-C takes.
ECHO_COLUMNS = 2

#: What the widest sizes take: 1,023.9/1,023.9 MiB.
SIZE_COLUMNS = 19

#: A terminal that is narrower has no column for speed and time.
WIDE_COLUMNS = 76

#: A terminal that is narrower has no bars, only numbers.
BAR_COLUMNS = 56


class _SpeedColumn(ProgressColumn):
    """rich's own speaks of MB beside our MiB."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text('complete', style='green')
        return Text(f'{size_text(task.speed)}/s' if task.speed else '')


def _whole() -> Column:
    """Return a column whose numbers are never cut."""
    return Column(no_wrap=True)


def choose_columns(width: int) -> Tuple[ProgressColumn, ...]:
    """Return as many columns as a terminal of that width has room for."""
    name = TextColumn(
        '{task.description}', markup=False, table_column=Column(
            no_wrap=True, overflow='ellipsis',
            max_width=max(1, min(LABEL_COLUMNS, width - SIZE_COLUMNS - 2)),
        ),
    )
    size = DownloadColumn(binary_units=True, table_column=_whole())
    if width < BAR_COLUMNS:
        return name, size
    bar = BarColumn(bar_width=None)
    if width < WIDE_COLUMNS:
        return name, bar, size
    return name, bar, size, _SpeedColumn(_whole()), TimeRemainingColumn(
        compact=True, elapsed_when_finished=True, table_column=_whole(),
    )


class _Rows(Progress):
    """Leaves room at the end of its lines for the echo of a key.

    In the last column ^C would go to the next line, and all would be moved.
    """

    limit: Optional[int] = None

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), self.limit)


class Bars(Lines):
    """A bar for each running layer, and the lines of those that ended."""

    def __init__(self, console: Console, words: Words = Words()) -> None:
        super().__init__(console, words)
        self._bars = _Rows(
            console=console, transient=True, auto_refresh=False
        )
        self._tasks: Dict[str, TaskID] = {}

    def start(self) -> None:
        self.refresh()
        self._bars.start()

    def begin(
        self, name: str, total: Optional[int], done: int, now: float
    ) -> None:
        self._counts[name] = Count(total, done, now)
        self._tasks[name] = self._bars.add_task(
            label(name), total=total, completed=done
        )

    def advance(self, name: str, count: int, now: float) -> None:
        self._counts[name].advance(count, now)
        self._bars.advance(self._tasks[name], count)

    def drop(self, name: str) -> None:
        super().drop(name)
        self._bars.remove_task(self._tasks.pop(name))

    def end(self, name: str, outcome: str) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
            # What is printed above the bars draws them as they were last.
            self.refresh()
        super().end(name, outcome)

    def refresh(self) -> None:
        width = max(1, self._console.width - ECHO_COLUMNS)
        if width != self._bars.limit:
            self._bars.limit = width
            self._bars.columns = choose_columns(width)
        self._bars.refresh()

    def stop(self) -> None:
        self._bars.stop()
