"""Find all that is wrong with a repository: requests here, judgement in core.

A repository may be published while it is looked at. Before anything wrong is
said its documents are read again; where they have changed it starts over.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from ..core import errors
from ..core.model import Image
from ..index.source_places import hide_secrets
from ..repositories.reading import try_again
from ..repositories.sources import LOOKUP_THREADS
from ..settings import Settings
from ..store.layout import check_store_name
from ..tools import threads
from . import (
    bases as lint_bases, findings as lint, images as lint_image,
    judge_documents,
)
from .documents import Documents, read_documents
from .findings import Finding, Judged, Level, Name
from .read_content import read_content
from .seen import Seen
from .sources import Source, judge_mirrors, open_sources

#: How often a repository may change under us before we give up.
TRIES = 4

#: Index and signature are replaced one after the other.
SETTLE_SECONDS = 1.0

#: Said once of a source where it is true of all its images.
FILE_GONE = ('file-missing', 'file-unreadable')

#: Told of bytes that were read: so many, of so many in all.
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What was found; `name` is that of the repository, where known."""

    location: str
    name: Optional[str] = None
    images: int = 0
    findings: Tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def failed(self) -> bool:
        """Whether a client fails or gets something wrong."""
        return any(
            finding.level is Level.ERROR for finding in self.findings
        )


def lint_repository(
    location: str, settings: Settings, advance: Optional[Advance] = None
) -> Report:
    """Return all that is wrong with a repository.

    Args:
        location: path or URL of its index.
        advance: read every image to its end, and say how far that is.
    """
    found = _lint(location, settings, advance)
    return replace(
        found, location=hide_secrets(location), findings=tuple(
            replace(each, message=hide_secrets(each.message))
            for each in found.findings
        ),
    )


def _lint(
    location: str, settings: Settings, advance: Optional[Advance]
) -> Report:
    documents = read_documents(location, settings)
    for _ in range(TRIES):
        report = _judge(location, documents, settings, advance)
        if all(each.level is Level.NOTE for each in report.findings):
            return report
        before, documents = documents, read_documents(
            location, settings, fresh=True
        )
        if before == documents and _is_about_signature(report):
            time.sleep(SETTLE_SECONDS)
            documents = read_documents(location, settings, fresh=True)
        if before == documents:
            return report
    return replace(report, findings=(*report.findings, Finding(
        'index-changing',
        f'it was published {TRIES} times while it was looked at; what is '
        f'said here may be outdated',
    )))


def _is_about_signature(report: Report) -> bool:
    return any(
        finding.code.startswith('signature')
        and finding.level is Level.ERROR for finding in report.findings
    )


def _judge(
    location: str, documents: Documents, settings: Settings,
    advance: Optional[Advance],
) -> Report:
    if documents.index is None:
        return Report(location, findings=(
            Finding('index-unreadable', documents.fault),
        ))
    judged = lint.judge_index(
        documents.index, location, now=time.time(), refuse_name=_refuse_name
    )
    findings = [*judged.findings, *judge_documents.judge_signature(
        location, documents, settings, judged.index
    )]
    if judged.index is None:
        return Report(location, findings=tuple(findings))
    sources = open_sources(judged.index, settings, findings)
    seen = _inspect(judged, sources)
    if advance is not None:
        seen = _read_all(seen, sources, settings, advance)
    findings += _judge_images(judged, seen, sources)
    findings += judge_documents.judge_strays(
        location, judged.index, judged.images
    )
    findings += judge_documents.judge_virt_index(
        location, documents, settings, seen, sources
    )
    return Report(
        location, judged.index.name,
        sum(1 for _ in _all_names(judged)),
        tuple(sorted(findings, key=_order)),
    )


def _order(finding: Finding) -> Tuple[str, int]:
    """Sort by image, those of the whole first, and by what is worst."""
    return finding.image or '', list(Level).index(finding.level)


def _all_names(judged: Judged) -> Iterator[Name]:
    assert judged.index is not None
    for template in judged.index.templates():
        for version in judged.index.versions(template):
            yield template, version


def _refuse_name(name: str) -> str:
    try:
        check_store_name(name)
    except errors.StoreError as error:
        return error.message
    return ''


def _inspect(
    judged: Judged, sources: Mapping[str, Source]
) -> Dict[Name, Seen]:
    """Look at all images, side by side."""
    names = [
        name for name, image in judged.images.items()
        if image.source in sources
    ]
    found = threads.run_all(
        lambda name: sources[judged.images[name].source].inspect(
            judged.images[name]
        ),
        names, LOOKUP_THREADS,
    )
    return dict(zip(names, found))


def _read_all(
    seen: Mapping[Name, Seen], sources: Mapping[str, Source],
    settings: Settings, advance: Advance,
) -> Dict[Name, Seen]:
    """Read the images to their ends, the largest first."""
    names = sorted(
        (name for name in seen if not (
            seen[name].missing or seen[name].trouble
        )),
        key=lambda name: seen[name].total or 0, reverse=True,
    )
    total = sum(seen[name].total or 0 for name in names)

    def read(name: Name) -> Seen:
        one = seen[name]
        provider = sources[one.image.source].provider
        try:
            return replace(one, content=try_again(
                lambda: read_content(
                    one.image, provider, lambda count: advance(count, total)
                ), settings.retries,
            ))
        except errors.TransferError as error:
            return replace(one, trouble=error.message)

    found = threads.run_all(read, names, os.cpu_count() or 1)
    return {**seen, **dict(zip(names, found))}


def _judge_images(
    judged: Judged, seen: Mapping[Name, Seen], sources: Mapping[str, Source]
) -> List[Finding]:
    assert judged.index is not None
    known: Dict[Name, Image] = {
        name: seen[name].image if name in seen else image
        for name, image in judged.images.items()
    }
    bases, findings = lint_bases.judge_bases(judged.index, known)
    gone = {}
    for place, source in sources.items():
        finding = source.judge([
            one for one in seen.values() if one.image.source == place
        ])
        if finding is not None:
            gone[place] = finding
    findings += gone.values()
    for name, raw in judged.images.items():
        findings += lint.judge_facts(raw)
        if name not in seen:
            continue
        base = bases.get(name)
        below = None if base is None else seen.get(
            (base.ref.template, base.ref.version)
        )
        findings += [
            each for each in lint_image.judge_image(
                raw, seen[name], base, below
            ) if not (raw.source in gone and each.code in FILE_GONE)
        ]
    return findings + list(judge_mirrors(seen.values()))
