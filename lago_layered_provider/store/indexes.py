"""Indexes kept from the last time, for a 304 or when a server is away.

They spare requests and nothing else: one that cannot be kept harms nobody,
and one that cannot be read is absent. Signed ones lie beside the others: who
demands no signature does not take away what others have checked.
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
    since 1970; `path` is where it is kept.
    """

    url: str
    body: bytes
    validator: Optional[str]
    fetched: float
    signature: Optional[bytes] = None
    path: str = ''


def keep_index(
    paths: layout.Layout,
    url: str,
    body: bytes,
    validator: Optional[str],
    signature: Optional[bytes] = None,
) -> None:
    """Keep an index in place of an older one, where the store allows it."""
    value = {
        'url': _without_user(url),
        'validator': validator,
        'fetched': time.time(),
        'body': base64.b64encode(body).decode(),
    }
    if signature is not None:
        value['signature'] = base64.b64encode(signature).decode()
    try:
        os.makedirs(paths.indexes, exist_ok=True)
        files.write_file(
            _path(paths, url, signature is not None),
            json.dumps(value).encode(), shared=True,
        )
    except OSError:
        pass


def kept_index(
    paths: layout.Layout, url: str, *, signed: bool = False
) -> Optional[KeptIndex]:
    """Return the kept index of a URL, None when there is none to use.

    Args:
        signed: the one that was kept with its signature.
    """
    path = _path(paths, url, signed)
    try:
        value = files.read_object(path)
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
            signature=(
                base64.b64decode(value['signature'], validate=True)
                if signed else None
            ),
            path=path,
        )
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _path(paths: layout.Layout, url: str, signed: bool) -> str:
    return paths.index(f'{url} signed' if signed else url)


def _without_user(url: str) -> str:
    """Return the URL without user and password: others read the store."""
    return re.sub('//[^/@]*@', '//', url, count=1)
