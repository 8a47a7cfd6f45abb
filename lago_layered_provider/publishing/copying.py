"""Copy one published file as it is, and prove it before it is seen."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import Iterator, Optional, Sequence

from ..core import errors
from ..core.model import DIGEST_LENGTHS, Digest, Image, Unknown
from ..formats.detect import LAST_BYTES
from ..tools import files, tree
from ..transfer import checking
from ..transfer.decode import CorruptStream, decode_all
from ..transfer.digester import Digester
from ..transfer.ports import Progress, Provider
from ..transfer.retries import Retries
from ..transfer.verify import verify_staged
from .packing import DIGESTS

READ_BYTES = 1 << 20

#: Enough for the header of any image.
HEAD_BYTES = 2 << 20


@dataclass(frozen=True)
class Copied:
    """An image whose file is here as a whole."""

    size: int
    first: bytes
    last: bytes

    def head(self, length: int) -> bytes:
        """Return the image's first bytes."""
        return self.first[:length]

    def tail(self, length: int) -> bytes:
        """Return the image's last bytes."""
        return self.last[-length:]


def fetch_file(
    image: Image, provider: Provider, path: str, *, patience: float,
    progress: Progress,
) -> None:
    """Bring the file of an image to `path`, from where an earlier run ended.

    Where it has a digest nobody asks whether the file is the same as then:
    that will tell.

    Raises:
        TransferError: it cannot be had; what came so far stays at `path`.
    """
    retries = Retries(patience, _size(path))
    while True:
        try:
            _fetch_rest(image, provider, path, progress)
            return
        except errors.TransferError as error:
            seconds = retries.next_pause(error, _size(path), time.monotonic())
            progress.note(
                f'{image.ref}: {error.reason}; {retries.describe(seconds)}'
            )
            time.sleep(seconds)


def _fetch_rest(
    image: Image, provider: Provider, path: str, progress: Progress
) -> None:
    limit = image.compressed_size or image.size
    name = str(image.ref)
    with tree.open_output(path, keep=True) as output:
        start = output.tell()
        with contextlib.closing(
            provider.open(image.file, start=start)
        ) as stream:
            checking.check_answer(
                image, stream, provider.locate(image.file), begun=start > 0
            )
            known = start - stream.start
            if known:
                progress.note(
                    f'{name}: it cannot be continued at byte {start}; what '
                    f'came before comes again'
                )
            if known and image.digest is None:
                # Nothing would tell a mixture of two files.
                output.truncate(0)
                output.seek(0)
                progress.begin(name, limit, 0)
                known = 0
            for data in iter(lambda: stream.read(READ_BYTES), b''):
                fresh = data[known:]
                known -= len(data) - len(fresh)
                output.write(fresh)
                progress.advance(name, len(fresh))
                if limit is not None and output.tell() > limit:
                    raise errors.SizeMismatch(
                        name, what='size of the file',
                        expected=f'{limit} bytes', found='more',
                    )
            output.flush()
            os.fsync(output.fileno())


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def prove(
    image: Image, base: Optional[Image], path: str, url: str
) -> Image:
    """Read a file, compare it with its index, and say all that is known.

    Args:
        url: where it came from, for messages.

    Raises:
        VerifyError, UnsafeImage: it is not what the index says, or refused.
    """
    announced = {digest.algorithm for digest in image.digests}
    digester = Digester(
        name for name in DIGEST_LENGTHS if name in announced.union(DIGESTS)
    )
    size, first, last = 0, b'', b''
    try:
        for piece in _decode(image, path):
            digester.update(piece)
            size += len(piece)
            if len(first) < HEAD_BYTES:
                first += piece[:HEAD_BYTES - len(first)]
            last = (last + piece[-LAST_BYTES:])[-LAST_BYTES:]
            if image.size is not None and size > image.size:
                break
        made = digester.finish()
    finally:
        digester.close()
    if image.size not in (None, size):
        raise errors.SizeMismatch(
            str(image.ref), what=f'size of the image at {url}',
            expected=f'{image.size} bytes', found=f'{size} bytes',
        )
    _compare(image, made, url)
    verified = verify_staged(
        image, base, Copied(size, first, last), url=url
    )
    return replace(
        image, size=size, compressed_size=os.path.getsize(path),
        format=verified.format, virtual_size=verified.virtual_size,
        digests=made, metadata=image.metadata or {}, max_size=None,
    )


def _compare(image: Image, made: Sequence[Digest], url: str) -> None:
    for digest in image.digests:
        if digest not in made:
            found = next(
                one for one in made if one.algorithm == digest.algorithm
            )
            raise errors.DigestMismatch(
                str(image.ref), what=f'{digest.algorithm} of {url}',
                expected=digest.value, found=found.value,
            )


def _decode(image: Image, path: str) -> Iterator[bytes]:
    assert not isinstance(image.compression, Unknown)
    try:
        with files.open_binary(path) as stream:
            yield from decode_all(
                iter(lambda: stream.read(READ_BYTES), b''), image.compression
            )
    except CorruptStream as error:
        raise errors.DamagedImage(
            str(image.ref), what='the file cannot be decompressed',
            expected=f'a {image.compression} file', found=str(error),
        ) from None
