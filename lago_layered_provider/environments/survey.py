"""Lago's environments on the disk: which images of a store they stand on.

An environment ("prefix" in Lago) is a directory with a `uuid`, its disks in
`images` and its VMs in `virt`. It is only read here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Tuple

from ..core import errors
from ..formats import qcow2
from ..store import Inventory, Usage
from ..store.usage_notes import UsageNote, Use
from ..tools import files as disk_files
from .backing_chain import follow_chain

#: The last component of a file's path -> VM and disk.
DiskNames = Mapping[str, Tuple[str, str]]

#: A directory that is searched for environments is not searched deeper.
MAX_DEPTH = 8


@dataclass(frozen=True)
class Survey:
    """The environments that use a store.

    Attributes:
        notes: of those that are there, or that may be.
        gone: of those that are not.
        doubts: why some of the notes cannot be checked.
    """

    notes: Tuple[UsageNote, ...]
    gone: Tuple[UsageNote, ...]
    doubts: Tuple[str, ...]


def survey(root: str, workdirs: Iterable[str]) -> Survey:
    """Look at all environments that have noted that they use a store.

    Args:
        root: the directory of the store.
        workdirs: where to look for others, which have not.

    Raises:
        LocalLayerError: one of these directories cannot be read.
    """
    notes: Dict[str, UsageNote] = {}
    gone, doubts = [], []
    for note in Usage(root).notes():
        place, doubt = _locate(note)
        if doubt:
            doubts.append(doubt)
            notes[note.uuid] = note
        elif place is None:
            gone.append(note)
        else:
            found = read_note(place, root)
            doubts += found.doubts
            uses = found.note.uses
            if found.doubts:
                # What cannot be read may still be what it was.
                uses = tuple(dict.fromkeys((*uses, *note.uses)))
            notes[note.uuid] = replace(found.note, uses=uses)
    for directory in workdirs:
        for place in _find_prefixes(directory):
            try:
                found = read_note(place, root)
            except OSError as error:
                raise _unsearchable(error) from error
            doubts += found.doubts
            if found.note.uses:
                notes.setdefault(found.note.uuid, found.note)
    return Survey(tuple(notes.values()), tuple(gone), tuple(doubts))


@dataclass(frozen=True)
class Found:
    """An environment that was read, and what could not be."""

    note: UsageNote
    doubts: Tuple[str, ...]


def read_note(prefix: str, root: str, names: DiskNames = {}) -> Found:
    """Read which images of a store an environment stands on.

    Args:
        names: of its disks; those that it has saved if there are none.

    Returns:
        what can be told; a disk that cannot be read is a doubt.
    """
    prefix = os.path.abspath(prefix)
    names = names or _read_names(prefix)
    uses: Dict[Use, None] = {}
    doubts = []
    root = os.path.realpath(root)
    images = os.path.join(prefix, 'images')
    try:
        files = _list_files(images)
    except OSError as error:
        files = []
        doubts.append(f'{images} cannot be read: {error.strerror}')
    for name in files:
        path = os.path.join(images, name)
        vm, disk = names.get(name, ('', name))
        try:
            for link in follow_chain(path, _format_of(path)):
                if link.store_name and os.path.dirname(link.path) == root:
                    uses[Use(vm, disk, link.store_name)] = None
                    break
        except errors.LayeredError as error:
            doubts.append(error.message)
        except OSError as error:
            doubts.append(f'{path} cannot be read: {error.strerror}')
    return Found(UsageNote(
        prefix=prefix, uuid=_read_uuid(prefix), uses=tuple(uses),
        mount=_mount_of(prefix), time=time.time(),
    ), tuple(doubts))


def _locate(note: UsageNote) -> Tuple[Any, str]:
    """Return where an environment is, None if it is gone; or a doubt."""
    if not os.path.ismount(note.mount):
        return None, (
            f'{note.prefix}: its file system {note.mount} is not mounted'
        )
    try:
        if _read_uuid(note.prefix) == note.uuid:
            return note.prefix, ''
        return None, ''  # another one has taken its place
    except (FileNotFoundError, NotADirectoryError):
        return _find_moved(note)
    except OSError as error:
        return None, f'{note.prefix} cannot be read: {error.strerror}'


def _find_moved(note: UsageNote) -> Tuple[Any, str]:
    """Look for an environment one of whose directories has a new name."""
    above, below = note.prefix, ''
    while not os.path.isdir(above):
        above, name = os.path.split(above)
        below = os.path.join(name, below) if below else name
    rest = below.split(os.sep, 1)[1:]
    try:
        for name in sorted(os.listdir(above)):
            place = os.path.join(above, name, *rest)
            if _is_uuid(place, note.uuid):
                return place, ''
    except OSError as error:
        return None, f'{above} cannot be read: {error.strerror}'
    return None, ''


def _is_uuid(prefix: str, uuid: str) -> bool:
    try:
        return _read_uuid(prefix) == uuid
    except OSError:
        return False


def _read_uuid(prefix: str) -> str:
    path = os.path.join(prefix, 'uuid')
    with disk_files.open_text(path, on_error='replace') as stream:
        return stream.read().strip()


def _find_prefixes(directory: str) -> Iterator[str]:
    top = os.path.abspath(directory)

    def fail(error: OSError) -> None:
        raise _unsearchable(error) from error

    for path, directories, files in os.walk(top, onerror=fail):
        if 'uuid' in files and 'images' in directories:
            directories.clear()
            yield path
        elif path[len(top):].count(os.sep) >= MAX_DEPTH:
            directories.clear()


def _unsearchable(error: OSError) -> errors.LocalLayerError:
    return errors.LocalLayerError(
        f'{error.filename} cannot be searched for environments: '
        f'{error.strerror}',
        hint='Nothing was removed.',
    )


def _read_names(prefix: str) -> DiskNames:
    """Return VM and disk of each file, as Lago has saved them."""
    found = {}
    with contextlib.suppress(OSError):
        for name in _list_files(os.path.join(prefix, 'virt')):
            if name.startswith('vm-'):
                found.update(_names_of(os.path.join(prefix, 'virt', name)))
    return found


def _names_of(path: str) -> Dict[str, Tuple[str, str]]:
    try:
        with disk_files.open_text(path) as stream:
            return disk_names({
                os.path.basename(path)[len('vm-'):]: json.load(stream)
            })
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}


def disk_names(domains: Mapping[str, Any]) -> Dict[str, Tuple[str, str]]:
    """Return VM and disk of each file of some of Lago's domains."""
    return {
        os.path.basename(disk['path']): (vm, str(disk.get('name')))
        for vm, domain in domains.items()
        for disk in domain.get('disks', [])
    }


def _list_files(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _format_of(path: str) -> str:
    with disk_files.open_binary(path) as stream:
        return 'qcow2' if qcow2.is_qcow2(stream.read(512)) else 'raw'


def _mount_of(path: str) -> str:
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def collect(
    root: str, workdirs: Iterable[str]
) -> Tuple[Inventory, Usage, Survey]:
    """Return all that is to know of a store and of who uses it."""
    return Inventory(root), Usage(root), survey(root, workdirs)
