"""Say what a visible image is, from its record or from its first bytes."""

from __future__ import annotations

import re
import stat
from typing import Iterable, List, Optional, Tuple

from ..core import errors, model
from ..formats import qcow2, qcow2_safety
from . import layout
from .record import Record, parse_record

#: Enough for the header's fixed part, where the cluster size is.
_FIRST_BYTES = 104


def is_visible(paths: layout.Layout, name: str) -> bool:
    """Tell whether an image is in the store, and complete.

    A plain Lago converts an image under its final name while it holds the
    lock; such a one is not there yet. Ours have a record before they appear.
    """
    found = paths.tree.stat(paths.image(name), follow=True)
    return found is not None and (
        _matching_record(paths, name, found.st_size) is not None
        or not paths.is_held(name)
    )


def find_image(paths: layout.Layout, name: str) -> Optional[model.Stored]:
    """Return a visible image, None when it is not there.

    Raises:
        UnsafeImage: nobody has verified it and its header leads elsewhere.
        StoreError: the name cannot be one, or it is no plain file.
        OSError: the disk failed.
    """
    path = paths.image(name)
    found = paths.tree.stat(path, follow=True)
    if found is None:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise errors.StoreError(
            f'{path} is not a file',
            hint='Remove it, so that the image can be fetched.',
        )
    record = _matching_record(paths, name, found.st_size)
    recorded = record is not None
    if record is None:
        if paths.is_held(name):
            return None
        record = read_foreign(paths, name, found.st_size)
    return model.Stored(
        name=name,
        format=record.format,
        size=found.st_size,
        disk=found.st_blocks * 512,
        virtual_size=record.virtual_size,
        digests=record.digests,
        backing=record.backing,
        time=record.time or found.st_mtime,
        published=record.published,
        recorded=recorded,
    )


def find_same(
    paths: layout.Layout, digests: Iterable[model.Digest]
) -> List[str]:
    """Return the names of the images that have one of these digests.

    Whether they are visible is not looked at.
    """
    wanted = set(digests)
    found = []
    for name in list_names(paths) if wanted else ():
        record = parse_record(paths.tree.read_object(paths.record(name)))
        known = record.digests if record else _read_hash(paths, name)
        if wanted.intersection(known):
            found.append(name)
    return found


def list_names(paths: layout.Layout) -> List[str]:
    """Return what lies in the store under a name that an image can have."""
    return sorted(
        name for name in paths.tree.list(paths.root)
        if name.count(':') == 2 and not name.endswith(layout.ENDINGS)
        and layout.is_store_name(name)
    )


def _matching_record(
    paths: layout.Layout, name: str, size: int
) -> Optional[Record]:
    """Return the record of the image that is there, None for none.

    One of another size is of an image that was removed by hand, before a
    plain Lago put this one there.
    """
    record = parse_record(paths.tree.read_object(paths.record(name)))
    return record if record and record.size == size else None


def read_foreign(
    paths: layout.Layout, name: str, size: int
) -> Record:
    """Make a record of an image that somebody else put into the store."""
    path = paths.image(name)
    tree = paths.tree
    with tree.open_binary(path, buffering=0, follow=True) as stream:
        head = stream.read(_FIRST_BYTES)
    if not qcow2.is_qcow2(head):
        return Record('raw', size, size, _read_hash(paths, name))
    try:
        length = qcow2.head_length(head)
        with tree.open_binary(path, follow=True) as stream:
            header = qcow2.parse_header(stream.read(length))
    except qcow2.BadHeader as error:
        raise errors.UnsafeImage(path, [str(error)]) from error
    return Record(
        'qcow2', size, header.virtual_size, _read_hash(paths, name),
        backing=_check_foreign(path, header, size),
    )


def _check_foreign(
    path: str, header: qcow2.Qcow2Header, size: int
) -> Optional[str]:
    """Return the store name of the image's base, None for a bottom image.

    Raises:
        UnsafeImage: it must not be opened.
    """
    name = header.backing_file
    base = None
    if name is not None and name.startswith('./'):
        try:
            base = layout.check_store_name(name[2:])
        except errors.StoreError:
            base = None
    dangers = qcow2_safety.find_dangers(
        header,
        expected_backing=None if base is None else {f'./{base}'},
        file_size=size,
    )
    if base is not None and header.backing_format is None:
        dangers.append(
            'the format of its backing file is not given, qemu would guess'
        )
    if dangers:
        raise errors.UnsafeImage(path, dangers)
    return base


def _read_hash(
    paths: layout.Layout, name: str
) -> Tuple[model.Digest, ...]:
    """Return what Lago kept as the image's sha1, if it is one."""
    text = (paths.tree.read(paths.hash(name)) or b'').strip().lower()
    if not re.fullmatch(rb'[0-9a-f]{40}', text):
        return ()
    return (model.Digest('sha1', text.decode()),)
