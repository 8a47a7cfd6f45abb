"""The use case: from wanted templates to a store that holds their chains.

Read it from `provision` on: chains, plan, room, transfer.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    TypeVar,
)

from .core import errors, index, planning, resolve
from .core.index import Index
from .core.model import Chain, Image, Partial, Stored
from .core.plan import Plan
from .core.planning import make_plan, store_names
from .core.catalog import Catalog, Wanted
from .settings import Settings
from .store import Store
from .transfer.ports import Progress, Provider

#: Small requests that run at the same time.
LOOKUP_THREADS = 8

#: Seconds to wait for a server whose index we have kept.
KEPT_TIMEOUT_SECONDS = 10

INDEX_HINT = (
    'Check the address of the index: --template-repo-path, or '
    'template_repo_path in lago.conf.'
)

T = TypeVar('T')


def provision(
    wanted: Sequence[Wanted],
    catalog: Catalog,
    store: Store,
    settings: Settings,
    stream: TextIO,
) -> Plan:
    """Bring the chains of all wanted templates into the store.

    Nothing is fetched, locked or written before the plan stands.

    Args:
        stream: where the plan and the progress are shown.

    Returns:
        the plan as it was carried out; its `tops` are the names of the
        wanted images in the store, in the order of `wanted`.

    Raises:
        LayeredError: what was fetched so far is kept.
    """
    from . import report  # rich costs more than most lago commands do

    sources = Sources(catalog, settings)
    plan = plan_for(wanted, catalog, store, sources)
    console = report.make_console(stream)
    report.print_plan(plan, console)
    plan.check_room()
    if plan.missing:
        with report.make_progress(settings.progress, console) as progress:
            _fetch(plan, store, sources, progress)
    return plan


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
    from .providers import read_document

    kept = store.kept_index(location) if store else None
    timeout = settings.timeout
    if kept:
        timeout = min(timeout, KEPT_TIMEOUT_SECONDS)
    try:
        document = _try_again(
            lambda: read_document(
                location,
                validator=kept.validator if kept else None,
                limit=index.MAX_INDEX_BYTES,
                timeout=timeout,
            ),
            0 if kept else settings.retries,
        )
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


def plan_for(
    wanted: Sequence[Wanted],
    catalog: Catalog,
    store: Store,
    sources: Sources,
) -> Plan:
    """Resolve and plan, looking up what the index leaves open.

    Each round of the loop asks for the bases of one more level of the
    chains, all of them in parallel; a complete index needs no round.
    """
    resolution = resolve.resolve(catalog, wanted)
    while resolution.unknown:
        images = resolution.unknown
        present = [image for image in images if _is_present(image, store)]
        lacking = [image for image in images if image not in present]
        catalog = catalog.with_known([
            # What is visible is complete: nothing below it is needed.
            *(replace(image, base=None) for image in present),
            *sources.look_up(lacking),
        ])
        resolution = resolve.resolve(catalog, wanted)
    chains = resolution.chains
    found = sources.look_up(_lacking(chains, store))
    if found:
        chains = resolve.resolve(catalog.with_known(found), wanted).chains
    return _make_plan(chains, store, sources.settings)


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


def _is_present(image: Image, store: Store) -> bool:
    """Whether an image and all that its header points to is in the store."""
    for name in store_names(image):
        stored: Dict[str, Stored] = {}
        _add_stored(name, store, stored)
        if name in stored and planning.is_whole(stored[name], stored):
            return True
    return False


def _lacking(chains: Iterable[Chain], store: Store) -> List[Image]:
    """The images above the first one, seen from the top, that is present."""
    found = {}
    for chain in chains:
        for image in reversed(chain.images):
            if _is_present(image, store):
                break
            found[image.ref] = image
    return list(found.values())


def _make_plan(
    chains: Sequence[Chain], store: Store, settings: Settings
) -> Plan:
    stored: Dict[str, Stored] = {}
    partial: Dict[str, Partial] = {}
    images = {image.ref: image for chain in chains for image in chain}
    for image in images.values():
        for name in store_names(image):
            _add_stored(name, store, stored)
            unfinished = store.partial(name, identity=image.identity)
            if unfinished:
                partial[name] = unfinished
    plan = make_plan(
        chains, stored=stored, partial=partial, room=store.room({}),
        jobs=settings.jobs,
    )
    # What another transfer fetches of the same layers is not needed twice.
    room = store.room(_needs(plan))
    return replace(plan, room=room, reserve=settings.reserve.of(room.total))


def _add_stored(
    name: Optional[str], store: Store, stored: Dict[str, Stored]
) -> None:
    """Add an image and those that its header points to, where visible."""
    while name is not None and name not in stored:
        here = store.find(name)
        if here is None:
            return
        stored[name] = here
        name = here.backing


def _needs(plan: Plan) -> Dict[str, int]:
    return {
        layer.name: (layer.keep or 0) + layer.on_disk
        for layer in plan.missing
    }


def _fetch(
    plan: Plan, store: Store, sources: Sources, progress: Progress
) -> None:
    from .transfer import engine, fetch

    settings = sources.settings
    providers = {
        layer.name: sources.provider(layer.image)
        for layer in plan.missing if layer.image
    }
    store.prepare()
    needs = _needs(plan)
    with store.reserve(needs):
        # Another transfer may have reserved room since the plan was made.
        replace(plan, room=store.room(needs)).check_room()
        engine.carry_out(
            plan, providers, store,
            limits=fetch.Limits(
                jobs=settings.jobs,
                retries=settings.retries,
                lock_timeout=settings.lock_timeout,
            ),
            progress=progress,
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
