"""The store as others use it; the package says what lies where."""

from __future__ import annotations

import contextlib
import threading
from typing import (
    Any, Callable, ContextManager, Dict, Iterable, Iterator, List, Mapping,
    Optional,
)

import lockfile

from ..core import errors, model, plan
from ..tools import files, locks
from . import committing, finding, indexes, layout, space, staging, state


class Store:
    """The images in one directory.

    Every method may raise StoreError for a name that cannot be one and for a
    disk that fails; StoreNotWritable where there is no right to write.
    """

    def __init__(self, root: str) -> None:
        self._paths = layout.Layout(root)
        self._space = space.Space(self._paths, self._is_visible)

    @property
    def root(self) -> str:
        """The directory."""
        return self._paths.root

    def prepare(self) -> None:
        """Create the directories and clear away what kills left behind.

        Raises:
            StoreNotWritable: it cannot be written; says where and why.
        """
        with files.disk_errors(self.root):
            tree = self._paths.tree
            for directory in self._paths.directories:
                tree.make_directory(directory)
                tree.check_writable(directory)
            tree.check_movable(self._paths.partial)
            state.sweep(self._paths, self._is_visible)

    def clear(self) -> None:
        """Clear away what kills left behind, where the store allows it."""
        with contextlib.suppress(OSError):
            state.sweep(self._paths, self._is_visible)

    def find(self, name: str) -> Optional[model.Stored]:
        """Return a visible image, None when it is not there.

        Raises:
            UnsafeImage: nobody has verified it and its header leads
                elsewhere.
        """
        with files.disk_errors(self.root, reading=True):
            return finding.find_image(self._paths, name)

    def find_same(self, digests: Iterable[model.Digest]) -> List[str]:
        """Return the names of the images that have one of these digests."""
        with files.disk_errors(self.root, reading=True):
            return finding.find_same(self._paths, digests)

    def names(self) -> List[str]:
        """Return what lies there under a name that an image can have."""
        with files.disk_errors(self.root, reading=True):
            return finding.list_names(self._paths)

    def path(self, name: str) -> str:
        """Return where an image is, once it is visible."""
        return self._paths.image(name)

    def read_metadata(self, name: str) -> Dict[str, Any]:
        """Return Lago's metadata of an image.

        Raises:
            StoreError: it is missing or no JSON object.
        """
        path = self._paths.metadata(name)
        with files.disk_errors(self.root, reading=True):
            value = self._paths.tree.read_object(path)
            if value is not None:
                return value
            fault = 'damaged' if self._paths.tree.exists(path) else 'missing'
        raise errors.StoreError(
            f'{path}: the metadata of {name} is {fault}, expected a JSON '
            f'object',
            hint=f'Remove {self.path(name)}, so that it is fetched again.',
        )

    def read_published(self, name: str) -> Iterator[bytes]:
        """Return a visible image's bytes as published, for its digest."""
        stored = self.find(name)
        if stored is None:
            raise errors.StoreError(f'{name} is not in {self.root}')
        return self._read_published(stored)

    def _read_published(self, stored: model.Stored) -> Iterator[bytes]:
        with files.disk_errors(self.root, reading=True):
            yield from committing.published_chunks(self._paths, stored)

    def partial(
        self, name: str, *, identity: Optional[str] = None
    ) -> Optional[model.Partial]:
        """Return what is there of an unfinished image, None for nothing.

        Args:
            identity: what is to be fetched now, as for `stage`; bytes of
                anything else do not count as fetched.
        """
        with files.disk_errors(self.root, reading=True):
            return state.read_partial(self._paths, name, identity)

    @contextlib.contextmanager
    def stage(
        self,
        name: str,
        *,
        identity: str,
        keep_free: int = 0,
        what: str = 'fetching it',
        cancelled: Optional[threading.Event] = None,
        timeout: Optional[float] = None,
        waiting: Callable[[str], None] = locks.ignore_holder,
    ) -> Iterator[Optional[staging.Stage]]:
        """Lock an image and give the place to receive it.

        It gives None when the image is visible, be it since just now.

        Args:
            identity: tells the published image from another one, such as
                its digest and file; bytes of another one are dropped.
            keep_free: bytes of the disk, beside those that are reserved, at
                which no more is kept of what cannot be decoded yet.
            what: what is being done, for those who wait.
            cancelled: ends the waiting.
            timeout: seconds to wait, None without end.
            waiting: is told who holds the lock, when that changes.

        Raises:
            LockTimeout: another one holds the image for too long.
            Cancelled: the user stopped the work.
        """
        if self._is_visible(name):
            yield None
            return
        with self._lock(name, what, cancelled, timeout, waiting):
            if self._is_there(name):
                yield None
                return
            with self._open_stage(name, identity, keep_free) as stage:
                yield stage

    def commit(
        self,
        name: str,
        *,
        base: Optional[str],
        metadata: Mapping[str, Any],
        cancelled: Optional[threading.Event] = None,
        timeout: Optional[float] = None,
        waiting: Callable[[str], None] = locks.ignore_holder,
    ) -> model.Stored:
        """Make a verified image visible; it may be so already.

        Args:
            base: the store name of its base, None for a bottom image.
            metadata: Lago's, of the template.
            cancelled, timeout, waiting: as for `stage`.

        Raises:
            StoreError: the image was not verified or its base is not visible.
            LockTimeout: another one holds the image for too long.
            Cancelled: the user stopped the work.
        """
        if not self._is_visible(name):
            with self._lock(
                name, 'putting it into the store', cancelled, timeout, waiting
            ), files.disk_errors(self.root):
                if not self._is_there(name):
                    committing.commit_staged(
                        self._paths, name,
                        base=self._find_base(name, base), metadata=metadata,
                    )
        stored = self.find(name)
        if stored is None:
            raise errors.StoreError(
                f'{self.path(name)} was removed the moment it was there'
            )
        return stored

    def keep_index(
        self,
        url: str,
        body: bytes,
        validator: Optional[str],
        signature: Optional[bytes] = None,
        table: Optional[bytes] = None,
    ) -> None:
        """Keep an index; does nothing where the store cannot be written."""
        indexes.keep_index(
            self._paths, url, body, validator, signature, table
        )

    def kept_index(
        self, url: str, *, signed: bool = False
    ) -> Optional[indexes.KeptIndex]:
        """Return the kept index of a URL, None when there is none to use."""
        return indexes.kept_index(self._paths, url, signed=signed)

    def room(self, names: Mapping[str, int]) -> plan.Room:
        """Measure the room for some images; see `space.Space.room`."""
        return self._space.room(names)

    def reserve(self, needs: Mapping[str, int]) -> ContextManager[None]:
        """Tell others what is needed; see `space.Space.reserve`."""
        return self._space.reserve(needs)

    def _open_stage(
        self, name: str, identity: str, keep_free: int
    ) -> ContextManager[staging.Stage]:
        return contextlib.closing(staging.Stage(
            self._paths, name, identity, self._space.spare, keep_free
        ))

    def _is_visible(self, name: str) -> bool:
        with files.disk_errors(self.root, reading=True):
            return finding.is_visible(self._paths, name)

    def _is_there(self, name: str) -> bool:
        with files.disk_errors(self.root, reading=True):
            found = self._paths.tree.stat(self.path(name), follow=True)
        return found is not None

    @contextlib.contextmanager
    def _lock(
        self,
        name: str,
        what: str,
        cancelled: Optional[threading.Event],
        timeout: Optional[float],
        waiting: Callable[[str], None],
    ) -> Iterator[None]:
        lock = self._paths.lock_of(
            name, what, cancelled=cancelled, waiting=waiting
        )
        # In a `try` from the beginning: a signal may raise right after the
        # lock was taken.
        try:
            try:
                with files.disk_errors(self.root):
                    lock.acquire(timeout)
            except lockfile.LockError as error:
                raise errors.LockTimeout(
                    f'{name} is locked by {lock.holder()}; waited '
                    f'{timeout:g} seconds for it',
                    hint='Run it again later, or with a longer lock_timeout.',
                ) from error
            yield
        finally:
            if lock.i_am_locking():
                lock.release()

    def _find_base(
        self, name: str, base: Optional[str]
    ) -> Optional[model.Stored]:
        if base is None:
            return None
        found = self.find(base)
        if found is None:
            raise errors.StoreError(
                f'{name} cannot become visible before its base {base}, which '
                f'is not in {self.root}'
            )
        return found
