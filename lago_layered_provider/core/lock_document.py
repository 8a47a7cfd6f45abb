"""The lock of an environment: each template that it wants, image by image.

The document is JSON, sorted by what is wanted, one value to a line: made to
be read, and to be compared by version control. What it holds of an image is
what tells it from any other: its name and its digests. The location says
where it was; another place that has the same image will do.
"""

from __future__ import annotations

import json
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

from . import errors
from .model import Digest, Image, ImageRef, show
from .wanted import Pin, Pins, sort_digests

FORMAT = 1

#: What the file of a lock is called, behind the name of its init file.
SUFFIX = '.lock'

ANEW_HINT = 'Remove it and make it anew with: lago template-repo lock'

Way = Tuple[Any, ...]


class Wish(NamedTuple):
    """What an init file asks for, in its own words.

    The digest is that of the base of an exported disk; else it is empty.
    """

    template: str
    digest: str = ''


Lock = Mapping[Wish, Pins]


def format_lock(lock: Lock) -> str:
    """Return the text of a lock; the same lock is always the same text."""
    return json.dumps({
        'format': FORMAT,
        'templates': [
            {
                'wanted': wish.template,
                **({'digest': wish.digest} if wish.digest else {}),
                'chain': [_document(pin) for pin in pins],
            }
            for wish, pins in sorted(lock.items(), key=lambda item: item[0])
        ],
    }, indent=2, ensure_ascii=False) + '\n'


def _document(pin: Pin) -> Dict[str, Any]:
    return {
        'repository': pin.ref.repository,
        'location': pin.location,
        'template': pin.ref.template,
        'version': pin.ref.version,
        'digests': {
            digest.algorithm: digest.value
            for digest in sort_digests(pin.digests)
        },
    }


def parse_lock(
    data: bytes,
    document: str,
    find_line: Callable[[Way], Optional[int]] = lambda way: None,
) -> Lock:
    """Read a lock.

    Args:
        document: its name, for messages.
        find_line: tells the line of a value, for messages.

    Raises:
        IndexFaults: it is not one; all its faults with their places.
    """
    try:
        found = json.loads(data, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise errors.IndexFaults(
            document, ['is nested too deeply'], hint=ANEW_HINT
        ) from None
    except ValueError as error:
        raise errors.IndexFaults(
            document, [f'is not JSON: {error}'], hint=ANEW_HINT
        ) from None
    reader = _Reader(find_line)
    lock = reader.read(found)
    if reader.faults:
        raise errors.IndexFaults(document, reader.faults, hint=ANEW_HINT)
    return lock


def _without_doubles(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # As a merge may leave it: JSON itself would take the last one.
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'key {show(double)} stands twice in one object')
    return found


class _Reader:
    """Reads the parts, and keeps what is wrong with them."""

    def __init__(self, find_line: Callable[[Way], Optional[int]]) -> None:
        self.faults: List[str] = []
        self._find_line = find_line

    def fault(self, way: Way, text: str) -> None:
        line = self._find_line(way)
        at = '' if line is None else f'line {line}: '
        self.faults.append(f'{at}{text}')

    def read(self, found: object) -> Lock:
        if not isinstance(found, dict):
            self.fault((), f'{show(found)} is not a JSON object')
            return {}
        if found.get('format') != FORMAT:
            self.fault(('format',), (
                f'format is {show(found.get("format"))}, expected is {FORMAT}'
            ))
            return {}
        entries = found.get('templates')
        if not isinstance(entries, list):
            self.fault(('templates',), (
                f'templates is {show(entries)}, expected is a list'
            ))
            return {}
        lock: Dict[Wish, Pins] = {}
        for number, entry in enumerate(entries):
            way = ('templates', number)
            try:
                wish = _read_wish(entry)
            except ValueError as error:
                self.fault(way, f'template {number + 1}: {error}')
                continue
            if wish in lock:
                self.fault(way, f'{wish.template} is there twice')
            lock[wish] = self._read_chain(way, wish, entry.get('chain'))
        return lock

    def _read_chain(self, way: Way, wish: Wish, chain: object) -> Pins:
        way = (*way, 'chain')
        if not isinstance(chain, list) or not chain:
            self.fault(way, (
                f'{wish.template}: chain is {show(chain)}, expected is a '
                f'list of images'
            ))
            return ()
        pins = []
        for number, value in enumerate(chain):
            try:
                pins.append(_read_pin(value))
            except ValueError as error:
                self.fault((*way, number), (
                    f'{wish.template}, image {number + 1}: {error}'
                ))
        if len(pins) == len(chain) and not _fits(wish, pins[-1]):
            self.fault((*way, len(chain) - 1), (
                f'{wish.template}: the last image of its chain is '
                f'{pins[-1]}, which is another one'
            ))
        return tuple(pins)


def _read_wish(entry: object) -> Wish:
    if not isinstance(entry, dict):
        raise ValueError(f'{show(entry)} is not an object')
    wanted, digest = entry.get('wanted'), entry.get('digest', '')
    if not isinstance(wanted, str) or not wanted:
        raise ValueError(f'wanted is {show(wanted)}, expected is a name')
    if not isinstance(digest, str):
        raise ValueError(f'digest is {show(digest)}, expected is a text')
    return Wish(wanted, digest)


def _read_pin(value: object) -> Pin:
    if not isinstance(value, dict):
        raise ValueError(f'{show(value)} is not an object')
    ref = ImageRef(
        value.get('repository', ''), value.get('template', ''),
        value.get('version', ''),
    )
    location, digests = value.get('location', ''), value.get('digests')
    if not isinstance(location, str):
        raise ValueError(f'location is {show(location)}, expected is a text')
    if not isinstance(digests, dict) or not all(
        isinstance(each, str) for each in digests.values()
    ):
        raise ValueError(
            f'digests is {show(digests)}, expected is an object such as '
            f'{{"sha512": "..."}}'
        )
    return Pin(ref, sort_digests(
        Digest(algorithm, text) for algorithm, text in digests.items()
    ), location)


def _fits(wish: Wish, pin: Pin) -> bool:
    """Tell whether an image is of the template and version that is wanted."""
    # What stands before the slash may be a path or a URL.
    name = wish.template.rpartition('/')[2]
    return name in (pin.ref.template, pin.ref.short)


def describe_wish(wish: Wish) -> str:
    """Return what is wanted, for people."""
    if not wish.digest:
        return wish.template
    algorithm, _, value = wish.digest.partition(':')
    return f'{wish.template} ({algorithm}:{value[:16]}...)'


def find_change(locked: Pins, newest: Iterable[Union[Pin, Image]]) -> str:
    """Return what has become of a chain, empty for nothing."""
    new = tuple(newest)
    if locked[-1].ref != new[-1].ref:
        return 'another version'
    if locked[-1].contradiction(new[-1].digests):
        return 'published again'
    if len(locked) != len(new) or any(
        old.ref != now.ref or old.contradiction(now.digests)
        for old, now in zip(locked, new)
    ):
        return 'another base'
    return ''
