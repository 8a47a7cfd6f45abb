"""Find out how a file can be had: one small request of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from ..core.model import Image, Unknown
from ..formats import xz
from ..formats.block import Needed
from ..formats.blocks import BlockMap, read_map
from . import checking
from .ports import Provider, Stream
from .shared import OpenStreams

#: Holds the index of 8 GiB in blocks of 16 MiB.
TAIL_BYTES = 4 << 10

#: Smaller files are here before anything can be gained.
SMALL_BYTES = 8 << 20


@dataclass(frozen=True)
class Mapped:
    """A file that can be had in parts.

    Attributes:
        size: of the file in bytes.
        validator: the state of the file at its source.
        map: where its blocks are; None where it can only be decoded from
            its beginning.
    """

    size: int
    validator: Optional[str]
    map: Optional[BlockMap]

    @property
    def to_fetch(self) -> int:
        """Return the bytes that must come."""
        return self.size if self.map is None else self.map.to_fetch


def find_map(
    provider: Provider,
    image: Image,
    validator: Optional[str],
    streams: OpenStreams,
    *,
    begun: bool = False,
) -> Optional[Mapped]:
    """Return how an image's file can be had.

    Args:
        validator: the state of the file that some bytes are here of.
        begun: some are here; they are not given up for one wrong answer.

    Returns:
        None where it has to be received from its beginning to its end: it is
        small, or the source knows no ranges.

    Raises:
        SizeMismatch: the file has another size than announced.
        TransferError: the source cannot be read.
    """
    assert not isinstance(image.compression, Unknown)
    total = image.compressed_size if image.compression else image.size
    if total is None or total < SMALL_BYTES:
        return None
    length = TAIL_BYTES
    while True:
        start = total - length
        with streams.reading(provider.open(
            image.file, start=start, end=total, validator=validator
        )) as stream:
            checking.check_answer(
                image, stream, provider.locate(image.file), begun=begun
            )
            end = _read(stream, length) if stream.start == start else None
            state = stream.validator
        if end is None:
            return None
        found = _read_map(image.compression, end, total)
        if not isinstance(found, Needed):
            useful = found is not None and found.is_useful
            return Mapped(total, state, found if useful else None)
        length = found.bytes_needed


def _read(stream: Stream, length: int) -> Optional[bytes]:
    """Return so many bytes, None where there are not as many."""
    data = bytearray()
    while len(data) < length:
        chunk = stream.read(length - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _read_map(
    compression: Optional[str], tail: bytes, total: int
) -> Union[BlockMap, Needed, None]:
    try:
        return read_map(compression, tail, total)
    except xz.BadXz:
        return None  # who decodes it tells what is wrong
