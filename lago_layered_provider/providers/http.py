"""Images and documents from web servers: the source type `http`.

With its parts `http_headers`, `http_errors` and `http_stream` the only place
that speaks HTTP (RFC 9110). Proxies, CA bundles and netrc are what requests
takes from the environment. Nothing is retried here; errors say whether it
could help.
"""

from __future__ import annotations

import posixpath
import re
import threading
from typing import Dict, Optional, Tuple
from urllib.parse import quote, urlsplit

import requests

from .. import __version__
from ..core.errors import TransferError
from ..core.places import hide_secrets
from ..tools.deadline import Deadline
from ..transfer.ports import FileInfo
from . import Document
from .http_deadline import (
    SLOWEST_BYTES_A_SECOND, in_time, make_session,
)
from .http_errors import network, refuse
from .http_headers import (
    find_coding,
    find_validator,
    may_be_same,
    parse_range,
    parse_size,
)
from .http_stream import READ_BYTES, HttpStream
from .lago_methods import LagoMethods

#: `Accept-Encoding`: nginx and others drop Range when they compress on the
#: way. Images are never decoded here.
_HEADERS = {
    'Accept-Encoding': 'identity',
    'User-Agent': f'lago-layered-provider/{__version__}',
}

#: Asks caches on the way to ask the server (RFC 9111, 5.2.1.4).
NO_CACHE = {'Cache-Control': 'no-cache', 'Pragma': 'no-cache'}


class HttpProvider(LagoMethods):
    """A directory of images on a web server.

    A handle is a path in URL form, as in Lago: what is quoted in it (`%20`)
    stays as it is, what must not stand in a URL is quoted, `?` and `#` too.

    Args:
        baseurl: what handles are relative to.
        timeout: to connect, and between any two bytes; in seconds. It may
            be set later too.
    """

    remote = True
    sidecar_suffixes: Tuple[str, ...] = ('.xz', '')

    def __init__(self, baseurl: str, *, timeout: float = 30) -> None:
        if (
            not isinstance(baseurl, str)
            or not re.match('https?:', baseurl, re.IGNORECASE)
            or not urlsplit(baseurl).netloc
        ):
            raise ValueError(f'baseurl {baseurl!r} is no http or https URL')
        if not timeout > 0:
            raise ValueError(f'timeout {timeout!r} is not above 0')
        self.baseurl = baseurl
        self.timeout = timeout
        self._asked: Dict[str, str] = {}
        # Sessions are not made for several threads: their cookies are not.
        self._local = threading.local()

    def avoid_caches(self) -> None:
        """Let the server itself answer from now on."""
        self._asked = NO_CACHE

    def locate(self, path: str) -> str:
        """Return the URL of `path` as it may be shown."""
        return hide_secrets(self._url(path))

    def stat(self, path: str) -> FileInfo:
        """Ask with HEAD, or GET where HEAD is not allowed."""
        response = self._request('HEAD', path)
        if response.status_code in (405, 501):
            response.close()
            response = self._request('GET', path)
        if response.status_code != 200:
            refuse(self.locate(path), response)
        response.close()
        self._check_coding(path, response)
        return FileInfo(
            parse_size(response.headers), find_validator(response.headers)
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
            refuse(self.locate(path), response)
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
            refuse(self.locate(path), response)
        first, stop, total = parse_range(response.headers)
        if may_be_same(validator, response.headers):
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
            total = parse_size(response.headers)
        self._check_coding(path, response)
        ends = [size for size in (end, total) if size is not None]
        return HttpStream(
            self.locate(path), response, self.timeout, start=start,
            stop=min(ends) if ends else stop, total=total,
        )

    def _check_coding(self, path: str, response: requests.Response) -> None:
        coding = find_coding(path, response.headers)
        if coding:
            response.close()
            raise TransferError(
                self.locate(path), f'the server compresses it on the way '
                f'(Content-Encoding: {coding}), although it was asked not to',
                status=response.status_code,
                hint='Its admin has to switch that off for images.',
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
            self._local.session = make_session()
            self._local.session.headers.update(_HEADERS)
        session: requests.Session = self._local.session
        shown = self.locate(path)
        response: Optional[requests.Response] = None
        try:
            with in_time(shown, self.timeout), network(shown, self.timeout):
                response = session.request(
                    method, self._url(path),
                    headers={**self._asked, **(headers or {})},
                    # Only an answer that was read frees its connection.
                    stream=method != 'HEAD',
                    timeout=self.timeout, allow_redirects=True,
                )
            return response
        except TransferError:
            # It came too late, or what there is of it was cut.
            if response is not None:
                response.close()
            raise


def fetch_document(
    url: str,
    *,
    validator: Optional[str] = None,
    limit: int,
    timeout: float = 30,
    fresh: bool = False,
) -> Document:
    """Fetch a document as `providers.read_document` says.

    Unlike images, documents are decoded when the server compresses them.
    """
    headers = dict(_HEADERS)
    shown = hide_secrets(url)
    if fresh:
        headers.update(NO_CACHE)
    if validator is not None:
        tag = validator.startswith(('"', 'W/'))
        headers['If-None-Match' if tag else 'If-Modified-Since'] = validator
    with make_session() as session, in_time(shown, timeout) as deadline:
        with network(shown, timeout), session.get(
            url, headers=headers, stream=True, timeout=timeout
        ) as response:
            if response.status_code == 304 and validator is not None:
                return Document(None, validator)
            if response.status_code != 200:
                refuse(shown, response)
            body = _read_body(shown, response, limit, deadline)
    found = response.headers
    return Document(body, found.get('ETag') or found.get('Last-Modified'))


def _read_body(
    url: str, response: requests.Response, limit: int, deadline: Deadline
) -> bytes:
    """Read an answer whole, never more of it than `limit` bytes."""
    announced = parse_size(response.headers)
    chunks, size = [], announced or 0
    if size <= limit:
        size = 0
        for data in response.iter_content(READ_BYTES):
            chunks.append(data)
            size += len(data)
            deadline.extend(len(data) / SLOWEST_BYTES_A_SECOND)
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
