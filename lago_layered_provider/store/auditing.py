"""Read images of a store and say what is wrong with each.

Nothing is changed, nobody is locked out and nothing of the network is
needed: what an image must be stands in its record, and the first cluster of
a layer, which the store has rewritten, is kept as it was published. Another
process may change an image meanwhile; it is then looked at once more.
"""

from __future__ import annotations

import contextlib
import functools
import stat
from typing import Any, List, Optional, Tuple

from ..core import errors
from ..tools import files
from . import finding, layout, proving
from .audit_rules import Fault, Finding, Part
from .proving import Advance
from .record import Record, parse_record

#: What `look` returns where no file of an image is.
NOTHING = (None,) * 5

#: Looks at an image that others change all the time.
MAX_LOOKS = 3


class Auditor:
    """Looks at the images of one store; used by several threads."""

    def __init__(self, root: str) -> None:
        self._paths = layout.Layout(root)

    def names(self) -> List[str]:
        """Return what is in the store, or should be: its record is there."""
        with files.disk_errors(self._paths.root, reading=True):
            found = set(finding.list_names(self._paths))
            kept = self._paths.tree.list(self._paths.images)
        found.update(
            name[:-len('.json')] for name in kept if name.endswith('.json')
        )
        return sorted(filter(layout.is_store_name, found))

    def size(self, name: str) -> int:
        """Return the bytes of an image, 0 where there is none."""
        with contextlib.suppress(OSError):
            found = self._paths.tree.stat(
                self._paths.image(name), follow=True
            )
            return found.st_size if found else 0
        return 0

    def base(self, name: str) -> Optional[str]:
        """Return the store name of an image's base, as far as is known."""
        try:
            with files.disk_errors(self._paths.root, reading=True):
                record = _read_record(self._paths, name)
                here = record or finding.find_image(self._paths, name)
        except errors.LayeredError:
            return None
        return here.backing if here else None

    def describe(self, name: str) -> Optional[Record]:
        """Return a record of what an image's own header says, None for none.
        """
        with files.disk_errors(self._paths.root, reading=True):
            try:
                return finding.read_foreign(
                    self._paths, name, self.size(name)
                )
            except (errors.UnsafeImage, FileNotFoundError):
                return None

    def examine(
        self,
        name: str,
        advance: Advance,
        expected: Optional[Record] = None,
    ) -> Finding:
        """Read an image and all that is kept of it.

        Args:
            expected: what it must be, instead of what its record says; then
                only the image and its published first cluster are looked at.

        Raises:
            StoreError: it cannot be read for lack of rights.
        """
        with files.disk_errors(self._paths.root, reading=True):
            for _ in range(MAX_LOOKS):
                seen = look(self._paths, name)
                found = _Look(self._paths, name, advance, seen).find(expected)
                if look(self._paths, name) == seen:
                    break
        return found


def _read_record(paths: layout.Layout, name: str) -> Optional[Record]:
    """Return an image's record, None for none and for garbage."""
    try:
        record = parse_record(paths.tree.read_object(paths.record(name)))
    except PermissionError:
        raise
    except OSError:
        return None  # no regular file, or on a bad place of the disk
    if record is None or record.backing is None:
        return record
    return record if layout.is_store_name(record.backing) else None


def look(paths: layout.Layout, name: str) -> Tuple[object, ...]:
    """Return what changes with every change of an image's files."""
    found: List[object] = []
    for path in (
        paths.image(name), paths.record(name), paths.head(name),
        paths.metadata(name), paths.hash(name),
    ):
        here = paths.tree.stat(path, follow=path == paths.image(name))
        found.append(
            here and (here.st_ino, here.st_mtime_ns, here.st_size)
        )
    return tuple(found)


class _Look:
    """One look at one image."""

    def __init__(
        self, paths: layout.Layout, name: str, advance: Advance, seen: Any
    ) -> None:
        self._paths = paths
        self._name = name
        self._advance = advance
        self._faults: List[Fault] = []
        self._make = functools.partial(Finding, name=name, seen=seen)

    def find(self, expected: Optional[Record]) -> Finding:
        """Return what there is to say."""
        paths, name = self._paths, self._name
        written = paths.tree.exists(paths.record(name))
        record = _read_record(paths, name)
        here = paths.tree.stat(paths.image(name), follow=True)
        if here is None:
            return self._find_missing(record, written)
        if not stat.S_ISREG(here.st_mode):
            self._fault(Part.IMAGE, 'it is not a file')
            return self._result(record)
        if expected is not None:
            return self._result(expected, self._prove(expected))
        if record is not None and not self._is_of_lago(record, here.st_size):
            proven = self._prove(record)
            self._check_hash(record)
        else:
            if paths.is_held(name):
                return self._make(skipped='another process is at it')
            ours = (written and record is None) or paths.tree.exists(
                paths.head(name))
            record, proven = self._find_without_record(ours, here.st_size)
        self._check_metadata()
        return self._result(record, proven)

    def _find_missing(
        self, record: Optional[Record], written: bool
    ) -> Finding:
        paths, name = self._paths, self._name
        if paths.is_held(name):
            return self._make(skipped='another process is at it')
        if paths.tree.exists(paths.state(name)):
            # A commit was killed, or its base is still to come.
            return self._make(skipped='it is not fetched to its end yet')
        if not written:
            return self._make(gone=True)
        self._fault(Part.IMAGE, 'its file is missing')
        return self._result(record)

    def _is_of_lago(self, record: Record, size: int) -> bool:
        """Whether the image was removed and put there anew by a plain Lago.

        It writes the hash after the image; we write it before the record.
        """
        if record.size == size:
            return False
        hashed, recorded = map(self._paths.tree.stat, (
            self._paths.hash(self._name), self._paths.record(self._name)
        ))
        return bool(
            hashed and recorded and hashed.st_mtime_ns > recorded.st_mtime_ns
        )

    def _find_without_record(
        self, ours: bool, size: int
    ) -> Tuple[Optional[Record], bool]:
        """Check what can be checked by header and Lago's sha1."""
        if ours:
            self._fault(Part.RECORD, 'its record is missing or damaged')
        try:
            record = finding.read_foreign(self._paths, self._name, size)
        except errors.UnsafeImage as error:
            self._faults += [
                Fault(Part.IMAGE, reason) for reason in error.reasons
            ]
            return None, False
        if record.format == 'raw' or not record.digests:
            # The sha1 is of the qcow2 that Lago has converted.
            return record, False
        before = len(self._faults)
        proven = self._prove(record)
        if not proven and not ours:
            # Who says that the sha1 is of this very file?
            del self._faults[before:]
        return record, proven

    def _prove(self, record: Record) -> bool:
        """Check the bytes against a record."""
        faults, proven = proving.prove(
            self._paths, self._name, record, self._advance
        )
        self._faults += faults
        return proven

    def _check_hash(self, record: Record) -> None:
        """Check what Lago keeps as the sha1 of the published image."""
        if record.sha1 is None:
            return
        text = self._paths.tree.read(self._paths.hash(self._name))
        if text is None:
            self._fault(Part.HASH, 'its .hash is missing')
        elif text.strip() != record.sha1.encode():
            self._fault(Part.HASH, 'its .hash is not the sha1 of its record')

    def _check_metadata(self) -> None:
        path = self._paths.metadata(self._name)
        tree = self._paths.tree
        if tree.read_object(path) is None:
            what = 'unreadable' if tree.exists(path) else 'missing'
            self._fault(Part.METADATA, f'its .metadata is {what}')

    def _fault(self, part: Part, text: str) -> None:
        self._faults.append(Fault(part, text))

    def _result(
        self, record: Optional[Record], proven: bool = False
    ) -> Finding:
        return self._make(
            size=record.size if record else 0,
            backing=record.backing if record else None,
            record=record,
            faults=tuple(self._faults),
            proven=proven,
        )
