"""Receive the blocks of an image in any order, several at the same time.

What a decompressor cannot take yet is kept in a spool for each block, named
by the block's offset in the file at its source, so that a kill loses nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from typing import Callable, Container, Dict, Optional, Tuple

from ..core import errors
from ..formats.block import Block
from ..tools import files
from . import layout, sparse, state


class BlockSpool:
    """Bytes of one block as they came; `size` is how many at least."""

    def __init__(self, paths: layout.Layout, path: str) -> None:
        self._tree = paths.tree
        self._path = path
        self._fd: Optional[int] = None

    def write(self, data: bytes, position: int) -> None:
        """Write at `position` in the block; nothing before it is missing."""
        with files.disk_errors(self._tree.root):
            if self._fd is None:
                self._fd = self._open(os.O_CREAT)
            files.write_all(self._fd, memoryview(data), position)

    def read(self, length: int, position: int) -> bytes:
        """Return bytes of the block.

        Raises:
            StoreError: somebody has made it shorter.
        """
        with files.disk_errors(self._tree.root):
            if self._fd is None:
                self._fd = self._open(0)
            data = os.pread(self._fd, length, position)
        if len(data) < length:
            raise errors.StoreError(
                f'{self._path} has become shorter: {position + len(data)} '
                f'bytes, expected {position + length}'
            )
        return data

    def remove(self) -> None:
        """Close and remove it; may be called twice."""
        self.close()
        with files.disk_errors(self._tree.root):
            self._tree.remove(self._path)

    def close(self) -> None:
        """Close the file; the bytes stay. May be called twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open(self, flags: int) -> int:
        return self._tree.open(self._path, os.O_RDWR | flags)


class Blocks:
    """A staged image that is written block by block.

    `write`, `read_into` and `flush` may be called by several threads at once,
    the rest by one at a time.

    Args:
        fd: of the staged file, which has its final size.
        done: how far it is; `progress.Progress.ahead` lists the blocks that
            are done although others before them are not.
        save: keeps a state.
    """

    def __init__(
        self,
        paths: layout.Layout,
        name: str,
        fd: int,
        done: state.Progress,
        save: Callable[[state.Progress], None],
    ) -> None:
        self._paths = paths
        self._name = name
        self._fd = fd
        self._done = done
        self._save = save

    @property
    def consumed(self) -> int:
        """Offset in the file at its source; all before it is done."""
        return self._done.consumed

    @property
    def produced(self) -> int:
        """Offset in the image; all before it is written."""
        return self._done.produced

    @property
    def ahead(self) -> Tuple[Block, ...]:
        """What is done beyond that."""
        return self._done.ahead

    def note(
        self,
        consumed: int,
        produced: int,
        ahead: Tuple[Block, ...],
        validator: Optional[str],
        preamble: bytes,
    ) -> None:
        """Say what is done; all of it is written.

        Args:
            validator: the state of the file at its source.
            preamble: what a decompressor must know to begin at `consumed`.
        """
        self._done = replace(
            self._done, consumed=consumed, produced=produced, ahead=ahead,
            validator=validator, preamble=preamble,
        )
        with files.disk_errors(self._paths.root):
            self._save(self._done)

    def write(self, data: bytes, position: int) -> None:
        """Write a part of the image; zeros become holes."""
        view = memoryview(data)
        with files.disk_errors(self._paths.root):
            for start, end in sparse.data_runs(data, position):
                files.write_all(self._fd, view[start:end], position + start)

    def read_into(self, buffer: memoryview, position: int) -> None:
        """Fill a buffer with what was written at `position`."""
        with files.disk_errors(self._paths.root):
            if self._is_hole(position, position + len(buffer)):
                buffer[:] = bytes(len(buffer))
                return
            count = os.preadv(self._fd, [buffer], position)
        if count < len(buffer):
            raise errors.StoreError(
                f'{self._paths.staged(self._name)} has become shorter: '
                f'{position + count} bytes, expected '
                f'{position + len(buffer)}'
            )

    def _is_hole(self, start: int, end: int) -> bool:
        """Tell whether nothing but zeros was written there.

        To read a hole would fill the kernel's memory with its zeros.
        """
        try:
            return os.lseek(self._fd, start, os.SEEK_DATA) >= end
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is no data any more
                return end <= os.fstat(self._fd).st_size
            if error.errno == errno.EINVAL:  # the file system cannot tell
                return False
            raise

    def flush(self) -> None:
        """Bring to the disk what was written so far."""
        with files.disk_errors(self._paths.root):
            os.fdatasync(self._fd)

    def spool(self, offset: int) -> BlockSpool:
        """Return the spool of the block at `offset`."""
        return BlockSpool(
            self._paths, self._paths.spool(self._name, offset)
        )

    def spooled(self) -> Dict[int, int]:
        """Return the bytes in each spool, by the block's offset."""
        with files.disk_errors(self._paths.root):
            return state.spool_sizes(self._paths, self._name)

    def drop_spools(self, keep: Container[int]) -> None:
        """Remove the spools that begin at other offsets."""
        for offset in self.spooled():
            if offset not in keep:
                with contextlib.closing(self.spool(offset)) as spool:
                    spool.remove()
