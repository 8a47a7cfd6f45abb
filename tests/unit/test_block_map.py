"""Where blocks are, and which of them are left to fetch."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.formats import xz, zstd
from lago_layered_provider.formats.block import Block, Needed
from lago_layered_provider.formats.blocks import (
    BlockMap, LARGEST_BLOCK_BYTES, PIECE_BYTES, read_map,
)

MIB = 1 << 20


def make_map(sizes: List[Tuple[int, int]], start: int = 12) -> BlockMap:
    """Return the map of a compressed file; each block: size and makes."""
    blocks, offset, at = [], start, 0
    for size, makes in sizes:
        blocks.append(Block(offset, size, at, makes))
        offset, at = offset + size, at + makes
    return BlockMap(tuple(blocks), offset + 50, at)


def plain_map(size: int) -> BlockMap:
    found = read_map(None, b'', size)
    assert isinstance(found, BlockMap)
    return found


def cut(start: int, end: int) -> Block:
    """Return a range of a plain file."""
    return Block(start, end - start, start, end - start)


sizes = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(1, 5000)),
    min_size=1, max_size=12,
)


# Compressed files

@given(sizes, st.integers(0, 12), st.data())
def test_done_and_missing_are_all(
    listed: List[Tuple[int, int]], count: int, data: st.DataObject
) -> None:
    file = make_map(listed)
    count = min(count, len(file.blocks))
    before, beyond = file.blocks[:count], file.blocks[count:]
    done = data.draw(st.lists(st.sampled_from(beyond), unique=True)
                     if beyond else st.just([]))
    consumed = before[-1].end if before else 0
    produced = before[-1].until if before else 0
    missing = file.missing(consumed, produced, done)
    assert sorted(
        [*before, *done, *missing], key=lambda block: block.offset
    ) == [*file.blocks]
    assert [*missing] == sorted(missing, key=lambda block: block.offset)


@given(sizes, st.integers(0, 12000), st.integers(0, 60000))
def test_what_ends_within_a_block_is_of_another_file(
    listed: List[Tuple[int, int]], consumed: int, produced: int
) -> None:
    file = make_map(listed)
    ends = {(0, 0)} | {(block.end, block.until) for block in file.blocks}
    known = {end for end, _ in ends}
    begun = [end for end, _ in sorted(ends) if end <= consumed]
    if consumed in known or consumed >= file.blocks[-1].end:
        produced_there = dict(ends)[begun[-1]]
        file.missing(consumed, produced_there, ())
        if produced == produced_there:
            return
    elif consumed <= file.blocks[0].offset and produced == 0:
        # Nothing but the header of the file.
        assert file.missing(consumed, produced, ()) == file.blocks
        return
    with pytest.raises(ValueError):
        file.missing(consumed, produced, ())


@pytest.mark.parametrize('change', [
    {'offset': 13}, {'size': 99}, {'at': 1}, {'makes': 1},
])
def test_a_block_of_another_file(change: object) -> None:
    file = make_map([(100, 200), (100, 300), (50, 400)])
    block = file.blocks[1]
    fields = {**vars(block), **dict(change)}  # type: ignore[call-overload]
    with pytest.raises(ValueError):
        file.missing(112, 200, [Block(**fields)])


@pytest.mark.parametrize('listed, useful', [
    ([(10, 10)], False),
    ([(10, 10), (10, 10)], True),
    ([(10, 10), (0, 10)], False),
    ([(10, 10), (LARGEST_BLOCK_BYTES, 10)], True),
    ([(10, 10), (LARGEST_BLOCK_BYTES + 1, 10)], False),
    ([], False),
])
def test_is_useful(listed: List[Tuple[int, int]], useful: bool) -> None:
    assert make_map(listed).is_useful == useful


# Plain files

@given(
    size=st.integers(1, 30 * MIB),
    consumed=st.integers(0, 30 * MIB),
    ends=st.lists(
        st.tuples(st.integers(0, 30 * MIB), st.integers(0, 9 * MIB)),
        max_size=6,
    ),
)
def test_gaps_of_a_plain_file(
    size: int, consumed: int, ends: List[Tuple[int, int]]
) -> None:
    """Done ranges may touch and overlap; no byte is asked for twice."""
    consumed = min(consumed, size)
    done = [
        cut(start, min(start + length, size))
        for start, length in ends if start < size
    ]
    missing = plain_map(size).missing(consumed, consumed, done)
    here = 0
    covered = sorted(
        [(0, consumed)] + [(each.offset, each.end) for each in done]
    )
    for piece in missing:
        assert 0 < piece.size <= PIECE_BYTES
        assert piece.size == piece.makes
        assert piece.offset == piece.at
        assert all(
            piece.end <= start or end <= piece.offset
            for start, end in covered
        )
        assert piece.offset >= here
        here = piece.end
    everything = sorted(
        covered + [(piece.offset, piece.end) for piece in missing]
    )
    reached = 0
    for start, end in everything:
        assert start <= reached
        reached = max(reached, end)
    assert reached == size


@pytest.mark.parametrize('done', [
    [(40 * MIB, 41 * MIB)], [(20 * MIB, 90 * MIB)],
])
def test_never_beyond_the_end_of_a_plain_file(
    done: List[Tuple[int, int]]
) -> None:
    """A state that speaks of more than the file holds is of another one."""
    file = plain_map(30 * MIB)
    try:
        missing = file.missing(0, 0, [cut(*each) for each in done])
    except ValueError:
        return
    assert all(piece.end <= 30 * MIB for piece in missing)


def test_plain_file_of_a_byte_more_than_two_pieces() -> None:
    file = plain_map(2 * PIECE_BYTES + 1)
    assert [block.size for block in file.blocks] == [
        PIECE_BYTES, PIECE_BYTES, 1,
    ]
    assert (file.file_size, file.image_size) == (2 * PIECE_BYTES + 1,) * 2
    assert file.plain and not file.preamble


# What a server may send

def check_sound(file: BlockMap) -> None:
    """Whatever a file says: blocks in order, inside of it, without gaps."""
    here = file.blocks[0].offset if file.blocks else 0
    at = 0
    for block in file.blocks:
        assert block.offset >= here
        assert block.at == at
        assert block.makes > 0
        here, at = block.end, block.until
    assert here <= file.file_size
    assert file.image_size == at


def read(compression: str, tail: bytes, size: int) -> None:
    try:
        found = read_map(compression, tail, size)
    except xz.BadXz:
        assert compression == 'xz'
        return
    if isinstance(found, Needed):
        assert len(tail) < found.bytes_needed <= size
    elif found is not None:
        check_sound(found)


@given(st.binary(max_size=200), st.integers(0, 1 << 40))
def test_any_bytes_at_the_end(tail: bytes, more: int) -> None:
    for compression in ('xz', 'zst'):
        read(compression, tail, len(tail) + more)
    assert read_map('gz', tail, len(tail)) is None


numbers = st.integers(0, 5) | st.integers(0, 2**32 - 1)


@given(
    frames=st.lists(st.tuples(numbers, numbers), max_size=8),
    count=st.integers(0, 9) | st.integers(0, 2**32 - 1),
    descriptor=st.sampled_from([0, 0x80, 0x7c, 3]),
    before=st.integers(0, 2**34),
)
def test_seek_tables_that_lie(
    frames: List[Tuple[int, int]], count: int, descriptor: int, before: int
) -> None:
    table = b''.join(struct.pack('<II', *frame) for frame in frames)
    table += struct.pack('<IBI', count, descriptor, zstd.FOOTER_MAGIC)
    tail = struct.pack('<II', zstd.TABLE_MAGIC, len(table)) + table
    read('zst', tail, len(tail) + before)


@given(sizes)
def test_seek_table_that_is_right(frames: List[Tuple[int, int]]) -> None:
    tail = zstd.make_seek_table(frames)
    data = sum(size for size, _ in frames)
    found = read_map('zst', tail, data + len(tail))
    assert isinstance(found, BlockMap)
    check_sound(found)
    assert [(block.size, block.makes) for block in found.blocks] == frames
    assert read_map('zst', tail, data + len(tail) + 1) is None
    assert isinstance(read_map('zst', tail[-9:], data + 99), Needed)
