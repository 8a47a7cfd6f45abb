"""Locks: the document, and pinned chains against catalogs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.core.lock_document import (
    Lock, Wish, find_change, format_lock, parse_lock,
)
from lago_layered_provider.core.model import Digest, ImageRef
from lago_layered_provider.core.wanted import Pin, Pins
from lago_layered_provider.environments.find_locked import Pinned, find_pinned
from lago_layered_provider.environments.lock_file import read_lock, write_lock
from lago_layered_provider.index.catalog import Catalog, Place, Unread
from lago_layered_provider.index.document import parse_index
from tests.unit.strategies import digest_of as sha512_of

HERE = 'http://lab.invalid/repo.metadata'


def digest_of(content: str) -> Digest:
    return Digest('sha512', sha512_of(content))


def pin(name: str, content: str = '', location: str = HERE) -> Pin:
    """Return the pin of lab/NAME with a digest of its content."""
    template, version = name.split(':')
    return Pin(
        ImageRef('lab', template, version), (digest_of(content or name), ),
        location,
    )


BASE, NFS, ISCSI = pin('base:v1'), pin('nfs:v1'), pin('iscsi:v1')
LOCK: Lock = {
    Wish('nfs'): (BASE, NFS),
    Wish('../two.json/base:v1'): (BASE, ),
    Wish('base:v1', str(BASE.digests[0])): (BASE, ),
}


# The document

def test_round_trip() -> None:
    text = format_lock(LOCK)
    assert parse_lock(text.encode(), 'lock') == LOCK
    backwards = dict(reversed(list(LOCK.items())))
    assert format_lock(backwards) == text
    assert text.endswith('}\n')
    assert [
        entry['wanted'] for entry in json.loads(text)['templates']
    ] == ['../two.json/base:v1', 'base:v1', 'nfs']


def test_what_a_killed_writer_has_left_beside_an_init_file_goes(
    tmp_path: Path
) -> None:
    (tmp_path / '.0123456789abcdef.tmp').touch()
    write_lock(str(tmp_path / 'LagoInitFile'), LOCK)
    assert [path.name for path in tmp_path.iterdir()] == ['LagoInitFile.lock']
    assert read_lock(str(tmp_path / 'LagoInitFile')) == LOCK


def test_strongest_digest_first() -> None:
    weak = Digest('sha1', '0' * 40)
    lock = {Wish('base'): (replace(BASE, digests=(weak, *BASE.digests)), )}
    text = format_lock(lock)
    assert text.index(BASE.digests[0].algorithm) < text.index('sha1"')
    [found] = parse_lock(text.encode(), 'lock')[Wish('base')]
    assert found.digests == (*BASE.digests, weak)


@given(st.integers(0, len(format_lock(LOCK)) - 3))
def test_a_lock_that_was_cut(length: int) -> None:
    with pytest.raises(IndexFaults, match='line [0-9]+ column'):
        parse_lock(format_lock(LOCK)[:length].encode(), 'lock')


@given(st.binary(max_size=200))
def test_anything_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(IndexFaults):
        parse_lock(data, 'lock')


def with_image(**changes: Any) -> Dict[str, Any]:
    """Return a lock whose top image has other values."""
    lock: Dict[str, Any] = json.loads(format_lock({Wish('nfs'): (BASE, NFS)}))
    lock['templates'][0]['chain'][1].update(changes)
    return lock


def with_entry(**changes: Any) -> Dict[str, Any]:
    lock = with_image()
    lock['templates'][0].update(changes)
    return lock


CHAIN = with_image()['templates'][0]['chain']

FAULTS: List[Tuple[Any, str]] = [
    ([], r'\[\] is not a JSON object'),
    ({}, 'format is None, expected is 1'),
    ({'format': 2}, 'format is 2'),
    ({'format': 1}, 'templates is None'),
    ({'format': 1, 'templates': {}}, 'expected is a list'),
    ({'format': 1, 'templates': ['nfs']}, "template 1: 'nfs' is not an"),
    (with_entry(wanted=7), 'wanted is 7'),
    (with_entry(wanted=''), "wanted is ''"),
    (with_entry(digest=7), 'digest is 7'),
    (with_entry(chain={}), 'chain is {}'),
    (with_entry(chain=[]), 'nfs: chain is'),
    (with_entry(chain=[7]), 'image 1: 7 is not an object'),
    (with_entry(chain=CHAIN[::-1]), 'last image of its chain is lab/base'),
    (with_entry(wanted='nfs:v2'), 'last image of its chain is lab/nfs:v1'),
    (with_image(repository='../x'), "nfs, image 2: repository '../x'"),
    (with_image(template=['nfs']), 'template '),
    (with_image(version=None), 'version None'),
    (with_image(location=3), 'location is 3'),
    (with_image(digests=None), 'digests is None'),
    (with_image(digests={}), 'there is no digest'),
    (with_image(digests={'sha1': 5}), 'digests is '),
    (with_image(digests={'md5': '0' * 32}), "unknown digest 'md5'"),
    (with_image(digests={'sha1': 'abc'}), 'not 40 hexadecimal'),
    (
        {'format': 1, 'templates': 2 * with_image()['templates']},
        'nfs is there twice',
    ),
]


@pytest.mark.parametrize('document, words', FAULTS)
def test_faults(document: Any, words: str) -> None:
    data = json.dumps(document).encode()
    with pytest.raises(IndexFaults, match=words):
        parse_lock(data, 'lock')


def test_all_faults_with_their_lines() -> None:
    document = with_image(version='-')
    document['templates'].append(7)
    ways = []

    def find_line(way: Any) -> Optional[int]:
        ways.append(way)
        return 10 * len(ways)

    with pytest.raises(IndexFaults) as caught:
        parse_lock(json.dumps(document).encode(), 'lock', find_line)
    assert ways == [('templates', 0, 'chain', 1), ('templates', 1)]
    assert [fault[:8] for fault in caught.value.faults] == [
        'line 10:', 'line 20:',
    ]


@pytest.mark.parametrize('data, words', [
    (b'{"format": 1, "format": 1}', "'format' stands twice"),
    (b'[' * 10**5, 'nested too deeply'),
    (b'\xff', 'codec'),
])
def test_what_is_no_document(data: bytes, words: str) -> None:
    with pytest.raises(IndexFaults, match=words):
        parse_lock(data, 'lock')


# What has become of a chain

@pytest.mark.parametrize('newest, change', [
    ((BASE, NFS), ''),
    ((replace(BASE, location='elsewhere'), NFS), ''),
    ((BASE, pin('nfs:v2')), 'another version'),
    ((BASE, pin('nfs:v1', 'new')), 'published again'),
    ((pin('base:v2'), NFS), 'another base'),
    ((pin('base:v1', 'new'), NFS), 'another base'),
    ((NFS, ), 'another base'),
])
def test_changes(newest: Pins, change: str) -> None:
    assert find_change((BASE, NFS), newest) == change


# Pinned chains in catalogs

def catalog(*others: Place, **entries: Any) -> Catalog:
    """Return a catalog of a chain; `nfs=dict(base=...)` changes it."""
    return Catalog([*others, index_of('lab', HERE, **entries)])


def index_of(name: str, location: str, **entries: Any) -> Any:
    templates: Dict[str, Any] = {}
    bases = {'base': None, 'nfs': 'base:v1', 'iscsi': 'nfs:v1'}
    for template, base in bases.items():
        digest = digest_of(f'{template}:v1')
        changes = entries.get(template, {})
        if changes is None:
            continue
        entry = {
            'source': 'main', 'handle': f'{template}.qcow2', 'timestamp': 1,
            'base': base, digest.algorithm: digest.value, **changes,
        }
        templates[template] = {'versions': {'v1': {
            key: value for key, value in entry.items() if value is not ...
        }}}
    templates['base']['versions']['v2'] = {
        'source': 'main', 'handle': 'v2', 'timestamp': 2, 'base': None,
    }
    return parse_index(json.dumps({
        'name': name, 'sources': {'main': {'type': 'http'}},
        'templates': templates,
    }).encode(), location)


def find(known: Catalog, present: int = 0) -> Pinned:
    return find_pinned(known, [(BASE, NFS, ISCSI)], [present])


def published_again(name: str) -> Dict[str, str]:
    digest = digest_of(f'another {name}')
    return {digest.algorithm: digest.value}


def test_all_as_it_was() -> None:
    found = find(catalog())
    [chain] = found.chains
    assert [image.ref.short for image in chain] == [
        'base:v1', 'nfs:v1', 'iscsi:v1'
    ]
    assert len(found.listed) == 3
    assert found.differences == ()


def test_what_is_present_is_not_asked_for() -> None:
    unread = Catalog([Unread(HERE)])
    assert find(unread, 2).needed
    found = find(unread, 3)
    assert found.needed is None
    assert found.listed == ()
    assert [image.digests for image in found.chains[0]] == [
        each.digests for each in (BASE, NFS, ISCSI)
    ]


ALGORITHM = BASE.digests[0].algorithm

DIFFERENCES: List[Tuple[Dict[str, Any], int, List[str]]] = [
    ({'nfs': published_again('nfs')}, 0, ['lab/nfs:v1 was published again']),
    ({'nfs': published_again('nfs')}, 2, []),
    ({'nfs': None}, 0, [
        'iscsi:v1, locked on lab/nfs:v1', 'lab/nfs:v1 is in no repository',
    ]),
    ({'nfs': {'base': 'base:v2'}}, 0, [
        'nfs:v1 stands on lab/base:v2 now, locked on lab/base:v1',
    ]),
    ({'nfs': {'base': 'base:v2'}}, 1, [
        'nfs:v1 stands on lab/base:v2 now, locked on lab/base:v1',
    ]),
    ({'nfs': {'base': None}}, 0, ['nfs:v1 stands on nothing now']),
    ({'base': {'base': 'iscsi:v1'}}, 0, [
        'base:v1 stands on lab/iscsi:v1 now, locked without a base',
    ]),
    # What look-ups have to tell first is no difference yet.
    ({'nfs': {'base': ...}}, 0, []),
    ({'nfs': {ALGORITHM: ...}}, 0, []),
    # Other digests prove nothing; the transfer checks the pinned ones.
    ({'nfs': {ALGORITHM: ..., 'sha1': '0' * 40}}, 0, []),
]


@pytest.mark.parametrize('entries, present, words', DIFFERENCES)
def test_differences(
    entries: Dict[str, Any], present: int, words: List[str]
) -> None:
    found = find(catalog(**entries), present)
    if entries.get('nfs', {}) is None:
        # The base named by its index is the pinned one, only gone.
        words = words[1:]
    assert len(found.differences) == len(words)
    for difference, expected in zip(found.differences, words):
        assert expected in difference
    assert bool(found.chains) == (not words)
    for chain in found.chains:
        for image, each in zip(chain, (BASE, NFS, ISCSI)):
            assert image.digest == each.digests[0]


def test_a_stronger_digest_of_the_index_proves_nothing() -> None:
    """Only what was locked does: the index may be of another image by now."""
    weak = replace(BASE, digests=(Digest('sha1', '1' * 40),))
    [chain] = find_pinned(catalog(), [(weak,)], [0]).chains
    assert chain.top.digests == weak.digests
    # Beside one that was locked it is of the same image.
    known = catalog(base={'sha1': '1' * 40})
    [chain] = find_pinned(known, [(weak,)], [0]).chains
    assert set(chain.top.digests) == {*weak.digests, *BASE.digests}


def test_a_present_base_is_called_as_its_index_calls_it() -> None:
    """Headers of layers name the file that the index has."""
    found = find(catalog(base={'handle': 'old/name.qcow2'}), 1)
    assert found.chains[0].images[0].handle == 'old/name.qcow2'
    assert found.chains[0].images[0].digests == BASE.digests


def test_a_base_that_is_gone_but_present() -> None:
    found = find(catalog(nfs=None), 2)
    assert found.differences == ()
    assert found.chains[0].images[1].digests == NFS.digests


def test_the_same_image_of_another_repository_of_that_name() -> None:
    """The pinned location is asked first; where it is gone, the name."""
    other = index_of('lab', 'http://other.invalid', nfs=published_again('x'))
    assert find(catalog(other)).differences == ()
    moved = [
        replace(each, location='http://gone.invalid')
        for each in (BASE, NFS, ISCSI)
    ]
    found = find_pinned(catalog(other), [tuple(moved)], [0])
    assert {image.location for image in found.chains[0]} >= {HERE}


def test_differences_are_told_once() -> None:
    known = catalog(base=published_again('base'))
    found = find_pinned(known, [(BASE, NFS), (BASE, ), (BASE, NFS)], [0] * 3)
    assert len(found.differences) == 1
    assert found.chains == ()


PROOFS: List[Tuple[Callable[[Digest], Tuple[Digest, ...]], bool]] = [
    (lambda digest: (), False),
    (lambda digest: (digest, ), True),
    (lambda digest: (Digest('sha1', '0' * 40), ), False),
    (lambda digest: (Digest('sha1', '0' * 40), digest), True),
    (lambda digest: (digest_of('other'), ), False),
]


@pytest.mark.parametrize('digests, proven', PROOFS)
def test_proofs(
    digests: Callable[[Digest], Tuple[Digest, ...]], proven: bool
) -> None:
    assert BASE.is_proven_by(digests(BASE.digests[0])) == proven
