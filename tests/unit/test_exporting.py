"""What an exported disk stands on, and what its metadata says."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import Digest, ImageRef
from lago_layered_provider.environments.export_plan import (
    Link, Shape, describe_base, inherit_metadata, published_ref, shape_export,
    strongest,
)

SHA1 = Digest('sha1', '12345678' + 'a' * 32)
SHA512 = Digest('sha512', '1a2b3c4d' + 'b' * 120)
BOTH = (SHA1, SHA512)


def chain(*store_names: Optional[str]) -> Sequence[Link]:
    """Return a disk and what is below it, by the names in a store."""
    return [Link('/disk', 'qcow2'), *(
        Link(f'/{number}', 'qcow2', name)
        for number, name in enumerate(store_names)
    )]


@pytest.mark.parametrize('below, base, direct', [
    ([], None, True),
    (['r:a:1'], 0, True),
    (['r:a:1', 'r:b:1'], 0, True),
    ([None, 'r:a:1'], 1, False),
    ([None, None, 'r:a:1', 'r:b:1'], 2, False),
    ([None], None, False),
    ([None, None], None, False),
])
def test_layered_export_stands_on_the_first_published_image(
    below: Sequence[Optional[str]], base: Optional[int], direct: bool
) -> None:
    links = chain(*below)
    expected = None if base is None else links[base + 1]
    shape = shape_export(links, standalone=False)
    assert shape == Shape(expected, direct)


@pytest.mark.parametrize('below, direct', [
    ([], True), (['r:a:1'], False), ([None, 'r:a:1'], False), ([None], False),
])
def test_standalone_export_stands_on_nothing(
    below: Sequence[Optional[str]], direct: bool
) -> None:
    shape = shape_export(chain(*below), standalone=True)
    assert shape == Shape(None, direct)


@pytest.mark.parametrize('name, digests, stated, version', [
    ('r:t:v1', BOTH, None, 'v1'),
    ('r:t:v1', (), 'r/t:v1', 'v1'),
    # Published again: the ending is ours.
    ('r:t:v1+1a2b3c4d', BOTH, None, 'v1'),
    ('r:t:v1+12345678', BOTH, None, 'v1'),
    ('r:t:v1+1a2b3c4d', (), 'r/t:v1', 'v1'),
    # A version that only looks so.
    ('r:t:v1+1a2b3c4d', (SHA1,), None, 'v1+1a2b3c4d'),
    ('r:t:v1+1a2b3c4d', (), None, 'v1+1a2b3c4d'),
    ('r:t:v1+1a2b3c4d', BOTH, 'r/t:v1+1a2b3c4d', 'v1+1a2b3c4d'),
    ('r:t:+1a2b3c4d', BOTH, None, '+1a2b3c4d'),
    ('r:t:v1+1A2B3C4D', BOTH, None, 'v1+1A2B3C4D'),
    # Published again, with such a version.
    ('r:t:v+00000000+1a2b3c4d', BOTH, None, 'v+00000000'),
    # The store may have the same bytes of another one.
    ('other:t2:v2', BOTH, 'r/t:v1', 'v1'),
    # What is no complete name.
    ('r:t:v1', BOTH, 't:v2', 'v1'),
    ('r:t:v1', BOTH, 'r/t', 'v1'),
    ('r:t:v1', BOTH, ['r/t:v2'], 'v1'),
    ('r:t:v1', BOTH, '', 'v1'),
    ('r:t:v1', BOTH, 'layer:x', 'v1'),
    ('r:t:v1', BOTH, '../t:v2', 'v1'),
])
def test_name_of_the_published_image(
    name: str, digests: Sequence[Digest], stated: Any, version: str
) -> None:
    assert published_ref(name, digests, stated) == ImageRef('r', 't', version)


NAMES = st.from_regex(r'[A-Za-z0-9_+@][A-Za-z0-9._+@-]{0,12}', fullmatch=True)


@given(NAMES, NAMES, NAMES, st.sampled_from(BOTH))
def test_every_store_name_leads_back(
    repository: str, template: str, version: str, digest: Digest
) -> None:
    ref = ImageRef(repository, template, version)
    again = f'{ref}+{digest.value[:8]}'
    assert published_ref(again, [digest]) == ref
    assert published_ref(again, [], f'{repository}/{ref.short}') == ref
    assert published_ref(str(ref), []) == ref


@pytest.mark.parametrize('digests, expected', [
    ((), None), ((SHA1,), SHA1), (BOTH, SHA512), ((SHA512, SHA1), SHA512),
])
def test_strongest_digest(
    digests: Sequence[Digest], expected: Optional[Digest]
) -> None:
    assert strongest(digests) == expected


def test_metadata_tells_the_base() -> None:
    ref = ImageRef('office', 'el7-nfs', 'v2')
    assert describe_base(ref, SHA512) == {
        'base': 'office/el7-nfs:v2', 'base_digest': str(SHA512),
    }
    assert describe_base(ref, None) == {'base': 'office/el7-nfs:v2'}
    assert describe_base(None, None) == {'base': None}


def test_facts_of_the_templates_file_are_not_inherited() -> None:
    kept = {'distro': 'el7', 'root-partition': '/dev/sda3', 'sha1': 'x'}
    assert inherit_metadata({
        **kept, 'sha512': 'x', 'checksum': 'x', 'compressed_size': 5,
        'base': 'layer:el7', 'base_digest': 'sha1:x',
    }) == kept
