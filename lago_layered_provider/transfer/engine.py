"""Carry out a plan: layers in parallel, each visible only after its base.

A worker takes the next layer of the plan, receives it into its stage,
verifies it and lets the image's lock go. A layer becomes visible as soon as
it is staged and its base is visible, whoever of the workers comes to both
first; so no worker waits for another, and a layer that was fetched before
its base is not fetched again. What failed is named at the end; layers that
do not stand on it are finished.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Set, Tuple

from ..core import errors
from ..core.model import Digest
from ..core.plan import Layer, Plan
from ..store import Record, Stage, Store
from .ports import Progress, Provider, Stream
from .receive import Receiver
from .verify import verify_staged

READ_BYTES = 2**18

#: Seconds that a stopped transfer waits for its threads; they are daemons.
STOP_SECONDS = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30

#: A connection that breaks after that much is not counted as one in a row.
PROGRESS_BYTES = 2**20


@dataclass(frozen=True)
class Limits:
    """How hard to try; `lock_timeout` in seconds."""

    jobs: int
    retries: int
    lock_timeout: float


def carry_out(
    plan: Plan,
    providers: Mapping[str, Provider],
    store: Store,
    *,
    limits: Limits,
    progress: Progress,
) -> None:
    """Fetch all missing layers of a plan and make them visible.

    Args:
        providers: the source of each missing layer, by the layer's name.

    Raises:
        LayeredError: of the one layer that failed, or `SeveralFailed`. What
            was finished stays visible, what was begun can go on later.
    """
    work = _Work(plan, providers, store, limits, progress)
    threads = [
        threading.Thread(target=work.run, name=f'fetch-{n}', daemon=True)
        for n in range(min(limits.jobs, len(plan.missing)))
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C, or SystemExit from a signal handler
        work.stop()
        for thread in threads:
            thread.join(STOP_SECONDS / len(threads))
        raise
    work.raise_failures()


class _Work:
    """The state that the workers share; `_lock` guards all of it."""

    def __init__(
        self,
        plan: Plan,
        providers: Mapping[str, Provider],
        store: Store,
        limits: Limits,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._providers = providers
        self._store = store
        self._limits = limits
        self._progress = progress
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._waiting = list(plan.missing)
        missing = {layer.name for layer in plan.missing}
        self._visible: Set[str] = {
            layer.name for layer in plan.layers if layer.name not in missing
        }
        self._staged: Dict[str, Layer] = {}
        self._failures: Dict[str, BaseException] = {}
        self._streams: Set[Stream] = set()

    def run(self) -> None:
        """Take layers until there are none."""
        while not self._cancelled.is_set():
            layer = self._next()
            if layer is None:
                return
            try:
                self._fetch(layer)
                self._commit(layer)
            except errors.Cancelled:
                return
            except BaseException as error:  # named by raise_failures
                with self._lock:
                    self._failures[layer.name] = error
                self._progress.end(layer.name, 'failed')

    def stop(self) -> None:
        """Make all workers end soon; what they have fetched is kept."""
        self._cancelled.set()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.abort()

    def raise_failures(self) -> None:
        """Raise what went wrong, if anything did."""
        errors.raise_all(list(self._failures.values()))

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

    def _fetch(self, layer: Layer) -> None:
        """Bring a layer to where it only has to be made visible."""
        image = layer.image
        assert image is not None
        provider = self._providers[layer.name]
        with self._store.stage(
            layer.name,
            identity=image.identity,
            cancelled=self._cancelled,
            timeout=self._limits.lock_timeout,
            waiting=lambda who: self._progress.wait(layer.name, who),
        ) as stage:
            if stage is None or stage.verified is not None:
                return
            resume = stage.resume()
            if resume.consumed + resume.spooled > 0:
                try:
                    self._fill(layer, provider, stage)
                    return
                except (errors.VerifyError, errors.UnsafeImage) as error:
                    # A power cut may have damaged what an earlier run left.
                    self._progress.note(f'{error.message}; fetching it anew')
                    stage.reset()
            try:
                self._fill(layer, provider, stage)
            except (errors.VerifyError, errors.UnsafeImage):
                stage.discard()
                raise

    def _fill(
        self, layer: Layer, provider: Provider, stage: Stage
    ) -> None:
        """Receive and verify an image, from where the stage stands on."""
        image = layer.image
        assert image is not None
        receiver = Receiver(image, stage, provider.locate(image.file))
        self._progress.begin(
            layer.name, image.compressed_size or image.size, receiver.offset,
        )
        self._receive(layer, provider, receiver)
        self._verify(layer, stage, receiver)

    def _receive(
        self, layer: Layer, provider: Provider, receiver: Receiver
    ) -> None:
        failures = 0
        while True:
            before = receiver.offset
            try:
                self._pull(layer, provider, receiver)
                return
            except errors.TransferError as error:
                if self._cancelled.is_set():
                    raise errors.Cancelled('stopped') from None
                if receiver.offset - before >= PROGRESS_BYTES:
                    failures = 0
                failures += 1
                if not error.retryable or failures > self._limits.retries:
                    raise
                self._pause(layer, error, failures)

    def _pause(
        self, layer: Layer, error: errors.TransferError, failures: int
    ) -> None:
        seconds = max(
            error.retry_after or 0,
            FIRST_PAUSE_SECONDS * 2 ** (failures - 1),
        )
        seconds = min(seconds, LONGEST_PAUSE_SECONDS)
        self._progress.note(
            f'{layer.name}: {error.reason}; trying again in {seconds:.1f} s '
            f'({failures} of {self._limits.retries})'
        )
        if self._cancelled.wait(seconds):
            raise errors.Cancelled('stopped')

    def _pull(
        self, layer: Layer, provider: Provider, receiver: Receiver
    ) -> None:
        """Receive over one connection, to the end of the file."""
        assert layer.image is not None
        stream = provider.open(
            layer.image.file,
            start=receiver.offset,
            validator=receiver.validator,
        )
        with self._lock:
            self._streams.add(stream)
        try:
            receiver.accept(stream)
            while True:
                if self._cancelled.is_set():
                    raise errors.Cancelled('stopped')
                chunk = stream.read(READ_BYTES)
                if not chunk:
                    return
                receiver.feed(chunk)
                self._progress.advance(layer.name, len(chunk))
        finally:
            with self._lock:
                self._streams.discard(stream)
            stream.close()

    def _verify(
        self, layer: Layer, stage: Stage, receiver: Receiver
    ) -> None:
        assert layer.image is not None
        base = self._plan.layer(layer.base) if layer.base else None
        digests = receiver.finish()
        verified = verify_staged(
            layer.image, base.image if base else None, stage,
            url=self._providers[layer.name].locate(layer.image.file),
            base_virtual_size=self._virtual_size(base) if base else None,
        )
        for oddity in verified.oddities:
            self._progress.note(f'{layer.name}: warning: {oddity}')
        stage.mark_verified(Record(
            format=verified.format,
            size=stage.size,
            virtual_size=verified.virtual_size,
            backing=layer.base,
            digests=_merge(layer.image.digests, digests),
            url=self._providers[layer.name].locate(layer.image.file),
            time=time.time(),
        ))

    def _virtual_size(self, base: Layer) -> Optional[int]:
        """Return the bytes that a guest sees of a base, None if unknown."""
        if base.image and base.image.virtual_size is not None:
            return base.image.virtual_size
        stored = self._store.find(base.name)
        return stored.virtual_size if stored else None

    def _commit(self, layer: Layer) -> None:
        """Make a staged layer visible, and all that waited for it."""
        ready = self._take_ready(layer)
        while ready:
            each = ready.pop()
            assert each.image is not None
            self._store.commit(
                each.name,
                base=each.base,
                metadata=dict(each.image.metadata or {}),
                cancelled=self._cancelled,
                timeout=self._limits.lock_timeout,
            )
            self._progress.end(each.name, 'fetched')
            ready.extend(self._take_children(each.name))

    def _take_ready(self, layer: Layer) -> List[Layer]:
        with self._lock:
            if layer.base is None or layer.base in self._visible:
                return [layer]
            self._staged[layer.name] = layer
            return []

    def _take_children(self, name: str) -> List[Layer]:
        with self._lock:
            self._visible.add(name)
            children = [
                layer for layer in self._staged.values()
                if layer.base == name
            ]
            for child in children:
                del self._staged[child.name]
            return children


def _merge(
    announced: Tuple[Digest, ...], made: Tuple[Digest, ...]
) -> Tuple[Digest, ...]:
    known = {digest.algorithm: digest for digest in announced}
    known.update({digest.algorithm: digest for digest in made})
    return tuple(known.values())
