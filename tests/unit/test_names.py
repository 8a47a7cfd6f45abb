"""The names of images in the store: what is there, shared, or taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import (
    Chain, Digest, Image, ImageRef, Stored,
)
from lago_layered_provider.core.plan import Plan, Room, State
from lago_layered_provider.core.planning import make_plan
from tests.unit.strategies import digest_of


def image(repository: str, name: str, content: str, **keys: Any) -> Image:
    """Return an image whose digest is made of its content."""
    return replace(
        Image(
            ref=ImageRef(repository, name, 'v1'), source='main', handle=name,
            timestamp=1, base=None, compression=None, size=1000,
            digests=(Digest('sha512', digest_of(content)),),
            location=repository,
        ),
        **keys,
    )


def stored(
    name: str, content: str, backing: Optional[str] = None
) -> Stored:
    return Stored(
        name, 'qcow2', 1000, 1000, 2000,
        (Digest('sha512', digest_of(content)),), backing,
    )


def plan_of(chains: List[List[Image]], *present: Stored) -> Plan:
    here: Mapping[str, Stored] = {each.name: each for each in present}
    return make_plan(
        [Chain(tuple(images)) for images in chains], stored=here, partial={},
        room=Room('/store', 2**40),
    )


def states(plan: Plan) -> Dict[str, str]:
    return {
        layer.name: 'missing' if layer.state is State.MISSING else 'present'
        for layer in plan.layers
    }


A = [image('a', 'base', 'X'), image('a', 'nfs', 'N')]
B = [image('b', 'el7', 'X'), image('b', 'share', 'N')]


def test_the_same_chain_of_two_repositories_is_one() -> None:
    plan = plan_of([A, B])
    assert states(plan) == {'a:base:v1': 'missing', 'a:nfs:v1': 'missing'}
    assert plan.tops == ('a:nfs:v1', 'a:nfs:v1')
    assert plan.to_keep == 2000


def test_what_is_there_under_another_name_is_not_fetched() -> None:
    present = (
        stored('a:base:v1', 'X'), stored('a:nfs:v1', 'N', 'a:base:v1')
    )
    plan = plan_of([B], *present)
    assert plan.missing == ()
    assert plan.tops == ('a:nfs:v1',)


def test_a_layer_on_a_shared_base_has_a_name_of_its_own() -> None:
    chain = [B[0], image('b', 'other', 'O')]
    plan = plan_of([chain], stored('a:base:v1', 'X'))
    assert states(plan) == {'a:base:v1': 'present', 'b:other:v1': 'missing'}
    layer = plan.layer('b:other:v1')
    assert layer.base == 'a:base:v1'
    # Its header names the base as its own repository does.
    assert layer.base_image == B[0]


def test_the_same_layer_on_another_base_is_another_image() -> None:
    other = [image('b', 'el7', 'Y'), image('b', 'share', 'N')]
    plan = plan_of([A, other])
    assert len(plan.missing) == 4
    present = (
        stored('a:base:v1', 'X'), stored('a:nfs:v1', 'N', 'a:base:v1')
    )
    assert set(states(plan_of([other], *present)).values()) == {'missing'}


@pytest.mark.parametrize('copy, found', [
    (stored('b:el7:v1', 'X'), 'a:nfs:v1'),
    # Another image, and one that nobody can compare.
    (replace(stored('b:el7:v1', 'X'), digests=()), 'b:share:v1'),
    (replace(stored('b:el7:v1', 'X'), digests=(
        *stored('b:el7:v1', 'X').digests, Digest('sha1', 'a' * 40),
    )), 'b:share:v1'),
])
def test_a_base_that_is_there_twice(copy: Stored, found: str) -> None:
    base = replace(stored('a:base:v1', 'X'), digests=(
        *stored('a:base:v1', 'X').digests, Digest('sha1', 'b' * 40),
    ))
    plan = plan_of([B], base, copy, stored('a:nfs:v1', 'N', 'a:base:v1'))
    assert plan.tops == (found,)
    assert states(plan)[found] == (
        'present' if found == 'a:nfs:v1' else 'missing'
    )


def test_a_circle_in_the_store_ends() -> None:
    plan = plan_of(
        [B], stored('b:el7:v1', 'X'),
        stored('a:nfs:v1', 'N', 'a:one:v1'),
        stored('a:one:v1', 'X', 'a:two:v1'),
        stored('a:two:v1', 'X', 'a:one:v1'),
    )
    assert states(plan) == {'b:el7:v1': 'present', 'b:share:v1': 'missing'}


def test_a_flat_copy_is_no_layer() -> None:
    plan = plan_of([B], stored('a:flat:v1', 'N'))
    assert set(states(plan).values()) == {'missing'}


def test_repositories_of_the_same_name() -> None:
    one = image('lab', 'base', 'X', location='one')
    two = image('lab', 'base', 'Y', location='two')
    plan = plan_of([[one], [two], [one]])
    again = f'lab:base:v1+{digest_of("Y")[:8]}'
    assert plan.tops == ('lab:base:v1', again, 'lab:base:v1')
    plan = plan_of([[two]], stored('lab:base:v1', 'X'))
    assert states(plan) == {again: 'missing'}


def test_what_no_digest_tells_apart_is_refused() -> None:
    one = image('lab', 'base', 'X', location='one', digests=())
    two = replace(one, location='two')
    with pytest.raises(errors.StoreError, match='two images, of one and of'):
        plan_of([[one], [two]])


def test_the_worst_case_counts() -> None:
    big = image('a', 'big', 'B', size=None, max_size=5000)
    plan = plan_of([[big], A[:1]])
    assert plan.to_keep == 6000
    assert not plan.exact
    assert [layer.exact for layer in plan.layers] == [False, True]
