"""Carry out a plan: layers in parallel, each visible only after its base.

A worker takes the next layer of the plan, receives it into its stage,
verifies it and lets the image's lock go. A layer becomes visible as soon as
it is staged and its base is visible, whoever of the workers comes to both
first; so no worker waits for another, and a layer that was fetched before
its base is not fetched again. What failed is named at the end; layers that
do not stand on it are finished.
"""

from __future__ import annotations

import functools
import threading
from typing import Callable, Dict, List, Mapping, Optional, Set

from ..core import errors
from ..core.plan import Layer, Plan
from ..tools import threads
from .fetch import Fetcher, Limits
from .ports import Progress, Provider
from .store_ports import Store

#: Seconds that a stopped transfer waits for its threads; they are daemons.
STOP_SECONDS = 5


def carry_out(
    plan: Plan,
    providers: Mapping[str, Provider],
    store: Store,
    *,
    limits: Limits,
    progress: Progress,
    check: Callable[[str, str], None],
) -> None:
    """Fetch all missing layers of a plan and make them visible.

    Args:
        providers: the source of each missing layer, by the layer's name.
        check: as for `Fetcher`.

    Raises:
        LayeredError: of the one layer that failed, or `SeveralFailed`. What
            was finished stays visible, what was begun can go on later.
    """
    fetcher = Fetcher(plan, providers, store, limits, progress, check)
    work = _Work(plan, fetcher, store, limits, progress)
    workers: List[threading.Thread] = []
    try:
        workers += threads.start(
            work.run, min(limits.jobs, len(plan.missing)), 'fetch'
        )
        threads.join(workers)
    except BaseException:  # Ctrl-C, or SystemExit from a signal handler
        fetcher.stop()
        for worker in filter(threading.Thread.is_alive, workers):
            worker.join(STOP_SECONDS / len(workers))
        raise
    finally:
        fetcher.close()
    work.check()


class _Work:
    """The state that the workers share; `_lock` guards all of it."""

    def __init__(
        self,
        plan: Plan,
        fetcher: Fetcher,
        store: Store,
        limits: Limits,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._store = store
        self._limits = limits
        self._progress = progress
        self._lock = threading.Lock()
        # The largest first, so that none of them is left alone at the end.
        self._waiting = sorted(
            plan.missing, key=lambda layer: layer.fetch or 0, reverse=True
        )
        missing = {layer.name for layer in plan.missing}
        self._visible: Set[str] = {
            layer.name for layer in plan.layers if layer.name not in missing
        }
        self._staged: Dict[str, Layer] = {}
        self._failures: Dict[str, BaseException] = {}

    def run(self) -> None:
        """Take layers until there are none."""
        while not self._fetcher.cancelled.is_set():
            layer = self._next()
            if layer is None:
                return
            ready = self._try(self._stage, layer)
            while ready:
                ready += self._try(self._commit, ready.pop())

    def check(self) -> None:
        """Raise what went wrong, and what is not visible for all that."""
        errors.raise_all(list(self._failures.values()))
        lost = [
            layer.name for layer in self._plan.layers
            if layer.name not in self._visible
            or self._store.find(layer.name) is None
        ]
        if lost:
            raise errors.StoreError(
                f'Not in the store after the transfer: {", ".join(lost)}.',
                hint='Run it again; what was fetched is kept.',
            )

    def _try(
        self, step: Callable[[Layer], List[Layer]], layer: Layer
    ) -> List[Layer]:
        """Take a step; return the layers that can be made visible then."""
        try:
            return step(layer)
        except BaseException as error:  # raised by `check`
            if isinstance(error, (MemoryError, errors.NotEnoughMemory)):
                error = errors.NotEnoughMemory(
                    getattr(error, 'reason', ''), image=layer.name
                )
            # What fails because the user stopped it is no news.
            if not self._fetcher.cancelled.is_set():
                with self._lock:
                    self._failures[layer.name] = error
                self._progress.end(layer.name, 'failed')
            return []

    def _next(self) -> Optional[Layer]:
        with self._lock:
            while self._waiting:
                layer = self._waiting.pop(0)
                if not self._is_lost(layer):
                    return layer
        return None

    def _is_lost(self, layer: Layer) -> bool:
        """Whether something that the layer stands on has failed."""
        base = layer.base
        while base is not None:
            if base in self._failures:
                return True
            base = self._plan.layer(base).base
        return False

    def _stage(self, layer: Layer) -> List[Layer]:
        """Fetch a layer; return it if its base is visible."""
        self._fetcher.fetch(layer)
        with self._lock:
            if layer.base is None or layer.base in self._visible:
                return [layer]
            self._staged[layer.name] = layer
            return []

    def _commit(self, layer: Layer) -> List[Layer]:
        """Make a staged layer visible; return those that waited for it."""
        assert layer.image is not None
        self._store.commit(
            layer.name,
            base=layer.base,
            metadata=dict(layer.image.metadata or {}),
            cancelled=self._fetcher.cancelled,
            timeout=self._limits.lock_timeout,
            waiting=functools.partial(self._progress.wait, layer.name),
        )
        self._progress.end(layer.name, 'fetched')
        with self._lock:
            self._visible.add(layer.name)
            children = [
                each for each in self._staged.values()
                if each.base == layer.name
            ]
            for child in children:
                del self._staged[child.name]
            return children
