"""Find the images of pinned chains again, and tell what is another one now.

The store comes first: what it has of a chain needs no repository. Only for
the images above that are the indexes asked, each for the very image that is
pinned, and what they say of its base is compared as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence, Tuple

from ..core import errors
from ..core.model import BaseDigest, BaseName, Chain, Digest, Image, Unknown
from ..core.wanted import Pin, Pins, Wanted, make_image
from ..index.catalog import Catalog, IndexNeeded


@dataclass(frozen=True)
class Pinned:
    """What became of pinned chains.

    Attributes:
        chains: with the digests that are pinned; none where there are
            differences.
        listed: what the indexes say of the images that are not in the
            store. Look-ups may tell more of them, also that they differ.
        differences: lines for people.
        needed: says which index has to be read before all that.
    """

    chains: Tuple[Chain, ...] = ()
    listed: Tuple[Image, ...] = ()
    differences: Tuple[str, ...] = ()
    needed: Optional[IndexNeeded] = None


def find_pinned(
    catalog: Catalog, chains: Sequence[Pins], present: Sequence[int]
) -> Pinned:
    """Return the images of pinned chains.

    Args:
        present: how many images of each chain are in the store, from the
            bottom.

    Raises:
        IndexFaults: an entry that is needed is faulty.
    """
    finder = _Finder(catalog)
    try:
        found = [
            finder.find(pins, count) for pins, count in zip(chains, present)
        ]
    except IndexNeeded as needed:
        return Pinned(needed=needed)
    return Pinned(
        chains=tuple(chain for chain in found if chain),
        listed=tuple(finder.listed.values()),
        differences=tuple(finder.differences),
    )


class _Finder:
    """Finds one chain after the other, and keeps what it has seen."""

    def __init__(self, catalog: Catalog) -> None:
        self.listed: Dict[object, Image] = {}
        # In order, each one once: chains share images.
        self.differences: Dict[str, None] = {}
        self._catalog = catalog

    def find(self, pins: Pins, present: int) -> Optional[Chain]:
        """Return a chain, None where there is a difference."""
        images: Dict[int, Image] = {
            number: make_image(pin)
            for number, pin in enumerate(pins[:present])
        }
        differences: List[str] = []
        for number in reversed(range(present, len(pins))):
            pin = pins[number]
            below = pins[number - 1] if number else None
            image = _find(self._catalog, pin)
            if image is None:
                differences.append(
                    f'{pin} is in no repository any more; it was in '
                    f'{pin.location or "the store only"}'
                )
                continue
            self.listed[image.key] = image
            images[number] = _with_digests(image, pin)
            base, difference = _compare(self._catalog, image, pin, below)
            differences += [difference] if difference else []
            if base and number == present:
                # Its own index knows by which names headers call it.
                images[number - 1] = replace(
                    images[number - 1], handle=base.handle
                )
        self.differences.update(dict.fromkeys(differences))
        if differences:
            return None
        return Chain(tuple(images[number] for number in range(len(pins))))


def _find(catalog: Catalog, pin: Pin) -> Optional[Image]:
    """Return the image that has a pin's name, with its digest if possible."""
    read = [each.location for each in catalog.indexes]
    unread = [each.location for each in catalog.unread]
    repository = pin.ref.repository
    if pin.location in (*read, *unread):
        repository = pin.location
    wanted = Wanted(pin.ref.template, pin.ref.version, repository)
    for digest in (*pin.digests[:1], None):
        try:
            return catalog.find(replace(wanted, digest=digest))
        except errors.TemplateNotFound:
            continue
    return None


def _with_digests(image: Image, pin: Pin) -> Image:
    """Return an image that has to have the pin's digests.

    Where an index gives others only, they prove nothing: the transfer checks
    the strongest, which then must be one of the pin's.
    """
    added = [
        digest for digest in image.digests
        if pin.shares(image.digests) and digest not in pin.digests
    ]
    return replace(image, digests=(*pin.digests, *added))


def _compare(
    catalog: Catalog, image: Image, pin: Pin, below: Optional[Pin]
) -> Tuple[Optional[Image], str]:
    """Return an image's base, and how the image differs from its pin."""
    other = pin.contradiction(image.digests)
    if other is None:
        return _compare_base(catalog, image, below)
    ours = {digest.algorithm: digest for digest in pin.digests}
    return None, (
        f'{pin} was published again in {image.location}; locked is '
        f'{_short(ours[other.algorithm])}, there is {_short(other)}'
    )


def _short(digest: Digest) -> str:
    """Return the beginning of a digest: nobody compares 128 digits."""
    return f'{digest.algorithm}:{digest.value[:16]}...'


def _compare_base(
    catalog: Catalog, image: Image, below: Optional[Pin]
) -> Tuple[Optional[Image], str]:
    """Return the base of an image, and how it differs from the pinned one.

    No base is returned where it is not known yet, or is in no repository
    any more; the store may still have it.
    """
    locked = f'locked on {below}' if below else 'locked without a base'
    try:
        base = catalog.base_of(image)
    except errors.ResolveError as error:
        if below and _is_named(image, below):
            return None, ''
        return None, f'{image.ref.short}, {locked}: {error.message}'
    if isinstance(base, Unknown) or (base is None and below is None):
        return None, ''
    if base is None:
        return None, f'{image.ref.short} stands on nothing now, {locked}'
    if below and (
        base.ref == below.ref or below.is_proven_by(base.digests)
    ):
        return base, ''
    return None, (
        f'{image.ref.short} stands on {base.ref.repository}/'
        f'{base.ref.short} now, {locked}'
    )


def _is_named(image: Image, below: Pin) -> bool:
    """Tell whether an image says itself that it stands on a pinned one."""
    base = image.base
    if isinstance(base, BaseDigest):
        return base.digest in below.digests
    return isinstance(base, BaseName) and (
        base.template == below.ref.template
        and base.version in (None, below.ref.version)
    )
