"""Decompress a file that arrives in pieces, in bounded memory.

A file is a row of units, each of which can be decoded without the others: a
block of .xz, a frame of .zst, a member of .gz. At the end of a unit an
interrupted transfer can go on later (`Checkpoint`); blocks of .xz are decoded
side by side where there is a pool for it (`parallel`).

=====  ===================================================================
plain  every byte is a unit
gz     a member (RFC 1952); zeros between and after them are skipped
zst    a frame (RFC 8878), skippable ones as well
xz     a block whose header tells its sizes, as ``xz -T0`` writes them,
       else a whole stream; the sections named are those of `formats.xz`
=====  ===================================================================

Nothing here reads or writes files, and no digest is made.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Optional

from ..core.magics import MAGICS
from .decoders import Checkpoint, Decoder, MemberDecoder, PlainDecoder
from .parallel import BlockPool, ParallelXzDecoder
from .units import CorruptStream, open_gzip, open_zstd
from .xz_decoder import XzDecoder

__all__ = [
    'BlockPool', 'Checkpoint', 'CorruptStream', 'Decoder', 'decode_all',
    'make_decoder',
]


def make_decoder(
    compression: Optional[str],
    *,
    consumed: int = 0,
    preamble: bytes = b'',
    pool: Optional[BlockPool] = None,
) -> Decoder:
    """Return a decoder for a file, or for the rest of it.

    Args:
        compression: as an index gives it: xz, zst, gz or None.
        consumed, preamble: of the `Checkpoint` to go on from.
        pool: where units are decoded side by side, if at all.
    """
    if compression is None:
        return PlainDecoder(consumed)
    if compression == 'xz' and pool is not None:
        return ParallelXzDecoder(consumed, preamble, pool)
    if compression == 'xz':
        return XzDecoder(consumed, preamble)
    if compression == 'gz':
        return MemberDecoder(open_gzip, consumed, MAGICS['gz'], b'\0')
    if compression == 'zst':
        return MemberDecoder(open_zstd, consumed, MAGICS['zst'])
    raise ValueError(f'unknown compression {compression!r}')


def decode_all(
    chunks: Iterable[bytes], compression: Optional[str]
) -> Iterator[bytes]:
    """Yield what a whole file makes, in pieces of any size.

    Raises:
        CorruptStream: it is damaged, or ends too early.
    """
    decoder = make_decoder(compression)
    for data in chunks:
        yield from decoder.feed(data)
    yield from decoder.flush()
    decoder.finish()
