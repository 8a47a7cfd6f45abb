"""Take one image's bytes as they come: decode, hash, count, write.

One pass: no byte is read twice, none is converted, and what is kept for an
interrupted run is the staged file itself and the compressed bytes since the
last place where a decoder can start again.
"""

from __future__ import annotations

from typing import Callable, Iterator, Optional, Tuple

from ..core import errors
from ..core.model import Digest, Image, Unknown
from ..formats import detect
from . import checking
from .decode import BlockPool, CorruptStream, make_decoder
from .digester import Digester
from .store_ports import Stage

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
        self._algorithms = checking.algorithms(image)
        self._room = checking.RoomWatch(image, stage)
        self._resume()

    def _resume(self) -> None:
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
        self._resume()

    def close(self) -> None:
        """Give back what decoding and hashing hold."""
        self._decoder.close()
        self._digester.close()

    def begin(self, validator: Optional[str]) -> None:
        """Note the state of the file that all that comes is of."""
        self.validator = validator
        if self.offset == 0:
            # What is spooled before the first checkpoint belongs to it, too.
            self._stage.checkpoint(0, 0, validator)

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
        first = self._stage.head(detect.FIRST_BYTES)
        checking.check_size(
            self._image, self.produced, self.location, first
        )
        digests = self._digester.finish()
        checking.check_digests(self._image, digests, self.location, first)
        return digests

    def _write(self, chunk: bytes) -> None:
        self._take(lambda: self._decoder.feed(chunk))

    def _take(self, decode: Callable[[], Iterator[bytes]]) -> None:
        limit = self._image.size
        try:
            for data in decode():
                self._hash(data)
                if limit is not None and self.produced > limit:
                    raise checking.wrong_size(
                        self._image, 'more than that', self.location
                    )
                self._room.take(len(data))
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

    def _damaged(self, error: Exception) -> errors.DamagedImage:
        return checking.damaged(self._image, error, self.location)
