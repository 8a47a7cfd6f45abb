"""Room on the disk for blocks that wait to be decoded."""

from __future__ import annotations

import threading
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.planning import SPOOL_BYTES
from lago_layered_provider.transfer.shared import Room

sizes = st.integers(0, 5 * SPOOL_BYTES)


@given(st.integers(1, 9), st.lists(st.integers(0, SPOOL_BYTES)))
def test_as_many_blocks_of_the_usual_size_as_a_plan_counts(
    blocks: int, waiting: List[int]
) -> None:
    room = Room(blocks)
    taken = [room.acquire(size, 0) for size in waiting]
    assert taken == [number < blocks for number in range(len(waiting))]


@given(st.integers(1, 9), st.lists(sizes))
def test_never_more_bytes_than_a_plan_counts(
    blocks: int, waiting: List[int]
) -> None:
    """But for one that would be too large at any time, and is alone."""
    room = Room(blocks)
    taken = [size for size in waiting if room.acquire(size, 0)]
    assert sum(taken) <= blocks * SPOOL_BYTES or len(taken) == 1
    for size in taken:
        room.release(size)
    assert room.acquire(blocks * SPOOL_BYTES, 0)


@pytest.mark.parametrize('size', [1, 3 * SPOOL_BYTES])
def test_waits_for_room(size: int) -> None:
    room = Room(2)
    assert room.acquire(2 * SPOOL_BYTES, 0)
    assert not room.acquire(size, 0.01)
    thread = threading.Timer(0.05, room.release, [2 * SPOOL_BYTES])
    thread.start()
    assert room.acquire(size, 60)
    thread.join()
