"""The patience with a transfer that breaks off."""

from __future__ import annotations

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import SizeMismatch, TransferError
from lago_layered_provider.transfer.retries import (
    FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, REFUSED_SECONDS, Retries,
    WRONG_ANSWERS, WrongAnswer,
)

BROKEN = TransferError('u', 'it broke', retryable=True)
REFUSED = TransferError('u', 'refused', retryable=True, refused=True)


def fail_until_the_end(
    retries: Retries, error: TransferError, seconds: float = 0
) -> Tuple[float, List[float]]:
    """Return how long it goes on, and the pauses, without a new byte.

    Args:
        seconds: that each try takes.
    """
    now, pauses = 1000.0, []
    with pytest.raises(TransferError):
        while True:
            pauses.append(retries.next_pause(error, 0, now))
            now += pauses[-1] + seconds
    return now - 1000, pauses


@pytest.mark.parametrize('patience', [0, 0.1, 1, 20, 120, 3600])
def test_patience_counts_seconds_and_not_tries(patience: float) -> None:
    lasted, pauses = fail_until_the_end(Retries(patience, 0), BROKEN)
    assert lasted == pytest.approx(patience)
    assert max(pauses, default=0) <= LONGEST_PAUSE_SECONDS
    if patience > 10:
        assert pauses[:3] == [FIRST_PAUSE_SECONDS * n for n in (1, 2, 4)]


def test_a_slow_try_counts_as_well() -> None:
    lasted, pauses = fail_until_the_end(Retries(120, 0), BROKEN, 30)
    assert 120 <= lasted <= 150
    assert len(pauses) > 2


def test_a_server_that_comes_back_within_the_patience_is_asked_again() -> (
    None
):
    """At its very end, too: nobody gives up during a pause."""
    retries = Retries(120, 0)
    fail_until_the_end(retries, BROKEN)
    assert retries.next_pause(BROKEN, 1, 5000) == FIRST_PAUSE_SECONDS


@given(st.lists(st.integers(1, 10), min_size=1))
def test_any_new_byte_renews_it(steps: List[int]) -> None:
    retries, received, now = Retries(1, 0), 0, 0.0
    for step in steps:
        received += step
        assert retries.next_pause(BROKEN, received, now) == (
            FIRST_PAUSE_SECONDS
        )
        now += 100


def test_bytes_that_come_once_more_are_not_new() -> None:
    retries = Retries(10, 0)
    retries.next_pause(BROKEN, 100, 0)
    retries.next_pause(BROKEN, 50, 5)
    with pytest.raises(TransferError):
        retries.next_pause(BROKEN, 100, 10)


@pytest.mark.parametrize('wish, pause', [
    (None, FIRST_PAUSE_SECONDS), (0, FIRST_PAUSE_SECONDS), (7, 7),
    (60, 60), (9999, 120),
])
def test_the_wish_of_a_server(wish: int, pause: float) -> None:
    error = TransferError(
        'u', 'HTTP 429', status=429, retryable=True, retry_after=wish
    )
    assert Retries(120, 0).next_pause(error, 0, 5) == pause


def test_what_cannot_heal_is_not_tried_again() -> None:
    with pytest.raises(TransferError):
        Retries(120, 0).next_pause(TransferError('u', 'no'), 0, 0)


@pytest.mark.parametrize('error, reached, seconds', [
    (REFUSED, False, REFUSED_SECONDS), (REFUSED, True, 120),
    (BROKEN, False, 120),
])
def test_an_address_that_refuses_gives_up_sooner(
    error: TransferError, reached: bool, seconds: float
) -> None:
    """Unless a server was there before: it may be starting again."""
    lasted, _ = fail_until_the_end(Retries(120, 0, lambda: reached), error)
    assert lasted == pytest.approx(seconds)


def test_wrong_answers_in_a_row_are_a_verdict() -> None:
    verdict = SizeMismatch('i', what='size', expected='1', found='2')
    wrong = WrongAnswer('u', 'it has 2 bytes', verdict)
    retries = Retries(120, 0)
    for received in (0, 1):
        for _ in range(WRONG_ANSWERS):
            retries.next_pause(wrong, received, 0)
    with pytest.raises(SizeMismatch):
        retries.next_pause(wrong, 1, 0)


def test_what_a_note_says() -> None:
    retries = Retries(120, 0)
    retries.next_pause(BROKEN, 0, 0)
    seconds = retries.next_pause(BROKEN, 0, 40)
    assert retries.describe(seconds) == (
        'trying again in 1.0 s; gives up in 80 s'
    )
