"""What may leave a store: any forest, any users, any wishes."""

from __future__ import annotations

from typing import Dict, List, Optional, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import Stored
from lago_layered_provider.core.pruning import Wishes, choose_removals
from lago_layered_provider.core.sizes import parse_size
from lago_layered_provider.core.usage import (
    Needs, Use, UsageNote, find_needs, parse_note, with_bases,
)
from tests.unit.strategies import json_values

MIB = 2**20


def image(
    name: str, base: Optional[str] = None, time: float = 0,
    recorded: bool = True,
) -> Stored:
    return Stored(
        f'lab:{name}', 'qcow2', MIB, MIB, MIB, (),
        base and f'lab:{base}', time, time, recorded,
    )


def note(*images: str) -> UsageNote:
    uses = tuple(Use('vm', 'root', f'lab:{name}') for name in images)
    return UsageNote('/env', 'u1', uses)


def left(
    images: List[Stored], *used: str, held: str = '', free: int = 0,
    wishes: Wishes = Wishes(),
) -> Set[str]:
    """Return what stays of some images."""
    by_name = {each.name: each for each in images}
    holds = {f'lab:{held}': ''} if held else {}
    needs = find_needs(images, [note(*used)], holds)
    gone = choose_removals(by_name, needs, wishes, free)
    return {
        name[len('lab:'):] for name in by_name
        if name not in {each.name for each in gone}
    }


CHAIN = [
    image('a:v1', time=1), image('b:v1', 'a:v1', 2), image('c:v1', 'b:v1', 3),
    image('d:v1', 'a:v1', 4),
]


def test_a_chain() -> None:
    assert left(CHAIN) == set()
    assert left(CHAIN, 'b:v1') == {'a:v1', 'b:v1'}
    assert left(CHAIN, 'd:v1', held='c:v1') == {
        'a:v1', 'b:v1', 'c:v1', 'd:v1'
    }


def test_wishes() -> None:
    assert left(CHAIN, wishes=Wishes(before=2.5)) == {
        'a:v1', 'b:v1', 'c:v1', 'd:v1'
    }
    assert left(CHAIN, wishes=Wishes(before=3)) == {'a:v1', 'd:v1'}
    # The oldest that nothing stands on goes first.
    assert left(CHAIN, free=MIB, wishes=Wishes(until_free=2 * MIB)) == {
        'a:v1', 'b:v1', 'd:v1'
    }
    assert len(left(CHAIN, wishes=Wishes(until_free=0))) == 4
    versions = [image(f'x:v{number}', time=number) for number in range(4)]
    assert left(versions, wishes=Wishes(keep=2)) == {'x:v2', 'x:v3'}


def test_what_others_have_put_there_stays() -> None:
    images = [image('a:v1', recorded=False), image('b:v1', 'a:v1')]
    assert left(images) == {'a:v1'}
    assert left(images, wishes=Wishes(foreign=True)) == set()


def test_a_missing_base_and_a_circle_are_no_obstacle() -> None:
    images = [
        image('a:v1', 'gone:v1'), image('b:v1', 'c:v1'),
        image('c:v1', 'b:v1'),
    ]
    # A circle has no top; only a person can tell what it is.
    assert left(images) == {'b:v1', 'c:v1'}
    assert left(images, 'a:v1', 'b:v1') == {'a:v1', 'b:v1', 'c:v1'}


@st.composite
def stores(draw: st.DrawFn) -> Dict[str, Stored]:
    count = draw(st.integers(0, 12))
    found: Dict[str, Stored] = {}
    for number in range(count):
        base = None
        if found:
            base = draw(st.sampled_from([None, *found]))
        one = image(f't{number}:v1', base and base[len('lab:'):],
                    draw(st.integers(0, 5)))
        found[one.name] = one
    return found


@given(stores(), st.data())
def test_nothing_needed_goes_and_all_else_does(
    images: Dict[str, Stored], data: st.DataObject
) -> None:
    names = sorted(images)
    pick = st.lists(st.sampled_from(names)) if names else st.just([])
    used, held = data.draw(pick), data.draw(pick)
    needs = Needs(
        environments={
            name: ((note(), Use('vm', 'root', name)),) for name in used
        },
        images=find_needs(images.values(), [], {}).images,
        holds=dict.fromkeys(held, ''),
    )
    gone = [
        each.name
        for each in choose_removals(images, needs, Wishes(), 0)
    ]
    assert set(gone) == set(images) - set(with_bases(used + held, images))
    # Never an image before what stands on it.
    for at, name in enumerate(gone):
        assert images[name].backing not in gone[:at]


@given(stores(), st.integers(0, 5), st.integers(0, 12))
def test_wishes_only_keep_more(
    images: Dict[str, Stored], keep: int, megabytes: int
) -> None:
    needs = find_needs(images.values(), [], {})
    all_gone = {
        each.name for each in choose_removals(images, needs, Wishes(), 0)
    }
    wishes = Wishes(keep=keep, until_free=megabytes * MIB)
    some = choose_removals(images, needs, wishes, 0)
    assert {each.name for each in some} <= all_gone
    assert len(some) <= megabytes


@given(json_values)
def test_any_note(value: object) -> None:
    found = parse_note(value)
    assert found is None or parse_note(found.to_json()) == found


def test_a_note_comes_back() -> None:
    one = UsageNote('/env', 'u1', (Use('vm', 'root', 'lab:a:v1'),), '/', 7.5)
    assert parse_note(one.to_json()) == one


@pytest.mark.parametrize('text, size', [
    ('64M', 64 * MIB), ('2G', 2**31), ('1.5 GiB', 3 * 2**29), ('7', 7),
    ('7 B', 7), ('1kB', None), ('much', None), ('', None), ('-1', None),
    ('9' * 40, None),
])
def test_sizes(text: str, size: Optional[int]) -> None:
    if size is None:
        with pytest.raises(ValueError, match='64M'):
            parse_size(text)
    else:
        assert parse_size(text) == size
