"""Read what stands beside the images: index, signature, virt-builder's index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from ..core import errors
from ..index import document, source_places
from ..index.document import SourceSpec, is_remote
from ..providers import make_provider, ranges, read_document
from ..repositories.reading import MAX_SIGNATURE_BYTES, try_again
from ..settings import Settings
from ..transfer.ports import Provider

INDEX_NAME = 'repo.metadata'
VIRT_NAME = 'index'

#: Where files beside the index are.
BESIDE = SourceSpec('file', {'root': '.'})


@dataclass(frozen=True)
class Documents:
    """The documents of a repository at one time; None: not there.

    Attributes:
        fault: why there is no index.
    """

    index: Optional[bytes]
    signature: Optional[bytes] = None
    virt: Optional[bytes] = None
    fault: str = ''


def find_index(where: str) -> str:
    """Return the path or URL of an index, given it or its directory."""
    if where.endswith('/') or not is_remote(where) and os.path.isdir(where):
        return f'{where.rstrip("/")}/{INDEX_NAME}'
    return where


def read_documents(
    location: str, settings: Settings, fresh: bool = False
) -> Documents:
    """Read the documents; what cannot be read is as if it were not there.

    Args:
        fresh: no cache on the way may answer.
    """
    try:
        found = _read(location, document.MAX_INDEX_BYTES, settings, fresh)
    except errors.TransferError as error:
        return Documents(None, fault=error.message)
    return Documents(
        found,
        _read_optional(
            source_places.signature_of(location), MAX_SIGNATURE_BYTES,
            settings, fresh,
        ),
        _read_virt(location, settings),
    )


def open_beside(location: str, settings: Settings) -> Provider:
    """Return the files that are beside an index."""
    spec = source_places.find_places(BESIDE, location)[0][0]
    return make_provider(
        spec.type, spec.args, timeout=settings.timeout, roots=None
    )


def _read(
    location: str, limit: int, settings: Settings, fresh: bool
) -> Optional[bytes]:
    return try_again(lambda: read_document(
        location, limit=limit, timeout=settings.timeout, fresh=fresh
    ), settings.retries).body


def _read_optional(
    location: str, limit: int, settings: Settings, fresh: bool
) -> Optional[bytes]:
    try:
        return _read(location, limit, settings, fresh)
    except errors.TransferError:
        return None


def _read_virt(location: str, settings: Settings) -> Optional[bytes]:
    """Return virt-builder's index; a page of a server of that name is none.
    """
    try:
        data = try_again(lambda: ranges.read_small(
            open_beside(location, settings), VIRT_NAME,
            document.MAX_INDEX_BYTES,
        ), settings.retries)
    except (errors.TransferError, errors.IndexFaults):
        return None
    return None if (data or b'').lstrip()[:1] == b'<' else data
