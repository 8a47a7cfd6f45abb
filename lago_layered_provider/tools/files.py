"""Open files, claim them, and say what is wrong with them.

This module and `tree` are the one place that opens files. What a user names
(an init file, a keyring) may be a link, and has to lead to a regular file: a
FIFO would be waited for without end. A file of this package in a directory
that others may write as well belongs to a `tree.Tree`, which follows no link.

A temporary file or directory belongs to the process that has it claimed by
flock(2); one that no process claims was left by a kill.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import (
    IO, BinaryIO, Iterator, Optional, TextIO, Tuple, Union, cast,
)

from ..core import errors

#: Small files are read as a whole; nothing that we write comes near it.
MAX_FILE_BYTES = 2**28

READ_BYTES = 2**18

#: What a new file may have; the umask and `Tree` say what it gets.
FILE_MODE = 0o666

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: What the C library calls these; tools run with LC_ALL=C.
_FULL_WORDS = ('No space left on device', 'Disk quota exceeded')
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

#: What open(2) says of links, sockets, devices without a driver, directories.
NOT_REGULAR = (
    errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR, errno.ENOTDIR,
)

#: A FIFO without a writer would be waited for, a terminal would be taken.
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC

NOT_WRITABLE_HINT = (
    'Get the right to write there, or choose another store with '
    '--template-store.'
)
_HINTS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), (
        'Get that right from its owner, or choose another store with '
        '--template-store.'
    )),
    errno.ELOOP: (
        'Somebody may have put it there to have another file changed. Remove '
        'it and run it again.'
    ),
    errno.EXDEV: (
        'Let all of the store be on one file system: mount or link the whole '
        'store, no part of it.'
    ),
    **dict.fromkeys(NO_LOCKS, (
        'Without locks several commands would spoil each other\'s work. '
        'Choose a store on a local disk with --template-store; NFS has locks '
        'from version 4 on, see nfs(5).'
    )),
}
_HINT = 'Look at it, or choose another store with --template-store.'

_KINDS = (
    (stat.S_ISLNK, errno.ELOOP, 'a link'),
    (stat.S_ISDIR, errno.EISDIR, 'a directory'),
    (stat.S_ISFIFO, errno.ENXIO, 'a FIFO'),
    (stat.S_ISSOCK, errno.ENXIO, 'a socket'),
    (stat.S_ISREG, errno.ENOTDIR, 'a file'),
)


def open_binary(path: str, *, buffering: int = -1) -> BinaryIO:
    """Open a regular file that a user named, to read it.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    return open(path, 'rb', buffering, opener=_open_named)


def open_text(path: str, *, on_error: str = 'strict') -> TextIO:
    """Open a regular file of UTF-8 that a user named, to read it.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    return cast(TextIO, open(
        path, encoding='utf-8', errors=on_error, opener=_open_named
    ))


def read_binary(path: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a regular file that a user named.

    Raises:
        OSError: it cannot be read, has more than `limit` bytes, or is no
            regular file.
    """
    with open_binary(path) as stream:
        return read_all(stream, path, limit)


def _open_named(path: str, flags: int) -> int:
    return open_regular(path, flags, path=path)


def open_regular(
    name: str, flags: int, *, path: str, mode: int = FILE_MODE,
    parent: Optional[int] = None,
) -> int:
    """Open a regular file.

    Args:
        path: of it, for messages.
        parent: the directory, where `name` is not a whole path.
    """
    try:
        fd = os.open(name, flags | _ALWAYS, mode, dir_fd=parent)
    except OSError as error:
        if error.errno in NOT_REGULAR:
            # The kernel's words for it are of no use to anybody.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _check_kind(os.stat(
                    name, dir_fd=parent,
                    follow_symlinks=not flags & os.O_NOFOLLOW,
                ).st_mode, path)
        raise
    try:
        _check_kind(os.fstat(fd).st_mode, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode):
        raise refuse(mode, path, 'a regular file')


def refuse(mode: int, path: str, expected: str) -> OSError:
    """Return the error of what is something else than expected."""
    number, kind = next(
        ((number, kind) for is_kind, number, kind in _KINDS if is_kind(mode)),
        (errno.ENXIO, 'a device'),
    )
    return OSError(number, f'it is {kind}, expected {expected}', path)


def read_all(stream: IO[bytes], path: str, limit: int) -> bytes:
    """Return the bytes of an open file, if there are not too many."""
    # In pieces: one read takes memory for all that it may return.
    data = bytearray()
    for piece in iter(lambda: stream.read(READ_BYTES), b''):
        data += piece
        if len(data) > limit:
            raise OSError(
                errno.EFBIG, f'it has more than {limit} bytes', path
            )
    return bytes(data)


def claim(fd: int, path: str, *, shared: bool = False) -> bool:
    """Take the flock(2) of an open file; False where another process has it.

    Raises:
        OSError: its file system has no such locks.
    """
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        reason = error.strerror
        if error.errno in NO_LOCKS:
            reason = f'its file system has no locks, flock says: {reason}'
        raise OSError(error.errno, reason, path) from None
    return True


def release(fd: int) -> None:
    """Give back what was claimed, for forked children as well."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def claim_directory(path: str, *, follow: bool = False) -> Optional[int]:
    """Open and claim a directory, until it is closed.

    Args:
        follow: it may be a link.

    Returns:
        None where another process has it, or nothing is there.
    """
    flags = DIRECTORY | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        return None
    try:
        if claim(fd, path):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def write_all(fd: int, data: memoryview, position: int) -> None:
    """Write all of `data` at `position`, however often it takes."""
    done = os.pwrite(fd, data, position)
    while done < len(data):
        done += os.pwrite(fd, data[done:], position + done)


def existing_parent(path: str) -> str:
    """Return `path`, or the nearest directory above it that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def measure(path: str) -> Tuple[int, int]:
    """Return what an ordinary user may still write at `path`, and in all."""
    found = os.statvfs(existing_parent(path))
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def describe(error: OSError) -> str:
    """Return what the system says of a file, and which file that is."""
    reason = error.strerror or str(error)
    name = os.path.basename(str(error.filename or ''))
    if error.errno == errno.EINVAL and ':' in name:
        reason = (
            f'{reason}; its file system may not allow colons in names, which '
            f'those of images have'
        )
    return f'{reason}: {error.filename}' if error.filename else reason


@contextlib.contextmanager
def disk_errors(root: str, *, reading: bool = False) -> Iterator[None]:
    """Turn an OSError into the store's error; `root` is the directory.

    Raises:
        StoreNotWritable: no right to write, or a read-only file system.
        StoreFull: no room left.
        StoreError: what else a disk can have.
    """
    try:
        yield
    except OSError as error:
        raise _store_error(root, error, reading) from error


def is_full(error: Union[OSError, errors.ToolError]) -> bool:
    """Tell whether an error says that a disk, or a quota, is used up."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(words in error.stderr for words in _FULL_WORDS)


def _store_error(
    root: str, error: OSError, reading: bool
) -> errors.StoreError:
    reason = describe(error)
    if is_full(error):
        return errors.StoreFull(
            f'{root}: no room left, {_describe_room(root)}: {reason}',
            hint=(
                'What was fetched is kept. Make room there and run it again, '
                'or choose another store with --template-store.'
            ),
        )
    if error.errno in _FORBIDDEN and not reading:
        return errors.StoreNotWritable(
            f'{root}: the store cannot be written: {reason}',
            hint=NOT_WRITABLE_HINT,
        )
    return errors.StoreError(
        f'{root}: {reason}', hint=_HINTS.get(error.errno or 0, _HINT)
    )


def _describe_room(root: str) -> str:
    try:
        return f'{measure(root)[0]} bytes free'
    except OSError:
        return 'unknown how much is free'
