"""Share the connections to a server among the images that want them.

There are never more than `limit` to one server, whoever wants them. The
largest image comes first; the next one gets what it cannot use.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Optional, Protocol, Tuple

from ..core.errors import TransferError
from ..tools import threads
from .claims import Run
from .ports import Provider

#: How soon it is seen that there is work again.
WAKE_SECONDS = 0.1

#: A server that answers so may have too many connections.
CROWDED = (429, 503)


class Crowded(Exception):
    """The server wants fewer connections, and will get fewer: ask again."""


class Wanting(Protocol):
    """An image whose blocks are to be fetched."""

    def claim(self, now: float) -> Optional[Run]:
        """Return what a connection shall fetch next."""

    def help(self, now: float) -> Optional[Run]:
        """Return what a connection without work may fetch once more."""

    def fetch(self, run: Run, has_others: Callable[[], bool]) -> bool:
        """Fetch it; tell whether the server wants fewer connections."""


@dataclass
class _Server:
    """What goes on with one server.

    Attributes:
        waiting: who wants a connection for himself; goes before images.
        images: with their sizes, the largest first.
    """

    limit: int
    busy: int = 0
    waiting: int = 0
    threads: int = 0
    images: List[Tuple[int, Wanting]] = field(default_factory=list)


class Connections:
    """The connections of one transfer.

    Args:
        limit: how many to each server.
        lost: gets the error of a thread that could not say itself what
            became of its run.
    """

    def __init__(self, limit: int, lost: List[BaseException]) -> None:
        self._limit = limit
        self._lost = lost
        self._changed = threading.Condition()
        self._servers: Dict[str, _Server] = {}
        self._closed = False

    @contextlib.contextmanager
    def serving(
        self, provider: Provider, path: str, image: Wanting, size: int
    ) -> Iterator[Callable[[], None]]:
        """Fetch the blocks of an image in the background.

        Args:
            size: of all of them, in bytes.

        Returns:
            what to call when it may want more than before.

        Raises:
            NotEnoughMemory: there is no thread to do it.
        """
        entry = (size, image)
        with self._changed:
            server = self._find(provider, path)
            server.threads += len(threads.start(
                functools.partial(self._serve, server),
                server.limit - server.threads, 'connection',
                needed=not server.threads,
            ))
            server.images.append(entry)
            server.images.sort(key=lambda each: each[0], reverse=True)
            self._changed.notify_all()
        try:
            yield self._wake
        finally:
            with self._changed:
                server.images.remove(entry)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @contextlib.contextmanager
    def one(
        self, provider: Provider, path: str, check: Callable[[], None]
    ) -> Iterator[None]:
        """Wait for a connection that the caller uses himself.

        Args:
            check: raises when it is no use to wait any more.

        Raises:
            Crowded: instead of the error that says so.
        """
        with self._changed:
            server = self._find(provider, path)
            server.waiting += 1
            try:
                while server.busy >= server.limit:
                    check()
                    self._changed.wait(WAKE_SECONDS)
                server.busy += 1
            finally:
                server.waiting -= 1
        crowded = False
        try:
            yield
        except TransferError as error:
            crowded = error.status in CROWDED and server.busy > 1
            if crowded:
                raise Crowded from error
            raise
        finally:
            self._give_back(server, crowded)

    def close(self) -> None:
        """Let the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _find(self, provider: Provider, path: str) -> _Server:
        """Return the server of a file; all files of this machine are one."""
        _, remote, rest = provider.locate(path).partition('://')
        name = rest.split('/')[0] if remote else ''
        return self._servers.setdefault(name, _Server(self._limit))

    def _serve(self, server: _Server) -> None:
        try:
            while self._serve_one(server):
                pass
        except BaseException as error:
            self._lost.append(error)
        finally:
            with self._changed:
                server.threads -= 1

    def _serve_one(self, server: _Server) -> bool:
        """Fetch a run when there is one; tell whether to go on."""
        with self._changed:
            found = self._choose(server)
            while found is None:
                if self._closed:
                    return False
                self._changed.wait(WAKE_SECONDS)
                found = self._choose(server)
            server.busy += 1
        image, run = found
        crowded = True
        try:
            crowded = image.fetch(run, lambda: server.busy > 1)
        finally:
            self._give_back(server, crowded)
        return True

    def _choose(self, server: _Server) -> Optional[Tuple[Wanting, Run]]:
        if self._closed or server.busy + server.waiting >= server.limit:
            return None
        now = time.monotonic()
        for _, image in server.images:
            run = image.claim(now)
            if run is not None:
                return image, run
        for _, image in server.images:
            run = image.help(now)
            if run is not None:
                return image, run
        return None

    def _give_back(self, server: _Server, crowded: bool) -> None:
        with self._changed:
            server.busy -= 1
            if crowded:
                server.limit = max(1, server.limit - 1)
            self._changed.notify_all()
