"""Run small things side by side in daemon threads.

`concurrent.futures` waits for its threads when the interpreter ends, so that
Ctrl-C would hang on a server that does not answer; daemons do not hold up.
"""

from __future__ import annotations

import queue
import threading
from typing import Callable, List, Optional, Sequence, TypeVar

from .core import errors

#: The longest time until Ctrl-C is noticed.
SIGNAL_SECONDS = 0.5

T = TypeVar('T')
R = TypeVar('R')


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
            except queue.Empty:
                return
            try:
                results[number] = action(items[number])
            except BaseException as error:
                failures.append(error)

    workers = [
        threading.Thread(target=work, daemon=True)
        for _ in range(min(threads, len(items)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        # A signal that comes just before a wait is seen only after it.
        while worker.is_alive():
            worker.join(SIGNAL_SECONDS)
    errors.raise_all(failures)
    return results  # type: ignore[return-value]
