"""Read an image to its end: decompress it, count it, make its digests."""

from __future__ import annotations

import hashlib
from typing import Callable, Iterator, Optional

from ..core import errors
from ..core.model import DIGEST_LENGTHS, Image, Unknown
from ..formats.detect import LAST_BYTES
from ..transfer.decode import CorruptStream, decode_all
from ..transfer.digester import Digester
from ..transfer.ports import Provider, Stream
from .seen import Content

READ_BYTES = 2**18


def read_content(
    image: Image, provider: Provider, advance: Callable[[int], None]
) -> Content:
    """Return what the whole of an image is; nothing of it is kept.

    Args:
        advance: told of bytes of the file that were read.

    Raises:
        TransferError: it cannot be read.
    """
    assert not isinstance(image.compression, Unknown)
    # All that the index announced; sha1 as well, which sidecars have.
    digester = Digester({'sha1', *(
        digest.algorithm for digest in image.digests
    )} & set(DIGEST_LENGTHS))
    stream = provider.open(image.file)
    try:
        return _read(image.compression, stream, digester, advance)
    except CorruptStream as error:
        return Content(0, fault=(
            f'{provider.locate(image.file)} cannot be decompressed: {error}'
        ))
    finally:
        stream.close()
        digester.close()


def _read(
    compression: Optional[str], stream: Stream, digester: Digester,
    advance: Callable[[int], None],
) -> Content:
    packed = hashlib.sha512()
    size = read = 0
    last = b''

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for data in iter(lambda: stream.read(READ_BYTES), b''):
            read += len(data)
            advance(len(data))
            packed.update(data)
            yield data
        if stream.total is not None and read != stream.total:
            raise errors.TransferError(
                'the connection',
                f'ended after {read} of {stream.total} bytes', retryable=True,
            )

    for piece in decode_all(chunks(), compression):
        size += len(piece)
        last = (last + piece[-LAST_BYTES:])[-LAST_BYTES:]
        digester.update(piece)
    return Content(size, digester.finish(), packed.hexdigest(), last=last)
