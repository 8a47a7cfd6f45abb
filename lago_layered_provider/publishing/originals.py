"""Find the images of a directory, and read the heads of those that are new.
"""

from __future__ import annotations

import json
import os
import posixpath
import time
from dataclasses import dataclass
from typing import (
    Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set,
)

from ..index.file_names import PUBLISHED
from ..core.errors import LayeredError
from ..core.model import Image, ImageRef
from ..formats import detect, qcow2, qcow2_peek, qcow2_safety
from ..formats.qcow2 import Qcow2Header
from ..index.entry import strip_suffix
from ..providers.file import FileProvider
from ..repositories import lookup_file
from ..tools import files
from . import local_images
from .layout import INDEX, Known, identify
from .original import ENDINGS, Original, RAW_ENDINGS
from .reading_originals import compression_of

#: What lies beside images and is none.
OTHER_ENDINGS = (
    '.metadata', '.hash', '.lock', '.tmp', '.json', '.asc', '.part', '.log',
    '.md', '.txt',
)


@dataclass(frozen=True)
class File:
    """A file that may be an image; `identity` changes when it does."""

    path: str
    identity: str


@dataclass(frozen=True)
class Found:
    """An image that was looked into.

    Attributes:
        header: None for a raw one.
        is_safe: qemu may open it.
    """

    file: File
    original: Original
    header: Optional[Qcow2Header]
    is_safe: bool


def list_files(root: str) -> List[File]:
    """Return the files of a directory that may be images.

    What is hidden, what was published, and a compressed copy of a file that
    is here as well are left out; so are links to files of the directory.
    """
    paths: Set[str] = set()
    for parent, directories, names in os.walk(root):
        directories[:] = sorted(
            name for name in directories
            if not name.startswith('.')
            and (parent, name) != (root, PUBLISHED)
        )
        for name in names:
            path = os.path.join(parent, name)
            if (
                not name.startswith('.')
                and not name.endswith(OTHER_ENDINGS)
                and name not in (INDEX, 'index')
                and os.path.isfile(path)
                and not (os.path.islink(path) and _inside(root, path))
            ):
                paths.add(os.path.relpath(path, root).replace(os.sep, '/'))
    return [
        File(path, identify(os.path.join(root, path)))
        for path in sorted(paths)
        if strip_suffix(path) == path or strip_suffix(path) not in paths
    ]


def examine(
    root: str, file: File, listed: Mapping[str, Image], faults: List[str],
    hollow: List[str],
) -> Optional[Found]:
    """Read the head of a file, and what lies beside it.

    Args:
        listed: path of a file -> what an index of another tool says of it.
        faults: what is wrong with the image is added here.
        hollow: a file in which there is nothing to publish is named here.

    Returns:
        None for what is no image.
    """
    if not os.path.getsize(os.path.join(root, file.path)):
        if strip_suffix(file.path).endswith((*ENDINGS, *RAW_ENDINGS)):
            hollow.append(f'{file.path}: it is empty')
        return None
    try:
        head = _read_head(root, file.path)
    except (LayeredError, OSError) as error:
        faults.append(f'{file.path}: {error}')
        return None
    metadata = _read_metadata(root, file.path, faults)
    entry = listed.get(file.path)
    fmt = _tell_format(root, file.path, head, metadata, entry, faults)
    if fmt is None:
        return None
    header, is_safe = None, True
    if fmt == 'qcow2':
        header = _read_header(file.path, head, faults)
        if header is None:
            return None
        if not header.virtual_size:
            hollow.append(f'{file.path}: its disk has 0 bytes')
            return None
        dangers = list(_dangers(header))
        faults.extend(f'{file.path}: {danger}' for danger in dangers)
        is_safe = not dangers
    return Found(
        file, _describe(root, file.path, fmt, header, metadata, entry),
        header, is_safe,
    )


def _describe(
    root: str, path: str, fmt: str, header: Optional[Qcow2Header],
    metadata: Dict[str, Any], entry: Optional[Image],
) -> Original:
    stat = os.stat(os.path.join(root, path))
    return Original(
        path=path,
        format=fmt,
        time=stat.st_mtime,
        date=time.strftime('%Y-%m-%d', time.gmtime(stat.st_mtime)),
        backing=_backing(root, path, header),
        backing_format=header.backing_format if header else None,
        metadata=metadata,
        entry=entry,
    )


def _tell_format(
    root: str, path: str, head: lookup_file.Head,
    metadata: Mapping[str, Any], entry: Optional[Image], faults: List[str],
) -> Optional[str]:
    """Return the format of an image; None for what is none.

    Where the name or a sidecar speaks of an image, it is a fault that there
    is none. A raw one has to be called so: it has no header.
    """
    plain = strip_suffix(path)
    looks_raw = bool(metadata) or plain.endswith(RAW_ENDINGS)
    declared = entry.format if entry else None
    if not looks_raw and not qcow2.is_qcow2(head.image):
        declared = 'qcow2'
    try:
        if head.fault and not qcow2.is_qcow2(head.image):
            raise ValueError(head.fault)
        if plain == path:
            return local_images.read_format(os.path.join(root, path), declared)
        return detect.tell_format(head.image, declared=declared)
    except (ValueError, OSError) as error:
        if looks_raw or plain.endswith(ENDINGS):
            faults.append(f'{path}: {error}')
        return None


def _read_header(
    path: str, head: lookup_file.Head, faults: List[str]
) -> Optional[Qcow2Header]:
    try:
        if head.fault:
            raise qcow2.BadHeader(head.fault)
        header = qcow2_peek.peek_header(head.image)
    except qcow2.BadHeader as error:
        faults.append(f'{path}: {error}')
        return None
    return header


def drop_rebased(
    found: Sequence[Found], touched: Dict[str, Known]
) -> None:
    """Take out layers that were made anew on a base that has changed.

    Their own bytes may be the same; what the guest sees is not.
    """
    originals = {each.file.path: each.original for each in found}
    while True:
        changed = [
            originals[path] for path in originals if path not in touched
        ]
        again = [
            path for path in touched
            if any(originals[path].is_newer_layer_of(one) for one in changed)
        ]
        if not again:
            return
        for path in again:
            del touched[path]


def _dangers(header: Qcow2Header) -> Iterator[str]:
    """Yield why clients would refuse an image, whatever its base."""
    expected = header.backing_file and [header.backing_file]
    for danger in qcow2_safety.find_dangers(
        header, expected_backing=expected or None
    ):
        # The name of the base is ours to write.
        if not danger.startswith('backing f'):
            yield danger
    if header.backing_file is None and header.dirty:
        yield 'it was not closed cleanly; mend it: qemu-img check -r all'


def _read_head(root: str, path: str) -> lookup_file.Head:
    image = Image(
        ImageRef('none', 'none', 'none'), '', path, 0,
        compression=compression_of(path),
    )
    return lookup_file.read_head(image, FileProvider(root))


def _read_metadata(
    root: str, path: str, faults: List[str]
) -> Dict[str, Any]:
    for name in dict.fromkeys([strip_suffix(path), path]):
        sidecar = os.path.join(root, f'{name}.metadata')
        try:
            with files.open_text(sidecar) as stream:
                found = json.load(stream)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            faults.append(f'{name}.metadata: {error}')
            continue
        if isinstance(found, dict):
            return found
        faults.append(f'{name}.metadata: is not a JSON object')
    return {}


def _backing(
    root: str, path: str, header: Optional[Qcow2Header]
) -> Optional[str]:
    """Return the backing file; one of this directory by its path in it."""
    if header is None or header.backing_file is None:
        return None
    name = header.backing_file
    here = os.path.join(root, posixpath.dirname(path), name)
    if os.path.isfile(here) and _inside(root, here):
        return os.path.relpath(
            os.path.realpath(here), os.path.realpath(root)
        )
    return name


def _inside(root: str, path: str) -> bool:
    top = os.path.realpath(root)
    return os.path.realpath(path).startswith(f'{top}{os.sep}')
