"""A staged image that is written block by block."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import Partial
from lago_layered_provider.formats.block import Block
from lago_layered_provider.store import Stage, Store, layout, state as progress
from lago_layered_provider.store.blocks import Blocks
from lago_layered_provider.store.record import Record

NAME = 'repo:image:v1'
OTHER = 'repo:image:v1.5'
SIZE = 10_000
KIB = 1024


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.prepare()
    return store


@pytest.fixture
def stage(store: Store) -> Iterator[Stage]:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        yield stage


@pytest.fixture
def blocks(stage: Stage) -> Blocks:
    return stage.by_blocks(SIZE)


def partial(store: Store, name: str = NAME) -> Path:
    return Path(f'{store.root}/.layered/partial/{name}')


def paths_of(store: Store) -> layout.Layout:
    return layout.Layout(store.root)


def fetched(store: Store, identity: Optional[str] = 'it') -> int:
    """Return how many bytes count as fetched."""
    found = progress.read_partial(paths_of(store), NAME, identity)
    return found.fetched if found else 0


counts = st.integers(0, 2**62)


@given(
    consumed=counts, produced=counts, preamble=st.binary(max_size=20),
    validator=st.none() | st.text(max_size=9),
    ahead=st.lists(st.builds(Block, counts, counts, counts, counts)),
)
def test_state_to_json_and_back(
    tmp_path_factory: pytest.TempPathFactory, consumed: int, produced: int,
    preamble: bytes, validator: Optional[str], ahead: List[Block],
) -> None:
    store = Store(str(tmp_path_factory.getbasetemp() / 'round'))
    store.prepare()
    state = progress.Progress(
        'it', validator, consumed, produced, preamble, ahead=tuple(ahead)
    )
    progress.write_progress(paths_of(store), NAME, state)
    assert progress.read_progress(paths_of(store), NAME) == state


@pytest.mark.parametrize('ahead', [
    1, 'blocks', [1], [[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, -4]],
    [[1, 2, 3, '4']], [[1, 2, 3, 4.5]], [[1, 2, 3, None]],
    [[1, 2, 3, True]], ['1234'], [{'offset': 1}], {'a': 1},
])
def test_garbage_in_ahead_is_refused(
    ahead: Any, store: Store, blocks: Blocks
) -> None:
    """With all of the state: who wrote this knew nothing."""
    blocks.note(10, 20, (Block(30, 5, 40, 9),), None, b'')
    path = partial(store, f'{NAME}.json')
    state = json.loads(path.read_text())
    assert state['ahead'] == [[30, 5, 40, 9]]
    state['ahead'] = ahead
    path.write_text(json.dumps(state))
    assert progress.read_progress(paths_of(store), NAME) is None


def test_a_state_without_blocks_is_understood(
    store: Store, blocks: Blocks
) -> None:
    """As an earlier version has left it."""
    blocks.note(10, 20, (), 'tag', b'')
    path = partial(store, f'{NAME}.json')
    state = json.loads(path.read_text())
    del state['ahead']
    path.write_text(json.dumps(state))
    found = progress.read_progress(paths_of(store), NAME)
    assert found and (found.consumed, found.ahead) == (10, ())


def test_what_was_noted_is_found_again(store: Store) -> None:
    ahead = (Block(300, 50, 6000, 1000),)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None and not stage.begun
        blocks = stage.by_blocks(SIZE)
        blocks.write(b'x' * 1000, 6000)
        blocks.note(0, 0, ahead, '"tag"', b'pre')
        blocks.spool(100).write(b'spooled', 0)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None and stage.begun
        assert stage.validator == '"tag"'
        blocks = stage.by_blocks(SIZE)
        assert (blocks.consumed, blocks.produced) == (0, 0)
        assert blocks.ahead == ahead
        assert blocks.spooled() == {100: 7}
        buffer = memoryview(bytearray(1000))
        blocks.read_into(buffer, 6000)
        assert bytes(buffer) == b'x' * 1000
        spool = blocks.spool(100)
        assert spool.read(7, 0) == b'spooled'
        spool.close()
    with store.stage(NAME, identity='another') as stage:
        assert stage is not None and not stage.begun
        assert stage.by_blocks(SIZE).ahead == ()


def test_a_file_too_short_for_what_is_noted(store: Store) -> None:
    """A power cut took it: what the state says is not true."""
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        blocks = stage.by_blocks(SIZE)
        blocks.note(0, 0, (Block(300, 50, 9000, 1000),), None, b'')
    os.truncate(partial(store), 9999)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        assert not stage.begun
        assert stage.by_blocks(SIZE).ahead == ()


def test_going_on_in_one_go_forgets_blocks_beyond(store: Store) -> None:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        blocks = stage.by_blocks(SIZE)
        blocks.write(b'a' * 2000, 0)
        blocks.write(b'b' * 1000, 6000)
        blocks.note(100, 2000, (Block(300, 50, 6000, 1000),), None, b'')
        blocks.spool(100).write(b'next', 0)
        blocks.spool(350).write(b'later', 0)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        found = stage.resume()
        assert (found.consumed, found.produced) == (100, 2000)
        assert found.spooled == 4
        assert b''.join(stage.replay()) == b'a' * 2000
        stage.write(b'c' * 8000)
        stage.finish()
        # Nothing of the later block shows through.
        assert partial(store).read_bytes() == b'a' * 2000 + b'c' * 8000
    assert fetched(store) == 104


# What counts as fetched

ranges = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 200)), max_size=6,
)


@given(ranges, ranges, st.integers(0, 500))
def test_each_byte_counts_once(
    tmp_path_factory: pytest.TempPathFactory,
    ahead: List[Tuple[int, int]], spools: List[Tuple[int, int]],
    consumed: int,
) -> None:
    store = Store(str(tmp_path_factory.mktemp('count')))
    store.prepare()
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        blocks = stage.by_blocks(SIZE)
        kept = dict(spools)
        for offset, size in kept.items():
            blocks.spool(offset).write(b'x' * size, 0)
        blocks.note(consumed, 0, tuple(
            Block(offset, size, 0, 0) for offset, size in ahead
        ), None, b'')
    here = set(range(consumed))
    for offset, size in [*ahead, *kept.items()]:
        here |= {*range(offset, offset + size)}
    assert fetched(store) == len(here)
    assert fetched(store, 'another') == 0
    assert fetched(store, None) == len(here)


def test_what_is_verified_counts_as_the_file(
    store: Store, stage: Stage, blocks: Blocks
) -> None:
    blocks.write(b'x' * SIZE, 0)
    blocks.note(700, SIZE, (), None, b'')
    stage.mark_verified(Record('raw', SIZE, SIZE, (), None))
    assert fetched(store) == 700
    assert [path.suffix for path in partial(store).parent.iterdir()
            if path.suffix == '.spool'] == []


def test_nothing_is_there(store: Store) -> None:
    assert progress.read_partial(paths_of(store), NAME, 'it') is None


def test_only_bytes_of_another_image_are_there(
    store: Store, blocks: Blocks
) -> None:
    blocks.write(b'x' * SIZE, 0)
    blocks.note(700, SIZE, (), None, b'')
    found = progress.read_partial(paths_of(store), NAME, 'another')
    assert found and found.fetched == 0 and found.disk >= SIZE
    assert isinstance(found, Partial)


# Spools

def test_drop_spools(store: Store, blocks: Blocks) -> None:
    for offset in (0, 12, 120, 4000):
        blocks.spool(offset).write(b'x', 0)
    with store.stage(OTHER, identity='it') as other:
        assert other is not None
        theirs = other.by_blocks(SIZE)
        theirs.spool(12).write(b'yy', 0)
        blocks.drop_spools({120, 4000, 99})
        assert blocks.spooled() == {120: 1, 4000: 1}
        assert theirs.spooled() == {12: 2}


def test_spools_of_others_and_of_nobody(
    store: Store, blocks: Blocks
) -> None:
    """Names that begin alike, or do not end as a spool's."""
    blocks.spool(7).write(b'x', 0)
    for name in (f'{NAME}.x.spool', f'{NAME}.5.spool.tmp', f'{NAME}.spool',
                 f'{NAME}.-5.spool', f'{OTHER}.6.spool'):
        partial(store, name).write_bytes(b'abc')
    assert blocks.spooled() == {7: 1}


def test_a_spool_that_somebody_cut(blocks: Blocks, store: Store) -> None:
    spool = blocks.spool(12)
    spool.write(b'abcdef', 0)
    os.truncate(partial(store, f'{NAME}.12.spool'), 4)
    assert spool.read(4, 0) == b'abcd'
    with pytest.raises(errors.StoreError, match='shorter'):
        spool.read(4, 2)


def test_a_spool_that_was_never_written(blocks: Blocks) -> None:
    spool = blocks.spool(12)
    with pytest.raises(errors.StoreError):
        spool.read(1, 0)
    spool.remove()
    spool.remove()


# The image

def test_any_order(stage: Stage, blocks: Blocks, store: Store) -> None:
    blocks.write(b'c' * 1000, 9000)
    blocks.write(b'a' * 4000, 0)
    blocks.write(bytes(2000), 4000)
    blocks.write(b'b' * 3000, 6000)
    expected = b'a' * 4000 + bytes(2000) + b'b' * 3000 + b'c' * 1000
    buffer = memoryview(bytearray(SIZE))
    blocks.read_into(buffer, 0)
    assert bytes(buffer) == expected
    stage.finish()
    assert partial(store).read_bytes() == expected


def test_zeros_are_holes(stage: Stage, store: Store) -> None:
    size = 8 * 1024 * KIB
    blocks = stage.by_blocks(size)
    for place in reversed(range(0, size, 512 * KIB)):
        blocks.write(bytes(512 * KIB), place)
    blocks.write(b'x', 5 * 1024 * KIB)
    stage.finish()
    found = partial(store).stat()
    assert found.st_size == size
    assert found.st_blocks * 512 <= 64 * KIB


def test_a_file_that_somebody_cut(blocks: Blocks, store: Store) -> None:
    os.truncate(partial(store), 5000)
    with pytest.raises(errors.StoreError, match='shorter'):
        blocks.read_into(memoryview(bytearray(2000)), 4000)
