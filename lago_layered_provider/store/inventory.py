"""What a store holds as a whole, and how images leave it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

import lockfile

from ..core import errors, model
from ..tools import files
from . import finding, layout, state


@dataclass(frozen=True)
class Unfinished:
    """An image that is being fetched, or was.

    `disk` is what it takes, in bytes; `holder` says who is at it, None for
    nobody.
    """

    name: str
    fetched: int
    disk: int
    holder: Optional[str]


class Inventory:
    """A store, seen by who looks after it."""

    def __init__(self, root: str) -> None:
        self._paths = layout.Layout(root)

    def images(self) -> Tuple[Dict[str, model.Stored], List[str]]:
        """Return all visible images by name, and what is wrong with others.
        """
        images, faults = {}, []
        with files.disk_errors(self._paths.root, reading=True):
            for name in finding.list_names(self._paths):
                try:
                    with files.disk_errors(self._paths.root, reading=True):
                        found = finding.find_image(self._paths, name)
                except errors.LayeredError as error:
                    faults.append(error.message)
                    continue
                if found:
                    images[name] = found
        return images, faults

    def unfinished(self) -> List[Unfinished]:
        """Return the images that are not visible yet."""
        with files.disk_errors(self._paths.root, reading=True):
            return self._unfinished()

    def _unfinished(self) -> List[Unfinished]:
        entries = self._paths.tree.list(self._paths.partial)
        found = []
        for name in sorted({
            name for name in map(_image_of, entries)
            if layout.is_store_name(name)
        }):
            here = state.read_partial(self._paths, name, None)
            found.append(Unfinished(
                name, here.fetched if here else 0, self._size(name),
                self._holder(name),
            ))
        return found

    def _size(self, name: str) -> int:
        """Return what the parts of an unfinished image take, in bytes."""
        return sum(
            self._paths.tree.disk_bytes(
                os.path.join(self._paths.partial, entry)
            )
            for entry in self._paths.tree.list(self._paths.partial)
            if _image_of(entry) == name
        )

    def locked(self) -> Dict[str, str]:
        """Return the images that somebody has locked, and who."""
        with files.disk_errors(self._paths.root, reading=True):
            names = finding.list_names(self._paths)
            holders = {name: self._holder(name) for name in names}
        return {name: holder for name, holder in holders.items() if holder}

    def _holder(self, name: str) -> Optional[str]:
        """Return who has locked an image, None for nobody."""
        if not self._paths.is_held(name):
            return None
        return self._paths.lock_of(name).holder()

    def remove(self, name: str) -> None:
        """Remove an image.

        In one step it becomes an unfinished one that has no state; the next
        run removes what a kill leaves of that. The caller holds
        `Usage.alone`, and knows that nothing stands on it.

        Raises:
            StoreError: somebody has locked it.
        """
        with self._locked(name), files.disk_errors(self._paths.root):
            # The state of an earlier one would speak for these bytes.
            state.remove_staged(self._paths, name)
            with contextlib.suppress(FileNotFoundError):
                self._paths.tree.rename(
                    self._paths.image(name), self._paths.staged(name)
                )
            state.remove_unseen(self._paths, name)

    def remove_unfinished(self, name: str) -> None:
        """Remove what was fetched of an image.

        Raises:
            StoreError: somebody is at it.
        """
        with self._locked(name), files.disk_errors(self._paths.root):
            if self._paths.tree.exists(self._paths.image(name)):
                state.remove_staged(self._paths, name)
            else:
                state.remove_unseen(self._paths, name)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = self._paths.lock_of(name, 'removing it')
        try:
            with files.disk_errors(self._paths.root):
                lock.acquire(timeout=0)
        except lockfile.AlreadyLocked as error:
            raise errors.StoreError(
                f'{name} is not removed: it is locked by {lock.holder()}'
            ) from error
        try:
            yield
        finally:
            lock.release()


def _image_of(entry: str) -> str:
    """Return the image that a file among the partial ones belongs to."""
    if entry.endswith('.json'):
        return entry[:-len('.json')]
    if entry.endswith('.spool'):
        return entry.rsplit('.', 2)[0]
    return entry
