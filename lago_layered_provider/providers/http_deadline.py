"""Answers that must come in time, however little of them comes at a time.

The timeout of a socket is that between two bytes: a server that sends a byte
now and then, of headers, of `100 Continue` or of a document, would keep a
client for ever. The connections of `make_session` tell the deadline of their
thread which sockets they use, and that shuts them down.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any, Iterator, List

import requests
from requests.adapters import HTTPAdapter
from urllib3 import ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..core.errors import TransferError
from ..tools.deadline import Deadline

#: So many timeouts may pass until an answer begins, or a small one is here.
TIMEOUTS = 3

#: What is slower, beyond that, is taken for an answer without end.
SLOWEST_BYTES_A_SECOND = 16 << 10

LATER_HINT = 'Run it again later.'

_local = threading.local()


class _Sockets:
    """The sockets that a request uses; shut down from another thread.

    They are copies of the descriptors: TLS takes the originals over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: List[socket.socket] = []
        self._over = False

    def add(self, one: socket.socket) -> None:
        copy = socket.socket(fileno=os.dup(one.fileno()))
        with self._lock:
            self._copies.append(copy)
            over = self._over
        if over:
            self.shut_down()

    def shut_down(self) -> None:
        with self._lock:
            self._over = True
            for copy in self._copies:
                with contextlib.suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for copy in self._copies:
                copy.close()


def _watch(one: Any) -> None:
    sockets = getattr(_local, 'sockets', None)
    if sockets is not None and one is not None:
        with contextlib.suppress(OSError):
            sockets.add(one)


class _Watched(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _watch(made)
        return made

    def getresponse(self) -> Any:
        # The connection may be one of an earlier request.
        _watch(self.sock)
        return super().getresponse()


class _WatchedTls(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


_POOLS = {'http': _Pool, 'https': _TlsPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:  # not that of SOCKS
            manager.pool_classes_by_scheme = _POOLS
        return manager


def make_session() -> requests.Session:
    """Return a session whose answers can be given a deadline."""
    session = requests.Session()
    for scheme in ('http://', 'https://'):
        session.mount(scheme, _Adapter())
    return session


@contextlib.contextmanager
def in_time(url: str, timeout: float) -> Iterator[Deadline]:
    """Let all that is received meanwhile fail when it takes too long.

    Raises:
        TransferError: it took longer.
    """
    sockets = _Sockets()
    _local.sockets = sockets
    deadline = Deadline(TIMEOUTS * timeout, sockets.shut_down)
    failure = None
    try:
        with deadline:
            yield deadline
    except TransferError as error:
        if not deadline.passed:
            raise
        failure = error
    finally:
        _local.sockets = None
        sockets.close()
    # Some answers end with their connection, whoever has ended that.
    if deadline.passed:
        raise TransferError(
            url, f'no whole answer within {deadline.seconds:.0f} s',
            hint=LATER_HINT,
        ) from failure
