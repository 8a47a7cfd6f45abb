"""Make a plan of chains, of what the store holds, and of its room.

Visible means complete: what lies below a present image is not looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Iterable, List, Mapping, Optional

from . import errors
from .model import Chain, Image, Partial, Stored
from .plan import Layer, Plan, Room, State
from .store_names import Names, own_place

#: What a block waits with for its decoder, at most, as compressors make them.
SPOOL_BYTES = 16 * 2**20


def make_plan(
    chains: Iterable[Chain],
    *,
    stored: Mapping[str, Stored],
    partial: Mapping[str, Partial],
    room: Room,
    reserve: int = 0,
    blocks: int = 1,
) -> Plan:
    """Plan the transfer of some chains.

    Args:
        stored: the visible images, by store name: at least those that
            `store_names` gives for the images of the chains, those that have
            a digest of one of them, and those that their headers point to.
        partial: the unfinished ones, likewise.
        reserve: bytes that shall stay free.
        blocks: that are received or wait to be decoded at the same time.

    Raises:
        StoreError: a present image stands on one that is gone and that no
            chain can bring back.
    """
    names = Names(stored)
    layers: Dict[str, Layer] = {}
    tops = tuple(
        _add_chain(_needed(chain, stored), names, stored, partial, layers)
        for chain in chains
    )
    _check_complete(layers, stored)
    return Plan(
        layers=tuple(layers.values()),
        tops=tops,
        room=room,
        reserve=reserve,
        temporary=_temporary(layers.values(), blocks),
    )


def _add_chain(
    images: Iterable[Image],
    names: Names,
    stored: Mapping[str, Stored],
    partial: Mapping[str, Partial],
    layers: Dict[str, Layer],
) -> str:
    """Add the layers of a chain; return the name of the last one."""
    base: Optional[str] = None
    below: Optional[Image] = None
    for image in images:
        name, here = names.place(image, base)
        if here:
            _add_present(name, image, stored, layers)
        elif name not in layers:
            layer = _missing(name, base, image, partial.get(name))
            layers[name] = replace(layer, base_image=below)
        base, below = name, image
    return name


def _temporary(layers: Iterable[Layer], blocks: int) -> int:
    """Return the room for what was received and is not decoded yet."""
    compressed = sum(
        SPOOL_BYTES if layer.fetch is None else layer.fetch
        for layer in layers
        if layer.state is not State.PRESENT
        and layer.image and layer.image.compression
    )
    return min(compressed, blocks * SPOOL_BYTES)


def _needed(chain: Chain, stored: Mapping[str, Stored]) -> List[Image]:
    """Return the images that matter: visible means complete.

    What lies below a present image is not looked at, unless that image's own
    backing file is gone.
    """
    images: List[Image] = []
    for image in reversed(chain.images):
        images.insert(0, image)
        here = own_place(image, stored)[1]
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
    # The worst case, where the size itself is not known.
    size = image.max_size if image.size is None else image.size
    return Layer(
        name=name,
        base=base,
        state=State.PARTIAL if fetched else State.MISSING,
        image=image,
        fetch=None if fetch is None else max(0, fetch - fetched),
        keep=None if size is None else max(0, size - on_disk),
        exact=image.size is not None and fetch is not None,
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
