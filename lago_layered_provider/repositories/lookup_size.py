"""Tell the size of an image from the compressed file, without fetching it.

=====  ===================================================================
plain  the size of the file
xz     exact: the index at the end of the file (`formats.xz_index`)
zst    exact where a seek table stands at the end (`formats.zstd`); the size in
       the header of a frame is that of one frame, and others may follow
gz     never: its last bytes count modulo 2^32, and only the last member
=====  ===================================================================

A file that came whole with the first bytes is decoded, whatever its kind.
"""

from __future__ import annotations

from typing import Optional, Union

from ..core.model import Unknown
from ..formats import blocks, xz, zstd
from ..formats.block import Needed
from ..providers.ranges import read_range
from ..transfer.decode import CorruptStream, make_decoder
from ..transfer.ports import Provider
from .lookup_file import Head

#: First bytes asked for of the end of a file: the index of 100 GiB.
TAIL_BYTES = 2**16

#: A small file that grows beyond this is not decoded to be measured.
MAX_DECODED_BYTES = 64 << 20

#: Whose end may say how large they get.
_TELLING = ('xz', 'zst')


class NoRange(Exception):
    """The source sends files from their beginning only: no fault."""


def has_tail(compression: Union[str, None, Unknown]) -> bool:
    """Tell whether the end of such a file may say how large it gets."""
    return compression in _TELLING


def size_by_tail(
    provider: Provider,
    path: str,
    compression: Union[str, None, Unknown],
    total: int,
) -> Optional[int]:
    """Return the uncompressed size, None where the end does not tell it.

    Args:
        total: bytes of the compressed file.

    Raises:
        NoRange: the source only sends from the start.
        TransferError: it cannot be read.
    """
    assert not isinstance(compression, Unknown)
    needed = min(total, TAIL_BYTES)
    while True:
        part = read_range(provider, path, total - needed, total)
        if part.start != total - needed:
            raise NoRange
        # A file that was replaced meanwhile tells nothing of this one.
        if len(part.data) < needed:
            return None
        try:
            found = blocks.read_map(compression, part.data, total)
        except xz.BadXz:
            return None
        if not isinstance(found, Needed):
            return found.image_size if found else None
        needed = found.bytes_needed


def size_of_whole(
    compression: Union[str, None, Unknown], head: Head
) -> Optional[int]:
    """Return the uncompressed size of a file that is here as a whole."""
    assert not isinstance(compression, Unknown)
    size = 0
    try:
        decoder = make_decoder(compression)
        for piece in decoder.feed(head.file):
            size += len(piece)
            if size > MAX_DECODED_BYTES:
                return None
        for piece in decoder.flush():
            size += len(piece)
        decoder.finish()
    except CorruptStream:
        return None
    return size


def raise_bound(bound: Optional[int], head: Head) -> Optional[int]:
    """Return an upper bound, not below what a .zst file surely makes."""
    if bound is None:
        return None
    return max(bound, zstd.parse_content_size(head.file) or 0)
