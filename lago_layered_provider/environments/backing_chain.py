"""Follow the backing files of a disk; reads headers and changes nothing.

The way is qemu's: a relative name begins at the directory of the path that
led to the file, symbolic links or not. An image in a template store is the
exception: it is looked at in the store, where its own base lies beside it.
"""

from __future__ import annotations

import os
import re
from typing import Iterator, List, Optional, Tuple

from ..core.errors import ExportError, LocalLayerError, StoreError
from ..core.model import FORMATS
from ..formats import qcow2
from ..store.layout import Layout, check_store_name
from ..tools import files
from .export_plan import Link

#: Enough for the header's fixed part, where the cluster size is.
_FIRST_BYTES = 104

#: How qemu tells a protocol from a file.
_PROTOCOL = re.compile(r'[^/]*:')


def read_chain(path: str, fmt: str) -> List[Link]:
    """Return the files of a disk's chain, the disk itself first.

    Args:
        fmt: the format of the disk.

    Raises:
        ExportError: a file is missing or cannot be read, or leads to
            something that is no file.
    """
    try:
        return list(follow_chain(path, fmt))
    except LocalLayerError as error:
        raise ExportError(f'Cannot export {error.message}') from error


def follow_chain(path: str, fmt: str) -> Iterator[Link]:
    """Yield the files of a disk's chain, as far as it can be followed.

    Raises:
        LocalLayerError: after what could be followed; see `read_chain`.
    """
    link = Link(os.path.abspath(path), fmt)
    seen = set()
    while True:
        real = os.path.realpath(link.path)
        if real in seen:
            raise _broken(path, f'{link.path} stands on itself')
        seen.add(real)
        yield link
        below = _read_backing(path, link)
        if below is None:
            return
        link = _make_link(path, link, *below)


def _make_link(
    disk: str, above: Link, name: str, fmt: Optional[str]
) -> Link:
    if _PROTOCOL.match(name):
        raise _broken(
            disk, f'{above.path} has the backing file {name!r}, which is '
            f'not the path of a file'
        )
    while name.startswith('./'):
        name = name[2:]
    path = os.path.join(os.path.dirname(above.path), name)
    if not os.path.isfile(path):
        raise _broken(
            disk, f'the backing file of {above.path} is missing: {path}'
        )
    fmt = fmt or _guess_format(disk, path)
    if fmt not in FORMATS:
        raise _broken(
            disk, f'{path} is of the format {fmt!r}, expected '
            f'{" or ".join(FORMATS)}'
        )
    store_name = find_store_name(path)
    if store_name is not None:
        path = os.path.realpath(path)
    return Link(path, fmt, store_name)


def find_store_name(path: str) -> Optional[str]:
    """Return the name of a file in a template store, None for others.

    What Lago and we keep beside an image is what makes it one.
    """
    directory, name = os.path.split(os.path.realpath(path))
    try:
        check_store_name(name)
    except StoreError:
        return None
    paths = Layout(directory)
    beside = paths.metadata(name), paths.hash(name), paths.record(name)
    return name if any(map(os.path.exists, beside)) else None


def _read_backing(
    disk: str, link: Link
) -> Optional[Tuple[str, Optional[str]]]:
    """Return name and format of a file's backing file, None without one."""
    if link.format != 'qcow2':
        return None
    try:
        with files.open_binary(link.path) as stream:
            length = qcow2.head_length(stream.read(_FIRST_BYTES))
            stream.seek(0)
            header = qcow2.parse_header(stream.read(length))
    except OSError as error:
        raise _broken(disk, str(error)) from error
    except qcow2.BadHeader as error:
        raise _broken(
            disk, f'{link.path} is no qcow2 image: {error}'
        ) from error
    if header.incompatible & qcow2.INCOMPATIBLE_DATA_FILE:
        # A copy of it would be a second owner of the same data.
        raise _broken(disk, f'{link.path} has its data in another file')
    if header.backing_file is None:
        return None
    return header.backing_file, header.backing_format


def _guess_format(disk: str, path: str) -> str:
    """Tell the format that nobody wrote down, as qemu does."""
    try:
        with files.open_binary(path) as stream:
            return 'qcow2' if qcow2.is_qcow2(stream.read(512)) else 'raw'
    except OSError as error:
        raise _broken(disk, str(error)) from error


def _broken(disk: str, reason: str) -> LocalLayerError:
    return LocalLayerError(f'{disk}: {reason}')
