"""Put a fresh copy of an image in the place of a damaged one.

The copy is staged under a name of its own, and verified as any other. Its
rename over the damaged file is one step, so that there never is a moment
without the image, and a kill leaves the damaged one or the right one. All
other files of the image are the same for both: which of them are replaced
first does not matter.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, ContextManager, Iterator, Mapping, Optional

from ..core import errors, model, plan
from ..tools import files, locks, openers
from . import auditing, committing, layout, staging
from .directory import Store
from .record import Record

#: No version of a template is called so; a prune removes what is left there.
COPY_ENDING = '+repair'


class Replacing(Store):
    """The store for those who replace images: what is visible is no answer.

    Args:
        seen: the state of the files of each image that may be replaced,
            where there are any; one that has another state by now was
            replaced by somebody else.
    """

    def __init__(self, root: str, seen: Mapping[str, object]) -> None:
        super().__init__(root)
        self._seen = dict(seen)

    @contextlib.contextmanager
    def stage(
        self,
        name: str,
        *,
        identity: str,
        keep_free: int = 0,
        what: str = 'repairing it',
        cancelled: Optional[threading.Event] = None,
        timeout: Optional[float] = None,
        waiting: Callable[[str], None] = locks.ignore_holder,
    ) -> Iterator[Optional[staging.Stage]]:
        """Lock an image and give the place to receive its copy.

        It gives None when it was replaced meanwhile.

        Raises:
            StoreError: a process has the image open.
            LockTimeout: another one holds the image for too long.
            Cancelled: the user stopped the work.
        """
        with self._lock(name, what, cancelled, timeout, waiting):
            if self._is_replaced(name):
                yield None
                return
            self.check_unused(name)
            with self._open_stage(
                _copy(name), identity, keep_free
            ) as stage:
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
        """Put the verified copy in the place of the image.

        Raises:
            StoreError: the copy was not verified, its base is not visible,
                or a process has the image open.
            LockTimeout: another one holds the image for too long.
            Cancelled: the user stopped the work.
        """
        with self._lock(
            name, 'replacing it', cancelled, timeout, waiting
        ), files.disk_errors(self.root):
            if not self._is_replaced(name):
                self.check_unused(name)
                committing.commit_staged(
                    self._paths, name, staged=_copy(name),
                    base=self._find_base(name, base), metadata=metadata,
                )
        stored = self.find(name)
        if stored is None:
            raise errors.StoreError(
                f'{self.path(name)} was removed the moment it was there'
            )
        return stored

    def mend(
        self,
        name: str,
        record: Optional[Record],
        metadata: Mapping[str, Any],
        timeout: Optional[float],
        waiting: Callable[[str], None],
    ) -> None:
        """Write anew what is kept beside an image whose bytes are right.

        It may be open meanwhile: the image itself is not touched.

        Args:
            record: None for an image of a plain Lago, that has none.

        Raises:
            LockTimeout: another one holds the image for too long.
        """
        with self._lock(
            name, 'repairing it', None, timeout, waiting
        ), files.disk_errors(self.root):
            if not self._is_replaced(name):
                committing.write_beside(self._paths, name, record, metadata)

    def partial(
        self, name: str, *, identity: Optional[str] = None
    ) -> Optional[model.Partial]:
        """Return what is there of an unfinished copy, None for nothing."""
        return super().partial(_copy(name), identity=identity)

    def room(self, names: Mapping[str, int]) -> plan.Room:
        """Measure the room for the copies; see `space.Space.room`."""
        return super().room(_copies(names))

    def reserve(self, needs: Mapping[str, int]) -> ContextManager[None]:
        """Tell others what the copies need; see `space.Space.reserve`."""
        return super().reserve(_copies(needs))

    def _is_replaced(self, name: str) -> bool:
        seen = self._seen.get(name, auditing.NOTHING)
        with files.disk_errors(self.root, reading=True):
            return auditing.look(self._paths, name) != seen

    def check_unused(self, name: str) -> None:
        """Raise StoreError when a process has an image open."""
        users = openers.find_openers(self.path(name))
        if users:
            raise errors.StoreError(
                f'{name} is left as it is: {", ".join(users)} has it open',
                hint='Stop the VM that uses it, and run it again.',
            )


def _copy(name: str) -> str:
    return layout.check_store_name(name + COPY_ENDING)


def _copies(needs: Mapping[str, int]) -> Mapping[str, int]:
    return {_copy(name): size for name, size in needs.items()}
