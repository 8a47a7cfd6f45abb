"""Find where the entries of an index stand in its bytes.

A large index costs seconds and hundreds of megabytes as Python objects, and
nearly all of it is of images that nobody wants. `scan` reads it once, throws
away what it reads, and keeps a table: the names, where each entry stands,
and how old it is. The table can be kept beside the bytes; with it an entry
is found without reading the others.

It knows the plain form only, that of every JSON writer. Whatever is unusual
is a doubt: then there is no table, and the document is read as a whole.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterator, List, Optional, Sequence

from .entry import read_age

#: Of the table's own form: one of another number is not read.
FORM = 1

#: The digest that an entry can be searched by.
SEARCHED = 'sha512'

_SPACE = r'[ \t\n\r]*'
_MEMBER = rf'"([^"\\\x00-\x1f]*)"{_SPACE}:{_SPACE}'
#: Up to an object's first value, or to its end; then to each next one.
_FIRST = re.compile(rf'{_SPACE}\{{{_SPACE}(?:{_MEMBER}|\}})').match
_NEXT = re.compile(rf'{_SPACE}(?:,{_SPACE}{_MEMBER}|\}})').match
_END = re.compile(rf'{_SPACE}\Z').match
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Table:
    """Where the entries of an index stand.

    Attributes:
        head: the document without its templates.
        templates: their names.
        counts: of the versions of each template.
        versions: the names of all versions, template by template; then, in
            the same order,
        starts: the first byte of each version's name in the document,
        ends: the byte behind its entry,
        ages: its timestamp, -1 where it has none.
        extra: template -> what it says beside its versions.
        odd: template -> all that it says, where it has no versions.
        searchable: what a text names stands in the bytes as in the text.
    """

    head: Dict[str, Any] = field(default_factory=dict)
    templates: List[str] = field(default_factory=list)
    counts: List[int] = field(default_factory=list)
    versions: List[str] = field(default_factory=list)
    starts: List[int] = field(default_factory=list)
    ends: List[int] = field(default_factory=list)
    ages: List[float] = field(default_factory=list)
    extra: Dict[str, Any] = field(default_factory=dict)
    odd: Dict[str, Any] = field(default_factory=dict)
    searchable: bool = True


def render_table(table: Table) -> bytes:
    """Return the bytes that `read_table` reads again."""
    return json.dumps({'form': FORM, **vars(table)}).encode()


def read_table(data: bytes) -> Optional[Table]:
    """Read a table that was not damaged; None for one of another form."""
    value = json.loads(data)
    if value.pop('form') != FORM:
        return None
    return Table(**value)


def scan(data: bytes) -> Optional[Table]:
    """Read an index; None where in doubt, and where it is no JSON."""
    try:
        # What follows reads bytes as characters, so that it can count them.
        if not data.isascii():
            data.decode()
        return _Scanner(data.decode('latin-1')).read()
    except (_Doubt, ValueError, RecursionError):
        return None


class _Doubt(Exception):
    """The document is unusual, or wrong."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._key_at = 0
        self._table = Table()
        self._searchable = '\\' not in text

    def read(self) -> Table:
        seen = 0
        for key in self._members():
            if key == 'templates' and self._is_object():
                seen += 1
                for template in self._members():
                    self._read_template(template)
            elif key in self._table.head:
                raise _Doubt
            else:
                self._table.head[key] = self._value()
        _refuse_doubled(self._table.templates)
        if (
            seen + ('templates' in self._table.head) > 1
            or not _END(self._text, self._at)
        ):
            raise _Doubt
        return replace(self._table, searchable=self._searchable)

    def _read_template(self, template: str) -> None:
        table, begin, rows = self._table, self._at, len(self._table.versions)
        extra: Dict[str, Any] = {}
        seen = 0
        for key in self._members() if self._is_object() else ():
            if key == 'versions' and self._is_object():
                seen += 1
                self._read_versions()
            else:
                extra[key] = self._value()
        if seen + ('versions' in extra) > 1:
            raise _Doubt
        table.templates.append(template)
        table.counts.append(len(table.versions) - rows)
        if not seen:
            self._at = begin
            table.odd[template] = self._value()
        elif extra:
            table.extra[template] = extra

    def _read_versions(self) -> None:
        table, rows = self._table, len(self._table.versions)
        for version in self._members():
            entry, self._at = _decode(self._text, self._at)
            table.versions.append(version)
            table.starts.append(self._key_at)
            table.ends.append(self._at)
            table.ages.append(read_age(entry))
            if isinstance(entry, dict):
                digest = entry.get(SEARCHED)
                # Another case would not be found.
                if isinstance(digest, str) and digest != digest.lower():
                    self._searchable = False
        _refuse_doubled(table.versions[rows:])

    def _members(self) -> Iterator[str]:
        """Yield the keys of an object; each value is read meanwhile."""
        match = _FIRST(self._text, self._at)
        while match is not None:
            self._at = match.end()
            key = match[1]
            if key is None:
                return
            self._key_at = match.start(1) - 1
            yield key if key.isascii() else _as_text(key)
            match = _NEXT(self._text, self._at)
        raise _Doubt

    def _is_object(self) -> bool:
        return self._text.startswith('{', self._at)

    def _value(self) -> Any:
        begin = self._at
        value, self._at = _decode(self._text, begin)
        part = self._text[begin:self._at]
        return value if part.isascii() else json.loads(_as_text(part))


def _refuse_doubled(names: Sequence[str]) -> None:
    """Leave it to who reads all: for him the last one of a name counts."""
    if len(set(names)) < len(names):
        raise _Doubt


def _as_text(characters: str) -> str:
    """Return the text whose bytes were read as characters."""
    return characters.encode('latin-1').decode()
