"""Decide how the files of a copied repository are called.

The name of a file stays, as headers may name it; only what would be in the
way of another one gets a directory of its own.
"""

from __future__ import annotations

import posixpath
from typing import Collection, Dict, List, Mapping, Optional

from ..core.errors import IndexFaults
from ..core.model import Image
from ..index.document import Index
from ..index.file_names import PUBLISHED
from ..index.source_places import ARGUMENTS


def name_files(
    images: Collection[Image], here: Mapping[str, Image], faults: List[str]
) -> Dict[str, str]:
    """Return the handle of each image in the copy, by `TEMPLATE:VERSION`.

    Args:
        here: what is in the copy already.
        faults: what cannot be copied is added here.
    """
    several = len({image.source for image in images}) > 1
    taken = {image.handle: short for short, image in here.items()}
    handles: Dict[str, str] = {}
    for image in sorted(images, key=lambda one: one.ref):
        short = image.ref.short
        handle = _name_file(image, here.get(short), several=several)
        if taken.get(handle, short) != short:
            # Two images of the origin may have one file.
            handle = posixpath.join(
                PUBLISHED, image.ref.template, image.ref.version,
                posixpath.basename(handle),
            )
        if any(part.startswith('.') for part in handle.split('/')):
            faults.append(f'{short}: the name {image.handle} is hidden')
        if taken.setdefault(handle, short) != short:
            faults.append(
                f'{short} and {taken[handle]} would have the same file, '
                f'{handle}'
            )
        handles[short] = handle
    return handles


def _name_file(
    image: Image, known: Optional[Image], *, several: bool
) -> str:
    if known is not None and is_there(image, known):
        return known.handle
    handle = image.handle
    if handle.startswith(f'{PUBLISHED}/'):
        handle = handle[len(PUBLISHED) + 1:]
    if several:
        handle = f'{image.source}/{handle}'
    if known is not None:
        # The file that others may be reading stays.
        mark = image.digest.value[:8] if image.digest else 'new'
        handle = posixpath.join(
            posixpath.dirname(handle), mark, posixpath.basename(handle)
        )
    return posixpath.normpath(f'{PUBLISHED}/{handle}')


def is_there(image: Image, here: Optional[Image]) -> bool:
    """Tell whether a copy is of this image, and not of an older one."""
    if here is None:
        return False
    known = {digest.algorithm: digest for digest in here.digests}
    return all(
        known.get(digest.algorithm, digest) == digest
        for digest in image.digests
    ) and image.compressed_size in (None, here.compressed_size)


def is_whole(
    found: Index, handles: Mapping[str, str], here: Collection[str]
) -> bool:
    """Tell whether an index is true of the copy as well.

    Args:
        handles: of all images in the copy.
        here: `TEMPLATE:VERSION` of what was in the copy before.
    """
    names = set()
    try:
        for template, version, _ in found.entries():
            image = found.image(template, version)
            spec = found.source(image.source)
            relative = spec.args.get(ARGUMENTS.get(spec.type, ''))
            if (
                relative not in ('.', './') or len(spec.args) > 1
                or handles.get(image.ref.short) != image.handle
            ):
                return False
            names.add(image.ref.short)
    except IndexFaults:
        return False
    return bool(names) and set(here) <= names
