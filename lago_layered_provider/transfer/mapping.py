"""Find out where the blocks of a file are: one small request of its end."""

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
    """A file that can be had block by block.

    Attributes:
        validator: the state of the file at its source.
        changed: it is not the state that was asked for.
    """

    map: BlockMap
    validator: Optional[str]
    changed: bool = False


def find_map(
    provider: Provider,
    image: Image,
    validator: Optional[str],
    streams: OpenStreams,
) -> Optional[Mapped]:
    """Return the map of an image's file.

    Args:
        validator: the state of the file that some bytes are here of.

    Returns:
        None where the file has to be received from its beginning to its
        end: it is small, has but one block, or does not tell of its blocks,
        or the source knows no ranges.

    Raises:
        SizeMismatch: the file has another size than announced.
        TransferError: the source cannot be read.
    """
    assert not isinstance(image.compression, Unknown)
    total = image.compressed_size if image.compression else image.size
    if total is None or total < SMALL_BYTES or image.compression == 'gz':
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
        elif found is None or not found.is_useful:
            return None
        else:
            return Mapped(found, end[1], changed)


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
        checking.check_total(
            image, stream.total, provider.locate(image.file)
        )
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
