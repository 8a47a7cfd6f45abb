"""The use case: bring back what is damaged in a store, and nothing else.

An image is fetched again only when its bytes are not what was published, and
only the very image that was there. What is kept beside an image whose bytes
are right is written anew, without fetching the image.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable, Dict, Optional, Sequence

from ..core import errors, planning
from ..core.plan import Layer, Plan, State
from ..repositories.origins import Origin, Origins, agree
from ..repositories.sources import Sources
from ..store import Auditor, Replacing
from ..store.audit_rules import Finding, Part, Verdict
from ..store.record import Record
from ..transfer.ports import Progress
from .provision import check_offline, fetch_missing


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
        self._origins = Origins(self._findings, sources)

    def run(self, names: Sequence[str], progress: Progress) -> None:
        """Repair the images of these names, as far as that is possible."""
        layers: Dict[str, Layer] = {}
        waiting = [each for each in self._findings if each.name in names]
        while waiting:
            finding = waiting.pop()
            try:
                layer = self._mend(finding, progress)
                if layer:
                    self._store.check_unused(finding.name)
                    layers[layer.name] = layer
                    waiting += self._find_gone(layer)
            except errors.LayeredError as error:
                self._say(finding.name, error)
        if layers:
            try:
                self._fetch(layers, progress)
            except errors.LayeredError as error:
                for each in getattr(error, 'errors', (error,)):
                    self._say('', each)

    def _find_gone(self, layer: Layer) -> Sequence[Finding]:
        """Return the base of a layer when nobody has missed it until now."""
        known = {finding.name for finding in self._findings}
        name = layer.base
        if name is None or name in known or self._auditor.size(name):
            return []
        found = Finding(name, gone=True)
        self._findings.append(found)
        return [found]

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
            self._write(finding, record, None, progress)
            return None
        found = self._origins.find(finding)
        if parts == {Part.METADATA} and not finding.proven:
            # Of a plain Lago: it is not what was published, and must not be.
            self._write(finding, None, found, progress)
            return None
        if not finding.proven or record is None or Part.RECORD in parts:
            record = self._prove(finding, found)
        if record is not None:
            self._write(finding, record, found, progress)
            return None
        return self._make_layer(finding, found)

    def _write(
        self,
        finding: Finding,
        record: Optional[Record],
        found: Optional[Origin],
        progress: Progress,
    ) -> None:
        metadata = dict(found.image.metadata or {}) if found else (
            self._store.read_metadata(finding.name)
        )
        self._store.mend(
            finding.name, record, metadata,
            self._sources.settings.lock_timeout,
            lambda holder: progress.wait(finding.name, holder),
        )

    def _prove(
        self, finding: Finding, found: Origin
    ) -> Optional[Record]:
        """Return a record of the image if its bytes are the published ones.
        """
        image = found.image
        here = self._auditor.describe(finding.name)
        known = finding.record.digests if finding.record else ()
        if here is None or not image.digests or (
            # That is what was read already.
            agree(image.digests, known)
            and {each.part for each in finding.faults} == {Part.IMAGE}
        ):
            return None
        expected = replace(
            here,
            digests=image.digests,
            url=self._sources.provider(image).locate(image.file),
            time=time.time(),
            published=image.timestamp,
        )
        again = self._auditor.examine(
            finding.name, lambda count: None, expected
        )
        return expected if again.proven and not again.faults else None

    def _make_layer(self, finding: Finding, found: Origin) -> Layer:
        image, record = found.image, finding.record
        known = record.digests if record else ()
        if not finding.gone and not agree(image.digests, known):
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
        if base is not None and found.base is not None:
            self._origins.know(base, found.base)
        here = self._store.partial(finding.name, identity=image.identity)
        disk = here.disk if here else 0
        size = image.size or image.max_size or 0
        return Layer(
            name=finding.name, base=base, state=State.MISSING, image=image,
            fetch=image.compressed_size or image.size, on_disk=disk,
            keep=max(0, size - disk), base_image=found.base,
        )

    def _fetch(self, layers: Dict[str, Layer], progress: Progress) -> None:
        below = {
            layer.base: Layer(layer.base, None, State.PRESENT, None)
            for layer in layers.values()
            if layer.base is not None and layer.base not in layers
        }
        settings = self._sources.settings
        room = self._store.room(dict.fromkeys(layers, 0))
        plan = Plan(
            layers=(*below.values(), *layers.values()),
            tops=tuple(layers),
            room=room,
            reserve=settings.reserve.of(room.total),
            temporary=settings.blocks * planning.SPOOL_BYTES,
        )
        check_offline(plan, self._sources)
        fetch_missing(plan, self._store, self._sources, progress)
