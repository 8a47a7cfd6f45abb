"""Tell which images stand on which, from what the indexes say.

Where there is no image to stand on - nobody knows the base, it is missing,
the bases go round in a circle - the images form a group with that as its
title: a list of all images must show the faulty ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Mapping, Set, Tuple, Union

from ..core import errors
from ..core.model import BaseDigest, Image, ImageRef, Unknown

Key = Tuple[str, ImageRef]
Found = Union[Image, None, Unknown]

UNKNOWN_TITLE = '? (only a look-up can tell: show)'


@dataclass(frozen=True)
class Forest:
    """Trees of images.

    Attributes:
        groups: title -> the images under it; the bottom images have none.
        above: what stands on an image, by its key.
    """

    groups: Mapping[str, Tuple[Image, ...]]
    above: Mapping[Key, Tuple[Image, ...]]

    @property
    def images(self) -> List[Image]:
        """All images, each one once."""
        return [
            image
            for group in (*self.groups.values(), *self.above.values())
            for image in group
        ]


def grow_forest(
    images: Iterable[Image], base_of: Callable[[Image], Found]
) -> Forest:
    """Return the trees of some images and of all that they stand on.

    Args:
        base_of: as `Catalog.base_of`.
    """
    known, bases, titles = _find_bases(images, base_of)
    titles.update(_find_circles(known, bases))
    groups: Dict[str, List[Image]] = {}
    above: Dict[Key, List[Image]] = {}
    for key, image in sorted(known.items(), key=_order):
        if key in titles:
            groups.setdefault(titles[key], []).append(image)
        else:
            above.setdefault(bases[key], []).append(image)
    return Forest(
        {title: tuple(groups[title]) for title in sorted(groups)},
        {key: tuple(found) for key, found in above.items()},
    )


def _order(item: Tuple[Key, Image]) -> Tuple[str, str, float, str]:
    image = item[1]
    ref = image.ref
    return ref.template, ref.repository, image.timestamp, ref.version


def _find_bases(
    images: Iterable[Image], base_of: Callable[[Image], Found]
) -> Tuple[Dict[Key, Image], Dict[Key, Key], Dict[Key, str]]:
    """Return all images, the base of each, and the titles without one."""
    known: Dict[Key, Image] = {}
    bases: Dict[Key, Key] = {}
    titles: Dict[Key, str] = {}
    todo = list(images)
    while todo:
        image = todo.pop()
        if image.key in known:
            continue
        known[image.key] = image
        try:
            base = base_of(image)
        except errors.LayeredError as error:
            titles[image.key] = _title(image, error)
            continue
        if base is None:
            titles[image.key] = ''
        elif isinstance(base, Unknown):
            titles[image.key] = UNKNOWN_TITLE
        else:
            bases[image.key] = base.key
            todo.append(base)
    return known, bases, titles


def _title(image: Image, error: errors.LayeredError) -> str:
    """Say in a few words why an image's base cannot be had."""
    base = short_base(image)
    if isinstance(error, errors.ChainCycle):
        return f'{" -> ".join(error.path)} (a circle)'
    if isinstance(error, errors.AmbiguousBase):
        return f'{base} (could be any of several)'
    if isinstance(error, errors.IndexFaults):
        return f'{base} (its entry is faulty)'
    return f'{base} (in no repository)'


def short_base(image: Image) -> str:
    """Return what the index says of an image's base, in one short line."""
    base = image.base
    if base is None:
        return '-'
    if isinstance(base, Unknown):
        return '?'
    if isinstance(base, BaseDigest):
        return f'{base.name} ({base.digest.value[:8]})'
    return ' '.join(str(base).split())


def _find_circles(
    known: Mapping[Key, Image], bases: Mapping[Key, Key]
) -> Dict[Key, str]:
    """Return a title for each image that stands on itself, by a detour."""
    titles: Dict[Key, str] = {}
    done: Set[Key] = set()
    for key in known:
        path: Dict[Key, None] = {}
        while key in bases and key not in done and key not in path:
            path[key] = None
            key = bases[key]
        if key in path:
            walked = list(path)
            circle = walked[walked.index(key):]
            first = circle.index(min(circle))
            circle = circle[first:] + circle[:first]
            names = [ref.short for _, ref in [*circle, circle[0]]]
            title = f'{" -> ".join(names)} (a circle)'
            titles.update(dict.fromkeys(circle, title))
        done.update(path)
    return titles
