"""Write small files in one step; say in the store's words what failed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from typing import Any, Dict, Iterator, Optional, Tuple

from ..core import errors

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)

NOT_WRITABLE_HINT = (
    'Get the right to write there, or choose another store with '
    '--template-store.'
)


def write_file(
    path: str, data: bytes, *, sync: bool = False, shared: bool = False
) -> None:
    """Replace the file `path`: a reader sees the old bytes or the new ones.

    Args:
        sync: the bytes are on the disk before the name shows them; the
            directory is left to the caller.
        shared: several may write the same file at once, no lock held.
    """
    # Under a lock one name is enough, and a killed run leaves no heap of
    # temporaries behind: the next one writes over it.
    unique = f'.{secrets.token_hex(4)}' if shared else ''
    temporary = f'{path}{unique}.tmp'
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
    )
    try:
        try:
            write_all(fd, memoryview(data), 0)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        remove_file(temporary)
        raise


def write_all(fd: int, data: memoryview, position: int) -> None:
    """Write all of `data` at `position`, however often it takes."""
    done = os.pwrite(fd, data, position)
    while done < len(data):
        done += os.pwrite(fd, data[done:], position + done)


def write_json(path: str, value: Any, *, sync: bool = False) -> None:
    """Replace the file `path` by the JSON of `value`."""
    text = json.dumps(value, indent=1, sort_keys=True)
    write_file(path, f'{text}\n'.encode(), sync=sync)


def read_file(path: str) -> Optional[bytes]:
    """Return the bytes of a file, None where there is none."""
    try:
        with open(path, 'rb') as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_object(path: str) -> Optional[Dict[str, Any]]:
    """Return the JSON object in a file; None for none and for garbage."""
    data = read_file(path)
    if data is None:
        return None
    try:
        value = json.loads(data)
    # A hostile depth of brackets is no reason to die either.
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_written(path: str) -> None:
    """Remove a file of `write_file`, and what one left that was killed."""
    remove_file(path)
    remove_file(f'{path}.tmp')


def sync_directory(path: str) -> None:
    """Bring the names in a directory to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def disk_bytes(path: str) -> int:
    """Return what a file takes of the disk in bytes, 0 where there is none."""
    try:
        # POSIX leaves the unit open; Linux always counts 512 bytes.
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def existing_parent(path: str) -> str:
    """Return `path`, or the nearest directory above it that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def measure(path: str) -> Tuple[int, int]:
    """Return what an ordinary user may still write at `path`, and in all."""
    stat = os.statvfs(existing_parent(path))
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


@contextlib.contextmanager
def disk_errors(root: str, *, reading: bool = False) -> Iterator[None]:
    """Turn an OSError into the store's error; `root` is the directory.

    Raises:
        StoreNotWritable: no right to write, or a read-only file system.
        StoreError: no room left, or what else a disk can have.
    """
    try:
        yield
    except OSError as error:
        raise _store_error(root, error, reading) from error


def _store_error(
    root: str, error: OSError, reading: bool
) -> errors.StoreError:
    reason = error.strerror or str(error)
    if error.filename:
        reason = f'{reason}: {error.filename}'
    if error.errno in _FULL:
        return errors.StoreError(
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
        f'{root}: {reason}',
        hint='Look at it, or choose another store with --template-store.',
    )


def _describe_room(root: str) -> str:
    try:
        return f'{measure(root)[0]} bytes free'
    except OSError:
        return 'unknown how much is free'
