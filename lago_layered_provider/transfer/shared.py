"""What all fetches of one transfer share."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Iterator, Set

from ..core import errors
from ..core.planning import SPOOL_BYTES
from .parallel import BlockPool
from .ports import Progress, Stream
from .retries import Retries
from .units import XzBlocks


class OpenStreams:
    """The streams that are being read, so that all can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: Set[Stream] = set()
        self._stopped = False
        #: Whether any server was reached.
        self.opened = False

    @contextlib.contextmanager
    def reading(self, stream: Stream) -> Iterator[Stream]:
        """Know a stream while it is read, and close it then."""
        with self._lock:
            self.opened = True
            self._streams.add(stream)
            stopped = self._stopped
        try:
            if stopped:
                stream.abort()
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)
            stream.close()

    def abort(self) -> None:
        """Make all reads fail soon, those that begin later as well."""
        with self._lock:
            self._stopped = True
            streams = list(self._streams)
        for stream in streams:
            stream.abort()


class BlockRoom:
    """The room on the disk for blocks that wait to be decoded.

    A plan counts `SPOOL_BYTES` for each of them. Larger ones, as ``xz -9
    -T0`` makes them, have the room that the plan leaves besides; where that
    is little, fewer of them wait at the same time. One waits in any case.

    Args:
        blocks: how many may wait at the same time.
        room_left: bytes of the disk that nobody needs.
    """

    def __init__(self, blocks: int, room_left: int = 0) -> None:
        self._blocks = blocks
        self._bytes = blocks * SPOOL_BYTES + max(0, room_left)
        self._waiting = self._taken = 0
        self._changed = threading.Condition()

    def acquire(self, size: int, timeout: float) -> bool:
        """Take room for a block of some bytes, if there is within seconds."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._fits(size), timeout)
            if found:
                self._waiting += 1
                self._taken += size
            return found

    def release(self, size: int) -> None:
        """Give back what was taken for a block of so many bytes."""
        with self._changed:
            self._waiting -= 1
            self._taken -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._waiting or (
            self._waiting < self._blocks
            and self._taken + size <= self._bytes
        )


@dataclass(frozen=True)
class Shared:
    """What all fetches of one transfer share.

    Attributes:
        connections: that may be open to one server.
        patience: seconds without a new byte of an image that are waited
            for.
        room: for blocks that wait to be decoded.
        cancelled: set when all shall end.
    """

    connections: int
    patience: float
    progress: Progress
    room: BlockRoom
    pool: BlockPool = field(default_factory=BlockPool)
    xz_blocks: XzBlocks = field(default_factory=XzBlocks)
    streams: OpenStreams = field(default_factory=OpenStreams)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def retries(self, received: int) -> Retries:
        """Return the patience with an image that has so many bytes."""
        return Retries(
            self.patience, received, lambda: self.streams.opened
        )

    def check(self) -> None:
        """Raise Cancelled when all shall end.

        Raises:
            BaseException: of a thread that has lost what it did, which
                somebody may be waiting for.
        """
        if self.cancelled.is_set():
            raise errors.Cancelled('stopped')
        if self.pool.lost:
            raise self.pool.lost[0]

    def pause(self, seconds: float) -> None:
        """Wait; raise Cancelled when all shall end."""
        if self.cancelled.wait(seconds):
            raise errors.Cancelled('stopped')
