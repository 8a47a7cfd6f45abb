"""The room on the store's disk, and what running transfers will take of it.

A reservation is a file, flocked by the transfer as long as it runs; one whose
lock can be taken belongs to nobody any more and is removed. It says how many
bytes each image takes when it is complete; what of that is on the disk
already is looked up when it matters.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ..core import plan
from ..core.record import is_count
from . import files, layout


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
        """
        needs: Dict[str, int] = {}
        for reservation in self._running():
            for name, size in reservation.items():
                if name not in names:
                    needs[name] = max(size, needs.get(name, 0))
        with files.disk_errors(self._paths.root):
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
            path, fd = self._create()
        try:
            with files.disk_errors(self._paths.root):
                text = json.dumps({'needs': dict(needs)}).encode()
                files.write_all(fd, memoryview(text), 0)
            yield
        finally:
            with contextlib.suppress(OSError):
                files.remove_file(path)
            os.close(fd)

    def _create(self) -> Tuple[str, int]:
        """Return a new reservation's path and its file, locked."""
        while True:
            path = os.path.join(
                self._paths.reservations, f'{secrets.token_hex(8)}.json'
            )
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Somebody looks at it right now and takes it for a stale one.
                os.close(fd)
                continue
            except BaseException:
                os.close(fd)
                raise
            if os.fstat(fd).st_nlink:
                return path, fd
            os.close(fd)

    def _running(self) -> List[Dict[str, int]]:
        """Return the reservations of running transfers; drop stale ones."""
        try:
            names = os.listdir(self._paths.reservations)
        except OSError:
            return []
        found = []
        for name in names:
            path = os.path.join(self._paths.reservations, name)
            needs = _read_running(path)
            if needs is not None:
                found.append(needs)
        return found

    def _still_needed(self, name: str, size: int) -> int:
        if self._visible(name):
            return 0
        return max(0, size - files.disk_bytes(self._paths.staged(name)))


def _read_running(path: str) -> Optional[Dict[str, int]]:
    """Return a reservation's needs, None (and remove it) when it is stale."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Shared: two who look must not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # While we hold it, the owner to be cannot lock it: see `_create`.
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
    except BlockingIOError:
        value = files.read_object(path) or {}
        needs = value.get('needs')
        return _only_needs(needs) if isinstance(needs, dict) else {}
    except OSError:
        return None
    finally:
        os.close(fd)


def _only_needs(needs: Mapping[str, object]) -> Dict[str, int]:
    """Return what is a name and a number of bytes."""
    found = {}
    for name, size in needs.items():
        with contextlib.suppress(Exception):
            layout.check_store_name(name)
            if is_count(size):
                found[name] = int(str(size))
    return found
