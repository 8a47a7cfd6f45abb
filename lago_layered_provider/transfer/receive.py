"""Take one image's bytes as they come: decode, hash, count, write.

One pass: no byte is read twice, none is converted, and what is kept for an
interrupted run is the staged file itself and the compressed bytes since the
last place where a decoder can start again.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Optional, Tuple

from ..core import errors
from ..core.model import Digest, Image, Unknown
from .decode import BlockPool, CorruptStream, make_decoder
from .digester import Digester
from .ports import Stage, Stream

#: A checkpoint of a plain file costs a small write: not after every chunk.
CHECKPOINT_BYTES = 4 * 2**20


class Receiver:
    """One image on its way into its stage.

    `offset` is the next byte wanted of the file at its source; `location`
    is where it comes from, for messages.
    """

    def __init__(
        self, image: Image, stage: Stage, location: str, pool: BlockPool
    ) -> None:
        assert not isinstance(image.compression, Unknown)
        self._compression = image.compression
        self._image = image
        self._stage = stage
        self._pool = pool
        self.location = location
        self._algorithms = _algorithms(image)
        self._begin()

    def _begin(self) -> None:
        resume = self._stage.resume()
        self.validator: Optional[str] = resume.validator
        self._saved = resume.consumed
        self._start = resume.produced
        try:
            self._decoder = make_decoder(
                self._compression,
                consumed=resume.consumed,
                preamble=resume.preamble,
                pool=self._pool,
            )
        except CorruptStream as error:
            raise self._damaged(error) from None
        self._digester = Digester(self._algorithms)
        self.produced = 0
        self.offset = resume.consumed
        try:
            for data in self._stage.replay():
                self._hash(data)
            for data in self._stage.spooled_chunks():
                self.offset += len(data)
                self._write(data)
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Forget everything and wait for the first byte."""
        self.close()
        self._stage.reset()
        self._begin()

    def close(self) -> None:
        """Give back what decoding and hashing hold."""
        self._decoder.close()
        self._digester.close()

    def accept(self, stream: Stream) -> None:
        """Make ready for a stream that may not start where we are.

        Raises:
            SizeMismatch: the file has another size than announced.
        """
        expected = self._image.compressed_size
        if expected is None and self._image.compression is None:
            expected = self._image.size
        if None not in (stream.total, expected) and stream.total != expected:
            raise errors.SizeMismatch(
                str(self._image.ref), what=f'size of {self.location}',
                expected=f'{expected} bytes', found=f'{stream.total} bytes',
                hint=(
                    'The index and the file do not belong together; the '
                    'repository may be in the middle of an update.'
                ),
            )
        if stream.start != self.offset:
            self.restart()
        self.validator = stream.validator
        if self.offset == 0:
            # What is spooled before the first checkpoint belongs to this
            # state of the file, too.
            self._stage.checkpoint(0, 0, self.validator)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file at its source."""
        self.offset += len(chunk)
        self._write(chunk)
        self._save(chunk)

    def finish(self) -> Tuple[Digest, ...]:
        """Check size and digest; return all digests that were made.

        Raises:
            VerifyError: it is not the announced image, or is damaged.
        """
        self._take(self._decoder.flush)
        try:
            self._decoder.finish()
        except CorruptStream as error:
            raise self._damaged(error) from None
        self._stage.finish()
        image = self._image
        if image.size is not None and self.produced != image.size:
            raise self._wrong_size(f'{self.produced} bytes')
        digests = self._digester.finish()
        announced = image.digest
        for digest in digests:
            if announced and digest.algorithm == announced.algorithm:
                if digest != announced:
                    raise errors.DigestMismatch(
                        str(image.ref), what=f'{digest.algorithm} of the '
                        f'image from {self.location}',
                        expected=announced.value, found=digest.value,
                        hint=(
                            'The download was damaged or the repository '
                            'changed; it was not kept. If it happens again, '
                            'tell the admin of the repository.'
                        ),
                    )
        return digests

    def _write(self, chunk: bytes) -> None:
        self._take(lambda: self._decoder.feed(chunk))

    def _take(self, decode: Callable[[], Iterator[bytes]]) -> None:
        limit = self._image.size
        try:
            for data in decode():
                self._hash(data)
                if limit is not None and self.produced > limit:
                    raise self._wrong_size('more than that')
                self._stage.write(data)
        except CorruptStream as error:
            raise self._damaged(error) from None

    def _hash(self, data: bytes) -> None:
        self._digester.update(data)
        self.produced += len(data)

    def _save(self, chunk: bytes) -> None:
        """Remember how far an interrupted run would get."""
        compressed = self._compression is not None
        if compressed:
            self._stage.spool(chunk)
        point = self._decoder.checkpoint
        step = 1 if compressed else CHECKPOINT_BYTES
        if point.consumed - self._saved >= step:
            self._saved = point.consumed
            self._stage.checkpoint(
                point.consumed,
                self._start + point.produced,
                self.validator,
                preamble=point.preamble,
            )

    def _wrong_size(self, found: str) -> errors.SizeMismatch:
        return errors.SizeMismatch(
            str(self._image.ref),
            what=f'size of the uncompressed image from {self.location}',
            expected=f'{self._image.size} bytes', found=found,
            hint='It was not kept; tell the admin of the repository.',
        )

    def _damaged(self, error: Exception) -> errors.DamagedImage:
        return errors.DamagedImage(
            str(self._image.ref), what=self.location,
            expected=f'a whole {self._compression} file', found=str(error),
            hint='It was not kept; tell the admin of the repository.',
        )


def _algorithms(image: Image) -> Tuple[str, ...]:
    """The digest to check, and the sha1 that Lago keeps beside an image."""
    announced: Dict[str, None] = {}
    if image.digest:
        announced[image.digest.algorithm] = None
    if 'sha1' not in {digest.algorithm for digest in image.digests}:
        announced['sha1'] = None
    return tuple(announced)
