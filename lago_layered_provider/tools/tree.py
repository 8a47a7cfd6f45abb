"""Keep files in a directory that others may write as well.

No link is followed below it, on no part of a path: each directory on the way
is opened by the one above it. What is created is created exclusively, a
temporary file under a name that nobody can foresee.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Tuple

from . import files

#: Rights that the group of a tree's root has there, given to what is new.
_GROUP = 0o060
_GROUP_OF_DIRECTORY = 0o2070

_TEMPORARY = re.compile(r'\.[0-9a-f]{16}\.tmp')


class Tree:
    """The files below a directory that others may write as well.

    The directory itself may be a link. Paths are those of files below it, and
    begin with it. What is created gets the rights that the directory's group
    has there, whatever the umask. Every method may raise OSError, with the
    path and the right that is missing.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def open(
        self, path: str, flags: int = os.O_RDONLY, *,
        mode: int = files.FILE_MODE, follow: bool = False,
    ) -> int:
        """Open a regular file; with O_CREAT it is created if need be.

        Args:
            follow: the file itself may be a link, which is for reading only.
        """
        create, flags = flags & os.O_CREAT, flags & ~os.O_CREAT
        if not follow or flags & os.O_ACCMODE != os.O_RDONLY:
            flags |= os.O_NOFOLLOW
        need = 'read it' if flags & os.O_ACCMODE == os.O_RDONLY else 'write it'
        while True:
            try:
                with self._parent(path, need) as (parent, name):
                    return files.open_regular(
                        name, flags, path=path, parent=parent
                    )
            except FileNotFoundError:
                if not create:
                    raise
            with contextlib.suppress(FileExistsError):
                return self.create(path, flags, mode=mode)

    def create(
        self, path: str, flags: int = os.O_RDWR, *, mode: int = files.FILE_MODE
    ) -> int:
        """Create a file that must not be there, and open it."""
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with self._parent(path) as (parent, name):
            fd = files.open_regular(
                name, flags, mode=mode, path=path, parent=parent
            )
        self._share(fd, _GROUP & mode)
        return fd

    def open_binary(
        self, path: str, *, buffering: int = -1, follow: bool = False
    ) -> BinaryIO:
        """Open a regular file to read it; see `open`."""
        return open(path, 'rb', buffering, opener=(
            lambda path, flags: self.open(path, flags, follow=follow)
        ))

    def read(self, path: str) -> Optional[bytes]:
        """Return the bytes of a file, None where there is none."""
        try:
            with self.open_binary(path) as stream:
                return files.read_all(stream, path, files.MAX_FILE_BYTES)
        except FileNotFoundError:
            return None

    def read_object(self, path: str) -> Optional[Dict[str, Any]]:
        """Return the JSON object in a file; None for none and for garbage."""
        data = self.read(path)
        if data is None:
            return None
        try:
            value = json.loads(data)
        # A hostile depth of brackets is no reason to die either.
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def write(
        self, path: str, data: bytes, *, sync: bool = False,
        mode: int = files.FILE_MODE,
    ) -> None:
        """Replace a file: a reader sees the old bytes or the new ones.

        Args:
            sync: the bytes are on the disk before the name shows them; the
                directory is left to the caller.
        """
        temporary, fd = self.create_claimed(
            os.path.dirname(path), '.tmp', mode=mode
        )
        try:
            files.write_all(fd, memoryview(data), 0)
            if sync:
                os.fsync(fd)
            with self._parent(path) as (parent, name):
                os.replace(
                    os.path.basename(temporary), name,
                    src_dir_fd=parent, dst_dir_fd=parent,
                )
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise
        finally:
            os.close(fd)

    def write_json(self, path: str, value: Any, *, sync: bool = False) -> None:
        """Replace a file by the JSON of `value`."""
        text = json.dumps(value, indent=1, sort_keys=True)
        self.write(path, f'{text}\n'.encode(), sync=sync)

    def create_claimed(
        self, directory: str, ending: str, *, mode: int = files.FILE_MODE
    ) -> Tuple[str, int]:
        """Create a file under a name that nobody can foresee, and claim it.

        Returns:
            its path, and the open file; the claim ends when that is closed.
        """
        while True:
            path = os.path.join(
                directory, f'.{secrets.token_hex(8)}{ending}'
            )
            fd = self.create(path, mode=mode)
            try:
                # Another process may take it for one that a kill has left.
                if _claim_if_possible(fd, path) and os.fstat(fd).st_nlink:
                    return path, fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def remove_unclaimed(self, path: str) -> bool:
        """Remove a file that no process has claimed; True if none has."""
        try:
            fd = self.open(path)
        except OSError:
            return True
        try:
            # Shared: two that look must not take each other for the owner.
            if not files.claim(fd, path, shared=True):
                return False
            # As long as we have it, a creator cannot claim it.
            self.remove(path)
        except OSError:
            pass
        finally:
            os.close(fd)
        return True

    def sweep(self, directory: str) -> None:
        """Remove the temporary files that kills have left in a directory."""
        for name in self.list(directory):
            if _TEMPORARY.fullmatch(name):
                self.remove_unclaimed(os.path.join(directory, name))

    def remove(self, path: str) -> None:
        """Remove a file that may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            with self._parent(path) as (parent, name):
                os.unlink(name, dir_fd=parent)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has that name."""
        with self._parent(new) as (target, name):
            with self._parent(old) as (source, before):
                os.rename(before, name, src_dir_fd=source, dst_dir_fd=target)

    def stat(
        self, path: str, *, follow: bool = False
    ) -> Optional[os.stat_result]:
        """Return what is at a path, None for nothing.

        Args:
            follow: the file itself may be a link, and is not meant then.
        """
        try:
            with self._parent(path, 'search its directory') as (parent, name):
                return os.stat(name, dir_fd=parent, follow_symlinks=follow)
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Tell whether anything is at a path."""
        return self.stat(path) is not None

    def disk_bytes(self, path: str) -> int:
        """Return what a file takes of the disk in bytes, 0 for none."""
        try:
            found = self.stat(path)
        except OSError:
            return 0
        # POSIX leaves the unit open; Linux always counts 512 bytes.
        return found.st_blocks * 512 if found else 0

    def list(self, directory: str) -> List[str]:
        """Return the names in a directory, none where it is missing."""
        try:
            with self._directory(directory, 'read it') as fd:
                return os.listdir(fd)
        except FileNotFoundError:
            return []

    def make_directory(self, path: str) -> None:
        """Create a directory, and those above it, where they are missing."""
        if path == self.root:
            self._make_root()
            return
        try:
            with self._parent(path) as (parent, name):
                os.mkdir(name, dir_fd=parent)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self.make_directory(os.path.dirname(path))
            self.make_directory(path)
            return
        with self._directory(path, 'read it') as fd:
            self._share(fd, _GROUP_OF_DIRECTORY)

    def _make_root(self) -> None:
        try:
            os.makedirs(self.root, exist_ok=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):
            path = self.root
            while not os.path.lexists(path):
                path = os.path.dirname(path)
            if not os.path.exists(path):
                raise OSError(
                    errno.ENOENT,
                    f'it is a link to {os.readlink(path)}, where nothing is',
                    path,
                ) from None
            if not os.path.isdir(path):
                raise OSError(
                    errno.ENOTDIR, 'it is a file, expected a directory', path
                ) from None
            raise

    def check_writable(self, directory: str) -> None:
        """Raise OSError where files cannot be created in a directory."""
        fd = self._walk(directory)
        try:
            # As the process writes: a program may run for another user.
            if os.access(
                '.', os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True
            ):
                return
            number = errno.EACCES
            if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                number = errno.EROFS
            error = OSError(number, os.strerror(number), directory)
            _say_right(error, 'write there')
            raise error
        finally:
            os.close(fd)

    def check_movable(self, directory: str) -> None:
        """Raise OSError where files cannot be moved from there to the root.

        A mount of the same file system is only told by the attempt, which is
        made with a file that does not exist.
        """
        found = self.stat(directory)
        if found is None:
            return
        name = f'.{secrets.token_hex(8)}'
        here = os.stat(self.root).st_dev == found.st_dev
        try:
            self.rename(
                os.path.join(directory, name), os.path.join(self.root, name)
            )
        except OSError as error:
            here = here and error.errno != errno.EXDEV
        if not here:
            raise OSError(
                errno.EXDEV, f'it is on another file system than {self.root}',
                directory,
            )

    def sync(self, directory: str) -> None:
        """Bring the names in a directory to the disk."""
        with self._directory(directory, 'read it') as fd:
            os.fsync(fd)

    @contextlib.contextmanager
    def _parent(
        self, path: str, need: str = ''
    ) -> Iterator[Tuple[int, str]]:
        """Open the directory of a path; give it and the last part.

        Args:
            need: what there may be no right for, in the directory if empty.
        """
        above, name = os.path.split(path)
        fd = self._walk(above)
        try:
            yield fd, name
        except OSError as error:
            # With a directory's descriptor it is the last part alone.
            if error.filename in (None, name) or error.filename2:
                error.filename, error.filename2 = path, None
            _say_right(error, need or f'write in {above}')
            raise
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _directory(self, path: str, need: str) -> Iterator[int]:
        """Open a directory to list it, to bring it to the disk."""
        parent = self._walk(path)
        try:
            fd = os.open('.', os.O_RDONLY | files.DIRECTORY, dir_fd=parent)
        except OSError as error:
            error.filename = path
            _say_right(error, need)
            raise
        finally:
            os.close(parent)
        try:
            yield fd
        finally:
            os.close(fd)

    def _walk(self, directory: str) -> int:
        """Open a directory, step by step, as a place for names."""
        here = self.root
        try:
            fd = os.open(here, os.O_PATH | files.DIRECTORY)
        except PermissionError as error:
            _say_right(error, 'search a directory above it')
            raise
        for name in self._split(directory):
            here = os.path.join(here, name)
            above = fd
            try:
                fd = _open_directory(name, above, here)
            finally:
                os.close(above)
        return fd

    def _split(self, path: str) -> List[str]:
        """Return the parts of a path below the root."""
        start = os.path.join(self.root, '')
        if self.root == os.curdir:
            start = ''
        if path in (self.root, start):
            return []
        parts = path[len(start):].split(os.sep)
        if not path.startswith(start) or {'', '.', '..'} & set(parts):
            raise ValueError(f'{path} is not below {self.root}')
        return parts

    def _share(self, fd: int, bits: int) -> None:
        """Give the root's group the rights that it has there."""
        above, found = os.stat(self.root), os.fstat(fd)
        wanted = stat.S_IMODE(found.st_mode) | above.st_mode & bits
        if wanted == stat.S_IMODE(found.st_mode):
            return
        # Only the owner may, and some file systems know no rights.
        with contextlib.suppress(OSError):
            if found.st_gid != above.st_gid:
                os.fchown(fd, -1, above.st_gid)
            os.fchmod(fd, wanted)


def _claim_if_possible(fd: int, path: str) -> bool:
    """Claim a file; one on a file system without locks counts as claimed."""
    try:
        return files.claim(fd, path)
    except OSError as error:
        if error.errno in files.NO_LOCKS:
            return True
        raise


def _open_directory(name: str, parent: int, path: str) -> int:
    try:
        return os.open(
            name, os.O_PATH | os.O_NOFOLLOW | files.DIRECTORY, dir_fd=parent
        )
    except OSError as error:
        if error.errno in files.NOT_REGULAR:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            raise files.refuse(mode, path, 'a directory') from None
        error.filename = path
        _say_right(error, 'search it')
        raise


def _say_right(error: OSError, need: str) -> None:
    """Add to an error which right is missing, unless it says it."""
    said = error.strerror or ''
    if isinstance(error, PermissionError) and ', ' not in said:
        error.strerror = f'{said}, no right to {need}'


def read_file(path: str) -> Optional[bytes]:
    """Return the bytes of a file, None where there is none; see `Tree`."""
    return _tree_of(path).read(path)


def read_object(path: str) -> Optional[Dict[str, Any]]:
    """Return the JSON object in a file, None for anything else."""
    return _tree_of(path).read_object(path)


def write_file(path: str, data: bytes, *, sync: bool = False) -> None:
    """Replace a file in one step; see `Tree.write`.

    What killed writers have left beside it goes: nobody else looks after
    the directory of a user.
    """
    tree = _tree_of(path)
    with contextlib.suppress(OSError):
        tree.sweep(tree.root)
    tree.write(path, data, sync=sync)


def write_json(path: str, value: Any, *, sync: bool = False) -> None:
    """Replace a file by the JSON of `value` in one step."""
    _tree_of(path).write_json(path, value, sync=sync)


def open_output(
    path: str, *, keep: bool = False, mode: int = files.FILE_MODE
) -> BinaryIO:
    """Open a file to write it, and never what a link leads to.

    Args:
        keep: at its end, if it is there; else a new file takes its place.
    """
    tree = _tree_of(path)
    if not keep:
        tree.remove(path)
    fd = tree.open(path, os.O_RDWR | os.O_CREAT, mode=mode)
    stream = os.fdopen(fd, 'r+b')
    stream.seek(0, os.SEEK_END)
    return stream


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    _tree_of(path).remove(path)


def sync_directory(path: str) -> None:
    """Bring the names in a directory to the disk."""
    Tree(path).sync(path)


def _tree_of(path: str) -> Tree:
    """Return the tree of the directory that a file is in."""
    return Tree(os.path.dirname(path) or os.curdir)
