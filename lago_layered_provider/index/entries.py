"""The templates of a large index, each entry read when it is asked for.

They look like the object that JSON has in their place, and hold nothing but
the document's bytes and its table (`index_scan`).
"""

from __future__ import annotations

import bisect
import itertools
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from ..core import json_text
from .scan import Table

#: Template, version, and the entry as it stands.
Entry = Tuple[str, str, Any]


class Versions(Mapping[str, Any]):
    """The versions of one template: the rows from `first` up to `last`."""

    def __init__(
        self, data: bytes, table: Table, first: int, last: int
    ) -> None:
        self._data = data
        self._table = table
        self._first = first
        self._last = last

    def __len__(self) -> int:
        return self._last - self._first

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.versions[self._first:self._last])

    def __contains__(self, version: object) -> bool:
        return self._row(version) is not None

    def __getitem__(self, version: str) -> Any:
        row = self._row(version)
        if row is None:
            raise KeyError(version)
        return read_row(self._data, self._table, row)

    def _row(self, version: Any) -> Optional[int]:
        try:
            return self._table.versions.index(
                version, self._first, self._last
            )
        except ValueError:
            return None

    def ages(self) -> List[float]:
        """Return the timestamps in the order of the versions."""
        return self._table.ages[self._first:self._last]


class Templates(Mapping[str, Any]):
    """What stands under `templates` in the document `data`."""

    def __init__(self, data: bytes, table: Table) -> None:
        self._data = data
        self.table = table
        ends = itertools.accumulate(table.counts)
        self._rows = dict(zip(table.templates, zip(table.counts, ends)))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, template: object) -> bool:
        return template in self._rows

    def __getitem__(self, template: str) -> Any:
        count, last = self._rows[template]
        if template in self.table.odd:
            return self.table.odd[template]
        versions = Versions(self._data, self.table, last - count, last)
        return {**self.table.extra.get(template, {}), 'versions': versions}

    def holding(self, text: str) -> Iterator[Entry]:
        """Yield the entries that may name a text: those that hold it.

        Where the bytes do not tell, these are all of them.
        """
        table = self.table
        ends = list(itertools.accumulate(table.counts))
        for row in self._find(text):
            template = table.templates[bisect.bisect_right(ends, row)]
            entry = read_row(self._data, table, row)
            yield template, table.versions[row], entry

    def _find(self, text: str) -> Iterator[int]:
        """Yield the rows whose bytes hold a text, or all."""
        table = self.table
        if not table.searchable:
            yield from range(len(table.versions))
            return
        wanted = text.encode('utf-8', 'surrogatepass')
        at = self._data.find(wanted)
        while at >= 0:
            row = bisect.bisect_right(table.starts, at) - 1
            at += 1
            if row >= 0 and at <= table.ends[row]:
                yield row
                at = table.ends[row]
            at = self._data.find(wanted, at)


def read_row(data: bytes, table: Table, row: int) -> Any:
    """Return the entry in a row of the table."""
    found = json_text.decode(b'{%b}' % data[table.starts[row]:table.ends[row]])
    return found[table.versions[row]]
