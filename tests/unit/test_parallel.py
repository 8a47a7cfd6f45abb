"""Blocks of .xz decoded side by side give what one decoder gives."""

from __future__ import annotations

import lzma
from typing import Iterator, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.transfer import parallel
from lago_layered_provider.transfer.decode import (
    BlockPool,
    Checkpoint,
    CorruptStream,
    make_decoder,
)
from tests.unit.test_decode import (
    compress,
    cuts_of_files,
    parts_of_files,
    split,
    xz_in_blocks,
)

BEGIN = Checkpoint(0, 0)


@pytest.fixture(scope='module', name='pool')
def fixture_pool() -> Iterator[BlockPool]:
    pool = BlockPool()
    yield pool
    pool.close()


def room_of(pool: BlockPool) -> int:
    """Return how many blocks the pool would still take."""
    return pool._buffers.qsize() + len(pool._unmade)


def wait_for_room(pool: BlockPool) -> None:
    """Wait until the threads have let all buffers go."""
    pool.close()
    pool.join()
    assert room_of(pool) == room_of(BlockPool())


def decode(
    pool: BlockPool, chunks: Sequence[bytes], start: Checkpoint = BEGIN
) -> Tuple[bytes, List[Checkpoint]]:
    """Decode chunks to the end; return the output and all checkpoints."""
    decoder = make_decoder(
        'xz', consumed=start.consumed, preamble=start.preamble, pool=pool
    )
    out = b''
    checkpoints = [decoder.checkpoint]
    for chunk in chunks:
        for piece in decoder.feed(chunk):
            out += piece
            assert decoder.checkpoint.produced <= len(out)
        checkpoints.append(decoder.checkpoint)
    for piece in decoder.flush():
        out += piece
    checkpoints.append(decoder.checkpoint)
    decoder.finish()
    decoder.close()
    return out, checkpoints


@given(
    st.lists(
        st.tuples(st.sampled_from(['xz', 'xz blocks']), parts_of_files),
        min_size=1, max_size=3,
    ),
    cuts_of_files,
)
def test_any_split_and_any_restart(
    streams: List[Tuple[str, List[bytes]]], cuts: List[int]
) -> None:
    pool = BlockPool()
    try:
        packed = b''.join(compress(kind, parts) for kind, parts in streams)
        plain = b''.join(b''.join(parts) for _, parts in streams)
        out, checkpoints = decode(pool, split(packed, cuts))
        assert out == plain
        assert checkpoints[-1].produced == len(plain)
        for checkpoint in set(checkpoints):
            rest, _ = decode(
                pool, split(packed[checkpoint.consumed:], cuts), checkpoint
            )
            assert rest == plain[checkpoint.produced:]
    finally:
        wait_for_room(pool)


def test_more_blocks_than_room_come_in_order(pool: BlockPool) -> None:
    parts = [bytes([number]) * 5000 for number in range(60)]
    packed = xz_in_blocks(parts)
    assert decode(pool, [packed])[0] == b''.join(parts)
    assert decode(pool, split(packed, range(0, len(packed), 7)))[0] == (
        b''.join(parts)
    )


def test_without_room_it_is_decoded_on_the_spot(pool: BlockPool) -> None:
    parts = [b'a' * 3000, b'b' * 3000]
    taken = [pool._find_buffer() for _ in range(room_of(pool))]
    assert all(taken) and pool._find_buffer() is None
    try:
        assert decode(pool, [xz_in_blocks(parts)])[0] == b''.join(parts)
    finally:
        for buffer in filter(None, taken):
            pool._buffers.put(buffer)


def test_large_blocks_are_not_kept_whole(
    pool: BlockPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, 'LARGEST_BLOCK_BYTES', 1000)
    parts = [b'small', b'large' * 1000, b'small', b'large' * 900, b'end']
    packed = xz_in_blocks(parts)
    for size in (1, 13, 200, len(packed)):
        chunks = split(packed, range(0, len(packed), size))
        assert decode(pool, chunks)[0] == b''.join(parts)


@given(parts_of_files, st.integers(0, 1 << 20), st.integers(1, 255))
def test_one_damaged_byte(
    parts: List[bytes], place: int, change: int
) -> None:
    """It is found, or had no meaning; and the pool is as it was."""
    pool = BlockPool()
    packed = bytearray(xz_in_blocks(parts))
    packed[place % len(packed)] ^= change
    decoder = make_decoder('xz', pool=pool)
    try:
        out = b''.join(decoder.feed(bytes(packed)))
        out += b''.join(decoder.flush())
        decoder.finish()
    except CorruptStream:
        pass
    else:
        assert out == b''.join(parts)
    finally:
        decoder.close()
        wait_for_room(pool)


def test_truncated(pool: BlockPool) -> None:
    packed = xz_in_blocks([b'a' * 3000, b'b' * 3000])
    for cut in range(1, len(packed)):
        decoder = make_decoder('xz', pool=pool)
        list(decoder.feed(packed[:cut]))
        list(decoder.flush())
        with pytest.raises(CorruptStream):
            decoder.finish()
        decoder.close()


def test_leaving_gives_the_room_back() -> None:
    pool = BlockPool()
    decoder = make_decoder('xz', pool=pool)
    # Large enough that none of them is done before the next line.
    packed = xz_in_blocks([bytes([n]) * 9_000_000 for n in range(4)])
    next(decoder.feed(packed), None)
    assert room_of(pool) < room_of(BlockPool())
    decoder.close()
    wait_for_room(pool)


def test_a_single_stream_without_sizes(pool: BlockPool) -> None:
    plain = bytes(range(256)) * 4000
    assert decode(pool, split(lzma.compress(plain), [99]))[0] == plain
