"""Images and documents from web servers: the source type `http`.

The only module that speaks HTTP; bare numbers in parentheses are sections of
RFC 9110. Proxies, CA bundles and netrc are what requests takes from the
environment. Nothing is tried twice here; errors say whether it could help.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import posixpath
import re
import socket
import ssl
import threading
from typing import Dict, Iterator, Mapping, NoReturn, Optional, Tuple
from urllib.parse import quote, urlsplit

import requests
from urllib3 import exceptions as urllib3_errors

from .. import __version__
from ..core.errors import TransferError
from ..transfer.ports import FileInfo
from . import Document
from .lago_methods import LagoMethods

#: One `read` returns at most this: a broken connection loses what was not
#: returned yet, and progress should be seen on slow lines too.
READ_BYTES = 128 << 10

#: `Accept-Encoding`: nginx and others drop Range when they compress on the
#: way. A `Content-Encoding` that comes nevertheless belongs to the file as it
#: is stored (apache labels .gz files so): images are never decoded here.
_HEADERS = {
    'Accept-Encoding': 'identity',
    'User-Agent': f'lago-layered-provider/{__version__}',
}

#: Statuses beside 5xx that can heal: Request Timeout, Too Early, Too Many
#: Requests.
_PASSING = (408, 425, 429)

_NETWORK_ERRORS = (
    OSError,  # requests.RequestException is one
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    UnicodeError,  # a host name that IDNA cannot encode
)

_BAD_REQUESTS = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    ssl.SSLCertVerificationError,
    UnicodeError,
)


def _hide_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()


def _explain(error: BaseException, timeout: float) -> Tuple[str, bool]:
    """Return a reason for people, and whether trying again can help."""
    causes = [error]
    while True:
        cause = causes[0].__cause__ or causes[0].__context__
        if cause is None or cause in causes:
            break
        causes.insert(0, cause)
    proxy = any(isinstance(c, requests.exceptions.ProxyError) for c in causes)
    where = 'proxy: ' if proxy else ''
    # The innermost cause is the plainest; urllib3 1.26 calls every failure
    # to connect a timeout.
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return where + 'name not known', cause.errno == socket.EAI_AGAIN
        if isinstance(cause, ConnectionRefusedError):
            return where + 'connection refused', True
        if isinstance(cause, ConnectionResetError):
            return where + 'connection reset', True
        if isinstance(cause, _BAD_REQUESTS):
            return where + str(cause), False
        if isinstance(cause, (
            socket.timeout, requests.Timeout, urllib3_errors.TimeoutError,
        )):
            return where + f'no answer within {timeout:g} s', True
    # A plain OSError without a number is a local one, such as a missing CA
    # bundle.
    local = type(error) is OSError and error.errno is None
    return where + (str(causes[0]) or repr(causes[0])), not local


@contextlib.contextmanager
def _network(url: str, timeout: float) -> Iterator[None]:
    """Turn what requests and its parts raise into `TransferError`."""
    try:
        yield
    except _NETWORK_ERRORS as error:
        reason, retryable = _explain(error, timeout)
        raise TransferError(url, reason, retryable=retryable) from error


def _parse_date(text: Optional[str]) -> Optional[datetime.datetime]:
    try:
        date = email.utils.parsedate_to_datetime(text or '')
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)


def _parse_retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Return the pause that a server wishes, in seconds (10.2.3)."""
    text = headers.get('Retry-After', '').strip()
    if re.fullmatch('[0-9]{1,9}', text):
        return float(text)
    until = _parse_date(text)
    if until is None:
        return None
    # By the server's own clock, if it tells.
    now = _parse_date(headers.get('Date'))
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _refuse(url: str, response: requests.Response) -> NoReturn:
    """Raise what a status means that is not the one hoped for."""
    status = response.status_code
    phrase = http.client.responses.get(status, response.reason or '')
    with contextlib.suppress(*_NETWORK_ERRORS):
        # Reading a short answer to its end keeps the connection for the
        # next request; many look-ups end with a 404.
        if int(response.headers.get('Content-Length') or 0) <= READ_BYTES:
            response.raw.read(READ_BYTES, decode_content=False)
    response.close()
    raise TransferError(
        url,
        f'HTTP {status} {phrase}'.rstrip(),
        # 410 Gone is as missing as 404 Not Found.
        status=404 if status == 410 else status,
        retryable=status in _PASSING or status >= 500 and status != 501,
        retry_after=_parse_retry_after(response.headers),
    )


def _parse_size(headers: Mapping[str, str]) -> Optional[int]:
    text = headers.get('Content-Length', '')
    return int(text) if re.fullmatch('[0-9]{1,18}', text) else None


def _parse_range(
    headers: Mapping[str, str]
) -> Tuple[Optional[int], Optional[int], Optional[int]]:
    """Return first byte, end and total of a Content-Range (14.4)."""
    found = re.fullmatch(
        r'bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(?:(\d{1,18})|\*)',
        headers.get('Content-Range', '').strip(),
    )
    if not found:
        return None, None, None
    first, last, total = (int(x) if x else None for x in found.groups())
    return first, None if last is None else last + 1, total


def _find_validator(headers: Mapping[str, str]) -> Optional[str]:
    """Return what may stand in If-Range (13.1.5).

    That is a strong entity tag or, without any tag, a date so much older
    than the answer that the file cannot have changed since within the same
    second (8.8.2.2).
    """
    tag = headers.get('ETag')
    if tag:
        return tag if tag.startswith('"') else None
    changed = _parse_date(headers.get('Last-Modified'))
    now = _parse_date(headers.get('Date'))
    if changed and now and now - changed >= datetime.timedelta(seconds=1):
        return headers['Last-Modified']
    return None


def _may_be_same(validator: Optional[str], headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is of the state that `validator` names.

    Some servers (busybox httpd) do not look at If-Range.
    """
    if validator is None:
        return True
    name = 'ETag' if validator.startswith('"') else 'Last-Modified'
    return headers.get(name, validator) == validator


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


class HttpProvider(LagoMethods):
    """A directory of images on a web server.

    A handle is a path in URL form, as in Lago: what is quoted in it (`%20`)
    stays as it is, what must not stand in a URL is quoted, `?` and `#` too.

    Args:
        baseurl: what handles are relative to.
        timeout: to connect, and between any two bytes; in seconds. It may
            be set later too.
    """

    sidecar_suffixes: Tuple[str, ...] = ('.xz', '')

    def __init__(self, baseurl: str, *, timeout: float = 30) -> None:
        if not isinstance(baseurl, str) or not urlsplit(baseurl).netloc:
            raise ValueError(f'baseurl {baseurl!r} is not a URL')
        if not timeout > 0:
            raise ValueError(f'timeout {timeout!r} is not above 0')
        self.baseurl = baseurl
        self.timeout = timeout
        # Sessions are not made for several threads: their cookies are not.
        self._local = threading.local()

    def locate(self, path: str) -> str:
        """Return the URL of `path`, without a password."""
        return _hide_password(self._url(path))

    def stat(self, path: str) -> FileInfo:
        """Ask with HEAD, or GET where HEAD is not allowed."""
        response = self._request('HEAD', path)
        if response.status_code in (405, 501):
            response.close()
            response = self._request('GET', path)
        if response.status_code != 200:
            _refuse(self.locate(path), response)
        response.close()
        return FileInfo(
            _parse_size(response.headers), _find_validator(response.headers)
        )

    def open(
        self,
        path: str,
        *,
        start: int = 0,
        end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> HttpStream:
        """Open a file as `ports.Provider.open` says."""
        if start or end is not None:
            stream = self._open_range(path, start, end, validator)
            if stream is not None:
                return stream
        response = self._request('GET', path)
        if response.status_code != 200:
            _refuse(self.locate(path), response)
        return self._stream(path, response, 0, None, end)

    def _open_range(
        self,
        path: str,
        start: int,
        end: Optional[int],
        validator: Optional[str],
    ) -> Optional[HttpStream]:
        """Ask for a range (14.2); None: only the whole file will do."""
        last = '' if end is None else end - 1
        headers = {'Range': f'bytes={start}-{last}'}
        if validator is not None:
            headers['If-Range'] = validator
        response = self._request('GET', path, headers)
        if response.status_code == 200:
            return self._stream(path, response, 0, None, end)
        if response.status_code not in (206, 416):
            _refuse(self.locate(path), response)
        first, stop, total = _parse_range(response.headers)
        if _may_be_same(validator, response.headers):
            if response.status_code == 206 and first == start:
                return self._stream(path, response, start, stop, end, total)
            if response.status_code == 416 and total == start:
                response.close()
                return self._stream(
                    path, response, start, start, start, total
                )
        # The file changed, or the range is not the one asked for: what is
        # here already must not be mixed with it.
        response.close()
        return None

    def _stream(
        self,
        path: str,
        response: requests.Response,
        start: int,
        stop: Optional[int],
        end: Optional[int],
        total: Optional[int] = None,
    ) -> HttpStream:
        if response.status_code == 200:
            total = _parse_size(response.headers)
        ends = [size for size in (end, total) if size is not None]
        return HttpStream(
            self.locate(path), response, self.timeout, start=start,
            stop=min(ends) if ends else stop, total=total,
        )

    def _url(self, path: str) -> str:
        quoted = quote(path, safe="/%!$&'()*+,:;=@~")
        quoted = re.sub('%(?![0-9A-Fa-f]{2})', '%25', quoted)
        return posixpath.join(self.baseurl, quoted)

    def _request(
        self,
        method: str,
        path: str,
        headers: Optional[Dict[str, str]] = None,
    ) -> requests.Response:
        if not hasattr(self._local, 'session'):
            self._local.session = requests.Session()
            self._local.session.headers.update(_HEADERS)
        session: requests.Session = self._local.session
        with _network(self.locate(path), self.timeout):
            return session.request(
                method, self._url(path), headers=headers,
                # Only an answer that was read frees its connection.
                stream=method != 'HEAD',
                timeout=self.timeout, allow_redirects=True,
            )


class HttpStream:
    """The bytes of an answer; see `ports.Stream`.

    Args:
        stop: offset in the file at which the stream must end, if known.
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
        self.validator = _find_validator(response.headers)
        self._lock = threading.Lock()
        self._aborted = False
        self._socket = _find_socket(response)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, b'' at the end."""
        size = min(size, READ_BYTES)
        if self._stop is not None:
            size = min(size, self._stop - self._position)
        data = b''
        try:
            if size and not self._aborted:
                with _network(self._url, self._timeout):
                    data = self._response.raw.read(size, decode_content=False)
        except TransferError as error:
            self._fail(error.reason, error)
        except (AttributeError, ValueError) as error:
            # From a file object that was closed meanwhile.
            self._fail('the connection was closed', error)
        if self._aborted or size and not data and self._stop is not None:
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

    def close(self) -> None:
        """Release the connection, for other requests if all was read."""
        self._forget_socket()
        self._response.close()


def fetch_document(
    url: str,
    *,
    validator: Optional[str] = None,
    limit: int,
    timeout: float = 30,
) -> Document:
    """Fetch a document as `providers.read_document` says.

    Unlike images, documents are decoded when the server compresses them.
    """
    headers = dict(_HEADERS)
    shown = _hide_password(url)
    if validator is not None:
        tag = validator.startswith(('"', 'W/'))
        headers['If-None-Match' if tag else 'If-Modified-Since'] = validator
    with requests.Session() as session, _network(shown, timeout):
        response = session.get(
            url, headers=headers, stream=True, timeout=timeout
        )
        with response:
            if response.status_code == 304 and validator is not None:
                return Document(None, validator)
            if response.status_code != 200:
                _refuse(shown, response)
            body = _read_body(shown, response, limit)
    found = response.headers
    return Document(body, found.get('ETag') or found.get('Last-Modified'))


def _read_body(url: str, response: requests.Response, limit: int) -> bytes:
    """Read an answer whole, never more of it than `limit` bytes."""
    announced = _parse_size(response.headers)
    chunks, size = [], announced or 0
    if size <= limit:
        size = 0
        for data in response.iter_content(READ_BYTES):
            chunks.append(data)
            size += len(data)
            if size > limit:
                break
    if size > limit:
        raise TransferError(url, f'too large: more than {limit} bytes')
    encoded = 'Content-Encoding' in response.headers
    # urllib3 1.26 takes a cut answer for a whole one.
    if announced is not None and size < announced and not encoded:
        raise TransferError(
            url, f'the connection ended after {size} of {announced} bytes',
            retryable=True,
        )
    return b''.join(chunks)
