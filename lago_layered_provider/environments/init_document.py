"""Load an init file, in the place of Lago's own function.

What Lago gets is what it would load itself, except for what a reader of YAML
or JSON loses: names and versions of templates are the text as written (7.10
is no number), and a prototype that is named is that prototype. Who wrote the
file does not decide how much time and memory it takes.
"""

from __future__ import annotations

import json
from typing import (
    Any, Callable, Dict, Iterator, List, TextIO, Tuple, Union,
)

import yaml

from ..core import errors, json_text
from ..core.initfile import TEXTS, Way, apply_prototypes
from ..core.json_text import Doubled, MAX_DIGITS, Written
from ..core.model import show

MAX_LENGTH = 2**20  # characters
MAX_DEPTH = 40
#: An alias counts as what it stands for.
MAX_VALUES = 200_000

_NULL, _TEXT = 'tag:yaml.org,2002:null', 'tag:yaml.org,2002:str'
_MERGE = 'tag:yaml.org,2002:merge'
_NUMBERS = ('tag:yaml.org,2002:int', 'tag:yaml.org,2002:float')


def load_init_file(
    stream: TextIO, document: str, warn: Callable[[str], None]
) -> Any:
    """Return the data of an init file, as Lago wants it.

    Args:
        document: its name, for messages.
        warn: called for keys that stand twice.

    Raises:
        IndexFaults: it is neither JSON nor YAML, or too much of it.
    """
    try:
        text = stream.read(MAX_LENGTH + 1)
        if len(text) > MAX_LENGTH:
            raise ValueError(f'has more than {MAX_LENGTH} characters')
        data, doubled = _load(text)
    except RecursionError:
        fault = 'is nested too deeply'
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        fault = f'is neither JSON nor YAML: {error}'
    except ValueError as error:
        fault = str(error)
    else:
        if doubled:
            warn(f'{document}: {json_text.describe(doubled)}')
        return apply_prototypes(data)
    raise errors.IndexFaults(document, [fault])


def _load(text: str) -> Tuple[Any, Tuple[Doubled, ...]]:
    try:
        data, doubled = json_text.decode_noting(
            text.encode('utf-8', 'surrogatepass'),
            parse_int=Written, parse_float=Written,
        )
    except json.JSONDecodeError:
        return _load_yaml(text)
    return json_text.settle(data, TEXTS, MAX_DEPTH), doubled


def _load_yaml(text: str) -> Tuple[Any, Tuple[Doubled, ...]]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, ()
        checker = _Checker()
        checker.check(node)
        data = _separate(loader.construct_document(node))
        return data, tuple(checker.doubled)
    finally:
        loader.dispose()


def _separate(value: Any) -> Any:
    """Return data without two places that are one, as aliases make them.

    Lago writes into each VM what is of that VM alone, its name first.
    """
    if isinstance(value, dict):
        return {key: _separate(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_separate(each) for each in value]
    return value


class _Loader(yaml.SafeLoader):
    """Makes an error of what fits no tag, with its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (
            ValueError, KeyError, IndexError, AttributeError, OverflowError
        ):
            raise yaml.constructor.ConstructorError(
                None, None,
                f'{show(node.value)} is no {node.tag.rpartition(":")[2]}',
                node.start_mark,
            ) from None


class _Checker:
    """Measures a document before anything is made of it.

    Versions and names of templates become texts on the way.
    """

    def __init__(self) -> None:
        self.doubled: List[Doubled] = []
        self._sizes: Dict[int, Tuple[int, int]] = {}

    def check(self, node: Any, way: Way = ()) -> Tuple[int, int]:
        """Return how many values a node holds, and how deep.

        Raises:
            ValueError, RecursionError: it is too much.
        """
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
                raise ValueError(
                    f'line {_line(node)}: a number of {len(node.value)} '
                    f'characters; expected are at most {MAX_DIGITS}'
                )
            return 1, 0
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._sizes[id(node)] = MAX_VALUES, 0  # of what stands in itself
        size, height = 1, 0
        for step, child in self._children(node, way):
            inner, below = self.check(child, (*way, step))
            size, height = size + inner, max(height, below + 1)
            if size > MAX_VALUES:
                raise ValueError(
                    f'line {_line(child)}: more than {MAX_VALUES} values '
                    f'with all that the aliases stand for'
                )
            if height > MAX_DEPTH:
                raise RecursionError
        self._sizes[id(node)] = size, height
        return size, height

    def _children(
        self, node: Any, way: Way
    ) -> Iterator[Tuple[Union[str, int], Any]]:
        if isinstance(node, yaml.SequenceNode):
            yield from enumerate(node.value)
            return
        lines: Dict[str, List[int]] = {}
        for number, (key, value) in enumerate(node.value):
            name = str(key.value)
            if key.tag != _MERGE:
                lines.setdefault(name, []).append(_line(key))
            if name in TEXTS and isinstance(value, yaml.ScalarNode) and (
                value.tag != _NULL
            ):
                value = yaml.ScalarNode(
                    _TEXT, value.value, value.start_mark, value.end_mark
                )
                node.value[number] = key, value
            if not isinstance(key, yaml.ScalarNode):
                yield name, key
            yield name, value
        self.doubled += [
            Doubled(way, name, tuple(found))
            for name, found in lines.items() if len(found) > 1
        ]


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
