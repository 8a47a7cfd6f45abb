"""Images and documents from a file system: the source type `file`."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, List, Optional, Sequence, Tuple

from ..core.errors import TransferError
from ..tools.files import open_binary
from ..transfer.ports import FileInfo
from . import Document
from .lago_methods import LagoMethods

#: What a network file system may recover from.
_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


def _expand(name: str) -> str:
    return os.path.expanduser(os.path.expandvars(name))


def _fail(name: str, error: OSError) -> TransferError:
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return TransferError(
        name,
        error.strerror or str(error),
        status=404 if missing else None,
        retryable=error.errno in _PASSING,
    )


def _open_regular(name: str) -> BinaryIO:
    """Open a regular file, and nothing that could block or never end."""
    try:
        return open_binary(name, buffering=0)
    except OSError as error:
        raise _fail(name, error) from error
    except ValueError as error:
        raise TransferError(name, str(error)) from error


def _is_inside(path: str, roots: Sequence[str]) -> bool:
    """Tell whether a path without links is in one of the directories."""
    return any(os.path.commonpath([root, path]) == root for root in roots)


def _inform(file: BinaryIO) -> FileInfo:
    """Describe an open file; its state is told by inode, time and size."""
    found = os.fstat(file.fileno())
    return FileInfo(
        found.st_size,
        f'{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}',
    )


class FileProvider(LagoMethods):
    """A directory of images.

    Args:
        root: the directory; variables and ~ are expanded, as in Lago.
    """

    def __init__(self, root: str) -> None:
        if not isinstance(root, str) or not root:
            raise ValueError(f'root {root!r} is not a directory name')
        self.root = _expand(root)
        self._given = root
        self._roots: Optional[Tuple[str, ...]] = None

    def confine(self, roots: Sequence[str]) -> None:
        """Let it read only what is in these directories, links resolved.

        Raises:
            ValueError: its own one is in none of them.
        """
        if self.root != self._given:
            # Who wrote it must not learn from us what they stand for.
            raise ValueError(f'root {self._given} holds a variable or ~')
        self._roots = tuple(map(os.path.realpath, roots))
        if not _is_inside(os.path.realpath(self.root), self._roots):
            raise ValueError(f'root {self.root} is of this machine')

    def _open(self, path: str) -> BinaryIO:
        name = self.locate(path)
        file = _open_regular(name)
        if self._roots is not None:
            # Of the open file: a link may change at any time.
            real = os.readlink(f'/proc/self/fd/{file.fileno()}')
            if not _is_inside(real, self._roots):
                file.close()
                raise TransferError(
                    name, f'refused: it leads to {real}, outside of what '
                    f'an index from the network may use'
                )
        return file

    def locate(self, path: str) -> str:
        """Return the file name of `path`."""
        return os.path.join(self.root, path)

    def stat(self, path: str) -> FileInfo:
        """Return the size and state of a file."""
        with self._open(path) as file:
            return _inform(file)

    def open(
        self,
        path: str,
        *,
        start: int = 0,
        end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> FileStream:
        """Open a file as `ports.Provider.open` says."""
        name = self.locate(path)
        file = self._open(path)
        info = _inform(file)
        changed = validator is not None and validator != info.validator
        if changed or start > (info.size or 0):
            start = 0
        return FileStream(name, file, info, start, end)


class FileStream:
    """The bytes of a file in a file system; see `ports.Stream`."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        info: FileInfo,
        start: int,
        end: Optional[int],
    ) -> None:
        self._name = name
        self._file = file
        self._aborted = False
        self.start = start
        self.total = info.size
        self.validator = info.validator
        size = info.size or 0
        self._left = (size if end is None else min(end, size)) - start
        file.seek(start)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, b'' at the end."""
        if self._aborted:
            raise TransferError(self._name, 'the transfer was stopped')
        if self._left <= 0:
            return b''
        try:
            data = self._file.read(min(size, self._left))
        except OSError as error:
            raise _fail(self._name, error) from error
        if not data:
            raise TransferError(
                self._name,
                f'the file was cut while it was read, {self._left} bytes '
                f'are missing',
                retryable=True,
            )
        self._left -= len(data)
        return data

    def abort(self) -> None:
        """Make the next `read` fail; a disk does not keep one waiting."""
        self._aborted = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_file_document(
    name: str,
    *,
    limit: int,
    validator: Optional[str] = None,
    expand: bool = False,
) -> Document:
    """Read a document from a file, as `read_document` says.

    Args:
        expand: expand variables and ~ in `name`.
    """
    name = _expand(name) if expand else name
    with _open_regular(name) as file:
        info = _inform(file)
        if validator is not None and validator == info.validator:
            return Document(None, validator)
        chunks: List[bytes] = []
        size = 0
        while True:
            try:
                data = file.read(1 << 20)
            except OSError as error:
                raise _fail(name, error) from error
            if not data:
                return Document(b''.join(chunks), info.validator)
            size += len(data)
            if size > limit:
                raise TransferError(
                    name, f'too large: more than {limit} bytes'
                )
            chunks.append(data)
