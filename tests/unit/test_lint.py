"""What is wrong with an index, and with what was seen of its images."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import (
    BaseName, Digest, Image, ImageRef, UNKNOWN,
)
from lago_layered_provider.formats.qcow2 import (
    EXTENSION_BACKING_FORMAT, Extension, Qcow2Header,
)
from lago_layered_provider.index.catalog import Catalog
from lago_layered_provider.index.document import Index, parse_index
from lago_layered_provider.index.resolve import MAX_CHAIN_DEPTH
from lago_layered_provider.lint.bases import Bases, NoBase, judge_bases
from lago_layered_provider.lint.findings import (
    Finding, Judged, LEVELS, Level, judge_facts, judge_index,
)
from lago_layered_provider.lint.images import judge_image
from lago_layered_provider.lint.seen import Content, Seen
from lago_layered_provider.lint.sources import Source
from tests.unit.strategies import (
    Forest, cyclic_forests, digest_of, documents, faulty_forests, forests,
)

NOW = 2e9
MIB = 1 << 20
GIB = 1 << 30

Versions = Dict[str, Dict[str, Any]]


def entry(name: str, **changes: Any) -> Dict[str, Any]:
    """Return a complete entry; `...` leaves a key out."""
    found = {
        'source': 'main', 'handle': f'{name}.qcow2', 'timestamp': 100,
        'base': None, 'format': 'qcow2', 'compression': 'xz',
        'size': 10 * MIB, 'compressed_size': MIB, 'virtual_size': GIB,
        'sha512': digest_of(name), 'metadata': {},
    }
    found.update(changes)
    return {key: value for key, value in found.items() if value is not ...}


def document(**images: Dict[str, Any]) -> Dict[str, Any]:
    """Return an index; `a__v1` stands for a:v1."""
    templates: Dict[str, Any] = {}
    for name, found in images.items():
        template, version = name.split('__')
        versions = templates.setdefault(template, {'versions': {}})
        versions['versions'][version] = found
    return {
        'name': 'lab',
        'sources': {'main': {'type': 'file', 'args': {'root': '.'}}},
        'templates': templates,
    }


def judge(data: bytes) -> Tuple[Judged, List[Finding]]:
    """Judge an index and its bases."""
    judged = judge_index(
        data, 'here', now=NOW,
        refuse_name=lambda name: 'too long' if len(name) > 60 else '',
    )
    findings = list(judged.findings)
    if judged.index is not None:
        findings += judge_bases(judged.index, judged.images)[1]
        for image in judged.images.values():
            findings += judge_facts(image)
    return judged, findings


def shown(findings: List[Finding]) -> Set[Tuple[str, Optional[str]]]:
    return {(finding.code, finding.image) for finding in findings}


NFS = entry('nfs', base='base:v1', timestamp=200)

TABLE: Mapping[str, Tuple[Any, Set[Tuple[str, Optional[str]]]]] = {
    'fine': (document(base__v1=entry('base'), nfs__v1=NFS), set()),
    'empty': (document(), set()),
    'no JSON': (b'{"name": ', {('index-faulty', None)}),
    'a page': (b'<html>', {('index-faulty', None)}),
    'no name': ({'templates': {}}, {('index-faulty', None)}),
    'two faults of it': (
        {'name': '-', 'templates': []}, {('index-faulty', None)},
    ),
    'a list': ([], {('index-faulty', None)}),
    'the same version twice': (
        b'{"name": "lab", "sources": {}, "templates": {"a": {"versions": {}},'
        b' "a": {"versions": {}}}}',
        {('duplicate-key', None), ('template-empty', None)},
    ),
    'no versions': (
        {'name': 'lab', 'templates': {'a': {'version': {}}}},
        {('entry-faulty', None)},
    ),
    'a source without a type': (
        {**document(base__v1=entry('base')), 'sources': {'main': {}}},
        {('source-faulty', None)},
    ),
    'an undefined source': (
        document(base__v1=entry('base', source='gone')),
        {('entry-faulty', 'base:v1')},
    ),
    'all that is wrong with an entry': (
        document(base__v1=entry('base', size=-1, handle='/x')),
        {('entry-faulty', 'base:v1')},
    ),
    'a name no client takes': (
        document(**{'-a__v1': entry('a')}),
        {('entry-faulty', "'-a':v1")},
    ),
    'a name no store takes': (
        document(**{f'{"a" * 60}__v1': entry('a')}),
        {('name-refused', f'{"a" * 60}:v1')},
    ),
    'from the future': (
        {**document(base__v1=entry('base', timestamp=NOW * 2)),
         'timestamp': NOW * 2},
        {('timestamp-ahead', None), ('timestamp-ahead', 'base:v1')},
    ),
    'a base that is nowhere': (
        document(nfs__v1=NFS), {('base-missing', 'nfs:v1')},
    ),
    'a version that is nowhere': (
        document(base__v2=entry('base'), nfs__v1=NFS),
        {('base-missing', 'nfs:v1')},
    ),
    'a file that is nowhere': (
        document(nfs__v1=entry('nfs', base='layer:/x/gone.xz')),
        {('base-missing', 'nfs:v1')},
    ),
    'a digest that is nowhere': (
        document(nfs__v1=entry('nfs', base=f'{"0" * 128}:gone')),
        {('base-missing', 'nfs:v1')},
    ),
    'a base that is faulty': (
        document(base__v1=entry('base', size='1'), nfs__v1=NFS),
        {('entry-faulty', 'base:v1'), ('base-faulty', 'nfs:v1')},
    ),
    'only a faulty file fits': (
        document(base__v1=entry('base', size='1'),
                 nfs__v1=entry('nfs', base='layer:/x/base.qcow2.xz')),
        {('entry-faulty', 'base:v1'), ('base-faulty', 'nfs:v1')},
    ),
    'itself by name': (
        document(nfs__v1=entry('nfs', base='nfs:v1')),
        {('base-itself', 'nfs:v1')},
    ),
    'itself without a version': (
        document(nfs__v1=entry('nfs', base='nfs')),
        {('base-itself', 'nfs:v1')},
    ),
    'a circle, and one above it': (
        document(b__v1=entry('b', base='a:v1'), a__v1=entry('a', base='b:v1'),
                 nfs__v1=entry('nfs', base='a:v1')),
        {('base-cycle', 'a:v1')},
    ),
    'as deep as it may be': (
        document(**{f'a__{number}': entry(
            f'{number}', base=f'a:{number - 1}' if number else None,
            timestamp=100 + number,
        ) for number in range(MAX_CHAIN_DEPTH)}), set(),
    ),
    'too deep, and more above': (
        document(**{f'a__{number}': entry(
            f'{number}', base=f'a:{number - 1}' if number else None,
            timestamp=100 + number,
        ) for number in range(MAX_CHAIN_DEPTH + 3)}),
        {('base-too-deep', f'a:{MAX_CHAIN_DEPTH}')},
    ),
    'any of two': (
        document(base__v1=entry('x', timestamp=300),
                 base__v2=entry('y', timestamp=300),
                 nfs__v1=entry('nfs', base='base', timestamp=200)),
        {('base-ambiguous', 'nfs:v1'), ('timestamp-equal', None)},
    ),
    'a younger base': (
        document(base__v1=entry('base', timestamp=201), nfs__v1=NFS),
        {('base-younger', 'nfs:v1')},
    ),
    'a base without a version': (
        document(base__v1=entry('base'),
                 nfs__v1=entry('nfs', base='base', timestamp=200)),
        {('base-floats', 'nfs:v1')},
    ),
    'a base of another repository': (
        document(nfs__v1=entry('nfs', base='office/base:v1')),
        {('base-elsewhere', 'nfs:v1')},
    ),
    'a base of this one, named': (
        document(base__v1=entry('base'),
                 nfs__v1=entry('nfs', base='lab/base:v1')), set(),
    ),
    'facts to be asked for': (
        document(base__v1=entry('base', size=..., metadata=...)),
        {('facts-missing', 'base:v1')},
    ),
    'a plain file needs no second size': (
        document(base__v1=entry('b', compressed_size=..., compression=None)),
        set(),
    ),
    'only a sha1': (
        document(base__v1=entry('base', sha512=..., sha1='0' * 40)),
        {('digest-weak', 'base:v1')},
    ),
}


@pytest.mark.parametrize('name', TABLE)
def test_exactly_what_is_wrong_is_found(name: str) -> None:
    given_, expected = TABLE[name]
    data = given_ if isinstance(given_, bytes) else json.dumps(
        given_
    ).encode()
    assert shown(judge(data)[1]) == expected


def test_all_faults_of_an_entry_are_named() -> None:
    data = json.dumps(TABLE['all that is wrong with an entry'][0]).encode()
    assert sorted(each.message[:6] for each in judge(data)[1]) == [
        'handle', 'size: ',
    ]


def test_the_whole_circle_is_named() -> None:
    data = json.dumps(TABLE['a circle, and one above it'][0]).encode()
    message = judge(data)[1][0].message
    assert message.endswith('a:v1 -> b:v1 -> a:v1')


def test_the_place_of_a_doubled_key_is_named() -> None:
    found = judge(
        b'{"name": "lab", "templates": {"a": {"versions": {"v1": 1,\n'
        b'"v1": 2}}}}'
    )[1]
    doubled = [each for each in found if each.code == 'duplicate-key']
    assert [each.message for each in doubled] == [
        '/templates/a/versions: \'v1\' stands there more than once, in lines '
        '1 and 2, and only the last one counts',
    ]


def test_a_long_chain_is_one_finding(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: List[str] = []

    def versions(found: Index, template: str) -> Tuple[str, ...]:
        listed.append(template)
        return tuple(found.raw_templates[template]['versions'])

    monkeypatch.setattr(Index, 'versions', versions)
    _, found = judge(json.dumps(document(**{f'a__v{number}': entry(
        f'{number}', base=f'a:v{number - 1}' if number else None,
        timestamp=100 + number,
    ) for number in range(2000)})).encode())
    assert [(each.code, each.image) for each in found] == [
        ('base-too-deep', f'a:v{MAX_CHAIN_DEPTH}')
    ]
    # To list the versions for each of them took minutes.
    assert listed == ['a']


def test_versions_of_one_age() -> None:
    found = judge(json.dumps(document(**{
        f'a__v{number}': entry(f'{number}', timestamp=100 + number % 2)
        for number in range(0, 24, 2)
    }, b__v1=entry('x', timestamp=100))).encode())[1]
    assert [
        each.message for each in found if each.code == 'timestamp-equal'
    ] == [
        'template a: v22, v20, v18, v16 and more have the same timestamp; '
        'v22 counts as the newest of them',
    ]


@given(forests())
def test_a_forest_has_no_errors(forest: Forest) -> None:
    levels = {
        finding.code: finding.level for finding in judge(forest.data)[1]
        # Two versions of the same age, or a base that is newer than all.
        if finding.code != 'timestamp-ahead'
    }
    assert Level.ERROR not in levels.values()


@given(forests())
def test_bases_are_those_that_were_meant(forest: Forest) -> None:
    judged = judge(forest.data)[0]
    assert judged.index is not None
    found = judge_bases(judged.index, judged.images)[0]
    assert {
        ':'.join(name): base.ref.short for name, base in found.items()
    } == {name: base for name, base in forest.bases.items() if base}


@given(cyclic_forests())
def test_a_circle_is_found(drawn: Tuple[Forest, List[str]]) -> None:
    forest, ring = drawn
    found = [
        finding for finding in judge(forest.data)[1]
        if finding.code in ('base-cycle', 'base-itself')
    ]
    assert len(found) == 1
    if len(ring) > 1:
        for name in ring:
            assert name in found[0].message


@given(faulty_forests())
def test_a_fault_is_found(drawn: Tuple[Forest, str, List[str]]) -> None:
    forest, victim, words = drawn
    found = [
        finding for finding in judge(forest.data)[1]
        if finding.code == 'entry-faulty'
    ]
    assert {finding.image for finding in found} == {victim}
    for word in words:
        assert any(word in finding.message for finding in found)


@given(documents)
def test_no_document_is_too_much(given_: Dict[str, Any]) -> None:
    judged, findings = judge(json.dumps(given_).encode())
    assert {finding.code for finding in findings} <= set(LEVELS)


def base_of_client(catalog: Catalog, image: Image) -> Any:
    """Return what a client takes for the base, or that it takes none."""
    try:
        found = catalog.base_of(image)
    except errors.ChainCycle:
        return 'base-itself'
    except errors.AmbiguousBase:
        return 'base-ambiguous'
    except errors.BaseNotFound:
        return 'base-missing'
    except errors.IndexFaults:
        return 'base-faulty'
    return found if isinstance(found, Image) else None


def base_of_lint(bases: Bases, image: Image) -> Any:
    try:
        return bases.base_of(image)
    except NoBase as reason:
        return {'base-elsewhere': 'base-missing'}.get(
            reason.code, reason.code
        )


_BASES = st.sampled_from([
    None, 'a', 'b', 'a:1', 'b:2', 'c:1', 'c', 'lab/a', 'other/a:1', 'f0',
    'f1', 'layer:x/f0.xz', 'layer:f1', 'layer:gone', f'{digest_of("0")}:a',
    f'{digest_of("1")}:b:1', f'lago::{digest_of("9")}::a:2',
    f'{digest_of("9")}:b',
])


@given(st.lists(st.fixed_dictionaries({
    'template': st.sampled_from('abc'), 'version': st.sampled_from('123'),
    'timestamp': st.sampled_from([1, 2, 3, -1]), 'base': _BASES,
    'handle': st.sampled_from(['f0', 'd/f0.xz', 'f1']),
    'sha512': st.sampled_from([digest_of('0'), digest_of('1'), None]),
}), max_size=8))
def test_bases_are_those_of_a_client(drawn: List[Dict[str, Any]]) -> None:
    found = {}
    for each in drawn:
        name = f'{each.pop("template")}__{each.pop("version")}'
        found[name] = {**each, 'source': 'main'}
    data = json.dumps(document(**found)).encode()
    judged = judge(data)[0]
    assert judged.index is not None
    catalog = Catalog([parse_index(data, 'here')])
    bases = Bases(judged.index, judged.images)
    for image in judged.images.values():
        client = base_of_client(catalog, image)
        own = base_of_lint(bases, image)
        if isinstance(client, Image):
            # A client notes the digest that a layer demands of its base.
            client = client.ref
        assert (own.ref if isinstance(own, Image) else own) == client


HEADER = Qcow2Header(
    version=3, cluster_bits=16, virtual_size=GIB, crypt_method=0,
    l1_entries=2, l1_offset=3 << 16, refcount_offset=1 << 16,
    refcount_clusters=1, snapshots=0, snapshots_offset=0, incompatible=0,
    compatible=0, autoclear=0, refcount_order=4, header_length=104,
    compression_type=0, extensions=(), backing_file=None,
)
LAYER_HEADER = replace(
    HEADER, backing_file='./base:v1',
    extensions=(Extension(EXTENSION_BACKING_FORMAT, b'qcow2'),),
)


def make_image(name: str, base: Optional[str], **changes: Any) -> Image:
    return replace(Image(
        ImageRef('lab', name, 'v1'), 'main', f'{name}.qcow2', 100,
        base=None if base is None else BaseName(base, 'v1'),
        format='qcow2', compression='xz', size=100 * MIB,
        compressed_size=MIB, virtual_size=GIB,
        digests=(Digest('sha512', digest_of(name)),
                 Digest('sha1', '1' * 40)),
    ), **changes)


#: Of a qcow2 image.
MAGIC = b'QFI\xfb'
BASE = make_image('base', None)
BASE_SEEN = Seen(
    BASE, url='base', total=MIB, first=MAGIC, header=HEADER,
    size=100 * MIB, units=7,
)
LAYER = make_image('nfs', 'base', size=10 * MIB)
LAYER_SEEN = Seen(
    LAYER, url='nfs', total=MIB, first=MAGIC, header=LAYER_HEADER,
    size=10 * MIB, units=7, hashed=Digest('sha1', '1' * 40),
)
DIGESTS = LAYER.digests


def backing(name: Optional[str]) -> Dict[str, Any]:
    return {'header': replace(LAYER_HEADER, backing_file=name)}


SEEN: Mapping[str, Tuple[Dict[str, Any], Set[str]]] = {
    'fine': ({}, set()),
    'not there': ({'missing': True}, {'file-missing'}),
    'refused': ({'trouble': '403'}, {'file-unreadable'}),
    'another file': ({'total': 7}, {'compressed-size'}),
    'another image': ({'size': 7 * MIB}, {'size'}),
    'not to be decoded': (
        {'head_fault': 'garbage', 'header': None, 'first': None},
        {'damaged'},
    ),
    'not understood': (
        {'header': None, 'header_fault': 'version 9'}, {'header'},
    ),
    'raw': ({'first': bytes(512), 'header': None, 'size': 10 * MIB},
            {'format', 'virtual-size'}),
    'a web page': (
        {'first': b'<html>', 'header': None, 'size': 10 * MIB},
        {'format', 'virtual-size'},
    ),
    'no hash': ({'unpaired': ('.hash',)}, {'sidecar-missing'}),
    'no hash, as all is gone': (
        {'unpaired': ('.metadata', '.hash'), 'missing': True},
        {'file-missing'},
    ),
    'no backing file': (backing(None), {'backing-missing'}),
    'another backing file': (backing('other'), {'backing-foreign'}),
    'a protocol': (backing('nbd:x:1'), {'backing-foreign'}),
    'a file of the host': (backing('/etc/shadow'), {'backing-foreign'}),
    'of a build host': (backing('/build/base.qcow2'), {'backing-path'}),
    'by its digest': (backing(f'{digest_of("base")}:x'), set()),
    'no backing format': (
        {'header': replace(LAYER_HEADER, extensions=())}, {'backing-format'},
    ),
    'a data file': (
        {'header': replace(LAYER_HEADER, incompatible=4)}, {'unsafe'},
    ),
    'corrupt and dirty': (
        {'header': replace(LAYER_HEADER, incompatible=3)}, {'unsafe'},
    ),
    'encrypted': (
        {'header': replace(LAYER_HEADER, crypt_method=2)}, {'unsafe'},
    ),
    'tables outside the file': (
        {'header': replace(LAYER_HEADER, l1_offset=1 << 40)}, {'unsafe'},
    ),
    'smaller than the base': (
        {'header': replace(LAYER_HEADER, virtual_size=GIB - 512)},
        {'virtual-size', 'shrinks'},
    ),
    'one large block': (
        {'size': 70 * MIB, 'units': 1}, {'size', 'one-block'},
    ),
    'the base again': ({'size': 95 * MIB}, {'size', 'carries-base'}),
    'another hash': ({'hashed': Digest('sha1', '2' * 40)}, {'sidecar-hash'}),
    'read to its end': ({'content': Content(10 * MIB, DIGESTS)}, set()),
    'read to a wrong end': ({'content': Content(9 * MIB, DIGESTS)}, {'size'}),
    'flipped': (
        {'content': Content(10 * MIB, (Digest('sha512', '0' * 128),))},
        {'digest'},
    ),
    'cut': ({'content': Content(0, fault='cut')}, {'damaged'}),
}


@pytest.mark.parametrize('name', SEEN)
def test_exactly_what_is_seen_is_told(name: str) -> None:
    changes, expected = SEEN[name]
    seen = replace(LAYER_SEEN, **changes)
    found = list(judge_image(LAYER, seen, BASE, BASE_SEEN))
    assert {finding.code for finding in found} == expected
    assert {finding.image for finding in found} <= {'nfs:v1'}


@pytest.mark.parametrize('change, expected', [
    (lambda image: image, set()),
    (lambda image: replace(image, format='raw'), {'format'}),
    (lambda image: replace(image, digests=()), {'digest-missing'}),
    (lambda image: replace(image, virtual_size=2 * GIB), {'virtual-size'}),
    (lambda image: replace(image, base=UNKNOWN), set()),
])
def test_a_bottom_image(
    change: Callable[[Image], Image], expected: Set[str]
) -> None:
    image = change(BASE)
    found = judge_image(image, replace(BASE_SEEN, image=image), None, None)
    assert {finding.code for finding in found} == expected


@pytest.mark.parametrize('changes, words', [
    ({}, ''),
    ({'first': b'KDMV'}, 'a vmdk image'),
    ({'first': b''}, 'it is empty'),
    ({'last': b'conectix'.ljust(512, b'\0')}, 'a vhd image'),
    ({'content': Content(MIB, last=b'conectix'.ljust(512, b'\0'))},
     'a vhd image'),
    ({'content': Content(MIB + 1)}, 'not whole sectors'),
    ({'size': MIB + 1}, 'not whole sectors'),
])
def test_what_is_no_raw_image(changes: Dict[str, Any], words: str) -> None:
    image = make_image('base', None, format=None, virtual_size=None, size=None)
    seen = replace(Seen(image, total=MIB, first=bytes(512)), **changes)
    found = [
        finding.message for finding in judge_image(image, seen, None, None)
        if finding.code == 'format'
    ]
    assert len(found) == (1 if words else 0)
    assert all(words in message for message in found)


def test_a_bottom_image_with_a_backing_file() -> None:
    seen = replace(BASE_SEEN, header=LAYER_HEADER)
    found = judge_image(BASE, seen, None, None)
    assert [finding.code for finding in found] == ['backing-unexpected']


def test_every_danger_is_a_finding_of_its_own() -> None:
    seen = replace(LAYER_SEEN, header=replace(LAYER_HEADER, incompatible=7))
    found = list(judge_image(LAYER, seen, BASE, BASE_SEEN))
    assert len(found) == 3


@pytest.mark.parametrize('url, status, times', [
    # Nobody answers: the next of a thousand images would wait as long.
    ('http://a/base', None, 1), ('http://a/base', 404, 3),
    ('http://a/base', 503, 3), ('/a/base', None, 3),
])
def test_a_server_that_is_away_is_not_asked_for_each_image(
    url: str, status: Optional[int], times: int
) -> None:
    asked: List[Image] = []

    class Inspector:
        def inspect(self, image: Image) -> Seen:
            asked.append(image)
            raise errors.TransferError(url, 'no', status=status)

    inspector, provider = Inspector(), object()
    source = Source('web', provider, inspector)  # type: ignore[arg-type]
    seen = [source.inspect(image) for image in [BASE, LAYER, BASE]]
    assert len(asked) == times
    assert [one.trouble for one in seen] == [f'{url}: no'] * 3
    finding = source.judge(seen)
    assert finding is not None
    assert finding.code == 'source-unreachable'
    assert finding.message == f'source web, with 3 images: {url}: no'
