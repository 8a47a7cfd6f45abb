"""Keep what was received since the last checkpoint, as it came.

It is of use only to a later transfer, so it does not get room that images
need. A plan counts `SPOOL_BYTES` for it; for a file that is one large block
more is kept where there is room, and else nothing.
"""

from __future__ import annotations

import os
from typing import Callable, Iterator, Optional

from ..core.planning import SPOOL_BYTES
from ..tools import files
from . import layout, state

READ_BYTES = 2**20


class Spool:
    """Bytes of the file on the server from the offset `start` on.

    `size` is how many are kept, `end` the offset at which those end that
    came, kept or not. Methods raise OSError.

    Args:
        spare: tells how many bytes of the disk no image needs; None: enough.
        keep_free: so many of these are not for the spool.
    """

    def __init__(
        self,
        paths: layout.Layout,
        name: str,
        spare: Optional[Callable[[], int]] = None,
        keep_free: int = 0,
    ) -> None:
        self._paths = paths
        self._name = name
        self._spare = spare
        self._keep_free = keep_free
        self._fd: Optional[int] = None
        self.start = self.size = self.end = 0

    def begin(self, start: int) -> None:
        """Go on with what is kept from `start` on."""
        self.open(start)
        self.end = start + self.size

    def open(self, start: int) -> None:
        """Take the spool that begins at `start`, remove the others."""
        self.close()
        self.start = start
        self._try_open(0)
        self.end = max(self.end, start + self.size)
        state.remove_spools(self._paths, self._name, keep=start)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; the file is created with the first ones."""
        has_gap = self.start + self.size < self.end
        self.end += len(data)
        if has_gap:
            return
        if self._is_too_large(self.size + len(data)):
            self.remove()
            return
        if self._fd is None:
            self._try_open(os.O_CREAT)
        assert self._fd is not None
        files.write_all(self._fd, memoryview(data), self.size)
        self.size += len(data)

    def chunks(self) -> Iterator[bytes]:
        """Return the bytes again; it may be branched off meanwhile."""
        here = self.start
        while self._fd is not None:
            # Counted on the server's file, for `start` may move on.
            skip = max(0, here - self.start)
            left = min(READ_BYTES, self.size - skip)
            chunk = os.pread(self._fd, left, skip) if left > 0 else b''
            if not chunk:
                return
            here = self.start + skip + len(chunk)
            yield chunk

    def branch(self, start: int) -> None:
        """Begin a spool at `start` with what this one has from there on."""
        skip = start - self.start
        if self._fd is None or not 0 < skip < self.size:
            return
        rest = os.pread(self._fd, self.size - skip, skip)
        self._paths.tree.write(
            self._paths.spool(self._name, start), rest
        )

    def close(self) -> None:
        """Close the file; the bytes stay."""
        fd, self._fd = self._fd, None
        self.size = 0
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Close and remove all spools of the image."""
        self.close()
        state.remove_spools(self._paths, self._name)

    def _is_too_large(self, size: int) -> bool:
        """Tell whether it would take room that images need."""
        steps = size // SPOOL_BYTES
        if self._spare is None or steps == self.size // SPOOL_BYTES:
            return False
        # Where they do not fit without it either, it is kept: it need not
        # come again when somebody has made room.
        return (
            -self.size <= self._spare() < self._keep_free + SPOOL_BYTES
        )

    def _try_open(self, flags: int) -> None:
        path = self._paths.spool(self._name, self.start)
        try:
            self._fd = self._paths.tree.open(path, os.O_RDWR | flags)
        except FileNotFoundError:
            if flags & os.O_CREAT:
                raise
            return
        self.size = os.fstat(self._fd).st_size
