"""Read an original as it is to be published: with the name of its base."""

from __future__ import annotations

from typing import Iterator, Optional

from ..core import errors
from ..core.model import SUFFIXES
from ..formats import detect, qcow2
from ..formats.qcow2_rebase import rebase_header
from ..store import sparse
from ..tools import files
from ..transfer.decode import CorruptStream, decode_all
from .layout import HINT

READ_BYTES = 4 << 20


def compression_of(name: str) -> Optional[str]:
    """Return how a file is compressed, by its name."""
    return next((
        compression for compression, suffix in SUFFIXES.items()
        if suffix and name.endswith(suffix)
    ), None)


def read_original(
    path: str, base: Optional[str], base_format: Optional[str]
) -> Iterator[bytes]:
    """Yield the bytes of an image, decompressed.

    Args:
        base: the name that its header gets; None leaves it as it is.

    Raises:
        PublishError: it cannot be read, or is damaged.
    """
    chunks = _check_format(path, _decode(path))
    if base is None:
        return chunks
    return _with_base(path, chunks, base, base_format or 'qcow2')


def _with_base(
    path: str, chunks: Iterator[bytes], base: str, base_format: str
) -> Iterator[bytes]:
    head = b''
    needed = qcow2.HEAD_BYTES
    try:
        for chunk in chunks:
            head += chunk
            if len(head) >= 512:
                needed = qcow2.head_length(head[:512])
            if len(head) >= needed:
                break
        yield rebase_header(head[:needed], base, base_format) + head[needed:]
    except qcow2.BadHeader as error:
        raise errors.PublishError(path, [str(error)]) from None
    yield from chunks


def _check_format(path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass an image on; refuse it at its end if it is none after all.

    Of a compressed file nobody has seen the end before.
    """
    first = last = b''
    size = 0
    for chunk in chunks:
        if len(first) < detect.FIRST_BYTES:
            first = (first + chunk)[:detect.FIRST_BYTES]
        last = (last + chunk[-detect.LAST_BYTES:])[-detect.LAST_BYTES:]
        size += len(chunk)
        yield chunk
    try:
        detect.tell_format(first, size=size, last=last)
    except ValueError as error:
        raise errors.PublishError(path, [str(error)], hint=HINT) from None


def _decode(path: str) -> Iterator[bytes]:
    compression = compression_of(path)
    try:
        with files.open_binary(path, buffering=0) as file:
            if compression is None:
                yield from sparse.read_chunks(file.fileno(), READ_BYTES)
                return
            yield from decode_all(
                iter(lambda: file.read(READ_BYTES), b''), compression
            )
    except CorruptStream as error:
        raise errors.PublishError(
            path, [f'it cannot be decompressed: {error}']
        ) from None
