"""A terminal with a size and keys, and the screen as a person sees it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from pathlib import Path
from types import TracebackType
from typing import Callable, List, Mapping, Optional, Sequence, Type

import pyte

from .running import PATIENCE_SECONDS, until

READ_BYTES = 65536
HISTORY_LINES = 10000

#: The key for an interrupt; the terminal makes the signal of it.
CTRL_C = b'\x03'

#: What would tell a program another size than the terminal has.
SIZE_VARIABLES = ('COLUMNS', 'LINES')


class Terminal:
    """A command on a terminal of its own; killed at the end.

    Args:
        environment: of the command; TERM is that of a usual terminal, unless
            `term` says another.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
        term: str = 'xterm-256color',
    ) -> None:
        self._lock = threading.Lock()
        self._screen = pyte.HistoryScreen(columns, lines, HISTORY_LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._frames: List[str] = []
        self.raw = b''
        self._master, slave = pty.openpty()
        self.resize(columns, lines)
        self._slave = slave
        self._modes = termios.tcgetattr(slave)
        kept = {
            name: value for name, value in environment.items()
            if name not in SIZE_VARIABLES
        }
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**kept, 'TERM': term},
            stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._finish()
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, READ_BYTES)
            except OSError:  # nobody has the terminal open any more
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)
                self._frames.append('\n'.join(self._shown()))

    def _shown(self) -> List[str]:
        return [line.rstrip() for line in self._screen.display]

    def _finish(self) -> None:
        """Read what is left: with the last slave the reading ends."""
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        self._reader.join(PATIENCE_SECONDS)

    @property
    def screen(self) -> List[str]:
        """Return the lines of the screen as they are now, to the last one."""
        with self._lock:
            return '\n'.join(self._shown()).rstrip('\n').split('\n')

    @property
    def text(self) -> str:
        """Return all that stands on the screen or has left it at its top."""
        with self._lock:
            above = [
                ''.join(line[column].data for column in range(
                    self._screen.columns
                )).rstrip()
                for line in self._screen.history.top
            ]
            return '\n'.join([*above, *self._shown()]).rstrip('\n')

    @property
    def frames(self) -> List[str]:
        """Return the screens that a person has seen, one after the other."""
        with self._lock:
            return list(self._frames)

    @property
    def is_restored(self) -> bool:
        """Tell whether the cursor is shown and the modes are as before."""
        with self._lock:
            return (
                not self._screen.cursor.hidden
                and termios.tcgetattr(self._master) == self._modes
            )

    def press(self, keys: bytes) -> None:
        """Press keys, such as `CTRL_C`."""
        os.write(self._master, keys)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size; the command is told by SIGWINCH."""
        with self._lock:
            self._screen.resize(lines, columns)
            fcntl.ioctl(
                self._master, termios.TIOCSWINSZ,
                struct.pack('HHHH', lines, columns, 0, 0),
            )

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition while the command runs.

        Raises:
            RuntimeError: it ended before, or it took too long.
        """
        until(
            lambda: condition() or self.process.poll() is not None, what
        )
        if not condition():
            raise RuntimeError(f'it ended before: {what}\n{self.text}')

    def shows(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        self.until(lambda: text in self.text, f'it shows {text!r}')

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end, with all that it has shown; return its status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f'it still runs after {seconds} s:\n{self.text}'
            ) from None
        self._finish()
        return status


def _take_terminal() -> None:
    """Make the terminal that is open the one of the new session."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


class ScreenStream(io.StringIO):
    """A stream of a terminal without a process; keeps what a person sees."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        super().__init__()
        self._screen = pyte.Screen(columns, lines)
        self._screen.set_mode(pyte.modes.LNM)  # as a line discipline does
        self._stream = pyte.Stream(self._screen)

    def isatty(self) -> bool:
        """Tell that it is a terminal."""
        return True

    def write(self, text: str) -> int:
        """Show text as a terminal does."""
        self._stream.feed(text)
        return super().write(text)

    @property
    def raw(self) -> str:
        """Return all that was written."""
        return self.getvalue()

    @property
    def has_cursor(self) -> bool:
        """Tell whether the cursor is shown."""
        return not self._screen.cursor.hidden

    def shown(self) -> List[str]:
        """Return the lines of the screen, to the last one."""
        lines = [line.rstrip() for line in self._screen.display]
        return '\n'.join(lines).rstrip('\n').split('\n')
