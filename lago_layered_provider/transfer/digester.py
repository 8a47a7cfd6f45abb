"""Make digests in a thread of their own, beside decoding and writing."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import Iterable, Optional, Tuple

from ..core.model import Digest

#: Pieces that may wait; decoding is held up beyond that.
WAITING_PIECES = 8


class Digester:
    """Digests of the bytes given to `update`, in that order."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashers = {name: hashlib.new(name) for name in algorithms}
        self._pieces: 'queue.Queue[Optional[bytes]]' = queue.Queue(
            WAITING_PIECES
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self, data: bytes) -> None:
        """Take the next bytes; they must not change any more."""
        self._pieces.put(data)

    def finish(self) -> Tuple[Digest, ...]:
        """Return the digests of all that was given."""
        self.close()
        return tuple(
            Digest(name, hasher.hexdigest())
            for name, hasher in self._hashers.items()
        )

    def close(self) -> None:
        """End the thread; may be called twice."""
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            data = self._pieces.get()
            if data is None:
                return
            for hasher in self._hashers.values():
                hasher.update(data)
