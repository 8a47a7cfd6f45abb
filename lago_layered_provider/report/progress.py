"""The progress of layers: from the threads that work to a display.

`Progress` is the only way there. It takes events from any thread and hands
them on in one of its own, in their order: a layer begins, advances, ends. So
nobody who works waits for a terminal, and no display can make work fail.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Set

from rich.console import Console

from ..core.model import visible
from ..core.sizes import size_text

#: The pause between two looks at what has happened.
REFRESH_SECONDS = 0.1

#: A log gets a line for a running layer when that much time has passed.
LINE_SECONDS = 5

#: The longest that the end of a command waits for a terminal that stands.
STOP_SECONDS = 5


class Words(NamedTuple):
    """What is done to images, and what has been done."""

    doing: str = 'fetching'
    done: str = 'in the store'
    here: str = 'of it are here'


class Silent:
    """A display of nothing but what people should know.

    All displays are called by one thread. A layer begins before it advances,
    and what has begun is dropped or ends; times are those of the events.
    """

    def __init__(self, console: Console, words: Words = Words()) -> None:
        self._console = console
        self._words = words

    def start(self) -> None:
        """Get ready, in the thread that calls all else."""

    def begin(
        self, name: str, total: Optional[int], done: int, now: float
    ) -> None:
        """Show a layer of which `done` of `total` bytes are here."""

    def advance(self, name: str, count: int, now: float) -> None:
        """Show that more bytes of it came in."""

    def drop(self, name: str) -> None:
        """Forget a layer that begins anew."""

    def wait(self, name: str, reason: str) -> None:
        """Show that a layer waits for somebody else."""

    def end(self, name: str, outcome: str) -> None:
        """Show what became of a layer, whether it has begun or not."""

    def note(self, text: str) -> None:
        """Show something that people should know."""
        self._console.print(text)

    def refresh(self) -> None:
        """Show how things stand."""

    def stop(self) -> None:
        """Leave the terminal as it was."""


class Lines(Silent):
    """A plain line when a layer starts and ends, and now and then between."""

    def __init__(self, console: Console, words: Words = Words()) -> None:
        super().__init__(console, words)
        self._counts: Dict[str, Count] = {}

    def begin(
        self, name: str, total: Optional[int], done: int, now: float
    ) -> None:
        self._counts[name] = Count(total, done, now)
        here = f', {size_text(done)} {self._words.here}' if done else ''
        self._say(name, f'{self._words.doing} {size_text(total)}{here}')

    def advance(self, name: str, count: int, now: float) -> None:
        so_far = self._counts[name].advance(count, now)
        if so_far:
            self._say(name, so_far)

    def drop(self, name: str) -> None:
        del self._counts[name]

    def wait(self, name: str, reason: str) -> None:
        self._say(name, f'waiting for {reason}')

    def end(self, name: str, outcome: str) -> None:
        count = self._counts.pop(name, None)
        if outcome == 'fetched':
            outcome = self._words.done
            outcome += f', {count.in_all()}' if count else ''
        self._say(name, outcome)

    def _say(self, name: str, text: str) -> None:
        self._console.print(f'{label(name)}: {text}')


class Count:
    """How far a layer is, how fast, and when that was last said."""

    def __init__(self, total: Optional[int], done: int, now: float) -> None:
        self._total = total
        self._first = self._done = done
        self._began = self._said = self._last = now

    def advance(self, count: int, now: float) -> Optional[str]:
        """Count; return what to say when it is time to say something."""
        self._done += count
        self._last = now
        if now < self._said + LINE_SECONDS:
            return None
        self._said = now
        text = size_text(self._done)
        if self._total:
            percent = min(self._done * 100 // self._total, 100)
            text = f'{percent} %, {text} of {size_text(self._total)}'
        return f'{text}, {self._speed()}'

    def in_all(self) -> str:
        """Return what was fetched, how long that took and how fast."""
        seconds = self._last - self._began
        fetched = size_text(self._done - self._first)
        return f'{fetched} in {seconds:.1f} s, {self._speed()}'

    def _speed(self) -> str:
        seconds = max(self._last - self._began, 0.001)
        return f'{size_text((self._done - self._first) / seconds)}/s'


@dataclass
class _Event:
    """What happened: the name of a display's method, and its arguments."""

    what: str
    name: str
    arguments: List[Any]


class Progress:
    """Told what happens to layers by any thread; a context manager.

    Args:
        display: shows it; one that raises is switched off with one note.
    """

    def __init__(self, display: Silent, console: Console) -> None:
        self._display = display
        self._console = console
        self._lock = threading.Lock()
        self._events: List[_Event] = []
        #: The last event of each layer, if more bytes can be added to it.
        self._advances: Dict[str, _Event] = {}
        self._begun: Set[str] = set()
        self._broken = False
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name='progress', daemon=True
        )

    def __enter__(self) -> Progress:
        # Where no thread can be had, all is shown at the end.
        with contextlib.suppress(RuntimeError):
            self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._over.set()
        if self._thread.ident is None:
            self._run()
        else:
            self._thread.join(STOP_SECONDS)

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        """Show a layer of which `done` of `total` bytes are here.

        One that began before begins anew.
        """
        self._note('begin', name, total, done, time.monotonic())

    def advance(self, name: str, count: int) -> None:
        """Show that more bytes came in of a layer that has begun."""
        now = time.monotonic()
        with self._lock:
            event = self._advances.get(name)
            if event is None:
                event = _Event('advance', name, [0, now])
                self._advances[name] = event
                self._events.append(event)
            event.arguments = [event.arguments[0] + count, now]

    def wait(self, name: str, reason: str) -> None:
        """Show that a layer waits for somebody else."""
        self._note('wait', name, reason)

    def end(self, name: str, outcome: str) -> None:
        """Show what became of a layer: 'fetched', 'present' or 'failed'."""
        self._note('end', name, outcome)

    def note(self, text: str) -> None:
        """Show something that people should know, such as a retry."""
        self._note('note', '', text)

    def _note(self, what: str, name: str, *arguments: Any) -> None:
        with self._lock:
            self._advances.pop(name, None)
            self._events.append(_Event(what, name, list(arguments)))

    def _run(self) -> None:
        self._show('start')
        while not self._over.wait(REFRESH_SECONDS):
            self._show_all()
        self._show_all()
        self._show('stop')

    def _show_all(self) -> None:
        with self._lock:
            events, self._events = self._events, []
            self._advances.clear()
        for event in events:
            if event.what == 'note':
                self._show('note', *event.arguments)
                continue
            began = event.name in self._begun
            if event.what == 'begin':
                if began:
                    self._show('drop', event.name)
                self._begun.add(event.name)
            elif event.what == 'end':
                self._begun.discard(event.name)
            if event.what != 'advance' or began:
                self._show(event.what, event.name, *event.arguments)
        self._show('refresh')

    def _show(self, what: str, *arguments: Any) -> None:
        try:
            getattr(self._display, what)(*arguments)
        except Exception as error:
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        """Go on without a display; where nothing can be said, silently."""
        display, self._display = self._display, Silent(self._console)
        if self._broken:
            return
        self._broken = True
        with contextlib.suppress(Exception):
            display.stop()
        with contextlib.suppress(Exception):
            self._console.print(
                f'The progress cannot be shown any more '
                f'({type(error).__name__}: {error}); the work goes on.'
            )


def label(name: str) -> str:
    """The name without its repository: 80 columns are few.

    It is escaped before a display measures it.
    """
    return visible(name.split(':', 1)[-1])
