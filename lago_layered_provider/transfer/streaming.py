"""Receive one image over one connection, from its beginning to its end."""

from __future__ import annotations

import contextlib
from typing import Tuple

from ..core import errors
from ..core.model import Digest, Image
from .connections import Connections, Crowded
from .ports import Provider
from .receive import Receiver
from .retries import Retries
from .shared import Shared
from .store_ports import Stage

READ_BYTES = 2**18


class Streaming:
    """The transfer of one image; it goes on where the stage ends.

    Args:
        name: of the layer, for people.
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
            self._shared.progress.begin(
                self._name, image.compressed_size or image.size,
                receiver.offset,
            )
            retries = Retries(self._shared.retries, receiver.offset)
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
        seconds = retries.next_pause(error, received)
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
                receiver.accept(stream)
                while True:
                    self._shared.check()
                    chunk = stream.read(READ_BYTES)
                    if not chunk:
                        return
                    receiver.feed(chunk)
                    self._shared.progress.advance(self._name, len(chunk))
