"""Give the header of a qcow2 image another backing file, without qemu.

The layout of a header stands in `qcow2`. No file is opened: the first cluster
comes in as bytes and goes out as bytes.
"""

from __future__ import annotations

import struct
from typing import Iterable, Tuple

from .qcow2 import (
    AUTOCLEAR_KNOWN, BadHeader, EXTENSION_BACKING_FORMAT, EXTENSION_END,
    EXTENSION_FEATURE_NAMES, Extension, MAX_FORMAT_BYTES, MAX_NAME_BYTES,
    Qcow2Header, parse_header,
)

END = Extension(EXTENSION_END, b'')

_BACKING_FIELDS = struct.Struct('>QI')
_BACKING_AT = 8
_AUTOCLEAR_AT = 88


def rebase_header(
    head: bytes, backing_file: str, backing_format: str
) -> bytes:
    """Return the first cluster with another backing file and format.

    This stands in for ``qemu-img rebase -u``: it is known to change nothing
    but the first cluster, so that the published digest can be proven later
    from the original cluster and the rest of the file. Like qemu it clears
    auto-clear features that it does not know, as the specification demands of
    a writer, and leaves the informational table of feature names out when the
    cluster is too small for all.

    Args:
        head: exactly the first cluster.

    Raises:
        BadHeader: it cannot be understood, or has no room for the names.
    """
    header = parse_header(head)
    if len(head) != header.cluster_size:
        raise BadHeader(
            f'the first cluster has {header.cluster_size} bytes, '
            f'not {len(head)}'
        )
    name = _encode(backing_file, MAX_NAME_BYTES)
    extensions = _replace_format(
        header.extensions, _encode(backing_format, MAX_FORMAT_BYTES)
    )
    without_names = (
        extension for extension in extensions
        if extension.kind != EXTENSION_FEATURE_NAMES
    )
    for kept in (extensions, without_names):
        area = b''.join(map(bytes, (*kept, END)))
        offset = header.header_length + len(area)
        if offset + len(name) <= header.cluster_size:
            fields = _write_fields(head, header, offset, len(name))
            return (fields + area + name).ljust(len(head), b'\0')
    raise BadHeader(
        f'a cluster of {header.cluster_size} bytes has no room for the '
        f'backing file {backing_file!r}'
    )


def _write_fields(
    head: bytes, header: Qcow2Header, offset: int, size: int
) -> bytes:
    """Return the fields of the header, with another backing file name."""
    fields = bytearray(head[:header.header_length])
    _BACKING_FIELDS.pack_into(fields, _BACKING_AT, offset, size)
    if header.version == 3:
        struct.pack_into(
            '>Q', fields, _AUTOCLEAR_AT, header.autoclear & AUTOCLEAR_KNOWN
        )
    return bytes(fields)


def _replace_format(
    extensions: Iterable[Extension], data: bytes
) -> Tuple[Extension, ...]:
    """Put the backing format where it stood, or first, as qemu does."""
    new = Extension(EXTENSION_BACKING_FORMAT, data)
    result = tuple(
        new if extension.kind == new.kind else extension
        for extension in extensions
    )
    return result if new in result else (new, *result)


def _encode(text: str, limit: int) -> bytes:
    """Return the bytes of a name; at most `limit` of them."""
    data = text.encode('utf-8', 'surrogateescape')
    if not 0 < len(data) <= limit or 0 in data:
        raise BadHeader(f'{text!r} is not a name of 1 to {limit} bytes')
    return data
