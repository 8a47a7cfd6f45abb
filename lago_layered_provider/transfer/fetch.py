"""Bring one layer to where it only has to be made visible.

Receive, try again while that can help, verify, and mark it as verified; all
of it under the image's lock, which is given back at the end.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from dataclasses import dataclass
from typing import Mapping, Optional, Set, Tuple

from ..core import errors
from ..core.model import Digest
from ..core.plan import Layer, Plan
from ..core.record import Record
from .decode import BlockPool
from .ports import Mirrors, Progress, Provider, Stage, Store, Stream
from .receive import Receiver
from .verify import verify_staged

READ_BYTES = 2**18

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


class Fetcher:
    """Fetches layers of a plan, several at the same time.

    Args:
        providers: the source of each missing layer, by the layer's name.
    """

    def __init__(
        self,
        plan: Plan,
        providers: Mapping[str, Provider],
        store: Store,
        limits: Limits,
        progress: Progress,
    ) -> None:
        self.cancelled = threading.Event()
        self._plan = plan
        self._providers = providers
        self._store = store
        self._limits = limits
        self._progress = progress
        self._lock = threading.Lock()
        self._streams: Set[Stream] = set()
        self._pool = BlockPool()
        for provider in providers.values():
            if isinstance(provider, Mirrors):
                provider.tell = progress.note

    def stop(self) -> None:
        """Make all fetches end soon; what they have received is kept."""
        self.cancelled.set()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.abort()

    def close(self) -> None:
        """Give back what all fetches share."""
        self._pool.close()

    def fetch(self, layer: Layer) -> None:
        """Bring a layer into its stage and verify it there.

        Raises:
            Cancelled: `stop` was called.
            LayeredError: it cannot be had, or is not what was announced.
        """
        image = layer.image
        assert image is not None
        provider = self._providers[layer.name]
        with self._store.stage(
            layer.name,
            identity=image.identity,
            cancelled=self.cancelled,
            timeout=self._limits.lock_timeout,
            waiting=functools.partial(self._progress.wait, layer.name),
        ) as stage:
            if stage is None or stage.verified is not None:
                return
            resume = stage.resume()
            old = resume.consumed + resume.spooled > 0
            while True:
                try:
                    self._fill(layer, provider, stage)
                    return
                except (errors.VerifyError, errors.UnsafeImage) as error:
                    if not can_differ(provider, image.file, old):
                        stage.discard()
                        raise
                    self._progress.note(f'{error.message}; fetching it anew')
                    stage.reset()
                    old = False

    def _fill(
        self, layer: Layer, provider: Provider, stage: Stage
    ) -> None:
        """Receive and verify an image, from where the stage stands on."""
        image = layer.image
        assert image is not None
        location = provider.locate(image.file)
        with contextlib.closing(
            Receiver(image, stage, location, self._pool)
        ) as receiver:
            total = image.compressed_size or image.size
            self._progress.begin(layer.name, total, receiver.offset)
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
                if self.cancelled.is_set():
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
        if self.cancelled.wait(seconds):
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
        receiver.location = provider.locate(layer.image.file)
        with self._lock:
            self._streams.add(stream)
        try:
            receiver.accept(stream)
            while True:
                if self.cancelled.is_set():
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
        url = self._providers[layer.name].locate(layer.image.file)
        receiver.location = url
        digests = receiver.finish()
        verified = verify_staged(
            layer.image, layer.base_image, stage,
            url=url,
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
            url=url,
            time=time.time(),
            published=layer.image.timestamp,
        ))

    def _virtual_size(self, base: Layer) -> Optional[int]:
        """Return the bytes that a guest sees of a base, None if unknown."""
        if base.image and base.image.virtual_size is not None:
            return base.image.virtual_size
        stored = self._store.find(base.name)
        return stored.virtual_size if stored else None


def can_differ(provider: Provider, path: str, old: bool) -> bool:
    """Tell whether a wrong image may be right when it is fetched anew.

    Args:
        old: an earlier run has left some of it; a power cut may have
            damaged that.
    """
    if isinstance(provider, Mirrors):
        return provider.reject(path)
    return old


def _merge(
    announced: Tuple[Digest, ...], made: Tuple[Digest, ...]
) -> Tuple[Digest, ...]:
    known = {digest.algorithm: digest for digest in announced}
    known.update({digest.algorithm: digest for digest in made})
    return tuple(known.values())
