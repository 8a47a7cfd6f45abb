"""Hand on an image's file in its order, although its pieces come in any.

For files that can only be decoded from their beginning: .gz, and whatever was
compressed as one block. Connections fetch pieces of such a file, not far
ahead of what was decoded. What waits for its turn is in memory: that much has
to come again after a kill.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Iterable, Iterator, List, Tuple

from ..core.model import Digest, Image
from ..formats.block import Block
from .claims import Claims, Part
from .jobs import Jobs
from .mapping import Mapped
from .receive import Receiver
from .shared import Shared
from .store_ports import Stage
from .target import Target

#: All that is asked for and not decoded yet lies in so many bytes. After a
#: kill 16 MiB may come again; the rest of that is for what is on its way.
WINDOW_BYTES = 12 << 20


def order_pieces(
    image: Image,
    stage: Stage,
    mapped: Mapped,
    shared: Shared,
    jobs: Jobs,
    location: str,
) -> Tuple[Claims, Ordered]:
    """Return what is to be fetched of a file, and where it goes.

    Args:
        stage: is filled from its beginning to its end.
        location: where the file is, for messages.
    """
    receiver = Receiver(image, stage, location, shared.pool)
    receiver.begin(mapped.validator)
    # One more than there are connections: nobody waits for the decoder.
    size = WINDOW_BYTES // (shared.connections + 1)
    claims = Claims(
        _cut(receiver.offset, mapped.size, size), {}, shared.connections,
        run_bytes=size,
    )
    return claims, Ordered(receiver, claims.parts, mapped.size, jobs)


def _cut(start: int, end: int, size: int) -> Iterator[Block]:
    """Yield pieces of a file; what they make is not known."""
    for offset in range(start, end, size):
        yield Block(offset, min(size, end - offset), offset, 0)


class Ordered(Target):
    """The pieces of one file that have come.

    Args:
        receiver: gets them in their order, by the thread that waits for the
            image.
        size: of the file in bytes.
    """

    def __init__(
        self,
        receiver: Receiver,
        parts: Iterable[Part],
        size: int,
        jobs: Jobs,
    ) -> None:
        self._receiver = receiver
        self._size = size
        self._jobs = jobs
        #: From the one on whose turn it is.
        self._parts: Deque[Part] = deque(parts)
        self._chunks: Dict[Part, List[bytes]] = {
            part: [] for part in self._parts
        }

    @property
    def horizon(self) -> int:
        return self._receiver.offset + WINDOW_BYTES

    @property
    def has_work(self) -> bool:
        return bool(self._parts and self._chunks[self._parts[0]])

    @property
    def is_done(self) -> bool:
        return self._receiver.offset >= self._size

    def put(self, part: Part, chunk: bytes, offset: int) -> None:
        fresh = chunk[part.received - offset:]
        with self._jobs.changed:
            self._chunks[part].append(fresh)
            if part is self._parts[0]:
                self._jobs.changed.notify_all()

    def work(self) -> None:
        while self._parts:
            part = self._parts[0]
            with self._jobs.changed:
                chunks, self._chunks[part] = self._chunks[part], []
            for chunk in chunks:
                self._jobs.raise_failure()
                self._receiver.feed(chunk)
            if self._receiver.offset < part.block.end:
                return
            self._parts.popleft()

    def finish(self) -> Tuple[Digest, ...]:
        return self._receiver.finish()

    def close(self, parts: Tuple[Part, ...]) -> None:
        self._receiver.close()
