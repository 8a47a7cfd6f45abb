"""Read JSON that somebody else has written: indexes, init files, sidecars.

What the standard reader does badly with a text that was made to harm, or was
merged badly: numbers of thousands of digits, and keys that stand twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, Iterator, List, Sequence, Tuple

from .model import show

#: In a message.
SHOWN = 4

#: A number with more digits is none that anybody means.
MAX_DIGITS = 400

#: The way to a value: keys of objects, numbers of list items from 0.
Way = Tuple[object, ...]

#: Strings, and what begins, divides and ends objects and lists.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:\n]', re.DOTALL)


def decode(data: bytes, **hooks: Any) -> Any:
    """Return what a document says; what is no number any more is infinite.

    Args:
        hooks: as for `json.loads`.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return json.loads(data, **hooks)
    except ValueError as error:
        if type(error) is not ValueError or hooks.get('parse_int'):
            raise
        # An integer of thousands of digits: it spoils its entry only.
        return json.loads(data, **hooks, parse_int=_read_int)


def _read_int(text: str) -> float:
    return int(text) if len(text) <= MAX_DIGITS else float(text)


class Written(str):
    """A number as it is written: `parse_int` and `parse_float`."""

    def value(self) -> float:
        """Return the number; raise ValueError where it is too long."""
        if len(self) > MAX_DIGITS:
            raise ValueError(
                f'a number of {len(self)} characters; expected are at most '
                f'{MAX_DIGITS}'
            )
        return int(self) if self.lstrip('-').isdigit() else float(self)


def settle(
    value: Any, texts: Collection[str], depth: int, key: str = ''
) -> Any:
    """Return a value with numbers for what is `Written`, but under `texts`.

    Raises:
        ValueError: a number is too long.
        RecursionError: it is nested deeper than that.
    """
    if depth < 0:
        raise RecursionError
    if isinstance(value, Written):
        return str(value) if key in texts else value.value()
    if isinstance(value, dict):
        return {
            name: settle(each, texts, depth - 1, name)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [settle(each, texts, depth - 1) for each in value]
    return value


def text_of(data: bytes) -> str:
    """Return a document as the text that `json.loads` reads."""
    return data.decode(json.detect_encoding(data), 'surrogatepass')


@dataclass(frozen=True)
class Doubled:
    """A key that stands more than once in one object.

    Attributes:
        way: to the object.
        lines: of all its places, from 1.
    """

    way: Way
    key: str
    lines: Tuple[int, ...]

    @property
    def place(self) -> str:
        """The way to the object, in words."""
        return ''.join(f'/{step}' for step in self.way) or 'the document'

    @property
    def where(self) -> str:
        """The lines, in words."""
        first, last = self.lines[:-1], self.lines[-1]
        at = ', '.join(map(str, first[:SHOWN]))
        more = ' ...' if len(first) > SHOWN else ''
        return f'lines {at}{more} and {last}'


def describe(doubled: Sequence[Doubled]) -> str:
    """Return a message of keys that stand twice; it names a few."""
    said = [
        f'{each.place}: {show(each.key)} in {each.where}'
        for each in doubled[:SHOWN]
    ]
    if len(doubled) > SHOWN:
        said.append(f'{len(doubled) - SHOWN} more')
    return f'only the last one counts of what stands twice: {"; ".join(said)}'


@dataclass
class _Level:
    """An object or a list that is being read."""

    is_object: bool
    key: str = ''
    count: int = 0
    lines: Dict[str, List[int]] = field(default_factory=dict)

    @property
    def step(self) -> object:
        return self.key if self.is_object else self.count


def decode_noting(
    data: bytes, **hooks: Any
) -> Tuple[Any, Tuple[Doubled, ...]]:
    """As `decode`; return the keys that stand twice, too.

    All but the last one of a key are lost to whoever reads the document.
    """
    doubled = False

    def make(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
        nonlocal doubled
        made = dict(pairs)
        doubled = doubled or len(made) < len(pairs)
        return made

    found = decode(data, object_pairs_hook=make, **hooks)
    return found, tuple(_find_doubled(data)) if doubled else ()


def _find_doubled(data: bytes) -> Iterator[Doubled]:
    """Find the places of the keys in a document that can be read."""
    levels: List[_Level] = []
    line, text = 1, ''
    for token in _TOKEN.findall(text_of(data)):
        if token == '\n':
            line += 1
        elif token in '{[':
            levels.append(_Level(token == '{'))
        elif token in '}]':
            done = levels.pop()
            way = tuple(level.step for level in levels)
            for key, lines in done.lines.items():
                if len(lines) > 1:
                    yield Doubled(way, key, tuple(lines))
        elif token == ',':
            levels[-1].count += 1
        elif token == ':':
            levels[-1].key = json.loads(text)
            levels[-1].lines.setdefault(levels[-1].key, []).append(line)
        else:
            text = token
