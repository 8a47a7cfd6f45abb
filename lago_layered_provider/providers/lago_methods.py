"""Lago's own three provider methods, on top of `ports.Provider`.

They are for programs that use a provider as a plain Lago does; our own
transfer does not need them.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, Optional, Protocol, Tuple

from ..core.errors import TransferError
from ..tools.tree import open_output
from ..transfer.ports import Provider, Stream

#: Sidecars are a line or a small JSON object; in bytes.
MAX_SIDECAR_BYTES = 1 << 20

READ_BYTES = 1 << 20

#: Suffix on the server and compression, in the order in which they are tried.
_SUFFIXES: Tuple[Tuple[str, Optional[str]], ...] = (
    ('.xz', 'xz'), ('', None), ('.zst', 'zst'), ('.gz', 'gz'),
)


class Source(Provider, Protocol):
    """A provider that tells where its sidecars are."""

    sidecar_suffixes: Tuple[str, ...]


class LagoMethods:
    """Gives Lago's methods to a class that is a `Provider`.

    All three raise `TransferError`, with `status` 404 when no file of the
    expected names is there.
    """

    #: What stands between the handle and `.metadata` or `.hash`.
    sidecar_suffixes: Tuple[str, ...] = ('',)

    def download_image(self: Source, handle: str, dest: str) -> None:
        """Write the uncompressed image to the file `dest`."""
        compressions = {
            handle + suffix: compression for suffix, compression in _SUFFIXES
        }
        for suffix, compression in _SUFFIXES:
            if suffix and handle.endswith(suffix):
                compressions = {handle: compression}
        path, stream = _open_first(self, compressions)
        try:
            _write_decoded(
                stream, self.locate(path), compressions[path], dest
            )
        finally:
            stream.close()

    def get_hash(self: Source, handle: str) -> str:
        """Return the sha1 of the uncompressed image, in hexadecimal."""
        location, body = _read_sidecar(self, handle, '.hash')
        words = body.decode('ascii', 'replace').split()
        if not words:
            raise TransferError(location, 'it is empty')
        # sha1sum writes the name of the file behind the digest.
        return words[0]

    def get_metadata(self: Source, handle: str) -> Dict[str, Any]:
        """Return what Lago wants to know of a template."""
        location, body = _read_sidecar(self, handle, '.metadata')
        try:
            found = json.loads(body)
        except ValueError as error:
            raise TransferError(location, f'not JSON: {error}') from error
        if not isinstance(found, dict):
            raise TransferError(location, 'not a JSON object')
        return found


def _open_first(
    source: Provider, paths: Iterable[str]
) -> Tuple[str, Stream]:
    """Open the first of `paths` that is there."""
    missing: Optional[TransferError] = None
    for path in paths:
        try:
            return path, source.open(path)
        except TransferError as error:
            if error.status != 404:
                raise
            missing = missing or error
    assert missing is not None
    raise missing


def _read_sidecar(
    source: Source, handle: str, name: str
) -> Tuple[str, bytes]:
    """Return where a sidecar was found, and its bytes."""
    # Lago does not put a second .xz behind a handle that ends in one.
    between = [
        suffix for suffix in source.sidecar_suffixes
        if not suffix or not handle.endswith(suffix)
    ]
    path, stream = _open_first(
        source, [handle + suffix + name for suffix in between]
    )
    body = b''
    try:
        while len(body) <= MAX_SIDECAR_BYTES:
            data = stream.read(READ_BYTES)
            if not data:
                return source.locate(path), body
            body += data
    finally:
        stream.close()
    raise TransferError(
        source.locate(path), f'too large: more than {MAX_SIDECAR_BYTES} bytes'
    )


def _write_decoded(
    stream: Stream, location: str, compression: Optional[str], dest: str
) -> None:
    """Write what a stream decompresses to; on an error nothing stays."""
    from ..transfer.decode import CorruptStream, decode_all

    chunks = iter(lambda: stream.read(READ_BYTES), b'')
    try:
        with open_output(dest) as file:
            for piece in decode_all(chunks, compression):
                file.write(piece)
    except BaseException as error:
        if os.path.exists(dest):
            os.unlink(dest)
        if isinstance(error, CorruptStream):
            raise TransferError(location, str(error)) from error
        raise
