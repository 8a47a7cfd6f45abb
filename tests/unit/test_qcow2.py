"""The header of a qcow2: reading it, judging it, giving it another base."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import ImageRef
from lago_layered_provider.formats.qcow2 import (
    BadHeader, HEAD_BYTES, Qcow2Header, head_length, is_qcow2, parse_header,
)
from lago_layered_provider.formats.qcow2_rebase import rebase_header
from lago_layered_provider.formats.qcow2_safety import (
    find_dangers, find_oddities,
)
from lago_layered_provider.index.backing_names import accepted_backings

FORMAT = 0xE2792ACA
NAMES = 0x6803F857
BITMAPS = 0x23852875
CRYPTO = 0x0537BE77
DATA_FILE = 0x44415441

FIELDS = {
    'magic': (0, '>I'), 'version': (4, '>I'), 'backing_offset': (8, '>Q'),
    'backing_size': (16, '>I'), 'cluster_bits': (20, '>I'),
    'virtual_size': (24, '>Q'), 'crypt_method': (32, '>I'),
    'l1_entries': (36, '>I'), 'l1_offset': (40, '>Q'),
    'refcount_offset': (48, '>Q'), 'refcount_clusters': (56, '>I'),
    'snapshots': (60, '>I'), 'snapshots_offset': (64, '>Q'),
    'incompatible': (72, '>Q'), 'compatible': (80, '>Q'),
    'autoclear': (88, '>Q'), 'refcount_order': (96, '>I'),
    'header_length': (100, '>I'), 'compression_type': (104, 'B'),
}
MIB = 1 << 20
REF = ImageRef('lab', 'el7-base', 'v1')
BASE = accepted_backings(REF, 'dir/el7-base.qcow2.xz')
FILE_SIZE = 10 * 65536

Extensions = Sequence[Tuple[int, bytes]]


def make_head(
    *,
    bits: int = 16,
    version: int = 3,
    length: int = 112,
    name: bytes = b'./el7-base:v1',
    extensions: Extensions = ((FORMAT, b'qcow2'),),
    **fields: int,
) -> bytes:
    """Build a first cluster; `fields` are set by hand at the end."""
    cluster = 1 << bits
    length = length if version == 3 else 72
    area = b''.join(
        struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)
        for kind, data in extensions
    ) + bytes(8)
    head = bytearray(cluster)
    head[length:length + len(area)] = area
    offset = length + len(area)
    head[offset:offset + len(name)] = name
    values = {
        'magic': 0x514649FB, 'version': version, 'cluster_bits': bits,
        'backing_offset': offset if name else 0, 'backing_size': len(name),
        'virtual_size': MIB, 'l1_entries': 4096, 'l1_offset': 3 * cluster,
        'refcount_offset': cluster, 'refcount_clusters': 1,
    }
    if version == 3:
        values.update(refcount_order=4, header_length=length)
    values.update(fields)
    for field, value in values.items():
        position, form = FIELDS[field]
        struct.pack_into(form, head, position, value)
    assert len(head) == cluster
    return bytes(head)


names = st.text(
    st.characters(codec='utf-8', exclude_characters='\0'),
    min_size=1, max_size=90,
).map(lambda text: text.encode()).filter(lambda data: len(data) <= 90)

extension_lists = st.lists(
    st.tuples(
        st.sampled_from([FORMAT, NAMES, BITMAPS, 0x12345678, 0xFFFFFFFF]),
        st.binary(max_size=15),
    ),
    max_size=5, unique_by=lambda extension: extension[0],
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Return first clusters that can be understood."""
    fields: Dict[str, Any] = {}
    version = draw(st.sampled_from([2, 3]))
    length = draw(st.sampled_from([104, 112, 120]))
    if version == 3:
        for field in ('incompatible', 'compatible', 'autoclear'):
            fields[field] = draw(st.integers(0, 2 ** 64 - 1))
    for field in ('virtual_size', 'l1_offset', 'snapshots_offset'):
        fields[field] = draw(st.integers(0, 2 ** 64 - 1))
    return make_head(
        bits=draw(st.integers(9, 13)),
        version=version,
        length=length,
        name=draw(st.one_of(st.just(b''), names)),
        extensions=draw(extension_lists),
        **fields,
    )


def test_reads_what_is_there() -> None:
    header = parse_header(make_head(
        incompatible=1 | 8, compression_type=1, compatible=1,
        extensions=[(NAMES, b'x' * 48), (FORMAT, b'raw')],
        snapshots=2, snapshots_offset=5 * 65536,
    ))
    assert header.version == 3
    assert header.cluster_size == 65536
    assert header.virtual_size == MIB
    assert header.backing_file == './el7-base:v1'
    assert header.backing_format == 'raw'
    assert header.dirty and not header.corrupt
    assert header.compression_type == 1
    assert (header.l1_entries, header.l1_offset) == (4096, 3 * 65536)
    assert (header.snapshots, header.snapshots_offset) == (2, 5 * 65536)
    assert header.extension(NAMES) == b'x' * 48
    assert header.extension(BITMAPS) is None


def test_version_2_has_no_features() -> None:
    """What stands at 72 of a version 2 is an extension."""
    header = parse_header(make_head(version=2))
    assert header.backing_format == 'qcow2'
    assert (header.incompatible, header.autoclear) == (0, 0)
    assert (header.refcount_order, header.header_length) == (4, 72)


def test_image_without_a_backing_file() -> None:
    header = parse_header(make_head(name=b'', backing_size=99))
    assert header.backing_file is None
    header = parse_header(make_head(name=b'x', backing_size=0))
    assert header.backing_file is None


def test_name_that_is_no_text() -> None:
    header = parse_header(make_head(name=b'\xff\x00x'))
    assert header.backing_file == '\udcff\x00x'
    dangers = find_dangers(header, expected_backing=BASE)
    assert 'not a printable name' in dangers[0]
    assert dangers[0].isprintable()


BAD_HEADS = {
    'magic': (make_head(magic=0), 'not a qcow2'),
    'version 1': (make_head(version=1), 'version 1'),
    'version 4': (make_head(version=4), 'version 4'),
    'cluster of 256': (make_head(cluster_bits=8), '2^8'),
    'cluster of 4 MiB': (make_head(cluster_bits=22), '2^22'),
    'cut in the fields': (make_head()[:71], 'cut off after 71'),
    'cut in the cluster': (make_head()[:65535], 'cut off after 65535'),
    'short header': (make_head(header_length=96), 'header length 96'),
    'odd header': (make_head(header_length=113), 'header length 113'),
    'long header': (make_head(header_length=65544), 'exceeds'),
    'name in the header': (make_head(backing_offset=40), 'file name at 40'),
    'name outside': (make_head(backing_offset=65537), 'name at 65537'),
    'name of 1024': (make_head(backing_size=1024), 'too long'),
    'name over the end': (make_head(backing_offset=65530), 'too long'),
    'format twice': (
        make_head(extensions=[(FORMAT, b'raw'), (FORMAT, b'qcow2')]),
        'appears twice',
    ),
    'format of 16': (make_head(extensions=[(FORMAT, b'x' * 16)]), 'too long'),
    'extension too large': (
        make_head(name=b'', extensions=[(7, b'')])[:112]
        + struct.pack('>II', 7, 65536) + bytes(65536 - 120), 'too large',
    ),
    'extension cut off': (
        make_head(backing_offset=116, extensions=[]), 'is cut off',
    ),
}


@pytest.mark.parametrize('case', BAD_HEADS)
def test_bad_header(case: str) -> None:
    head, message = BAD_HEADS[case]
    with pytest.raises(BadHeader) as caught:
        parse_header(head)
    assert message in str(caught.value)


def parses(head: bytes) -> Optional[Qcow2Header]:
    """Parse, where BadHeader is the only error allowed."""
    try:
        return parse_header(head)
    except BadHeader as error:
        assert str(error)
        return None


@given(st.binary(max_size=2048))
def test_arbitrary_bytes(data: bytes) -> None:
    parses(data)
    parses(b'QFI\xfb' + data)
    parses(b'QFI\xfb\0\0\0\3' + data)


@given(heads(), st.lists(
    st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=8,
))
def test_mutated_header(head: bytes, flips: List[Tuple[int, int]]) -> None:
    """The judgement survives whatever the parser lets through."""
    mutated = bytearray(head)
    for position, value in flips:
        mutated[position] = value
    header = parses(bytes(mutated))
    if header:
        for expected in (None, BASE):
            for danger in find_dangers(
                header, expected_backing=expected, file_size=FILE_SIZE,
                virtual_size=MIB,
            ):
                assert danger.isprintable()


@given(heads())
def test_head_length_is_enough(head: bytes) -> None:
    assert is_qcow2(head)
    assert head_length(head[:104]) == len(head) <= HEAD_BYTES
    assert parse_header(head) == parse_header(head + b'more')


@given(heads(), names, st.sampled_from(['qcow2', 'raw']))
def test_rebase_changes_the_names_alone(
    head: bytes, name: bytes, fmt: str
) -> None:
    before = parse_header(head)
    rebased = rebase_header(head, name.decode(), fmt)
    after = parse_header(rebased)
    assert len(rebased) == len(head)
    assert (after.backing_file, after.backing_format) == (name.decode(), fmt)
    assert [e for e in after.extensions if e.kind != FORMAT] == [
        e for e in before.extensions if e.kind != FORMAT
    ]
    assert after == replace(
        before,
        backing_file=after.backing_file,
        extensions=after.extensions,
        autoclear=before.autoclear & 3,
    )
    assert rebase_header(rebased, name.decode(), fmt) == rebased


def test_rebase_keeps_the_order_and_unknown_fields() -> None:
    def build(name: bytes, fmt: bytes) -> bytes:
        head = make_head(length=128, name=name, extensions=[
            (1, b'one'), (FORMAT, fmt), (2, b'two two two'),
        ])
        return head[:112] + b'fields of future' + head[128:]

    assert rebase_header(build(b'an old name', b'raw'), 'x', 'qcow2') == (
        build(b'x', b'qcow2')
    )


def test_rebase_wipes_the_old_name() -> None:
    rebased = rebase_header(make_head(name=b'/etc/shadow' * 9), 'x', 'raw')
    assert b'shadow' not in rebased


def test_rebase_drops_feature_names_only_when_it_must() -> None:
    head = make_head(bits=9, extensions=[(NAMES, b'n' * 288), (9, b'kept')])
    short = parse_header(rebase_header(head, 'b' * 40, 'qcow2'))
    assert short.extension(NAMES) == b'n' * 288
    long = parse_header(rebase_header(head, 'b' * 200, 'qcow2'))
    assert long.extension(NAMES) is None
    assert long.extension(9) == b'kept'
    with pytest.raises(BadHeader, match='no room'):
        rebase_header(head, 'b' * 400, 'qcow2')


@pytest.mark.parametrize('name, fmt', [
    ('', 'raw'), ('a\0b', 'raw'), ('a' * 1024, 'raw'), ('a', 'f' * 16),
])
def test_rebase_refuses_what_is_no_name(name: str, fmt: str) -> None:
    with pytest.raises(BadHeader, match='is not a name'):
        rebase_header(make_head(), name, fmt)


def test_rebase_wants_exactly_the_first_cluster() -> None:
    with pytest.raises(BadHeader, match='65536 bytes, not 65537'):
        rebase_header(make_head() + b'x', 'x', 'raw')


# Case -> what is set by hand, and the danger that must be named, alone.
DANGERS: Dict[str, Tuple[Dict[str, Any], str]] = {
    'host path': ({'name': b'/etc/shadow'}, 'a path of the host'),
    'json': ({'name': b'json:{"driver":"nbd"}'}, 'a protocol of qemu'),
    'nbd': ({'name': b'nbd:evil:10809'}, 'a protocol of qemu'),
    'url': ({'name': b'http://evil/x'}, 'a protocol of qemu'),
    'file protocol': ({'name': b'file:el7-base'}, 'a protocol of qemu'),
    'parent': ({'name': b'../el7-base'}, 'outside the store'),
    'hidden parent': ({'name': b'./../el7-base'}, 'outside the store'),
    'directory': ({'name': b'dir/el7-base'}, 'in another directory'),
    'short directory': ({'name': b'd/el7-base'}, 'in another directory'),
    'another': ({'name': b'./el8-base:v1'}, 'another file'),
    'another version': ({'name': b'./el7-base:v2'}, 'another file'),
    'terminated': ({'name': b'./el7-base\0'}, 'not a printable name'),
    'missing': ({'name': b''}, 'no backing file, expected its base, one of'),
    'format': ({'extensions': [(FORMAT, b'vmdk')]}, "format 'vmdk'"),
    'data file bit': ({'incompatible': 4}, 'external data file'),
    'data file name': (
        {'extensions': [(DATA_FILE, b'/etc/shadow')]}, 'external data file',
    ),
    'raw data file bit': ({'autoclear': 2}, 'external data file'),
    'corrupt': ({'incompatible': 2}, 'corrupt'),
    'no disk': ({'virtual_size': 0}, 'its disk has 0 bytes'),
    'dirty': ({'incompatible': 1}, 'not closed cleanly'),
    'unknown bit': ({'incompatible': 1 << 5}, 'features 0x20'),
    'last bit': ({'incompatible': 1 << 63}, 'features 0x8000000000000000'),
    'aes': ({'crypt_method': 1}, 'encrypted'),
    'luks': ({'crypt_method': 2}, 'encrypted'),
    'crypto header': ({'extensions': [(CRYPTO, bytes(16))]}, 'encrypted'),
    'refcount width': ({'refcount_order': 7}, 'reference counts of 2^7'),
    'compression bit': ({'incompatible': 8}, 'zlib contradicts'),
    'compression': ({'compression_type': 1}, 'zstd contradicts'),
    'compression type': (
        {'compression_type': 2, 'incompatible': 8}, 'compression type 2',
    ),
    'extended L2': (
        {'bits': 13, 'incompatible': 16}, 'extended L2 entries',
    ),
    'L1 outside': ({'l1_offset': FILE_SIZE}, 'L1 table ends at'),
    'L1 unaligned': ({'l1_offset': 65537}, 'does not begin with a cluster'),
    'L1 in the header': ({'l1_offset': 0}, 'overlaps the header'),
    'L1 too small': ({'virtual_size': 1 << 45}, 'the virtual size needs'),
    'huge disk': ({'virtual_size': 2 ** 64 - 1}, 'the virtual size needs'),
    'no L1': ({'l1_entries': 0}, 'L1 table of 0 entries'),
    'refcounts outside': (
        {'refcount_offset': FILE_SIZE}, 'refcount table ends at',
    ),
    'refcounts unaligned': ({'refcount_offset': 65600}, 'does not begin'),
    'no refcounts': ({'refcount_clusters': 0}, 'no refcount table'),
    'snapshots outside': (
        {'snapshots': 1, 'snapshots_offset': FILE_SIZE}, 'snapshot table ends',
    ),
    'snapshots unaligned': ({'snapshots_offset': 8}, 'does not begin'),
    'snapshots nowhere': ({'snapshots_offset': 1 << 63}, 'outside the file'),
    'bitmaps size': ({'extensions': [(BITMAPS, b'x')]}, 'of 1 bytes'),
    'no bitmaps': (
        {'autoclear': 1, 'extensions': [
            (BITMAPS, struct.pack('>IIQQ', 0, 0, 32, 65536))]},
        'with 0 bitmaps',
    ),
    'bitmaps outside': (
        {'autoclear': 1, 'extensions': [
            (BITMAPS, struct.pack('>IIQQ', 1, 0, 32, FILE_SIZE))]},
        'bitmap directory ends',
    ),
    'bitmaps of nothing': (
        {'autoclear': 1, 'extensions': [
            (BITMAPS, struct.pack('>IIQQ', 1, 0, 0, 65536))]},
        'directory of 0 bytes',
    ),
}


@pytest.mark.parametrize('case', DANGERS)
def test_danger(case: str) -> None:
    fields, message = DANGERS[case]
    dangers = find_dangers(
        parse_header(make_head(**fields)),
        expected_backing=BASE, file_size=FILE_SIZE,
    )
    assert len(dangers) == 1 and message in dangers[0], dangers


@pytest.mark.parametrize('fields, message', [
    ({'l1_entries': (4 << 20) + 1}, 'L1 table of 33554440 bytes'),
    ({'refcount_clusters': 129}, 'refcount table of 8454144 bytes'),
    ({'snapshots': 65537, 'snapshots_offset': 65536},
     'snapshot table of 2621480 bytes'),
])
def test_tables_have_limits(fields: Dict[str, Any], message: str) -> None:
    dangers = find_dangers(
        parse_header(make_head(**fields)), expected_backing=BASE,
    )
    assert len(dangers) == 1 and message in dangers[0], dangers


@pytest.mark.parametrize('fields', [
    {}, {'version': 2}, {'version': 2, 'extensions': []},
    {'extensions': []}, {'extensions': [(FORMAT, b'raw')]},
    {'incompatible': 8, 'compression_type': 1}, {'incompatible': 16},
    {'compatible': 2 ** 64 - 1}, {'autoclear': 4}, {'length': 104},
    {'snapshots': 1, 'snapshots_offset': 65536},
    {'autoclear': 1, 'extensions': [
        (BITMAPS, struct.pack('>IIQQ', 1, 0, 32, 65536))]},
    {'extensions': [(BITMAPS, bytes(24))]},
])
def test_harmless(fields: Dict[str, Any]) -> None:
    assert find_dangers(
        parse_header(make_head(**fields)),
        expected_backing=BASE, file_size=FILE_SIZE, virtual_size=MIB,
    ) == []


@pytest.mark.parametrize('said, real, fine', [
    (b'raw', 'raw', True), (b'raw', 'qcow2', False), (b'raw', None, True),
    (b'qcow2', 'raw', False),
])
def test_backing_format_and_format_of_the_base(
    said: bytes, real: Optional[str], fine: bool
) -> None:
    header = parse_header(make_head(extensions=[(FORMAT, said)]))
    dangers = find_dangers(
        header, expected_backing=BASE, base_format=real
    )
    assert dangers == ([] if fine else [
        f'backing format {said.decode()!r}, but its base is {real}'
    ])


def test_bottom_image() -> None:
    bottom = parse_header(make_head(name=b'', incompatible=1))
    assert find_dangers(bottom, expected_backing=None) == []
    layer = parse_header(make_head())
    [danger] = find_dangers(layer, expected_backing=None)
    assert "'./el7-base:v1'" in danger and 'expected none' in danger


def test_all_dangers_are_named() -> None:
    dangers = find_dangers(
        parse_header(make_head(
            name=b'/etc/shadow', incompatible=2 | 4, crypt_method=1,
            l1_offset=1 << 40,
        )),
        expected_backing=BASE, file_size=FILE_SIZE, virtual_size=2 * MIB,
    )
    assert len(dangers) == 6
    assert 'the index says 2097152' in dangers[-1]


def test_virtual_size_smaller_than_the_base() -> None:
    header = parse_header(make_head())
    assert find_oddities(header, base_virtual_size=None) == []
    assert find_oddities(header, base_virtual_size=MIB) == []
    [oddity] = find_oddities(header, base_virtual_size=MIB + 1)
    assert '1048577' in oddity


@pytest.mark.parametrize('handle, names', [
    ('el7-base', {'el7-base.qcow2', 'el7-base.img'}),
    ('dir/disk.qcow2.xz', {'disk.qcow2.xz', 'disk.qcow2', 'disk'}),
    ('disk.img', {'disk.img', 'disk'}),
    ('disk.zst', {'disk.zst', 'disk', 'disk.qcow2'}),
    ('a/nbd:host', set()),
    ('a/', set()),
    ('a/.', set()),
])
def test_accepted_backings(handle: str, names: set[str]) -> None:
    always = {'el7-base', 'el7-base:v1', 'lab:el7-base:v1'}
    found = accepted_backings(REF, handle)
    assert found >= names | always
    assert found >= {f'./{name}' for name in names | always}
    if not names:
        assert len(found) == 2 * len(always)
    for name in found:
        assert '/' not in name[2 if name.startswith('./') else 0:]
        assert '..' not in name.split('/')
