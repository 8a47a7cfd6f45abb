"""Decompress a file that arrives in pieces, in bounded memory.

A file is a row of units, each of which can be decoded without the others: a
block of .xz, a frame of .zst, a member of .gz. At the end of a unit an
interrupted transfer can go on later (`Checkpoint`), and units could be
decoded side by side.

=====  ===================================================================
plain  every byte is a unit
gz     a member (RFC 1952); zeros between and after them are skipped
zst    a frame (RFC 8878), skippable ones as well
xz     a block whose header tells its sizes, as ``xz -T0`` writes them,
       else a whole stream; the sections named are those of `core.xz`
=====  ===================================================================

Nothing here reads or writes files, and no digest is made.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Protocol, Tuple, Type

from ..core import xz

#: The most that a decoder yields at once.
PIECE_BYTES = 1 << 20

#: Input is handled in slices: decoders copy what is left of it at the end
#: of each unit, and a file may consist of many tiny ones.
SLICE_BYTES = 64 << 10

#: Largest window of a .zst frame: 2 ** 27 bytes, 128 MiB (``zstd --long``).
ZSTD_WINDOW_LOG_MAX = 27

#: Memory for one .xz block: a dictionary of 128 MiB (``xz -9``: 64 MiB) and
#: what liblzma needs beside it.
XZ_MEMORY_BYTES = 160 << 20


class CorruptStream(ValueError):
    """The file is damaged, truncated, or not of the announced kind."""


@dataclass(frozen=True)
class Checkpoint:
    """A place where a fresh decoder can take over.

    `consumed` is an offset in the compressed file, `produced` counts the
    bytes made by *this* decoder up to there. `preamble` is what the fresh
    decoder must know: for .xz the stream header, else nothing.
    """

    consumed: int
    produced: int
    preamble: bytes = b''


class Decoder(Protocol):
    """Turns the bytes of a file into those that were compressed."""

    checkpoint: Checkpoint

    @property
    def finished(self) -> bool:
        """Whether the file may end here."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds, in pieces of at most `PIECE_BYTES`.

        The iterator must be exhausted before the next call.

        Raises:
            CorruptStream: the data is damaged.
        """

    def finish(self) -> None:
        """Confirm that the file ends here.

        Raises:
            CorruptStream: it is truncated.
        """


class RawDecompressor(Protocol):
    """Decompresses one unit, as Python's lzma and zstd do."""

    @property
    def eof(self) -> bool: ...  # noqa: E704

    @property
    def needs_input(self) -> bool: ...  # noqa: E704

    @property
    def unused_data(self) -> bytes: ...  # noqa: E704

    def decompress(
        self, data: bytes, max_length: int
    ) -> bytes: ...  # noqa: E704


#: A fresh decompressor, and what it raises on bad data.
Opened = Tuple[RawDecompressor, Type[Exception]]


class _Gunzip:
    """One member of a .gz file, in the form of lzma's and zstd's."""

    def __init__(self) -> None:
        import zlib
        # 16 + 15: a gzip header and trailer, the largest window.
        self._raw = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._raw.eof

    @property
    def unused_data(self) -> bytes:
        return self._raw.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._raw.decompress(
            data or self._raw.unconsumed_tail, max_length
        )
        # All input may be gone while output waits inside: a full piece
        # says nothing about the end.
        self.needs_input = (
            len(piece) < max_length and not self._raw.unconsumed_tail
        )
        return piece


def _open_gzip() -> Opened:
    import zlib
    return _Gunzip(), zlib.error


def _open_zstd() -> Opened:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    option = zstd.DecompressionParameter.window_log_max
    raw = zstd.ZstdDecompressor(options={option: ZSTD_WINDOW_LOG_MAX})
    return raw, zstd.ZstdError


def _open_xz() -> Opened:
    import lzma
    raw = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
    return raw, lzma.LZMAError


class Unit:
    """One unit of a file: a job that depends on no other.

    Args:
        open_raw: makes the decompressor.
        prime: what the decompressor must see before the unit's own bytes.
        size, makes: bytes of the unit in the file and uncompressed, where
            known; otherwise the decompressor finds the end.

    Attributes:
        ended: the whole unit was decoded.
        rest: what was fed beyond its end.
    """

    def __init__(
        self,
        open_raw: Callable[[], Opened],
        *,
        prime: bytes = b'',
        size: Optional[int] = None,
        makes: Optional[int] = None,
    ) -> None:
        self._raw, self._error = open_raw()
        self.size = size
        self._makes = makes
        self._fed = self._made = 0
        self.ended = False
        self.rest = b''
        if prime:
            self._decompress(prime)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds; exhaust it before the next call.

        Raises:
            CorruptStream: the unit is damaged.
        """
        own = data if self.size is None else data[:self.size - self._fed]
        self._fed += len(own)
        more = own
        while True:
            piece = self._decompress(more)
            more = b''
            if piece:
                self._made += len(piece)
                yield piece
            if self._raw.eof or self._raw.needs_input:
                break
        if self.size is None:
            self.ended = self._raw.eof
            self.rest = self._raw.unused_data
        else:
            self.ended = self._fed == self.size
            self.rest = data[len(own):]
            if self.ended and self._made != self._makes:
                raise CorruptStream(
                    f'a block made {self._made} bytes instead of '
                    f'{self._makes}'
                )

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._raw.decompress(data, PIECE_BYTES)
        except self._error as error:
            raise CorruptStream(f'damaged data: {error}') from error


class PlainDecoder:
    """A file that is not compressed."""

    finished = True

    def __init__(self, consumed: int) -> None:
        self._start = consumed
        self.checkpoint = Checkpoint(consumed, 0)

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at:at + PIECE_BYTES]
            yield piece
            produced = self.checkpoint.produced + len(piece)
            self.checkpoint = Checkpoint(self._start + produced, produced)

    def finish(self) -> None:
        """Any length is right: only its index entry knows better."""


class MemberDecoder:
    """A row of units that each show their own end: .gz, .zst.

    Args:
        open_raw: makes a decompressor for one unit.
        consumed: where in the file the first byte fed comes from; not 0
            only at the end of a unit.
        padding: a byte that may stand between units, or nothing.
    """

    def __init__(
        self,
        open_raw: Callable[[], Opened],
        consumed: int,
        padding: bytes = b'',
    ) -> None:
        self._open_raw = open_raw
        self._padding = padding
        self._preamble = b''
        self._pending = bytearray()
        self._position = consumed
        self._produced = 0
        self._unit: Optional[Unit] = None
        self.checkpoint = Checkpoint(consumed, 0)

    @property
    def finished(self) -> bool:
        return (
            self.checkpoint.consumed > 0
            and self._unit is None
            and not self._pending
            and not self._preamble
        )

    def finish(self) -> None:
        if not self.finished:
            raise CorruptStream(
                f'the file ends too early, after '
                f'{self._position + len(self._pending)} bytes'
            )

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), SLICE_BYTES):
            self._pending += data[at:at + SLICE_BYTES]
            yield from self._decode_pending()

    def _decode_pending(self) -> Iterator[bytes]:
        while True:
            self._unit = self._unit or self._find_unit()
            if self._unit is None:
                return
            data = bytes(self._pending)
            for piece in self._unit.feed(data):
                self._produced += len(piece)
                yield piece
            self._drop(len(data) - len(self._unit.rest))
            if not self._unit.ended:
                return
            self._end_unit(self._unit)
            self._unit = None
            self.checkpoint = Checkpoint(
                self._position, self._produced, self._preamble
            )

    def _drop(self, size: int) -> None:
        del self._pending[:size]
        self._position += size

    def _find_unit(self) -> Optional[Unit]:
        """Return the next unit, None when more bytes are wanted first."""
        if self._padding and self.checkpoint.consumed:
            self._drop(
                len(self._pending) - len(self._pending.lstrip(self._padding))
            )
        return Unit(self._open_raw) if self._pending else None

    def _end_unit(self, unit: Unit) -> None:
        """Note that a unit is done."""


class XzDecoder(MemberDecoder):
    """An .xz file, block by block where the block headers tell sizes.

    Args:
        consumed, preamble: of the checkpoint to go on from; with a preamble
            a block or the index follows there, else a stream.
    """

    def __init__(self, consumed: int, preamble: bytes) -> None:
        super().__init__(_open_xz, consumed)
        self._records: List[xz.Record] = []
        self._whole = False
        self._index_bytes = 0
        self._preamble = preamble
        try:
            self._check = xz.parse_stream_header(preamble) if preamble else 0
        except xz.BadXz as error:
            raise CorruptStream(f'the checkpoint: {error}') from error
        self.checkpoint = Checkpoint(consumed, 0, preamble)

    def _find_unit(self) -> Optional[Unit]:
        try:
            while self._pending:
                if not self._preamble:
                    found = self._read_stream_header()
                elif self._pending[0]:
                    return self._read_block_header()
                else:
                    found = self._read_index()
                if not found:
                    break
        except xz.BadXz as error:
            raise CorruptStream(str(error)) from error
        return None

    def _read_stream_header(self) -> bool:
        if self.checkpoint.consumed:
            # Stream padding (2.2) comes in fours.
            zeros = len(self._pending) - len(self._pending.lstrip(b'\0'))
            self._drop(zeros & ~3)
        if len(self._pending) < xz.HEADER_BYTES:
            return False
        self._preamble = bytes(self._pending[:xz.HEADER_BYTES])
        self._check = xz.parse_stream_header(self._preamble)
        self._drop(xz.HEADER_BYTES)
        self._records.clear()
        self._whole = True
        return True

    def _read_block_header(self) -> Optional[Unit]:
        size = xz.block_header_size(self._pending[0])
        if len(self._pending) < size:
            return None
        header = xz.parse_block_header(bytes(self._pending[:size]))
        unpadded = header.unpadded_size(self._check)
        makes = header.uncompressed_size
        if unpadded is not None and makes is not None:
            self._records.append(xz.Record(unpadded, makes))
            return Unit(
                _open_xz, prime=self._preamble,
                size=header.total(self._check), makes=makes,
            )
        if self._whole and not self._records:
            return Unit(_open_xz, prime=self._preamble)
        # liblzma compares all blocks of a stream with its index, so it
        # cannot take over in the middle; and no encoder writes this.
        raise CorruptStream('blocks with and without sizes in one xz stream')

    def _end_unit(self, unit: Unit) -> None:
        if unit.size is None:
            self._preamble = b''

    def _read_index(self) -> bool:
        """Compare the index and the footer with the blocks; end the stream.

        After a checkpoint only the last blocks are known.
        """
        if len(self._pending) < self._index_bytes:
            return False
        data = bytes(self._pending)
        index = xz.parse_index(data)
        if isinstance(index, xz.Needed):
            self._index_bytes = index.bytes_needed
            return False
        end = index.size + xz.HEADER_BYTES
        if len(data) < end:
            self._index_bytes = end
            return False
        unseen = len(index.records) - len(self._records)
        if (
            xz.parse_stream_footer(data[index.size:end])
            != (self._check, index.size)
            or index.records[max(unseen, 0):] != tuple(self._records)
            or self._whole and unseen
        ):
            raise CorruptStream('the xz index does not match the blocks')
        self._drop(end)
        self._preamble = b''
        self._records.clear()
        self._index_bytes = 0
        self.checkpoint = Checkpoint(self._position, self._produced)
        return True


def make_decoder(
    compression: Optional[str], *, consumed: int = 0, preamble: bytes = b''
) -> Decoder:
    """Return a decoder for a file, or for the rest of it.

    Args:
        compression: as an index gives it: xz, zst, gz or None.
        consumed, preamble: of the `Checkpoint` to go on from.
    """
    if compression is None:
        return PlainDecoder(consumed)
    if compression == 'xz':
        return XzDecoder(consumed, preamble)
    if compression == 'gz':
        return MemberDecoder(_open_gzip, consumed, b'\0')
    if compression == 'zst':
        return MemberDecoder(_open_zstd, consumed)
    raise ValueError(f'unknown compression {compression!r}')
