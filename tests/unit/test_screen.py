"""What reaches a terminal is text, and a command ends as its caller expects.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Type

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.text import Text
from rich.tree import Tree

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import visible
from lago_layered_provider.report import (
    console as report, plan as report_plan, screen, tables,
)
from lago_layered_provider.report.messages import fold

#: Sets a title, moves the cursor, turns the direction, is of no width.
HOSTILE = 'a\x1b]0;title\x07b\x9b2Jc\rd\x08e\u202ef\u200bg\udc80h'
ESCAPED = (
    r'a\x1b]0;title\x07b\x9b2Jc\rd\x08e\u202ef\u200bg\udc80h'
)
#: rich takes some of it away.
STRIPPED = r'a\x1b]0;titleb\x9b2Jcde\u202ef\u200bg\udc80h'


class Terminal(io.StringIO):
    """Takes what is written, or fails."""

    def __init__(self, error: Optional[int] = None) -> None:
        super().__init__()
        self._error = error

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._error is not None:
            raise OSError(self._error, os.strerror(self._error))
        return super().write(text)

    def fileno(self) -> int:
        raise io.UnsupportedOperation


@contextlib.contextmanager
def streams(error: Optional[int] = None) -> Iterator[List[Terminal]]:
    """Replace standard output and standard error.

    Args:
        error: of standard output.
    """
    replaced = [Terminal(error), Terminal()]
    with contextlib.redirect_stdout(replaced[0]), (
        contextlib.redirect_stderr(replaced[1])
    ):
        yield replaced
        assert [sys.stdout, sys.stderr] == replaced


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = visible(text)
    assert all(
        each.isprintable() or each in '\n\t\xa0' for each in shown
    )
    assert visible(shown) == shown
    assert shown == text or not text.isprintable()
    shown.encode()


def test_text_stays() -> None:
    text = 'Grüße, 世界 ≤ 1\n\tof 2\n'
    assert visible(text) == text


@pytest.mark.parametrize('write', [
    print,
    lambda text: print(text, file=sys.stderr),
    lambda text: sys.stderr.writelines([text]),
    lambda text: report.make_console(sys.stdout).print(text),
    lambda text: report.make_console(sys.stdout).print(Text(text)),
    lambda text: report.make_console(sys.stdout).write(text),
])
def test_a_session_lets_only_text_through(
    write: Callable[[str], Any]
) -> None:
    with streams() as written, screen.session():
        write(HOSTILE)
    text = ''.join(stream.getvalue() for stream in written)
    assert any(each in text for each in (ESCAPED, STRIPPED))
    assert visible(text) == text


def test_tables_trees_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NO_COLOR', '1')
    monkeypatch.setenv('TERM', 'xterm')
    stream = Terminal()
    console = report.make_console(stream, 200)
    tables.print_table(['A', 'B'], [(HOSTILE, HOSTILE)], console)
    tree = Tree(HOSTILE)
    tree.add(Text(HOSTILE))
    report_plan.print_tree(tree, console)
    bars = Progress(console=console)
    bars.add_task(HOSTILE)
    console.print(bars.make_tasks_table(bars.tasks))
    text = stream.getvalue()
    assert text.count(ESCAPED) + text.count(STRIPPED) == 4
    assert text.count('a\\x1b') == 5
    assert visible(stream.getvalue()) == stream.getvalue()


def test_colours_are_richs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('NO_COLOR', raising=False)
    monkeypatch.setenv('TERM', 'xterm')
    stream = Terminal()
    report.make_console(stream).print(Text(HOSTILE, 'red'))
    assert stream.getvalue() == f'\x1b[31m{STRIPPED}\x1b[0m\n'


def test_messages_are_folded_for_the_terminal(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'  - {"words " * 20}\n{HOSTILE}'
    for columns, longest in (('200', 79), ('40', 39)):
        monkeypatch.setenv('COLUMNS', columns)
        lines = fold(text).splitlines()
        assert lines.pop() == ESCAPED
        assert longest - 6 < max(map(len, lines)) <= longest
        assert all(line.startswith('    ') for line in lines[1:])


def run(error: BaseException) -> None:
    with screen.session():
        raise error


@pytest.mark.parametrize('error, status, said', [
    (KeyboardInterrupt(), 130, 'Stopped; what was fetched is kept.\n'),
    (SystemExit(143), 143, 'Stopped by SIGTERM; what was fetched is kept.\n'),
    (SystemExit(129), 129, 'Stopped by SIGHUP; what was fetched is kept.\n'),
    (SystemExit(2), 2, ''),
    (SystemExit('text'), 'text', ''),
])
def test_ends(
    error: BaseException, status: object, said: str
) -> None:
    with streams() as written, pytest.raises(SystemExit) as end:
        run(error)
    assert end.value.code == status
    assert [stream.getvalue() for stream in written] == ['', said]


@pytest.mark.parametrize('error', [
    errors.LayeredError('one'), ValueError('two'), FileNotFoundError('three'),
])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        run(error)
    assert caught.value is error


@pytest.mark.parametrize('number, end', [
    (errno.EPIPE, SystemExit), (errno.ENOSPC, errors.OutputError),
])
@pytest.mark.parametrize('write', [
    print, lambda text: report.make_console(sys.stdout).print(text),
])
def test_output_that_cannot_be_written(
    write: Callable[[str], Any], number: int, end: Type[BaseException]
) -> None:
    with streams(number) as written, pytest.raises(end) as caught:
        with screen.session():
            write('text')
    if number == errno.EPIPE:
        assert getattr(caught.value, 'code') == 128 + signal.SIGPIPE
    else:
        assert str(caught.value) == (
            'Cannot write to standard output: No space left on device'
        )
    assert written[1].getvalue() == ''


def test_errors_of_a_session_without_any_stream(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'stdout', None)
    monkeypatch.setattr(sys, 'stderr', None)
    with screen.session():
        print('text')
        report.make_console(sys.stderr).print('text')
        opened = [sys.stdout.beneath, sys.stderr.beneath]  # type: ignore
    assert all(stream.closed for stream in opened)
    with pytest.raises(SystemExit):
        run(KeyboardInterrupt())


def test_a_directory_that_was_removed(tmp_path: Path) -> None:
    gone = tmp_path / 'gone'
    gone.mkdir()
    before = os.getcwd()
    os.chdir(gone)
    try:
        gone.rmdir()
        with pytest.raises(errors.OutputError, match='was removed'):
            with screen.session():
                os.path.abspath('a')
    finally:
        os.chdir(before)


def test_signals_that_are_ignored_stay_so() -> None:
    numbers = signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        screen.catch_signals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with pytest.raises(SystemExit) as end:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(30)
        assert end.value.code == 143
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def test_a_broken_pipe_ends_no_process_from_a_thread() -> None:
    """As rich does, where no session is there: under `lago.sdk`."""
    console = report.make_console(Terminal(errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        console.print('text')
    with contextlib.suppress(BrokenPipeError):
        console.print('more')
