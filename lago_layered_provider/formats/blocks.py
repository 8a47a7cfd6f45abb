"""Where the blocks of an image's file are, as the end of the file tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Sequence, Tuple, Union

from . import xz, xz_index, zstd
from .block import Block, Needed

#: Plain files are cut into pieces; a kill costs one for each connection.
PIECE_BYTES = 2 << 20

#: Larger blocks are better decoded while they come.
LARGEST_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class BlockMap:
    """The blocks of a file, in order.

    Attributes:
        file_size: bytes of the file at its source.
        image_size: bytes of the image.
        plain: the file is the image; its blocks are but pieces.
        preamble: what a decompressor must see before any block.
    """

    blocks: Tuple[Block, ...]
    file_size: int
    image_size: int
    plain: bool = False
    preamble: bytes = b''

    @property
    def is_useful(self) -> bool:
        """Whether fetching by blocks is better than all in one go."""
        return len(self.blocks) > 1 and all(
            0 < block.size <= LARGEST_BLOCK_BYTES for block in self.blocks
        )

    @property
    def to_fetch(self) -> int:
        """Bytes of all blocks in the file."""
        return sum(block.size for block in self.blocks)

    def missing(
        self, consumed: int, produced: int, ahead: Sequence[Block]
    ) -> Tuple[Block, ...]:
        """Return the blocks that are left to fetch, in order.

        Args:
            consumed, produced: offsets in file and image; what lies before
                is done.
            ahead: what is done beyond that. Of a plain file any range may
                be done, of others whole blocks.

        Raises:
            ValueError: what is done does not belong to this file.
        """
        if self.plain:
            ends = [consumed, *(block.end for block in ahead)]
            moved = [
                block for block in ahead
                if (block.offset, block.size) != (block.at, block.makes)
            ]
            if max(ends) > self.file_size or produced != consumed or moved:
                raise ValueError('pieces of another file')
            return tuple(_cut_gaps(consumed, ahead, self.file_size))
        before = [block for block in self.blocks if block.offset < consumed]
        end = before[-1] if before else Block(0, 0, 0, 0)
        done = set(ahead)
        if (
            end.end > consumed or end.until != produced
            or not done <= set(self.blocks)
        ):
            raise ValueError('blocks of another file')
        return tuple(
            block for block in self.blocks[len(before):] if block not in done
        )


def read_map(
    compression: Optional[str], tail: bytes, file_size: int
) -> Union[BlockMap, Needed, None]:
    """Return the map of a file, None where there is none.

    Args:
        tail: the end of the file, as much of it as is at hand.
        file_size: of the whole file, in bytes.

    Returns:
        `Needed` when the tail must be longer.

    Raises:
        BadXz: it is no .xz file although it should be one.
    """
    if compression is None:
        pieces = tuple(_cut_gaps(0, (), file_size))
        return BlockMap(pieces, file_size, file_size, plain=True)
    if compression == 'xz':
        index = xz_index.parse_index_tail(tail, file_size)
        if not isinstance(index, xz_index.XzIndex):
            return index
        blocks = tuple(block for block in index.blocks if block.makes)
        return BlockMap(
            blocks, file_size, index.uncompressed_size,
            preamble=xz.make_stream_header(index.check),
        )
    if compression == 'zst':
        frames = zstd.parse_seek_table(tail, file_size)
        if frames is None or isinstance(frames, Needed):
            return frames
        return BlockMap(
            frames, file_size, frames[-1].until if frames else 0
        )
    return None


def _cut_gaps(
    start: int, done: Sequence[Block], size: int
) -> Iterator[Block]:
    """Yield pieces of a plain file that are not done."""
    for block in (*sorted(done, key=_offset), Block(size, 0, size, 0)):
        while start < block.offset:
            length = min(PIECE_BYTES, block.offset - start)
            yield Block(start, length, start, length)
            start += length
        start = max(start, block.end)


def _offset(block: Block) -> int:
    return block.offset
