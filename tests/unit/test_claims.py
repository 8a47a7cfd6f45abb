"""Who fetches which blocks: whatever happens, each is completed once."""

from __future__ import annotations

from collections import Counter
from typing import Dict, List, Optional, Tuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine, initialize, invariant, precondition, rule,
)

from lago_layered_provider.formats.block import Block
from lago_layered_provider.transfer.claims import (
    Claims, FIRST_QUIET_SECONDS, MEASURED_BYTES, Part, QUIET_SECONDS,
    RUN_BYTES, Run,
)

KIB, MIB = 1 << 10, 1 << 20

#: Beyond all blocks.
END = 1 << 60


def make_blocks(*sizes: int, gap_after: int = -1) -> List[Block]:
    """Return blocks one after the other, with a gap after one of them."""
    blocks, offset = [], 12
    for number, size in enumerate(sizes):
        blocks.append(Block(offset, size, offset, size))
        offset += size + (100 if number == gap_after else 0)
    return blocks


class Receiving(RuleBasedStateMachine):
    """Connections that claim, receive, break, and help each other."""

    @initialize(
        sizes=st.lists(
            st.sampled_from([1, 100, 64 * KIB, MIB, 5 * MIB, 40 * MIB]),
            max_size=12,
        ) | st.integers(20, 40).map(lambda count: [512 * KIB] * count),
        gap=st.integers(-1, 12),
        kept=st.lists(st.integers(0, 6 * MIB), min_size=12, max_size=12),
        connections=st.integers(1, 4),
    )
    def begin(
        self, sizes: List[int], gap: int, kept: List[int], connections: int
    ) -> None:
        blocks = make_blocks(*sizes, gap_after=gap)
        self.connections = connections
        self.claims = Claims(blocks, {
            block.offset: count for block, count in zip(blocks, kept) if count
        }, connections)
        assert [part.block for part in self.claims.parts] == blocks
        # A part that an earlier transfer has completed is nobody's claim.
        self.completed = Counter(
            part for part in self.claims.parts if part.is_complete
        )
        self.runs: Dict[Run, Tuple[Optional[Part], int]] = {}
        self.now = 0.0

    def pending(self) -> List[Part]:
        """Return what is not here and nobody fetches."""
        taken = {
            part for run in self.runs for part in run.parts[run.current:]
        }
        return [
            part for part in self.claims.parts
            if not part.is_complete and part not in taken
        ]

    def follow(self, run: Run, last: Optional[Part], position: int) -> None:
        part = self.claims.next_part(run, last)
        self.runs[run] = part, position
        if part is None:
            self.end(run)

    def end(self, run: Run) -> None:
        del self.runs[run]
        self.claims.end(run, self.now)

    def free(self) -> bool:
        return len(self.runs) < self.connections

    @precondition(free)
    @rule()
    def claim(self) -> None:
        pending = self.pending()
        run = self.claims.claim(self.now, END)
        if run is None:
            assert not pending
            return
        # From the beginning of the file on, one after the other.
        assert run.parts == pending[:len(run.parts)]
        first, *others = run.parts
        assert run.start == first.next
        assert run.end == run.parts[-1].block.end
        for before, part in zip(run.parts, others):
            assert part.block.offset == before.block.end
            assert not part.received
        left = sum(part.block.size - part.received for part in pending)
        size = run.end - run.start
        assert size == run.left
        assert not others or size <= RUN_BYTES
        assert not others or size <= left // (2 * self.connections)
        self.follow(run, None, run.start)

    @precondition(lambda self: self.free() and not self.pending())
    @rule()
    def help(self) -> None:
        before = {run: run.parts[run.current:] for run in self.runs}
        run = self.claims.help(self.now)
        if run is None:
            return
        self.runs[run] = None, run.start
        helped = [
            other for other, parts in before.items() if parts == run.parts
        ]
        assert helped
        assert not run.parts[0].is_complete
        assert run.start == run.parts[0].next
        # Each goes on with a block; the others belong to the new one.
        for other in helped:
            assert other.parts[other.current:] == run.parts[:1]
        self.follow(run, None, run.start)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), share=st.sampled_from([0.01, 0.5, 1.0]))
    def receive(self, data: st.DataObject, share: float) -> None:
        """Take in bytes, as `BlockReceiver` does."""
        run = data.draw(st.sampled_from([*self.runs]))
        part, position = self.runs[run]
        assert part is not None
        count = max(1, int((part.block.end - position) * share))
        position += count
        end = position - part.block.offset
        new = max(0, end - part.received)
        part.received = max(part.received, end)
        self.claims.take(run, count, self.now)
        if new and part.is_complete:
            self.completed[part] += 1
        if position == part.block.end:
            self.follow(run, part, position)
        else:
            self.runs[run] = part, position

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from([*self.runs])))

    @rule(seconds=st.sampled_from([0.01, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), seconds=st.sampled_from([0.1, 5.0]))
    def wait_for_room(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        self.claims.wait(data.draw(st.sampled_from([*self.runs])), seconds)

    @invariant()
    def readers_are_those_who_read(self) -> None:
        for part in self.claims.parts:
            assert part.readers == sum(
                part in run.parts[run.current:] for run in self.runs
            )
            # A connection may end up behind another one, never beyond.
            for run, (current, position) in self.runs.items():
                if current is part:
                    assert position <= part.next

    @invariant()
    def nothing_is_completed_twice(self) -> None:
        assert all(count == 1 for count in self.completed.values())
        assert all(part.is_complete for part in self.completed)

    def teardown(self) -> None:
        """Whatever broke: the rest can be had, each block once."""
        if not hasattr(self, 'claims'):
            return
        for running in [*self.runs]:
            self.end(running)
        wanted = sum(
            part.block.size - part.received for part in self.claims.parts
            if not part.is_complete
        )
        while True:
            run = self.claims.claim(self.now, END)
            if run is None:
                break
            for part in run.parts:
                wanted -= part.block.size - part.received
                part.received = part.block.size
                self.completed[part] += 1
            run.current = len(run.parts)
            self.claims.end(run, self.now)
        assert wanted == 0
        assert self.completed == Counter(self.claims.parts)


TestReceiving = Receiving.TestCase
TestReceiving.settings = settings(
    max_examples=150, stateful_step_count=40,
)


# Who is helped, and when

def take(claims: Claims, run: Run, count: int, now: float) -> None:
    """Let bytes come that do not complete a block."""
    run.parts[run.current].received += count
    claims.take(run, count, now)


@pytest.fixture(name='slow')
def fixture_slow() -> Tuple[Claims, Run]:
    """Return a run that is quiet while another one was fast."""
    claims = Claims(make_blocks(4 * MIB, 4 * MIB), {}, 2)
    fast, slow = claims.claim(0, END), claims.claim(0, END)
    assert fast and slow
    take(claims, slow, 300 * KIB, 0.1)
    take(claims, fast, 4 * MIB, 1.0)
    assert claims.next_part(fast, fast.parts[0]) is None
    claims.end(fast, 1.0)
    return claims, slow


def test_a_quiet_run_is_helped(slow: Tuple[Claims, Run]) -> None:
    claims, run = slow
    assert claims.claim(1.0, END) is None
    helper = claims.help(2 * QUIET_SECONDS)
    assert helper is not None
    assert helper.start == run.parts[0].next
    assert helper.start == run.start + 300 * KIB
    assert helper.end == run.end


def test_a_run_whose_bytes_nobody_has_read_is_not_helped(
    slow: Tuple[Claims, Run]
) -> None:
    """They are here: on a busy machine its reader is slow, no connection."""
    claims, run = slow
    assert claims.help(2 * QUIET_SECONDS, [run]) is None
    assert claims.help(2 * QUIET_SECONDS, []) is not None


def test_one_helper_is_enough(slow: Tuple[Claims, Run]) -> None:
    claims, run = slow
    helper = claims.help(2 * QUIET_SECONDS)
    assert helper
    take(claims, helper, 10, 2 * QUIET_SECONDS)
    assert claims.help(2 * QUIET_SECONDS + 0.1) is None


def test_a_helper_that_breaks_is_followed_by_another(
    slow: Tuple[Claims, Run]
) -> None:
    """Else the rest waits for a timeout, when the server is back long ago."""
    claims, run = slow
    helper = claims.help(2 * QUIET_SECONDS)
    assert helper
    claims.end(helper, 2 * QUIET_SECONDS)
    later = 4 * QUIET_SECONDS
    again = claims.claim(later, END) or claims.help(later)
    assert again is not None
    assert again.parts == run.parts


def test_a_run_is_helped_that_is_quiet_from_the_beginning() -> None:
    """Although nobody knows yet how fast a connection is."""
    claims = Claims(make_blocks(4 * MIB), {}, 2)
    quiet = claims.claim(0, END)
    assert quiet
    take(claims, quiet, MEASURED_BYTES - 1, 1.0)
    assert claims.help(FIRST_QUIET_SECONDS) is None
    helper = claims.help(FIRST_QUIET_SECONDS + 1.1)
    assert helper
    assert helper.start == quiet.start + MEASURED_BYTES - 1


def test_who_waits_for_room_is_not_slow(slow: Tuple[Claims, Run]) -> None:
    claims, run = slow
    run.waits = True
    assert claims.help(2 * QUIET_SECONDS) is None
    claims.wait(run, 2 * QUIET_SECONDS - 0.2)
    run.waits = False
    assert claims.help(2 * QUIET_SECONDS) is None


def test_what_ends_soon_is_not_helped() -> None:
    claims = Claims(make_blocks(4 * MIB, 4 * MIB), {}, 2)
    one, two = claims.claim(0, END), claims.claim(0, END)
    assert one and two
    take(claims, one, 3 * MIB, 3.0)
    take(claims, two, 3 * MIB + 100 * KIB, 3.0)
    assert claims.help(3.0) is None


def test_the_slowest_of_all_is_helped_with_all_but_its_block() -> None:
    sizes = [MIB] * 40
    claims = Claims(make_blocks(*sizes), {}, 2)
    slow = claims.claim(0, END)
    assert slow and len(slow.parts) == 10
    now = 0.0
    while True:
        fast = claims.claim(now, END)
        if fast is None:
            break
        for part in fast.parts:
            now += 0.1
            take(claims, fast, MIB, now)
            claims.next_part(fast, part)
        claims.end(fast, now)
    take(claims, slow, MEASURED_BYTES, now)
    helper = claims.help(now)
    assert helper is not None
    assert helper.parts[1:] and slow.parts == helper.parts[:1]
    assert helper.start == slow.start + MEASURED_BYTES
    assert [part.readers for part in helper.parts] == [2] + [1] * 9


def test_nothing_is_asked_for_beyond_the_horizon() -> None:
    blocks = make_blocks(*[MIB] * 100)
    claims = Claims(blocks, {}, 2)
    assert claims.claim(0, blocks[0].end - 1) is None
    run = claims.claim(0, blocks[2].end + 1)
    assert run and [part.block for part in run.parts] == blocks[:3]
    assert claims.claim(0, blocks[3].end - 1) is None
    run = claims.claim(0, blocks[3].end)
    assert run and [part.block for part in run.parts] == blocks[3:4]


def test_short_runs_if_wanted() -> None:
    claims = Claims(make_blocks(*[MIB] * 100), {}, 2, run_bytes=2 * MIB)
    run = claims.claim(0, END)
    assert run and run.end - run.start == 2 * MIB


def test_runs_become_short_near_the_end() -> None:
    claims = Claims(make_blocks(*[MIB] * 200), {}, 4)
    sizes = []
    while True:
        run = claims.claim(0, END)
        if run is None:
            break
        sizes.append(run.end - run.start)
    assert sum(sizes) == 200 * MIB
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == RUN_BYTES
    assert sizes[-4:] == [MIB] * 4
    # Few round trips nevertheless.
    assert len(sizes) < 40
