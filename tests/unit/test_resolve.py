"""From indexes and wanted templates to chains."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Set, Tuple, Type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import BaseName, Digest, UNKNOWN
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.index.catalog import Catalog, Place, Unread
from lago_layered_provider.index.document import Index, parse_index
from lago_layered_provider.index.entry import parse_base
from lago_layered_provider.index.resolve import MAX_CHAIN_DEPTH, resolve
from tests.unit.strategies import (
    Forest,
    cyclic_forests,
    digest_of,
    faulty_forests,
    forests,
)

#: Image -> its base as the index has it, or its whole entry; later ones are
#: newer. `...` leaves the base out.
Graph = Mapping[str, Any]

DIGEST = digest_of('el7')


def lab(graph: Graph, name: str = 'lab') -> Index:
    """Publish a graph and read it back."""
    templates: Dict[str, Any] = {}
    for number, (image, base) in enumerate(graph.items()):
        template, version = image.split(':')
        entry = {
            'source': 'main', 'handle': f'{template}-{version}.qcow2',
            'timestamp': 10 * number,
        }
        if isinstance(base, dict):
            entry.update(base)
        elif base is not ...:
            entry['base'] = base
        versions = templates.setdefault(template, {'versions': {}})
        versions['versions'][version] = entry
    return parse_index(
        json.dumps({
            'name': name, 'sources': {'main': {'type': 'http'}},
            'templates': templates,
        }).encode(),
        f'http://{name}.invalid/repo.metadata',
    )


def ask(text: str) -> Wanted:
    """Read 'repository/template:version', the outer parts optional."""
    base = parse_base(text)
    assert isinstance(base, BaseName)
    return Wanted(base.template, base.version, base.repository)


def chains_of(catalog: Catalog, *wanted: str) -> List[str]:
    """Return each chain as one text, base first."""
    resolution = resolve(catalog, [ask(each) for each in wanted])
    assert not resolution.unknown
    return [
        ' '.join(image.ref.short for image in chain)
        for chain in resolution.chains
    ]


def tower(height: int) -> Graph:
    return {
        f't{number}:v1': f't{number - 1}:v1' if number else None
        for number in range(height)
    }


BASE_DIALECTS = {
    'null': None, 'empty': '', 'None': 'None',
    'libguestfs': 'libguestfs:centos-7.2', 'simple': 'simple:http://host/x',
}

CHAINS: Dict[str, Tuple[Graph, str, str]] = {
    'alone': ({'el7:v1': None}, 'el7:v1', 'el7:v1'),
    'linear': (
        {'a:v1': None, 'b:v1': 'a:v1', 'c:v1': 'b:v1'},
        'c:v1', 'a:v1 b:v1 c:v1',
    ),
    'middle of a line': (
        {'a:v1': None, 'b:v1': 'a:v1', 'c:v1': 'b:v1'}, 'b:v1', 'a:v1 b:v1',
    ),
    'listed top first': (
        {'c:v1': 'b:v1', 'b:v1': 'a:v1', 'a:v1': None},
        'c:v1', 'a:v1 b:v1 c:v1',
    ),
    'versions of one template': (
        {'a:v1': None, 'a:v2': 'a:v1', 'a:v3': 'a:v2'},
        'a:v3', 'a:v1 a:v2 a:v3',
    ),
    'newest wanted': (
        {'a:v1': None, 'a:v9': None, 'a:v2': None}, 'a', 'a:v2',
    ),
    'newest wanted, the last is faulty': (
        {'a:v1': None, 'a:v2': {'handle': '/x', 'base': None}}, 'a', 'a:v1',
    ),
    'base without version': (
        {'a:v1': None, 'b:v1': 'a'}, 'b:v1', 'a:v1 b:v1',
    ),
    'base without version: newest, but not newer': (
        {'a:v1': None, 'a:v2': None, 'b:v1': 'a', 'a:v3': None},
        'b:v1', 'a:v2 b:v1',
    ),
    'base without version: of the same age': (
        {
            'a:v1': {'base': None, 'timestamp': 5},
            'b:v1': {'base': 'a', 'timestamp': 5},
            'a:v2': {'base': None, 'timestamp': 6},
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'base without version: a single newer one': (
        {'b:v1': 'a', 'a:v1': None}, 'b:v1', 'a:v1 b:v1',
    ),
    'base without version: an older version of itself': (
        {'a:v1': None, 'a:v2': 'a', 'a:v3': 'a'}, 'a:v3', 'a:v1 a:v2 a:v3',
    ),
    'base without version: a faulty one is no choice': (
        {
            'a:v1': None, 'a:v2': {'source': 'nowhere', 'base': None},
            'b:v1': 'a',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'base with its own repository': (
        {'a:v1': None, 'b:v1': 'lab/a:v1'}, 'b:v1', 'a:v1 b:v1',
    ),
    'layer: path': (
        {'a:v1': None, 'b:v1': 'layer:specs/a-v1.qcow2'},
        'b:v1', 'a:v1 b:v1',
    ),
    'layer: URL with suffix': (
        {'a:v1': None, 'b:v1': 'layer:http://h/x/a-v1.qcow2.xz'},
        'b:v1', 'a:v1 b:v1',
    ),
    'layer: the handle has folders and the suffix': (
        {
            'a:v1': {'handle': 'x/y/el7.xz', 'base': None},
            'b:v1': 'layer:el7',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'layer: newest, but not newer': (
        {
            'a:v1': {'handle': '1/el7', 'base': None},
            'a:v2': {'handle': '2/el7', 'base': None},
            'b:v1': 'layer:el7',
            'a:v3': {'handle': '3/el7', 'base': None},
        },
        'b:v1', 'a:v2 b:v1',
    ),
    'layer: of the same age': (
        {
            'a:v1': {'handle': '1/el7', 'base': None, 'timestamp': 5},
            'a:v2': {'handle': '2/el7', 'base': None, 'timestamp': 6},
            'b:v1': {'base': 'layer:el7', 'timestamp': 5},
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'layer: a faulty neighbour has the same file name': (
        {
            'a:v1': {'handle': '1/el7', 'base': None},
            'x:v1': {'handle': '2/el7', 'base': None, 'size': -1},
            'b:v1': 'layer:el7',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'digest': (
        {'a:v1': {'sha512': DIGEST, 'base': None}, 'b:v1': f'{DIGEST}:x'},
        'b:v1', 'a:v1 b:v1',
    ),
    'digest with prefix': (
        {
            'a:v1': {'sha512': DIGEST, 'base': None},
            'b:v1': f'lago::{DIGEST}::x',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'digest in capitals in the base': (
        {
            'a:v1': {'sha512': DIGEST, 'base': None},
            'b:v1': f'lago::{DIGEST.upper()}::x',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'digest in capitals in the entry': (
        {
            'a:v1': {'sha512': DIGEST.upper(), 'base': None},
            'b:v1': f'lago::{DIGEST}::x',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'digest counts more than the name beside it': (
        {
            'a:v1': {'sha512': DIGEST, 'base': None},
            'c:v1': {'sha512': digest_of('c'), 'base': None},
            'b:v1': f'{DIGEST}:c',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'digest that no entry has: the name beside it': (
        {'a:v1': None, 'b:v1': f'{DIGEST}:a'}, 'b:v1', 'a:v1 b:v1',
    ),
    'digest: a faulty neighbour has the same': (
        {
            'a:v1': {'sha512': DIGEST, 'base': None},
            'x:v1': {'sha512': DIGEST, 'base': None, 'handle': '../x'},
            'b:v1': f'{DIGEST}:a',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    'as deep as allowed': (
        tower(MAX_CHAIN_DEPTH), f't{MAX_CHAIN_DEPTH - 1}:v1',
        ' '.join(tower(MAX_CHAIN_DEPTH)),
    ),
    'faulty neighbours everywhere': (
        {
            'a:v0': {'source': 'nowhere'}, 'a:v1': None, 'b:v0': '../x',
            'b:v1': 'a:v1', 'x:v1': 'x:v1', 'y:v1': 'not there',
        },
        'b:v1', 'a:v1 b:v1',
    ),
    **{
        f'bottom: {name}': ({'a:v1': base}, 'a:v1', 'a:v1')
        for name, base in BASE_DIALECTS.items()
    },
}


@pytest.mark.parametrize('graph, wanted, expected', CHAINS.values(),
                         ids=CHAINS)
def test_chains(graph: Graph, wanted: str, expected: str) -> None:
    assert chains_of(Catalog([lab(graph)]), wanted) == [expected]


#: Graph, wanted, error, and what its message must hold.
ERRORS: Dict[
    str, Tuple[Graph, str, Type[errors.LayeredError], List[str]]
] = {
    'no such template': (
        {'el7-base:v1': None}, 'el7-bose', errors.TemplateNotFound,
        ['el7-bose', 'lab', 'http://lab.invalid/', 'Nearest: el7-base'],
    ),
    'no such version': (
        {'el7:v7': None, 'el7:v8': None}, 'el7:v9', errors.TemplateNotFound,
        ['v9', 'el7', 'Nearest', 'v7', 'v8'],
    ),
    'no such repository': (
        {'el7:v1': None}, 'elsewhere/el7:v1', errors.TemplateNotFound,
        ['el7', 'elsewhere'],
    ),
    'nothing there at all': ({}, 'el7', errors.TemplateNotFound, ['el7']),
    'base missing': (
        {'b:v1': 'el7-base:v1', 'el7-bose:v1': None}, 'b:v1',
        errors.BaseNotFound, ['b:v1', 'el7-base:v1', 'Nearest: el7-bose'],
    ),
    'base missing further down: the path is shown': (
        {'b:v1': 'x:v1', 'c:v1': 'b:v1', 'd:v1': 'c:v1'}, 'd:v1',
        errors.BaseNotFound, ['d:v1', 'c:v1', 'b:v1', 'x:v1'],
    ),
    'version of base missing: the nearest are named': (
        {'el7:v7': None, 'el7:v8': None, 'b:x': 'el7:v9'}, 'b:x',
        errors.BaseNotFound, ['b:x', 'el7:v9', 'v7', 'v8'],
    ),
    'repository of base missing': (
        {'a:v1': None, 'b:v1': 'elsewhere/a:v1'}, 'b:v1',
        errors.BaseNotFound, ['b:v1', 'elsewhere/a:v1'],
    ),
    'file of base missing': (
        {'b:v1': 'layer:http://h/a.qcow2'}, 'b:v1', errors.BaseNotFound,
        ['b:v1', 'a.qcow2'],
    ),
    'an entry without handle has no file': (
        {'a:v1': {'handle': None}, 'b:v1': 'layer:None'}, 'b:v1',
        errors.BaseNotFound, ['b:v1'],
    ),
    'digest of base missing': (
        {'b:v1': f'{DIGEST}:a'}, 'b:v1', errors.BaseNotFound, ['b:v1', 'a'],
    ),
    'the name beside a digest has another digest': (
        {
            'a:v1': {'sha512': digest_of('other'), 'base': None},
            'b:v1': f'{DIGEST}:a',
        },
        'b:v1', errors.BaseNotFound, ['b:v1', DIGEST[:8]],
    ),
    'only newer versions, more than one': (
        {'b:v1': 'a', 'a:v1': None, 'a:v2': None}, 'b:v1',
        errors.AmbiguousBase, ['b:v1', 'a:v1', 'a:v2'],
    ),
    'only newer files, more than one': (
        {
            'b:v1': 'layer:el7', 'a:v1': {'handle': '1/el7'},
            'a:v2': {'handle': '2/el7'},
        },
        'b:v1', errors.AmbiguousBase, ['b:v1', 'a:v1', 'a:v2'],
    ),
    'on itself': (
        {'a:v1': 'a:v1'}, 'a:v1', errors.ChainCycle, ['a:v1 -> a:v1'],
    ),
    'on itself, version left out': (
        {'a:v1': 'a'}, 'a:v1', errors.ChainCycle, ['a:v1 -> a:v1'],
    ),
    'on itself, version left out; another one has a file of that name': (
        {'x:v1': {'handle': '1/a', 'base': None}, 'a:v1': 'a'}, 'a:v1',
        errors.ChainCycle, ['a:v1 -> a:v1'],
    ),
    'on itself, by file': (
        {'a:v1': 'layer:a-v1.qcow2'}, 'a:v1', errors.ChainCycle,
        ['a:v1 -> a:v1'],
    ),
    'on itself, by digest': (
        {'a:v1': {'sha512': DIGEST, 'base': f'{DIGEST}:a'}}, 'a:v1',
        errors.ChainCycle, ['a:v1 -> a:v1'],
    ),
    'circle of two': (
        {'a:v1': 'b:v1', 'b:v1': 'a:v1'}, 'a:v1', errors.ChainCycle,
        ['a:v1 -> b:v1 -> a:v1'],
    ),
    'circle of three': (
        {'a:v1': 'c:v1', 'b:v1': 'a:v1', 'c:v1': 'b:v1'}, 'b:v1',
        errors.ChainCycle, ['b:v1 -> a:v1 -> c:v1 -> b:v1'],
    ),
    'circle further down': (
        {'a:v1': 'b:v1', 'b:v1': 'a:v1', 'c:v1': 'b:v1', 'd:v1': 'c:v1'},
        'd:v1', errors.ChainCycle,
        ['d:v1 -> c:v1 -> b:v1 -> a:v1 -> b:v1'],
    ),
    'circle of all spellings': (
        {
            'a:v1': 'layer:http://h/b-v1.qcow2.xz', 'b:v1': 'lab/c',
            'c:v1': f'lago::{DIGEST}::x', 'd:v1': {
                'sha512': DIGEST, 'base': 'a:v1',
            },
        },
        'a:v1', errors.ChainCycle,
        ['a:v1 -> b:v1 -> c:v1 -> d:v1 -> a:v1'],
    ),
    'too deep by one': (
        tower(MAX_CHAIN_DEPTH + 1), f't{MAX_CHAIN_DEPTH}:v1',
        errors.ChainTooDeep, [f't{MAX_CHAIN_DEPTH}:v1', ' -> '],
    ),
    'wanted entry is faulty': (
        {'a:v1': {'base': None, 'size': -1, 'handle': '/x'}, 'b:v1': None},
        'a:v1', errors.IndexFaults, ['a:v1', 'size', 'handle'],
    ),
    'all versions are faulty': (
        {'a:v1': {'size': -1}, 'a:v2': {'size': -1}}, 'a',
        errors.IndexFaults, ['a:v', 'size'],
    ),
    'entry of the base is faulty': (
        {'a:v1': {'source': 'nowhere', 'base': None}, 'b:v1': 'a:v1'},
        'b:v1', errors.IndexFaults, ['a:v1', "'nowhere'"],
    ),
}


@pytest.mark.parametrize('graph, wanted, error, words', ERRORS.values(),
                         ids=ERRORS)
def test_errors(
    graph: Graph, wanted: str, error: Type[errors.LayeredError],
    words: List[str],
) -> None:
    with pytest.raises(error) as caught:
        chains_of(Catalog([lab(graph)]), wanted)
    for word in words:
        assert word in str(caught.value)


def test_the_depth_is_that_of_the_design() -> None:
    assert MAX_CHAIN_DEPTH == 32


def test_the_path_of_a_circle_is_data_too() -> None:
    with pytest.raises(errors.ChainCycle) as caught:
        chains_of(Catalog([lab({'a:1': 'b:1', 'b:1': 'a:1'})]), 'a')
    assert caught.value.path == ('a:1', 'b:1', 'a:1')


def test_two_tops_on_one_base() -> None:
    graph = {'a:v1': None, 'b:v1': 'a:v1', 'c:v1': 'a:v1', 'd:v1': None}
    assert chains_of(Catalog([lab(graph)]), 'c', 'b', 'd', 'c') == [
        'a:v1 c:v1', 'a:v1 b:v1', 'd:v1', 'a:v1 c:v1'
    ]


def test_nothing_wanted() -> None:
    assert chains_of(Catalog([lab({})])) == []


# Several repositories.

def test_the_first_repository_that_has_the_template_wins() -> None:
    first = lab({'a:v1': None, 'b:v1': None}, 'first')
    second = lab({'a:v1': None, 'a:v2': None, 'c:v1': None}, 'second')
    catalog = Catalog([first, second])
    assert catalog.find(Wanted('a')).ref.repository == 'first'
    assert catalog.find(Wanted('c')).ref.repository == 'second'
    assert catalog.find(Wanted('a', None, 'second')).ref.version == 'v2'
    assert catalog.find(Wanted('a', 'v2')).ref.repository == 'second'
    with pytest.raises(errors.TemplateNotFound, match='v3.*first.*second'):
        catalog.find(Wanted('a', 'v3'))
    with pytest.raises(errors.TemplateNotFound, match='first.*second'):
        catalog.find(Wanted('x'))
    assert catalog.index_of(catalog.find(Wanted('c'))) is second


def read_as_needed(
    places: List[Place], indexes: Dict[str, Index], *wanted: str
) -> Tuple[List[str], List[str]]:
    """Return the chains, and the names of what was read, in order."""
    catalog = Catalog(places)
    read: List[str] = []
    while True:
        resolution = resolve(catalog, [ask(each) for each in wanted])
        if resolution.needed is None:
            return chains_of(catalog, *wanted), read
        place = resolution.needed.place
        read.append(place.location)
        catalog = catalog.with_index(place, indexes[place.location])


FAR = {
    'one': lab({'a:v1': None, 'b:v1': 'far:v1'}, 'first'),
    'two': lab({'a:v1': None, 'c:v1': None, 'far:v1': None}, 'second'),
    'three': lab({'d:v1': 'second/c:v1', 'c:v1': None}, 'third'),
}


@pytest.mark.parametrize('wanted, chain, read', [
    ('a:v1', 'a:v1', ['one']),
    ('c', 'c:v1', ['one', 'two']),
    ('b', 'far:v1 b:v1', ['one', 'two']),
    ('d', 'c:v1 d:v1', ['one', 'two', 'three']),
    ('third/c', 'c:v1', ['three']),
    ('second/c', 'c:v1', ['one', 'two']),
])
def test_only_what_is_needed_is_read(
    wanted: str, chain: str, read: List[str]
) -> None:
    places: List[Place] = [
        Unread('one'), Unread('two'), Unread('three', 'third')
    ]
    assert read_as_needed(places, FAR, wanted) == ([chain], read)


def test_all_is_read_before_something_is_missing() -> None:
    with pytest.raises(errors.TemplateNotFound, match='first.*second.*third'):
        read_as_needed(
            [Unread('one'), Unread('two'), Unread('three')], FAR, 'x'
        )
    with pytest.raises(errors.TemplateNotFound, match="repository 'x'"):
        read_as_needed([Unread('one'), Unread('three', 'third')], FAR, 'x/a')


def test_a_repository_by_its_location() -> None:
    catalog = Catalog([FAR['one'], FAR['two']])
    where = 'http://second.invalid/repo.metadata'
    assert catalog.find(Wanted('a', None, where)).location == where
    with pytest.raises(errors.TemplateNotFound, match='second'):
        catalog.find(Wanted('b', None, where))


def test_repositories_of_the_same_name() -> None:
    one = replace(lab({'a:v1': None, 'top:v1': 'a:v1'}), location='one')
    two = replace(lab({'a:v1': None, 'x:v1': 'lab/a:v1'}), location='two')
    catalog = Catalog([one, two])
    for wanted, where in (
        (Wanted('top'), 'one'), (Wanted('x'), 'two'),
        (Wanted('a', None, 'two'), 'two'), (Wanted('a', None, 'lab'), 'one'),
    ):
        chain, = resolve(catalog, [wanted]).chains
        assert {image.location for image in chain} == {where}
        assert catalog.index_of(chain.top).location == where


def test_a_wanted_digest() -> None:
    other = digest_of('other')
    catalog = Catalog([
        lab({'a:v1': {'sha512': other}}, 'first'),
        lab({'a:v1': {'sha512': DIGEST}, 'b:v1': None}, 'second'),
    ])
    wanted = Wanted('a', 'v1', digest=Digest('sha512', DIGEST))
    assert catalog.find(wanted).ref.repository == 'second'
    with pytest.raises(errors.TemplateNotFound, match='published again'):
        catalog.find(replace(wanted, repository='first'))
    # Nothing is known of this one; the transfer will tell.
    assert catalog.find(replace(wanted, template='b')).ref.template == 'b'


def test_a_base_in_another_repository() -> None:
    catalog = Catalog([
        lab({'a:v1': None, 'top:v1': 'other/a:v1'}, 'lab'),
        lab({'a:v1': 'b:v1', 'b:v1': None}, 'other'),
    ])
    chain, = resolve(catalog, [Wanted('top')]).chains
    assert [str(image.ref) for image in chain] == [
        'other:b:v1', 'other:a:v1', 'lab:top:v1'
    ]


@pytest.mark.parametrize('base', [
    'a:v1', 'a', 'layer:a-v1.qcow2', f'{DIGEST}:a',
], ids=['name and version', 'name', 'file', 'digest'])
def test_a_base_comes_from_its_own_repository_first(base: str) -> None:
    a = {'a:v1': {'base': None, 'sha512': DIGEST}}
    catalog = Catalog([
        lab({'x:v1': None, **a}, 'first'),
        lab({**a, 'y:v1': None, 'top:v1': base}, 'own'),
        lab({'x:v1': None, **a}, 'last'),
    ])
    chain, = resolve(catalog, [Wanted('top')]).chains
    assert [str(image.ref) for image in chain] == ['own:a:v1', 'own:top:v1']


# What the index does not say.

def test_what_must_be_looked_up_first() -> None:
    catalog = Catalog([lab({
        'a:v1': ..., 'b:v1': 'a:v1', 'c:v1': 'b:v1', 'd:v1': ..., 'e:v1': ...,
    })])
    wanted = [Wanted('c'), Wanted('b'), Wanted('d')]
    resolution = resolve(catalog, wanted)
    assert resolution.chains == ()
    assert [image.ref.short for image in resolution.unknown] == [
        'a:v1', 'd:v1'
    ]


def test_what_was_looked_up_counts() -> None:
    catalog = Catalog([lab({'x:v1': ..., 'a:v1': ..., 'b:v1': 'a'})])
    bottom, = resolve(catalog, [Wanted('b')]).unknown
    catalog = catalog.with_known([replace(bottom, base=BaseName('x', 'v1'))])
    below, = resolve(catalog, [Wanted('b')]).unknown
    assert below.ref.short == 'x:v1'
    catalog = catalog.with_known([replace(below, base=None, size=7)])
    chain, = resolve(catalog, [Wanted('b')]).chains
    assert [image.ref.short for image in chain] == ['x:v1', 'a:v1', 'b:v1']
    assert chain.images[0].size == 7


def test_a_circle_that_shows_only_when_looked_up() -> None:
    catalog = Catalog([lab({'a:v1': ..., 'b:v1': 'a:v1'})])
    bottom, = resolve(catalog, [Wanted('b')]).unknown
    catalog = catalog.with_known([replace(bottom, base=BaseName('b', 'v1'))])
    with pytest.raises(errors.ChainCycle):
        resolve(catalog, [Wanted('b')])


def test_knowledge_makes_a_new_catalog() -> None:
    catalog = Catalog([lab({'a:v1': ...})])
    image = catalog.find(Wanted('a'))
    catalog.with_known([replace(image, base=None)])
    assert catalog.find(Wanted('a')).base is UNKNOWN


# Large indexes: counted, not timed.

class Spy(Dict[str, Any]):
    """An entry that knows whether all of it was asked for."""

    def __init__(self, name: str, seen: Set[str], entry: Dict[str, Any]):
        super().__init__(entry)
        self._note = name, seen

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def get(self, key: str, default: Any = None) -> Any:
        # Who reads an entry in full asks for the source; who searches by
        # file name, digest or age does not.
        if key == 'source':
            name, seen = self._note
            seen.add(name)
        return super().get(key, default)


class Versions(Dict[str, Any]):
    """Versions that are gone through only so often."""

    left = 50

    def __iter__(self) -> Iterator[str]:
        self.left -= 1
        if not self.left:
            pytest.fail('all versions are gone through again and again')
        return super().__iter__()


@dataclass(frozen=True)
class Crowd:
    """100,000 good entries, by version; `seen` is what was read in full."""

    entries: Dict[str, Spy]
    seen: Set[str]

    def catalog(self, graph: Graph, *, one_template: str = '') -> Catalog:
        """Put a graph among them, in many templates or all in one."""
        self.seen.clear()
        templates: Dict[str, Any] = (
            {one_template: {'versions': Versions(self.entries)}}
            if one_template else {
                f't{version}': {'versions': {version: entry}}
                for version, entry in self.entries.items()
            }
        )
        for age, (image, base) in enumerate(graph.items()):
            name, version = image.split(':')
            versions = templates.setdefault(name, {'versions': {}})
            versions['versions'][version] = Spy(image, self.seen, {
                'source': 'main', 'handle': f'{name}-{version}.qcow2',
                'timestamp': age, 'base': base, 'sha512': digest_of(image),
            })
        sources = {'main': {'type': 'http'}}
        return Catalog([Index('lab', 'memory', sources, templates)])


@pytest.fixture(name='crowd', scope='module')
def fixture_crowd() -> Crowd:
    seen: Set[str] = set()
    entries = {}
    for number in range(100_000):
        version = f'w{number}'
        entries[version] = Spy(version, seen, {
            'source': 'main', 'handle': version, 'timestamp': -1 - number,
            'base': None, 'sha512': f'{number:0128x}',
        })
    return Crowd(entries, seen)


CROWDS = {
    'by name': ({'a:v1': None, 'b:v1': 'a:v1', 'c:v1': 'b:v1'}, 'c:v1'),
    'without versions': ({'a:v1': None, 'b:v1': 'a', 'c:v1': 'b'}, 'c'),
    'by file': ({'a:v1': None, 'c:v1': 'layer:h/a-v1.qcow2.xz'}, 'c:v1'),
    'by digest': ({'a:v1': None, 'c:v1': f'{digest_of("a:v1")}:x'}, 'c:v1'),
}


@pytest.mark.parametrize('graph, wanted', CROWDS.values(), ids=CROWDS)
def test_among_many_templates(
    graph: Graph, wanted: str, crowd: Crowd
) -> None:
    assert chains_of(crowd.catalog(graph), wanted) == [' '.join(graph)]
    assert sorted(crowd.seen)[:9] == sorted(graph)


@pytest.mark.parametrize('base', ['c:v1', 'c', 'layer:c-v1.qcow2'])
def test_among_many_versions(base: str, crowd: Crowd) -> None:
    graph = {'c:v1': None, 'top:v1': base}
    catalog = crowd.catalog(graph, one_template='c')
    assert chains_of(catalog, 'top') == ['c:v1 top:v1']
    assert sorted(crowd.seen)[:9] == sorted(graph)


def test_the_newest_of_many_versions(crowd: Crowd) -> None:
    catalog = crowd.catalog({'c:v1': None}, one_template='c')
    assert chains_of(catalog, 'c') == ['c:v1']
    assert sorted(crowd.seen)[:9] == ['c:v1']


# Properties.

@given(forests(), st.data())
def test_any_forest(forest: Forest, data: st.DataObject) -> None:
    catalog = Catalog([parse_index(forest.data, 'memory')])
    wanted = data.draw(st.lists(st.sampled_from(sorted(forest.bases))))
    assert chains_of(catalog, *wanted) == [
        ' '.join(forest.chain(name)) for name in wanted
    ]


@given(cyclic_forests(), st.data())
def test_any_circle_is_named(
    case: Tuple[Forest, List[str]], data: st.DataObject
) -> None:
    forest, ring = case
    catalog = Catalog([parse_index(forest.data, 'memory')])
    with pytest.raises(errors.ChainCycle) as caught:
        chains_of(catalog, ring[0])
    assert list(caught.value.path) == ring + ring[:1]

    name = data.draw(st.sampled_from(sorted(forest.bases)))
    walk = [name]
    while True:
        below = forest.bases[walk[-1]]
        if below is None:
            assert chains_of(catalog, name) == [' '.join(reversed(walk))]
            return
        walk.append(below)
        if below in walk[:-1]:
            break
    with pytest.raises(errors.ChainCycle) as caught:
        chains_of(catalog, name)
    assert list(caught.value.path) == walk


@given(faulty_forests())
def test_a_faulty_image_spoils_only_what_stands_on_it(
    case: Tuple[Forest, str, List[str]]
) -> None:
    forest, victim, _ = case
    catalog = Catalog([parse_index(forest.data, 'memory')])
    for name in forest.bases:
        chain = forest.chain(name)
        if victim in chain:
            with pytest.raises((errors.IndexFaults, errors.BaseNotFound)):
                chains_of(catalog, name)
        else:
            assert chains_of(catalog, name) == [' '.join(chain)]
