"""What the headers of an HTTP answer mean; sections are those of RFC 9110."""

from __future__ import annotations

import datetime
import email.utils
import re
from typing import Mapping, Optional, Tuple


def _parse_date(text: Optional[str]) -> Optional[datetime.datetime]:
    try:
        date = email.utils.parsedate_to_datetime(text or '')
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=datetime.timezone.utc)


def parse_retry_after(headers: Mapping[str, str]) -> Optional[float]:
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


def parse_size(headers: Mapping[str, str]) -> Optional[int]:
    text = headers.get('Content-Length', '')
    return int(text) if re.fullmatch('[0-9]{1,18}', text) else None


def parse_range(
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


def find_validator(headers: Mapping[str, str]) -> Optional[str]:
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


def find_coding(path: str, headers: Mapping[str, str]) -> str:
    """Return the coding that a server has put on a file, '' for none (8.4).

    One that the name of the file tells belongs to the file as it is stored:
    apache labels .gz files so.
    """
    coding = headers.get('Content-Encoding', '').strip().lower()
    stored = {'gz': 'gzip', 'zst': 'zstd'}.get(path.rpartition('.')[2], 'xz')
    if coding in ('', 'identity', stored, f'x-{stored}'):
        return ''
    return coding


def may_be_same(validator: Optional[str], headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is of the state that `validator` names.

    Some servers (busybox httpd) do not look at If-Range.
    """
    if validator is None:
        return True
    name = 'ETag' if validator.startswith('"') else 'Last-Modified'
    return headers.get(name, validator) == validator
