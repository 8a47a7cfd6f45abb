"""What the transfer needs of a source and of the store, and no more."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    ContextManager,
    Iterator,
    Mapping,
    Optional,
    Protocol,
    runtime_checkable,
)

from ..core.model import Stored
from ..core.record import Record


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
        is still in that state; otherwise it begins at 0.
        """


@runtime_checkable
class Mirrors(Protocol):
    """A provider that has several places for its files.

    `tell` is called when it changes from one to another.
    """

    tell: Callable[[str], None]

    def reject(self, path: str) -> bool:
        """Learn that the bytes of a file are wrong.

        Returns:
            whether others can be had when it is fetched anew.
        """


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


class Resume(Protocol):
    """Where a stage goes on, in bytes; see `store.progress.Resume`."""

    @property
    def validator(self) -> Optional[str]:
        """The state of the file at its source."""

    @property
    def consumed(self) -> int:
        """Offset in the file at its source of the last checkpoint."""

    @property
    def produced(self) -> int:
        """Bytes of the image that were made of what lies before it."""

    @property
    def preamble(self) -> bytes:
        """What a decoder must know to begin there."""

    @property
    def spooled(self) -> int:
        """Bytes from `consumed` on that need not be fetched again."""


class Stage(Protocol):
    """One image being received; `store.staging.Stage` says more."""

    @property
    def size(self) -> int:
        """Bytes of the image that were written."""

    @property
    def verified(self) -> Optional[Record]:
        """Set when only the commit is left."""

    def resume(self) -> Resume:
        """Go back to the last checkpoint."""

    def replay(self) -> Iterator[bytes]:
        """Return the bytes before the checkpoint, for the digest."""

    def spooled_chunks(self) -> Iterator[bytes]:
        """Return the bytes received since the checkpoint."""

    def spool(self, data: bytes) -> None:
        """Keep bytes of the file at its source as they came."""

    def checkpoint(
        self,
        consumed: int,
        produced: int,
        validator: Optional[str],
        *,
        preamble: bytes = b'',
    ) -> None:
        """Say what was made of the bytes received."""

    def write(self, data: bytes) -> None:
        """Append to the image."""

    def finish(self) -> None:
        """Give the image its final size."""

    def head(self, length: int) -> bytes:
        """Return the image's first bytes."""

    def mark_verified(self, record: Record) -> None:
        """Say that the image is complete and proven."""

    def reset(self) -> None:
        """Forget what was received and begin anew."""

    def discard(self) -> None:
        """Remove all of it."""


class Store(Protocol):
    """Where images are received and made visible."""

    def find(self, name: str) -> Optional[Stored]:
        """Return a visible image, None when it is not there."""

    def stage(
        self,
        name: str,
        *,
        identity: str,
        cancelled: threading.Event,
        timeout: float,
        waiting: Callable[[str], None],
    ) -> ContextManager[Optional[Stage]]:
        """Lock an image and give the place to receive it, or None."""

    def commit(
        self,
        name: str,
        *,
        base: Optional[str],
        metadata: Mapping[str, Any],
        cancelled: threading.Event,
        timeout: float,
        waiting: Callable[[str], None],
    ) -> object:
        """Make a verified image visible."""
