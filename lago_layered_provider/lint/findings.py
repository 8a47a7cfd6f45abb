"""What can be wrong with a repository: the findings, and the index alone.

Nothing here asks a source; `lint_bases` judges what stands on what, and
`lint_image` what the files are. All that is wrong is found, not the first.
"""

from __future__ import annotations

import enum
import heapq
from dataclasses import dataclass, field
from typing import (
    Callable, Dict, Iterator, List, Mapping, Optional, Tuple,
)

from ..core import errors, model
from ..core.json_text import Doubled
from ..core.model import Image
from ..index import document, entry
from ..index.document import Index


class Level(enum.Enum):
    """How bad a finding is.

    Of an error a client fails or gets something wrong; of a warning it does
    not. A note only helps to understand.
    """

    ERROR = 'error'
    WARNING = 'warning'
    NOTE = 'note'


#: Codes that programs can rely on, and how bad each is.
LEVELS: Mapping[str, Level] = {
    # The index
    'index-unreadable': Level.ERROR,
    'index-faulty': Level.ERROR,
    'index-changing': Level.WARNING,
    'duplicate-key': Level.ERROR,
    'template-empty': Level.WARNING,
    'timestamp-ahead': Level.WARNING,
    'timestamp-equal': Level.WARNING,
    'signature-missing': Level.ERROR,
    'signature-bad': Level.ERROR,
    'signature-unchecked': Level.NOTE,
    'source-faulty': Level.ERROR,
    'source-unreachable': Level.ERROR,
    'source-local': Level.WARNING,
    'source-here': Level.NOTE,
    'mirror-unreachable': Level.WARNING,
    'mirror-incomplete': Level.WARNING,
    'mirror-differs': Level.ERROR,
    # Entries and what they stand on
    'entry-faulty': Level.ERROR,
    'name-refused': Level.ERROR,
    'facts-missing': Level.WARNING,
    'digest-missing': Level.WARNING,
    'digest-weak': Level.NOTE,
    'base-missing': Level.ERROR,
    'base-faulty': Level.ERROR,
    'base-ambiguous': Level.ERROR,
    'base-itself': Level.ERROR,
    'base-cycle': Level.ERROR,
    'base-too-deep': Level.ERROR,
    'base-younger': Level.WARNING,
    'base-floats': Level.WARNING,
    'base-elsewhere': Level.NOTE,
    # Files
    'file-missing': Level.ERROR,
    'file-unreadable': Level.ERROR,
    'compressed-size': Level.ERROR,
    'size': Level.ERROR,
    'digest': Level.ERROR,
    'damaged': Level.ERROR,
    'one-block': Level.WARNING,
    'header': Level.ERROR,
    'format': Level.ERROR,
    'virtual-size': Level.ERROR,
    'unsafe': Level.ERROR,
    'backing-missing': Level.ERROR,
    'backing-unexpected': Level.ERROR,
    'backing-foreign': Level.ERROR,
    'backing-path': Level.WARNING,
    'backing-format': Level.WARNING,
    'shrinks': Level.WARNING,
    'carries-base': Level.WARNING,
    'sidecar-hash': Level.ERROR,
    'sidecar-metadata': Level.ERROR,
    'sidecar-missing': Level.WARNING,
    'stray-files': Level.WARNING,
    # The index of virt-builder
    'virt-syntax': Level.ERROR,
    'virt-field': Level.ERROR,
    'virt-file': Level.ERROR,
    'virt-size': Level.ERROR,
    'virt-checksum': Level.ERROR,
    'virt-layer': Level.WARNING,
}

#: A server's clock may be ahead of ours by so many seconds.
CLOCK_SECONDS = 86400

#: Names in a message.
SHOWN = 4

#: (template, version)
Name = Tuple[str, str]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong; `image` is 'template:version' or None."""

    code: str
    message: str
    image: Optional[str] = None

    @property
    def level(self) -> Level:
        """How bad it is."""
        return LEVELS[self.code]


@dataclass(frozen=True)
class Judged:
    """An index, as far as it can be used, and what is wrong with it.

    Attributes:
        index: None where the document as a whole cannot be used.
        images: those whose entries are not faulty.
    """

    index: Optional[Index]
    images: Mapping[Name, Image] = field(default_factory=dict)
    findings: Tuple[Finding, ...] = ()


def judge_index(
    data: bytes,
    location: str,
    *,
    now: float,
    refuse_name: Callable[[str], str],
) -> Judged:
    """Read an index and find all that is wrong with it.

    Args:
        now: seconds since 1970.
        refuse_name: says why the store cannot keep an image of that name,
            '' where it can.
    """
    try:
        found = document.parse_index(data, location)
    except errors.IndexFaults as error:
        return Judged(None, {}, tuple(
            Finding('index-faulty', fault) for fault in error.faults
        ))
    faulty_sources = list(_judge_sources(found))
    said = frozenset(each.message for each in faulty_sources)
    findings = [*map(_judge_doubled, found.doubled), *faulty_sources]
    if (found.timestamp or 0) > now + CLOCK_SECONDS:
        findings.append(Finding(
            'timestamp-ahead',
            'the timestamp of the index is in the future: to a client with a '
            'keyring every later index looks like an older one',
        ))
    images: Dict[Name, Image] = {}
    for template in found.templates():
        findings += _judge_template(template, found.raw_templates[template])
        for version in found.versions(template):
            try:
                image = found.image(template, version)
            except errors.IndexFaults as error:
                # A faulty source was named once, not for each image.
                findings += [
                    Finding('entry-faulty', fault, shown(template, version))
                    for fault in error.faults if fault not in said
                ]
                continue
            images[template, version] = image
            findings += _judge_name(image, now, refuse_name)
    return Judged(found, images, (*findings, *_judge_ages(images)))


def _judge_ages(images: Mapping[Name, Image]) -> Iterator[Finding]:
    """Find versions that only their names tell apart in age."""
    same: Dict[Tuple[str, float], List[Image]] = {}
    for image in images.values():
        same.setdefault((image.ref.template, image.timestamp), []).append(
            image
        )
    for (template, _), group in same.items():
        if len(group) > 1:
            names = [
                each.ref.version
                for each in heapq.nlargest(SHOWN, group, key=lambda i: i.age)
            ]
            more = ' and more' if len(group) > SHOWN else ''
            yield Finding('timestamp-equal', (
                f'template {template}: {", ".join(names)}{more} have the '
                f'same timestamp; {names[0]} counts as the newest of them'
            ))


def _judge_sources(found: Index) -> Iterator[Finding]:
    for name in found.sources:
        for fault in entry.source_faults(found.sources, name):
            yield Finding('source-faulty', fault)


def _judge_template(template: str, raw: object) -> Iterator[Finding]:
    versions = raw.get('versions') if isinstance(raw, dict) else None
    if not isinstance(versions, dict):
        yield Finding(
            'entry-faulty', f'template {model.show(template)}: "versions" is '
            f'missing or not an object',
        )
    elif not versions:
        yield Finding(
            'template-empty',
            f'template {model.show(template)} has no version',
        )


def shown(template: str, version: str) -> str:
    """Return the name of an image, whatever somebody has called it."""
    return ':'.join(
        name if model.NAME_PATTERN.fullmatch(name) else model.show(name)
        for name in (template, version)
    )


def _judge_name(
    image: Image, now: float, refuse_name: Callable[[str], str]
) -> Iterator[Finding]:
    """Judge what neither needs the source nor other images."""
    name = image.ref.short
    reason = refuse_name(str(image.ref))
    if reason:
        yield Finding('name-refused', reason, name)
    if image.timestamp > now + CLOCK_SECONDS:
        yield Finding(
            'timestamp-ahead',
            'its timestamp is in the future: it stays the newest version '
            'whatever is published', name,
        )


def judge_facts(image: Image) -> Iterator[Finding]:
    """Say what the entry of an image leaves open."""
    name = image.ref.short
    open_facts = [
        key for key, is_open in (
            ('base', image.base is model.UNKNOWN),
            ('compression', image.compression is model.UNKNOWN),
            ('size', image.size is None),
            ('compressed_size', (
                image.compressed_size is None
                and image.compression is not None
            )),
            ('a digest', image.digest is None),
            ('metadata', image.metadata is None),
        ) if is_open
    ]
    if open_facts:
        yield Finding(
            'facts-missing',
            f'not in the index, so that every client asks for it: '
            f'{", ".join(open_facts)}', name,
        )
    if image.digest is not None and image.digest.algorithm == 'sha1':
        yield Finding(
            'digest-weak',
            'sha1 is its only digest: it finds damage, but two files with '
            'the same sha1 can be made', name,
        )


def _judge_doubled(doubled: Doubled) -> Finding:
    return Finding('duplicate-key', (
        f'{doubled.place}: {model.show(doubled.key)} stands there more than '
        f'once, in {doubled.where}, and only the last one counts'
    ))
