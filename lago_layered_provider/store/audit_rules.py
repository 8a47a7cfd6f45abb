"""Judge what was found when the images of a store were read.

A layer on a damaged image is sound itself: its own bytes are as they were
published, and it can be used again as soon as its base is.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..core import errors
from ..index.missing import nearest
from .record import Record


class Part(enum.Enum):
    """What of an image is damaged."""

    IMAGE = 'image'
    HEAD = 'head'
    RECORD = 'record'
    METADATA = 'metadata'
    HASH = 'hash'


#: The end of the store name of an image that was published again.
AGAIN = re.compile(r'\+[0-9a-f]{8}$')

#: Without these nobody knows that a guest sees the right bytes.
_CONTENT = (Part.IMAGE, Part.HEAD, Part.RECORD)


class State(enum.Enum):
    """What an image is; the values are single words, for grep and awk."""

    INTACT = 'intact'
    UNPROVEN = 'unproven'
    DAMAGED = 'damaged'
    ON_DAMAGED = 'on-damaged'
    SKIPPED = 'skipped'


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with an image; `text` is for people."""

    part: Part
    text: str


@dataclass(frozen=True)
class Finding:
    """What one image is by itself.

    Attributes:
        size: bytes that were read.
        backing: the store name of its base, None for a bottom image.
        record: what is known of it; made of its header where none is kept.
        proven: its bytes have the published digest.
        seen: the state of its files at that time; None: not looked at.
        gone: neither the image nor a record of it is there.
        skipped: why it was not looked at, '' if it was.
    """

    name: str
    size: int = 0
    backing: Optional[str] = None
    record: Optional[Record] = None
    faults: Tuple[Fault, ...] = ()
    proven: bool = False
    seen: object = None
    gone: bool = False
    skipped: str = ''

    @property
    def spoiled(self) -> bool:
        """Whether a guest may see other bytes than were published."""
        return any(fault.part in _CONTENT for fault in self.faults)


@dataclass(frozen=True)
class Verdict:
    """A finding in the light of all others; `reasons` are for people."""

    finding: Finding
    state: State
    reasons: Tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The image's name in the store."""
        return self.finding.name


def judge(findings: Iterable[Finding]) -> List[Verdict]:
    """Return what each image is, given what it stands on."""
    found = {finding.name: finding for finding in findings}
    above: Dict[str, str] = {}
    for finding in found.values():
        if finding.backing is not None:
            above.setdefault(finding.backing, finding.name)
    return [
        _judge(finding, found, above.get(finding.name))
        for finding in found.values()
    ]


def _judge(
    finding: Finding, found: Mapping[str, Finding], above: Optional[str]
) -> Verdict:
    if finding.skipped:
        return Verdict(finding, State.SKIPPED, (finding.skipped,))
    if finding.gone and above is None:
        return Verdict(finding, State.SKIPPED, ('it was removed meanwhile',))
    if finding.gone:
        return Verdict(finding, State.DAMAGED, (
            f'it is not in the store, and {above} stands on it',
        ))
    if finding.faults:
        return Verdict(finding, State.DAMAGED, tuple(
            fault.text for fault in finding.faults
        ))
    below = _find_damaged(finding, found)
    if below is not None:
        return Verdict(finding, State.ON_DAMAGED, (
            f'stands on {below}, which is damaged',
        ))
    if finding.proven:
        return Verdict(finding, State.INTACT)
    return Verdict(finding, State.UNPROVEN, (
        'cannot be checked: a plain Lago put it there, and keeps no digest '
        'of what it made of the published image',
    ))


def _find_damaged(
    finding: Finding, found: Mapping[str, Finding]
) -> Optional[str]:
    """Return what of its chain is damaged, the nearest one."""
    seen = {finding.name}
    name = finding.backing
    while name is not None and name not in seen:
        seen.add(name)
        below = found.get(name)
        if below is None or below.skipped:
            return None
        if below.gone or below.spoiled:
            return name
        name = below.backing
    return None


def select_names(words: Sequence[str], names: Sequence[str]) -> List[str]:
    """Return the images of a store that somebody names, all without words.

    A word is a store name, REPO/NAME:VERSION, NAME:VERSION or NAME; one
    without a version means all versions. An image that was published again
    (`+8 hex digits`) is meant by its plain version, too.

    Raises:
        TemplateNotFound: a word names none.
    """
    found: Dict[str, None] = {} if words else dict.fromkeys(names)
    for word in words:
        plain = word.replace('/', ':', 1)
        fits = [name for name in names if name == plain] or [
            name for name in names if _is_meant(plain, name)
        ]
        if not fits:
            raise errors.TemplateNotFound(
                f'{word} is not in the store.'
                f'{nearest(plain, _same_form(plain, names))}',
                hint='See what there is with: lago template-repo store',
            )
        found.update(dict.fromkeys(fits))
    return list(found)


def _same_form(plain: str, names: Sequence[str]) -> List[str]:
    """Return names with as many parts as somebody has given."""
    parts = plain.count(':') + 1
    first, last = (0, 3) if parts > 2 else (1, parts + 1)
    return sorted({':'.join(name.split(':')[first:last]) for name in names})


def _is_meant(plain: str, name: str) -> bool:
    for form in (name, AGAIN.sub('', name)):
        repository, _, short = form.partition(':')
        template = short.partition(':')[0]
        if plain in (form, short, template, f'{repository}:{template}'):
            return True
    return False
