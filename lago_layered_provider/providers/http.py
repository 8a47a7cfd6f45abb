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
from typing import Any, Dict, Optional, Tuple
from urllib.parse import quote, urlsplit

import requests
from requests.utils import get_auth_from_url

from .. import __version__
from ..core.errors import TransferError
from ..index.source_places import hide_secrets
from ..tools.deadline import Deadline
from ..transfer.ports import FileInfo, Stream
from . import Document
from .http_deadline import SLOWEST_BYTES_A_SECOND, in_time, make_session
from .http_errors import can_pass, network, refuse
from .http_headers import (
    find_coding, find_validator, may_be_same, parse_range, parse_size,
)
from .http_stream import HttpStream, NoPart, READ_BYTES
from .lago_methods import LagoMethods

#: `Accept-Encoding`: nginx and others drop Range when they compress on the
#: way. Images are never decoded here.
_HEADERS = {
    'Accept-Encoding': 'identity',
    'User-Agent': f'lago-layered-provider/{__version__}',
}

#: Asks caches on the way to ask the server (RFC 9111, 5.2.1.4).
NO_CACHE = {'Cache-Control': 'no-cache', 'Pragma': 'no-cache'}

#: Answers that mean the file, whatever part of it was asked for.
_OF_THE_FILE = (401, 403, 404, 407, 410, 451)

#: Answers of a place that a redirect led to and that is good no more.
_EXPIRED = (401, 403, 404, 410)

#: Answers that say something of the file's bytes.
_USABLE = (200, 206, 416)


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
        # Whether it has answered a range, None before the first one.
        self._gives_ranges: Optional[bool] = None
        # Where redirects have led, by the path of the file.
        self._places: Dict[str, str] = {}

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
    ) -> Stream:
        """Open a file as `ports.Provider.open` says."""
        if start or end is not None:
            stream = self._open_range(path, start, end, validator)
            if stream is not None:
                return stream
            if start and end is not None:
                return NoPart(self.locate(path))
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
        if self._gives_ranges is False:
            return None
        last = '' if end is None else end - 1
        headers = {'Range': f'bytes={start}-{last}'}
        if validator is not None:
            headers['If-Range'] = validator
        response = self._request('GET', path, headers)
        status = response.status_code
        if status == 200:
            return self._stream(path, response, 0, None, end)
        if status in _OF_THE_FILE or can_pass(status):
            refuse(self.locate(path), response)
        first, stop, total = parse_range(response.headers)
        same = may_be_same(validator, response.headers)
        if status == 206 and first is not None:
            self._gives_ranges = True
            if first == start and same:
                return self._stream(path, response, start, stop, end, total)
        if status == 416 and total == start and same:
            response.close()
            return self._stream(path, response, start, start, start, total)
        # The file changed, or the range is not the one asked for: what is
        # here already must not be mixed with it.
        response.close()
        if status != 416 and self._gives_ranges is None:
            # Such as 400, or several parts: that will not be better.
            self._gives_ranges = False
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
        """Return the address of a file; a query of the source stays last."""
        quoted = quote(path, safe="/%!$&'()*+,:;=@~")
        quoted = re.sub('%(?![0-9A-Fa-f]{2})', '%25', quoted)
        parts = urlsplit(self.baseurl)
        return parts._replace(
            path=posixpath.join(parts.path or '/', quoted), fragment=''
        ).geturl()

    def _request(
        self,
        method: str,
        path: str,
        headers: Optional[Dict[str, str]] = None,
    ) -> requests.Response:
        """Ask for a file, where the last redirect has led as long as it can.

        Addresses that a redirect gives are often good for a while only.
        """
        url = self._url(path)
        place = self._places.get(path) if method == 'GET' else None
        if place is not None:
            try:
                response = self._send(method, path, place, headers)
            except TransferError:
                self._places.pop(path, None)
                raise
            if response.status_code in _USABLE:
                return response
            self._places.pop(path, None)
            if response.status_code not in _EXPIRED:
                return response
            response.close()
        response = self._send(method, path, url, headers)
        redirected = method == 'GET' and bool(response.history)
        if redirected and response.status_code in _USABLE:
            self._places[path] = response.url
        return response

    def _send(
        self,
        method: str,
        path: str,
        url: str,
        headers: Optional[Dict[str, str]],
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
                    method, url, headers={**self._asked, **(headers or {})},
                    auth=_find_auth(session, self._url(path), url),
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


def _find_auth(
    session: Any, own: str, url: str
) -> Optional[Tuple[str, str]]:
    """Return the credentials for a place that a redirect has led to.

    As in a redirect: those in the address of one server are not for others.

    Args:
        own: the address that may have some; for itself, requests takes them.
    """
    if url == own or session.should_strip_auth(own, url):
        return None
    user, password = get_auth_from_url(own)
    return (user, password) if user or password else None


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
