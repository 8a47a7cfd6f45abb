"""End what takes too long: another thread waits for the end of the time."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Callable, Optional, Type


class Deadline:
    """A context manager; calls `cut` when the time is over before its end.

    Where no thread can be started there is no deadline.

    Args:
        seconds: from entering it on.
        cut: lets the work fail soon; called by another thread.

    Attributes:
        passed: whether that has happened.
    """

    def __init__(self, seconds: float, cut: Callable[[], None]) -> None:
        self.passed = False
        self.seconds = seconds
        self._end = 0.0
        self._cut = cut
        self._done = threading.Event()

    def extend(self, seconds: float) -> None:
        """Give more time: some of the work is done."""
        self.seconds += seconds
        self._end += seconds

    def __enter__(self) -> Deadline:
        self._end = time.monotonic() + self.seconds
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._done.set()

    def _wait(self) -> None:
        while True:
            left = self._end - time.monotonic()
            if self._done.wait(max(left, 0)):
                return
            if left <= 0:
                self.passed = True
                self._cut()
                return
