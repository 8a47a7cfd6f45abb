"""The room on the store's disk, and what running transfers will take of it.

A reservation is a file, flocked by the transfer as long as it runs; one whose
lock can be taken belongs to nobody any more and is removed. It says how many
bytes each image takes when it is complete; what of that is on the disk
already is looked up when it matters.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Callable, Dict, Iterator, List, Mapping

from ..core import plan
from ..tools import files
from . import layout
from .record import is_count


class Space:
    """Free room and reservations of one store.

    Args:
        visible: tells whether an image is in the store.
    """

    def __init__(
        self, paths: layout.Layout, visible: Callable[[str], bool]
    ) -> None:
        self._paths = paths
        self._visible = visible

    def room(self, names: Mapping[str, int]) -> plan.Room:
        """Measure the room, in bytes.

        Args:
            names: the images it is asked for. What others reserved for
                these is not taken off: they are fetched once.

        Raises:
            StoreError: a part of the store is on another file system.
        """
        needs: Dict[str, int] = {}
        for reservation in self._running():
            for name, size in reservation.items():
                if name not in names:
                    needs[name] = max(size, needs.get(name, 0))
        with files.disk_errors(self._paths.root):
            # What is fetched into `partial` is moved to the root.
            self._paths.tree.check_movable(self._paths.partial)
            free, total = files.measure(self._paths.root)
        return plan.Room(
            directory=self._paths.root,
            free=free,
            total=total,
            reserved=sum(map(self._still_needed, needs, needs.values())),
        )

    def spare(self) -> int:
        """Return the bytes that no running transfer has reserved."""
        room = self.room({})
        return room.free - room.reserved

    @contextlib.contextmanager
    def reserve(self, needs: Mapping[str, int]) -> Iterator[None]:
        """Tell other transfers what this one needs, as long as it runs.

        Args:
            needs: image -> bytes it takes when it is complete, with what is
                here already.
        """
        for name in needs:
            layout.check_store_name(name)
        with files.disk_errors(self._paths.root):
            path, fd = self._paths.tree.create_claimed(
                self._paths.reservations, '.json'
            )
        try:
            with files.disk_errors(self._paths.root):
                text = json.dumps({'needs': dict(needs)}).encode()
                files.write_all(fd, memoryview(text), 0)
            yield
        finally:
            with contextlib.suppress(OSError):
                self._paths.tree.remove(path)
            os.close(fd)

    def _running(self) -> List[Dict[str, int]]:
        """Return the reservations of running transfers; drop stale ones."""
        tree = self._paths.tree
        found = []
        # Who may not look at those of others is not kept from working.
        with contextlib.suppress(OSError):
            for name in tree.list(self._paths.reservations):
                path = os.path.join(self._paths.reservations, name)
                if not tree.remove_unclaimed(path):
                    needs = (tree.read_object(path) or {}).get('needs')
                    if isinstance(needs, dict):
                        found.append(_only_needs(needs))
        return found

    def _still_needed(self, name: str, size: int) -> int:
        if self._visible(name):
            return 0
        return max(0, size - self._paths.tree.disk_bytes(
            self._paths.staged(name)
        ))


def _only_needs(needs: Mapping[str, object]) -> Dict[str, int]:
    """Return what is a name and a number of bytes."""
    found = {}
    for name, size in needs.items():
        with contextlib.suppress(Exception):
            layout.check_store_name(name)
            if is_count(size):
                found[name] = int(str(size))
    return found
