"""What other threads do for one image: whether they still do, what failed."""

from __future__ import annotations

import threading
from typing import Callable, Optional

from .shared import Shared

#: How soon it is seen that all shall end.
WAKE_SECONDS = 0.5


class Over(Exception):
    """A job ends because its image does; why is for `Jobs.wait` to raise."""


class Jobs:
    """The jobs of one image, and the thread that waits for it.

    Attributes:
        changed: notified when a job has ended; who shares what the jobs use
            may guard it by this.
        over: no job shall begin, and those that run shall end.
    """

    def __init__(self, shared: Shared) -> None:
        self.changed = threading.Condition()
        self.over = False
        self._shared = shared
        self._active = 0
        self._error: Optional[BaseException] = None

    def check(self) -> None:
        """End the job that calls it when the jobs shall end.

        Raises:
            Cancelled: the user stopped all of them.
            Over: those of this image.
        """
        self._shared.check()
        if self.over:
            raise Over

    def raise_failure(self) -> None:
        """Raise what ends the image; for the thread that waits for it.

        Raises:
            Cancelled: the user stopped all images.
            BaseException: the first error of a job.
        """
        self._shared.check()
        if self._error is not None:
            raise self._error

    def begin(self) -> None:
        """Note that a job begins."""
        with self.changed:
            self._active += 1

    def end(self) -> None:
        """Note that it has ended."""
        with self.changed:
            self._active -= 1
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let all jobs end; `wait` raises the first error of them."""
        with self.changed:
            self._error = self._error or error
            self.over = True
            self.changed.notify_all()

    def decode(self, job: Callable[[], None]) -> None:
        """Run a job in one of the threads that decode."""
        self.begin()
        try:
            self._shared.pool.run(lambda: self._run(job))
        except BaseException as error:  # raised by `wait`
            self.fail(error)
            self.end()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            if not self.over:
                job()
        except BaseException as error:  # raised by `wait`
            self.fail(error)
        finally:
            self.end()

    @property
    def is_idle(self) -> bool:
        """Whether all jobs have ended."""
        return not self._active

    def wait(self, is_due: Callable[[], bool]) -> None:
        """Wait until something is due; raise as `raise_failure` does."""
        with self.changed:
            self.raise_failure()
            while not is_due():
                self.changed.wait(WAKE_SECONDS)
                self.raise_failure()

    def stop(self) -> None:
        """Let all jobs end, and wait until they have."""
        with self.changed:
            self.over = True
            while self._active and not self._shared.pool.lost:
                self.changed.wait(WAKE_SECONDS)
