"""Find images and their bases in the indexes of an environment."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import (
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
    Base,
    BaseDigest,
    BaseFile,
    BaseName,
    Image,
    ImageRef,
    Unknown,
)


@dataclass(frozen=True)
class Wanted:
    """A template that somebody asks for; None: any repository, the newest."""

    template: str
    version: Optional[str] = None
    repository: Optional[str] = None

    def __str__(self) -> str:
        return str(BaseName(self.template, self.version, self.repository))


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
        if not indexes:
            raise _not_found(
                f'{wanted}: repository {wanted.repository!r}', self.indexes,
                str(wanted.repository), [each.name for each in self.indexes],
            )
        raise _not_found(
            f'Template {wanted.template!r}', indexes, wanted.template,
            [name for each in indexes for name in each.templates()],
        )

    def base_of(self, image: Image) -> Union[Image, None, Unknown]:
        """Return the image that another one stands on, by its index.

        Raises:
            BaseNotFound, AmbiguousBase: nothing or too much fits.
            ChainCycle: only the image itself fits.
        """
        base = image.base
        if base is None or isinstance(base, Unknown):
            return base
        if isinstance(base, BaseName):
            return self._base_by_name(image, base)
        for each in self._from(image):
            found = self._matches(each, base)
            if found:
                return _not_newer(image, base, found)
        if isinstance(base, BaseDigest):
            named = self._base_by_name(image, BaseName(base.name), base)
            if base.digest.value in {d.value for d in named.digests} or all(
                d.algorithm != base.digest.algorithm for d in named.digests
            ):
                return named
        raise _no_base(image, base, self._from(image))

    def _matches(
        self, found: Index, base: Union[BaseFile, BaseDigest]
    ) -> List[Image]:
        images, faults = [], []
        for template, version, entry in found.entries():
            if _fits(entry, base):
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
        indexes = (
            self._named(base.repository) if base.repository
            else self._from(image)
        )
        for each in indexes:
            if base.version is None:
                found = self._newest_not_newer(each, image, base)
                if found:
                    return found
            elif base.version in each.versions(base.template):
                return self._get(each, base.template, base.version)
        if base.template == image.ref.template and base.version is None:
            raise errors.ChainCycle([image.ref.short, image.ref.short])
        raise _no_base(image, given or base, indexes or self.indexes)

    def _newest_not_newer(
        self, found: Index, image: Image, base: BaseName
    ) -> Optional[Image]:
        newer = []
        for one in found.newest_first(base.template):
            if one.ref == image.ref:
                continue
            if one.timestamp <= image.timestamp:
                return self._known.get(one.ref, one)
            newer.append(self._known.get(one.ref, one))
        return _not_newer(image, base, newer) if newer else None

    def _pick(self, found: Index, wanted: Wanted) -> Image:
        versions = found.versions(wanted.template)
        if wanted.version is None:
            for image in found.newest_first(wanted.template):
                return self._known.get(image.ref, image)
            # All are faulty: say what is wrong with one.
            return found.image(wanted.template, versions[-1])
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


def _not_newer(image: Image, base: Base, found: Sequence[Image]) -> Image:
    """Choose the newest image that is not newer than what stands on it.

    A single one is taken whatever its age: the time of a file changes when
    it is copied.
    """
    older = [one for one in found if one.timestamp <= image.timestamp]
    if older:
        return max(older, key=lambda one: one.timestamp)
    if len(found) == 1:
        return found[0]
    raise errors.AmbiguousBase(
        f'{image.ref.short} stands on {base}; it could be any of '
        + ', '.join(sorted(one.ref.short for one in found))
        + ', all of them newer than the image itself.',
        hint='The index should name the version: "base": "NAME:VERSION".',
    )


def _no_base(
    image: Image, base: Base, indexes: Sequence[Index]
) -> errors.BaseNotFound:
    near = ''
    if isinstance(base, BaseName):
        versions = [
            version for each in indexes
            for version in each.versions(base.template)
        ]
        near = _nearest(base.version or '', versions) if versions else (
            _nearest(base.template, [
                name for each in indexes for name in each.templates()
            ])
        )
    return errors.BaseNotFound(
        f'{image.ref.short} stands on {base}, which is not in '
        f'{_places(indexes)}.{near}',
        hint='The index is wrong; tell the admin of the repository.',
    )


def _fits(
    entry: Mapping[str, object], base: Union[BaseFile, BaseDigest]
) -> bool:
    if isinstance(base, BaseDigest):
        digest = entry.get(base.digest.algorithm)
        return str(digest).strip().lower() == base.digest.value
    handle = entry.get('handle')
    return isinstance(handle, str) and (
        strip_suffix(handle.rsplit('/', 1)[-1]) == base.name
    )


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
