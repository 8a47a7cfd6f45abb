"""Make the digests of an image whose blocks are written in any order.

What is written is hashed in the order of the image, right behind those who
write it: what it reads back is what the kernel has in memory still.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Callable, Iterable, Protocol, Tuple

from ..core.model import Digest

BUFFER_BYTES = 1 << 20


class Written(Protocol):
    """What has been written of an image."""

    def read_into(self, buffer: memoryview, position: int) -> None:
        """Fill a buffer with what was written at `position`."""


class Behind:
    """The digests of the bytes from the first one on.

    Args:
        written: how far the image is without gaps, in bytes.
    """

    def __init__(
        self,
        algorithms: Iterable[str],
        image: Written,
        written: Callable[[], int],
    ) -> None:
        self._hashers = {name: hashlib.new(name) for name in algorithms}
        self._image = image
        self._written = written
        self._lock = threading.Lock()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._stopped = False
        self.position = 0

    def advance(self) -> None:
        """Catch up, unless another thread is at it already."""
        while self.position < self._written() and not self._stopped:
            # Who holds the lock looks once more after he has let it go.
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._hash(self._written())
            finally:
                self._lock.release()

    def stop(self) -> None:
        """Make `advance` return soon."""
        self._stopped = True

    def finish(self) -> Tuple[Digest, ...]:
        """Return the digests of all that was hashed."""
        return tuple(
            Digest(name, hasher.hexdigest())
            for name, hasher in self._hashers.items()
        )

    def _hash(self, end: int) -> None:
        while self.position < end and not self._stopped:
            part = self._buffer[:min(BUFFER_BYTES, end - self.position)]
            self._image.read_into(part, self.position)
            for hasher in self._hashers.values():
                hasher.update(part)
            self.position += len(part)
