"""Ask repositories: for their index, and for what it leaves open."""

from __future__ import annotations

import time
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Tuple,
    TypeVar,
)

from .core import errors, index
from .core.catalog import Catalog
from .core.index import Index
from .core.model import Image
from .providers import Document
from .settings import Settings
from .store import KeptIndex, Store
from .transfer.ports import Provider

#: Small requests that run at the same time.
LOOKUP_THREADS = 8

#: Seconds to wait for a server whose index we have kept.
KEPT_TIMEOUT_SECONDS = 10

INDEX_HINT = (
    'Check the address of the index: --template-repo-path, or '
    'template_repo_path in lago.conf.'
)

T = TypeVar('T')


def load_index(
    location: str,
    store: Optional[Store],
    settings: Settings,
    warn: Callable[[str], None],
) -> Index:
    """Return the index at a URL or path.

    A kept one is used when the server says that it has not changed, and,
    with a warning, when the server cannot be reached.

    Raises:
        TransferError, IndexFaults: there is none that can be used.
    """
    kept = store.kept_index(location) if store else None
    try:
        document = _read_document(location, kept, settings)
    except errors.TransferError as error:
        # An answer such as 404 says more than what was kept; a name that is
        # not known is what a laptop without a network gets.
        answered = error.status is not None and error.status < 500
        if kept is None or answered:
            if answered and not error.retryable:
                error.hint = INDEX_HINT
            raise
        warn(f'{error.message}; using the index kept from the last time')
        return index.parse_index(kept.body, location)
    if document.body is None and kept is not None:
        return index.parse_index(kept.body, location)
    body = document.body or b''
    found = index.parse_index(body, location)
    if store:
        store.keep_index(location, body, document.validator)
    return found


def _read_document(
    location: str, kept: Optional[KeptIndex], settings: Settings
) -> Document:
    """Read an index unless it is as it was kept."""
    from .providers import read_document

    if kept is None:
        return _try_again(lambda: read_document(
            location, limit=index.MAX_INDEX_BYTES, timeout=settings.timeout
        ), settings.retries)
    # Nobody should wait long for a server that can be done without.
    return read_document(
        location,
        validator=kept.validator,
        limit=index.MAX_INDEX_BYTES,
        timeout=min(settings.timeout, KEPT_TIMEOUT_SECONDS),
    )


class Sources:
    """The providers of a catalog's sources, each made when it is needed."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self.settings = settings
        self._catalog = catalog
        self._providers: Dict[Tuple[str, str], Provider] = {}

    def provider(self, image: Image) -> Provider:
        """Return the provider of an image's source."""
        from .providers import make_provider

        key = (image.ref.repository, image.source)
        if key not in self._providers:
            spec = self._catalog.index_of(image).source(image.source)
            self._providers[key] = make_provider(
                spec.type, spec.args, timeout=self.settings.timeout
            )
        return self._providers[key]

    def look_up(self, images: Iterable[Image]) -> List[Image]:
        """Complete the images that the index leaves open, in parallel."""
        from . import lookup, threads

        todo = [
            (image, self.provider(image)) for image in images
            if not lookup.is_complete(image)
        ]
        return threads.run_all(
            lambda pair: _try_again(
                lambda: lookup.look_up(*pair), self.settings.retries
            ),
            todo,
            LOOKUP_THREADS,
        )


def _try_again(action: Callable[[], T], retries: int) -> T:
    """Run a small request again while that can help."""
    for failures in range(retries):
        try:
            return action()
        except errors.TransferError as error:
            if not error.retryable:
                raise
        time.sleep(min(0.2 * 2 ** failures, 5))
    return action()
