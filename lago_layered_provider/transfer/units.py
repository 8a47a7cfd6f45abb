"""Decompress one unit of a file: a block, frame or member.

A unit depends on no other one, so several could be decoded side by side.
"""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import (
    Callable, DefaultDict, Iterator, List, Optional, Protocol, Type,
)

from ..core.sizes import size_text
from ..formats import xz, zstd

#: The most that a decoder yields at once.
PIECE_BYTES = 1 << 20

#: The same for .xz, which takes so long that more calls cost nothing. For
#: more, Python's lzma puts together what it makes of memory taken anew.
XZ_PIECE_BYTES = 128 << 10

#: Largest window of a .zst frame: 2 ** 27 bytes, 128 MiB (``zstd --long``).
ZSTD_WINDOW_LOG_MAX = 27

#: Largest dictionary of an .xz block (``xz -9``: 64 MiB).
XZ_DICTIONARY_BYTES = 128 << 20

#: Memory for one .xz block: the dictionary and what liblzma needs beside it.
XZ_MEMORY_BYTES = XZ_DICTIONARY_BYTES + (32 << 20)

#: So many first bytes of a unit tell what it needs.
HEAD_BYTES = 64

#: What zlib and zstd say where Python's lzma raises MemoryError: Z_MEM_ERROR
#: (zlib.h), ZSTD_error_memory_allocation.
NO_MEMORY = (
    'Error -4 ', 'Unable to decompress Zstandard data: Allocation error',
)


class CorruptStream(ValueError):
    """The file is damaged, truncated, or not of the announced kind."""


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


@dataclass(frozen=True)
class Opened:
    """A fresh decompressor.

    Attributes:
        error: what it raises on bad data.
        piece_bytes: how many bytes to ask it for at once.
        needs_more: says by the first bytes of a unit what it needs more of
            than is allowed, '' if nothing.
    """

    raw: RawDecompressor
    error: Type[Exception]
    piece_bytes: int
    needs_more: Callable[[bytes], str] = lambda head: ''


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


def open_gzip() -> Opened:
    import zlib
    return Opened(_Gunzip(), zlib.error, PIECE_BYTES)


def open_zstd() -> Opened:
    if sys.version_info >= (3, 14):
        from compression import zstd as library
    else:
        from backports import zstd as library
    option = library.DecompressionParameter.window_log_max
    raw = library.ZstdDecompressor(options={option: ZSTD_WINDOW_LOG_MAX})
    return Opened(raw, library.ZstdError, PIECE_BYTES, _needs_window)


def _needs_window(head: bytes) -> str:
    return _needs(
        'window', zstd.parse_window_size(head), 1 << ZSTD_WINDOW_LOG_MAX,
        f'zstd --long={ZSTD_WINDOW_LOG_MAX}',
    )


def open_xz() -> Opened:
    import lzma
    raw = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
    return Opened(raw, lzma.LZMAError, XZ_PIECE_BYTES, _needs_dictionary)


def _needs_dictionary(head: bytes) -> str:
    return _needs(
        'dictionary', xz.parse_dictionary_size(head), XZ_DICTIONARY_BYTES,
        'xz -9',
    )


def _needs(
    what: str, size: Optional[int], allowed: int, advice: str
) -> str:
    if size is None or size <= allowed:
        return ''
    return (
        f'a {what} of {size_text(size)}, at most {size_text(allowed)} are '
        f'allowed; compress it with {advice}, or less'
    )


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
        self._opened = open_raw()
        self._raw = self._opened.raw
        self._head = b''
        self.size = size
        self._makes = makes
        self._fed = self._made = 0
        self.ended = False
        self.rest = b''
        if prime:
            self._decompress(prime)

    @property
    def begun(self) -> bool:
        """Whether some of it was fed already."""
        return self._fed > 0

    def fits(self, limit: int) -> bool:
        """Tell whether it is known to take and to make so few bytes."""
        return (
            self.size is not None and self.size <= limit
            and self._makes is not None and self._makes <= limit
        )

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` adds; exhaust it before the next call.

        Raises:
            CorruptStream: the unit is damaged.
        """
        own = data if self.size is None else data[:self.size - self._fed]
        self._fed += len(own)
        if len(self._head) < HEAD_BYTES:
            self._head += own[:HEAD_BYTES - len(self._head)]
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
            return self._raw.decompress(data, self._opened.piece_bytes)
        # EOFError: more was fed than the unit takes.
        except (self._opened.error, EOFError) as error:
            if str(error).startswith(NO_MEMORY):
                raise MemoryError from error
            raise CorruptStream(
                self._opened.needs_more(self._head)
                or f'damaged data: {error}'
            ) from error


class XzBlocks:
    """Decompressors for whole blocks of .xz, used again and again.

    A new one takes its memory anew, with each block: up to its dictionary,
    64 MiB after ``xz --best``. To give out and clear these pages took the
    kernel a twentieth of the time that decoding takes.
    """

    def __init__(self) -> None:
        # list.pop and list.append need no lock.
        self._idle: DefaultDict[bytes, List[Opened]] = defaultdict(list)

    @contextlib.contextmanager
    def unit(self, preamble: bytes, size: int, makes: int) -> Iterator[Unit]:
        """Lend the unit of one block.

        Args:
            preamble: the header of its stream.
            size, makes: bytes of the block in the file and uncompressed.
        """
        idle = self._idle[preamble]
        try:
            opened = idle.pop()
        except IndexError:
            opened = open_xz()
            opened.raw.decompress(preamble, PIECE_BYTES)
        unit = Unit(lambda: opened, size=size, makes=makes)
        yield unit
        # Not after an exception: nobody knows where it stands then.
        if unit.ended:
            idle.append(opened)
