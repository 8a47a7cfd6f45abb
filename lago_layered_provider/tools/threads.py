"""Start threads, as many as there is memory for; nobody waits for a dead one.

All are daemons. `concurrent.futures` waits for its threads when the
interpreter ends, so that Ctrl-C would hang on a server that does not answer.
And it queues a call before it finds out that no thread can be had for it:
whether the call is made then, nobody knows.
"""

from __future__ import annotations

import mmap
import queue
import threading
from typing import Callable, List, Optional, Sequence, TypeVar

from ..core import errors

#: The longest time until Ctrl-C is noticed.
SIGNAL_SECONDS = 0.5

#: Memory that must be left for one more thread than is needed. Its stack
#: (8 MiB) and a heap of its own (64 MiB, for a moment 128) are address space,
#: which `ulimit -v` counts; so are those of threads that have just been
#: started. The rest is for the work, and for the threads that others need.
SPARE_BYTES = 256 << 20

T = TypeVar('T')
R = TypeVar('R')


def start(
    target: Callable[[], None], count: int, name: str, *,
    needed: bool = True,
) -> List[threading.Thread]:
    """Start threads; return them, fewer where there is little memory.

    Args:
        needed: one of them is; else none may be started.

    Raises:
        NotEnoughMemory: there is not enough for the one that is needed.
    """
    started: List[threading.Thread] = []
    while len(started) < count:
        must = needed and not started
        if not must and not _has_spare():
            break
        thread = threading.Thread(
            target=target, daemon=True, name=f'{name}-{len(started) + 1}'
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if must:
                raise errors.NotEnoughMemory(str(error)) from error
            break
        started.append(thread)
    return started


def _has_spare() -> bool:
    """Tell whether `SPARE_BYTES` could be had."""
    try:
        mmap.mmap(-1, SPARE_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


def join(threads: Sequence[threading.Thread]) -> None:
    """Wait until threads have ended, or a signal comes."""
    for thread in threads:
        # A signal that comes just before a wait is seen only after it.
        while thread.is_alive():
            thread.join(SIGNAL_SECONDS)


class Workers:
    """Threads that make the calls that they are given, in that order.

    They are started with the first call.

    Attributes:
        lost: the errors of calls that were not made to their end. Who waits
            for a call has to look here: an error that a call does not
            handle, such as want of memory for its first line, may mean that
            nobody says any more that it is over.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._calls: 'queue.SimpleQueue[Optional[Callable[[], None]]]' = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._threads: List[threading.Thread] = []
        self._closed = False
        self.lost: List[BaseException] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Have a function called; it handles its errors itself.

        Raises:
            Cancelled: the threads end already.
            NotEnoughMemory: no thread can be started.
        """
        with self._lock:
            if self._closed:
                raise errors.Cancelled('stopped')
            if not self._threads:
                self._threads = start(self._work, self._count, self._name)
            self._calls.put(call)

    def close(self) -> None:
        """Let the threads end when they have made the calls they have."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._calls.put(None)

    def join(self) -> None:
        """Wait until the threads have ended, after `close`."""
        join(self._threads)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            try:
                call()
            except BaseException as error:
                self.lost.append(error)


def run_all(
    action: Callable[[T], R], items: Sequence[T], threads: int
) -> List[R]:
    """Return the results in the order of `items`.

    Raises:
        LayeredError: the one that failed, or `SeveralFailed`.
    """
    results: List[Optional[R]] = [None] * len(items)
    failures: List[BaseException] = []
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(items)):
        todo.put(number)

    def work() -> None:
        while True:
            try:
                number = todo.get_nowait()
                results[number] = action(items[number])
            except queue.Empty:
                return
            except BaseException as error:
                failures.append(error)

    join(start(work, min(threads, len(items)), 'side-by-side'))
    errors.raise_all(failures)
    return results  # type: ignore[return-value]
