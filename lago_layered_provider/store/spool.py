"""Keep what was received since the last checkpoint, as it came."""

from __future__ import annotations

import os
from typing import Iterator, Optional

from . import files, layout, progress

READ_BYTES = 2**20


class Spool:
    """Bytes of the file on the server from the offset `start` on.

    `size` is how many there are. Methods raise OSError.
    """

    def __init__(self, paths: layout.Layout, name: str) -> None:
        self._paths = paths
        self._name = name
        self._fd: Optional[int] = None
        self.start = 0
        self.size = 0

    def open(self, start: int) -> None:
        """Take the spool that begins at `start`, remove the others."""
        self.close()
        self.start = start
        self._try_open(0)
        progress.remove_spools(self._paths, self._name, keep=start)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; the file is created with the first ones."""
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
        files.write_file(self._paths.spool(self._name, start), rest)

    def close(self) -> None:
        """Close the file; the bytes stay."""
        fd, self._fd = self._fd, None
        self.size = 0
        if fd is not None:
            os.close(fd)

    def remove(self) -> None:
        """Close and remove all spools of the image."""
        self.close()
        progress.remove_spools(self._paths, self._name)

    def _try_open(self, flags: int) -> None:
        path = self._paths.spool(self._name, self.start)
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            if flags & os.O_CREAT:
                raise
            return
        self.size = os.fstat(self._fd).st_size
