"""The plan and the progress as people see them, on a terminal or in a log.

All of it goes to one stream, stderr under `lago init`; rich decides about
colours (NO_COLOR is honoured) and we keep to 80 columns where it does not
know the width, as in a CI log.
"""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .core.plan import Layer, Plan, State

LOG_COLUMNS = 80

#: A log gets a line for a layer when that much time or share has passed.
LINE_SECONDS = 5
LINE_PERCENT = 25

STYLES = {
    State.PRESENT: 'green', State.PARTIAL: 'yellow', State.MISSING: 'cyan',
}


def size_text(count: Optional[float]) -> str:
    """Return a number of bytes for people: '1.4 GiB'; '?' for None."""
    if count is None:
        return '?'
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if abs(count) < 1024:
            break
        count /= 1024
    else:
        unit = 'TiB'
    digits = 0 if unit == 'B' or abs(count) >= 100 else 1
    return f'{count:.{digits}f} {unit}'


def make_console(stream: TextIO) -> Console:
    """Return a console that keeps to 80 columns in a log."""
    width = None if stream.isatty() else LOG_COLUMNS
    return Console(file=stream, width=width, highlight=False, soft_wrap=True)


def print_plan(plan: Plan, console: Console) -> None:
    """Print the layers as a tree, and what they need."""
    width = max(
        [len(layer.name) + 4 * _depth(plan, layer) for layer in plan.layers],
        default=0,
    )
    nodes: Dict[Optional[str], Tree] = {}
    roots: List[Tree] = []
    for layer in plan.layers:
        pad = width - len(layer.name) - 4 * _depth(plan, layer)
        text = Text(layer.name + ' ' * pad + '  ')
        text.append(_state_text(layer), style=STYLES[layer.state])
        parent = nodes.get(layer.base)
        if parent is None:
            nodes[layer.name] = Tree(text, guide_style='dim')
            roots.append(nodes[layer.name])
        else:
            nodes[layer.name] = parent.add(text)
    for root in roots:
        console.print(root, no_wrap=True)
    console.print(_summary(plan))


def _depth(plan: Plan, layer: Layer) -> int:
    depth = 0
    while layer.base is not None:
        layer = plan.layer(layer.base)
        depth += 1
    return depth


def _state_text(layer: Layer) -> str:
    if layer.state is State.PRESENT:
        return 'present'
    fetch = f'fetch {size_text(layer.fetch)}'
    if layer.state is State.PARTIAL:
        return f'{fetch} more'
    return fetch


def _summary(plan: Plan) -> str:
    present = len(plan.layers) - len(plan.missing)
    if not plan.missing:
        count = f'{present} layer{"s" * (present != 1)}'
        return f'{count}, all present: nothing to fetch.'
    at_least = '' if plan.exact else 'at least '
    return (
        f'{len(plan.layers)} layers, {present} present; '
        f'to fetch {at_least}{size_text(plan.to_fetch)}, '
        f'to keep {at_least}{size_text(plan.to_keep)}; '
        f'room left {size_text(plan.room_left)}.'
    )


def print_templates(
    rows: Sequence[Mapping[str, Any]], console: Console
) -> None:
    """Print a table of images."""
    table = Table(box=None, pad_edge=False)
    for name in ('TEMPLATE', 'VERSION', 'DATE', 'BASE'):
        table.add_column(name, overflow='fold')
    table.add_column('FETCH', justify='right', no_wrap=True)
    table.add_column('KEEP', justify='right', no_wrap=True)
    table.add_column('STATE', no_wrap=True)
    for row in rows:
        date = datetime.date.fromtimestamp(row['timestamp'])
        table.add_row(
            row['template'], row['version'], date.isoformat(),
            row['base'] or '-', size_text(row['to_fetch']),
            size_text(row['to_keep']),
            'present' if row['present'] else 'missing',
        )
    console.print(table, soft_wrap=False)


class NoProgress:
    """Shows only what people should know."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        pass

    def advance(self, name: str, count: int) -> None:
        pass

    def wait(self, name: str, reason: str) -> None:
        pass

    def end(self, name: str, outcome: str) -> None:
        pass

    def note(self, text: str) -> None:
        self._console.print(text)


class LineProgress(NoProgress):
    """A plain line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lock = threading.Lock()
        self._layers: Dict[str, _Line] = {}

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        verb = 'going on with' if done else 'fetching'
        with self._lock:
            self._layers[name] = _Line(total, done)
        self._console.print(f'{name}: {verb} {size_text(total)}')

    def advance(self, name: str, count: int) -> None:
        with self._lock:
            text = self._layers[name].advance(count)
        if text:
            self._console.print(f'{name}: {text}')

    def wait(self, name: str, reason: str) -> None:
        self._console.print(f'{name}: waiting for {reason}')

    def end(self, name: str, outcome: str) -> None:
        self._console.print(f'{name}: {outcome}')


class _Line:
    """How far a layer is, and when that was last said."""

    def __init__(self, total: Optional[int], done: int) -> None:
        self._total = total
        self._done = done
        self._since = self._said_at = time.monotonic()
        self._first = done
        self._said_percent = self._percent()

    def advance(self, count: int) -> Optional[str]:
        self._done += count
        now = time.monotonic()
        percent = self._percent()
        if percent >= 100 or (
            percent < self._said_percent + LINE_PERCENT
            and now < self._said_at + LINE_SECONDS
        ):
            return None
        self._said_at, self._said_percent = now, percent
        speed = (self._done - self._first) / max(now - self._since, 0.001)
        share = f'{percent} %, ' if self._total else ''
        return f'{share}{size_text(self._done)}, {size_text(speed)}/s'

    def _percent(self) -> int:
        return self._done * 100 // self._total if self._total else 0


class BarProgress(NoProgress):
    """A bar for each running layer, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
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
        task = self._task(name)
        self._bars.reset(
            task, total=total, completed=done, description=_label(name),
        )

    def advance(self, name: str, count: int) -> None:
        self._bars.advance(self._task(name), count)

    def wait(self, name: str, reason: str) -> None:
        self._bars.update(
            self._task(name), description=f'{_label(name)} [dim]waits[/]',
        )
        self._console.print(f'{name}: waiting for {reason}')

    def end(self, name: str, outcome: str) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self._console.print(f'{name}: {outcome}')

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(_label(name), total=None)
        return self._tasks[name]


def _label(name: str) -> str:
    """The name without its repository: 80 columns are few."""
    return name.split(':', 1)[-1]


def make_progress(kind: str, console: Console) -> NoProgress:
    """Return the display for a `progress` setting."""
    if kind == 'none':
        return NoProgress(console)
    if kind == 'bar' or (kind == 'auto' and console.is_terminal):
        return BarProgress(console)
    return LineProgress(console)
