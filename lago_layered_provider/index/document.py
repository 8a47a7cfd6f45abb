"""Read an index (`repo.metadata`); says what an entry means or its faults.

Lago's own format (`name`, `sources`, `templates`) with the keys that this
project adds per version; docs/index-format.rst has them. An entry is looked
at only when somebody asks for it: a faulty entry disables itself and never
its neighbours, and an index of 100,000 versions costs no more than finding
where they stand (`index_scan`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import (
    Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union,
)

from ..core import errors, json_text, model
from ..core.json_text import Doubled
from ..core.magics import name_magic
from ..core.model import BaseDigest, BaseFile, Image, ImageRef
from . import entry
from .entries import Templates, Versions
from .scan import SEARCHED, read_table, render_table, scan

MAX_INDEX_BYTES = 64 * 2**20

#: From here on it pays not to make objects of all entries.
LARGE_BYTES = 2**20

#: A timestamp, and the version that has it.
Aged = Tuple[float, str]


def is_remote(location: str) -> bool:
    """Tell whether a server has to be asked for what is there."""
    scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', location)
    return scheme is not None and scheme[1].lower() != 'file'


@dataclass(frozen=True)
class SourceSpec:
    """How an index describes a source: a provider's type and arguments.

    Attributes:
        mirrors: further places that have the same files, best first.
    """

    type: str
    args: Mapping[str, Any]
    mirrors: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Index:
    """The index of one repository.

    Attributes:
        location: path or URL where it was read from, for messages.
        sources, raw_templates: as they stand in the document.
        timestamp: when it was published, in seconds since 1970; None where
            it does not say so.
        expires: until when it counts where it is signed, in the same way.
        origin: the address with its password, or that of which `location`
            is a copy; '' for `location` itself. Relative sources are
            relative to it.
        clone: the directory of the git repository that it was cloned with,
            '' for none.
        doubled: the keys that stand twice, as far as they were seen.
    """

    name: str
    location: str
    sources: Mapping[str, Any] = field(repr=False)
    raw_templates: Mapping[str, Any] = field(repr=False)
    timestamp: Optional[float] = None
    expires: Optional[float] = None
    origin: str = ''
    clone: str = ''
    doubled: Tuple[Doubled, ...] = field(default=(), compare=False)

    def roots(self, allowed: Sequence[str]) -> Optional[Tuple[str, ...]]:
        """Return the directories of this machine that it may use.

        Args:
            allowed: to indexes that came over the network.

        Returns:
            None for any.
        """
        if self.clone:
            return (self.clone, *allowed)
        if is_remote(self.origin or self.location):
            return tuple(allowed)
        return None

    def templates(self) -> Tuple[str, ...]:
        """The names of all templates."""
        return tuple(self.raw_templates)

    def versions(self, template: str) -> Tuple[str, ...]:
        """The names of a template's versions, none if it is not there."""
        return tuple(self._entries(template))

    def has(self, template: str, version: str) -> bool:
        """Tell whether there is an entry of that name, faulty or not."""
        return version in self._entries(template)

    def source(self, name: str) -> SourceSpec:
        """Return a source.

        Raises:
            IndexFaults: it is not defined, or not well.
        """
        faults = list(entry.source_faults(self.sources, name))
        if faults:
            raise errors.IndexFaults(self.location, faults)
        spec = self.sources[name]
        return SourceSpec(
            type=spec['type'],
            args=spec.get('args', {}),
            mirrors=tuple(spec.get('mirrors', ())),
        )

    def image(self, template: str, version: str) -> Image:
        """Return what the index says of an image.

        Raises:
            KeyError: there is none of that name.
            IndexFaults: its entry is faulty; all of it is named.
        """
        found = self._entries(template)[version]
        try:
            ref = ImageRef(self.name, template, version)
            return entry.read_entry(found, ref, self.sources, self.location)
        except ValueError as error:
            raise errors.IndexFaults(
                f'{self.location}: {_shown(template)}:{_shown(version)}',
                error.args,
                hint='Its neighbours can be used; tell the admin.',
            ) from None

    def newest_first(
        self, template: str, not_after: Optional[float] = None,
        left_out: Callable[[errors.IndexFaults], object] = lambda fault: None,
    ) -> Iterator[Image]:
        """Return the versions of a template that are not faulty.

        Each is read only when its turn comes.

        Args:
            not_after: leave out those with a later timestamp.
            left_out: called for those that are faulty.
        """
        entries = self._entries(template)
        ages = (
            entries.ages() if isinstance(entries, Versions)
            else map(entry.read_age, entries.values())
        )
        pairs = [
            pair for pair in zip(ages, entries)
            if not_after is None or pair[0] <= not_after
        ]
        for _, version in _latest_first(pairs):
            try:
                yield self.image(template, version)
            except errors.IndexFaults as error:
                left_out(error)

    def entries(self) -> Iterator[Tuple[str, str, Mapping[str, Any]]]:
        """Return (template, version, entry as it stands) of all versions."""
        for template in self.raw_templates:
            for version, found in self._entries(template).items():
                if isinstance(found, dict):
                    yield template, version, found

    def named(
        self, base: Union[BaseFile, BaseDigest]
    ) -> Iterator[Tuple[str, str]]:
        """Return template and version of what a base may be."""
        found = self.entries()
        if isinstance(self.raw_templates, Templates):
            if isinstance(base, BaseFile):
                found = self.raw_templates.holding(base.name)
            elif base.digest.algorithm == SEARCHED:
                found = self.raw_templates.holding(base.digest.value)
        for template, version, each in found:
            if isinstance(each, dict) and entry.names_file(each, base):
                yield template, version

    def table(self) -> Optional[bytes]:
        """Return what spares reading all of it again; None if it is small.
        """
        if not isinstance(self.raw_templates, Templates):
            return None
        return render_table(self.raw_templates.table)

    def _entries(self, template: str) -> Mapping[str, Any]:
        found = self.raw_templates.get(template)
        versions = found.get('versions') if isinstance(found, dict) else None
        return versions if isinstance(versions, Mapping) else {}


def _latest_first(pairs: List[Aged]) -> Iterator[Aged]:
    """Sort; mostly nobody asks for more than the first one."""
    if pairs:
        age = max(age for age, _ in pairs)
        latest = max(
            (pair for pair in pairs if pair[0] == age),
            key=lambda pair: model.age_of(*pair),
        )
        yield latest
        pairs.remove(latest)
        yield from sorted(
            pairs, key=lambda pair: model.age_of(*pair), reverse=True
        )


def _shown(name: str) -> str:
    return name if model.NAME_PATTERN.fullmatch(name) else model.show(name)


def parse_index(data: bytes, location: str) -> Index:
    """Read an index.

    Raises:
        IndexFaults: the document as a whole cannot be used.
    """
    document, doubled = parse_json(data, location, json_text.decode_noting)
    if not isinstance(document, dict):
        raise errors.IndexFaults(location, ['is not a JSON object'])
    return replace(_make_index(document, location), doubled=doubled)


def open_index(
    data: bytes, location: str, table: Optional[bytes] = None
) -> Index:
    """Read an index as `parse_index` does, a large one only where needed.

    Args:
        table: what `Index.table` gave for the same bytes.

    Raises:
        IndexFaults: the document as a whole cannot be used.
    """
    if not LARGE_BYTES <= len(data) <= MAX_INDEX_BYTES:
        return parse_index(data, location)
    found = (read_table(table) if table else None) or scan(data)
    if found is None:
        return parse_index(data, location)
    document = {'templates': {}, **found.head}
    if 'templates' not in found.head:
        document['templates'] = Templates(data, found)
    return _make_index(document, location)


def _make_index(document: Mapping[str, Any], location: str) -> Index:
    """Make an index of a document.

    Raises:
        IndexFaults: it cannot be used.
    """
    faults: List[str] = []
    try:
        model.check_name(document.get('name'), 'the repository\'s name')
    except ValueError as error:
        faults.append(str(error))
    for key in ('sources', 'templates'):
        if not isinstance(document.get(key, {}), Mapping):
            faults.append(f'"{key}" is not an object')
    expires = document.get('expires')
    if expires is not None and not _is_time(expires):
        faults.append('"expires" is not a time in seconds since 1970')
    if faults:
        raise errors.IndexFaults(location, faults)
    return Index(
        name=document['name'],
        location=location,
        sources=document.get('sources', {}),
        raw_templates=document.get('templates', {}),
        timestamp=_find_timestamp(document),
        expires=expires,
    )


def _is_time(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool)
        and 0 <= value < 2**63
    )


def _find_timestamp(document: Mapping[str, Any]) -> Optional[float]:
    """Return when an index was published; other forms are none."""
    age = entry.read_age(document)
    return None if age < 0 else age


def parse_json(
    data: bytes, location: str,
    decode: Callable[[bytes], Any] = json_text.decode,
) -> Any:
    """Read a JSON document.

    Raises:
        IndexFaults: it is too large or not JSON; says what it looks like.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise errors.IndexFaults(
            location,
            [f'is {len(data)} bytes; at most {MAX_INDEX_BYTES} are read'],
        )
    try:
        return decode(data)
    except RecursionError:
        fault = 'is nested too deeply'
    except ValueError as error:
        kind = name_magic(data)
        fault = f'is not JSON: {error}'
        if data.lstrip()[:1] == b'<':
            fault = 'expected JSON, found an HTML or XML page'
        elif kind:
            fault = f'is not JSON: it is {kind}'
        elif isinstance(error, UnicodeDecodeError):
            fault = 'is not JSON: it is no text'
    raise errors.IndexFaults(
        location, [fault],
        hint='Check the address, or tell the admin of the repository.',
    )
