"""From indexes and wanted templates to chains.

Where an index says nothing of an image's base, no chain can be told yet:
`resolve` then names the images to look up, and is asked again with what was
found. So the decisions stay here, and the requests elsewhere.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import (
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from . import errors
from .entry import strip_suffix
from .index import Index
from .model import (
    UNKNOWN,
    Base,
    BaseDigest,
    BaseFile,
    BaseName,
    Chain,
    Image,
    ImageRef,
    Unknown,
)

MAX_CHAIN_DEPTH = 32


@dataclass(frozen=True)
class Wanted:
    """A template that somebody asks for; None: any repository, the newest."""

    template: str
    version: Optional[str] = None
    repository: Optional[str] = None

    def __str__(self) -> str:
        return str(BaseName(self.template, self.version, self.repository))


@dataclass(frozen=True)
class Resolution:
    """The chains, as wanted; or the images that must be looked up first."""

    chains: Tuple[Chain, ...]
    unknown: Tuple[Image, ...]


class Catalog:
    """The indexes of an environment, in order of search.

    `known` holds images with what was looked up beyond the index.
    """

    def __init__(
        self,
        indexes: Sequence[Index],
        known: Optional[Mapping[ImageRef, Image]] = None,
    ) -> None:
        self.indexes = tuple(indexes)
        self._known = dict(known or {})

    def with_known(self, images: Iterable[Image]) -> Catalog:
        """Return a catalog that knows more of these images."""
        known = {**self._known, **{image.ref: image for image in images}}
        return Catalog(self.indexes, known)

    def index_of(self, image: Image) -> Index:
        """Return the index that lists an image."""
        return self._named(image.ref.repository)[0]

    def find(self, wanted: Wanted) -> Image:
        """Return the image that is wanted, from the first index that has it.

        Raises:
            TemplateNotFound: none has it; the nearest names are given.
            IndexFaults: its entry is faulty.
        """
        indexes = self._named(wanted.repository)
        for candidate in indexes:
            if candidate.versions(wanted.template):
                return self._pick(candidate, wanted)
        raise _not_found(
            f'Template {wanted.template!r}', indexes or self.indexes,
            wanted.template,
            [name for each in indexes for name in each.templates()],
        )

    def base_of(self, image: Image) -> Union[Image, None, Unknown]:
        """Return the image that another one stands on, by its index.

        Raises:
            BaseNotFound, AmbiguousBase: nothing or too much fits.
        """
        base = image.base
        if base is None or isinstance(base, Unknown):
            return base
        if isinstance(base, BaseName):
            return self._base_by_name(image, base)
        found = [
            self._get(each, template, version)
            for each in self._from(image)
            for template, version, entry in each.entries()
            if _fits(entry, base)
        ]
        if not found and isinstance(base, BaseDigest):
            return self._base_by_name(image, BaseName(base.name))
        return _not_newer(image, base, found)

    def _base_by_name(self, image: Image, base: BaseName) -> Image:
        indexes = (
            self._named(base.repository) if base.repository
            else self._from(image)
        )
        for each in indexes:
            if base.version is None:
                found = [
                    self._known.get(one.ref, one)
                    for one in each.images(base.template)
                    if one.ref != image.ref
                ]
                if found:
                    return _not_newer(image, base, found)
            elif base.version in each.versions(base.template):
                return self._get(each, base.template, base.version)
        raise errors.BaseNotFound(
            f'{image.ref.short} stands on {base}, which is not in '
            f'{_places(indexes or self.indexes)}.'
            + _nearest(
                base.template,
                [name for each in indexes for name in each.templates()],
            ),
            hint='The index is wrong; tell the admin of the repository.',
        )

    def _pick(self, found: Index, wanted: Wanted) -> Image:
        versions = found.versions(wanted.template)
        if wanted.version is None:
            images = list(found.images(wanted.template))
            if not images:  # all faulty: say what is wrong with one
                return found.image(wanted.template, versions[-1])
            newest = max(images, key=lambda image: image.timestamp)
            return self._known.get(newest.ref, newest)
        if wanted.version in versions:
            return self._get(found, wanted.template, wanted.version)
        raise _not_found(
            f'Version {wanted.version!r} of template {wanted.template!r}',
            [found], wanted.version, versions,
        )

    def _get(self, found: Index, template: str, version: str) -> Image:
        image = found.image(template, version)
        return self._known.get(image.ref, image)

    def _named(self, repository: Optional[str]) -> Tuple[Index, ...]:
        if repository is None:
            return self.indexes
        return tuple(
            each for each in self.indexes if each.name == repository
        )

    def _from(self, image: Image) -> List[Index]:
        own = image.ref.repository
        return sorted(self.indexes, key=lambda each: each.name != own)


def resolve(catalog: Catalog, wanted: Iterable[Wanted]) -> Resolution:
    """Tell the chain of each wanted template.

    Returns:
        as many chains as were wanted, in the same order; or none, and the
        images whose base has to be looked up before they can be told.

    Raises:
        ResolveError: a template or a base is missing, or the bases go round
            in a circle.
        IndexFaults: an entry that is needed is faulty.
    """
    unknown: Dict[ImageRef, Image] = {}
    chains = []
    for each in wanted:
        images = _descend(catalog, catalog.find(each))
        if images[0].base is UNKNOWN:
            unknown[images[0].ref] = images[0]
        chains.append(Chain(tuple(images)))
    if unknown:
        return Resolution(chains=(), unknown=tuple(unknown.values()))
    return Resolution(chains=tuple(chains), unknown=())


def _descend(catalog: Catalog, top: Image) -> List[Image]:
    images = [top]
    while True:
        base = catalog.base_of(images[0])
        if base is None or isinstance(base, Unknown):
            return images
        path = [image.ref.short for image in reversed(images)]
        if any(image.ref == base.ref for image in images):
            raise errors.ChainCycle(path + [base.ref.short])
        images.insert(0, base)
        if len(images) > MAX_CHAIN_DEPTH:
            raise errors.ChainTooDeep(
                f'{top.ref.short} stands on more than '
                f'{MAX_CHAIN_DEPTH - 1} images: {" -> ".join(path[:5])} ...',
                hint='The index is wrong, or the chain must be flattened.',
            )


def _not_newer(image: Image, base: Base, found: Sequence[Image]) -> Image:
    """Choose the newest image that is not newer than what stands on it."""
    older = [one for one in found if one.timestamp <= image.timestamp]
    if older:
        return max(older, key=lambda one: one.timestamp)
    if len(found) == 1:
        return found[0]
    if not found:
        raise errors.BaseNotFound(
            f'{image.ref.short} stands on {base}, which no repository lists.',
            hint='The index is wrong; tell the admin of the repository.',
        )
    raise errors.AmbiguousBase(
        f'{image.ref.short} stands on {base}; it could be any of '
        + ', '.join(sorted(one.ref.short for one in found))
        + ', all of them newer than the image itself.',
        hint='The index should name the version: "base": "NAME:VERSION".',
    )


def _fits(
    entry: Mapping[str, object], base: Union[BaseFile, BaseDigest]
) -> bool:
    if isinstance(base, BaseDigest):
        return entry.get(base.digest.algorithm) == base.digest.value
    handle = str(entry.get('handle')).rsplit('/', 1)[-1]
    return strip_suffix(handle) == base.name


def _places(indexes: Sequence[Index]) -> str:
    return ', '.join(
        f'repository {each.name} ({each.location})' for each in indexes
    ) or 'any repository'


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f' Nearest: {", ".join(near)}.' if near else ''


def _not_found(
    what: str, indexes: Sequence[Index], name: str, known: Sequence[str]
) -> errors.TemplateNotFound:
    return errors.TemplateNotFound(
        f'{what} is not in {_places(indexes)}.{_nearest(name, known)}',
        hint='See what there is with: lago template-repo list',
    )
