"""Work in a hidden directory beside the result, and show that in one step.

::

    DIRECTORY/.WORD-12345678/   flocked by the process that works in it

A kill leaves such a directory; nobody locks it any more, so the next run
removes it. Its name is never used again: a program that outlived the kill
may still write there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from typing import Callable, Iterator, List, Tuple

from ..core import errors
from ..tools import files, tree

#: What is said of a file that shall be made and is there.
EXISTS = 'it is there already; remove it, or name another file with --output'

#: A file system without hard links says one of these.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def forget_nothing(path: str) -> None:
    """Leave what a killed run had finished to the removal."""


@contextlib.contextmanager
def scratch_directory(
    parent: str, word: str, *,
    finish: Callable[[str], None] = forget_nothing,
) -> Iterator[str]:
    """Make a scratch directory, and remove it at the end.

    Those of killed runs are removed before.

    Args:
        word: what the directory is for, a part of its name.
        finish: is given each directory of a killed run before that goes.

    Raises:
        PublishError: it cannot be made, or the disk is full.
    """
    with disk_errors(parent):
        for path in _list(parent, word):
            fd = files.claim_directory(path)
            if fd is not None:
                try:
                    finish(path)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(fd)
        path, fd = _make(parent, word)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)


def find_others(path: str) -> List[str]:
    """Return the scratch directories of others that work beside one."""
    parent, name = os.path.split(path)
    others = []
    for other in _list(parent, name[1:].rpartition('-')[0]):
        if other != path:
            fd = files.claim_directory(other)
            if fd is None:
                others.append(other)
            else:
                os.close(fd)
    return others


def _list(parent: str, word: str) -> List[str]:
    pattern = re.compile(rf'\.{re.escape(word)}-[0-9a-f]{{8}}')
    return [
        os.path.join(parent, name) for name in sorted(os.listdir(parent))
        if pattern.fullmatch(name)
    ]


def _make(parent: str, word: str) -> Tuple[str, int]:
    while True:
        path = os.path.join(parent, f'.{word}-{secrets.token_hex(4)}')
        os.mkdir(path)
        fd = files.claim_directory(path)
        # Another run may have taken it for that of a killed one meanwhile.
        if fd is not None:
            if os.path.isdir(path):
                return path, fd
            os.close(fd)


def sync_file(path: str) -> None:
    """Bring the bytes of a file to the disk."""
    with files.open_binary(path) as stream:
        os.fsync(stream.fileno())


def show_file(path: str, target: str) -> None:
    """Give a finished file its name, never that of another file.

    Raises:
        PublishError: there is a file of that name.
    """
    sync_file(path)
    try:
        os.link(path, target)
    except FileExistsError:
        raise errors.PublishError(
            f'Cannot write {target}', [EXISTS],
        ) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):
            raise errors.PublishError(
                f'Cannot write {target}', [EXISTS]
            ) from None
        os.rename(path, target)
    tree.sync_directory(os.path.dirname(target))


@contextlib.contextmanager
def disk_errors(directory: str, hint: str = '') -> Iterator[None]:
    """Say in our words that a disk is full or cannot be written.

    Args:
        hint: what has become of what was there, and what to do.

    Raises:
        PublishError: in place of an OSError, and of a ToolError for that.
    """
    try:
        yield
    except errors.ToolError as error:
        if not files.is_full(error):
            raise
        raise no_room(directory, error.stderr, hint) from error
    except OSError as error:
        if files.is_full(error):
            raise no_room(directory, str(error), hint) from error
        raise errors.PublishError(
            directory, [files.describe(error)], hint=hint
        ) from error


def no_room(
    directory: str, reason: str, hint: str = ''
) -> errors.PublishError:
    """Return the error of a disk that became full."""
    free = ''
    with contextlib.suppress(OSError):
        free = f', {files.measure(directory)[0]} bytes free'
    return errors.PublishError(
        directory, [f'no room left{free}: {reason}'],
        hint=hint or 'Nothing was left there; make room and run it again.',
    )
