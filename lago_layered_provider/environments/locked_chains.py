"""Pinned chains, in the store and in the repositories.

A digest of a layer says nothing of its base. So an image of the store is the
pinned one only if all that it stands on is, too.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from ..core import errors
from ..core.model import Chain, Stored
from ..core.plan import Plan, State
from ..core.wanted import Pin, Pins
from ..repositories.sources import Sources
from ..store import Store
from . import find_locked

UPDATE_HINT = (
    'To go on with what the repositories have now: lago template-repo lock '
    '--update'
)


def resolve_pinned(
    chains: Sequence[Pins], store: Store, sources: Sources
) -> Tuple[Chain, ...]:
    """Return pinned chains; what the store has of them needs no repository.

    Raises:
        NotAsLocked: an image is gone, or is another one now; all of them.
        LayeredError: a repository cannot be asked.
    """
    present = _count_present(chains, store)
    while True:
        found = find_locked.find_pinned(sources.catalog, chains, present)
        if found.needed:
            sources.read(found.needed)
        elif not sources.look_up(found.listed):
            break
    if found.differences:
        raise errors.NotAsLocked(
            'The repositories have not what is locked', found.differences,
            hint=UPDATE_HINT,
        )
    return found.chains


def _count_present(chains: Sequence[Pins], store: Store) -> List[int]:
    """Return how many images of each chain are here, from the bottom."""
    names = store.find_same(
        digest for pins in chains for pin in pins for digest in pin.digests
    )
    found = [stored for stored in map(store.find, names) if stored]
    return [
        next((
            count for count in range(len(pins), 0, -1)
            if any(_is_chain(each, pins[:count], store) for each in found)
        ), 0)
        for pins in chains
    ]


def _is_chain(top: Stored, pins: Pins, store: Store) -> bool:
    """Tell whether an image and all below it are the pinned ones."""
    here: Optional[Stored] = top
    for number, pin in reversed(list(enumerate(pins))):
        if here is None or not pin.is_proven_by(here.digests):
            return False
        if here.backing is None:
            return number == 0
        here = store.find(here.backing)
    return False


def check_plan(plan: Plan, chains: Sequence[Pins], store: Store) -> None:
    """See that what is planned is what is pinned, image by image.

    Raises:
        NotAsLocked: the store has something else under a name of these.
    """
    differences: Dict[str, None] = {}
    for top, pins in zip(plan.tops, chains):
        name: Optional[str] = top
        for pin in reversed(pins):
            if not _is_pinned(plan, name, pin, store):
                differences[_describe(plan, name, pin, top)] = None
                break
            name = plan.layer(name).base if name else None
        else:
            if name is not None:
                differences[_describe(plan, name, None, top)] = None
    if differences:
        raise errors.NotAsLocked(
            f'{store.root} has not what is locked', list(differences),
            hint=(
                'Choose another store with --template-store; or remove the '
                'image from this one, if no disk stands on it.'
            ),
        )


def _is_pinned(
    plan: Plan, name: Optional[str], pin: Pin, store: Store
) -> bool:
    if name is None:
        return False
    layer = plan.layer(name)
    if layer.state is State.PRESENT:
        here = store.find(name)
        return here is not None and pin.is_proven_by(here.digests)
    # What nobody could fetch was in the store a moment ago.
    image = layer.image
    return bool(image and image.handle and pin.is_proven_by(image.digests))


def _describe(
    plan: Plan, name: Optional[str], pin: Optional[Pin], top: str
) -> str:
    locked = pin or 'nothing'
    if name == top:
        return f'{name} is not the locked {locked}'
    return f'{top} stands on {name or "nothing"} there, locked on {locked}'
