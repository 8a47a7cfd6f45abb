"""What all fetches of one transfer share."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Iterator, Set

from ..core import errors
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


@dataclass(frozen=True)
class Shared:
    """What all fetches of one transfer share.

    Attributes:
        connections: that may be open to one server.
        retries: failures in a row of one image that are forgiven.
        room: for blocks that wait to be decoded; bounds what is on disk.
        cancelled: set when all shall end.
    """

    connections: int
    retries: int
    progress: Progress
    room: threading.Semaphore
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
