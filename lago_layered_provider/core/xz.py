"""The frame of an .xz file: where its blocks are and how large they are.

Reads headers, the index and the footer; never decompresses. That is enough
to tell the size of an image before fetching it, and to cut a file into
blocks that can be decoded each on its own.

Section numbers are those of "The .xz File Format", version 1.2.0
(https://tukaani.org/xz/xz-file-format.txt)::

    stream header (12 bytes)            2.1.1
    block: header, data, padding, check 3       as many as there are
    index: one record a block           4
    stream footer (12 bytes)            2.1.2
    stream padding (zero bytes)         2.2
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple, Union

#: Bytes of a stream header, and of a stream footer.
HEADER_BYTES = 12

#: A record takes about eight bytes: room for two million blocks. Larger
#: ones would only serve to fill our memory.
MAX_INDEX_BYTES = 16 << 20

#: Section 1.2: integers have at most 63 bits, in at most nine bytes.
MAX_INTEGER_BYTES = 9

_HEADER_MAGIC = b'\xfd7zXZ\x00'
_FOOTER_MAGIC = b'YZ'
_RESERVED_BLOCK_FLAGS = 0x3C


class BadXz(ValueError):
    """Bytes that are not what the .xz specification demands."""


@dataclass(frozen=True)
class BlockHeader:
    """A block header; all sizes in bytes.

    Single-threaded encoders leave the sizes out: they are None then.
    """

    size: int
    compressed_size: Optional[int]
    uncompressed_size: Optional[int]

    def unpadded_size(self, check: int) -> Optional[int]:
        """Return the size of the block without its padding, if known."""
        if self.compressed_size is None:
            return None
        return self.size + self.compressed_size + check_size(check)

    def total(self, check: int) -> Optional[int]:
        """Return the size of the whole block, if known."""
        unpadded = self.unpadded_size(check)
        return None if unpadded is None else _padded(unpadded)


@dataclass(frozen=True)
class Record:
    """What the index says of a block, in bytes (section 4.3)."""

    unpadded_size: int
    uncompressed_size: int

    @property
    def total(self) -> int:
        """The size of the whole block in the file."""
        return _padded(self.unpadded_size)


@dataclass(frozen=True)
class Needed:
    """More bytes must be known: `bytes_needed` in all, or even more."""

    bytes_needed: int


@dataclass(frozen=True)
class Index:
    """The index of a stream; `size` is its length in the file, in bytes."""

    size: int
    records: Tuple[Record, ...]


@dataclass(frozen=True)
class XzBlock:
    """A block: where it is in the file, and in the uncompressed data."""

    offset: int
    size: int
    uncompressed_offset: int
    uncompressed_size: int


@dataclass(frozen=True)
class XzIndex:
    """All blocks of a file of one stream, in order."""

    blocks: Tuple[XzBlock, ...]
    uncompressed_size: int


def _padded(size: int) -> int:
    return (size + 3) & ~3


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, 'little')


def check_size(check: int) -> int:
    """Return the bytes that a check takes after its block (2.1.1.2)."""
    return 0 if check == 0 else 4 << (check - 1) // 3


def _parse_stream_flags(flags: bytes) -> int:
    if flags[0] or flags[1] & 0xF0:
        raise BadXz(f'unknown xz stream flags {flags.hex()}')
    return flags[1]


def parse_stream_header(data: bytes) -> int:
    """Return the check id of a stream whose header is `data` (2.1.1).

    Raises:
        BadXz: this is no stream header.
    """
    if len(data) != HEADER_BYTES or not data.startswith(_HEADER_MAGIC):
        raise BadXz('this is not the beginning of an xz stream')
    if _crc32(data[6:8]) != data[8:]:
        raise BadXz('the xz stream header is damaged')
    return _parse_stream_flags(data[6:8])


def parse_stream_footer(data: bytes) -> Tuple[int, int]:
    """Return the check id and the size of the index in bytes (2.1.2).

    Raises:
        BadXz: this is no stream footer.
    """
    if len(data) != HEADER_BYTES or not data.endswith(_FOOTER_MAGIC):
        raise BadXz('this is not the end of an xz stream')
    if _crc32(data[4:10]) != data[:4]:
        raise BadXz('the xz stream footer is damaged')
    backward_size = int.from_bytes(data[4:8], 'little')
    return _parse_stream_flags(data[8:10]), (backward_size + 1) * 4


def block_header_size(first: int) -> int:
    """Return the size of a block header from its first byte (3.1.1).

    A zero there is not a block but the beginning of the index (4.1).
    """
    return (first + 1) * 4


def parse_block_header(data: bytes) -> BlockHeader:
    """Read a block header (3.1), filters aside: the decoder checks those.

    Raises:
        BadXz: this is no block header.
    """
    if not data or not data[0] or len(data) != block_header_size(data[0]):
        raise BadXz('this is not an xz block header')
    if _crc32(data[:-4]) != data[-4:]:
        raise BadXz('an xz block header is damaged')
    flags = data[1]
    if flags & _RESERVED_BLOCK_FLAGS:
        raise BadXz(f'unknown xz block flags {flags:#x}')
    position = 2
    sizes: List[Optional[int]] = [None, None]
    for field, flag in enumerate((0x40, 0x80)):
        if flags & flag:
            parsed = _parse_integer(data[:-4], position)
            if parsed is None:
                raise BadXz('an xz block header ends too early')
            sizes[field], position = parsed
    if sizes[0] == 0:
        raise BadXz('an xz block of no bytes')
    return BlockHeader(len(data), sizes[0], sizes[1])


def _parse_integer(data: bytes, position: int) -> Optional[Tuple[int, int]]:
    """Return an integer (1.2) and what follows it; None: it is cut off."""
    value = 0
    for count in range(MAX_INTEGER_BYTES):
        if position + count >= len(data):
            return None
        byte = data[position + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            # Only the shortest form is valid, or two files could differ
            # and mean the same.
            if byte == 0 and count:
                break
            return value, position + count + 1
    raise BadXz('an xz integer is not valid')


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
        parsed = _parse_integer(data, position)
        if parsed is None:
            # An integer takes a byte at least: callers that collect so many
            # bytes before they try again have few tries to make.
            return _needed(len(data) + wanted - len(values) + 4)
        value, position = parsed
        values.append(value)
        if len(values) == 1:
            wanted += 2 * value
            _needed(wanted)
    size = _padded(position) + 4
    if len(data) < size:
        return _needed(size)
    if any(data[position:size - 4]):
        raise BadXz('the padding of the xz index is not zero')
    if _crc32(data[:size - 4]) != data[size - 4:size]:
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
    if end < HEADER_BYTES:
        return _tail_needed(padding + 2 * HEADER_BYTES, len(tail), file_size)
    _, index_size = parse_stream_footer(tail[end - HEADER_BYTES:end])
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
    return XzIndex(blocks, sum(block.uncompressed_size for block in blocks))


def _tail_needed(size: int, have: int, file_size: int) -> Needed:
    """Ask for a tail of `size` bytes, or of the whole file if it is less."""
    if have >= file_size:
        raise BadXz('the file is too short for an xz stream')
    return Needed(min(max(size, have + 1), file_size))


def _place_blocks(records: Sequence[Record]) -> Tuple[XzBlock, ...]:
    blocks = []
    offset, uncompressed_offset = HEADER_BYTES, 0
    for record in records:
        if record.unpadded_size < 5:
            raise BadXz('the xz index holds a block of no bytes')
        blocks.append(XzBlock(
            offset, record.total,
            uncompressed_offset, record.uncompressed_size,
        ))
        offset += record.total
        uncompressed_offset += record.uncompressed_size
    return tuple(blocks)
