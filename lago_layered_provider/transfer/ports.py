"""What the transfer needs of a source, and whom it tells how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Protocol, runtime_checkable


@dataclass(frozen=True)
class FileInfo:
    """What a source says of a file without sending it."""

    size: Optional[int]
    validator: Optional[str]


class Stream(Protocol):
    """The bytes of a file, from `start` on; closed by who opened it.

    `start` may be 0 although another place was asked for: the source then
    cannot continue there, or the file has changed since. `total` is the size
    of the whole file in bytes, where known. `validator` names this state of
    the file (a strong ETag, or a date) and can be given to `open` later.
    """

    start: int
    total: Optional[int]
    validator: Optional[str]

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, b'' at the end.

        Raises:
            TransferError: the connection broke or the file is truncated.
        """

    def abort(self) -> None:
        """Make a `read` that another thread waits in fail soon."""

    def close(self) -> None:
        """Release the connection; may be called twice."""


@runtime_checkable
class Buffered(Protocol):
    """A stream that can tell whether bytes wait for its reader."""

    def has_unread(self) -> bool:
        """Tell whether bytes came that nobody has read."""


class Provider(Protocol):
    """A source: reads files by their path inside it.

    Every call may raise `TransferError`; a missing file has `status` 404.
    """

    def locate(self, path: str) -> str:
        """Return the URL or file name of `path`, for messages."""

    def stat(self, path: str) -> FileInfo:
        """Ask for the size and state of a file without its bytes."""

    def open(
        self,
        path: str,
        *,
        start: int = 0,
        end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        """Open a file at `start`, up to but not including `end`.

        With a `validator` the stream continues at `start` only when the file
        is still in that state; otherwise it begins at 0. Where an `end` was
        given too, such a stream is closed and not read.
        """


@runtime_checkable
class Caching(Protocol):
    """A provider whose answers may come out of a cache on the way."""

    def avoid_caches(self) -> None:
        """Let the server itself answer from now on: something was wrong."""


@runtime_checkable
class Mirrors(Protocol):
    """A provider that has several places for its files.

    `tell` is called when it changes from one to another.
    """

    tell: Callable[[str], None]

    def reject(self, path: str, old: bool) -> bool:
        """Learn that the bytes of a file are wrong.

        Args:
            old: an earlier run has left some of them.

        Returns:
            whether others can be had when it is fetched anew.
        """

    def is_alone(self, path: str) -> bool:
        """Tell whether all of a file must come from one place."""


class Progress(Protocol):
    """Told what happens to each layer; called from several threads."""

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        """A layer starts: `done` of `total` bytes are fetched already."""

    def advance(self, name: str, count: int) -> None:
        """More bytes of a layer came in."""

    def wait(self, name: str, reason: str) -> None:
        """A layer waits for somebody else."""

    def end(self, name: str, outcome: str) -> None:
        """A layer is done: 'fetched', 'present' or 'failed'."""

    def note(self, text: str) -> None:
        """Something that people should know, such as a retry."""
