"""The index of an .xz file: where its blocks are and how large they are.

Section numbers are those of "The .xz File Format", as in `xz`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple, Union

from .block import Block, Needed
from .xz import (
    BadXz,
    HEADER_BYTES,
    crc32,
    padded,
    parse_integer,
    parse_stream_footer,
)

#: A record takes about eight bytes: room for two million blocks. Larger
#: ones would only serve to fill our memory.
MAX_INDEX_BYTES = 16 << 20

#: Of zeros after the stream; a file of nothing else would be asked for in
#: ever longer tails, up to the whole of it.
MAX_PADDING_BYTES = 60 << 10


@dataclass(frozen=True)
class Record:
    """What the index says of a block, in bytes (section 4.3)."""

    unpadded_size: int
    uncompressed_size: int

    @property
    def total(self) -> int:
        """The size of the whole block in the file."""
        return padded(self.unpadded_size)


@dataclass(frozen=True)
class Index:
    """The index of a stream; `size` is its length in the file, in bytes."""

    size: int
    records: Tuple[Record, ...]


@dataclass(frozen=True)
class XzIndex:
    """All blocks of a file of one stream, in order; `check` is its id."""

    blocks: Tuple[Block, ...]
    uncompressed_size: int
    check: int


def parse_index(data: bytes) -> Union[Index, Needed]:
    """Read an index from its first byte on (4); `data` may go on after it.

    Raises:
        BadXz: this is no index, or one above `MAX_INDEX_BYTES`.
    """
    if data[:1] != b'\0':
        raise BadXz('this is not an xz index')
    values: List[int] = []
    wanted, position = 1, 1
    while len(values) < wanted:
        parsed = parse_integer(data, position)
        if parsed is None:
            # An integer takes a byte at least: callers that collect so many
            # bytes before they try again have few tries to make.
            return _needed(len(data) + wanted - len(values) + 4)
        value, position = parsed
        values.append(value)
        if len(values) == 1:
            wanted += 2 * value
            _needed(wanted)
    size = padded(position) + 4
    if len(data) < size:
        return _needed(size)
    if any(data[position:size - 4]):
        raise BadXz('the padding of the xz index is not zero')
    if crc32(data[:size - 4]) != data[size - 4:size]:
        raise BadXz('the xz index is damaged')
    return Index(size, tuple(map(Record, values[1::2], values[2::2])))


def _needed(size: int) -> Needed:
    if size > MAX_INDEX_BYTES:
        raise BadXz(f'the xz index is above {MAX_INDEX_BYTES} bytes')
    return Needed(size)


def parse_index_tail(
    tail: bytes, file_size: int
) -> Union[XzIndex, Needed, None]:
    """Read the index of a file from its last bytes.

    Args:
        tail: the end of the file, as much of it as is at hand.
        file_size: of the whole file, in bytes.

    Returns:
        `Needed` when the tail must be longer, None when the file holds
        several streams, so that its last index does not tell all.

    Raises:
        BadXz: this is not the end of an .xz file.
    """
    end = len(tail.rstrip(b'\0'))
    # Stream padding (2.2) comes in fours; before it a footer ends in 'YZ'.
    padding = len(tail) - end
    if end and padding % 4 or len(tail) > file_size:
        raise BadXz('this is not the end of an xz file')
    if padding > MAX_PADDING_BYTES:
        raise BadXz(f'more than {MAX_PADDING_BYTES} zeros at the end')
    if end < HEADER_BYTES:
        return _tail_needed(padding + 2 * HEADER_BYTES, len(tail), file_size)
    check, index_size = parse_stream_footer(tail[end - HEADER_BYTES:end])
    _needed(index_size)
    start = end - HEADER_BYTES - index_size
    if start < 0:
        return _tail_needed(len(tail) - start, len(tail), file_size)
    index = parse_index(tail[start:end - HEADER_BYTES])
    if isinstance(index, Needed) or index.size != index_size:
        raise BadXz('the xz stream footer and the index do not agree')
    blocks = _place_blocks(index.records)
    used = blocks[-1].offset + blocks[-1].size if blocks else HEADER_BYTES
    stream_size = used + index_size + HEADER_BYTES
    if stream_size + padding > file_size:
        raise BadXz('the xz index speaks of more than the file holds')
    if stream_size + padding < file_size:
        return None
    return XzIndex(blocks, sum(block.makes for block in blocks), check)


def _tail_needed(size: int, have: int, file_size: int) -> Needed:
    """Ask for a tail of `size` bytes, or of the whole file if it is less."""
    if have >= file_size:
        raise BadXz('the file is too short for an xz stream')
    return Needed(min(max(size, have + 1), file_size))


def _place_blocks(records: Sequence[Record]) -> Tuple[Block, ...]:
    blocks = []
    offset, position = HEADER_BYTES, 0
    for record in records:
        if record.unpadded_size < 5:
            raise BadXz('the xz index holds a block of no bytes')
        blocks.append(Block(
            offset, record.total, position, record.uncompressed_size
        ))
        offset += record.total
        position += record.uncompressed_size
    return tuple(blocks)
