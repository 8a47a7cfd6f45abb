"""Decode the blocks of an .xz file side by side, in bounded memory.

Decoding .xz takes far longer than all else, and an image is as a rule one
file with many blocks. So whole blocks go to a pool that all images of a
transfer share; what comes out is handed on in the order of the file. A block
that is too large, or for which there is no room, is decoded on the spot,
piece by piece.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import mmap
import os
import queue
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Iterable, Iterator, List, Optional

from ..tools.threads import Workers
from .decoders import Checkpoint
from .units import CorruptStream, PIECE_BYTES, Unit
from .xz_decoder import XzDecoder

#: lago-images makes blocks of 16 MiB (``xz --block-size=16777216``); what
#: cannot be compressed takes a little more.
LARGEST_BLOCK_BYTES = 17 << 20

#: Blocks that may be in the pool or wait to be taken out of it. One more
#: than processors keeps these busy.
MOST_BLOCKS = 7

#: How soon it is seen that a thread has lost what it did.
WAKE_SECONDS = 0.5


@dataclass(frozen=True)
class Running:
    """A block in the pool; the future gives its length in the buffer."""

    future: 'concurrent.futures.Future[int]'
    buffer: mmap.mmap


class BlockPool:
    """The threads that decode, and the buffers that they decode into.

    The buffers are used again and again: memory that is given back and taken
    anew for each block takes a fifth more processor time in all, and what
    the allocator keeps of it is not bounded. Where there is little memory,
    there are fewer of them, or none.

    Attributes:
        lost: errors of jobs that nobody else tells of; see `Workers`.
    """

    def __init__(self) -> None:
        processors = len(os.sched_getaffinity(0))
        self._workers = Workers(processors, 'decode')
        self.lost: List[BaseException] = self._workers.lost
        self._buffers: 'queue.SimpleQueue[mmap.mmap]' = queue.SimpleQueue()
        # list.pop needs no lock.
        self._unmade = [None] * min(processors + 1, MOST_BLOCKS)

    def submit(self, unit: Unit, data: bytes) -> Optional[Running]:
        """Begin to decode a block; None when there is no buffer for it."""
        buffer = self._find_buffer()
        if buffer is None:
            return None
        found, future = buffer, concurrent.futures.Future[int]()

        def decode() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(_decode_into(unit, data, found))
                except BaseException as error:  # raised by `take`
                    future.set_exception(error)

        try:
            self._workers.submit(decode)
        except BaseException:
            self._buffers.put(buffer)
            raise
        return Running(future, buffer)

    def _find_buffer(self) -> Optional[mmap.mmap]:
        with contextlib.suppress(queue.Empty):
            return self._buffers.get_nowait()
        # IndexError: there are all; else there is no memory for one more.
        with contextlib.suppress(IndexError, OSError, MemoryError):
            self._unmade.pop()
            return mmap.mmap(-1, LARGEST_BLOCK_BYTES)
        return None

    def take(self, running: Running) -> Iterator[bytes]:
        """Yield what a block was decoded to, and give its buffer back.

        Raises:
            CorruptStream: it is damaged.
        """
        try:
            while not running.future.done():
                if self.lost:
                    raise self.lost[0]
                concurrent.futures.wait([running.future], WAKE_SECONDS)
            length = running.future.result()
            for start in range(0, length, PIECE_BYTES):
                yield running.buffer[start:min(start + PIECE_BYTES, length)]
        finally:
            self._buffers.put(running.buffer)

    def drop(self, running: Running) -> None:
        """Give the buffer of a block back that nobody wants any more."""
        running.future.cancel()
        running.future.add_done_callback(
            lambda _: self._buffers.put(running.buffer)
        )

    def run(self, function: Callable[[], None]) -> None:
        """Call a function in one of the threads; it must not raise."""
        self._workers.submit(function)

    def close(self) -> None:
        """Let the threads end; they finish the block they are at."""
        self._workers.close()

    def join(self) -> None:
        """Wait until they have ended, after `close`."""
        self._workers.join()


def _decode_into(unit: Unit, data: bytes, buffer: mmap.mmap) -> int:
    length = 0
    for piece in unit.feed(data):
        if length + len(piece) > len(buffer):
            raise CorruptStream('a block makes more than its header says')
        buffer[length:length + len(piece)] = piece
        length += len(piece)
    return length


@dataclass(frozen=True)
class _Block:
    """A block in the pool; `end` is where it ends in the file."""

    running: Running
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
            while self._blocks and self._blocks[0].running.future.done():
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
        with memoryview(self._pending) as pending:
            data = bytes(pending[:size])
        self._drop(size)
        self._unit = None
        running = self._pool.submit(unit, data)
        while running is None and self._blocks:
            yield from self._hand_on(self._blocks.popleft())
            running = self._pool.submit(unit, data)
        if running is None:  # others have taken all room
            yield from self._finish_block(
                unit.feed(data), self._position, self._preamble
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
        self, pieces: Iterable[bytes], end: int, preamble: bytes
    ) -> Iterator[bytes]:
        for piece in pieces:
            self._produced += len(piece)
            yield piece
        self.checkpoint = Checkpoint(end, self._produced, preamble)
