"""Make a verified image visible; every step may be the last before a kill.

Each step can be done again, and the rename that shows the image is the last
one that matters: what a kill leaves behind is an image that is verified but
not visible, and the next commit does all of it once more.
"""

from __future__ import annotations

import os
from typing import Any, Iterator, Mapping, Optional

from ..core import errors, model
from ..formats import qcow2, qcow2_rebase
from ..tools import files
from . import layout, state
from .record import Record

#: Images are never changed once they are visible.
IMAGE_MODE = 0o444

READ_BYTES = 2**20


def read_verified(paths: layout.Layout, name: str) -> Record:
    """Return the record of a staged image that is complete and proven.

    Raises:
        StoreError: it is not.
    """
    found = state.read_progress(paths, name)
    record = found and found.verified
    if record:
        staged = paths.tree.stat(paths.staged(name))
        if staged is not None and staged.st_size == record.size:
            return record
    raise errors.StoreError(
        f'{name} is not complete in {paths.root}: it was not verified, or '
        f'somebody began it anew',
        hint='Run it again.',
    )


def commit_staged(
    paths: layout.Layout,
    name: str,
    *,
    base: Optional[model.Stored],
    metadata: Mapping[str, Any],
    staged: Optional[str] = None,
) -> None:
    """Make a verified image visible; the caller holds its lock.

    Args:
        staged: the name it is staged under, if that is another one: it then
            replaces what is visible.

    Raises:
        StoreError: it is not verified, or a base is given for a bottom image
            or none for a layer.
        OSError: the disk failed; nothing is visible, all can be repeated.
    """
    staged = staged or name
    record = read_verified(paths, staged)
    if (base is None) != (record.backing is None):
        raise errors.StoreError(
            f'{name} was verified on {record.backing or "no base"}, not on '
            f'{base.name if base else "none"}'
        )
    if base is not None:
        record = record.on(base.name)
        _set_backing(paths, staged, base)
    if staged != name:
        _replace_head(paths, name, staged)
    write_beside(paths, name, record, metadata)
    _seal(paths, staged)
    paths.tree.rename(paths.staged(staged), paths.image(name))
    paths.tree.sync(paths.root)
    state.remove_staged(paths, staged)
    if staged != name:
        paths.tree.remove(paths.head(staged))


def write_beside(
    paths: layout.Layout,
    name: str,
    record: Optional[Record],
    metadata: Mapping[str, Any],
) -> None:
    """Write what is kept beside an image; the caller holds its lock.

    Args:
        record: None leaves what there is, and Lago's hash.
    """
    tree = paths.tree
    tree.write_json(paths.metadata(name), dict(metadata), sync=True)
    if record is None:
        return
    if record.sha1 is None:
        # One that a plain Lago left would speak of another file.
        tree.remove(paths.hash(name))
    else:
        tree.write(paths.hash(name), record.sha1.encode(), sync=True)
    tree.write_json(paths.record(name), record.to_json(), sync=True)
    tree.sync(paths.images)


def _replace_head(paths: layout.Layout, name: str, staged: str) -> None:
    """Copy the published first cluster of a copy to the image's own place.

    The staged one stays: a commit that was killed is done once more.
    """
    head = paths.tree.read(paths.head(staged))
    if head is None:
        paths.tree.remove(paths.head(name))
    else:
        paths.tree.write(paths.head(name), head, sync=True)


def published_chunks(
    paths: layout.Layout, stored: model.Stored
) -> Iterator[bytes]:
    """Return the bytes of a visible image as they were published."""
    head = paths.tree.read(paths.head(stored.name)) or b''
    if stored.backing is None:
        head = b''
    image = paths.image(stored.name)
    with paths.tree.open_binary(image, follow=True) as stream:
        if head:
            yield head
            stream.seek(len(head))
        while True:
            chunk = stream.read(READ_BYTES)
            if not chunk:
                return
            yield chunk


def _set_backing(
    paths: layout.Layout, name: str, base: model.Stored
) -> None:
    """Write the name of the base into the staged layer's header.

    The new header is made of the kept one, never of what is in the file: a
    kill may have torn that.
    """
    published = paths.tree.read(paths.head(name))
    if published is None:
        raise errors.StoreError(
            f'{name}: its first cluster was not kept in {paths.images}',
            hint=f'Remove {paths.state(name)} and run it again.',
        )
    try:
        head = qcow2_rebase.rebase_header(
            published, f'./{base.name}', base.format
        )
    except qcow2.BadHeader as error:
        raise errors.StoreError(
            f'{name}: its base {base.name} cannot be set: {error}'
        ) from error
    fd = state.open_staged(paths, name)
    try:
        files.write_all(fd, memoryview(head), 0)
    finally:
        os.close(fd)


def _seal(paths: layout.Layout, name: str) -> None:
    """Make a staged file read-only, with all of it on the disk."""
    fd = paths.tree.open(paths.staged(name))
    try:
        # Of a file that another user of the group began only the owner may
        # change that; who may write the store can remove it in any case.
        if os.geteuid() in (0, os.fstat(fd).st_uid):
            os.fchmod(fd, IMAGE_MODE)
        os.fsync(fd)
    finally:
        os.close(fd)
