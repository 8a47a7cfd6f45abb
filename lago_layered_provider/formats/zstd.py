"""Sizes that a .zst file tells of what was compressed, without decoding.

Section numbers are those of RFC 8878. A frame may tell how much it makes, but
nothing says whether another frame follows; only a seek table at the end of
the file tells of all of them (the "Zstandard Seekable Format", version 0.1.0,
https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/
zstd_seekable_compression_format.md)::

    skippable frame: magic 0x184D2A5E, size            8 bytes
      an entry for each frame: compressed size,
        size, checksum if the descriptor says so       8 or 12 bytes
      number of frames, descriptor, magic 0x8F92EAB1   9 bytes
"""

from __future__ import annotations

import struct
from typing import Optional, Sequence, Tuple, Union

from ..core.magics import ZSTD_FRAME
from .block import Block, Needed

TABLE_MAGIC = 0x184D2A5E
FOOTER_MAGIC = 0x8F92EAB1

#: Room for a million frames; larger ones would only fill our memory.
MAX_TABLE_BYTES = 16 << 20

_TABLE_HEADER = struct.Struct('<II')
_FOOTER = struct.Struct('<IBI')
_RESERVED_BITS = 0x7C
_CHECKSUM_BIT = 0x80

#: Bytes of Dictionary_ID and Frame_Content_Size by their flags (3.1.1.1.1).
_DICTIONARY_BYTES = (0, 1, 2, 4)
_SIZE_BYTES = (0, 2, 4, 8)


def parse_content_size(head: bytes) -> Optional[int]:
    """Return how many bytes a frame makes, as its header says (3.1.1.1).

    Args:
        head: the first bytes of the frame.

    Returns:
        None when it does not say so, or is no frame, or is cut off.
    """
    if not head.startswith(ZSTD_FRAME) or len(head) < 5:
        return None
    descriptor = head[4]
    single_segment = descriptor & 0x20
    size = _SIZE_BYTES[descriptor >> 6] or (1 if single_segment else 0)
    start = 5 + (0 if single_segment else 1)
    start += _DICTIONARY_BYTES[descriptor & 3]
    if not size or len(head) < start + size:
        return None
    value = int.from_bytes(head[start:start + size], 'little')
    # Two bytes begin where one byte ends.
    return value + 256 if size == 2 else value


def parse_window_size(head: bytes) -> Optional[int]:
    """Return the bytes that decoding a frame needs to look back (3.1.1.1.2).

    Args:
        head: the first bytes of the frame.

    Returns:
        None when it is no frame, or is cut off.
    """
    if not head.startswith(ZSTD_FRAME) or len(head) < 6:
        return None
    if head[4] & 0x20:  # a single segment: all that it makes
        return parse_content_size(head)
    base = 1 << 10 + (head[5] >> 3)
    return base + (base >> 3) * (head[5] & 7)


def parse_seek_table(
    tail: bytes, file_size: int
) -> Union[Tuple[Block, ...], Needed, None]:
    """Return where the frames are that make something, in order.

    Args:
        tail: the end of the file, as much of it as is at hand.
        file_size: of the whole file, in bytes.

    Returns:
        `Needed` when the tail must be longer; None when there is no seek
        table, or none that speaks of this whole file.
    """
    if file_size < _TABLE_HEADER.size + _FOOTER.size:
        return None
    if len(tail) < _FOOTER.size:
        return Needed(_FOOTER.size)
    frames, descriptor, magic = _FOOTER.unpack(tail[-_FOOTER.size:])
    if magic != FOOTER_MAGIC or descriptor & _RESERVED_BITS:
        return None
    entry = struct.Struct('<III' if descriptor & _CHECKSUM_BIT else '<II')
    content = frames * entry.size + _FOOTER.size
    size = _TABLE_HEADER.size + content
    if size > min(file_size, MAX_TABLE_BYTES):
        return None
    if len(tail) < size:
        return Needed(size)
    table = tail[-size:]
    if _TABLE_HEADER.unpack_from(table) != (TABLE_MAGIC, content):
        return None
    blocks = []
    offset = position = 0
    for fields in entry.iter_unpack(table[_TABLE_HEADER.size:-_FOOTER.size]):
        if fields[1]:
            blocks.append(Block(offset, fields[0], position, fields[1]))
        offset += fields[0]
        position += fields[1]
    return tuple(blocks) if offset + size == file_size else None


def make_seek_table(frames: Sequence[Tuple[int, int]]) -> bytes:
    """Return the skippable frame that ends a file in the seekable format.

    Args:
        frames: bytes of each frame, compressed and uncompressed.
    """
    entries = b''.join(struct.pack('<II', *frame) for frame in frames)
    footer = _FOOTER.pack(len(frames), 0, FOOTER_MAGIC)
    size = len(entries) + len(footer)
    return _TABLE_HEADER.pack(TABLE_MAGIC, size) + entries + footer
