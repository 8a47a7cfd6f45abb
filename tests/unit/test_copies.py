"""How the files of a copied repository are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import Digest, Image, ImageRef
from lago_layered_provider.index.document import SourceSpec, parse_index
from lago_layered_provider.index.writing import make_document, render_document
from lago_layered_provider.publishing.copy_names import (
    is_there, is_whole, name_files,
)
from tests.unit.strategies import digest_of

BESIDE = SourceSpec('file', {'root': '.'})


def image(
    name: str, handle: Optional[str] = None, content: str = '', **keys: Any
) -> Image:
    keys.setdefault('source', 'main')
    return Image(
        ImageRef('lab', name, 'v1'), handle=handle or f'{name}.qcow2',
        timestamp=1, compression='xz', digests=(
            Digest('sha512', digest_of(content or name)),
        ), **keys,
    )


def names(
    images: List[Image], here: Mapping[str, Image]
) -> Dict[str, str]:
    faults: List[str] = []
    handles = name_files(images, here, faults)
    assert faults == []
    return handles


def test_the_name_of_a_file_stays() -> None:
    """A layer's header may name its base by it."""
    found = [image('a', 'deep/a.qcow2'), image('b', 'published/b/v1.qcow2')]
    assert names(found, {}) == {
        'a:v1': 'published/deep/a.qcow2', 'b:v1': 'published/b/v1.qcow2',
    }


def test_two_sources_get_a_directory_each() -> None:
    found = [image('a', 'x.qcow2'), image('b', 'x.qcow2', source='other')]
    assert names(found, {}) == {
        'a:v1': 'published/main/x.qcow2', 'b:v1': 'published/other/x.qcow2',
    }


def test_an_older_copy_keeps_its_file() -> None:
    old = replace(image('a', content='old'), handle='published/a.qcow2')
    new = image('a', content='new')
    assert names([new], {'a:v1': old}) == {
        'a:v1': f'published/{digest_of("new")[:8]}/a.qcow2'
    }
    assert not is_there(new, old)
    assert is_there(replace(new, digests=old.digests), old)
    assert not is_there(new, None)


@pytest.mark.parametrize('handle', ['.a', 'x/.a', '.x/a', 'published/.lock'])
def test_hidden_names_are_refused(handle: str) -> None:
    faults: List[str] = []
    name_files([image('a', handle)], {}, faults)
    assert len(faults) == 1 and 'is hidden' in faults[0]


def test_no_two_images_share_a_file() -> None:
    here = {'own:v1': replace(image('own'), handle='published/a.qcow2')}
    assert names([image('a')], here) == {'a:v1': 'published/a/v1/a.qcow2'}
    both = [image('a', 'x.qcow2'), image('b', 'x.qcow2')]
    assert names(both, {}) == {
        'a:v1': 'published/x.qcow2', 'b:v1': 'published/b/v1/x.qcow2',
    }
    faults: List[str] = []
    here['too:v1'] = replace(image('too'), handle='published/a/v1/a.qcow2')
    name_files([image('a')], here, faults)
    assert len(faults) == 1 and 'would have the same file' in faults[0]


def test_what_is_there_keeps_its_name() -> None:
    one = image('a')
    here = {'a:v1': replace(one, handle='published/other/a.qcow2')}
    assert names([one], here) == {'a:v1': 'published/other/a.qcow2'}


@given(st.lists(
    st.tuples(
        st.sampled_from('abcdef'), st.sampled_from(['', 'x/', 'published/']),
        st.sampled_from(['main', 'other']),
    ), unique_by=lambda one: one[0], min_size=1,
))
def test_every_file_has_one_image(
    wanted: List[Any]
) -> None:
    images = [
        image(name, f'{place}{name}.qcow2', source=source)
        for name, place, source in wanted
    ]
    handles = names(images, {})
    assert len(set(handles.values())) == len(images)
    for one in images:
        handle = handles[one.ref.short]
        assert handle.startswith('published/')
        assert handle.endswith(one.handle.rpartition('/')[2])


@pytest.mark.parametrize('spec, handle, here, whole', [
    (BESIDE, 'published/a/v1.qcow2', [], True),
    (BESIDE, 'published/a/v1.qcow2', ['a:v1'], True),
    (SourceSpec('file', {'root': './'}), 'published/a.qcow2', [], True),
    (SourceSpec('http', {'baseurl': './'}), 'published/a.qcow2', [], True),
    # The index would send clients to the origin.
    (SourceSpec('http', {'baseurl': 'http://x/'}), 'published/a', [], False),
    (SourceSpec('file', {'root': '/srv'}), 'published/a', [], False),
    # The file has another name in the copy.
    (BESIDE, 'a.qcow2', [], False),
    # It would forget what is here as well.
    (BESIDE, 'published/a.qcow2', ['own:v1'], False),
])
def test_an_index_that_is_true_of_the_copy_too(
    spec: SourceSpec, handle: str, here: List[str], whole: bool
) -> None:
    one = image('a', handle)
    found = parse_index(render_document(
        make_document('lab', {'main': spec}, [one], 1)
    ), 'somewhere')
    assert is_whole(found, names([one], {}), here) is whole


def test_a_part_is_not_the_whole() -> None:
    both = [
        image(name, f'published/{name}.qcow2') for name in ('a', 'b')
    ]
    found = parse_index(render_document(
        make_document('lab', {'main': BESIDE}, both, 1)
    ), 'somewhere')
    assert is_whole(found, names(both, {}), [])
    assert not is_whole(found, names(both[:1], {}), [])
