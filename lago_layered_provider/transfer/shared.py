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
from .units import XzBlocks


class OpenStreams:
    """The streams that are being read, so that all can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: Set[Stream] = set()
        self._stopped = False

    @contextlib.contextmanager
    def reading(self, stream: Stream) -> Iterator[None]:
        """Know a stream while it is read, and close it then."""
        with self._lock:
            self._streams.add(stream)
            stopped = self._stopped
        try:
            if stopped:
                stream.abort()
            yield
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


class Room:
    """The room on the disk for blocks that wait to be decoded.

    A plan counts `SPOOL_BYTES` for each of some blocks. Larger ones, as of
    ``xz -9 -T0``, take more of it, so fewer of them wait at the same time;
    one that is larger than all of it waits alone.

    Args:
        blocks: how many may wait.
    """

    def __init__(self, blocks: int) -> None:
        self._free = self._total = blocks * SPOOL_BYTES
        self._changed = threading.Condition()

    def acquire(self, size: int, timeout: float) -> bool:
        """Take room for a block of some bytes, if there is within seconds."""
        cost = self._cost(size)
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._free >= cost, timeout
            )
            if found:
                self._free -= cost
            return found

    def release(self, size: int) -> None:
        """Give back what was taken for a block of so many bytes."""
        with self._changed:
            self._free += self._cost(size)
            self._changed.notify_all()

    def _cost(self, size: int) -> int:
        return min(max(size, SPOOL_BYTES), self._total)


@dataclass(frozen=True)
class Shared:
    """What all fetches of one transfer share.

    Attributes:
        connections: that may be open to one server.
        retries: failures in a row of one image that are forgiven.
        room: for blocks that wait to be decoded.
        cancelled: set when all shall end.
    """

    connections: int
    retries: int
    progress: Progress
    room: Room
    pool: BlockPool = field(default_factory=BlockPool)
    xz_blocks: XzBlocks = field(default_factory=XzBlocks)
    streams: OpenStreams = field(default_factory=OpenStreams)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise Cancelled when all shall end."""
        if self.cancelled.is_set():
            raise errors.Cancelled('stopped')

    def pause(self, seconds: float) -> None:
        """Wait; raise Cancelled when all shall end."""
        if self.cancelled.wait(seconds):
            raise errors.Cancelled('stopped')
