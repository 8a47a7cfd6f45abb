"""The bytes of an HTTP answer, which another thread may stop."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import NoReturn, Optional

import requests
from urllib3.util.wait import wait_for_read

from ..core.errors import TransferError
from .http_errors import network
from .http_headers import find_validator

#: One `read` returns at most this.
READ_BYTES = 256 << 10

#: The same where it waits for as much: a broken connection loses what was not
#: returned yet, and progress should be seen on slow lines too.
WAIT_BYTES = 128 << 10


def _find_socket(response: requests.Response) -> Optional[socket.socket]:
    """Return the socket of an answer that is still being received.

    There is no public way in urllib3 1.26. With `Connection: close` only the
    file object of the answer holds it, else the connection does too.
    """
    for path in ('_fp.fp.raw._sock', '_connection.sock'):
        found = response.raw
        for name in path.split('.'):
            found = getattr(found, name, None)
        if isinstance(found, socket.socket):
            return found
    return None


class HttpStream:
    """The bytes of an answer; see `ports.Stream`.

    Args:
        stop: offset in the file at which the stream ends, if known; where
            `total` is not, the file may be shorter.
    """

    def __init__(
        self,
        url: str,
        response: requests.Response,
        timeout: float,
        *,
        start: int,
        stop: Optional[int],
        total: Optional[int],
    ) -> None:
        self._url = url
        self._response = response
        self._timeout = timeout
        self._position = start
        self._stop = stop
        self.start = start
        self.total = total
        self.validator = find_validator(response.headers)
        self._lock = threading.Lock()
        self._aborted = False
        self._socket = _find_socket(response)
        raw = response.raw
        self._read, self._most = raw.read, WAIT_BYTES
        # Better is what has come, however little. urllib3 1.26 cannot do
        # that, and of TLS it would be a record, 16 KiB at the most.
        if hasattr(raw, 'read1') and response.url.startswith('http://'):
            self._read, self._most = raw.read1, READ_BYTES

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, b'' at the end."""
        size = min(size, self._most)
        if self._stop is not None:
            size = min(size, self._stop - self._position)
        data = b''
        try:
            if size and not self._aborted:
                with network(self._url, self._timeout):
                    data = self._read(size, decode_content=False)
        except TransferError as error:
            self._fail(error.reason, error)
        except AttributeError as error:
            # From a file object that was closed meanwhile.
            self._fail('the connection was closed', error)
        cut = self._stop is not None and self.total is not None
        if self._aborted or size and not data and cut:
            self._fail('the connection ended', None)
        self._position += len(data)
        if not data or self._position == self._stop:
            self._forget_socket()
        return data

    def _fail(self, reason: str, cause: Optional[Exception]) -> NoReturn:
        if self._aborted:
            raise TransferError(
                self._url, 'the transfer was stopped'
            ) from cause
        of = '' if self._stop is None else f' of {self._stop}'
        raise TransferError(
            self._url, f'{reason} after {self._position}{of} bytes',
            retryable=True,
        ) from cause

    def _forget_socket(self) -> None:
        """Leave the socket alone: it may serve another stream soon."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        """Wake a `read` that another thread waits in, and make it fail."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                # Not close(): it would wait for the reader. And not the
                # method of SSLSocket, which takes its state away from the
                # thread that is using it.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def has_unread(self) -> bool:
        """Tell whether bytes came that nobody has read."""
        with self._lock:
            if self._socket is None:
                return False
            try:
                return bool(wait_for_read(self._socket, timeout=0))
            except (OSError, ValueError):
                return False  # it was closed meanwhile

    def close(self) -> None:
        """Release the connection, for other requests if all was read."""
        self._forget_socket()
        self._response.close()


class NoPart:
    """Stands for a part of a file that the server does not give.

    As a stream that begins at 0, but without a request for the whole file:
    who asked for a part does not want that.
    """

    start = 0
    total: Optional[int] = None
    validator: Optional[str] = None

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self, size: int) -> bytes:
        """Raise TransferError."""
        raise TransferError(
            self._url, 'no part of it can be had', retryable=True
        )

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
