"""As what the images of a directory are published, and what is in the way."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import BaseName, Digest, Image, ImageRef
from lago_layered_provider.publishing.decide import Draft, Wishes, decide
from lago_layered_provider.publishing.library import Library
from lago_layered_provider.publishing.original import Original
from tests.unit.strategies import digest_of


def original(
    path: str, backing: Optional[str] = None, **keys: Any
) -> Original:
    keys.setdefault('time', 100.0)
    return Original(path, keys.pop('format', 'qcow2'), date='2026-11-22',
                    backing=backing, **keys)


def published(
    short: str, base: Optional[str] = None, timestamp: float = 50, **keys: Any
) -> Image:
    template, version = short.split(':')
    return Image(
        ImageRef('lab', template, version), 'lab',
        f'published/{template}/{version}.qcow2', timestamp,
        base=BaseName(*base.split(':')) if base else None, format='qcow2',
        digests=(Digest('sha512', digest_of(short)),), location='x', **keys,
    )


def library(
    *images: Image, places: Optional[Dict[str, str]] = None
) -> Library:
    return Library({each.ref.short: each for each in images}, places or {})


def decided(
    *originals: Original, known: Library = Library(),
    version: Optional[str] = 'v1', **bases: str
) -> Dict[str, Draft]:
    wishes = Wishes(version, {
        key.replace('__', '-'): base for key, base in bases.items()
    })
    return {
        draft.short: draft for draft in decide(originals, known, wishes)
    }


def faults(*originals: Original, **keys: Any) -> List[str]:
    with pytest.raises(ValueError) as caught:
        decided(*originals, **keys)
    return list(caught.value.args)


@pytest.mark.parametrize('backing', [
    '/home/build/images/base.qcow2', 'base.qcow2', './base.qcow2', 'base',
    './base:v1', 'base:v1', './lab:base:v1', '/var/lib/store/lab:base:v1',
    'images/base.img', '/tmp/base.qcow2.xz', 'base.xz',
])
def test_a_base_by_what_headers_call_it(backing: str) -> None:
    found = decided(original('nfs.qcow2', backing), original('base.qcow2'))
    assert list(found) == ['base:v1', 'nfs:v1']
    assert found['nfs:v1'].base == 'base:v1'
    assert found['nfs:v1'].base_format == 'qcow2'


@pytest.mark.parametrize('backing', [
    '/home/build/base.qcow2', './base:v1', 'base', f'{digest_of("base:v1")}:x',
    f'lago::{digest_of("base:v1")}::base',
])
def test_a_base_that_is_published_already(backing: str) -> None:
    known = library(published('base:v1'), places={'base.qcow2': 'base:v1'})
    found = decided(original('nfs.qcow2', backing), known=known, version='v2')
    assert found['nfs:v2'].base == 'base:v1'


def test_metadata_of_lago_images_tells_the_base_of_a_strange_header() -> None:
    found = decided(
        original('base.qcow2'),
        original('nfs', '/tmp/tmpx/disk', metadata={'base': 'base'}),
    )
    assert found['nfs:v1'].base == 'base:v1'


@pytest.mark.parametrize('path, metadata, name', [
    ('el7.qcow2', {}, 'el7:2026-11-22'),
    ('el7.img', {}, 'el7:2026-11-22'),
    ('sub/el7.raw.xz', {}, 'el7:2026-11-22'),
    ('el7:v3', {}, 'el7:v3'),
    ('office:el7:v3', {}, 'el7:v3'),
    ('el7.6-base.qcow2', {}, 'el7.6-base:2026-11-22'),
    # lago-images of 2015 and of its end.
    ('x.qcow2', {'id': 'el7-nfs', 'name': 'lago CentOS 7'},
     'el7-nfs:2026-11-22'),
    ('x.qcow2', {'id': 'x', 'name': 'el7-nfs', 'version': 'v4'}, 'el7-nfs:v4'),
])
def test_names(path: str, metadata: Dict[str, Any], name: str) -> None:
    assert list(decided(original(path, metadata=metadata), version=None)) == [
        name
    ]


def test_a_changed_image_is_a_new_version() -> None:
    known = library(
        published('base:2026-11-22'),
        places={'base.qcow2': 'base:2026-11-22'},
    )
    found = decided(original('base.qcow2'), known=known, version=None)
    assert list(found) == ['base:2026-11-22.2']


def test_a_base_is_never_the_younger() -> None:
    found = decided(
        original('base.qcow2', time=200.7), original('nfs.qcow2', 'base'),
    )
    assert found['nfs:v1'].timestamp == found['base:v1'].timestamp == 200


def test_metadata_is_inherited_and_says_nothing_of_another_file() -> None:
    found = decided(
        original('base.qcow2', metadata={
            'distro': 'el7', 'sha1': 'x', 'size': 5, 'base': 'libguestfs:y',
        }),
        original('nfs.qcow2', 'base'),
    )
    assert found['nfs:v1'].metadata == {'distro': 'el7'}
    known = library(published('nfs:v0', metadata={'arch': 'x86_64'}))
    again = decided(original('nfs.qcow2'), known=known)
    assert again['nfs:v1'].metadata == {'arch': 'x86_64'}


@pytest.mark.parametrize('base', [
    'other', 'other.qcow2', 'other:v1', './other.qcow2',
])
@pytest.mark.parametrize('image', ['nfs', 'nfs.qcow2', 'nfs:v1'])
def test_an_admin_says_the_base(image: str, base: str) -> None:
    drafts = decide([
        original('base.qcow2'), original('other.qcow2'),
        original('nfs.qcow2', 'base'),
    ], Library(), Wishes('v1', {image: base}))
    assert [draft.base for draft in drafts if draft.template == 'nfs'] == [
        'other:v1'
    ]


TABLE: List[Tuple[List[Original], Dict[str, Any], List[str]]] = [
    ([original('nfs.qcow2', '/x/gone.qcow2')], {},
     ["stands on '/x/gone.qcow2', which is neither here nor published"]),
    ([original('a.qcow2', 'b'), original('b.qcow2', 'a')], {},
     ['circle: a.qcow2 -> b.qcow2 -> a.qcow2']),
    ([original('a.qcow2', './a:v1')], {}, ['circle: a.qcow2 -> a.qcow2']),
    ([original('1/a.qcow2'), original('2/a.qcow2')], {},
     ['2/a.qcow2 and 1/a.qcow2 would both be a:v1']),
    ([original('1/b.qcow2', metadata={'id': 'b1'}),
      original('2/b.qcow2', metadata={'id': 'b2'}),
      original('a.qcow2', '/x/b.qcow2')], {},
     ['may be 1/b.qcow2 or 2/b.qcow2']),
    ([original('my image.qcow2')], {}, ["template 'my image' is not a name"]),
    ([original('a.qcow2')], {'known': library(published('a:v1'))},
     ['a:v1 is published with another content']),
    ([original('a.qcow2')], {'a': 'b'}, ['its header names no backing file']),
    ([original('a.qcow2', 'b')], {'a': 'c'}, ['c is neither here nor']),
    ([original('a.qcow2')], {'zz': 'c'}, ['no new image is called zz']),
    # With another format a guest would see other bytes.
    ([original('base.img', format='qcow2'),
      original('nfs.qcow2', 'base.img', backing_format='raw')], {},
     ['its header says that its base is raw, and base:']),
    ([original('nfs.qcow2', './base:v1', backing_format='raw')],
     {'known': library(published('base:v1'))}, ['base:v1 is qcow2']),
    # The base was built anew under a layer that was not.
    ([original('base.qcow2', time=300), original('nfs.qcow2', 'base')],
     {'version': 'v2', 'known': library(
         published('base:v1'), places={'base.qcow2': 'base:v1'})},
     ['base.qcow2, which it stands on, has changed since it was made']),
    # All of it at once.
    ([original('x.qcow2', 'gone'), original('y z.qcow2'),
      original('a.qcow2')], {'known': library(published('a:v1'))},
     ['y z', 'a:v1 is published', "stands on 'gone'"]),
]


@pytest.mark.parametrize('originals, keys, expected', TABLE)
def test_faults(
    originals: List[Original], keys: Dict[str, Any], expected: List[str]
) -> None:
    found = faults(*originals, **keys)
    assert len(found) == len(expected), found
    for words, fault in zip(expected, found):
        assert words in fault


def test_a_layer_stays_on_the_version_it_was_made_on() -> None:
    known = library(
        published('base:v1'), places={'base.qcow2': 'base:v1'},
    )
    found = decided(
        original('base.qcow2', time=300), original('nfs.qcow2', 'base'),
        known=known, version='v2', nfs='base:v1',
    )
    assert found['nfs:v2'].base == 'base:v1'


def test_an_entry_of_another_tool_may_be_replaced() -> None:
    listed = Image(
        ImageRef('lab', 'a', 'latest'), 'lab', 'a', 7,
        metadata={'distro': 'el7'}, location='x',
    )
    found = decided(
        original('a.xz', entry=listed), known=library(listed), version=None,
    )
    assert found['a:latest'].metadata == {'distro': 'el7'}


@st.composite
def forests(draw: st.DrawFn) -> List[Original]:
    """Originals in any order; each on one of those before it, or on none."""
    count = draw(st.integers(1, 12))
    found = []
    for number in range(count):
        base = draw(st.none() | st.integers(0, number - 1)) if number else None
        place = draw(st.sampled_from(['', '/build/', './', '/a/b/c/']))
        found.append(original(
            f'i{number}.qcow2',
            None if base is None else f'{place}i{base}.qcow2',
            time=draw(st.integers(0, 9)) * 100.0,
        ))
    return draw(st.permutations(found))


@given(forests())
def test_any_forest_is_published_base_first(originals: List[Original]) -> None:
    drafts = decide(originals, Library(), Wishes('v1'))
    assert len(drafts) == len(originals)
    seen: Dict[str, Draft] = {}
    for draft in drafts:
        backing = draft.original.backing
        assert (draft.base is None) == (backing is None)
        if draft.base is not None and backing is not None:
            below = seen[draft.base]
            assert below.original.path == backing.rpartition('/')[2]
            assert below.timestamp <= draft.timestamp
        seen[draft.short] = draft


@given(forests(), st.data())
def test_nothing_new_where_all_is_published(
    originals: List[Original], data: st.DataObject
) -> None:
    """Layers that come later find their base among what is published."""
    drafts = decide(originals, Library(), Wishes('v1'))
    count = data.draw(st.integers(0, len(drafts)))
    known = library(
        *(published(each.short, each.base, each.timestamp)
          for each in drafts[:count]),
        places={
            each.original.path: each.short for each in drafts[:count]
        },
    )
    later = decide(
        [each.original for each in drafts[count:]], known, Wishes('v1')
    )
    assert {each.short: each.base for each in later} == {
        each.short: each.base for each in drafts[count:]
    }
