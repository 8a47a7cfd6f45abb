"""Put the blocks of an image where they belong, and note that they are done.

A block that is here as a whole is decoded by a thread of the pool and written
at its place; a piece of a plain file was written when it came. Then it is
noted as done: no kill makes anybody fetch it again. The digests follow
behind, in the order of the image.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import ContextManager, Dict, Optional, Tuple

from ..core.model import Digest, Image
from ..formats.block import Block
from ..formats.blocks import BlockMap
from . import checking
from .claims import Claims, Part
from .digests import Behind
from .jobs import Jobs
from .mapping import Mapped
from .shared import Shared
from .store_ports import BlockSpool, Blocks, Stage
from .target import Target
from .units import CorruptStream, Unit, open_zstd

READ_BYTES = 256 << 10

#: So much of an image is brought to the disk at once. Nobody waits for that
#: but at the end, so the end shall not have to do all of it.
FLUSH_BYTES = 64 << 20

#: How soon it is seen that all shall end.
ROOM_SECONDS = 0.2


def place_blocks(
    image: Image,
    stage: Stage,
    mapped: Mapped,
    shared: Shared,
    jobs: Jobs,
    location: str,
) -> Tuple[Claims, Landing]:
    """Return what is to be fetched of a file, and where it goes.

    Args:
        stage: takes the blocks, in any order.
        location: where the file is, for messages.

    Raises:
        ValueError: what the stage holds was not received by these blocks.
    """
    assert mapped.map is not None
    blocks = stage.by_blocks(mapped.map.image_size)
    missing = mapped.map.missing(
        blocks.consumed, blocks.produced, blocks.ahead
    )
    blocks.drop_spools(
        () if mapped.map.plain else {block.offset for block in missing}
    )
    claims = Claims(missing, blocks.spooled(), shared.connections)
    return claims, Landing(
        image, blocks, mapped.map, mapped.validator, shared, jobs, location,
        checking.RoomWatch(image, stage),
    )


class Landing(Target):
    """The blocks of one image that have come.

    Args:
        validator: the state of the file at its source.
        location: where the file is, for messages.
    """

    def __init__(
        self,
        image: Image,
        blocks: Blocks,
        block_map: BlockMap,
        validator: Optional[str],
        shared: Shared,
        jobs: Jobs,
        location: str,
        room: checking.RoomWatch,
    ) -> None:
        self._image = image
        self._room = room
        self._blocks = blocks
        self._map = block_map
        self._validator = validator
        self._shared = shared
        self._jobs = jobs
        self._location = location
        self._spools: Dict[Part, BlockSpool] = {}
        self._consumed, self._produced = blocks.consumed, blocks.produced
        self._ahead = {block.at: block for block in blocks.ahead}
        self._noting = threading.Lock()
        self._behind = Behind(
            checking.algorithms(image), blocks, lambda: self._produced
        )
        self._written = 0
        self._move_front()
        self._note()

    @property
    def horizon(self) -> int:
        """How far in the file blocks may be asked for: all of it."""
        return self._map.file_size

    @property
    def has_work(self) -> bool:
        """Whether so much was written that it should go to the disk."""
        return self._written >= FLUSH_BYTES

    def work(self) -> None:
        """Bring to the disk what was written; others go on meanwhile."""
        with self._jobs.changed:
            self._written = 0
        self._blocks.flush()

    @property
    def is_done(self) -> bool:
        """Whether all of the image is written and hashed."""
        return self._behind.position >= self._map.image_size

    def begin(self, parts: Tuple[Part, ...]) -> None:
        if not self._map.plain:
            self._spools = {
                part: self._blocks.spool(part.block.offset) for part in parts
            }
        for part in parts:
            if part.is_complete:
                self.land(part)
        self._jobs.decode(self._behind.advance)

    def put(self, part: Part, chunk: bytes, offset: int) -> None:
        if self._map.plain:
            self._blocks.write(chunk, part.block.at + offset)
        else:
            self._spools[part].write(chunk, offset)

    def land(self, part: Part) -> None:
        """Decode a block that is complete, in another thread."""
        self._jobs.decode(functools.partial(self._land, part))

    def take_room(self, part: Part) -> None:
        if self._map.plain or part.has_room or part.is_complete:
            return
        size = part.block.size
        while not self._shared.room.acquire(size, ROOM_SECONDS):
            self._jobs.check()
        with part.lock:
            # Another connection may have been faster meanwhile.
            needless = part.has_room or part.is_complete
            part.has_room = part.has_room or not needless
        if needless:
            self._shared.room.release(size)

    def give_room(self, part: Part) -> None:
        with part.lock:
            had, part.has_room = part.has_room, False
        if had:
            self._shared.room.release(part.block.size)

    def finish(self) -> Tuple[Digest, ...]:
        digests = self._behind.finish()
        checking.check_digests(self._image, digests, self._location)
        return digests

    def stop(self) -> None:
        self._behind.stop()

    def close(self, parts: Tuple[Part, ...]) -> None:
        for spool in self._spools.values():
            spool.close()
        for part in parts:
            self.give_room(part)
            block = part.block
            # Of a plain file any range may be done, and is written.
            noted = block.at in self._ahead or block.at < self._produced
            if self._map.plain and part.received and not noted:
                self._ahead[block.at] = Block(
                    block.offset, part.received, block.at, part.received
                )
        if self._map.plain and not self.is_done:
            self._move_front()
            self._note()

    def _land(self, part: Part) -> None:
        try:
            if not self._map.plain:
                self._decode(part.block, self._spools[part])
        except CorruptStream as error:
            raise checking.damaged(
                self._image, error, self._location
            ) from None
        finally:
            self.give_room(part)
        # Not the jobs' lock: while others bring the image to the disk, the
        # rename of a note takes up to 70 ms.
        with self._noting:
            self._ahead[part.block.at] = part.block
            self._move_front()
            self._note()
        with self._jobs.changed:
            self._written += part.block.makes
        if not self._map.plain:
            self._spools[part].remove()
        self._behind.advance()

    def _decode(self, block: Block, spool: BlockSpool) -> None:
        """Write what a block makes at its place in the image."""
        here = block.at
        with self._open_unit(block) as unit:
            for start in range(0, block.size, READ_BYTES):
                self._jobs.check()
                length = min(READ_BYTES, block.size - start)
                for piece in unit.feed(spool.read(length, start)):
                    if here + len(piece) > block.until:
                        raise CorruptStream(
                            f'a block makes more than {block.makes} bytes'
                        )
                    self._room.take(len(piece))
                    self._blocks.write(piece, here)
                    here += len(piece)

    def _open_unit(self, block: Block) -> ContextManager[Unit]:
        if self._image.compression == 'xz':
            return self._shared.xz_blocks.unit(
                self._map.preamble, block.size, block.makes
            )
        return contextlib.nullcontext(
            Unit(open_zstd, size=block.size, makes=block.makes)
        )

    def _move_front(self) -> None:
        """Count as done what has no gap before it."""
        while self._produced in self._ahead:
            block = self._ahead.pop(self._produced)
            self._consumed, self._produced = block.end, block.until
        if self._produced == self._map.image_size:
            self._consumed = self._map.file_size

    def _note(self) -> None:
        """Keep what is done, for a later transfer."""
        whole = self._consumed == self._map.file_size
        begun = self._produced > 0
        self._blocks.note(
            self._consumed, self._produced, tuple(self._ahead.values()),
            self._validator,
            # At the end of a file a new stream could begin.
            self._map.preamble if begun and not whole else b'',
        )
