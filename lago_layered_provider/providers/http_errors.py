"""Turn what goes wrong with HTTP into `TransferError`, for people."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import sys
from typing import Iterator, List, NoReturn, Optional, Sequence, Tuple

import requests
from urllib3 import exceptions as urllib3_errors

from ..core.errors import TransferError
from .http_headers import parse_retry_after, parse_size

#: An answer that is an error is read to its end when it is this short.
SHORT_ANSWER_BYTES = 128 << 10

#: Statuses beside 5xx that can heal: Request Timeout, Too Early, Too Many
#: Requests.
_PASSING = (408, 425, 429)

NETWORK_ERRORS = (
    OSError,  # requests.RequestException is one
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    # An address or a header without sense: the parsers of Python and
    # urllib3 let it through. A host name that IDNA cannot encode, too.
    ValueError,
)

_BAD_REQUESTS = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    ssl.SSLCertVerificationError,
    UnicodeError,
)

#: A connection that broke: kinds of `SSLError` that can heal.
_TLS_BREAKS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

#: What an address says where there is no server.
_NOBODY = (ConnectionRefusedError, socket.gaierror)


def _explain(
    causes: Sequence[BaseException], timeout: float
) -> Tuple[str, bool]:
    """Return a reason for people, and whether trying again can help."""
    error = causes[-1]
    proxy = any(isinstance(c, requests.exceptions.ProxyError) for c in causes)
    where = 'proxy: ' if proxy else ''
    # The innermost cause is the plainest; urllib3 1.26 calls every failure
    # to connect a timeout.
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return (
                where + 'host name cannot be resolved',
                cause.errno == socket.EAI_AGAIN,
            )
        if isinstance(cause, ConnectionRefusedError):
            return where + 'connection refused', True
        if isinstance(cause, ConnectionResetError):
            return where + 'connection reset', True
        if isinstance(cause, http.client.IncompleteRead):
            return where + 'the connection ended', True
        if isinstance(cause, _BAD_REQUESTS):
            return where + str(cause), False
        if isinstance(cause, ssl.SSLError):
            return where + _explain_tls(cause), isinstance(cause, _TLS_BREAKS)
        if isinstance(cause, http.client.BadStatusLine):
            line = str(cause).strip()
            return f'{where}not an HTTP answer: {line!r:.80}', False
        if isinstance(cause, (
            socket.timeout, requests.Timeout, urllib3_errors.TimeoutError,
        )):
            return where + f'no answer within {timeout:g} s', True
    if type(error) is ValueError:
        return where + f'no valid address or answer: {error}', False
    # A plain OSError without a number is a local one, such as a missing CA
    # bundle; what http.client cannot read it cannot read again.
    final = type(error) is OSError and error.errno is None or any(
        isinstance(cause, http.client.HTTPException) for cause in causes
    )
    return where + (str(causes[0]) or repr(causes[0])), not final


def _find_causes(
    error: BaseException, outer: Optional[BaseException]
) -> List[BaseException]:
    """Return what led to an error and itself, the first one first."""
    causes = [error]
    while True:
        cause = causes[0].__cause__ or causes[0].__context__
        if cause is None or cause is outer or cause in causes:
            return causes
        causes.insert(0, cause)


def _explain_tls(error: ssl.SSLError) -> str:
    """Return the words of OpenSSL without its own marks."""
    said = (error.reason or str(error)).replace('_', ' ').lower()
    if error.reason in ('WRONG_VERSION_NUMBER', 'UNKNOWN_PROTOCOL',
                        'RECORD_LAYER_FAILURE'):
        return f'TLS: {said}; the server may only speak http'
    return f'TLS: {said}'


@contextlib.contextmanager
def network(url: str, timeout: float) -> Iterator[None]:
    """Turn what requests and its parts raise into `TransferError`."""
    outer = sys.exc_info()[1]
    try:
        yield
    except NETWORK_ERRORS as error:
        causes = _find_causes(error, outer)
        reason, retryable = _explain(causes, timeout)
        raise TransferError(
            url, reason, retryable=retryable,
            refused=any(isinstance(cause, _NOBODY) for cause in causes),
        ) from error


def can_pass(status: int) -> bool:
    """Tell whether a status may be another one soon."""
    return status in _PASSING or status >= 500 and status != 501


def refuse(url: str, response: requests.Response) -> NoReturn:
    """Raise what a status means that is not the one hoped for."""
    status = response.status_code
    phrase = http.client.responses.get(status, response.reason or '')
    with contextlib.suppress(*NETWORK_ERRORS):
        # Reading a short answer to its end keeps the connection for the
        # next request; many look-ups end with a 404.
        if (parse_size(response.headers) or 0) <= SHORT_ANSWER_BYTES:
            response.raw.read(SHORT_ANSWER_BYTES, decode_content=False)
    response.close()
    raise TransferError(
        url,
        f'HTTP {status} {phrase}'.rstrip(),
        # 410 Gone is as missing as 404 Not Found.
        status=404 if status == 410 else status,
        retryable=can_pass(status),
        retry_after=parse_retry_after(response.headers),
    )
