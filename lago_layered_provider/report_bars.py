"""The progress as bars, for people at a terminal."""

from __future__ import annotations

from typing import Any, Dict, Optional

from rich.console import Console
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

from .core.sizes import size_text
from .report import Count, LineProgress, Words, label

LABEL_COLUMNS = 26


class _SpeedColumn(ProgressColumn):
    """rich's own speaks of MB beside our MiB."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text('fetched', style='green')
        return Text(f'{size_text(task.speed)}/s' if task.speed else '')


class BarProgress(LineProgress):
    """A bar for each running layer, for terminals."""

    def __init__(self, console: Console, words: Words = Words()) -> None:
        super().__init__(console, words)
        self._bars = Progress(
            TextColumn('{task.description}', table_column=Column(
                no_wrap=True, overflow='ellipsis', max_width=LABEL_COLUMNS,
            )),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            _SpeedColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self._tasks: Dict[str, TaskID] = {}

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._bars.stop()

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        self._counts[name] = Count(total, done)
        self._tasks[name] = self._bars.add_task(
            label(name), total=total, completed=done
        )

    def advance(self, name: str, count: int) -> None:
        self._counts[name].advance(count)
        self._bars.advance(self._tasks[name], count)

    def end(self, name: str, outcome: str) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        super().end(name, outcome)
