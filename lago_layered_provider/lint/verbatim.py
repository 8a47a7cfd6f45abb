"""Read an index as it is, byte by byte, with the signature beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from ..core import errors
from ..index import document as index, source_places
from ..index.document import Index
from ..providers import read_document
from ..repositories.reading import MAX_SIGNATURE_BYTES, try_again
from ..settings import Settings


#: The bytes of an index, and of its signature if it has one.
Verbatim = Tuple[bytes, Optional[bytes]]


def read_verbatim(
    found: Index, settings: Settings
) -> Optional[Verbatim]:
    """Return the bytes of an index and of its signature, if it has one.

    Returns:
        None when it has changed since it was read.

    Raises:
        TransferError: it cannot be had.
    """
    location = found.origin or found.location
    body = _read(location, index.MAX_INDEX_BYTES, settings)
    try:
        if replace(
            index.parse_index(body, found.location), origin=found.origin
        ) != found:
            return None
    except errors.IndexFaults:
        return None
    return body, read_signature(found, settings)


def read_signature(found: Index, settings: Settings) -> Optional[bytes]:
    """Return the signature of an index, None where it has none.

    Raises:
        TransferError: it cannot be had.
    """
    try:
        return _read(
            source_places.signature_of(found.origin or found.location),
            MAX_SIGNATURE_BYTES, settings,
        )
    except errors.TransferError as error:
        if error.status != 404:
            raise
        return None


def _read(location: str, limit: int, settings: Settings) -> bytes:
    document = try_again(lambda: read_document(
        location, limit=limit, timeout=settings.timeout, fresh=True
    ), settings.retries)
    return document.body or b''
