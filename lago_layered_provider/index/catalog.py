"""Find images and their bases in the indexes of an environment.

Some of its indexes may not have been read yet. When the answer can be in one
of them the question ends with `IndexNeeded`, and is asked again once that
index is here: so nothing is read that nobody needs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import (
    Callable,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from ..core import errors
from ..core.model import (
    Base, BaseDigest, BaseFile, BaseName, Image, ImageRef, Unknown,
)
from ..core.wanted import Wanted
from . import missing
from .document import Index


@dataclass(frozen=True)
class Unread:
    """A repository whose index was not read; `name` where it is known."""

    location: str
    name: Optional[str] = None


class IndexNeeded(Exception):
    """What is sought may be in an index that was not read: no error.

    `question` asks a catalog once more; None where it is about all indexes.
    """

    def __init__(self, place: Unread, sought: str) -> None:
        super().__init__(f'{sought} may be in {place.location}')
        self.place = place
        self.sought = sought
        self.question: Optional[Callable[[Catalog], object]] = None


Place = Union[Index, Unread]
T = TypeVar('T')


class Catalog:
    """The repositories of an environment, in order of search.

    `known` holds images with what was looked up beyond the index. Every
    question may end with `IndexNeeded`.
    """

    def __init__(
        self,
        places: Sequence[Place],
        known: Optional[Mapping[Tuple[str, ImageRef], Image]] = None,
    ) -> None:
        self._places = tuple(places)
        self._known = dict(known or {})

    @property
    def indexes(self) -> Tuple[Index, ...]:
        """The indexes that were read."""
        return tuple(
            each for each in self._places if isinstance(each, Index)
        )

    @property
    def unread(self) -> Tuple[Unread, ...]:
        """The repositories whose index was not read."""
        return tuple(
            each for each in self._places if isinstance(each, Unread)
        )

    def with_known(self, images: Iterable[Image]) -> Catalog:
        """Return a catalog that knows more of these images."""
        known = {**self._known, **{image.key: image for image in images}}
        return Catalog(self._places, known)

    def with_index(self, place: Unread, index: Index) -> Catalog:
        """Return a catalog where a place was read."""
        places = [index if each == place else each for each in self._places]
        return Catalog(places, self._known)

    def only_read(self) -> Catalog:
        """Return a catalog of the indexes that were read."""
        return Catalog(self.indexes, self._known)

    def index_of(self, image: Image) -> Index:
        """Return the index that lists an image."""
        return next(
            each for each in self.indexes if each.location == image.location
        )

    def read_all(self) -> Tuple[Index, ...]:
        """Return all indexes."""
        return tuple(self._search(None, 'A list of all templates'))

    def first(self) -> Index:
        """Return the index that is searched first."""
        return next(self._search(None, 'The first repository'))

    def find(self, wanted: Wanted) -> Image:
        """Return the image that is wanted.

        The first repository that has the template gives the newest version;
        an exact version is looked for in all of them.

        Raises:
            TemplateNotFound: none has it; the nearest names are given.
            IndexFaults: its entry is faulty.
        """
        return self._answer(lambda catalog: catalog._find(wanted))

    def _answer(self, question: Callable[[Catalog], T]) -> T:
        try:
            return question(self)
        except IndexNeeded as needed:
            needed.question = question
            raise

    def _find(self, wanted: Wanted) -> Image:
        others: List[Image] = []
        with_template: List[Index] = []
        for each in self._search(wanted.repository, f'Template {wanted}'):
            versions = each.versions(wanted.template)
            if versions:
                with_template.append(each)
            if wanted.version in versions or (
                versions and wanted.version is None
            ):
                image = self._pick(each, wanted)
                if wanted.is_met_by(image):
                    return image
                others.append(image)
        raise missing.wanted_error(wanted, self.indexes, with_template, others)

    def base_of(self, image: Image) -> Union[Image, None, Unknown]:
        """Return the image that another one stands on.

        It is looked for in the image's own repository first.

        Raises:
            BaseNotFound, AmbiguousBase: nothing or too much fits.
            ChainCycle: only the image itself fits.
        """
        return self._answer(lambda catalog: catalog._base_of(image))

    def _base_of(self, image: Image) -> Union[Image, None, Unknown]:
        base = image.base
        if base is None or isinstance(base, Unknown):
            return base
        if isinstance(base, BaseName):
            return self._base_by_name(image, base)
        if isinstance(base, BaseDigest):
            return self._base_by_digest(image, base)
        return self._base_by_entry(image, base)

    def _base_by_digest(self, image: Image, base: BaseDigest) -> Image:
        try:
            return self._base_by_entry(image, base)
        except errors.BaseNotFound:
            # An index of Lago's own form has no digests: then the name says
            # where to look, and the transfer whether it was right.
            template, _, version = base.name.partition(':')
            named = self._base_by_name(
                image, BaseName(template, version or None), base
            )
            if not Wanted(template, digest=base.digest).is_met_by(named):
                raise
            if base.digest in named.digests:
                return named
            return replace(named, digests=(*named.digests, base.digest))

    def _base_by_entry(
        self, image: Image, base: Union[BaseFile, BaseDigest]
    ) -> Image:
        for each in self._search_from(image, None, base):
            found = self._matches(each, base)
            if found:
                return _not_newer(image, base, found)
        raise missing.base_error(image, base, self.indexes)

    def _matches(
        self, found: Index, base: Union[BaseFile, BaseDigest]
    ) -> List[Image]:
        images, faults = [], []
        for template, version in found.named(base):
            try:
                images.append(self._get(found, template, version))
            except errors.IndexFaults as error:
                faults.append(error)
        if faults and not images:
            raise faults[0]
        return images

    def _base_by_name(
        self, image: Image, base: BaseName, given: Optional[Base] = None
    ) -> Image:
        """Find a base by name; `given` is what the index really says."""
        itself = False
        for each in self._search_from(image, base.repository, base):
            if base.version is None:
                found = self._newest_not_newer(each, image, base)
                if found:
                    return found
                itself = itself or (
                    each.location == image.location
                    and base.template == image.ref.template
                )
            elif each.has(base.template, base.version):
                return self._get(each, base.template, base.version)
        if base.version is None and given is None and not itself:
            with contextlib.suppress(errors.BaseNotFound):
                # lago-images names the file, which need not be the template.
                return self._base_by_entry(image, BaseFile(base.template))
        if itself:
            raise errors.ChainCycle([image.ref.short, image.ref.short])
        raise missing.base_error(image, given or base, self.indexes)

    def _newest_not_newer(
        self, found: Index, image: Image, base: BaseName
    ) -> Optional[Image]:
        def others(not_after: Optional[float]) -> Iterator[Image]:
            for one in found.newest_first(base.template, not_after):
                if one.key != image.key:
                    yield self._known.get(one.key, one)

        older = next(others(image.timestamp), None)
        if older:
            return older
        newer = list(others(None))
        return _not_newer(image, base, newer) if newer else None

    def _pick(self, found: Index, wanted: Wanted) -> Image:
        if wanted.version is not None:
            return self._get(found, wanted.template, wanted.version)
        for image in found.newest_first(wanted.template):
            return self._known.get(image.key, image)
        # All are faulty: say what is wrong with one.
        last = found.versions(wanted.template)[-1]
        return found.image(wanted.template, last)

    def _get(self, found: Index, template: str, version: str) -> Image:
        image = found.image(template, version)
        return self._known.get(image.key, image)

    def _candidates(self, repository: Optional[str]) -> Tuple[Place, ...]:
        """Return the places that may be the repository, in order."""
        if repository is None:
            return self._places
        named = tuple(
            each for each in self._places
            if repository in (each.location, each.name)
        )
        return named or tuple(
            each for each in self._places if each.name is None
        )

    def _search(
        self, repository: Optional[str], sought: str
    ) -> Iterator[Index]:
        return _read(self._candidates(repository), sought)

    def _search_from(
        self, image: Image, repository: Optional[str], base: Base
    ) -> Iterator[Index]:
        """As `_search`, the image's own repository before the others."""
        places = sorted(
            self._candidates(repository),
            key=lambda each: each.location != image.location,
        )
        return _read(places, f'{base}, the base of {image.ref.short},')


def _read(places: Iterable[Place], sought: str) -> Iterator[Index]:
    for each in places:
        if isinstance(each, Unread):
            raise IndexNeeded(each, sought)
        yield each


def _not_newer(image: Image, base: Base, found: Sequence[Image]) -> Image:
    """Choose the newest image that is not newer than what stands on it.

    A single one is taken whatever its age: the time of a file changes when
    it is copied.
    """
    older = [one for one in found if one.timestamp <= image.timestamp]
    if older:
        return max(older, key=lambda one: one.age)
    if len(found) == 1:
        return found[0]
    raise errors.AmbiguousBase(
        f'{image.ref.short} stands on {base}; it could be any of '
        + ', '.join(sorted(one.ref.short for one in found))
        + ', all of them newer than the image itself.',
        hint='The index should name the version: "base": "NAME:VERSION".',
    )
