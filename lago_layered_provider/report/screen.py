"""What a command writes to standard output and standard error, and its end.

In a `session` both pass a `Standard`. What others have written, an index, a
server or the caller of a command, reaches no terminal but as text: control
characters are escaped where all of it comes by, for `print`, tables, argparse
and warnings alike. Only what makes colours and moves the cursor itself writes
to `Standard.beneath`: `console.Screen`, which escapes the texts it is given.
Lago's log does the same in `plugin.repair_log`.

Every `lago` command pays for this import.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from typing import Any, Iterator, Optional, TextIO, cast

from ..core import errors
from ..core.model import visible

#: Added to the number of the signal that ended a command.
SIGNAL_STATUS = 128

#: Signals that Lago, and `catch_signals`, let end a command as SystemExit.
ENDING = {
    SIGNAL_STATUS + number: number.name
    for number in (signal.SIGTERM, signal.SIGHUP)
}


class Unwritable(Exception):
    """A standard stream takes no more.

    No OSError, which would be taken for one of the store's.
    """

    def __init__(self, name: str, cause: OSError) -> None:
        super().__init__(f'Cannot write to {name}: {cause.strerror}')
        self.is_broken_pipe = cause.errno == errno.EPIPE


class Beneath:
    """A standard stream as it is; only its errors are ours."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, control characters and all."""
        with self._errors():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is waiting."""
        with self._errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unwritable(self._name, error) from None

    def abandon(self) -> None:
        """Let what cannot be written vanish; Python would fail at its end."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


class Standard(io.TextIOBase):
    """A standard stream that lets nothing but text through.

    Attributes:
        beneath: the stream for those that escape by themselves.
    """

    def __init__(self, stream: Optional[TextIO], name: str) -> None:
        self._is_ours = stream is None
        if stream is None:  # closed by the caller of the command
            stream = open(os.devnull, 'w', encoding='utf-8')
        with contextlib.suppress(AttributeError):
            # Not every locale has the letters of our tables.
            cast(Any, stream).reconfigure(errors='backslashreplace')
        self.beneath = Beneath(stream, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return that of the stream."""
        return str(self.beneath.encoding)

    def write(self, text: str) -> int:
        """Write text; escape what a terminal would obey."""
        self.beneath.write(visible(text))
        return len(text)

    def flush(self) -> None:
        """Write what is waiting."""
        self.beneath.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return int(self.beneath.fileno())

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return bool(self.beneath.isatty())

    def close(self) -> None:
        """Leave the stream open, unless it is ours."""
        if self._is_ours:
            self.beneath.close()


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Run a command: guard what it writes, and end it as its caller expects.

    Raises:
        SystemExit: 130 for Ctrl-C and 141 where nobody reads the output any
            more, as a shell would tell.
        LayeredError: the output cannot be written, or the directory that the
            command was started in is gone.
    """
    out = Standard(sys.stdout, 'standard output')
    err = Standard(sys.stderr, 'standard error')
    with contextlib.redirect_stdout(cast(TextIO, out)), (
        contextlib.redirect_stderr(cast(TextIO, err))
    ):
        try:
            with _flushed(out):
                yield
        except KeyboardInterrupt:
            _say('Stopped; what was fetched is kept.')
            raise SystemExit(SIGNAL_STATUS + signal.SIGINT) from None
        except SystemExit as end:
            if end.code in ENDING:
                name = ENDING[end.code]
                _say(f'Stopped by {name}; what was fetched is kept.')
            raise
        except Unwritable as error:
            if error.is_broken_pipe:
                status = SIGNAL_STATUS + signal.SIGPIPE
                raise SystemExit(status) from None
            raise errors.OutputError(str(error)) from None
        except FileNotFoundError:
            if _has_directory():
                raise
            raise errors.OutputError(
                'The directory that this command was started in was removed.',
                hint='Change to another one, and run it again.',
            ) from None
        finally:
            for stream in (out, err):
                try:
                    stream.flush()
                except Unwritable:
                    stream.beneath.abandon()
                stream.close()


@contextlib.contextmanager
def _flushed(stream: Standard) -> Iterator[None]:
    """See to it that what was written arrives, if the command succeeds."""
    try:
        yield
    except SystemExit:
        stream.flush()
        raise
    stream.flush()


def _say(text: str) -> None:
    with contextlib.suppress(Unwritable):
        print(text, file=sys.stderr)


def _has_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def catch_signals() -> None:
    """Let SIGTERM and SIGHUP end the command in order, as Lago does."""
    def end(number: int, _: object) -> None:
        raise SystemExit(SIGNAL_STATUS + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)
