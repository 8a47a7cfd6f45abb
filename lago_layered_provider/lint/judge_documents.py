"""Judge what is beside the index: its signature, virt-builder's index."""

from __future__ import annotations

import os
import time
from typing import Dict, Iterator, Mapping, Optional

from ..core import errors
from ..core.model import Image, Unknown, show
from ..formats import openpgp, virt_index
from ..index.document import Index, is_remote
from ..index.entry import strip_suffix
from ..index.file_names import PUBLISHED, SIDECARS, files_of
from ..providers import ranges
from ..repositories.directory import published_files
from ..repositories.reading import try_again
from ..settings import Settings
from . import virt
from .documents import Documents, open_beside
from .findings import Finding, Name
from .seen import Seen
from .sources import Source

#: Files that are named; there may be many.
SHOWN_STRAYS = 5


def judge_signature(
    location: str, documents: Documents, settings: Settings,
    index: Optional[Index],
) -> Iterator[Finding]:
    """Say what is wrong with the signature of an index."""
    data = documents.signature
    if data is None:
        if settings.keyring:
            yield Finding(
                'signature-missing', 'a keyring is set, and the index is '
                'not signed',
            )
        return
    try:
        openpgp.split_signatures(data)
    except ValueError as error:
        yield Finding('signature-bad', f'repo.metadata.asc: {error}')
        return
    if index is not None and index.timestamp is None:
        yield Finding(
            'signature-bad', 'the index is signed, but has no "timestamp": '
            'clients cannot tell an old one that is served again',
        )
    expires = None if index is None else index.expires
    if expires is not None and expires < time.time():
        yield Finding(
            'signature-bad', 'the index has expired: clients that demand a '
            'signature refuse it; sign it anew',
        )
    if not settings.keyring:
        yield Finding(
            'signature-unchecked', 'the index is signed; no keyring is set '
            'to check that with',
        )
        return
    from ..tools import gpg

    try:
        gpg.check(documents.index or b'', data, settings.keyring)
    except errors.LayeredError as error:
        yield Finding('signature-bad', error.message)


def judge_strays(
    location: str, index: Index, images: Mapping[Name, Image]
) -> Iterator[Finding]:
    """Name the published files of a local repository that nothing needs."""
    if is_remote(location):
        return
    root = os.path.dirname(os.path.abspath(location))
    kept = {name for image in images.values() for name in files_of(image)}
    # The file of a faulty entry is not the one that is too many.
    faulty = {
        strip_suffix(str(found.get('handle')))
        for template, version, found in index.entries()
        if (template, version) not in images
    }
    strays = sorted(
        name for name in published_files(root)
        if name not in kept and _plain(name) not in faulty
    )
    if strays:
        shown = ', '.join(map(show, strays[:SHOWN_STRAYS]))
        yield Finding(
            'stray-files', f'no image of the index has {shown}'
            + (f' and {len(strays) - SHOWN_STRAYS} more files'
               if len(strays) > SHOWN_STRAYS else '')
            + f' below {PUBLISHED}',
        )


def _plain(name: str) -> str:
    """Return the name of an image, given one of its files."""
    for ending in SIDECARS:
        if name.endswith(ending):
            name = name[:-len(ending)]
    return strip_suffix(name)


def judge_virt_index(
    location: str, documents: Documents, settings: Settings,
    seen: Mapping[Name, Seen], sources: Mapping[str, Source],
) -> Iterator[Finding]:
    """Say what is wrong with the index of virt-builder, where one is."""
    if documents.virt is None:
        return
    sections, faults = virt_index.parse(documents.virt)
    beside = open_beside(location, settings)
    images = _by_path(seen, beside.locate(''), sources)
    sizes: Dict[str, Optional[int]] = {}
    for section in sections:
        path = section.path
        if not path or path in sizes or path.startswith('/'):
            continue
        if path in images and images[path].total is not None:
            sizes[path] = images[path].total
            continue
        try:
            info = try_again(lambda: beside.stat(path), settings.retries)
        except errors.TransferError as error:
            if ranges.is_missing(error):
                sizes[path] = None
        else:
            if info.size is not None:
                sizes[path] = info.size
    yield from virt.judge_virt_index(sections, faults, images, sizes)


def _by_path(
    seen: Mapping[Name, Seen], beside: str, sources: Mapping[str, Source]
) -> Dict[str, Seen]:
    """Return images by their path beside the index.

    Those of a server that is named otherwise count as well: it may be the
    one that serves this directory.
    """
    found: Dict[str, Seen] = {}
    for one in seen.values():
        if one.trouble or isinstance(one.image.compression, Unknown):
            continue
        place = sources[one.image.source].provider.locate('')
        within = place[len(beside):] if place.startswith(beside) else ''
        found[virt_index.unquote(within) + one.image.file] = one
    return found
