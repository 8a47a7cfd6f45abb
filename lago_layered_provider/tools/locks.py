"""Lock an image: the flock(2) that Lago takes, on the file that Lago uses.

A flock ends with its process, however that dies, so there is no stale lock
and nothing to break. It belongs to an open file, not to a process: every
`ImageLock` opens the file anew, so threads of one process exclude each other
as well.

The holder writes into the file who it is, for those who wait. That text is
never believed for anything but a message: a plain Lago truncates it, and
after a kill it stays until the next holder.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Callable, Optional

import lockfile

from ..core import errors
from . import files
from .tree import Tree

FIRST_POLL_SECONDS = 0.01
LONGEST_POLL_SECONDS = 0.25
POLL_GROWTH = 1.5

#: Lago's, so that a group may share a store.
LOCK_MODE = 0o660

_HOLDER_BYTES = 4096


def ignore_holder(holder: str) -> None:
    """Wait in silence."""


class ImageLock(lockfile.LockBase):
    """A lock; an object may be acquired again after a release.

    Args:
        path: the file to lock; it is created and stays.
        tree: it is below that; None: that of its directory.
        shared: others may have it at the same time, if theirs are shared.
        what: what the holder does, for those who wait.
        cancelled: ends the waiting.
        waiting: is told who holds the lock, when it has to be waited for and
            whenever that changes.
    """

    def __init__(
        self,
        path: str,
        *,
        tree: Optional[Tree] = None,
        what: str = '',
        cancelled: Optional[threading.Event] = None,
        waiting: Callable[[str], None] = ignore_holder,
        shared: bool = False,
    ) -> None:
        super().__init__(path, threaded=True)
        self._shared = shared
        # LockBase would append `.lock` and invent a second file.
        self.lock_file = self.unique_name = path
        self._tree = tree or _tree_of(path)
        self._what = what
        self._cancelled = cancelled or threading.Event()
        self._waiting = waiting
        self._fd: Optional[int] = None

    def acquire(self, timeout: Optional[float] = None) -> None:
        """Take the lock.

        Args:
            timeout: seconds to wait, None without end, 0 not at all.

        Raises:
            lockfile.AlreadyLocked: somebody holds it, and `timeout` is 0.
            lockfile.LockTimeout: the time is over.
            Cancelled: the user stopped the work.
            OSError: the file cannot be opened for writing, is no regular
                file, or its file system has no locks.
        """
        if self._fd is not None:
            raise lockfile.AlreadyLocked(f'{self.path}: locked by this object')
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_POLL_SECONDS
        told: Optional[str] = None
        while not self._try():
            if timeout is not None and timeout <= 0:
                raise lockfile.AlreadyLocked(self._refusal())
            # The pause goes first: a new holder needs a moment to say who it
            # is, and most locks are free again before anybody need be told.
            if self._cancelled.wait(pause):
                raise errors.Cancelled(f'Stopped waiting for {self.path}')
            if self._try():
                return
            holder = self.holder()
            if holder != told:
                told = holder
                self._waiting(holder)
            if deadline is not None and time.monotonic() >= deadline:
                raise lockfile.LockTimeout(self._refusal())
            pause = min(pause * POLL_GROWTH, LONGEST_POLL_SECONDS)
            if deadline is not None:
                left = deadline - time.monotonic()
                pause = max(min(pause, left), 0)

    def release(self) -> None:
        """Give the lock back; the file stays.

        Raises:
            lockfile.NotLocked: this object does not hold it.
        """
        if self._fd is None:
            raise lockfile.NotLocked(f'{self.path} is not locked')
        fd, self._fd = self._fd, None
        try:
            if not self._shared:
                os.ftruncate(fd, 0)
        except OSError:
            pass
        finally:
            # A child that was forked meanwhile has the file open too, and
            # closing ours alone would leave it locked.
            files.release(fd)
            os.close(fd)

    def is_locked(self) -> bool:
        """Tell whether anybody holds it, this object included."""
        return self._fd is not None or is_held(self.path, self._tree)

    def i_am_locking(self) -> bool:
        """Tell whether this object holds it."""
        return self._fd is not None

    def break_lock(self) -> None:
        """Refuse: only its holder can end a flock.

        Raises:
            lockfile.LockFailed: always.
        """
        raise lockfile.LockFailed(
            f'{self.path}: end {self.holder()} to free the lock'
        )

    def holder(self) -> str:
        """Say who holds the lock, as far as is known."""
        try:
            with self._tree.open_binary(self.path) as stream:
                holder = json.loads(stream.read(_HOLDER_BYTES))
            since = time.strftime(
                '%Y-%m-%d %H:%M:%S', time.localtime(holder['since'])
            )
            text = (
                f'process {int(holder["pid"])} on {holder["host"]}, '
                f'{holder["what"]}, since {since}'
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 'another process'
        return text if text.isprintable() else 'another process'

    def _try(self) -> bool:
        """Take the lock if it is free."""
        while True:
            fd = self._tree.open(
                self.path, os.O_RDWR | os.O_CREAT, mode=LOCK_MODE
            )
            try:
                if not files.claim(fd, self.path, shared=self._shared):
                    return False
                if self._is_path(fd):
                    if not self._shared:
                        self._sign(fd)
                    self._fd = fd
                    return True
            finally:
                # A signal may raise anywhere: what is not held is closed.
                if self._fd != fd:
                    os.close(fd)

    def _sign(self, fd: int) -> None:
        """Write who holds the lock; a full disk does not hinder locking."""
        text = json.dumps({
            'pid': os.getpid(),
            'host': self.hostname,
            'what': self._what,
            'since': time.time(),
        })
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
            # The umask has taken bits off; only the owner may do this.
            os.fchmod(fd, LOCK_MODE)
        except OSError:
            pass

    def _is_path(self, fd: int) -> bool:
        """Tell whether the open file still is what the path leads to.

        Somebody may have removed the file between our open and our flock;
        the lock would then exclude nobody.
        """
        found = self._tree.stat(self.path)
        return found is not None and os.path.samestat(found, os.fstat(fd))

    def _refusal(self) -> str:
        return f'{self.path} is locked by {self.holder()}'


def is_held(path: str, tree: Optional[Tree] = None) -> bool:
    """Tell whether anybody holds the lock, without the right to write.

    What cannot be opened, or locked at all, counts as free.
    """
    try:
        fd = (tree or _tree_of(path)).open(path)
    except OSError:
        return False
    try:
        # Shared, so that two who look do not take each other for a holder.
        return not files.claim(fd, path, shared=True)
    except OSError:
        return False
    finally:
        os.close(fd)


def _tree_of(path: str) -> Tree:
    return Tree(os.path.dirname(path) or os.curdir)
