"""Find what an image of a store was published as, to have it again."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Dict, Optional, Sequence

from ..core import errors
from ..core.model import Digest, Image
from ..core.store_names import store_names
from ..core.wanted import Wanted
from ..index import resolve
from ..store.audit_rules import AGAIN, Finding
from .sources import Sources


@dataclass(frozen=True)
class Origin:
    """An image of an index; `base` is what it stands on there."""

    image: Image
    base: Optional[Image]


class Origins:
    """The origins of the images of one store.

    Args:
        findings: on all images that were looked at; may grow.
    """

    def __init__(
        self, findings: Sequence[Finding], sources: Sources
    ) -> None:
        self._findings = findings
        self._sources = sources
        # What images stand on that may not be in the store at all.
        self._bases: Dict[str, Image] = {}

    def know(self, name: str, base: Image) -> None:
        """Say what a base with this name in the store is."""
        self._bases[name] = base

    def find(self, finding: Finding) -> Origin:
        """Return the published image that is or was in the store.

        Raises:
            LayeredError: there is none, or it cannot be asked for.
        """
        if not finding.gone:
            return self._resolve(finding)
        if finding.name in self._bases:
            return self._below(self._bases[finding.name])
        for above in self._findings:
            if above.backing == finding.name and above.record:
                base = self._resolve(above).base
                if base and finding.name in store_names(base):
                    return self._below(base)
        raise errors.StoreError(
            f'{finding.name} is gone, and nobody knows what it was.'
        )

    def _resolve(self, finding: Finding) -> Origin:
        repository, template, version = finding.name.split(':')
        digests = finding.record.digests if finding.record else ()
        wanted = [
            Wanted(template, each, repository, digest)
            # A record may be damaged itself: then its digest names nothing.
            for digest in dict.fromkeys((*digests[:1], None))
            for each in dict.fromkeys((version, AGAIN.sub('', version)))
        ]
        for each in wanted[:-1]:
            with contextlib.suppress(errors.TemplateNotFound):
                return self._chain(each)
        return self._chain(wanted[-1])

    def _below(self, image: Image) -> Origin:
        return self._chain(Wanted(
            image.ref.template, image.ref.version, image.location,
            image.digest,
        ))

    def _chain(self, wanted: Wanted) -> Origin:
        while True:
            found = resolve.resolve(self._sources.catalog, [wanted])
            if found.needed:
                self._sources.read(found.needed)
            elif found.unknown:
                self._sources.look_up(found.unknown)
            elif not self._sources.look_up(found.chains[0].images[-2:]):
                images = found.chains[0].images
                return Origin(
                    images[-1], images[-2] if len(images) > 1 else None
                )


def agree(one: Sequence[Digest], other: Sequence[Digest]) -> bool:
    """Whether they are certainly of the same bytes."""
    known = {digest.algorithm: digest.value for digest in other}
    common = [digest for digest in one if digest.algorithm in known]
    return bool(common) and all(
        known[digest.algorithm] == digest.value for digest in common
    )
