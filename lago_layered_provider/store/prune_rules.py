"""Decide which images of a store may go; removes nothing itself.

An image may go when no environment stands on it, nobody holds it, and no
image that stays stands on it. Those on top go first, so that a kill in
between leaves no image without its base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Set, Tuple

from ..core.model import Stored
from .usage_notes import Needs, with_bases

DAY_SECONDS = 86400


@dataclass(frozen=True)
class Wishes:
    """What the user wants to keep beyond what is needed.

    Attributes:
        keep: so many newest versions of each template.
        before: what came into the store after that time stays; in seconds
            since 1970.
        until_free: stop when so many bytes are free, None to take all.
        foreign: images may go that were not fetched by us, and whose
            environments nobody has noted.
    """

    keep: int = 0
    before: Optional[float] = None
    until_free: Optional[int] = None
    foreign: bool = False


def choose_removals(
    images: Mapping[str, Stored], needs: Needs, wishes: Wishes, free: int
) -> Tuple[Stored, ...]:
    """Return the images that may go, in the order in which they go.

    Args:
        images: all of the store, by name.
        free: bytes that are free on the store's file system.
    """
    stay = set(with_bases(_wanted(images, needs, wishes), images))
    chosen: List[Stored] = []
    standing = {
        name: {above for above in needs.images.get(name, ())
               if above in images}
        for name in images
    }
    ready = [
        image for name, image in images.items()
        if name not in stay and not standing[name]
    ]
    while ready:
        if wishes.until_free is not None and free >= wishes.until_free:
            break
        oldest = min(ready, key=lambda image: (image.time, image.name))
        ready.remove(oldest)
        chosen.append(oldest)
        free += oldest.disk
        base = oldest.backing
        if base in standing:
            standing[base].discard(oldest.name)
            if not standing[base] and base not in stay:
                ready.append(images[base])
    return tuple(chosen)


def _wanted(
    images: Mapping[str, Stored], needs: Needs, wishes: Wishes
) -> Set[str]:
    """Return the images that stay for themselves, not for another one."""
    found = {name for name in images if needs.reasons(name)}
    for name, image in images.items():
        if not image.recorded and not wishes.foreign:
            found.add(name)
        if wishes.before is not None and image.time > wishes.before:
            found.add(name)
    versions: Dict[str, List[Stored]] = {}
    for name, image in images.items():
        versions.setdefault(name.rpartition(':')[0], []).append(image)
    for found_versions in versions.values():
        newest = sorted(
            found_versions, key=lambda image: (image.published, image.time),
            reverse=True,
        )
        found.update(image.name for image in newest[:wishes.keep])
    return found
