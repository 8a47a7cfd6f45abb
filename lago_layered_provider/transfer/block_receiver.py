"""Receive one image block by block, over several connections.

Each connection asks for a run of blocks (`claims`); what has come is put in
place by `landing`, or handed on in its order by `ordered`. A connection that
breaks gives back what it has not brought; what has come of a block is never
asked for again.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, Optional, Tuple

from ..core import errors
from ..core.model import Digest, Image
from . import checking
from .claims import Claims, Part, Run
from .connections import CROWDED
from .jobs import Jobs
from .mapping import Mapped
from .ports import Buffered, Provider, Stream
from .retries import LONGEST_PAUSE_SECONDS, WrongAnswer
from .shared import Shared
from .target import Target

READ_BYTES = 256 << 10


class BlockReceiver:
    """An image on its way into its stage; see `connections.Wanting`.

    Args:
        name: of the layer, for people.
        claims, target: what is to be fetched, and where it goes.
        jobs: what other threads do for it; its condition guards the claims
            and all else of this object.
    """

    def __init__(
        self,
        name: str,
        image: Image,
        provider: Provider,
        mapped: Mapped,
        claims: Claims,
        target: Target,
        jobs: Jobs,
        shared: Shared,
    ) -> None:
        self._name = name
        self._image = image
        self._provider = provider
        self._file = mapped
        self._claims = claims
        self._target = target
        self._jobs = jobs
        self._shared = shared
        self._open: Dict[Run, Stream] = {}
        self._failed_at = self._pause_until = 0.0
        self._retries = shared.retries(self.received)
        self._target.begin(self._claims.parts)
        self._shown = False
        if all(part.is_complete for part in self._claims.parts):
            self._show()

    def _show(self) -> None:
        """Tell people that it begins: others may have been served before.

        Under the lock, as no connection may bring a byte before.
        """
        with self._jobs.changed:
            if not self._shown:
                self._shown = True
                self._shared.progress.begin(
                    self._name, self._file.to_fetch, self.received
                )

    @property
    def received(self) -> int:
        """Bytes of blocks that are here."""
        return self._file.to_fetch - sum(
            part.block.size - part.received for part in self._claims.parts
        )

    def wait(self, wake: Callable[[], None]) -> Tuple[Digest, ...]:
        """Wait for the whole image; return the digests that were made.

        Args:
            wake: is called when there may be more to claim than before.

        Raises:
            WrongAnswer: the source gives no ranges any more.
            LayeredError: it cannot be had, or is not what was announced.
        """
        def is_done() -> bool:
            return self._jobs.is_idle and self._target.is_done

        self._jobs.wait(lambda: is_done() or self._target.has_work)
        while not is_done():
            self._target.work()
            wake()
            self._jobs.wait(lambda: is_done() or self._target.has_work)
        return self._target.finish()

    def close(self) -> None:
        """End what is still running; what was received stays."""
        with self._jobs.changed:
            self._jobs.over = True
            for stream in self._open.values():
                stream.abort()
        self._target.stop()
        self._jobs.stop()
        self._target.close(self._claims.parts)

    def claim(self, now: float) -> Optional[Run]:
        """Return what a connection shall fetch next."""
        with self._jobs.changed:
            if self._jobs.over or now < self._pause_until:
                return None
            return self._count(
                self._claims.claim(now, self._target.horizon)
            )

    def help(self, now: float) -> Optional[Run]:
        """Return the rest of a run that a slow connection has."""
        with self._jobs.changed:
            if self._jobs.over or now < self._pause_until:
                return None
            # What waits to be read here comes no sooner by another one.
            return self._count(self._claims.help(now, [
                run for run, stream in self._open.items()
                if isinstance(stream, Buffered) and stream.has_unread()
            ]))

    def _count(self, run: Optional[Run]) -> Optional[Run]:
        if run is not None:
            self._jobs.begin()
        return run

    def fetch(self, run: Run, has_others: Callable[[], bool]) -> bool:
        """Fetch a run; tell whether the server wants fewer connections.

        Args:
            has_others: tells whether other connections to it are in use.
        """
        crowded = False
        try:
            crowded = self._try(run, has_others)
        except BaseException as error:  # raised by `wait`
            self._jobs.fail(error)
        with self._jobs.changed:
            self._open.pop(run, None)
            self._claims.end(run, time.monotonic())
            lost = [
                part for part in run.parts[run.current:]
                if not part.readers and not part.is_complete
            ]
        for part in lost:
            self._target.give_room(part)
        self._jobs.end()
        return crowded

    def _try(self, run: Run, has_others: Callable[[], bool]) -> bool:
        try:
            self._show()
            self._fetch(run)
        except errors.TransferError as error:
            if error.status in CROWDED and has_others():
                self._rest(error.retry_after or 0)
                return True
            self._break_off(run, error)
        return False

    def _fetch(self, run: Run) -> None:
        stream = self._provider.open(
            self._image.file, start=run.start, end=run.end,
            validator=self._file.validator,
        )
        with self._shared.streams.reading(stream):
            with self._jobs.changed:
                self._open[run] = stream
            location = self._provider.locate(self._image.file)
            checking.check_answer(self._image, stream, location, begun=True)
            if stream.start != run.start:
                raise WrongAnswer(
                    location, f'an answer begins at {stream.start} instead '
                    f'of {run.start}',
                )
            position = run.start
            part = self._next_part(run, None)
            while part is not None:
                self._take_room(run, part)
                while position < part.block.end:
                    self._jobs.check()
                    if self._claims.is_needless(run):
                        return
                    chunk = self._read(stream, part.block.end - position)
                    self._put(run, part, chunk, position)
                    position += len(chunk)
                part = self._next_part(run, part)

    def _rest(self, seconds: float) -> None:
        """Claim nothing for so long; what is on its way goes on."""
        until = time.monotonic() + min(seconds, LONGEST_PAUSE_SECONDS)
        with self._jobs.changed:
            self._pause_until = max(self._pause_until, until)

    def _next_part(self, run: Run, last: Optional[Part]) -> Optional[Part]:
        with self._jobs.changed:
            return self._claims.next_part(run, last)

    def _take_room(self, run: Run, part: Part) -> None:
        before = time.monotonic()
        run.waits = True
        self._target.take_room(part)
        with self._jobs.changed:
            self._claims.wait(run, time.monotonic() - before)
            run.waits = False

    def _read(self, stream: Stream, size: int) -> bytes:
        chunk = stream.read(min(READ_BYTES, size))
        if not chunk:
            raise errors.TransferError(
                self._provider.locate(self._image.file),
                'the file ended too early', retryable=True,
            )
        return chunk

    def _put(
        self, run: Run, part: Part, chunk: bytes, position: int
    ) -> None:
        """Take in bytes, unless another connection had them first."""
        end = position - part.block.offset + len(chunk)
        with part.lock:
            count = max(0, end - part.received)
            if count:
                self._target.put(part, chunk, end - len(chunk))
                part.received = end
            landed = count and part.is_complete
        with self._jobs.changed:
            self._claims.take(run, len(chunk), time.monotonic())
        self._shared.progress.advance(self._name, count)
        if landed:
            self._stop_others(run, part)
            self._target.land(part)

    def _stop_others(self, run: Run, part: Part) -> None:
        """Stop connections that have nothing else to bring."""
        with self._jobs.changed:
            others = [
                stream for other, stream in self._open.items()
                if other is not run and other.parts[-1] is part
            ]
        for stream in others:
            stream.abort()

    def _break_off(self, run: Run, error: errors.TransferError) -> None:
        """Decide what a broken connection means."""
        with self._jobs.changed:
            if self._jobs.over or not run.left:
                return
            # What another connection brings as well is not missed, and what
            # breaks at the same time is one failure.
            missed = any(
                part.readers == 1 for part in run.parts[run.current:]
            )
            if not missed or run.claimed < self._failed_at:
                return
            now = time.monotonic()
            try:
                seconds = self._retries.next_pause(error, self.received, now)
            except errors.LayeredError as final:
                self._jobs.fail(final)
                return
            self._failed_at, self._pause_until = now, now + seconds
        self._shared.progress.note(
            f'{self._name}: {error.reason}; '
            f'{self._retries.describe(seconds)}'
        )
