"""What the transfer needs of the store, and no more."""

from __future__ import annotations

import threading
from typing import (
    Any,
    Callable,
    Container,
    ContextManager,
    Dict,
    Iterator,
    Mapping,
    Optional,
    Protocol,
    Tuple,
)

from ..core.model import Stored
from ..formats.block import Block
from ..store.record import Record


class Resume(Protocol):
    """Where a stage goes on, in bytes; see `store.progress.Resume`."""

    @property
    def validator(self) -> Optional[str]:
        """The state of the file at its source."""

    @property
    def consumed(self) -> int:
        """Offset in the file at its source of the last checkpoint."""

    @property
    def produced(self) -> int:
        """Bytes of the image that were made of what lies before it."""

    @property
    def preamble(self) -> bytes:
        """What a decoder must know to begin there."""

    @property
    def spooled(self) -> int:
        """Bytes from `consumed` on that need not be fetched again."""


class BlockSpool(Protocol):
    """Bytes of a block as they came; `store.blocks.BlockSpool`."""

    def write(self, data: bytes, position: int) -> None:
        """Write at `position` in the block."""

    def read(self, length: int, position: int) -> bytes:
        """Return bytes of the block."""

    def remove(self) -> None:
        """Close and remove it."""

    def close(self) -> None:
        """Close the file; the bytes stay."""


class Blocks(Protocol):
    """A stage that is filled block by block; see `store.blocks.Blocks`."""

    @property
    def consumed(self) -> int:
        """Offset in the file at its source; all before it is done."""

    @property
    def produced(self) -> int:
        """Offset in the image; all before it is written."""

    @property
    def ahead(self) -> Tuple[Block, ...]:
        """What is done beyond that."""

    def note(
        self,
        consumed: int,
        produced: int,
        ahead: Tuple[Block, ...],
        validator: Optional[str],
        preamble: bytes,
    ) -> None:
        """Say what is done."""

    def write(self, data: bytes, position: int) -> None:
        """Write a part of the image."""

    def read_into(self, buffer: memoryview, position: int) -> None:
        """Fill a buffer with what was written at `position`."""

    def flush(self) -> None:
        """Bring to the disk what was written."""

    def spool(self, offset: int) -> BlockSpool:
        """Return the spool of the block at `offset`."""

    def spooled(self) -> Dict[int, int]:
        """Return the bytes in each spool, by the block's offset."""

    def drop_spools(self, keep: Container[int]) -> None:
        """Remove the spools that begin at other offsets."""


class Stage(Protocol):
    """One image being received; `store.staging.Stage` says more."""

    @property
    def begun(self) -> bool:
        """Whether something is left of an earlier transfer."""

    @property
    def validator(self) -> Optional[str]:
        """The state of the file at its source that all is of."""

    def by_blocks(self, size: int) -> Blocks:
        """Take blocks in any order from now on."""

    @property
    def path(self) -> str:
        """Where the image is staged."""

    @property
    def size(self) -> int:
        """Bytes of the image that were written."""

    @property
    def verified(self) -> Optional[Record]:
        """Set when only the commit is left."""

    def resume(self) -> Resume:
        """Go back to the last checkpoint."""

    def replay(self) -> Iterator[bytes]:
        """Return the bytes before the checkpoint, for the digest."""

    def spooled_chunks(self) -> Iterator[bytes]:
        """Return the bytes received since the checkpoint."""

    def spool(self, data: bytes) -> None:
        """Keep bytes of the file at its source as they came."""

    def checkpoint(
        self,
        consumed: int,
        produced: int,
        validator: Optional[str],
        *,
        preamble: bytes = b'',
    ) -> None:
        """Say what was made of the bytes received."""

    def write(self, data: bytes) -> None:
        """Append to the image."""

    def check_room(self) -> None:
        """Raise NotEnoughSpace when it takes room that shall stay free."""

    def finish(self) -> None:
        """Give the image its final size."""

    def head(self, length: int) -> bytes:
        """Return the image's first bytes."""

    def tail(self, length: int) -> bytes:
        """Return the image's last bytes."""

    def mark_verified(self, record: Record) -> None:
        """Say that the image is complete and proven."""

    def reset(self) -> None:
        """Forget what was received and begin anew."""

    def discard(self) -> None:
        """Remove all of it."""


class Store(Protocol):
    """Where images are received and made visible."""

    def find(self, name: str) -> Optional[Stored]:
        """Return a visible image, None when it is not there."""

    def stage(
        self,
        name: str,
        *,
        identity: str,
        keep_free: int = 0,
        cancelled: threading.Event,
        timeout: float,
        waiting: Callable[[str], None],
    ) -> ContextManager[Optional[Stage]]:
        """Lock an image and give the place to receive it, or None."""

    def commit(
        self,
        name: str,
        *,
        base: Optional[str],
        metadata: Mapping[str, Any],
        cancelled: threading.Event,
        timeout: float,
        waiting: Callable[[str], None],
    ) -> object:
        """Make a verified image visible."""
