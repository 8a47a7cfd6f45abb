"""Read an index (`repo.metadata`); says what an entry means or its faults.

Lago's own format (`name`, `sources`, `templates`) with the keys that this
project adds per version; docs/index-format.rst has them. An entry is looked
at only when somebody asks for it: an index of 100,000 versions costs no more
than its JSON, and a faulty entry disables itself and never its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from . import entry, errors, model
from .model import Image, ImageRef

MAX_INDEX_BYTES = 64 * 2**20


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
        origin: where `location` is a copy of; '' for itself. Relative
            sources are relative to it.
    """

    name: str
    location: str
    sources: Mapping[str, Any] = field(repr=False)
    raw_templates: Mapping[str, Any] = field(repr=False)
    timestamp: Optional[float] = None
    origin: str = ''

    def templates(self) -> Tuple[str, ...]:
        """The names of all templates."""
        return tuple(self.raw_templates)

    def versions(self, template: str) -> Tuple[str, ...]:
        """The names of a template's versions, none if it is not there."""
        return tuple(self._entries(template))

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
            return replace(
                entry.read_entry(found, ref, self.sources),
                location=self.location,
            )
        except ValueError as error:
            raise errors.IndexFaults(
                f'{self.location}: {_shown(template)}:{_shown(version)}',
                error.args,
                hint='Its neighbours can be used; tell the admin.',
            ) from None

    def newest_first(self, template: str) -> Iterator[Image]:
        """Return the versions of a template that are not faulty.

        Each is read only when its turn comes.
        """
        entries = self._entries(template)
        ages = [
            (entry.read_age(found), version)
            for version, found in entries.items()
        ]
        for _, version in sorted(ages, reverse=True):
            try:
                yield self.image(template, version)
            except errors.IndexFaults:
                continue

    def entries(self) -> Iterator[Tuple[str, str, Mapping[str, Any]]]:
        """Return (template, version, entry as it stands) of all versions."""
        for template in self.raw_templates:
            for version, found in self._entries(template).items():
                if isinstance(found, dict):
                    yield template, version, found

    def _entries(self, template: str) -> Mapping[str, Any]:
        found = self.raw_templates.get(template)
        versions = found.get('versions') if isinstance(found, dict) else None
        return versions if isinstance(versions, dict) else {}


def _shown(name: str) -> str:
    return name if model.NAME_PATTERN.fullmatch(name) else model.show(name)


def parse_index(data: bytes, location: str) -> Index:
    """Read an index.

    Raises:
        IndexFaults: the document as a whole cannot be used.
    """
    document = parse_json(data, location)
    faults: List[str] = []
    if not isinstance(document, dict):
        raise errors.IndexFaults(location, ['is not a JSON object'])
    try:
        model.check_name(document.get('name'), 'the repository\'s name')
    except ValueError as error:
        faults.append(str(error))
    for key in ('sources', 'templates'):
        if not isinstance(document.get(key, {}), dict):
            faults.append(f'"{key}" is not an object')
    if faults:
        raise errors.IndexFaults(location, faults)
    return Index(
        name=document['name'],
        location=location,
        sources=document.get('sources', {}),
        raw_templates=document.get('templates', {}),
        timestamp=_find_timestamp(document),
    )


def _find_timestamp(document: Mapping[str, Any]) -> Optional[float]:
    """Return when an index was published; other forms are none."""
    age = entry.read_age(document)
    return None if age < 0 else age


def parse_json(data: bytes, location: str) -> Any:
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
        return json.loads(data)
    except RecursionError:
        fault = 'is nested too deeply'
    except ValueError as error:
        fault = f'is not JSON: {error}'
        if data.lstrip()[:1] == b'<':
            fault = 'expected JSON, found an HTML or XML page'
    raise errors.IndexFaults(
        location, [fault],
        hint='Check the address, or tell the admin of the repository.',
    )
