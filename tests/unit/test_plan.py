"""Plans: what is present, what is fetched and kept, and whether it fits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import (
    BaseName, Chain, Digest, Image, ImageRef, Partial, Stored, UNKNOWN,
)
from lago_layered_provider.core.plan import Plan, Room, State, plan_document
from lago_layered_provider.core.planning import SPOOL_BYTES, make_plan
from lago_layered_provider.core.store_names import store_names
from lago_layered_provider.core.wanted import parse_wanted
from lago_layered_provider.index.catalog import Catalog
from lago_layered_provider.index.document import parse_index
from lago_layered_provider.index.resolve import resolve
from tests.unit.strategies import Forest, digest_of, forests

MIB = 2**20
AMPLE = Room('/store', 2**60)


def make_image(name: str, base: Optional[str] = None, **keys: Any) -> Image:
    """Return an image of 1000 bytes, 100 compressed."""
    return replace(
        Image(
            ref=ImageRef('lab', name, 'v1'), source='main', handle=name,
            timestamp=1, base=BaseName(base, 'v1') if base else None,
            compression='zst', size=1000, compressed_size=100,
            digests=(Digest('sha512', digest_of(name)),),
        ),
        **keys,
    )


def make_chain(*names: str, **keys: Any) -> Chain:
    """Return a chain of such images, base first."""
    return Chain(tuple(
        make_image(name, base, **keys)
        for base, name in zip((None, *names), names)
    ))


def visible(*images: Image, **keys: Any) -> Dict[str, Stored]:
    """Return images as they stand in the store under Lago's names."""
    found = [
        replace(
            Stored(
                name=str(image.ref), format='qcow2', size=image.size or 1,
                disk=image.size or 1, virtual_size=9999,
                digests=image.digests,
                backing=(
                    f'lab:{image.base}' if isinstance(image.base, BaseName)
                    else None
                ),
            ),
            **keys,
        )
        for image in images
    ]
    return {each.name: each for each in found}


def plan(
    *chains: Chain,
    stored: Optional[Mapping[str, Stored]] = None,
    partial: Optional[Mapping[str, Partial]] = None,
    room: Room = AMPLE,
    **keys: Any,
) -> Plan:
    return make_plan(
        chains, stored=stored or {}, partial=partial or {}, room=room, **keys
    )


def shape(made: Plan) -> List[str]:
    """Return the layers as short texts: sign, name, base."""
    signs = {State.PRESENT: '=', State.PARTIAL: '~', State.MISSING: '+'}
    return [
        ' '.join(
            each.replace('lab:', '').replace(':v1', '')
            for each in (signs[layer.state] + layer.name, layer.base or '-')
        )
        for layer in made.layers
    ]


ABC = make_chain('a', 'b', 'c')
A, B, C = ABC.images
ABD = Chain((A, B, make_image('d', 'b')))
X = make_chain('x')

#: Chains, store names that are there, expected layers.
PLANS: Dict[str, Tuple[List[Chain], Mapping[str, Stored], List[str]]] = {
    'nothing': ([], {}, []),
    'empty store': ([ABC], {}, ['+a -', '+b a', '+c b']),
    'base present': ([ABC], visible(A), ['=a -', '+b a', '+c b']),
    'all present': ([ABC], visible(A, B, C), ['=a -', '=b a', '=c b']),
    'shared base': ([ABC, ABD], {}, ['+a -', '+b a', '+c b', '+d b']),
    'shared base, present': (
        [ABC, ABD], visible(A, B), ['=a -', '=b a', '+c b', '+d b'],
    ),
    'the same twice': ([ABC, ABC], {}, ['+a -', '+b a', '+c b']),
    'a forest': (
        [ABC, X], visible(*X), ['+a -', '+b a', '+c b', '=x -'],
    ),
    'the base is wanted too': (
        [Chain((A, B)), ABC], visible(A), ['=a -', '+b a', '+c b'],
    ),
    'present, but its base is gone': (
        [ABC], visible(A, C), ['=a -', '+b a', '=c b'],
    ),
    'present, but the lowest base is gone': (
        [ABC], visible(B, C), ['+a -', '=b a', '=c b'],
    ),
    'a flat image of a plain Lago serves': (
        [ABC], visible(C, format='raw', backing=None), ['=c -'],
    ),
    'a flat base of a plain Lago serves': (
        [ABC], visible(B, format='raw', backing=None), ['=b -', '+c b'],
    ),
    'a present image keeps the base it has': (
        [ABC], {**visible(C, backing='lab:y:v1'), **visible(make_image('y'))},
        ['=y -', '=c y'],
    ),
    'others in the store do not matter': (
        [ABC], visible(*X), ['+a -', '+b a', '+c b'],
    ),
}


@pytest.mark.parametrize('chains, stored, expected', PLANS.values(),
                         ids=PLANS)
def test_plans(
    chains: List[Chain], stored: Mapping[str, Stored], expected: List[str]
) -> None:
    made = plan(*chains, stored=stored)
    assert shape(made) == expected
    assert made.tops == tuple(str(chain.top.ref) for chain in chains)
    missing = [text for text in expected if text[0] == '+']
    assert made.to_fetch == 100 * len(missing)
    assert made.to_keep == 1000 * len(missing)
    assert made.exact


def test_a_layer_by_its_name() -> None:
    assert plan(ABC).layer('lab:b:v1').base == 'lab:a:v1'


@pytest.mark.parametrize('chains', [
    [Chain((A,)), ABC], [ABC, Chain((A,))],
], ids=['base first', 'base last'])
def test_a_wanted_base_keeps_its_image(chains: List[Chain]) -> None:
    made = plan(*chains, stored=visible(A, B, C))
    assert made.layer('lab:a:v1').image == A
    assert made.layer('lab:c:v1').image == C


def test_a_base_that_nothing_brings_back() -> None:
    stored = visible(C, backing='lab:gone:v1')
    with pytest.raises(errors.StoreError) as caught:
        plan(ABC, stored=stored)
    assert 'lab:c:v1 stands on lab:gone:v1' in str(caught.value)


class Patience(Dict[str, Stored]):
    """A store that is asked only so often."""

    left = 10_000

    def __getitem__(self, key: str) -> Stored:
        self.left -= 1
        if not self.left:
            pytest.fail('the store is asked again and again')
        return super().__getitem__(key)


@pytest.mark.parametrize('backing', [
    {'c': 'c'}, {'c': 'b', 'b': 'c'}, {'c': 'b', 'b': 'a', 'a': 'b'},
], ids=['on itself', 'two', 'further down'])
def test_a_circle_in_the_store(backing: Dict[str, str]) -> None:
    stored = Patience()
    for name, base in backing.items():
        stored.update(visible(make_image(name), backing=f'lab:{base}:v1'))
    with pytest.raises(errors.LayeredError):
        plan(ABC, stored=stored)


# Published again under the same name.

NEW_DIGEST = Digest('sha512', digest_of('new'))
NEW_B = replace(B, digests=(NEW_DIGEST,))
NEW_NAME = f'lab:b:v1+{NEW_DIGEST.value[:8]}'


def test_names_in_the_store() -> None:
    assert store_names(NEW_B) == ('lab:b:v1', NEW_NAME)
    assert store_names(replace(B, digests=())) == ('lab:b:v1',)


def test_a_republished_image_gets_a_name_of_its_own() -> None:
    made = plan(
        Chain((A, NEW_B, make_image('d', 'b'))), stored=visible(A, B, C)
    )
    assert [(each.name, each.base) for each in made.missing] == [
        (NEW_NAME, 'lab:a:v1'), ('lab:d:v1', NEW_NAME)
    ]
    assert 'lab:b:v1' not in [layer.name for layer in made.layers]


def test_a_republished_top() -> None:
    made = plan(Chain((A, NEW_B)), stored=visible(A, B))
    assert made.tops == (NEW_NAME,)


def test_a_republished_image_that_is_there() -> None:
    stored = {
        **visible(A, B), **visible(NEW_B, name=NEW_NAME),
    }
    made = plan(Chain((A, NEW_B, C)), Chain((A, NEW_B)), stored=stored)
    assert made.layer(NEW_NAME).state is State.PRESENT
    assert made.layer('lab:c:v1').base == NEW_NAME
    assert made.tops == ('lab:c:v1', NEW_NAME)


def test_what_stands_on_the_old_one_stays() -> None:
    made = plan(Chain((A, NEW_B, C)), stored=visible(A, B, C))
    assert shape(made) == ['=a -', '=b a', '=c b']


def test_an_image_without_known_digest_is_not_taken_for_another() -> None:
    unknown = replace(B, digests=())
    assert not plan(Chain((A, unknown)), stored=visible(A, B)).missing
    assert not plan(Chain((A, B)), stored=visible(A, unknown)).missing


def test_the_digests_that_both_know_decide() -> None:
    weak = Digest('sha1', '1' * 40)
    both = replace(B, digests=(weak, *B.digests))
    stored = visible(A, replace(B, digests=(weak,)))
    assert not plan(Chain((A, both)), stored=stored).missing
    stored = visible(A, replace(B, digests=(Digest('sha1', '2' * 40),)))
    assert plan(Chain((A, both)), stored=stored).tops == (
        f'lab:b:v1+{digest_of("b")[:8]}',
    )


# Bytes.

def test_what_was_fetched_already() -> None:
    made = plan(ABC, partial={'lab:b:v1': Partial(fetched=30, disk=400)})
    layer = made.layer('lab:b:v1')
    assert layer.state is State.PARTIAL
    assert (layer.fetch, layer.keep) == (70, 600)
    assert (layer.fetched, layer.on_disk) == (30, 400)
    assert (made.to_fetch, made.to_keep) == (270, 2600)
    assert layer in made.missing


def test_more_was_fetched_than_announced() -> None:
    made = plan(ABC, partial={'lab:b:v1': Partial(fetched=101, disk=1001)})
    assert (made.to_fetch, made.to_keep) == (200, 2000)


def test_a_rest_of_a_present_image_does_not_count() -> None:
    made = plan(
        Chain((A,)), stored=visible(A),
        partial={'lab:a:v1': Partial(fetched=30, disk=400)},
    )
    assert not made.missing


def test_an_uncompressed_image_is_fetched_as_it_is() -> None:
    made = plan(make_chain('a', compression=None, compressed_size=None))
    assert (made.to_fetch, made.to_keep, made.exact) == (1000, 1000, True)


@pytest.mark.parametrize('unknown', [
    {'size': None}, {'compressed_size': None},
    {'compressed_size': None, 'compression': UNKNOWN},
    {'size': None, 'compressed_size': None},
])
def test_unknown_sizes(unknown: Dict[str, Any]) -> None:
    made = plan(Chain((A, replace(B, **unknown))))
    assert not made.exact
    assert made.to_fetch == (100 if 'compressed_size' in unknown else 200)
    assert made.to_keep == (1000 if 'size' in unknown else 2000)
    there = plan(Chain((A, replace(B, **unknown))), stored=visible(A, B))
    assert there.exact


def test_temporary_room_is_that_of_the_blocks_that_wait() -> None:
    def chain(name: str, size: int, **keys: Any) -> Chain:
        return make_chain(name, compressed_size=size, **keys)

    chains = [
        chain('a', 5 * MIB), chain('b', 900 * MIB), chain('c', 7 * MIB),
        chain('d', 900 * MIB, compression=None),
    ]
    assert plan(*chains, blocks=1).temporary == SPOOL_BYTES
    assert plan(*chains, blocks=2).temporary == 2 * SPOOL_BYTES
    assert plan(*chains, blocks=99).temporary == 912 * MIB
    stored = visible(chains[1].top)
    assert plan(*chains, stored=stored, blocks=1).temporary == 12 * MIB


# Room.

def test_no_room() -> None:
    # 3000 to keep and 300 for a while; 2500 free less 300 less 200.
    made = plan(ABC, room=Room('/the/store', 2500, reserved=300), reserve=200)
    with pytest.raises(errors.NotEnoughSpace) as caught:
        made.check_room()
    assert caught.value.needed == 3300
    assert caught.value.short == 1300
    text = str(caught.value)
    for word in (
        '/the/store', '3300', '2000', '1300', '300',
        'lab:a:v1: 1000', 'lab:b:v1: 1000', 'lab:c:v1: 1000',
    ):
        assert word in text


def test_it_just_fits() -> None:
    made = plan(ABC, room=Room('/store', 3800, reserved=300), reserve=200)
    made.check_room()
    assert made.room_left == 0


def test_what_is_present_needs_no_room() -> None:
    made = plan(
        ABC, stored=visible(A, B, C), room=Room('/store', 0, reserved=9),
        reserve=MIB,
    )
    made.check_room()
    assert made.needed == 0
    assert plan_document(made)['fits'] is True


def test_a_plan_as_data() -> None:
    made = plan(
        ABC, stored=visible(A), room=Room('/store', 5000, reserved=300),
        partial={'lab:c:v1': Partial(40, 500)}, reserve=200,
    )
    document = json.loads(json.dumps(plan_document(made)))
    assert [
        (each['name'], each['base'], each['state'])
        for each in document['layers']
    ] == [
        ('lab:a:v1', None, 'present'),
        ('lab:b:v1', 'lab:a:v1', 'missing'),
        ('lab:c:v1', 'lab:b:v1', 'partial'),
    ]
    assert document['wanted'] == ['lab:c:v1']
    assert document['to_fetch'] == 160
    assert document['to_keep'] == 1500
    assert document['directory'] == '/store'
    assert document['fits'] is True
    small = plan_document(plan(ABC, room=Room('/store', 3000)))
    assert small['fits'] is False
    assert small['room_left'] == -300


# Properties.

@st.composite
def situations(
    draw: st.DrawFn
) -> Tuple[Forest, List[Chain], Dict[str, Stored], Dict[str, Partial]]:
    """Draw wanted chains of a forest and any part of it in the store.

    Images may be present although their base is not.
    """
    forest = draw(forests())
    names = sorted(forest.bases)
    wanted = draw(st.lists(st.sampled_from(names)))
    catalog = Catalog([parse_index(forest.data, 'memory')])
    chains = resolve(
        catalog, [parse_wanted(name) for name in wanted]
    ).chains
    stored, partial = {}, {}
    for name in names:
        image = catalog.find(parse_wanted(name))
        state = draw(st.sampled_from(State))
        below = forest.bases[name]
        assert image.size and image.compressed_size
        if state is State.PRESENT:
            stored[f'lab:{name}'] = Stored(
                f'lab:{name}', 'qcow2', image.size, image.size, 9,
                image.digests, backing=f'lab:{below}' if below else None,
            )
        elif state is State.PARTIAL:
            partial[f'lab:{name}'] = Partial(
                draw(st.integers(1, image.compressed_size)),
                draw(st.integers(0, image.size)),
            )
    return forest, list(chains), stored, partial


def images_of(chains: List[Chain]) -> Iterator[Image]:
    done: Set[ImageRef] = set()
    for chain in chains:
        for image in chain:
            if image.ref not in done:
                done.add(image.ref)
                yield image


@given(situations(), st.integers(1, 9))
def test_any_plan(
    case: Tuple[Forest, List[Chain], Dict[str, Stored], Dict[str, Partial]],
    blocks: int,
) -> None:
    forest, chains, stored, partial = case
    made = plan(*chains, stored=stored, partial=partial, blocks=blocks)

    names = [layer.name for layer in made.layers]
    every = {str(image.ref): image for image in images_of(chains)}
    assert len(names) == len(set(names))
    assert set(names) == set(every)
    for place, layer in enumerate(made.layers):
        below = forest.bases[layer.name[len('lab:'):]]
        assert layer.base == (f'lab:{below}' if below else None)
        assert layer.base is None or layer.base in names[:place]
    assert list(made.tops) == [str(chain.top.ref) for chain in chains]

    missing = {layer.name for layer in made.missing}
    present = {
        layer.name for layer in made.layers if layer.state is State.PRESENT
    }
    assert missing == set(every) - set(stored)
    assert present == set(every) & set(stored)
    assert made.exact
    assert made.to_fetch == sum(
        (every[name].compressed_size or 0)
        - (partial[name].fetched if name in partial else 0)
        for name in missing
    )
    assert made.to_keep == sum(
        (every[name].size or 0)
        - (partial[name].disk if name in partial else 0)
        for name in missing
    )
    assert 0 <= made.temporary <= blocks * SPOOL_BYTES
    for layer in made.missing:
        assert layer.state is (
            State.PARTIAL if layer.name in partial else State.MISSING
        )


@given(st.integers(1), st.integers(0), st.integers(0), st.integers(0))
def test_freeing_what_is_short_is_enough_and_no_less(
    size: int, free: int, reserved: int, reserve: int
) -> None:
    chain = make_chain('a', 'b', size=size)

    def check(free: int) -> None:
        room = Room('/store', free, reserved)
        plan(chain, room=room, reserve=reserve).check_room()

    try:
        check(free)
    except errors.NotEnoughSpace as error:
        assert error.short > 0
        check(free + error.short)
        with pytest.raises(errors.NotEnoughSpace):
            check(free + error.short - 1)


@given(situations())
def test_when_all_is_there_nothing_is_needed(
    case: Tuple[Forest, List[Chain], Dict[str, Stored], Dict[str, Partial]],
) -> None:
    forest, chains, stored, _ = case
    for image in images_of(chains):
        below = forest.bases[image.ref.short]
        stored[str(image.ref)] = Stored(
            str(image.ref), 'qcow2', 1, 1, 9, image.digests,
            backing=f'lab:{below}' if below else None,
        )
    made = plan(
        *chains, stored=stored, room=Room('/store', 0, MIB), reserve=MIB
    )
    assert not made.missing
    assert (made.to_fetch, made.to_keep, made.needed) == (0, 0, 0)
    made.check_room()
    # And once more, as after a transfer: the same plan.
    assert plan(
        *chains, stored=stored, room=Room('/store', 0, MIB), reserve=MIB
    ) == made
