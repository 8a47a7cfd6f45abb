"""Who uses the images of a store: notes of environments, and holds.

What is not noted yet is guarded by a lock: shared by those who are about to
use images, taken alone by who removes some.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Iterator, List, Mapping, Optional

import lockfile

from ..core import errors
from ..core.usage import UsageNote, parse_note
from . import files, layout, locks


class Usage:
    """The users of one store."""

    def __init__(self, root: str) -> None:
        self._paths = layout.Layout(root)

    @contextlib.contextmanager
    def alone(
        self,
        what: str,
        timeout: Optional[float],
        waiting: Callable[[str], None],
    ) -> Iterator[None]:
        """Keep others from using images of the store that are not noted.

        Raises:
            LockTimeout: somebody uses them for too long.
            StoreNotWritable: there is no right to write.
        """
        with self._use_lock(what, timeout, waiting, shared=False):
            # Nobody writes a note now: these are of runs that were killed.
            with files.disk_errors(self._paths.root):
                for path in _files(self._paths.usage, '.tmp'):
                    files.remove_file(path)
            yield

    @contextlib.contextmanager
    def using(
        self, timeout: Optional[float], waiting: Callable[[str], None]
    ) -> Iterator[None]:
        """Keep all images until it is noted who uses them.

        Does nothing in a store that cannot be written.

        Raises:
            LockTimeout: somebody removes images for too long.
        """
        with contextlib.ExitStack() as stack:
            # What is there can be used; who fetches will be told.
            with contextlib.suppress(
                errors.StoreNotWritable, errors.NotEnoughSpace
            ):
                stack.enter_context(self._use_lock(
                    'using images', timeout, waiting, shared=True
                ))
            yield

    @contextlib.contextmanager
    def _use_lock(
        self,
        what: str,
        timeout: Optional[float],
        waiting: Callable[[str], None],
        shared: bool,
    ) -> Iterator[None]:
        path = self._paths.use_lock
        lock = locks.ImageLock(
            path, what=what, waiting=waiting, shared=shared
        )
        with files.disk_errors(self._paths.root):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                lock.acquire(timeout)
            except lockfile.LockError as error:
                raise errors.LockTimeout(
                    f'{self._paths.root} is in use by {lock.holder()}; '
                    f'waited {timeout:g} seconds for it',
                    hint='Run it again later, or with a longer lock_timeout.',
                ) from error
        try:
            yield
        finally:
            lock.release()

    def note(self, note: UsageNote) -> None:
        """Keep what an environment uses, in place of what it used before."""
        with files.disk_errors(self._paths.root):
            os.makedirs(self._paths.usage, exist_ok=True)
            files.write_json(self._note_path(note), note.to_json())

    def notes(self) -> List[UsageNote]:
        """Return what all environments use, as far as it was noted."""
        found = []
        for path in _files(self._paths.usage, '.json'):
            note = parse_note(files.read_object(path))
            if note:
                found.append(note)
        return found

    def forget(self, note: UsageNote) -> None:
        """Forget an environment that is gone."""
        with files.disk_errors(self._paths.root):
            files.remove_file(self._note_path(note))

    def _note_path(self, note: UsageNote) -> str:
        name = ''.join(filter(str.isalnum, note.uuid)) or 'unknown'
        return os.path.join(self._paths.usage, f'{name}.json')

    def hold(self, name: str, why: str) -> None:
        """Keep an image, whoever uses it."""
        with files.disk_errors(self._paths.root):
            os.makedirs(self._paths.holds, exist_ok=True)
            files.write_json(
                self._paths.hold(name), {'why': why, 'time': time.time()}
            )

    def release(self, name: str) -> None:
        """Undo a hold; nothing happens where there is none."""
        with files.disk_errors(self._paths.root):
            files.remove_file(self._paths.hold(name))

    def holds(self) -> Mapping[str, str]:
        """Return the images that are held, and why."""
        return {
            os.path.basename(path)[:-len('.json')]:
            str((files.read_object(path) or {}).get('why', ''))
            for path in _files(self._paths.holds, '.json')
        }


def _files(directory: str, ending: str) -> List[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(
        os.path.join(directory, name) for name in names
        if name.endswith(ending)
    )
