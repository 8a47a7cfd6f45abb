"""Indexes kept from the last time, for a 304 or when a server is away.

They spare requests and work and nothing else: one that cannot be kept harms
nobody, and one that cannot be read is absent. Signed ones lie beside the
others: who demands no signature does not take away what others have checked.

A file is a line of JSON, and the parts that it names with their lengths and a
check sum, one after the other.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Iterable, List, Optional

from ..index import source_places
from ..tools.files import FILE_MODE
from . import layout

#: The first line is short: a URL, a validator, a signature.
_MAX_HEAD_BYTES = 2**20

#: For its owner alone.
PRIVATE_MODE = 0o600

#: What `places.hide_secrets` hides; in JSON a slash may have a backslash.
_SECRET = re.compile(
    rb'(?i:https?):(?:\\?/){2}(?:[^/?#\s"\\]*@|[^\s"?#]*\?)'
)


@dataclass(frozen=True)
class KeptIndex:
    """An index as it was received.

    `validator` names that state of it to its server; `fetched` is in seconds
    since 1970; `table` is what was kept with it; `path` is where it is kept.
    """

    url: str
    body: bytes
    validator: Optional[str]
    fetched: float
    signature: Optional[bytes] = None
    table: Optional[bytes] = None
    path: str = ''


def keep_index(
    paths: layout.Layout,
    url: str,
    body: bytes,
    validator: Optional[str],
    signature: Optional[bytes] = None,
    table: Optional[bytes] = None,
) -> None:
    """Keep an index in place of an older one, where the store allows it.

    Args:
        table: what spares reading all of the body again.
    """
    parts = [body, table or b'', signature or b'']
    head = json.dumps({
        'url': source_places.hide_secrets(source_places.identity_of(url)),
        'validator': validator,
        'fetched': time.time(),
        'lengths': [len(part) for part in parts],
        'crc32': _checksum(parts),
    })
    try:
        paths.tree.make_directory(paths.indexes)
        paths.tree.write(
            _path(paths, url, signature is not None),
            b''.join((head.encode(), b'\n', *parts)),
            mode=PRIVATE_MODE if _is_private(url, body) else FILE_MODE,
        )
    except OSError:
        pass


def _is_private(url: str, body: bytes) -> bool:
    """Tell whether an index is not for all that can read the store.

    It came for a password, or holds addresses with one.
    """
    return (
        source_places.hide_secrets(url) != url
        or _SECRET.search(body) is not None
    )


def kept_index(
    paths: layout.Layout, url: str, *, signed: bool = False
) -> Optional[KeptIndex]:
    """Return the kept index of a URL, None when there is none to use.

    Args:
        signed: the one that was kept with its signature.
    """
    path = _path(paths, url, signed)
    try:
        with paths.tree.open_binary(path) as stream:
            head = json.loads(stream.readline(_MAX_HEAD_BYTES))
            body, table, signature = _read_parts(
                stream, head['lengths'], head['crc32']
            )
        validator = head['validator']
        if (
            head['url'] != source_places.hide_secrets(
                source_places.identity_of(url)
            )
            or not isinstance(validator, (str, type(None)))
            or signed != bool(signature)
        ):
            return None
        return KeptIndex(
            url=url,
            body=body,
            validator=validator,
            fetched=float(head['fetched']),
            signature=signature or None,
            table=table or None,
            path=path,
        )
    except (OSError, KeyError, ValueError, TypeError, RecursionError):
        return None


def _read_parts(
    stream: BinaryIO, lengths: List[int], checksum: int
) -> List[bytes]:
    """Read what follows the first line.

    Raises:
        ValueError: it is not what was written.
    """
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if min(lengths) < 0 or sum(lengths) != left:
        raise ValueError('another length')
    parts = [stream.read(length) for length in lengths]
    if _checksum(parts) != checksum:
        raise ValueError('another check sum')
    return parts


def _checksum(parts: Iterable[bytes]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def _path(paths: layout.Layout, url: str, signed: bool) -> str:
    name = source_places.identity_of(url)
    return paths.index(f'{name} signed' if signed else name)
