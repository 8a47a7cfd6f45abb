"""Decide whether a transfer that broke off is tried again, and when."""

from __future__ import annotations

from ..core import errors

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30

#: A connection that breaks after that much is not counted as one in a row.
PROGRESS_BYTES = 2**20


class Retries:
    """The failures of one image that came one after the other.

    Args:
        limit: so many may follow each other.
        received: bytes that were here at the beginning.
    """

    def __init__(self, limit: int, received: int) -> None:
        self._limit = limit
        self._received = received
        self._failures = 0

    def next_pause(self, error: errors.TransferError, received: int) -> float:
        """Return the seconds to wait before the next try.

        Args:
            received: bytes that are here now.

        Raises:
            TransferError: the same, when it is of no use to go on.
        """
        if received - self._received >= PROGRESS_BYTES:
            self._failures = 0
        self._received = received
        self._failures += 1
        if not error.retryable or self._failures > self._limit:
            raise error
        seconds = FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1)
        return float(min(
            max(error.retry_after or 0, seconds), LONGEST_PAUSE_SECONDS
        ))

    def describe(self, seconds: float) -> str:
        """Return what people are told of the pause."""
        return (
            f'trying again in {seconds:.1f} s '
            f'({self._failures} of {self._limit})'
        )
