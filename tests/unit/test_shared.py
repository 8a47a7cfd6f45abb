"""What fetches share: room for blocks that wait, patience with servers."""

from __future__ import annotations

import io
import threading
from typing import List, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import TransferError
from lago_layered_provider.core.planning import SPOOL_BYTES
from lago_layered_provider.transfer.ports import Progress, Stream
from lago_layered_provider.transfer.shared import BlockRoom, Shared

blocks = st.integers(1, 9)
rooms_left = st.integers(-SPOOL_BYTES, 40 * SPOOL_BYTES)


@given(blocks, rooms_left, st.lists(st.integers(0, SPOOL_BYTES)))
def test_as_many_blocks_of_the_usual_size_as_a_plan_counts(
    limit: int, room_left: int, waiting: List[int]
) -> None:
    room = BlockRoom(limit, room_left)
    taken = [room.acquire(size, 0) for size in waiting]
    assert taken == [number < limit for number in range(len(waiting))]


@given(blocks, rooms_left, st.lists(st.integers(0, 5 * SPOOL_BYTES)))
def test_large_blocks_take_what_is_left_besides(
    limit: int, room_left: int, waiting: List[int]
) -> None:
    room = BlockRoom(limit, room_left)
    most = limit * SPOOL_BYTES + max(0, room_left)
    taken: List[int] = []
    for size in waiting:
        fits = len(taken) < limit and sum(taken) + size <= most
        assert room.acquire(size, 0) == (fits or not taken)
        if fits or not taken:
            taken.append(size)
    for size in taken:
        room.release(size)
    assert room.acquire(100 * most, 0)


@pytest.mark.parametrize('size', [1, 3 * SPOOL_BYTES])
def test_waits_for_room(size: int) -> None:
    room = BlockRoom(1)
    assert room.acquire(SPOOL_BYTES, 0)
    assert not room.acquire(size, 0.01)
    thread = threading.Timer(0.05, room.release, [SPOOL_BYTES])
    thread.start()
    assert room.acquire(size, 60)
    thread.join()


def test_who_was_reached_may_be_away_for_longer() -> None:
    """An address that refuses from the beginning is likely a wrong one."""
    shared = Shared(1, 120, cast(Progress, None), BlockRoom(1))
    refused = TransferError('u', 'no', retryable=True, refused=True)
    retries = shared.retries(0)
    retries.next_pause(refused, 0, 0)
    with pytest.raises(TransferError):
        retries.next_pause(refused, 0, 10)
    with shared.streams.reading(cast(Stream, io.BytesIO())):
        pass
    assert retries.next_pause(refused, 0, 10) > 0
    shared.pool.close()
