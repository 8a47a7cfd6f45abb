"""Decide which connection fetches which blocks of an image.

Nothing here reads a file, a clock or a network; times are given, in seconds.

A connection claims a run: blocks that follow each other, for one request.
Runs are long while much is left, so that few round trips are waited for, and
short near the end, so that all connections end together. When nothing is
left to claim, the slowest run is helped: a second connection asks for the
rest of it, and whoever has a block first has it for both.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Collection, Dict, Iterable, List, Optional

from ..formats.block import Block

#: The most that one request asks for, as a rule.
RUN_BYTES = 16 << 20

#: Too little says nothing about how fast a connection is.
MEASURED_BYTES = 256 << 10

#: A run that is quiet for so long is taken for a stalled one, and helped.
QUIET_SECONDS = 3.0

#: The same where nobody knows yet how fast a connection is.
FIRST_QUIET_SECONDS = 10.0

#: What a second request costs; a run that ends sooner is not helped.
HELP_SECONDS = 1.0


@dataclass(eq=False)
class Part:
    """A block on its way.

    Attributes:
        received: bytes that are here, from its beginning, without gaps.
        readers: connections that are fetching it.
        lock: held while its bytes are taken in.
        has_room: it counts as one that waits to be decoded.
    """

    block: Block
    received: int = 0
    readers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    has_room: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all of it is here."""
        return self.received >= self.block.size

    @property
    def next(self) -> int:
        """The next byte that is wanted of the file at its source."""
        return self.block.offset + self.received


@dataclass(eq=False)
class Run:
    """What one connection fetches in one request.

    Attributes:
        parts: one after the other in the file.
        current: the index of the part that is being received.
        claimed: when it began.
        started: the same, later by the time in which nobody read.
        last: when bytes came last.
        got: bytes that came.
        waits: nobody reads, for want of room: no fault of the connection.
        helped: a second connection fetches the rest of it.
    """

    parts: List[Part]
    start: int
    claimed: float
    started: float
    last: float
    current: int = 0
    got: int = 0
    waits: bool = False
    helped: bool = False

    @property
    def end(self) -> int:
        """What follows it in the file at its source."""
        return self.parts[-1].block.end

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return sum(
            part.block.size - part.received
            for part in self.parts[self.current:]
        )


class Claims:
    """The blocks of an image that are not here, and who fetches them.

    Args:
        received: bytes at hand of blocks that an earlier transfer began, by
            the block's offset.
        connections: that may fetch at once.
        run_bytes: the most that one request asks for, if it is more than a
            block.
    """

    def __init__(
        self,
        blocks: Iterable[Block],
        received: Dict[int, int],
        connections: int,
        *,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self.parts = tuple(
            Part(block, min(received.get(block.offset, 0), block.size))
            for block in blocks
        )
        self._pending = [
            part for part in self.parts if not part.is_complete
        ]
        self._left = sum(
            part.block.size - part.received for part in self._pending
        )
        self._connections = connections
        self._run_bytes = run_bytes
        self._running: List[Run] = []
        self._best = 0.0

    def claim(self, now: float, horizon: int) -> Optional[Run]:
        """Return the next run, None when all blocks are on their way.

        Args:
            horizon: no block is asked for that ends beyond, in the file.
        """
        if not self._pending or self._pending[0].block.end > horizon:
            return None
        limit = min(self._run_bytes, self._left // (2 * self._connections))
        parts = [self._pending.pop(0)]
        size = parts[0].block.size - parts[0].received
        while self._pending:
            part = self._pending[0]
            size += part.block.size
            follows = part.block.offset == parts[-1].block.end
            fits = size <= limit and part.block.end <= horizon
            if not follows or part.received or not fits:
                break
            parts.append(self._pending.pop(0))
        return self._begin(parts, now)

    def help(
        self, now: float, unread: Collection[Run] = ()
    ) -> Optional[Run]:
        """Return what is left of the slowest run, None if none is slow.

        Args:
            unread: runs of which bytes came that nobody has read yet; their
                readers are slow, not their connections.
        """
        best = max([self._best, *(
            run.got / (now - run.started + 1e-6)
            for run in self._running if run.got >= MEASURED_BYTES
        )])
        slow = [
            run for run in self._running
            if run not in unread and _is_slow(run, best, now)
        ]
        if not slow:
            return None
        slowest = max(slow, key=lambda run: (now - run.last, run.left))
        slowest.helped = True
        parts = slowest.parts[slowest.current:]
        # The part that is being received has two readers from now on, the
        # others change hands.
        del slowest.parts[slowest.current + 1:]
        for part in parts[1:]:
            part.readers -= 1
            self._left += part.block.size
        self._left += parts[0].block.size - parts[0].received
        return self._begin(parts, now)

    def is_needless(self, run: Run) -> bool:
        """Tell whether others have brought all that a run is for."""
        return run.parts[run.current] is run.parts[-1] and not run.left

    def take(self, run: Run, count: int, now: float) -> None:
        """Note that bytes came."""
        run.got += count
        run.last = now

    def wait(self, run: Run, seconds: float) -> None:
        """Note that nobody read for so long."""
        run.started += seconds
        run.last += seconds

    def end(self, run: Run, now: float) -> None:
        """Note that a run is over; what nobody fetches is pending again."""
        self._running.remove(run)
        if run.got >= MEASURED_BYTES:
            self._best = max(self._best, run.got / (now - run.started + 1e-6))
        for part in run.parts[run.current:]:
            part.readers -= 1
            if not part.readers and not part.is_complete:
                self._pending.append(part)
                self._left += part.block.size - part.received
        self._pending.sort(key=lambda part: part.block.offset)
        for other in self._running:
            # Who was helped by this run, or helped it, may get other help.
            other.helped = other.helped and not any(
                part in run.parts for part in other.parts[other.current:]
            )

    def next_part(self, run: Run, last: Optional[Part]) -> Optional[Part]:
        """Return the part after `last`, None at the end of the run."""
        if last is not None:
            last.readers -= 1
            run.current += 1
        if run.current < len(run.parts):
            return run.parts[run.current]
        return None

    def _begin(self, parts: List[Part], now: float) -> Run:
        for part in parts:
            part.readers += 1
            self._left -= part.block.size - part.received
        run = Run(parts, parts[0].next, now, now, now)
        self._running.append(run)
        return run


def _is_slow(run: Run, best: float, now: float) -> bool:
    """Tell whether another connection would end much sooner.

    Args:
        best: bytes that one connection brings in a second.
    """
    left = run.left
    if run.waits or run.helped or not left:
        return False
    if not best:
        return now - run.last > FIRST_QUIET_SECONDS
    alone = left / best
    if now - run.last > QUIET_SECONDS + alone:
        return True
    elapsed = now - run.started
    if elapsed < HELP_SECONDS:
        return False
    return left * elapsed > run.got * (2 * alone + HELP_SECONDS)
