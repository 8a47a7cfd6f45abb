"""The sources of a repository while it is judged, and their mirrors."""

from __future__ import annotations

from typing import (
    Dict, Iterable, Iterator, List, Optional, Sequence, Tuple,
)

from ..core import errors
from ..core.model import Image, show
from ..index import source_places
from ..index.document import Index, SourceSpec, is_remote
from ..providers import open_places
from ..settings import Settings
from ..transfer.ports import Provider
from .findings import Finding
from .inspect import Inspector, Place
from .seen import MirrorFile, Seen

#: Of one source; a single file that is gone is no source that is gone.
FEWEST_IMAGES = 2

#: Beside it nothing is a directory of this machine.
ANY_URL = 'https://localhost/'


class Source:
    """One source; asks no further when nobody answers."""

    def __init__(
        self, name: str, provider: Provider, inspector: Inspector
    ) -> None:
        self.name = name
        self.provider = provider
        self._inspector = inspector
        self._dead = ''

    def inspect(self, image: Image) -> Seen:
        """Return what there is to see of an image; used by threads."""
        if self._dead:
            return Seen(image, trouble=self._dead)
        try:
            return self._inspector.inspect(image)
        except errors.TransferError as error:
            if error.status is None and is_remote(error.url):
                self._dead = error.message
            return Seen(image, trouble=error.message)

    def judge(self, seen: Sequence[Seen]) -> Optional[Finding]:
        """Say whether none of its images can be had."""
        count = len(seen)
        if count and all(one.trouble for one in seen):
            return Finding(
                'source-unreachable',
                f'source {self.name}, with {_images(count)}: '
                f'{self._dead or seen[0].trouble}',
            )
        if count >= FEWEST_IMAGES and all(one.missing for one in seen):
            return Finding(
                'source-unreachable',
                f'source {self.name}: none of its {count} images is there, '
                f'such as {seen[0].url}',
            )
        return None


def _images(count: int) -> str:
    return f'{count} image{"s" * (count != 1)}'


def open_sources(
    index: Index, settings: Settings, findings: List[Finding]
) -> Dict[str, Source]:
    """Return the sources that can be asked; say what is wrong with others."""
    found: Dict[str, Source] = {}
    for name in index.sources:
        try:
            spec = index.source(name)
        except errors.IndexFaults:
            continue  # that was said already
        try:
            specs, faults = source_places.find_places(spec, index.location)
            opened, left_out = open_places(
                [(each.type, each.args) for each in specs],
                timeout=settings.timeout,
                roots=index.roots(settings.local_roots),
            )
        except errors.LayeredError as error:
            findings.append(Finding(
                'source-faulty', f'source {show(name)}: {error.message}'
            ))
            continue
        findings += [
            Finding('source-faulty', f'source {show(name)}: {fault}')
            for fault in (*faults, *left_out)
        ]
        findings += [
            Finding(code, f'source {show(name)}: {said}')
            for code, said in _judge_local(index, spec, opened)
        ]
        provider, *mirrors = opened
        found[name] = Source(name, provider, Inspector(
            Place(provider, provider.locate('')),
            [Place(each, each.locate('')) for each in mirrors],
            settings.retries,
        ))
    return found


def _judge_local(
    index: Index, spec: SourceSpec, opened: Sequence[Provider]
) -> Iterator[Tuple[str, str]]:
    """Say which of its places are directories that clients must have."""
    if is_remote(index.location):
        for provider in opened:
            if not getattr(provider, 'remote', False):
                yield 'source-local', (
                    f'{provider.locate("")} can be used only by clients that '
                    f'have it, and allow it with local_roots in lago.conf'
                )
        return
    for place in source_places.find_places(spec, ANY_URL)[0]:
        if place.type == 'file':
            yield 'source-here', (
                f'{place.args.get("root")} is refused by clients that read '
                f'this index over the network'
            )


def judge_mirrors(seen: Iterable[Seen]) -> Iterator[Finding]:
    """Compare the files at mirrors with those of their sources."""
    found: Dict[str, List[Seen]] = {}
    for one in seen:
        for file in one.mirrors:
            found.setdefault(file.place, []).append(one)
    for place, images in found.items():
        files = [_file_at(place, one) for one in images]
        faults = [file.fault for file in files if file.fault]
        if len(faults) == len(files):
            yield Finding(
                'mirror-unreachable', f'mirror {place}: {faults[0]}'
            )
            continue
        for one, file in zip(images, files):
            yield from _judge_file(one, file)


def _judge_file(one: Seen, file: MirrorFile) -> Iterator[Finding]:
    name = one.image.ref.short
    if file.fault:
        yield Finding('mirror-incomplete', file.fault, name)
    elif file.size is None:
        yield Finding(
            'mirror-incomplete', f'mirror {file.place} does not have '
            f'{one.image.file}', name,
        )
    elif one.total is not None and file.size != one.total:
        yield Finding(
            'mirror-differs', f'mirror {file.place} has {one.image.file} '
            f'with {file.size} bytes, the source with {one.total}', name,
        )


def _file_at(place: str, one: Seen) -> MirrorFile:
    return next(file for file in one.mirrors if file.place == place)
