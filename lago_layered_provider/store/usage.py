"""Who uses the images of a store: notes of environments, and holds.

What is not noted yet is guarded by a lock: shared by those who are about to
use images, taken alone by who removes some.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import (
    Any, Callable, Dict, Iterator, List, Mapping, Optional,
)

import lockfile

from ..core import errors
from ..tools import files, locks
from . import layout
from .usage_notes import UsageNote, parse_note


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
                errors.StoreNotWritable, errors.StoreFull
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
        path, tree = self._paths.use_lock, self._paths.tree
        lock = locks.ImageLock(
            path, tree=tree, what=what, waiting=waiting, shared=shared
        )
        with files.disk_errors(self._paths.root):
            tree.make_directory(os.path.dirname(path))
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
            self._paths.tree.make_directory(self._paths.usage)
            self._paths.tree.write_json(self._note_path(note), note.to_json())

    def notes(self) -> List[UsageNote]:
        """Return what all environments use, as far as it was noted."""
        found = []
        for value in self._values(self._paths.usage).values():
            note = parse_note(value)
            if note:
                found.append(note)
        return found

    def forget(self, note: UsageNote) -> None:
        """Forget an environment that is gone."""
        with files.disk_errors(self._paths.root):
            self._paths.tree.remove(self._note_path(note))

    def _note_path(self, note: UsageNote) -> str:
        name = ''.join(filter(str.isalnum, note.uuid)) or 'unknown'
        return os.path.join(self._paths.usage, f'{name}.json')

    def hold(self, name: str, why: str) -> None:
        """Keep an image, whoever uses it."""
        with files.disk_errors(self._paths.root):
            self._paths.tree.make_directory(self._paths.holds)
            self._paths.tree.write_json(
                self._paths.hold(name), {'why': why, 'time': time.time()}
            )

    def release(self, name: str) -> None:
        """Undo a hold; nothing happens where there is none."""
        with files.disk_errors(self._paths.root):
            self._paths.tree.remove(self._paths.hold(name))

    def holds(self) -> Mapping[str, str]:
        """Return the images that are held, and why."""
        return {
            name[:-len('.json')]: str((value or {}).get('why', ''))
            for name, value in self._values(self._paths.holds).items()
        }

    def _values(self, directory: str) -> Dict[str, Optional[Dict[str, Any]]]:
        """Return what the JSON files of a directory hold, by their names.

        Raises:
            StoreError: one cannot be read; it may keep an image from a prune.
        """
        with files.disk_errors(self._paths.root, reading=True):
            return {
                name: self._paths.tree.read_object(
                    os.path.join(directory, name)
                )
                for name in sorted(self._paths.tree.list(directory))
                if name.endswith('.json')
            }
