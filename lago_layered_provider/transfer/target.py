"""Where the blocks of an image go that connections have brought."""

from __future__ import annotations

from typing import Tuple

from ..core.model import Digest
from .claims import Part


class Target:
    """Takes the blocks of one image; what is not needed does nothing.

    `put`, `land`, `take_room` and `give_room` are called by the threads that
    fetch, the rest by the one that waits for the image.
    """

    @property
    def horizon(self) -> int:
        """How far in the file blocks may be asked for, in bytes."""
        raise NotImplementedError

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        raise NotImplementedError

    @property
    def is_done(self) -> bool:
        """Whether the whole image is here."""
        raise NotImplementedError

    def begin(self, parts: Tuple[Part, ...]) -> None:
        """Go on with what an earlier transfer has left of them."""

    def take_room(self, part: Part) -> None:
        """Wait until a block may be received."""

    def give_room(self, part: Part) -> None:
        """Let another block have the room."""

    def put(self, part: Part, chunk: bytes, offset: int) -> None:
        """Take bytes of a block; the block's lock is held.

        Args:
            offset: theirs in the block; not beyond `part.received`, but
                another connection may have brought the first of them.
        """
        raise NotImplementedError

    def land(self, part: Part) -> None:
        """Take a block that is complete."""

    def work(self) -> None:
        """Do what is left to the thread that waits."""
        raise NotImplementedError

    def finish(self) -> Tuple[Digest, ...]:
        """Check the image; return the digests that were made.

        Raises:
            VerifyError: it is not the announced image, or is damaged.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Let what runs end soon."""

    def close(self, parts: Tuple[Part, ...]) -> None:
        """Give back what is held, when no thread uses it any more."""
        raise NotImplementedError
