"""Decide under which name an image is kept in the store.

The name is Lago's, unless an image that was published again, or one of
another repository that has the same name, has it already: files that others
may stand on are never replaced. And what is in the store already under
another name, on the same base, is not kept twice; bases are the same that
have the same bytes, all the way down.
"""

from __future__ import annotations

from typing import (
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
)

from . import errors
from .model import Digest, Image, Stored

Place = Tuple[str, Optional[Stored]]
Mark = Tuple[object, Optional[str]]


def store_names(image: Image) -> Tuple[str, ...]:
    """Return the names that an image may have in the store.

    The first is Lago's. The second is for an image whose name is taken.
    """
    names = [str(image.ref)]
    if image.digest:
        names.append(f'{image.ref}+{image.digest.value[:8]}')
    return tuple(names)


def own_place(image: Image, stored: Mapping[str, Stored]) -> Place:
    """Return the image's name in the store, and the file if it is there."""
    plain, *others = store_names(image)
    for name in others:
        other = stored.get(name)
        if other and not _differs(image.digests, other.digests):
            return name, other
    here = stored.get(plain)
    if here and _differs(image.digests, here.digests):
        return others[0], None
    return plain, here


class Names:
    """The names of the images of one plan.

    Args:
        stored: the visible images, as for `planning.make_plan`.
    """

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = stored
        self._by_digest: Dict[Digest, List[Stored]] = {}
        for here in stored.values():
            for digest in here.digests:
                self._by_digest.setdefault(digest, []).append(here)
        self._missing: Dict[str, Image] = {}
        self._planned: Dict[Mark, str] = {}

    def place(self, image: Image, base: Optional[str]) -> Place:
        """Return where an image is, or where it will be.

        Args:
            base: the name of its base in the store.

        Raises:
            StoreError: another image of this plan has its name, and they
                cannot be told apart.
        """
        here = self.find(image, base)
        if here is not None:
            return here.name, here
        name = own_place(image, self._stored)[0]
        marks = list(_marks(image, base))
        for mark in marks:
            if mark in self._planned:
                return self._planned[mark], None
        name = self._free(name, image)
        self._missing[name] = image
        self._planned.update(dict.fromkeys(marks, name))
        return name, None

    def find(self, image: Image, base: Optional[str]) -> Optional[Stored]:
        """Return the file that serves as an image, None for none.

        Args:
            base: the name of its base in the store.
        """
        own = own_place(image, self._stored)[1]
        if own is not None:
            return own
        for here in self.copies(image):
            if self._is_same(here.backing, base):
                return here
        return None

    def copies(self, image: Image) -> Iterator[Stored]:
        """Yield the files that have the bytes of an image, on any base."""
        for digest in image.digests:
            for here in self._by_digest.get(digest, ()):
                if not _differs(image.digests, here.digests):
                    yield here

    def _is_same(self, one: Optional[str], other: Optional[str]) -> bool:
        """Tell whether two files and all below them have the same bytes."""
        # A circle, which only a damaged store has, ends too.
        for _ in range(len(self._stored) + 1):
            if one == other:
                return True
            left = self._stored.get(one or '')
            right = self._stored.get(other or '')
            if (
                left is None or right is None
                or not set(left.digests).intersection(right.digests)
                or _differs(left.digests, right.digests)
            ):
                return False
            one, other = left.backing, right.backing
        return False

    def _free(self, name: str, image: Image) -> str:
        """Return a name that no other image of the plan has."""
        for free in (name, *store_names(image)[1:]):
            if free not in self._missing:
                return free
        other = self._missing[name]
        raise errors.StoreError(
            f'{name} names two images, of {other.location} and of '
            f'{image.location}, and no digest tells them apart.',
            hint=(
                'Their repositories have the same name; tell an admin, or '
                'use only one of them.'
            ),
        )


def _marks(image: Image, base: Optional[str]) -> Iterator[Mark]:
    """Yield what tells an image: itself, and its bytes; with its base."""
    yield image.key, base
    if image.digest:
        yield image.digest, base


def _differs(some: Iterable[Digest], others: Iterable[Digest]) -> bool:
    known = {digest.algorithm: digest.value for digest in others}
    return any(
        known.get(digest.algorithm, digest.value) != digest.value
        for digest in some
    )
