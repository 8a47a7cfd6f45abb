"""Make a plan of chains, of what the store holds, and of its room.

Visible means complete: what lies below a present image is not looked at. An
image that was published again under its old name gets a name of its own.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from . import errors
from .model import Chain, Image, Partial, Stored
from .plan import Layer, Plan, Room, State

#: Compressed bytes that one running layer keeps so that it can go on later.
SPOOL_BYTES = 16 * 2**20


def store_names(image: Image) -> Tuple[str, ...]:
    """Return the names that an image may have in the store.

    The first is Lago's. The second is for an image that was published again
    under the same name: the old file may carry others, so it stays.
    """
    names = [str(image.ref)]
    if image.digest:
        names.append(f'{image.ref}+{image.digest.value[:8]}')
    return tuple(names)


def make_plan(
    chains: Iterable[Chain],
    *,
    stored: Mapping[str, Stored],
    partial: Mapping[str, Partial],
    room: Room,
    reserve: int = 0,
    jobs: int = 1,
) -> Plan:
    """Plan the transfer of some chains.

    Args:
        stored: the visible images, by store name: at least those that
            `store_names` gives for the images of the chains, and those that
            their headers point to.
        partial: the unfinished ones, likewise.
        reserve: bytes that shall stay free.
        jobs: layers that run at the same time.

    Raises:
        StoreError: a present image stands on one that is gone and that no
            chain can bring back.
    """
    layers: Dict[str, Layer] = {}
    tops = []
    for chain in chains:
        base: Optional[str] = None
        for image in _needed(chain, stored):
            name, here = _place(image, stored)
            if here:
                _add_present(name, image, stored, layers)
            else:
                layers.setdefault(
                    name, _missing(name, base, image, partial.get(name))
                )
            base = name
        tops.append(name)
    _check_complete(layers, stored)
    return Plan(
        layers=tuple(layers.values()),
        tops=tuple(tops),
        room=room,
        reserve=reserve,
        temporary=_temporary(layers.values(), jobs),
    )


def _temporary(layers: Iterable[Layer], jobs: int) -> int:
    """Return the room for what the running layers keep to go on later."""
    spools = sorted(
        SPOOL_BYTES if layer.fetch is None else min(layer.fetch, SPOOL_BYTES)
        for layer in layers
        if layer.state is not State.PRESENT
        and layer.image and layer.image.compression
    )
    return sum(spools[-jobs:])


def _needed(chain: Chain, stored: Mapping[str, Stored]) -> List[Image]:
    """Return the images that matter: visible means complete.

    What lies below a present image is not looked at, unless that image's own
    backing file is gone.
    """
    images: List[Image] = []
    for image in reversed(chain.images):
        images.insert(0, image)
        here = _place(image, stored)[1]
        if here and is_whole(here, stored):
            break
    return images


def is_whole(image: Stored, stored: Mapping[str, Stored]) -> bool:
    """Tell whether all that an image's header leads to is there.

    Raises:
        StoreError: the image stands on itself.
    """
    seen = {image.name}
    while image.backing is not None:
        if image.backing in seen:
            raise errors.StoreError(
                f'{image.name} in the store stands on itself.',
                hint='Remove it, so that its chain is fetched again.',
            )
        if image.backing not in stored:
            return False
        seen.add(image.backing)
        image = stored[image.backing]
    return True


def _place(
    image: Image, stored: Mapping[str, Stored]
) -> Tuple[str, Optional[Stored]]:
    """Return the image's name in the store, and the file if it is there."""
    plain, *others = store_names(image)
    for name in others:
        if name in stored and not _differs(image, stored[name]):
            return name, stored[name]
    here = stored.get(plain)
    if here and _differs(image, here):
        return others[0], None
    return plain, here


def _differs(image: Image, here: Stored) -> bool:
    known = {digest.algorithm: digest.value for digest in here.digests}
    return any(
        known.get(digest.algorithm, digest.value) != digest.value
        for digest in image.digests
    )


def _add_present(
    name: str,
    image: Optional[Image],
    stored: Mapping[str, Stored],
    layers: Dict[str, Layer],
) -> None:
    known = layers.get(name)
    if name not in stored or (known and (known.image or not image)):
        return
    here = stored[name]
    if here.backing is not None:
        _add_present(here.backing, None, stored, layers)
    layers[name] = Layer(
        name=name, base=here.backing, state=State.PRESENT, image=image,
        on_disk=here.disk,
    )


def _missing(
    name: str, base: Optional[str], image: Image, here: Optional[Partial]
) -> Layer:
    fetched = here.fetched if here else 0
    on_disk = here.disk if here else 0
    fetch = image.compressed_size
    if fetch is None and image.compression is None:
        fetch = image.size
    return Layer(
        name=name,
        base=base,
        state=State.PARTIAL if fetched else State.MISSING,
        image=image,
        fetch=None if fetch is None else max(0, fetch - fetched),
        keep=None if image.size is None else max(0, image.size - on_disk),
        fetched=fetched,
        on_disk=on_disk,
    )


def _check_complete(
    layers: Mapping[str, Layer], stored: Mapping[str, Stored]
) -> None:
    for layer in layers.values():
        if layer.base is not None and layer.base not in layers:
            raise errors.StoreError(
                f'{layer.name} stands on {layer.base}, which is not in the '
                f'store and cannot be fetched.',
                hint=(
                    f'Bring {layer.base} back, or remove {layer.name} from '
                    f'the store so that its chain is fetched again.'
                ),
            )
