"""Decide whether a transfer that broke off is tried again, and when."""

from __future__ import annotations

from typing import Callable, Optional

from ..core import errors

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30

#: A server that refuses and was never reached may just be starting; a wrong
#: address refuses as well, and nobody should wait long for that.
REFUSED_SECONDS = 5

#: So many wrong answers may follow each other: one node of several may be
#: wrong, or a proxy; a server that only answers so means it.
WRONG_ANSWERS = 3


class WrongAnswer(errors.TransferError):
    """A server has sent something else than was asked for.

    `verdict` is the error when it does not answer otherwise.
    """

    def __init__(
        self, url: str, reason: str,
        verdict: Optional[errors.LayeredError] = None,
    ) -> None:
        super().__init__(url, reason, retryable=True)
        self.verdict = verdict or self


class Retries:
    """The patience with one image or small file; any new byte renews it.

    Args:
        patience: seconds without a new byte that are waited for.
        received: bytes that were here at the beginning.
        is_reached: tells whether any server has answered so far.
        limit: failures in a row that are forgiven; None: any number.
    """

    def __init__(
        self, patience: float, received: int,
        is_reached: Callable[[], bool] = lambda: True,
        *, limit: Optional[int] = None,
    ) -> None:
        self._limit = limit
        self._patience = patience
        self._most = received
        self._is_reached = is_reached
        self._since = self._left = 0.0
        self._failures = self._wrong_answers = 0

    def next_pause(
        self, error: errors.TransferError, received: int, now: float
    ) -> float:
        """Return the seconds to wait before the next try.

        Args:
            received: bytes that are here now.
            now: in seconds.

        Raises:
            LayeredError: the same, or the verdict of a wrong answer, when it
                is of no use to go on.
        """
        if received > self._most:
            self._most = received
            self._failures = self._wrong_answers = 0
        if not self._failures:
            self._since = now
        self._failures += 1
        patience = self._patience
        if error.refused and not self._is_reached():
            patience = min(patience, REFUSED_SECONDS)
        self._left = self._since + patience - now
        spent = self._limit is not None and self._failures > self._limit
        if not error.retryable or self._left <= 0 or spent:
            raise error
        if isinstance(error, WrongAnswer):
            self._wrong_answers += 1
            if self._wrong_answers > WRONG_ANSWERS:
                raise error.verdict
        seconds = FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10)
        seconds = max(
            error.retry_after or 0, min(seconds, LONGEST_PAUSE_SECONDS)
        )
        # The last try is at the end of the patience, not before.
        return min(seconds, self._left)

    def describe(self, seconds: float) -> str:
        """Return what a note says of the pause."""
        if self._limit is None:
            until = f'; gives up in {self._left:.0f} s'
        else:
            until = f' ({self._failures} of {self._limit})'
        return f'trying again in {seconds:.1f} s{until}'
