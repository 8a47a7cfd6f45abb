"""Indexes: what is read, and what is wrong with what is not."""

from __future__ import annotations

import gzip
import json
from typing import Any, Dict, List, Tuple, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.core.json_text import describe
from lago_layered_provider.core.model import (
    BaseDigest, BaseFile, BaseName, Digest, Image, UNKNOWN,
)
from lago_layered_provider.index.document import (
    Index, LARGE_BYTES, MAX_INDEX_BYTES, open_index, parse_index,
)
from lago_layered_provider.index.entry import (
    MAX_DEPTH, parse_base, strip_suffix,
)
from lago_layered_provider.index.sidecar import add_sidecar
from tests.unit.strategies import (
    FAULTS,
    Forest,
    documents,
    faulty_forests,
    forests,
    json_values,
)

SHA512 = 'ab' * 64
LOCATION = 'http://repo.invalid/repo.metadata'
GOOD = {'source': 'main', 'handle': 'el7.qcow2', 'timestamp': 1500000000}
SOURCES = {'main': {'type': 'http', 'args': {'baseurl': 'http://x/'}}}


def document(**versions: Any) -> Dict[str, Any]:
    return {
        'name': 'lab', 'sources': SOURCES,
        'templates': {'el7': {'versions': versions}},
    }


def parse(value: Any) -> Index:
    return parse_index(json.dumps(value).encode(), LOCATION)


def read(**entry: Any) -> Image:
    return parse(document(v1={**GOOD, **entry})).image('el7', 'v1')


UNUSABLE: Dict[str, Tuple[bytes, str]] = {
    'nothing': (b'', 'not JSON'),
    'blanks': (b' \n', 'not JSON'),
    'HTML': (b'<!DOCTYPE html><html>404 Not Found</html>', 'HTML'),
    'HTML after blanks': (b'\r\n  <html></html>', 'HTML'),
    'text': (b'Moved permanently', 'not JSON'),
    'cut off': (b'{"name": "lab", "templ', 'not JSON'),
    'two documents': (b'{"name": "lab"}{"name": "lab"}', 'not JSON'),
    'binary': (b'QFI\xfb\x00\x00\x00\x03', 'not JSON: it is no text\n'),
    'broken UTF-8': (b'{"name": "lab\xff"}', 'not JSON: it is no text\n'),
    'gzip': (gzip.compress(b'{}'), 'not JSON: it is compressed by gzip\n'),
    'a list': (b'[]', 'not a JSON object'),
    'a number': (b'7', 'not a JSON object'),
    'a text in JSON': (b'"lab"', 'not a JSON object'),
    'null': (b'null', 'not a JSON object'),
    'no name': (b'{}', 'name'),
    'name is a number': (b'{"name": 7}', 'name'),
    'expires is a text': (b'{"name": "a", "expires": "x"}', '"expires"'),
    'expires is true': (b'{"name": "a", "expires": true}', '"expires"'),
    'expires below 0': (b'{"name": "a", "expires": -1}', '"expires"'),
    'name is null': (b'{"name": null}', 'name'),
    'name climbs out': (b'{"name": "../lab"}', 'name'),
    'name with a colon': (b'{"name": "lab:x"}', 'name'),
    'sources in a list': (b'{"name": "lab", "sources": []}', 'sources'),
    'sources null': (b'{"name": "lab", "sources": null}', 'sources'),
    'templates in a list': (b'{"name": "lab", "templates": []}', 'templates'),
    'templates a text': (b'{"name": "lab", "templates": "x"}', 'templates'),
    'too large': (b' ' * (MAX_INDEX_BYTES + 1), str(MAX_INDEX_BYTES)),
    'deep lists': (b'[' * 100000 + b']' * 100000, 'deep'),
    'deep lists within': (
        b'{"name": "lab", "x": ' + b'[' * 100000 + b']' * 100000 + b'}',
        'deep',
    ),
    'deep objects': (b'{"a":' * 100000 + b'1' + b'}' * 100000, 'deep'),
    'deep and cut off': (b'[' * 100000, 'deep'),
}


@pytest.mark.parametrize('data, word', UNUSABLE.values(), ids=UNUSABLE)
def test_unusable(data: bytes, word: str) -> None:
    with pytest.raises(IndexFaults) as caught:
        parse_index(data, LOCATION)
    assert str(caught.value).startswith(f'{LOCATION}: ')
    assert word in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_unusable_in_every_way_at_once() -> None:
    with pytest.raises(IndexFaults) as caught:
        parse({'name': '-', 'sources': [], 'templates': 7})
    assert len(caught.value.faults) == 3


def test_as_large_as_allowed() -> None:
    data = json.dumps(document(v1=GOOD)).encode().ljust(MAX_INDEX_BYTES)
    assert parse_index(data, LOCATION).versions('el7') == ('v1',)


def test_the_limit_is_that_of_the_design() -> None:
    assert MAX_INDEX_BYTES == 64 * 2**20


def test_an_empty_repository() -> None:
    index = parse({'name': 'lab'})
    assert index.templates() == ()
    assert index.versions('el7') == ()
    with pytest.raises(KeyError):
        index.image('el7', 'v1')


def test_lagos_own_form() -> None:
    image = read()
    assert str(image.ref) == 'lab:el7:v1'
    assert image.source == 'main'
    assert image.handle == 'el7.qcow2'
    assert image.timestamp == 1500000000
    assert image.base is UNKNOWN
    assert image.compression is UNKNOWN
    assert image.format is None
    assert image.digest is None
    assert image.size is image.compressed_size is image.virtual_size is None
    assert image.metadata is None


def test_the_extended_form() -> None:
    image = read(
        base='el7-base:v1', format='qcow2', compression='zst',
        size=734003200, compressed_size=210000000, virtual_size=6442450944,
        sha1='1' * 40, sha256='2' * 64, sha512='3' * 128,
        metadata={'distro': 'el7'}, timestamp=1.5,
    )
    assert image.base == BaseName('el7-base', 'v1')
    assert image.format == 'qcow2'
    assert image.compression == 'zst'
    assert image.file == 'el7.qcow2.zst'
    assert image.size == 734003200
    assert image.compressed_size == 210000000
    assert image.virtual_size == 6442450944
    assert set(image.digests) == {
        Digest('sha1', '1' * 40), Digest('sha256', '2' * 64),
        Digest('sha512', '3' * 128),
    }
    assert image.metadata == {'distro': 'el7'}
    assert image.timestamp == 1.5


def test_null_says_nothing_but_of_base_and_compression() -> None:
    image = read(
        base=None, compression=None, format=None, size=None,
        compressed_size=None, virtual_size=None, sha1=None, metadata=None,
    )
    assert image.base is None
    assert image.compression is None
    assert image.format is None
    assert image.size is None
    assert image.digests == ()
    assert image.metadata is None


def test_digests_in_capitals() -> None:
    assert read(sha1='AB' * 20).digest == Digest('sha1', 'ab' * 20)


def test_keys_of_others_are_left_alone() -> None:
    assert read(comment=['anything'], sha3='?').handle == 'el7.qcow2'


FAULTY_ENTRIES: Dict[str, Any] = {
    **{
        f'{key} {value!r}'[:40]: (
            {**GOOD, key: value} if value is not None
            else {each: GOOD[each] for each in GOOD if each != key}
        )
        for key, value, _ in FAULTS
    },
    'timestamp nan': {**GOOD, 'timestamp': float('nan')},
    'timestamp null': {**GOOD, 'timestamp': None},
    'timestamp beyond a float': {**GOOD, 'timestamp': 10**400},
    'source null': {**GOOD, 'source': None},
    'source a list': {**GOOD, 'source': ['main']},
    'handle empty': {**GOOD, 'handle': ''},
    'size 0': {**GOOD, 'size': 0},
    'raw with a base': {**GOOD, 'format': 'raw', 'base': 'deb:v1'},
    'a list': [],
    'null': None,
    'a text': 'el7',
    'nothing in it': {},
}


@pytest.mark.parametrize('entry', FAULTY_ENTRIES.values(), ids=FAULTY_ENTRIES)
def test_a_faulty_entry_disables_itself_alone(entry: Any) -> None:
    index = parse(document(v0=GOOD, v1=entry, v2=GOOD))
    told: List[IndexFaults] = []
    found = index.newest_first('el7', left_out=told.append)
    assert [image.ref.version for image in found] == ['v2', 'v0']
    assert ['el7:v1' in str(fault) for fault in told] == [True]
    with pytest.raises(IndexFaults) as caught:
        index.image('el7', 'v1')
    assert 'el7:v1' in str(caught.value)
    assert LOCATION in str(caught.value)
    assert caught.value.faults
    assert [image.ref.version for image in index.newest_first('el7')] == [
        'v2', 'v0'
    ]


@pytest.mark.parametrize('version', ['', '..', '-v', 'v 1', 'v\n', 'a/b'])
def test_a_version_with_a_bad_name(version: str) -> None:
    index = parse(document(**{version: GOOD, 'v1': GOOD}))
    with pytest.raises(IndexFaults):
        index.image('el7', version)
    found = [image.ref.version for image in index.newest_first('el7')]
    assert found == ['v1']


@pytest.mark.parametrize('template', [
    None, [], 7, 'x', {}, {'versions': None}, {'versions': []},
    {'versions': 'v1'},
])
def test_a_faulty_template(template: Any) -> None:
    whole = document(v1=GOOD)
    whole['templates']['bad'] = template
    index = parse(whole)
    assert index.versions('bad') == ()
    assert list(index.newest_first('bad')) == []
    with pytest.raises((IndexFaults, KeyError)):
        index.image('bad', 'v1')
    assert index.image('el7', 'v1').handle == 'el7.qcow2'


def test_all_faults_of_an_entry_at_once() -> None:
    bad = {
        'handle': '/x', 'timestamp': 'x', 'source': 'x', 'size': -1,
        'compressed_size': 'x', 'virtual_size': [], 'format': 'x',
        'base': '-', 'compression': 'x', 'sha1': 'x', 'sha256': 'x',
        'sha512': 'x', 'metadata': 'x',
    }
    with pytest.raises(IndexFaults) as caught:
        parse(document(v1=bad)).image('el7', 'v1')
    assert len(caught.value.faults) == len(bad)


SOURCE_FAULTS: Dict[str, Any] = {
    'a text': 'http://x/',
    'null': None,
    'no type': {'args': {}},
    'type is a number': {'type': 7},
    'args in a list': {'type': 'http', 'args': []},
    'args null': {'type': 'http', 'args': None},
}


@pytest.mark.parametrize('spec', SOURCE_FAULTS.values(), ids=SOURCE_FAULTS)
def test_a_faulty_source_disables_its_images_alone(spec: Any) -> None:
    whole = document(v1=GOOD, v2={**GOOD, 'source': 'bad'})
    whole['sources'] = {**SOURCES, 'bad': spec}
    index = parse(whole)
    with pytest.raises(IndexFaults, match='bad'):
        index.source('bad')
    with pytest.raises(IndexFaults, match='bad'):
        index.image('el7', 'v2')
    assert index.image('el7', 'v1').source == 'main'


def test_sources() -> None:
    source = parse(document()).source('main')
    assert source.type == 'http'
    assert source.args == {'baseurl': 'http://x/'}
    with pytest.raises(IndexFaults, match="'other' is not defined.*main"):
        parse(document()).source('other')


BASES: Dict[str, Tuple[Any, Union[BaseName, BaseFile, BaseDigest, None]]] = {
    'null': (None, None),
    'empty': ('', None),
    'None': ('None', None),
    'libguestfs': ('libguestfs:centos-7.2', None),
    'simple': ('simple:http://host/el7.qcow2', None),
    'name': ('el7', BaseName('el7')),
    'name and version': ('el7:v1', BaseName('el7', 'v1')),
    'repository': ('other/el7:v1', BaseName('el7', 'v1', 'other')),
    'repository, no version': ('other/el7', BaseName('el7', None, 'other')),
    'layer, name': ('layer:el7', BaseFile('el7')),
    'layer, path': ('layer:specs/el7.qcow2.xz', BaseFile('el7.qcow2')),
    'layer, URL': ('layer:http://h:80/x/el7.gz', BaseFile('el7')),
    'layer, zst': ('layer:el7.zst', BaseFile('el7')),
    'digest': (
        f'{SHA512}:el7', BaseDigest(Digest('sha512', SHA512), 'el7')
    ),
    'digest with prefix': (
        f'lago::{SHA512}::el7', BaseDigest(Digest('sha512', SHA512), 'el7')
    ),
    'digest in capitals': (
        f'{SHA512.upper()}:el7',
        BaseDigest(Digest('sha512', SHA512), 'el7'),
    ),
}


@pytest.mark.parametrize('value, expected', BASES.values(), ids=BASES)
def test_bases(value: Any, expected: object) -> None:
    assert parse_base(value) == expected
    assert read(base=value).base == expected


@pytest.mark.parametrize('value', [
    7, True, [], {}, '../el7', '/el7', 'a/b/el7', 'el7:', ':v1', 'el7:v1:x',
    'http://host/el7', 'json:{}', '-el7', '.el7', 'el7\n', 'el7:v1\n',
    'el7\0', 'el 7', '\u0435l7', './el7', 'other/', '/',
    f'lago::{SHA512[1:]}::el7', f'lago::{SHA512}::', f'{SHA512}:',
])
def test_bad_bases(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_base(value)
    with pytest.raises(IndexFaults, match='base'):
        read(base=value)


@pytest.mark.parametrize('name, expected', [
    ('el7', 'el7'), ('el7.xz', 'el7'), ('el7.zst', 'el7'), ('el7.gz', 'el7'),
    ('el7.qcow2', 'el7.qcow2'), ('el7.xz.gz', 'el7.xz'), ('xz', 'xz'),
])
def test_suffixes(name: str, expected: str) -> None:
    assert strip_suffix(name) == expected


# Sidecars.

def test_a_sidecar_of_2015() -> None:
    image = add_sidecar(read(), {
        'base': 'el7-base', 'name': 'CentOS 7', 'size': 1000,
        'sha1': '1' * 40, 'sha512': '3' * 128, 'root-partition': '/dev/sda3',
    })
    assert image.base == BaseName('el7-base')
    assert image.size == 1000
    assert image.digest == Digest('sha512', '3' * 128)
    assert image.metadata and image.metadata['root-partition'] == '/dev/sda3'


def test_a_later_sidecar_whose_sums_have_swapped_names() -> None:
    image = add_sidecar(read(), {
        'base': 'layer:http://builder.invalid/el7-base.qcow2.xz',
        'size': '1000', 'compressed_size': '300', 'checksum': '3' * 128,
        'uncompressed_checksum': '4' * 128, 'compressed_sha1': '5' * 40,
    })
    assert image.base == BaseFile('el7-base.qcow2')
    assert image.size == 1000
    assert image.compressed_size == 300
    assert image.digests == (Digest('sha512', '3' * 128),)


def test_the_index_has_the_last_word() -> None:
    image = read(
        base=None, size=1, compressed_size=2, sha1='1' * 40,
        metadata={'distro': 'el7'},
    )
    assert add_sidecar(image, {
        'base': 'deb:v1', 'size': 9, 'compressed_size': 9, 'sha1': '9' * 40,
        'distro': 'deb',
    }) == image


@pytest.mark.parametrize('base', ['None', None, 'el7', 'el7.qcow2', 'el7:v1'])
def test_a_sidecar_of_lago_export_knows_no_base(base: Any) -> None:
    assert add_sidecar(read(), {'base': base}).base is UNKNOWN


def test_an_older_version_of_itself_is_a_base() -> None:
    image = add_sidecar(read(), {'base': 'el7:v0'})
    assert image.base == BaseName('el7', 'v0')


def test_nonsense_in_a_sidecar_is_left_out() -> None:
    image = read()
    document = {
        'base': 7, 'size': 'large', 'compressed_size': -1, 'sha1': [],
        'sha256': 'x', 'sha512': None, 'checksum': {},
    }
    assert add_sidecar(image, document) == add_sidecar(
        image, {}
    ).__class__(**{**vars(image), 'metadata': document})


@given(st.dictionaries(
    st.sampled_from(['base', 'size', 'sha1', 'checksum', 'compressed_size'])
    | st.text(max_size=4),
    json_values,
))
def test_any_sidecar(document: Dict[str, Any]) -> None:
    image = add_sidecar(read(), document)
    assert image.size is None or image.size > 0
    assert image.ref.short == 'el7:v1'


# Properties.

def look_at_all(index: Index) -> None:
    """Ask for every entry; anything but the promised errors is a fault."""
    wanted: List[Tuple[str, str]] = [('el7', 'v1')]
    for template in index.templates():
        wanted.append((template, 'not there'))
        wanted.extend(
            (template, version) for version in index.versions(template)
        )
        list(index.newest_first(template))
    list(index.entries())
    for template, version in wanted:
        try:
            image = index.image(template, version)
        except IndexFaults as error:
            assert error.faults
        except KeyError:
            assert version not in index.versions(template)
        else:
            assert isinstance(image, Image)
            assert (image.ref.template, image.ref.version) == (
                template, version
            )
            assert index.source(image.source).type


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes(data: bytes) -> None:
    try:
        index = parse_index(data, LOCATION)
    except IndexFaults as error:
        assert error.faults
    else:
        look_at_all(index)


@given(json_values | documents)
def test_any_json(value: Any) -> None:
    try:
        index = parse(value)
    except IndexFaults as error:
        assert error.faults
    else:
        look_at_all(index)


@given(forests())
def test_what_is_written_is_read(forest: Forest) -> None:
    index = parse_index(forest.data, LOCATION)
    for name in forest.bases:
        image = index.image(*name.split(':'))
        entry = forest.entry(name)
        assert image.ref.short == name
        assert image.base == parse_base(entry['base'])
        assert [str(each) for each in image.digests] == [
            f'sha512:{entry["sha512"]}'
        ]
        for key in (
            'source', 'handle', 'timestamp', 'format', 'compression', 'size',
            'compressed_size',
        ):
            assert getattr(image, key) == entry[key]


@given(faulty_forests())
def test_one_faulty_entry(case: Tuple[Forest, str, List[str]]) -> None:
    forest, victim, words = case
    index = parse_index(forest.data, LOCATION)
    with pytest.raises(IndexFaults) as caught:
        index.image(*victim.split(':'))
    assert len(caught.value.faults) == len(words)
    for word in words:
        assert word in str(caught.value)
    for name in set(forest.bases) - {victim}:
        assert index.image(*name.split(':')).ref.short == name


@pytest.mark.parametrize('names', [
    ['v1.9', 'v1.10'], ['9', '10'], ['1.2', '1.10', '1.10.1'], ['v', 'v0'],
    ['v1-rc9', 'v1-rc10'], ['2023.12.1', '2024.1.1'], ['9' * 4999, '9' * 5000],
    ['v01', 'v1'],
])
def test_natural_order_between_equal_timestamps(names: List[str]) -> None:
    for order in (names, names[::-1]):
        found = make_index({
            name: {'source': 'main', 'handle': 'x', 'timestamp': 7}
            for name in order
        })
        images = list(found.newest_first('el7'))
        assert [each.ref.version for each in images] == names[::-1]
        assert max(images, key=lambda each: each.age) is images[0]


def make_index(versions: Dict[str, Any]) -> Index:
    return parse_index(json.dumps({
        'name': 'office', 'sources': {'main': {'type': 'http'}},
        'templates': {'el7': {'versions': versions}},
    }).encode(), 'LOCATION')


def test_the_timestamp_comes_first() -> None:
    found = make_index({
        name: {'source': 'main', 'handle': 'x', 'timestamp': timestamp}
        for name, timestamp in (('v1.9', 8), ('v1.10', 7), ('v2', 1))
    })
    assert [each.ref.version for each in found.newest_first('el7')] == [
        'v1.9', 'v1.10', 'v2'
    ]


@pytest.mark.parametrize('value', [
    '9' * 5000, '9' * 399, '-' + '9' * 9999, '1e999', '9223372036854775808',
])
@pytest.mark.parametrize('key', ['size', 'timestamp', 'virtual_size'])
def test_a_long_number_spoils_its_entry_only(key: str, value: str) -> None:
    data = (
        '{"name": "office", "sources": {"main": {"type": "http"}}, "x": %s,'
        '"templates": {"el7": {"versions": {"good": %s, "bad": %s}}}}'
    ) % (value, *(
        '{"source": "main", "handle": "x", "timestamp": 1, "%s": %s}' % (
            key, number
        ) for number in ('7', value)
    ))
    for found in (
        parse_index(data.encode(), 'LOCATION'),
        open_index(pad(data), 'LOCATION'),
    ):
        assert found.image('el7', 'good')
        with pytest.raises(IndexFaults, match=f'{key}: ') as caught:
            found.image('el7', 'bad')
        assert len(str(caught.value)) < 300


def pad(data: str) -> bytes:
    """Make a large index of one: its entries are read one by one."""
    return data.encode() + b' ' * LARGE_BYTES


def test_deep_metadata_spoils_its_entry_only() -> None:
    def nested(depth: int) -> Any:
        value: Any = 'x'
        for number in range(depth):
            value = {'a': value} if number % 2 else [value]
        return value

    found = make_index({
        name: {'source': 'main', 'handle': 'x', 'timestamp': 1,
               'metadata': {'a': nested(depth)}}
        for name, depth in (('good', MAX_DEPTH - 2), ('bad', MAX_DEPTH))
    })
    assert found.image('el7', 'good')
    with pytest.raises(IndexFaults, match='metadata: is nested too deeply'):
        found.image('el7', 'bad')


def test_names_that_stand_twice_are_known_with_their_lines() -> None:
    data = (
        '{"name": "office", "templates": {\n"a": {"versions": {}},\n'
        '"b": {"versions": {"v1": 1,\n\n"v1": 2}},\n"a": 7}}'
    )
    for found in (
        parse_index(data.encode(), 'LOCATION'),
        open_index(pad(data), 'LOCATION'),
    ):
        assert [
            (each.place, each.key, each.where) for each in found.doubled
        ] == [
            ('/templates/b/versions', 'v1', 'lines 3 and 5'),
            ('/templates', 'a', 'lines 2 and 6'),
        ]
    assert make_index({}).doubled == ()


def test_a_message_of_thousands_of_names_is_short() -> None:
    names = ', '.join('"a": %d' % number for number in range(5000))
    found = parse_index((
        '{"name": "office", "x": [%s]}' % ', '.join(['{%s}' % names] * 20)
    ).encode(), 'LOCATION')
    assert len(found.doubled) == 20
    said = describe(found.doubled)
    assert '/x/3' in said and '16 more' in said and len(said) < 400
