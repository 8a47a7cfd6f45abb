"""The frame of an .xz file: its headers and its footer.

Reads headers and the footer, `xz_index` reads the index; neither
decompresses. That is enough to tell the size of an image before fetching it,
and to cut a file into blocks that can be decoded each on its own.

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
from typing import List, Optional, Tuple

from ..core.magics import XZ

#: Bytes of a stream header, and of a stream footer.
HEADER_BYTES = 12

#: Section 1.2: integers have at most 63 bits, in at most nine bytes.
MAX_INTEGER_BYTES = 9

_FOOTER_MAGIC = b'YZ'
_RESERVED_BLOCK_FLAGS = 0x3C

#: Id of the filter that every file has (5.3.1).
_LZMA2 = 0x21


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
        return None if unpadded is None else padded(unpadded)


def padded(size: int) -> int:
    """Return a size rounded up to the next multiple of four."""
    return (size + 3) & ~3


def crc32(data: bytes) -> bytes:
    """Return the CRC32 of some bytes as .xz writes it."""
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
    if len(data) != HEADER_BYTES or not data.startswith(XZ):
        raise BadXz('this is not the beginning of an xz stream')
    if crc32(data[6:8]) != data[8:]:
        raise BadXz('the xz stream header is damaged')
    return _parse_stream_flags(data[6:8])


def make_stream_header(check: int) -> bytes:
    """Return the header of a stream with that check id (2.1.1)."""
    flags = bytes([0, check])
    return XZ + flags + crc32(flags)


def parse_stream_footer(data: bytes) -> Tuple[int, int]:
    """Return the check id and the size of the index in bytes (2.1.2).

    Raises:
        BadXz: this is no stream footer.
    """
    if len(data) != HEADER_BYTES or not data.endswith(_FOOTER_MAGIC):
        raise BadXz('this is not the end of an xz stream')
    if crc32(data[4:10]) != data[:4]:
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
    if crc32(data[:-4]) != data[-4:]:
        raise BadXz('an xz block header is damaged')
    flags = data[1]
    if flags & _RESERVED_BLOCK_FLAGS:
        raise BadXz(f'unknown xz block flags {flags:#x}')
    position = 2
    sizes: List[Optional[int]] = [None, None]
    for field, flag in enumerate((0x40, 0x80)):
        if flags & flag:
            parsed = parse_integer(data[:-4], position)
            if parsed is None:
                raise BadXz('an xz block header ends too early')
            sizes[field], position = parsed
    if sizes[0] == 0:
        raise BadXz('an xz block of no bytes')
    return BlockHeader(len(data), sizes[0], sizes[1])


def parse_dictionary_size(data: bytes) -> Optional[int]:
    """Return the bytes of a block's dictionary (5.3.1).

    Args:
        data: the block from its header on, or more than its header.

    Returns:
        None when no filter of LZMA2 can be read there.
    """
    try:
        header = data[:block_header_size(data[0])]
        position = 2
        for flag in (0x40, 0x80):
            if header[1] & flag:
                position = (parse_integer(header, position) or (0, 0))[1]
        for _ in range((header[1] & 3) + 1):
            kind, position = parse_integer(header, position) or (0, 0)
            size, position = parse_integer(header, position) or (0, 0)
            if kind == _LZMA2:
                bits = header[position]
                return (2 | bits & 1) << bits // 2 + 11
            position += size
    except (BadXz, IndexError):
        pass
    return None


def parse_integer(data: bytes, position: int) -> Optional[Tuple[int, int]]:
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
