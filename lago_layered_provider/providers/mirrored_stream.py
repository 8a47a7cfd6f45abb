"""The bytes of a file from several places, one after the other."""

from __future__ import annotations

import threading
from typing import Dict, Optional, Protocol, Tuple

from ..core.errors import TransferError
from ..transfer.ports import Buffered, Stream

#: Mirrors in a message.
SHOWN = 3


class GoOn(Protocol):
    """Continues a file that broke off; see `Mirrored.go_on`."""

    def __call__(
        self,
        position: int,
        total: Optional[int],
        failures: Dict[int, TransferError],
    ) -> Optional[Tuple[int, Stream]]:
        """Open it at `position`, at a place that has not failed.

        Args:
            total: of the file that broke off; one of another size has other
                bytes.
            failures: by the number of the place; grows.

        Returns:
            the place and its stream, None when there is no such place.
        """


class MirroredStream:
    """The bytes of a file from one place after the other; see `ports.Stream`.

    A place that has failed is not asked again by the same stream: who wants
    to try again opens a new one.
    """

    def __init__(
        self, go_on: GoOn, place: int, stream: Stream, validator: str
    ) -> None:
        self.start = stream.start
        self.total = stream.total
        self.validator: Optional[str] = validator
        self._continue = go_on
        self._place = place
        self._stream = stream
        self._position = stream.start
        self._failures: Dict[int, TransferError] = {}
        self._lock = threading.Lock()
        self._aborted = False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, b'' at the end."""
        while True:
            try:
                data = self._stream.read(size)
            except TransferError as error:
                self._go_on(error)
                continue
            self._position += len(data)
            return data

    def _go_on(self, error: TransferError) -> None:
        """Continue elsewhere, or raise the error."""
        if self._aborted:
            raise error
        self._stream.close()
        self._failures[self._place] = error
        found = self._continue(
            self._position, self.total, self._failures
        )
        if found is None:
            raise error
        with self._lock:
            self._place, self._stream = found
            aborted = self._aborted
        if aborted:
            self._stream.abort()

    def abort(self) -> None:
        """Make a `read` that another thread waits in fail soon."""
        with self._lock:
            self._aborted = True
            stream = self._stream
        stream.abort()

    def has_unread(self) -> bool:
        """Tell whether bytes came that nobody has read."""
        stream = self._stream
        return isinstance(stream, Buffered) and stream.has_unread()

    def close(self) -> None:
        """Release the connection."""
        self._stream.close()


def join_failures(failures: Dict[int, TransferError]) -> TransferError:
    """Return the error of the best place, with what the others said.

    What a place has answered says more than that another one is away: a
    file is missing when a mirror lacks it, but may come (`retryable`) when
    the other one is back.
    """
    first, *others = [failures[place] for place in sorted(failures)]
    if not others:
        return first
    mirrors = 'a mirror' if len(others) == 1 else f'{len(others)} mirrors'
    answers = [
        error.status for error in (first, *others) if is_answer(error)
    ]
    return TransferError(
        first.url,
        f'{first.reason}; {mirrors} failed too: '
        + ', '.join(f'{each.url}: {each.reason}' for each in others[:SHOWN])
        + (f' and {len(others) - SHOWN} more' * (len(others) > SHOWN)),
        status=answers[0] if answers else first.status,
        retryable=any(error.retryable for error in (first, *others)),
        retry_after=first.retry_after,
        refused=all(error.refused for error in (first, *others)),
    )


def is_answer(error: TransferError) -> bool:
    """Tell whether a place is there and says no."""
    return error.status is not None and error.status < 500
