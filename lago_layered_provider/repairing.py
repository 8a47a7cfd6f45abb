"""The use case: bring back what is damaged in a store, and nothing else.

An image is fetched again only when its bytes are not what was published, and
only the very image that was there. What is kept beside an image whose bytes
are right is written anew, without fetching the image.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Sequence

from .core import errors, resolve
from .core.audit import Finding, Part, Verdict
from .core.model import Chain, Digest, Image
from .core.names import store_names
from .core.plan import Layer, Plan, State
from .core.record import Record
from .core.wanted import Wanted
from .provision import check_offline, fetch_missing
from .sources import Sources
from .store import Auditor, Replacing
from .transfer.ports import Progress

#: The end of the store name of an image that was published again.
AGAIN = re.compile(r'\+[0-9a-f]{8}$')


@dataclass(frozen=True)
class _Source:
    """Where an image can be had again; `base` is as its index has it."""

    image: Image
    base: Optional[Image]


class Repair:
    """The repair of the damaged images of one store.

    Args:
        verdicts: on all images that were looked at.
        report: told what cannot be repaired, and why.
    """

    def __init__(
        self,
        verdicts: Sequence[Verdict],
        store_root: str,
        sources: Sources,
        report: Callable[[str], None],
    ) -> None:
        self._findings = [verdict.finding for verdict in verdicts]
        self._store = Replacing(store_root, {
            finding.name: finding.seen for finding in self._findings
        })
        self._auditor = Auditor(store_root)
        self._sources = sources
        self._report = report

    def run(self, names: Sequence[str], progress: Progress) -> None:
        """Repair the images of these names, as far as that is possible."""
        layers: Dict[str, Layer] = {}
        for finding in self._findings:
            if finding.name in names:
                try:
                    layer = self._mend(finding, progress)
                    if layer:
                        self._store.check_unused(finding.name)
                        layers[layer.name] = layer
                except errors.LayeredError as error:
                    self._say(finding.name, error)
        if layers:
            try:
                self._fetch(layers, progress)
            except errors.LayeredError as error:
                for each in getattr(error, 'errors', (error,)):
                    self._say('', each)

    def _say(self, name: str, error: errors.LayeredError) -> None:
        start = '' if name in error.message else f'{name}: '
        self._report(f'{start}{error}')

    def _mend(
        self, finding: Finding, progress: Progress
    ) -> Optional[Layer]:
        """Mend what is beside an image; return it if it must be fetched."""
        parts = {fault.part for fault in finding.faults}
        record = finding.record
        if finding.proven and record and not parts & {
            Part.RECORD, Part.METADATA
        }:
            metadata = self._store.read_metadata(finding.name)
            self._write(finding, record, metadata, progress)
            return None
        found = self._find_source(finding)
        if not finding.proven or record is None or Part.RECORD in parts:
            record = self._prove(finding, found)
        if record is not None:
            self._write(
                finding, record, dict(found.image.metadata or {}), progress
            )
            return None
        return self._make_layer(finding, found)

    def _write(
        self,
        finding: Finding,
        record: Record,
        metadata: Dict[str, object],
        progress: Progress,
    ) -> None:
        self._store.mend(
            finding.name, record, metadata,
            self._sources.settings.lock_timeout,
            lambda holder: progress.wait(finding.name, holder),
        )

    def _prove(
        self, finding: Finding, found: _Source
    ) -> Optional[Record]:
        """Return a record of the image if its bytes are the published ones.
        """
        image, here = found.image, finding.record
        if here is None or not image.digests:
            return None
        if _agree(image.digests, here.digests) and all(
            fault.part is Part.IMAGE for fault in finding.faults
        ):
            return None  # that is what was read already
        provider = self._sources.provider(image)
        expected = replace(
            here,
            digests=image.digests,
            size=here.size if image.size is None else image.size,
            virtual_size=image.virtual_size or here.virtual_size,
            url=provider.locate(image.file),
            time=here.time or time.time(),
            published=image.timestamp,
        )
        again = self._auditor.examine(
            finding.name, lambda count: None, expected
        )
        return expected if again.proven and not again.faults else None

    def _make_layer(self, finding: Finding, found: _Source) -> Layer:
        image, record = found.image, finding.record
        known = record.digests if record else ()
        if not finding.gone and not _agree(image.digests, known):
            raise errors.StoreError(
                f'{finding.name} cannot be had any more: its repository has '
                f'another image of that name by now, or its digest is not '
                f'known.',
                hint='Remove it when nothing stands on it.',
            )
        base = finding.backing
        if found.base is not None and base is None:
            base = str(found.base.ref)
        if (base is None) != (found.base is None):
            raise errors.StoreError(
                f'{finding.name} cannot be had any more: it stands on '
                f'{base or "no base"}, and now on '
                f'{found.base.ref if found.base else "none"}.'
            )
        fetch = image.compressed_size
        return Layer(
            name=finding.name, base=base, state=State.MISSING, image=image,
            fetch=image.size if fetch is None else fetch,
            keep=image.size or image.max_size, base_image=found.base,
        )

    def _find_source(self, finding: Finding) -> _Source:
        """Return the published image that is or was in the store."""
        if not finding.gone:
            return self._resolve(finding)
        for above in self._findings:
            if above.backing == finding.name and above.record:
                base = self._resolve(above).base
                if base and finding.name in store_names(base):
                    return self._below(base)
        raise errors.StoreError(
            f'{finding.name} is gone, and nobody knows what it was.'
        )

    def _resolve(self, finding: Finding) -> _Source:
        repository, template, version = finding.name.split(':')
        digests = finding.record.digests if finding.record else ()
        for each in dict.fromkeys((version, AGAIN.sub('', version))):
            wanted = Wanted(
                template, each, repository, digests[0] if digests else None
            )
            try:
                return self._chain(wanted)
            except errors.TemplateNotFound as error:
                first = error
        raise first

    def _below(self, image: Image) -> _Source:
        return self._chain(Wanted(
            image.ref.template, image.ref.version, image.location,
            image.digest,
        ))

    def _chain(self, wanted: Wanted) -> _Source:
        while True:
            found = resolve.resolve(self._sources.catalog, [wanted])
            if found.needed:
                self._sources.read(found.needed)
            elif found.unknown:
                self._sources.look_up(found.unknown)
            elif not self._sources.look_up(found.chains[0].images[-2:]):
                return _source(found.chains[0])

    def _fetch(self, layers: Dict[str, Layer], progress: Progress) -> None:
        below = {
            layer.base: Layer(layer.base, None, State.PRESENT, None)
            for layer in layers.values()
            if layer.base is not None and layer.base not in layers
        }
        settings = self._sources.settings
        needs = {name: layer.keep or 0 for name, layer in layers.items()}
        room = self._store.room(needs)
        plan = Plan(
            layers=(*below.values(), *layers.values()),
            tops=tuple(layers),
            room=room,
            reserve=settings.reserve.of(room.total),
        )
        plan.check_room()
        check_offline(plan, self._sources)
        fetch_missing(plan, self._store, self._sources, progress)


def _source(chain: Chain) -> _Source:
    base = chain.images[-2] if len(chain) > 1 else None
    return _Source(chain.top, base)


def _agree(one: Sequence[Digest], other: Sequence[Digest]) -> bool:
    """Whether they are certainly of the same bytes."""
    known = {digest.algorithm: digest.value for digest in other}
    common = [digest for digest in one if digest.algorithm in known]
    return bool(common) and all(
        known[digest.algorithm] == digest.value for digest in common
    )
