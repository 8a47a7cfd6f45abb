"""Decompress a file unit by unit, as its bytes arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Protocol, Sequence

from ..formats import detect
from .units import CorruptStream, Opened, PIECE_BYTES, Unit

#: Input is handled in slices: decoders copy what is left of it at the end
#: of each unit, and a file may consist of many tiny ones.
SLICE_BYTES = 64 << 10


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

        With a pool they may come with a later call. The iterator must be
        exhausted before the next one.

        Raises:
            CorruptStream: the data is damaged.
        """

    def flush(self) -> Iterator[bytes]:
        """Yield what was fed and is not decoded yet.

        Raises:
            CorruptStream: the data is damaged.
        """

    def finish(self) -> None:
        """Confirm that the file ends here; after `flush`.

        Raises:
            CorruptStream: it is truncated.
        """

    def close(self) -> None:
        """Give back what it holds; it is not used any more."""


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

    def flush(self) -> Iterator[bytes]:
        return iter(())

    def finish(self) -> None:
        """Any length is right: only its index entry knows better."""

    def close(self) -> None:
        """Nothing is held."""


class MemberDecoder:
    """A row of units that each show their own end: .gz, .zst.

    Args:
        open_raw: makes a decompressor for one unit.
        consumed: where in the file the first byte fed comes from; not 0
            only at the end of a unit.
        magics: with what units begin.
        padding: a byte that may stand between units, or nothing.
    """

    def __init__(
        self,
        open_raw: Callable[[], Opened],
        consumed: int,
        magics: Sequence[bytes],
        padding: bytes = b'',
    ) -> None:
        self._first = b''
        self._open_raw = open_raw
        self._magics = magics
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

    def flush(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """Nothing is held."""

    def finish(self) -> None:
        if not self.finished:
            raise self._explain(CorruptStream(
                f'the file ends too early, after '
                f'{self._position + len(self._pending)} bytes'
            ))

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._position + len(self._pending) == len(self._first):
            self._first = (self._first + data)[:detect.FIRST_BYTES]
        for at in range(0, len(data), SLICE_BYTES):
            self._pending += data[at:at + SLICE_BYTES]
            try:
                yield from self._decode_pending()
            except CorruptStream as error:
                raise self._explain(error) from error

    def _explain(self, error: CorruptStream) -> CorruptStream:
        """Return a better error for a file of another kind."""
        kind = detect.name_kind(self._first)
        if kind is None or self._first.startswith(tuple(self._magics)):
            return error
        return CorruptStream(f'this is {kind}')

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
        self._check_next()
        return Unit(self._open_raw) if self._pending else None

    def _check_next(self) -> None:
        """Tell what is no unit at the end of a file from a damaged one."""
        if self.checkpoint.consumed and not any(
            self._pending.startswith(magic[:len(self._pending)])
            for magic in self._magics
        ):
            raise CorruptStream(
                f'its compressed data ends at byte {self._position}, and '
                f'something else follows there'
            )

    def _end_unit(self, unit: Unit) -> None:
        """Note that a unit is done."""
