"""Let a prefix go that is not whole: a new init, or `lago destroy`.

Lago makes a prefix first and fills it then; after a kill in between every
further `lago init` there ends with "already exists". So a prefix in the
making holds a file that its init has locked with flock(2). A file that
nobody has locked, in a prefix that was never saved, is what a killed init
has left, and only that is removed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
from typing import Any, Callable

from lago import log_utils, prefix, utils, workdir

from .repair_tools import Repair

LOGGER = logging.getLogger(__name__)

MARKER = '.init-is-running'

#: Where the lock is kept while the init runs.
LOCK = '_layered_init_lock'


def unfinished_prefix() -> bool:
    """See to it that the next init can begin where one was killed."""
    _before(prefix.Prefix, '_create_ssh_keys', _mark)
    _around_virt_conf()
    _before(workdir.Workdir, 'initialize', _clear)
    _before(workdir.Workdir, 'add_prefix', _load_and_clear)
    return True


def second_cleanup() -> bool:
    """What was cleaned up can be cleaned up again, and so be destroyed.

    Lago takes away the file that says "initialized", and fails where it is
    not; and it takes the directory for a prefix all the same.
    """
    _before(prefix.Prefix, 'cleanup', _tag_as_initialized)
    return True


def _tag_as_initialized(made: Any) -> None:
    from ..tools.tree import open_output

    open_output(made.paths.prefix_lagofile(), keep=True).close()


def _before(
    owner: Any, name: str, action: Callable[..., None]
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        action(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    setattr(owner, name, wrapper)


def _around_virt_conf() -> None:
    original = prefix.Prefix.virt_conf

    @functools.wraps(original)
    def virt_conf(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(self, *args, **kwargs)
        except BaseException:
            _release(self)  # Lago has removed the prefix
            raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.paths.prefixed(MARKER))
        _release(self)
        return result

    prefix.Prefix.virt_conf = virt_conf


def _mark(made: Any) -> None:
    """Say that an init is at work on a prefix that it has just made."""
    from ..tools.locks import ImageLock

    lock = ImageLock(
        made.paths.prefixed(MARKER), what='making the environment'
    )
    lock.acquire(timeout=0)
    setattr(made, LOCK, lock)


def _release(made: Any) -> None:
    lock = getattr(made, LOCK, None)
    if lock is not None:
        delattr(made, LOCK)
        lock.release()


def _load_and_clear(parent: Any, *args: Any, **kwargs: Any) -> None:
    if not parent.loaded:
        # Once the current prefix is gone, Lago takes the workdir for none:
        # it must not look again.
        parent.load()
        parent.loaded = True
    _clear(parent, *args, **kwargs)


def _clear(parent: Any, name: str = 'default', *_: Any, **__: Any) -> None:
    """Remove what a killed init has left of a prefix.

    Raises:
        LagoException: that init is still running.
    """
    path = parent.join(name)
    marker = os.path.join(path, MARKER)
    if not os.path.exists(marker):
        return
    import lockfile

    from ..tools.locks import ImageLock

    lock = ImageLock(marker, what='removing what is left of it')
    try:
        lock.acquire(timeout=0)
    except FileNotFoundError:
        return  # it was removed meanwhile
    except lockfile.AlreadyLocked:
        raise utils.LagoException(
            f'{path} is being made by {lock.holder()}.\n'
            f'Wait for it, or use another directory.'
        ) from None
    try:
        # Lago writes this file last.
        if not os.path.exists(os.path.join(path, 'virt', 'env')):
            shutil.rmtree(path)
            LOGGER.warning(log_utils.log_always(
                f'{path} was never finished; making it anew'
            ))
    finally:
        lock.release()


REPAIRS: tuple[Repair, ...] = (unfinished_prefix, second_cleanup)
