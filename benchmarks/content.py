"""Real files of this machine, each of them used once."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Iterator, List

MIB = 1 << 20
BLOCK = 4096
PIECE = 16 * MIB

SOURCE = Path('/usr')
#: Larger files would be a large part of an image.
LARGEST_FILE = 64 * MIB


class Content:
    """The files below /usr, in an order that only their names decide."""

    def __init__(self) -> None:
        self._files = iter(_files())

    def copy_files(self, target: Path, size: int) -> int:
        """Copy files with that many bytes in all; return how many it were.

        Raises:
            RuntimeError: there are no more files.
        """
        taken = 0
        for path in self._next(size):
            copy = target / path.relative_to('/')
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            taken += path.stat().st_size
        return taken

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield that many bytes of files, block by block.

        Raises:
            RuntimeError: there are no more files.
        """
        piece = bytearray()
        for path in self._next(size):
            data = path.read_bytes()
            piece += data.ljust(-(-len(data) // BLOCK) * BLOCK, b'\0')
            if len(piece) >= PIECE:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)

    def _next(self, size: int) -> Iterator[Path]:
        while size > 0:
            path = next(self._files, None)
            if path is None:
                raise RuntimeError(
                    f'{SOURCE} has too little in it; choose a smaller --size'
                )
            # No large file at the end, which would make more of it than was
            # asked for.
            if path.stat().st_size <= max(size, BLOCK):
                size -= path.stat().st_size
                yield path


def _files() -> List[Path]:
    found: List[str] = []
    for parent, _, names in os.walk(SOURCE):
        found += (os.path.join(parent, name) for name in names)
    found.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    return [path for path in map(Path, found) if _is_wanted(path)]


def _is_wanted(path: Path) -> bool:
    try:
        return (
            not path.is_symlink() and path.is_file()
            and 0 < path.stat().st_size <= LARGEST_FILE
            and os.access(path, os.R_OK)
        )
    except OSError:
        return False
