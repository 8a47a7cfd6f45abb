"""Events of layers reach the displays in order, whoever brings them when."""

from __future__ import annotations

import io
import re
import threading
from typing import Any, Callable, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress as RichProgress

from lago_layered_provider.report import progress as report_progress
from lago_layered_provider.report.bars import Bars, choose_columns
from lago_layered_provider.report.choose import make_progress
from lago_layered_provider.report.console import Screen, make_console
from lago_layered_provider.report.progress import (
    Lines, Progress, Silent, Words, label,
)
from tests.lab.terminal import ScreenStream

SECONDS = 30

#: Columns in which no line of a display is folded, however fast it was.
WIDE = 100
NAMES = ('repo:base:v1', 'repo:top:v1', 'odd [red]{name}\x1b[2J')

Event = Tuple[Any, ...]

events = st.lists(st.one_of(
    st.tuples(
        st.just('begin'), st.sampled_from(NAMES),
        st.none() | st.integers(0, 2**40), st.integers(0, 2**40),
    ),
    st.tuples(
        st.just('advance'), st.sampled_from(NAMES), st.integers(0, 2**30)
    ),
    st.tuples(
        st.just('end'), st.sampled_from(NAMES),
        st.sampled_from(['fetched', 'present', 'failed']),
    ),
    st.tuples(st.just('wait'), st.sampled_from(NAMES), st.just('pid 1')),
    st.tuples(st.just('note'), st.just('a note')),
), max_size=30)


class Stream(io.StringIO):
    """A terminal or a pipe that keeps what is written."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def terminal_console(stream: io.StringIO, width: int = 80) -> Console:
    return Screen(
        file=stream, width=width, force_terminal=True, soft_wrap=True,
        markup=False, emoji=False, highlight=False,
        _environ={'TERM': 'xterm'},
    )


class Seen(Silent):
    """Keeps what a display is told."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.events: List[Event] = []

    def begin(self, *arguments: Any) -> None:
        self.events.append(('begin', *arguments[:-1]))

    def advance(self, *arguments: Any) -> None:
        self.events.append(('advance', *arguments[:-1]))

    def drop(self, name: str) -> None:
        self.events.append(('drop', name))

    def wait(self, name: str, reason: str) -> None:
        self.events.append(('wait', name, reason))

    def end(self, name: str, outcome: str) -> None:
        self.events.append(('end', name, outcome))

    def note(self, text: str) -> None:
        self.events.append(('note', text))


def show(progress: Progress, happened: List[Event]) -> None:
    for what, *arguments in happened:
        getattr(progress, what)(*arguments)


def check_order(seen: List[Event]) -> None:
    begun = set()
    for what, name, *_ in seen:
        if what == 'begin':
            assert name not in begun
            begun.add(name)
        elif what in ('advance', 'drop'):
            assert name in begun
        if what in ('end', 'drop'):
            begun.discard(name)


@given(events)
def test_any_events_are_shown_in_order(happened: List[Event]) -> None:
    seen = Seen()
    with Progress(seen, Console(file=io.StringIO())) as progress:
        show(progress, happened)
    check_order(seen.events)
    for what in ('begin', 'end', 'wait', 'note'):
        assert [each for each in seen.events if each[0] == what] == [
            each for each in happened if each[0] == what
        ]


@given(events, st.sampled_from([Silent, Lines, Bars]))
def test_no_events_are_too_odd_for_a_display(
    happened: List[Event], display: Callable[[Console], Silent]
) -> None:
    stream = Stream(True)
    console = terminal_console(stream)
    with Progress(display(console), console) as progress:
        show(progress, happened)
    assert 'cannot be shown' not in stream.getvalue()
    assert stream.getvalue().count('\x1b[?25l') == (
        stream.getvalue().count('\x1b[?25h')
    )


class LastLook(Bars):
    """Keeps what a person saw last of the bars."""

    def stop(self) -> None:
        stream = self._console.file
        assert isinstance(stream, ScreenStream)
        self.lines = stream.shown()
        super().stop()


@settings(max_examples=40)
@given(events)
def test_there_is_one_bar_for_each_running_layer(
    happened: List[Event]
) -> None:
    stream = ScreenStream(WIDE, 70)
    console = terminal_console(stream, WIDE)
    bars = LastLook(console)
    with Progress(bars, console) as progress:
        show(progress, happened)
    running: List[str] = []
    said = 0
    for what, name, *_ in happened:
        if what != 'note' and name in running and what in ('begin', 'end'):
            running.remove(name)
        if what == 'begin':
            running.append(name)
        said += what in ('end', 'wait', 'note')
    bar = re.compile(r'(.*?) +[━╺╸]* +[\d.,]+/[\d.,?]+ ')
    assert [found[1] for found in map(bar.match, bars.lines) if found] == [
        label(name) for name in running
    ]
    # A bar that ended leaves its line, and nothing else.
    assert len([line for line in stream.shown() if line]) == said
    assert stream.has_cursor


@pytest.mark.parametrize('make, begun', [(Bars, 0), (Lines, 160)])
def test_threads_before_a_screen(
    make: Callable[[Console], Silent], begun: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_progress, 'REFRESH_SECONDS', 0.001)
    stream = ScreenStream(WIDE, 400)
    console = terminal_console(stream, WIDE)
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(SECONDS)
        for turn in range(20):
            name = f'r:layer-{number}:v{turn}'
            progress.begin(name, 100 << 20, 0)
            for _ in range(10):
                progress.advance(name, 1 << 20)
            progress.end(name, 'fetched' if number % 2 else 'failed')

    with Progress(make(console), console) as progress:
        threads = [
            threading.Thread(target=work, args=[number]) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    ends = [line for line in stream.shown() if 'fetching' not in line]
    assert len(stream.shown()) == len(ends) + begun
    assert sorted(
        line.split(' in ', 1)[0] if 'store' not in line
        else line.split(' MiB')[0] for line in ends
    ) == sorted(
        f'layer-{number}:v{turn}: '
        + ('in the store, 10.0' if number % 2 else 'failed')
        for number in range(8) for turn in range(20)
    )
    assert stream.has_cursor


def test_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_progress, 'REFRESH_SECONDS', 0.0001)
    seen = Seen()
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(SECONDS)
        for turn in range(20):
            name = f'layer-{number % 4}'
            progress.begin(name, 1000, 0)
            for _ in range(50):
                progress.advance(name, 1)
            progress.wait(name, str(turn))
            progress.end(name, 'fetched')

    with Progress(seen, Console(file=io.StringIO())) as progress:
        threads = [
            threading.Thread(target=work, args=[number]) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    check_order(seen.events)
    assert [each[0] for each in seen.events].count('end') == 8 * 20


def test_all_that_advances_after_the_beginning_counts() -> None:
    seen = Seen()
    with Progress(seen, Console(file=io.StringIO())) as progress:
        show(progress, [
            ('advance', 'a', 1), ('begin', 'a', 100, 0), ('advance', 'a', 10),
            ('advance', 'a', 10), ('begin', 'a', 100, 50), ('advance', 'a', 3),
            ('end', 'a', 'fetched'), ('advance', 'a', 4),
        ])
    assert seen.events == [
        ('begin', 'a', 100, 0), ('advance', 'a', 20), ('drop', 'a'),
        ('begin', 'a', 100, 50), ('advance', 'a', 3), ('end', 'a', 'fetched'),
    ]


def test_a_second_beginning_takes_the_first_bar_away() -> None:
    stream = Stream(True)
    console = terminal_console(stream)
    bars = Bars(console)
    bars.begin('repo:top:v1', 100 << 20, 0, 0.0)
    bars.drop('repo:top:v1')
    bars.begin('repo:top:v1', 100 << 20, 50 << 20, 1.0)
    bars.advance('repo:top:v1', 1 << 20, 2.0)
    assert [
        (task.description, task.completed) for task in bars._bars.tasks
    ] == [('top:v1', 51 << 20)]


def raise_for(what: str) -> Silent:
    """Return a display that raises where it is told something."""
    seen = Seen()

    def fail(*_: object) -> None:
        raise BrokenPipeError(what)

    setattr(seen, what, fail)
    return seen


@pytest.mark.parametrize('what', [
    'start', 'begin', 'advance', 'drop', 'wait', 'end', 'note', 'refresh',
    'stop',
])
def test_a_display_that_raises_is_switched_off_with_one_note(
    what: str
) -> None:
    stream = Stream()
    happened: List[Event] = [
        ('begin', 'a', 1, 0), ('begin', 'a', 1, 0), ('advance', 'a', 1),
        ('wait', 'a', 'pid 1'), ('end', 'a', 'fetched'), ('note', 'one'),
    ] * 3
    with Progress(raise_for(what), make_console(stream)) as progress:
        show(progress, happened)
    said = ' '.join(stream.getvalue().split())
    assert said.count('cannot be shown any more') == 1
    assert f'BrokenPipeError: {what}' in said


def test_where_nothing_can_be_said_nothing_is_raised() -> None:
    class Full(Stream):
        def write(self, text: str) -> int:
            raise OSError(28, 'No space left on device')

    for kind in ('none', 'line', 'bar'):
        stream = Full(True)
        with make_progress(kind, terminal_console(stream)) as progress:
            show(progress, [
                ('begin', 'a', 1, 0), ('advance', 'a', 1), ('note', 'one'),
                ('end', 'a', 'failed'), ('note', 'two'),
            ])


def test_nobody_waits_for_a_terminal_that_stands() -> None:
    standing, released = threading.Event(), threading.Event()

    class Standing(Seen):
        def note(self, text: str) -> None:
            standing.set()
            assert released.wait(SECONDS)
            super().note(text)

    seen = Standing()
    with Progress(seen, Console(file=io.StringIO())) as progress:
        progress.note('one')
        assert standing.wait(SECONDS)
        show(progress, [('begin', 'a', 9, 0), ('advance', 'a', 9)])
        released.set()
    assert seen.events == [
        ('note', 'one'), ('begin', 'a', 9, 0), ('advance', 'a', 9)
    ]


def test_where_no_thread_can_be_had_all_is_shown_at_the_end(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', start)
    stream = Stream()
    with make_progress('auto', make_console(stream)) as progress:
        show(progress, [
            ('begin', 'r:a:v1', 2048, 1024), ('end', 'r:a:v1', 'failed')
        ])
    assert stream.getvalue() == (
        'a:v1: fetching 2.0 KiB, 1.0 KiB of it are here\n'
        'a:v1: failed\n'
    )


def test_lines() -> None:
    stream = Stream()
    console = make_console(stream)
    lines = Lines(console, Words('packing', 'packed'))
    lines.begin('r:a:v1', 10 << 20, 0, 100.0)
    lines.advance('r:a:v1', 2 << 20, 102.0)
    lines.advance('r:a:v1', 3 << 20, 105.0)
    lines.advance('r:a:v1', 1 << 20, 106.0)
    lines.advance('r:a:v1', 4 << 20, 108.0)
    lines.end('r:a:v1', 'fetched')
    lines.end('r:b:v1', 'present')
    assert stream.getvalue().splitlines() == [
        'a:v1: packing 10.0 MiB',
        'a:v1: 50 %, 5.0 MiB of 10.0 MiB, 1.0 MiB/s',
        'a:v1: packed, 10.0 MiB in 8.0 s, 1.2 MiB/s',
        'b:v1: present',
    ]


@pytest.mark.parametrize('kind, terminal, term, display', [
    ('auto', True, 'xterm', Bars),
    ('auto', True, 'dumb', Lines),
    ('auto', False, 'xterm', Lines),
    ('bar', True, 'xterm', Bars),
    ('bar', True, 'dumb', Lines),
    ('bar', False, 'xterm', Lines),
    ('line', True, 'xterm', Lines),
    ('none', True, 'xterm', Silent),
])
def test_kinds(
    kind: str, terminal: bool, term: str, display: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('TERM', term)
    # Set by many a CI; a log has no cursor all the same.
    monkeypatch.setenv('FORCE_COLOR', '1')
    progress = make_progress(kind, make_console(Stream(terminal)))
    assert type(progress._display) is display


@pytest.mark.parametrize('width', [*range(24, 90), 120, 200])
def test_numbers_are_whole_in_any_width(width: int) -> None:
    stream = Stream(True)
    console = terminal_console(stream, width)
    bars = RichProgress(
        *choose_columns(width), console=console, auto_refresh=False
    )
    for total in (1023.9 * 2**20, 1023.9 * 2**30, 5, None):
        bars.add_task('a-name-that-is-long' * 3, total=total, completed=5)
    console.print(bars.make_tasks_table(bars.tasks))
    lines = re.sub('\x1b\\[[0-9;?]*[A-Za-z]', '', stream.getvalue())
    assert [
        ' '.join(found) for found in re.findall(
            r' ([\d.]+/[\d.,?]+) (\w+)(?: |\n)', lines
        )
    ] == ['0.0/1,023.9 MiB', '0.0/1,023.9 GiB', '5/5 bytes', '5/? bytes']
    assert all(len(line) <= width for line in lines.splitlines()), lines
