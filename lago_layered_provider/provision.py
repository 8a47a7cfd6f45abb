"""The use case: from wanted templates to a store that holds their chains.

Read it from `provision` on: chains, plan, room, transfer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Iterable, List, Optional, Sequence, TextIO

from .core import planning, resolve
from .core.catalog import Catalog, Wanted
from .core.model import Chain, Image, Partial, Stored
from .core.plan import Plan
from .core.planning import make_plan, store_names
from .settings import Settings
from .sources import Sources
from .store import Store
from .transfer.ports import Progress


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
