"""The use case of `mirror`: a copy of a repository, or of a part of it.

Files are copied as they are, so that nothing has to be compressed anew; each
is proven before the index of the copy names it. What is in the copy already
stays, whatever its origin has become meanwhile.

A copy of all of a repository whose images lie beside its index keeps that
index as it is, and with it the signature.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..core import errors
from ..core.model import BaseName, Image
from ..core.sizes import size_text
from ..core.wanted import Wanted
from ..index import resolve
from ..index.document import Index
from ..index.source_places import hide_secrets
from ..lint.verbatim import Verbatim, read_signature, read_verbatim
from ..repositories.sources import Sources
from ..repositories.where import ByPath
from ..settings import Settings
from ..tools import threads
from ..tools.files import measure
from ..tools.tree import remove_file
from ..transfer.fetch import can_differ
from ..transfer.ports import Progress
from . import copy_names, indexing
from .copying import fetch_file, prove
from .indexing import Before
from .layout import Place
from .options import Options
from .scratch import disk_errors

#: What a fetch leaves behind for the next run; `create` lets it be.
FETCHING = '.fetching'

Pair = Tuple[Image, Optional[Image]]


@dataclass(frozen=True)
class Copy:
    """What was done; `fetched` in bytes."""

    index: str
    new: Tuple[Image, ...]
    present: int
    fetched: int


def mirror(
    location: str, directory: str, wanted: Sequence[Wanted],
    key: Optional[str], settings: Settings, *, progress: Progress,
    warn: Callable[[str], None],
) -> Copy:
    """Copy templates and what they stand on; all if none is wanted.

    Raises:
        LayeredError: what was fetched is kept for the next run; the index
            of the copy names only what is whole.
    """
    with disk_errors(directory):
        os.makedirs(directory, exist_ok=True)
    place = Place(directory)
    sources = Sources([ByPath(location)], settings, warn)
    chains = _resolve(sources, wanted, warn)
    with place.alone(
        settings.lock_timeout, lambda holder: warn(f'waiting for {holder}')
    ), disk_errors(place.root, 'What was fetched is kept; run it again.'):
        return _Mirror(
            place, sources, key, progress, warn, all_images=not wanted
        ).run(chains)


def _resolve(
    sources: Sources, wanted: Sequence[Wanted], warn: Callable[[str], None]
) -> List[Tuple[Image, ...]]:
    """Return the chains, base first."""
    if wanted:
        return _chains(sources, wanted)
    found = sources.first()
    chains = []
    for template, version, _ in list(found.entries()):
        try:
            chains += _chains(sources, [Wanted(template, version)])
        except (errors.ResolveError, errors.IndexFaults) as error:
            warn(f'{template}:{version} is left out: {error.message}')
    return chains


def _chains(
    sources: Sources, wanted: Sequence[Wanted]
) -> List[Tuple[Image, ...]]:
    while True:
        found = resolve.resolve(sources.catalog, wanted)
        if found.needed:
            sources.read(found.needed)
        elif found.unknown:
            sources.look_up(found.unknown)
        elif not sources.look_up(
            image for chain in found.chains for image in chain
        ):
            return [chain.images for chain in found.chains]


class _Mirror:
    """One run, under the lock of the directory."""

    def __init__(
        self, place: Place, sources: Sources, key: Optional[str],
        progress: Progress, warn: Callable[[str], None], *,
        all_images: bool,
    ) -> None:
        self._all_images = all_images
        self._place = place
        self._sources = sources
        self._key = key
        self._progress = progress
        self._warn = warn

    def run(self, chains: Sequence[Tuple[Image, ...]]) -> Copy:
        pairs: Dict[str, Pair] = {}
        for chain in chains:
            for base, image in zip([None, *chain], chain):
                pairs[image.ref.short] = image, base
        options = Options(name=self._sources.first().name, key=self._key)
        before = indexing.read_before(
            self._place, options, [], self._place.read_known()
        )
        handles, whole = self._prepare(pairs, options, before)
        todo = [
            pair for short, pair in pairs.items()
            if not copy_names.is_there(pair[0], before.images.get(short))
        ]
        self._check_room(todo, handles)
        # The largest first: nobody is left alone with it at the end.
        todo.sort(key=lambda pair: pair[0].compressed_size or 0, reverse=True)
        new = threads.run_all(
            lambda pair: self._copy(*pair, handles), todo,
            self._sources.settings.jobs,
        )
        images = [
            replace(
                image, source=before.name, handle=handles[image.ref.short],
                base=_base_name(pairs[image.ref.short][1]), location='',
            ) for image in new
        ]
        for image in images:
            self._place.write_sidecars(image)
        if self._all_images:
            # Of images that the origin has no more: nobody goes on with it.
            self._place.remove_begun(FETCHING)
        if whole is None:
            indexing.write_index(self._place, options, before, images)
        else:
            indexing.write_verbatim(self._place, *whole)
            indexing.remove_unlisted(self._place, before, images)
        return Copy(
            self._place.index, tuple(images), len(pairs) - len(images),
            sum(image.compressed_size or 0 for image in images),
        )

    def _prepare(
        self, pairs: Mapping[str, Pair], options: Options, before: Before
    ) -> Tuple[Dict[str, str], Optional[Verbatim]]:
        """Return the handles in the copy, and the index if that may stay.

        Raises:
            PublishError: with all that is in the way.
        """
        faults = list(before.faults)
        handles = copy_names.name_files(
            [image for image, _ in pairs.values()], before.images, faults
        )
        found, whole = self._sources.first(), None
        if self._key is None and copy_names.is_whole(
            found, handles, before.images
        ):
            whole = read_verbatim(found, self._sources.settings)
        if whole is None:
            self._tell_of_signature(found)
            faults += indexing.signature_faults(self._place, options)
        if faults:
            raise errors.PublishError(
                f'{self._place.root}: cannot be a mirror', faults
            )
        return handles, whole

    def _tell_of_signature(self, found: Index) -> None:
        """Say that the signature of the origin does not go with the copy."""
        if self._key is None and read_signature(
            found, self._sources.settings
        ) is not None:
            self._warn(
                f'the copy gets an index of its own, as that of '
                f'{hide_secrets(found.location)} does not fit it, and '
                f'without its signature; sign it with --sign KEY'
            )

    def _check_room(
        self, todo: Sequence[Pair], handles: Mapping[str, str]
    ) -> None:
        """Raise NotEnoughSpace before the first byte."""
        needed = sum(
            max(0, (image.compressed_size or 0) - max(
                _here(self._part(image, handles)),
                _here(self._target(image, handles)),
            )) for image, _ in todo
        )
        free = measure(self._place.root)[0]
        if needed > free:
            raise errors.NotEnoughSpace(
                f'{self._place.root}: {size_text(needed)} are to be fetched, '
                f'{size_text(free)} are free, {size_text(needed - free)} too '
                f'little', needed=needed, free=free, short=needed - free,
                hint='Make room there; nothing was fetched.',
            )

    def _copy(
        self, image: Image, base: Optional[Image],
        handles: Mapping[str, str],
    ) -> Image:
        """Bring one file here and prove it."""
        name = str(image.ref)
        path, part = self._target(image, handles), self._part(image, handles)
        if os.path.exists(path):  # of a run that was killed
            os.replace(path, part)
        begun = _here(part)
        self._progress.begin(name, image.compressed_size, begun)
        outcome = 'failed'
        try:
            found = self._fetch_and_prove(image, base, part, begun > 0)
            os.replace(part, path)
            outcome = 'fetched'
        finally:
            self._progress.end(name, outcome)
        if not image.digests:
            self._warn(
                f'{image.ref.short} has no digest at its source: nothing '
                f'proves that the copy is right'
            )
        return found

    def _fetch_and_prove(
        self, image: Image, base: Optional[Image], part: str, old: bool
    ) -> Image:
        """Fetch what is missing of a file, and all of it if that is wrong.

        Args:
            old: an earlier run has left some of it.
        """
        provider = self._sources.provider(image)
        while True:
            if not old or _here(part) != image.compressed_size:
                fetch_file(
                    image, provider, part, progress=self._progress,
                    patience=self._sources.settings.patience,
                )
            try:
                return prove(image, base, part, provider.locate(image.file))
            except (errors.VerifyError, errors.UnsafeImage) as error:
                remove_file(part)
                if not can_differ(provider, image.file, old):
                    raise
                self._progress.note(f'{error.message}; fetching it anew')
                old = False

    def _target(self, image: Image, handles: Mapping[str, str]) -> str:
        handle = handles[image.ref.short]
        return self._place.make_parent(replace(image, handle=handle).file)

    def _part(self, image: Image, handles: Mapping[str, str]) -> str:
        parent, name = os.path.split(self._target(image, handles))
        return os.path.join(parent, f'.{name}{FETCHING}')


def _base_name(base: Optional[Image]) -> Optional[BaseName]:
    if base is None:
        return None
    return BaseName(base.ref.template, base.ref.version)


def _here(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
