"""The use case: from wanted templates to a store that holds their chains.

Read it from `provision` on: chains, plan, room, transfer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import (
    ContextManager, Dict, Iterable, List, Optional, Protocol, Sequence,
)

from ..core import errors, planning
from ..core.model import Chain, Digest, Image, Partial, Stored
from ..core.plan import Plan
from ..core.planning import make_plan
from ..core.store_names import own_place, store_names
from ..core.wanted import Wanted
from ..index import resolve
from ..repositories.sources import Sources
from ..settings import Settings
from ..store import Store, Usage
from ..transfer.ports import Progress
from . import locked_chains


class Display(Protocol):
    """What people see of the work."""

    def show(self, plan: Plan) -> None:
        """Show a plan before it is carried out."""

    def progress(self, kind: str) -> ContextManager[Progress]:
        """Show how far the transfer is, as the setting `progress` says."""


def provision(
    wanted: Sequence[Wanted],
    store: Store,
    sources: Sources,
    display: Display,
) -> Plan:
    """Bring the chains of all wanted templates into the store.

    Nothing is fetched, and no image locked, before the plan stands. No
    prune takes what the plan counts on: it waits.

    Args:
        display: shows the plan and the progress.

    Returns:
        the plan as it was carried out; its `tops` are the names of the
        wanted images in the store, in the order of `wanted`.

    Raises:
        LayeredError: what was fetched so far is kept.
    """
    with Usage(store.root).using(
        sources.settings.lock_timeout,
        lambda holder: sources.warn(
            f'{store.root}: waiting for {holder}'
        ),
    ):
        return _provision(wanted, store, sources, display)


def _provision(
    wanted: Sequence[Wanted],
    store: Store,
    sources: Sources,
    display: Display,
) -> Plan:
    store.clear()
    plan = plan_for(wanted, store, sources)
    try:
        _carry_out(plan, store, sources, display)
        return plan
    except errors.LayeredError as error:
        changed = _plan_anew(error, plan, wanted, store, sources)
        if changed is None:
            raise
        sources.warn(
            f'{error.message.splitlines()[0]} The repository has changed '
            f'meanwhile, so there is a new plan.'
        )
    _carry_out(changed, store, sources, display)
    return changed


def _plan_anew(
    error: errors.LayeredError,
    plan: Plan,
    wanted: Sequence[Wanted],
    store: Store,
    sources: Sources,
) -> Optional[Plan]:
    """Look once more at the indexes when an image is not what they said.

    Returns:
        a plan where that image is another one; None where there is none,
        and the error stands.
    """
    failures = getattr(error, 'errors', (error,))
    if not any(map(_may_be_published_anew, failures)):
        return None
    sources.renew()
    try:
        new = plan_for(wanted, store, sources)
    except errors.LayeredError:
        return None  # what went wrong first is what matters
    before = [layer.image for layer in plan.missing]
    if all(layer.image in before for layer in new.missing):
        return None
    return new


def _may_be_published_anew(error: errors.LayeredError) -> bool:
    if isinstance(error, errors.TransferError):
        return error.status in (404, 410)
    return isinstance(error, (errors.VerifyError, errors.UnsafeImage))


def plan_for(
    wanted: Sequence[Wanted], store: Store, sources: Sources
) -> Plan:
    """Resolve and plan, asking the sources for what is not known yet.

    Each round of the loop reads the next repository that is needed, or asks
    for the bases of one more level of the chains, all of them in parallel; a
    complete index needs one round.
    """
    pins = [each.pins for each in wanted]
    if wanted and all(pins):
        chains = locked_chains.resolve_pinned(pins, store, sources)
        plan = _make_plan(chains, store, sources.settings)
        locked_chains.check_plan(plan, pins, store)
        return plan
    while True:
        resolution = resolve.resolve(sources.catalog, wanted)
        if resolution.needed:
            sources.read(resolution.needed)
        elif resolution.unknown:
            _look_up_bases(resolution.unknown, store, sources)
        elif not sources.look_up(_lacking(resolution.chains, store)):
            break
    return _make_plan(resolution.chains, store, sources.settings)


def _look_up_bases(
    images: Sequence[Image], store: Store, sources: Sources
) -> None:
    present = [image for image in images if _is_present(image, store)]
    # What is visible is complete: nothing below it is needed.
    sources.know(replace(image, base=None) for image in present)
    sources.look_up(image for image in images if image not in present)


def _is_present(image: Image, store: Store) -> bool:
    """Whether an image and all that its header points to is in the store."""
    stored: Dict[str, Stored] = {}
    for name in store_names(image):
        _add_stored(name, store, stored)
    here = own_place(image, stored)[1]
    return here is not None and planning.is_whole(here, stored)


def _is_whole(name: str, store: Store) -> bool:
    stored: Dict[str, Stored] = {}
    _add_stored(name, store, stored)
    return name in stored and planning.is_whole(stored[name], stored)


def find_copy(digest: Digest, store: Store) -> Optional[str]:
    """Return the name of an image in the store that has a digest."""
    names = store.find_same([digest])
    return next((name for name in names if _is_whole(name, store)), None)


def _lacking(chains: Iterable[Chain], store: Store) -> List[Image]:
    """The images above the first one, seen from the top, that is present."""
    found = {}
    for chain in chains:
        for image in reversed(chain.images):
            if _is_present(image, store):
                break
            found[image.key] = image
    return list(found.values())


def _make_plan(
    chains: Sequence[Chain], store: Store, settings: Settings
) -> Plan:
    stored: Dict[str, Stored] = {}
    partial: Dict[str, Partial] = {}
    images = {image.key: image for chain in chains for image in chain}
    for image in images.values():
        for name in store_names(image):
            _add_stored(name, store, stored)
            unfinished = store.partial(name, identity=image.identity)
            if unfinished:
                partial[name] = unfinished
    lacking = _lacking(chains, store)
    for name in store.find_same(
        digest for image in lacking for digest in image.digests
    ):
        _add_stored(name, store, stored)
    plan = make_plan(
        chains, stored=stored, partial=partial, room=store.room({}),
        blocks=settings.blocks,
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


def _carry_out(
    plan: Plan, store: Store, sources: Sources, display: Display
) -> None:
    """Show the plan, and fetch what is missing if it fits."""
    display.show(plan)
    plan.check_room()
    check_offline(plan, sources)
    if plan.missing:
        with display.progress(sources.settings.progress) as progress:
            fetch_missing(plan, store, sources, progress)


def check_offline(plan: Plan, sources: Sources) -> None:
    """Raise Offline when a server had to be asked for a missing layer."""
    if not sources.settings.offline:
        return
    remote = [
        layer.name for layer in plan.missing
        if layer.image and not sources.is_local(layer.image)
    ]
    if remote:
        raise errors.Offline(
            'Not in the store, and no server is asked for it (--offline):'
            + ''.join(f'\n  - {name}' for name in remote),
            hint='Run it once without --offline.',
        )


def _warn_of_unproven(plan: Plan, sources: Sources) -> None:
    """Say which images come in whatever their bytes are."""
    names = [
        layer.name for layer in plan.missing
        if layer.image and not layer.image.digests
    ]
    if names:
        sources.warn(
            f'Nothing can prove what is fetched of {", ".join(names)}: '
            f'neither the index nor a .hash file beside the image has a '
            f'digest'
        )


def fetch_missing(
    plan: Plan, store: Store, sources: Sources, progress: Progress
) -> None:
    """Carry out a plan that fits.

    Raises:
        LayeredError: what was fetched so far is kept.
    """
    from ..tools import qemu_img
    from ..transfer import engine, fetch

    settings = sources.settings
    providers = {
        layer.name: sources.provider(layer.image)
        for layer in plan.missing if layer.image
    }
    qemu_img.require()
    _warn_of_unproven(plan, sources)
    store.prepare()
    needs = _needs(plan)
    with store.reserve(needs):
        # Another transfer may have reserved room since the plan was made.
        replace(plan, room=store.room(needs)).check_room()
        engine.carry_out(
            plan, providers, store,
            limits=fetch.Limits(
                jobs=settings.jobs,
                connections=settings.connections,
                blocks=settings.blocks,
                patience=settings.patience,
                lock_timeout=settings.lock_timeout,
            ),
            progress=progress,
            check=qemu_img.check,
        )
