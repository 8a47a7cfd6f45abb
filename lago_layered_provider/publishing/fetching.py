"""Fetch a ready image, from a path or a URL, compressed or not."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import IO, Iterator, Optional

from ..core import errors
from ..core.magics import MAGICS
from ..providers import make_provider
from ..tools import qemu_img, tree
from ..transfer.decode import CorruptStream, decode_all
from .local_images import examine

READ_BYTES = 2**20


def fetch_ready(location: str, target: str, timeout: float) -> None:
    """Write a ready image as a qcow2 without a base.

    Args:
        location: a URL or an absolute path.
        timeout: of a server, in seconds.

    Raises:
        TransferError: it cannot be had.
        PublishError: it is no image, or must not be used.
        ToolError: qemu-img failed.
    """
    fetched = f'{target}.fetched'
    with tree.open_output(fetched) as stream:
        for data in _decoded(location, timeout):
            _write(stream, data)
        stream.truncate()
    try:
        image = examine(fetched)
        if len(image.chain) > 1:
            raise errors.PublishError(fetched, [
                f'it stands on {image.chain[1].path}'
            ])
    except errors.PublishError as error:
        raise errors.PublishError(location, error.faults) from None
    if image.format == 'qcow2':
        os.rename(fetched, target)
    else:
        qemu_img.convert(fetched, image.format, target)
        os.unlink(fetched)


def _write(stream: IO[bytes], data: bytes) -> None:
    """Write data; a hole will do for zeros."""
    if data.count(0) == len(data):
        stream.seek(len(data), os.SEEK_CUR)
    else:
        stream.write(data)


def _decoded(location: str, timeout: float) -> Iterator[bytes]:
    """Yield the bytes of the image; its first ones tell what it is."""
    web = re.match(r'(https?://[^?#]*/)([^?#]*)(\?[^#]*)?', location)
    if web:
        directory, name, query = web[1], web[2], web[3] or ''
        provider = make_provider(
            'http', {'baseurl': directory + query}, timeout=timeout,
            roots=None,
        )
    else:
        directory, _, name = location.rpartition('/')
        provider = make_provider(
            'file', {'root': directory or '/'}, roots=None
        )
    with contextlib.closing(provider.open(name)) as stream:
        first = stream.read(READ_BYTES)
        rest = iter(lambda: stream.read(READ_BYTES), b'')
        try:
            yield from decode_all(
                itertools.chain([first], rest), _find_compression(first)
            )
        except CorruptStream as error:
            raise errors.TransferError(location, str(error)) from error


def _find_compression(data: bytes) -> Optional[str]:
    return next(
        (name for name, marks in MAGICS.items() if data.startswith(marks)),
        None,
    )
