"""Find what is wrong with the bases that an index names.

A base is told as `catalog.Catalog` tells it for a client that has only this
repository, but with tables made beforehand: 100,000 versions are judged in
seconds. A test compares the two.
"""

from __future__ import annotations

import bisect
import collections
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..core.model import (
    Age, Base, BaseDigest, BaseFile, BaseName, Image, Unknown,
)
from ..core.wanted import Wanted
from ..index import entry
from ..index.document import Index
from ..index.resolve import MAX_CHAIN_DEPTH
from .findings import Finding, Name

#: Names in a message.
SHOWN_NAMES = 4
SHOWN_PATH = 40

#: In an `Age`: behind all versions.
LAST = (('\U0010ffff', 0, ''),)


class NoBase(Exception):
    """There is no base to be had: no error, but a finding."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Bases:
    """Tells bases inside one repository.

    Args:
        images: those whose entries are not faulty, as far as they are known.
    """

    def __init__(self, index: Index, images: Mapping[Name, Image]) -> None:
        self._index = index
        self._images = images
        self._files: Dict[str, List[Name]] = collections.defaultdict(list)
        self._digests: Dict[str, List[Name]] = collections.defaultdict(list)
        self._ages: Dict[str, List[Age]] = (
            collections.defaultdict(list)
        )
        for template, version, raw in index.entries():
            handle = raw.get('handle')
            if isinstance(handle, str):
                file = entry.strip_suffix(handle.rsplit('/', 1)[-1])
                self._files[file].append((template, version))
            if 'sha512' in raw:
                digest = str(raw['sha512']).strip().lower()
                self._digests[digest].append((template, version))
        for (template, _), image in images.items():
            self._ages[template].append(image.age)
        for ages in self._ages.values():
            ages.sort()

    def base_of(self, image: Image) -> Optional[Image]:
        """Return what an image stands on; None where there is no base.

        Raises:
            NoBase: it cannot be told, or is not in this repository.
        """
        base = image.base
        if base is None or isinstance(base, Unknown):
            return None
        if isinstance(base, BaseName):
            if base.repository not in (
                None, self._index.name, self._index.location
            ):
                raise NoBase(
                    'base-elsewhere',
                    f'stands on {base}, of another repository: whoever uses '
                    f'it must name that one as well',
                )
            return self._by_name(image, base)
        if isinstance(base, BaseDigest):
            return self._by_digest(image, base)
        return self._pick(image, base, self._files.get(base.name, []))

    def _by_digest(self, image: Image, base: BaseDigest) -> Image:
        names = self._digests.get(base.digest.value, [])
        if names:
            return self._pick(image, base, names)
        # An index of Lago's own form has no digests; see `Catalog`.
        template, _, version = base.name.partition(':')
        found = self._by_name(
            image, BaseName(template, version or None), base
        )
        if Wanted(template, digest=base.digest).is_met_by(found):
            return found
        raise _missing(base)

    def _by_name(
        self, image: Image, base: BaseName, given: Optional[Base] = None
    ) -> Image:
        if base.version is not None:
            if self._index.has(base.template, base.version):
                return self._get((base.template, base.version))
            raise _missing(given or base)
        found = self._newest_not_newer(image, base)
        if found is not None:
            return found
        itself = base.template == image.ref.template
        if given is None and not itself and base.template in self._files:
            return self._pick(
                image, BaseFile(base.template), self._files[base.template]
            )
        if itself:
            raise _itself()
        raise _missing(given or base)

    def _newest_not_newer(
        self, image: Image, base: BaseName
    ) -> Optional[Image]:
        template = base.template
        ages = self._ages.get(template, [])
        own = image.ref.version if template == image.ref.template else None
        at = bisect.bisect_right(ages, (image.timestamp, LAST, ''))
        for _, _, version in reversed(ages[max(at - 2, 0):at]):
            if version != own:
                return self._images[template, version]
        newer = [
            version for _, _, version in ages[at:at + SHOWN_NAMES + 1]
            if version != own
        ]
        if len(newer) > 1:
            raise _ambiguous(base, [
                f'{template}:{version}' for version in newer
            ])
        return self._images[template, newer[0]] if newer else None

    def _pick(
        self, image: Image, base: Base, names: Sequence[Name]
    ) -> Image:
        """Choose among the images that a file name or digest fits."""
        if not names:
            raise _missing(base)
        found = [
            self._images[name] for name in names if name in self._images
        ]
        if not found:
            return self._get(names[0])
        older = [one for one in found if one.timestamp <= image.timestamp]
        if older:
            return max(older, key=lambda one: one.age)
        if len(found) == 1:
            return found[0]
        raise _ambiguous(base, sorted(one.ref.short for one in found))

    def _get(self, name: Name) -> Image:
        if name in self._images:
            return self._images[name]
        raise NoBase(
            'base-faulty', f'the entry of its base, {":".join(name)}, is '
            f'faulty',
        )


def _missing(base: Base) -> NoBase:
    return NoBase(
        'base-missing', f'stands on {base}, which is not in the index',
    )


def _itself() -> NoBase:
    return NoBase('base-itself', 'only it itself can be the base it names')


def _ambiguous(base: Base, names: Sequence[str]) -> NoBase:
    more = ' and more' if len(names) > SHOWN_NAMES else ''
    return NoBase(
        'base-ambiguous',
        f'stands on {base}: that could be any of '
        f'{", ".join(names[:SHOWN_NAMES])}{more}, and all are newer than the '
        f'image itself',
    )


def judge_bases(
    index: Index, images: Mapping[Name, Image]
) -> Tuple[Dict[Name, Image], List[Finding]]:
    """Tell the base of each image, and all that is wrong with bases.

    Returns:
        the bases, of those that have one in this repository, and findings.
    """
    bases = Bases(index, images)
    found: Dict[Name, Image] = {}
    findings: List[Finding] = []
    for name, image in images.items():
        try:
            base = bases.base_of(image)
            if base is not None and base.key == image.key:
                raise _itself()
        except NoBase as reason:
            findings.append(Finding(
                reason.code, reason.message, image.ref.short
            ))
            continue
        if base is not None:
            found[name] = base
            findings += _judge_ages(image, base)
    below = {
        name: (base.ref.template, base.ref.version)
        for name, base in found.items()
    }
    return found, findings + list(_judge_chains(below))


def _judge_ages(image: Image, base: Image) -> Iterator[Finding]:
    name = image.ref.short
    if base.timestamp > image.timestamp:
        yield Finding(
            'base-younger',
            f'its base {base.ref.short} has a later timestamp: was it '
            f'published again?', name,
        )
    if isinstance(image.base, BaseName) and image.base.version is None:
        yield Finding(
            'base-floats',
            f'names no version of its base {image.base}; now that is '
            f'{base.ref.short}, and a new version in between would change '
            f'it', name,
        )


def _judge_chains(below: Mapping[Name, Name]) -> Iterator[Finding]:
    """Find circles, each once, and where chains become too long."""
    depths: Dict[Name, int] = {}  # 0: on a circle, or above one
    for name in below:
        path: Dict[Name, None] = {}
        while name in below and name not in depths and name not in path:
            path[name] = None
            name = below[name]
        if name in path:
            walked = list(path)
            yield _cycle(walked[walked.index(name):])
            depths.update(dict.fromkeys(path, 0))
            continue
        depth = depths.setdefault(name, 1)
        for above in reversed(list(path)):
            depth = depth + 1 if depth else 0
            depths[above] = depth
    for name, depth in depths.items():
        # What stands on it is too deep as well, which need not be said.
        if depth == MAX_CHAIN_DEPTH + 1:
            yield Finding(
                'base-too-deep',
                f'stands on {MAX_CHAIN_DEPTH} images, one more than a client '
                f'accepts; flatten one of them', ':'.join(name),
            )


def _cycle(circle: List[Name]) -> Finding:
    first = circle.index(min(circle))
    circle = circle[first:] + circle[:first]
    names = [':'.join(name) for name in [*circle, circle[0]]]
    if len(names) > SHOWN_PATH:
        names[SHOWN_PATH // 2:-SHOWN_PATH // 2] = [
            f'({len(names) - SHOWN_PATH} more)'
        ]
    path = ' -> '.join(names)
    return Finding(
        'base-cycle', f'the bases go round in a circle: {path}',
        ':'.join(circle[0]),
    )
