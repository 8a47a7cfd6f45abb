"""Find out how a file can be had: one small request of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, Union

from ..core import xz
from ..core.block import Needed
from ..core.block_map import BlockMap, read_map
from ..core.model import Image, Unknown
from . import checking
from .ports import Provider
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
        changed: it is not the state that was asked for.
    """

    size: int
    validator: Optional[str]
    map: Optional[BlockMap]
    changed: bool = False

    @property
    def to_fetch(self) -> int:
        """Return the bytes that must come."""
        return self.size if self.map is None else self.map.to_fetch


def find_map(
    provider: Provider,
    image: Image,
    validator: Optional[str],
    streams: OpenStreams,
) -> Optional[Mapped]:
    """Return how an image's file can be had.

    Args:
        validator: the state of the file that some bytes are here of.

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
    length, changed = TAIL_BYTES, False
    while True:
        end = _read_end(provider, image, total, length, validator, streams)
        if end is None and validator is None:
            return None
        if end is None:
            # It knows no ranges, or the file is another one by now.
            validator, changed = None, True
            continue
        found = _read_map(image.compression, end[0], total)
        if isinstance(found, Needed):
            length = found.bytes_needed
        else:
            useful = found is not None and found.is_useful
            return Mapped(total, end[1], found if useful else None, changed)


def _read_end(
    provider: Provider,
    image: Image,
    total: int,
    length: int,
    validator: Optional[str],
    streams: OpenStreams,
) -> Optional[Tuple[bytes, Optional[str]]]:
    """Return the last bytes of a file and its state; None: not so."""
    start = total - length
    stream = provider.open(
        image.file, start=start, end=total, validator=validator
    )
    with streams.reading(stream):
        checking.check_total(image, stream, provider.locate(image.file))
        if stream.start != start:
            return None
        data = bytearray()
        while len(data) < length:
            chunk = stream.read(length - len(data))
            if not chunk:
                return None
            data += chunk
    return bytes(data), stream.validator


def _read_map(
    compression: Optional[str], tail: bytes, total: int
) -> Union[BlockMap, Needed, None]:
    try:
        return read_map(compression, tail, total)
    except xz.BadXz:
        return None  # who decodes it tells what is wrong
