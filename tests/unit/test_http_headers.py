"""What the status and the headers of an HTTP answer mean."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

import pytest
import requests
from urllib3 import HTTPResponse

from lago_layered_provider.core.errors import TransferError
from lago_layered_provider.providers.http_errors import refuse
from lago_layered_provider.providers.http_headers import (
    find_coding, find_validator, may_be_same, parse_range, parse_retry_after,
)

NOON = 'Sat, 01 Jan 2000 12:00:00 GMT'
LATER = 'Sat, 01 Jan 2000 12:00:30 GMT'
NEVER = 'Fri, 31 Dec 9999 23:59:59 GMT'


@pytest.mark.parametrize('headers, seconds', [
    ({}, None), ({'Retry-After': ' 7 '}, 7), ({'Retry-After': '0'}, 0),
    ({'Retry-After': '-7'}, None), ({'Retry-After': '1e3'}, None),
    # Beside the server's own clock ours does not count.
    ({'Retry-After': LATER, 'Date': NOON}, 30),
    ({'Retry-After': NOON, 'Date': LATER}, 0),
    ({'Retry-After': NOON, 'Date': 'today'}, 0),
    ({'Retry-After': NOON}, 0),
])
def test_the_pause_that_a_server_wishes(
    headers: Dict[str, str], seconds: Optional[float]
) -> None:
    assert parse_retry_after(headers) == seconds


def test_without_a_clock_of_the_server_ours_counts() -> None:
    wish = parse_retry_after({'Retry-After': NEVER})
    assert wish is not None
    # It is after the year 2000, and before the year 9900.
    assert 100 * 365 * 86400 < wish < 8000 * 365 * 86400


@pytest.mark.parametrize('text, found', [
    ('bytes 0-4/10', (0, 5, 10)), ('bytes 0-4/*', (0, 5, None)),
    ('bytes */10', (None, None, 10)), ('bytes  7-7/8', (7, 8, 8)),
    ('', (None, None, None)), ('bytes 0-4', (None, None, None)),
    ('lines 0-4/10', (None, None, None)),
    ('bytes 0-4/10, 6-7/10', (None, None, None)),
])
def test_ranges(text: str, found: Tuple[Optional[int], ...]) -> None:
    assert parse_range({'Content-Range': text}) == found


@pytest.mark.parametrize('headers, found', [
    ({}, None), ({'ETag': '"a"'}, '"a"'),
    ({'ETag': 'W/"a"', 'Last-Modified': NOON, 'Date': LATER}, None),
    ({'Last-Modified': NOON, 'Date': LATER}, NOON),
    # It may have changed within the same second, or nobody knows when.
    ({'Last-Modified': NOON, 'Date': NOON}, None),
    ({'Last-Modified': LATER, 'Date': NOON}, None),
    ({'Last-Modified': NOON}, None),
])
def test_what_names_the_state_of_a_file(
    headers: Dict[str, str], found: Optional[str]
) -> None:
    assert find_validator(headers) == found


@pytest.mark.parametrize('validator, headers, same', [
    (None, {'ETag': '"b"'}, True), ('"a"', {'ETag': '"a"'}, True),
    ('"a"', {'ETag': '"b"'}, False), ('"a"', {}, True),
    ('"a"', {'Last-Modified': NOON}, True),
    (NOON, {'Last-Modified': NOON}, True),
    (NOON, {'Last-Modified': LATER}, False),
    (NOON, {'ETag': '"a"'}, True),
])
def test_an_answer_of_another_state(
    validator: Optional[str], headers: Dict[str, str], same: bool
) -> None:
    assert may_be_same(validator, headers) is same


@pytest.mark.parametrize('path, coding, found', [
    ('a.xz', '', ''), ('a.xz', 'identity', ''), ('a.gz', 'gzip', ''),
    ('a.gz', 'x-gzip', ''), ('a.zst', 'zstd', ''), ('a.xz', 'XZ', ''),
    ('a.xz', 'gzip', 'gzip'), ('a.qcow2', 'gzip', 'gzip'),
    ('a.gz', 'br', 'br'), ('a', 'Zstd', 'zstd'),
])
def test_a_coding_that_the_server_has_put_on(
    path: str, coding: str, found: str
) -> None:
    assert find_coding(path, {'Content-Encoding': coding}) == found


@pytest.mark.parametrize('status, told, retryable', [
    (404, 404, False), (403, 403, False), (501, 501, False),
    # Gone is as missing as not found.
    (410, 404, False),
    (500, 500, True), (503, 503, True), (429, 429, True), (408, 408, True),
])
def test_an_answer_that_is_an_error(
    status: int, told: int, retryable: bool
) -> None:
    response = requests.Response()
    response.status_code = status
    response.headers['Retry-After'] = '7'
    response.raw = HTTPResponse(body=b'sorry', status=status)
    with pytest.raises(TransferError, match=f'HTTP {status} ') as caught:
        refuse('http://a/', response)
    error = caught.value
    assert (error.status, error.retryable) == (told, retryable)
    assert error.retry_after == 7
