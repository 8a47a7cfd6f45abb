"""The index of virt-builder: written, read again, and what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, List, Optional, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import BaseName, Image, ImageRef
from lago_layered_provider.formats import virt_index
from lago_layered_provider.formats.virt_index import Section, parse, render
from lago_layered_provider.lint.seen import Content, Seen
from lago_layered_provider.lint.virt import judge_virt_index
from lago_layered_provider.publishing.virt_sections import Offer, make_sections

SUM = 'ab' * 64

GOOD = f"""\
# made by hand
[el7-base]
name=CentOS 7
arch=x86_64
file=el7.xz
checksum[sha512]={SUM}
size=1024
revision=3
x.unknown[a,b]=is ignored
notes=one
 two
\t three

[el7-base]
arch=aarch64
file=b.xz
size=1
"""
SIGNED = (
    f'-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{GOOD}'
    f'-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n'
)


@pytest.mark.parametrize('text', [GOOD, SIGNED], ids=['plain', 'signed'])
def test_a_good_index(text: str) -> None:
    sections, faults = parse(text.encode())
    assert faults == []
    assert [each.name for each in sections] == ['el7-base', 'el7-base']
    first = sections[0]
    assert first.path == 'el7.xz'
    assert first.checksum == SUM
    assert first.get('notes') == 'one\ntwo\n three'
    assert not first.hidden


def test_a_line_of_blanks_goes_on_with_a_value() -> None:
    sections, faults = parse(GOOD.replace(' two\n', ' two\n \n  \n').encode())
    assert faults == []
    assert sections[0].get('notes') == 'one\ntwo\n\n \n three'
    assert [fault.code for fault in parse(b' \n[a]\n \n')[1][:2]] == [
        'virt-syntax', 'virt-syntax'
    ]


def field(line: str) -> str:
    return f'[a]\narch=x86_64\nfile=a.xz\nsize=1\n{line}\n'


@pytest.mark.parametrize('text, code, word', [
    ('arch=x\n', 'virt-syntax', 'before the first'),
    (field('root-partition=/dev/sda1'), 'virt-syntax', 'line 5'),
    (field('[a+b]'), 'virt-syntax', 'line 5'),
    (field('size=2'), 'virt-syntax', '2 times'),
    (field('') + field(''), 'virt-syntax', 'twice'),
    (field('x=y')[:-1], 'virt-syntax', 'newline'),
    ('[a]\nfile=a\nsize=1\n', 'virt-field', 'arch is missing'),
    ('[a]\narch=a\nsize=1\n', 'virt-field', 'file is missing'),
    ('[a]\narch=a\nfile=a\n', 'virt-field', 'size is missing'),
    ('[a]\narch=a\nfile=a\nsize=1G\n', 'virt-field', "'1G'"),
    (field('revision=1.5'), 'virt-field', "'1.5'"),
    (field('compressed_size=-1'), 'virt-field', "'-1'"),
    (field('hidden=yes'), 'virt-field', "'yes'"),
    (field('checksum[sha512]=abc'), 'virt-field', 'checksum'),
    ('[a]\narch=a\nfile=/a\nsize=1\n', 'virt-field', "'/a'"),
    ('[a]\narch=a\nfile=http://x/a\nsize=1\n', 'virt-field', 'beside'),
])
def test_what_is_wrong(text: str, code: str, word: str) -> None:
    faults = parse(text.encode())[1]
    assert [fault.code for fault in faults] == [code]
    assert word in faults[0].message


def test_all_that_is_wrong() -> None:
    faults = parse(b'a\n[b]\nfile=/b\nsize=x\n-\n')[1]
    assert len(faults) == 5


@given(st.binary())
def test_no_bytes_are_too_much(data: bytes) -> None:
    parse(data)


@given(st.text())
def test_paths_of_all_kinds(path: str) -> None:
    quoted = virt_index.quote(path.encode('utf-8', 'ignore').decode())
    assert virt_index.unquote(quoted) == path.encode(
        'utf-8', 'ignore').decode()
    assert quoted.isascii() and ' ' not in quoted and '#' not in quoted


_texts = st.text() | st.sampled_from(['a\nb=c', '[x]', 'CentOS 7', '\n'])


@given(st.lists(st.builds(
    lambda template, version, base, compression, time, values: Offer(
        Image(
            ImageRef('lab', template, version), 'main', 'h', time,
            base=base, format='qcow2', compression=compression,
            metadata=values,
        ), f'x/{template} {version}', 5, 3, SUM,
    ),
    st.sampled_from(['a', 'a-1', 'b+c', 'b@c', 'b_c-1']),
    st.sampled_from(['1', '2', '1-1', '@']),
    st.sampled_from([None, BaseName('a', '1')]),
    st.sampled_from([None, 'xz', 'zst', 'gz']),
    st.integers(0, 5),
    st.dictionaries(st.sampled_from([
        'name', 'arch', 'osinfo', 'notes', 'root-partition', 'expand',
    ]), _texts | st.integers()),
), unique_by=lambda offer: offer.image.ref))
def test_what_is_made_is_read_again(offers: List[Offer]) -> None:
    sections, warnings = make_sections(offers)
    found, faults = parse(render(sections))
    assert faults == []
    assert found == sections
    paths = {offer.path: offer for offer in offers}
    left_out = [each for each in warnings if 'left out' in each]
    assert len(sections) + len(left_out) == len(offers)
    for section in found:
        image = paths[section.path].image
        if image.base is not None or image.compression not in (None, 'xz'):
            assert section.hidden
    names: List[Optional[str]] = [section.name for section in found]
    names += [section.get('aliases') for section in found]
    named = [name for name in names if name]
    assert len(named) == len(set(named))


def offer(name: str, time: float, **changes: Any) -> Offer:
    template, version = name.split(':')
    image = Image(
        ImageRef('lab', template, version), 'main', name, time, base=None,
        format='qcow2', compression='xz', metadata={},
    )
    return Offer(replace(image, **changes), name, 5, 3, SUM)


def test_the_newest_version_has_the_name() -> None:
    sections, warnings = make_sections([
        offer('el7:v1', 1), offer('el7:v3', 3), offer('el7:v2', 2),
    ])
    assert [(each.name, each.path, each.hidden) for each in sections] == [
        ('el7', 'el7:v3', False), ('el7-v1', 'el7:v1', True),
        ('el7-v2', 'el7:v2', True),
    ]
    assert sections[0].get('aliases') == 'el7-v3'
    assert warnings == []


def test_facts_for_virt_builder() -> None:
    section = make_sections([offer('el7:v1', 7.5, metadata={
        'arch': 'aarch64', 'root-partition': '/dev/vda3', 'name': 'CentOS\n7',
        'osinfo': 'centos7.0', 'notes': 'x\ny',
    })])[0][0]
    assert section.get('arch') == 'aarch64'
    assert section.get('expand') == '/dev/sda3'
    assert section.get('name') == 'CentOS 7 v1'
    assert section.get('revision') == '7'
    assert section.get('notes') == 'x y'


def test_what_virt_builder_cannot_use() -> None:
    sections, warnings = make_sections([
        offer('a:1', 1, compression='zst'),
        offer('b:1', 1, base=BaseName('a', '1'), compression='zst'),
        offer('c+d:1', 1), offer('c@d:1', 1),
    ])
    assert [(each.name, each.hidden) for each in sections] == [
        ('a', True), ('b', True), ('c_d', False),
    ]
    assert 'c@d:1 is left out' in warnings[0]
    assert 'hidden: a:1;' in warnings[1]


SECTION = Section('el7', (
    (('file', ''), 'el7.xz'), (('size', ''), '9'), (('arch', ''), 'x'),
    (('compressed_size', ''), '4'), (('checksum', 'sha512'), SUM),
))
SEEN = Seen(
    offer('el7:v1', 1, virtual_size=9).image, url='u', total=4,
)


@pytest.mark.parametrize('changes, size, expected', [
    ({}, 4, set()),
    ({}, 5, {'virt-size'}),
    ({}, None, {'virt-file'}),
    ({'missing': True}, None, set()),
    ({'image': replace(SEEN.image, virtual_size=8)}, 4, {'virt-size'}),
    ({'content': Content(1, file_sha512=SUM)}, 4, set()),
    ({'content': Content(1, file_sha512='0' * 128)}, 4, {'virt-checksum'}),
    ({'image': replace(SEEN.image, virtual_size=9, base=BaseName('a'))}, 4,
     {'virt-layer'}),
])
def test_against_the_images(
    changes: Any, size: Optional[int], expected: Set[str]
) -> None:
    found = judge_virt_index(
        [SECTION], [], {'el7.xz': replace(SEEN, **changes)}, {'el7.xz': size}
    )
    assert {finding.code for finding in found} == expected
