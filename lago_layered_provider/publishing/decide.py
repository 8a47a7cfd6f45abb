"""Decide as what the images of a directory are published.

A published version never changes: an image that has changed becomes a new
version, and layers that were made before stay on the old one. All that is in
the way is found at once, and nothing is read or written here.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ..core.model import Image, check_name
from .library import BaseFinder, Library, declared_base
from .original import Original

BASE_HINT = 'copy it there, or say --base IMAGE=NAME:VERSION'


@dataclass(frozen=True)
class Wishes:
    """What an admin has said.

    Attributes:
        bases: path, file name or template of an image -> its base.
    """

    version: Optional[str] = None
    bases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """What an original is to be published as.

    Attributes:
        base: `TEMPLATE:VERSION` of this repository, None for none.
        timestamp: in seconds since 1970, not before that of the base.
    """

    original: Original
    template: str
    version: str
    base: Optional[str] = None
    base_format: Optional[str] = None
    timestamp: float = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The name inside its repository."""
        return f'{self.template}:{self.version}'


def decide(
    originals: Sequence[Original], library: Library, wishes: Wishes
) -> List[Draft]:
    """Return what changed originals become, a base before its layers.

    Raises:
        ValueError: with all that is in the way, as its arguments.
    """
    decision = _Decision(originals, library, wishes)
    drafts = list(decision.drafts())
    if decision.faults:
        raise ValueError(*decision.faults)
    return drafts


class _Decision:
    def __init__(
        self, originals: Sequence[Original], library: Library, wishes: Wishes
    ) -> None:
        self.faults: List[str] = []
        self._originals = {each.path: each for each in originals}
        self._library = library
        self._wishes = wishes
        #: `TEMPLATE:VERSION` of every original, also of unchanged ones.
        self._shorts: Dict[str, str] = dict(library.places)
        self._names: Dict[str, str] = {}
        for each in originals:
            self._shorts.pop(each.path, None)
        for each in originals:
            self._name(each)
        for key in wishes.bases:
            if not any(map(lambda one: self._is(key, one), originals)):
                self.faults.append(
                    f'--base {key}=...: no new image is called {key}'
                )

    def _name(self, original: Original) -> None:
        template, version = original.suggest_name()
        version = self._wishes.version or version
        if version is None:
            version = self._next_version(template, original.date)
        short = f'{template}:{version}'
        try:
            check_name(template, 'template')
            check_name(version, 'version')
        except ValueError as error:
            self.faults.append(f'{original.path}: {error}; rename the file')
            return
        if short in self._names:
            self.faults.append(
                f'{original.path} and {self._names[short]} would both be '
                f'{short}; rename one, or move it away'
            )
            return
        known = self._library.images.get(short)
        if known is not None and not _describes(original, known):
            self.faults.append(
                f'{original.path}: {short} is published with another content, '
                f'and what is published stays; give it a new --version'
            )
            return
        self._names[short] = original.path
        self._shorts[original.path] = short

    def _next_version(self, template: str, date: str) -> str:
        """Return a version that is free: several may come on one day."""
        version, number = date, 1
        while (
            f'{template}:{version}' in self._library.images
            or f'{template}:{version}' in self._names
        ):
            number += 1
            version = f'{date}.{number}'
        return version

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts, a base before its layers."""
        bases: Dict[str, Optional[str]] = {}
        for path, original in self._originals.items():
            if path in self._shorts:
                bases[path] = self._base(original)
        done: Dict[str, Draft] = {}
        for path in bases:
            yield from self._descend(path, bases, done, [])

    def _descend(
        self,
        path: str,
        bases: Mapping[str, Optional[str]],
        done: Dict[str, Draft],
        above: List[str],
    ) -> Iterator[Draft]:
        short = self._shorts[path]
        if short in done:
            return
        if path in above:
            if not any('circle' in fault for fault in self.faults):
                circle = above[above.index(path):] + [path]
                self.faults.append(
                    'the backing files go round in a circle: '
                    + ' -> '.join(circle)
                )
            return
        base = bases[path]
        below = self._names.get(base or '')
        if below is not None and below in bases:
            yield from self._descend(below, bases, done, [*above, path])
        done[short] = self._draft(path, base, done)
        yield done[short]

    def _draft(
        self, path: str, base: Optional[str], done: Mapping[str, Draft]
    ) -> Draft:
        original = self._originals[path]
        template, version = self._shorts[path].split(':')
        time, fmt, inherited = 0.0, None, None
        if base is not None and base in done:
            time, inherited = done[base].timestamp, done[base].metadata
            fmt = done[base].original.format
        elif base is not None and base in self._library.images:
            image = self._library.images[base]
            time, inherited = image.timestamp, image.metadata
            fmt = image.format
        if None not in (fmt, original.backing_format) and (
            fmt != original.backing_format
        ):
            self.faults.append(
                f'{path}: its header says that its base is '
                f'{original.backing_format}, and {base} is {fmt}: a guest '
                f'would see other bytes'
            )
        before = self._library.newest(template)
        if before is not None and before.metadata is not None:
            inherited = before.metadata
        return Draft(
            original, template, version, base,
            fmt or original.backing_format,
            # Copying has given files new times; a base is never the younger.
            max(int(original.time), time),
            original.describe() or dict(inherited or {}),
        )

    def _base(self, original: Original) -> Optional[str]:
        """Return `TEMPLATE:VERSION` of what an original stands on."""
        wished = next((
            base for key, base in self._wishes.bases.items()
            if self._is(key, original)
        ), None)
        if original.backing is None:
            if wished is not None:
                self.faults.append(
                    f'{original.path}: its header names no backing file, so '
                    f'it stands on nothing; make a layer of it: add-layer'
                )
            return None
        names = [original.backing, declared_base(original)]
        finder = BaseFinder(self._shorts, self._names, self._library)
        try:
            for name in names if wished is None else [wished]:
                found = finder.find(name, original) if name else None
                if found is not None:
                    return self._check_age(original, found)
        except ValueError as error:
            self.faults.append(f'{original.path}: {error}')
            return None
        if wished is None:
            self.faults.append(
                f'{original.path} stands on {original.backing!r}, which is '
                f'neither here nor published; {BASE_HINT}'
            )
        else:
            self.faults.append(
                f'--base {original.path}={wished}: {wished} is neither here '
                f'nor published'
            )
        return None

    def _check_age(self, original: Original, base: str) -> str:
        """Refuse a base that was changed under a layer.

        Raises:
            ValueError: the layer is older than what its base has become.
        """
        below = self._originals.get(self._names.get(base, ''))
        if (
            below is not None and below.path in self._library.places
            and original.time < below.time
        ):
            old = self._library.places[below.path]
            raise ValueError(
                f'{below.path}, which it stands on, has changed since it was '
                f'made; make it anew, or, if it stands on what was published '
                f'before, say --base {original.path}={old}'
            )
        return base

    def _is(self, key: str, original: Original) -> bool:
        """Tell whether an admin means an original by what he calls it."""
        short = self._shorts.get(original.path, ':')
        return key in (
            original.path, posixpath.basename(original.path), short,
            short.split(':')[0],
        )


def _describes(original: Original, image: Image) -> bool:
    """Tell whether an index of another tool speaks of this very file."""
    return original.entry is not None and original.entry.key == image.key
