"""Decode the blocks of an .xz file side by side, in bounded memory.

Decoding .xz takes far longer than all else, and an image is as a rule one
file with many blocks. So whole blocks go to a pool that all images of a
transfer share; what comes out is handed on in the order of the file. A block
that is too large, or for which there is no room, is decoded on the spot.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Deque, Iterator, Optional

from .decoders import Checkpoint
from .units import Unit
from .xz_decoder import XzDecoder

#: lago-images makes blocks of 16 MiB (``xz --block-size=16777216``); what
#: cannot be compressed takes a little more.
LARGEST_BLOCK_BYTES = 17 << 20

#: Blocks that may be in the pool or wait to be taken out of it: two more
#: than processors keep these busy. Each is its input and its output.
MOST_BLOCKS = 7


class BlockPool:
    """The threads that decode, and the room for blocks."""

    def __init__(self) -> None:
        processors = len(os.sched_getaffinity(0))
        self._threads = concurrent.futures.ThreadPoolExecutor(
            processors, thread_name_prefix='decode'
        )
        self._room = threading.Semaphore(min(processors + 2, MOST_BLOCKS))

    def submit(
        self, unit: Unit, data: bytes
    ) -> 'Optional[concurrent.futures.Future[bytes]]':
        """Begin to decode a block; None when there is no room for it."""
        if not self._room.acquire(blocking=False):
            return None
        try:
            return self._threads.submit(decode_whole, unit, data)
        except BaseException:
            self._room.release()
            raise

    def take(
        self, running: 'concurrent.futures.Future[bytes]'
    ) -> bytes:
        """Return what a block was decoded to, and give its room back.

        Raises:
            CorruptStream: it is damaged.
        """
        try:
            return running.result()
        finally:
            self._room.release()

    def drop(self, running: 'concurrent.futures.Future[bytes]') -> None:
        """Give the room of a block back that nobody wants any more."""
        running.cancel()
        self._room.release()

    def close(self) -> None:
        """Let the threads end; they finish the block they are at."""
        self._threads.shutdown(wait=False)


def decode_whole(unit: Unit, data: bytes) -> bytes:
    """Return what all bytes of a unit make."""
    return b''.join(unit.feed(data))


@dataclass(frozen=True)
class _Block:
    """A block in the pool; `end` is where it ends in the file."""

    running: 'concurrent.futures.Future[bytes]'
    end: int
    preamble: bytes


class ParallelXzDecoder(XzDecoder):
    """An .xz file whose blocks are decoded by a pool; see `Decoder`.

    The checkpoint is the end of the last block that was handed on.
    """

    def __init__(
        self, consumed: int, preamble: bytes, pool: BlockPool
    ) -> None:
        super().__init__(consumed, preamble)
        self._pool = pool
        self._blocks: Deque[_Block] = deque()

    def flush(self) -> Iterator[bytes]:
        """Yield what is still in the pool."""
        while self._blocks:
            yield from self._hand_on(self._blocks.popleft())

    def close(self) -> None:
        """Leave the pool; nothing more is wanted."""
        while self._blocks:
            self._pool.drop(self._blocks.popleft().running)

    def _decode_pending(self) -> Iterator[bytes]:
        while self._pending or self._unit:
            while self._blocks and self._blocks[0].running.done():
                yield from self._hand_on(self._blocks.popleft())
            if self._unit is None:
                if self._preamble and not self._pending[0]:
                    # The index ends the stream, and moves the checkpoint.
                    yield from self.flush()
                self._unit = self._find_unit()
                if self._unit is None:
                    return
            if self._unit.begun or not self._unit.fits(LARGEST_BLOCK_BYTES):
                yield from self.flush()
                yield from super()._decode_pending()
                return
            size = self._unit.size or 0
            if len(self._pending) < size:
                return
            yield from self._start_block(self._unit, size)

    def _start_block(self, unit: Unit, size: int) -> Iterator[bytes]:
        data = bytes(self._pending[:size])
        self._drop(size)
        self._unit = None
        running = self._pool.submit(unit, data)
        if running is None:
            yield from self.flush()
            yield from self._finish_block(
                decode_whole(unit, data), self._position, self._preamble
            )
        else:
            self._blocks.append(
                _Block(running, self._position, self._preamble)
            )

    def _hand_on(self, block: _Block) -> Iterator[bytes]:
        yield from self._finish_block(
            self._pool.take(block.running), block.end, block.preamble
        )

    def _finish_block(
        self, data: bytes, end: int, preamble: bytes
    ) -> Iterator[bytes]:
        self._produced += len(data)
        yield data
        self.checkpoint = Checkpoint(end, self._produced, preamble)
