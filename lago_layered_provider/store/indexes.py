"""Indexes kept from the last time, for a 304 or when a server is away.

They spare requests and nothing else: one that cannot be kept harms nobody,
and one that cannot be read is absent.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from dataclasses import dataclass
from typing import Optional

from . import files, layout


@dataclass(frozen=True)
class KeptIndex:
    """An index as it was received.

    `validator` names that state of it to its server; `fetched` is in seconds
    since 1970.
    """

    url: str
    body: bytes
    validator: Optional[str]
    fetched: float


def keep_index(
    paths: layout.Layout, url: str, body: bytes, validator: Optional[str]
) -> None:
    """Keep an index in place of an older one, where the store allows it."""
    value = {
        'url': _without_user(url),
        'validator': validator,
        'fetched': time.time(),
        'body': base64.b64encode(body).decode(),
    }
    try:
        os.makedirs(paths.indexes, exist_ok=True)
        files.write_file(
            paths.index(url), json.dumps(value).encode(), shared=True
        )
    except OSError:
        pass


def kept_index(paths: layout.Layout, url: str) -> Optional[KeptIndex]:
    """Return the kept index of a URL, None when there is none to use."""
    try:
        value = files.read_object(paths.index(url))
        if value is None or value['url'] != _without_user(url):
            return None
        validator = value['validator']
        if validator is not None and not isinstance(validator, str):
            return None
        return KeptIndex(
            url=url,
            body=base64.b64decode(value['body'], validate=True),
            validator=validator,
            fetched=float(value['fetched']),
        )
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _without_user(url: str) -> str:
    """Return the URL without user and password: others read the store."""
    return re.sub('//[^/@]*@', '//', url, count=1)
