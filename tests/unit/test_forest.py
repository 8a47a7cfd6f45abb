"""Which images stand on which: every image once, whatever the index says."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.index.catalog import Catalog
from lago_layered_provider.index.document import Index, parse_index
from lago_layered_provider.index.forest import (
    Forest, UNKNOWN_TITLE, grow_forest,
)

LETTERS = 'abcdefgh'
#: An index that says nothing of a base.
SILENT = object()


def make_index(bases: Mapping[str, object]) -> Index:
    """Return an index of images of one version, by what they stand on."""
    templates: Dict[str, Any] = {}
    for number, (name, base) in enumerate(bases.items()):
        entry = {'source': 's', 'handle': name, 'timestamp': number}
        if base is not SILENT:
            entry['base'] = base
        templates[name] = {'versions': {'v1': entry}}
    document = {
        'name': 'lab',
        'sources': {'s': {'type': 'file', 'args': {'root': '/'}}},
        'templates': templates,
    }
    return parse_index(json.dumps(document).encode(), '/lab')


def grow(bases: Mapping[str, object], *names: str) -> Forest:
    """Return the forest of some images, or of all."""
    index = make_index(bases)
    return grow_forest(
        [index.image(name, 'v1') for name in names or bases],
        Catalog([index]).base_of,
    )


def shown(forest: Forest) -> Dict[str, List[str]]:
    """Return the names below each group and each image."""
    found = {
        title: [image.ref.template for image in images]
        for title, images in forest.groups.items()
    }
    for (_, ref), images in forest.above.items():
        found[ref.template] = [image.ref.template for image in images]
    return found


@pytest.mark.parametrize('bases, expected', [
    ({'a': None}, {'': ['a']}),
    ({'b': 'a', 'a': None, 'c': 'a:v1'}, {'': ['a'], 'a': ['c', 'b']}),
    ({'a': SILENT, 'b': 'a:v1'}, {UNKNOWN_TITLE: ['a'], 'a': ['b']}),
    ({'a': 'x:v1', 'b': 'a:v1'},
     {'x:v1 (in no repository)': ['a'], 'a': ['b']}),
    ({'a': 'a:v1'}, {'a:v1 -> a:v1 (a circle)': ['a']}),
    ({'a': 'b:v1', 'b': 'a:v1', 'c': 'b:v1'},
     {'a:v1 -> b:v1 -> a:v1 (a circle)': ['a', 'b'], 'b': ['c']}),
    ({'c': 'b:v1', 'b': 'a:v1', 'a': 'c:v1'},
     {'a:v1 -> c:v1 -> b:v1 -> a:v1 (a circle)': ['a', 'b', 'c']}),
])
def test_forests(
    bases: Mapping[str, object], expected: Mapping[str, List[str]]
) -> None:
    names = {
        key: sorted(value) for key, value in shown(grow(bases)).items()
    }
    assert names == {key: sorted(value) for key, value in expected.items()}


def test_what_an_image_stands_on_comes_along() -> None:
    bases = {'a': None, 'b': 'a:v1', 'c': 'b:v1', 'other': 'a:v1'}
    assert shown(grow(bases, 'c')) == {'': ['a'], 'a': ['b'], 'b': ['c']}


def test_a_deep_chain() -> None:
    bases: Dict[str, Optional[str]] = {'n0': None}
    bases.update((f'n{i}', f'n{i - 1}:v1') for i in range(1, 3000))
    assert len(grow(bases).images) == 3000


@given(st.dictionaries(
    st.sampled_from(LETTERS),
    st.one_of(
        st.none(), st.just(SILENT),
        st.sampled_from([f'{letter}:v1' for letter in LETTERS]),
    ),
    min_size=1,
))
def test_every_image_is_there_once(bases: Mapping[str, object]) -> None:
    forest = grow(bases)
    names = [image.ref.template for image in forest.images]
    assert sorted(names) == sorted(bases)
    # And each of them is below a group: nothing hangs in the air.
    reached = [image for group in forest.groups.values() for image in group]
    for image in reached:
        reached.extend(forest.above.get(image.key, ()))
    assert sorted(image.ref.template for image in reached) == sorted(bases)
