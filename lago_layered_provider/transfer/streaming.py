"""Receive one image over one connection, from its beginning to its end."""

from __future__ import annotations

import contextlib
import time
from typing import Tuple

from ..core import errors
from ..core.model import Digest, Image
from . import checking
from .connections import Connections, Crowded
from .ports import Mirrors, Provider, Stream
from .receive import Receiver
from .retries import Retries, WrongAnswer
from .shared import Shared
from .store_ports import Stage

READ_BYTES = 2**18


class Streaming:
    """The transfer of one image; it goes on where the stage ends.

    Args:
        name: of the layer, for messages.
    """

    def __init__(
        self,
        name: str,
        image: Image,
        provider: Provider,
        shared: Shared,
        connections: Connections,
    ) -> None:
        self._name = name
        self._image = image
        self._provider = provider
        self._shared = shared
        self._connections = connections

    def receive(self, stage: Stage) -> Tuple[Digest, ...]:
        """Fill a stage; return the digests that were made.

        Raises:
            Cancelled: all shall end.
            LayeredError: it cannot be had, or is not what was announced.
        """
        image = self._image
        location = self._provider.locate(image.file)
        with contextlib.closing(
            Receiver(image, stage, location, self._shared.pool)
        ) as receiver:
            self._show(receiver)
            retries = self._shared.retries(receiver.offset)
            while True:
                try:
                    self._pull(receiver)
                    break
                except Crowded:
                    self._shared.check()
                except errors.TransferError as error:
                    self._shared.check()
                    self._pause(retries, error, receiver.offset)
            receiver.location = self._provider.locate(image.file)
            return receiver.finish()

    def _pause(
        self, retries: Retries, error: errors.TransferError, received: int
    ) -> None:
        seconds = retries.next_pause(error, received, time.monotonic())
        self._shared.progress.note(
            f'{self._name}: {error.reason}; {retries.describe(seconds)}'
        )
        self._shared.pause(seconds)

    def _pull(self, receiver: Receiver) -> None:
        """Receive over one connection, to the end of the file."""
        path = self._image.file
        with self._connections.one(self._provider, path, self._shared.check):
            stream = self._provider.open(
                path, start=receiver.offset, validator=receiver.validator
            )
            receiver.location = self._provider.locate(path)
            with self._shared.streams.reading(stream):
                known = self._accept(receiver, stream)
                while True:
                    self._shared.check()
                    chunk = stream.read(READ_BYTES)
                    if not chunk:
                        break
                    fresh = chunk[known:]
                    known -= len(chunk) - len(fresh)
                    if fresh:
                        receiver.feed(fresh)
                        self._shared.progress.advance(self._name, len(fresh))
        if known:
            raise WrongAnswer(
                receiver.location, f'it ended before byte {receiver.offset}'
            )

    def _accept(self, receiver: Receiver, stream: Stream) -> int:
        """Return how many bytes come that are here already.

        Where no digest would tell a mixture of two files, what is here is
        given up instead.
        """
        begun = receiver.offset > 0
        checking.check_answer(
            self._image, stream, receiver.location, begun=begun
        )
        known = receiver.offset - stream.start
        if known and not self._can_join:
            receiver.restart()
            self._show(receiver)
        if known:
            self._shared.progress.note(
                f'{self._name}: it cannot be continued at byte {known}; '
                f'what came before comes again'
            )
        receiver.begin(stream.validator)
        return receiver.offset - stream.start

    @property
    def _can_join(self) -> bool:
        """Whether a digest decides if all that came is of one file."""
        return isinstance(self._provider, Mirrors) and (
            not self._provider.is_alone(self._image.file)
        )

    def _show(self, receiver: Receiver) -> None:
        self._shared.progress.begin(
            self._name, self._image.compressed_size or self._image.size,
            receiver.offset,
        )
