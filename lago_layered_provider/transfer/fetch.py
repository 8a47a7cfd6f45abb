"""Bring one layer to where it only has to be made visible.

Receive it over several connections where its file can be had so
(`block_receiver`), else in one go (`streaming`); verify, and mark it as
verified; all of it under the image's lock, which is given back at the end.
"""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Tuple

from ..core import errors
from ..core.model import Digest, Image
from ..core.plan import Layer, Plan
from ..store.record import Record
from . import checking
from .block_receiver import BlockReceiver
from .connections import Connections, Crowded
from .jobs import Jobs
from .landing import place_blocks
from .mapping import Mapped, find_map
from .ordered import order_pieces
from .ports import Caching, Mirrors, Progress, Provider
from .retries import WrongAnswer
from .shared import BlockRoom, Shared
from .store_ports import Stage, Store
from .streaming import Streaming
from .verify import verify_staged


@dataclass(frozen=True)
class Limits:
    """How hard to try.

    Attributes:
        jobs: layers that are worked on at the same time.
        connections: open at the same time to one server.
        blocks: that are received or wait to be decoded at the same time.
        patience: seconds without a new byte of a layer that are waited
            for.
        lock_timeout: in seconds.
    """

    jobs: int
    connections: int
    blocks: int
    patience: float
    lock_timeout: float


class Fetcher:
    """Fetches layers of a plan, several at the same time.

    Args:
        providers: the source of each missing layer, by the layer's name.
        check: raises ToolError when the tables of an image are damaged,
            given its path and format.
    """

    def __init__(
        self,
        plan: Plan,
        providers: Mapping[str, Provider],
        store: Store,
        limits: Limits,
        progress: Progress,
        check: Callable[[str, str], None],
    ) -> None:
        self._check_tables = check
        self._plan = plan
        self._providers = providers
        self._store = store
        self._limits = limits
        self._progress = progress
        self._shared = Shared(
            limits.connections, limits.patience, progress,
            room=BlockRoom(limits.blocks, plan.room_left),
        )
        self.cancelled = self._shared.cancelled
        self._connections = Connections(
            limits.connections, self._shared.pool.lost
        )
        for provider in providers.values():
            if isinstance(provider, Mirrors):
                provider.tell = progress.note

    def stop(self) -> None:
        """Make all fetches end soon; what they have received is kept."""
        self.cancelled.set()
        self._shared.streams.abort()

    def close(self) -> None:
        """Give back what all fetches share."""
        self._connections.close()
        self._shared.pool.close()

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
            keep_free=self._plan.temporary + self._plan.reserve,
            cancelled=self.cancelled,
            timeout=self._limits.lock_timeout,
            waiting=functools.partial(self._progress.wait, layer.name),
        ) as stage:
            if stage is None or stage.verified is not None:
                return
            old = stage.begun
            while True:
                try:
                    self._fill(layer, image, provider, stage)
                    return
                except errors.NotEnoughSpace:
                    stage.discard()
                    raise
                except (errors.VerifyError, errors.UnsafeImage) as error:
                    if not can_differ(provider, image.file, old):
                        stage.discard()
                        raise
                    self._progress.note(f'{error.message}; fetching it anew')
                    stage.reset()
                    old = False

    def _fill(
        self, layer: Layer, image: Image, provider: Provider, stage: Stage
    ) -> None:
        """Receive and verify an image, from where the stage stands on."""
        digests = self._fetch_blocks(layer.name, image, provider, stage)
        if digests is None:
            digests = Streaming(
                layer.name, image, provider, self._shared, self._connections
            ).receive(stage)
        self._verify(layer, image, stage, digests)

    def _fetch_blocks(
        self, name: str, image: Image, provider: Provider, stage: Stage
    ) -> Optional[Tuple[Digest, ...]]:
        """Receive an image by blocks; None where it has to be one go.

        Only where a digest decides whether the blocks are of one image.
        """
        if isinstance(provider, Mirrors) and provider.is_alone(image.file):
            return None
        mapped = self._find_map(name, image, provider, stage)
        if mapped is None:
            return None
        if mapped.map is not None:
            checking.check_size(
                image, mapped.map.image_size, provider.locate(image.file)
            )
        elif self._limits.connections == 1:
            return None  # one request is enough then
        try:
            return self._receive_blocks(name, image, provider, stage, mapped)
        except WrongAnswer as error:
            self._progress.note(
                f'{name}: {error.reason}; fetching it in one go, what came '
                f'out of order comes again'
            )
            return None

    def _find_map(
        self, name: str, image: Image, provider: Provider, stage: Stage
    ) -> Optional[Mapped]:
        retries = self._shared.retries(0)
        while True:
            try:
                with self._connections.one(
                    provider, image.file, self._shared.check
                ):
                    return find_map(
                        provider, image, stage.validator,
                        self._shared.streams, begun=stage.begun,
                    )
            except Crowded:
                self._shared.check()
            except errors.TransferError as error:
                self._shared.check()
                seconds = retries.next_pause(error, 0, time.monotonic())
                self._progress.note(
                    f'{name}: {error.reason}; {retries.describe(seconds)}'
                )
                self._shared.pause(seconds)

    def _receive_blocks(
        self,
        name: str,
        image: Image,
        provider: Provider,
        stage: Stage,
        mapped: Mapped,
    ) -> Optional[Tuple[Digest, ...]]:
        jobs = Jobs(self._shared)
        aim = order_pieces if mapped.map is None else place_blocks
        try:
            claims, target = aim(
                image, stage, mapped, self._shared, jobs,
                provider.locate(image.file),
            )
        except ValueError:
            return None  # what is here was not received by blocks
        with contextlib.closing(BlockReceiver(
            name, image, provider, mapped, claims, target, jobs, self._shared
        )) as receiver:
            with self._connections.serving(
                provider, image.file, receiver, mapped.to_fetch
            ) as wake:
                return receiver.wait(wake)

    def _verify(
        self,
        layer: Layer,
        image: Image,
        stage: Stage,
        digests: Tuple[Digest, ...],
    ) -> None:
        base = self._plan.layer(layer.base) if layer.base else None
        url = self._providers[layer.name].locate(image.file)
        verified = verify_staged(
            image, layer.base_image, stage,
            url=url,
            base_virtual_size=self._virtual_size(base) if base else None,
        )
        self._check(image, stage.path, verified.format, url)
        for oddity in verified.oddities:
            self._progress.note(f'{layer.name}: warning: {oddity}')
        stage.mark_verified(Record(
            format=verified.format,
            size=stage.size,
            virtual_size=verified.virtual_size,
            backing=layer.base,
            digests=_merge(image.digests, digests),
            url=url,
            time=time.time(),
            published=image.timestamp,
        ))

    def _check(
        self, image: Image, path: str, fmt: str, url: str
    ) -> None:
        """Check the tables of an image whose header is safe."""
        if fmt == 'raw':
            return
        try:
            self._check_tables(path, fmt)
        except errors.ToolError as error:
            if error.status is None:
                raise  # it is missing, or hangs
            raise errors.UnsafeImage(
                str(image.ref), [f'qemu-img check: {error.stderr}'], url=url
            ) from None

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
    if isinstance(provider, Caching):
        provider.avoid_caches()
    if isinstance(provider, Mirrors):
        return provider.reject(path, old)
    return old


def _merge(
    announced: Tuple[Digest, ...], made: Tuple[Digest, ...]
) -> Tuple[Digest, ...]:
    known = {digest.algorithm: digest for digest in announced}
    known.update({digest.algorithm: digest for digest in made})
    return tuple(known.values())
