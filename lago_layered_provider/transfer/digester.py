"""Make digests in a thread of their own, beside decoding and writing."""

from __future__ import annotations

import contextlib
import hashlib
import queue
from typing import Iterable, Optional, Tuple

from ..core.model import Digest
from ..tools import threads

#: Pieces that may wait; decoding is held up beyond that.
WAITING_PIECES = 8

#: How soon it is seen that the thread has died.
WAKE_SECONDS = 0.5


class Digester:
    """Digests of the bytes given to `update`, in that order.

    Where there is no memory for a thread, `update` makes them.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashers = {name: hashlib.new(name) for name in algorithms}
        self._pieces: 'queue.Queue[Optional[bytes]]' = queue.Queue(
            WAITING_PIECES
        )
        self._error: Optional[BaseException] = None
        self._threads = threads.start(self._run, 1, 'digest', needed=False)

    def update(self, data: bytes) -> None:
        """Take the next bytes; they must not change any more."""
        if self._threads:
            self._put(data)
        else:
            self._hash(data)

    def finish(self) -> Tuple[Digest, ...]:
        """Return the digests of all that was given."""
        self.close()
        if self._error is not None:
            raise self._error
        return tuple(
            Digest(name, hasher.hexdigest())
            for name, hasher in self._hashers.items()
        )

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._put(None)
        threads.join(self._threads)

    def _put(self, data: Optional[bytes]) -> None:
        """Hand something to the thread, as long as it is there."""
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Full):
                self._pieces.put(data, timeout=WAKE_SECONDS)
                return

    def _run(self) -> None:
        try:
            for data in iter(self._pieces.get, None):
                self._hash(data)
        except BaseException as error:  # raised by `finish`
            self._error = error

    def _hash(self, data: bytes) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)
