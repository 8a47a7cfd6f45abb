"""Decide whether a qcow2 image may be opened at all.

Every reason against it is found, not only the first. It sees the header
alone, and what the index says; what the tables of the image hold is left to
``qemu-img check``, which may open the file once nothing is found here.

What qemu refuses to open is refused here too (QEMU, block/qcow2.c,
`qcow2_do_open`), so that nothing depends on the version of qemu.
"""

from __future__ import annotations

import re
import struct
from typing import Collection, Iterator, List, Optional

from .qcow2 import (
    AUTOCLEAR_BITMAPS, EXTENSION_BITMAPS, INCOMPATIBLE_COMPRESSION,
    INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DATA_FILE, INCOMPATIBLE_DIRTY,
    INCOMPATIBLE_EXTENDED_L2, Qcow2Header,
)

#: Limits of qemu, in bytes unless it says otherwise.
MAX_OFFSET = 2 ** 63 - 1
MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_BITMAPS = 65535
MAX_BITMAP_DIRECTORY_BYTES = 1024 * MAX_BITMAPS
MAX_REFCOUNT_ORDER = 6
MIN_EXTENDED_L2_BITS = 14

L1_ENTRY_BYTES = 8
#: Of a snapshot's entry; name, id and extra data come on top.
SNAPSHOT_HEADER_BYTES = 40

BACKING_FORMATS = ('qcow2', 'raw')
COMPRESSION_TYPES = {0: 'zlib', 1: 'zstd'}

KNOWN_INCOMPATIBLE = (
    INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_DATA_FILE
    | INCOMPATIBLE_COMPRESSION | INCOMPATIBLE_EXTENDED_L2
)

_BITMAPS = struct.Struct('>IIQQ')


def find_dangers(
    header: Qcow2Header,
    *,
    expected_backing: Optional[Collection[str]],
    base_format: Optional[str] = None,
    file_size: Optional[int] = None,
    virtual_size: Optional[int] = None,
) -> List[str]:
    """Return every reason why qemu must not open the image; [] for none.

    Args:
        expected_backing: what the header may name, for an image as it was
            published `backing_names.Accepted`; None for a bottom image.
        base_format: of what it stands on, None when not known.
        file_size: bytes of the uncompressed file, None when not known.
        virtual_size: bytes that the index announced, None when it is silent.
    """
    dangers = [
        *_check_backing(header, expected_backing, base_format),
        *_check_features(header),
        *_check_tables(header, file_size),
        *_check_bitmaps(header, file_size),
    ]
    if header.dirty and expected_backing is not None:
        # The store rewrites the header of a layer: only of a closed image.
        dangers.append('the layer was not closed cleanly (dirty bit)')
    if header.virtual_size == 0:
        dangers.append('its disk has 0 bytes')
    if virtual_size is not None and header.virtual_size != virtual_size:
        dangers.append(
            f'virtual size {header.virtual_size} bytes, the index says '
            f'{virtual_size}'
        )
    return dangers


def find_oddities(
    header: Qcow2Header, *, base_virtual_size: Optional[int]
) -> List[str]:
    """Return what the user should be warned of, though it can be used."""
    if base_virtual_size is None or header.virtual_size >= base_virtual_size:
        return []
    return [
        f'virtual size {header.virtual_size} bytes is smaller than that of '
        f'its base, {base_virtual_size}: the end of the base is cut off'
    ]


def _check_backing(
    header: Qcow2Header, expected: Optional[Collection[str]],
    base_format: Optional[str],
) -> Iterator[str]:
    name = header.backing_file
    if expected is None:
        if name is not None:
            yield (
                f'backing file {name!r} ({_describe(name)}), expected none: '
                f'it is a bottom image'
            )
    elif name not in expected:
        wanted = ', '.join(sorted(
            repr(good) for good in expected if not good.startswith('./')
        ))
        found = 'no backing file' if name is None else (
            f'backing file {name!r} ({_describe(name)})'
        )
        yield f'{found}, expected its base, one of {wanted}'
    if header.backing_format not in (None, *BACKING_FORMATS):
        yield (
            f'backing format {header.backing_format!r}, expected '
            + ' or '.join(BACKING_FORMATS)
        )
    elif None not in (header.backing_format, base_format) and (
        header.backing_format != base_format
    ):
        # With another format a guest sees other bytes.
        yield (
            f'backing format {header.backing_format!r}, but its base is '
            f'{base_format}'
        )


def _describe(name: str) -> str:
    """Say what kind of a place a backing file name leads to."""
    if not name.isprintable():
        return 'not a printable name'
    if name.startswith('/'):
        return 'a path of the host'
    if re.match('[^/]*:', name):
        return 'a protocol of qemu'
    if '..' in name.split('/'):
        return 'outside the store'
    if '/' in name[2 if name.startswith('./') else 0:]:
        return 'in another directory'
    return 'another file'


def _check_features(header: Qcow2Header) -> Iterator[str]:
    if header.data_file:
        yield 'its data is in another file (external data file)'
    if header.encrypted:
        yield 'it is encrypted'
    if header.corrupt:
        yield 'it is marked as corrupt'
    unknown = header.incompatible & ~KNOWN_INCOMPATIBLE
    if unknown:
        yield f'unknown incompatible features 0x{unknown:x}'
    if header.refcount_order > MAX_REFCOUNT_ORDER:
        yield (
            f'reference counts of 2^{header.refcount_order} bits, expected '
            f'at most 2^{MAX_REFCOUNT_ORDER}'
        )
    announced = bool(header.incompatible & INCOMPATIBLE_COMPRESSION)
    if header.compression_type not in COMPRESSION_TYPES:
        yield f'unknown compression type {header.compression_type}'
    elif announced != bool(header.compression_type):
        yield (
            f'compression type '
            f'{COMPRESSION_TYPES[header.compression_type]} contradicts the '
            f'feature bit'
        )
    extended = header.incompatible & INCOMPATIBLE_EXTENDED_L2
    if extended and header.cluster_bits < MIN_EXTENDED_L2_BITS:
        yield (
            f'clusters of 2^{header.cluster_bits} bytes are too small for '
            f'extended L2 entries'
        )


def _check_tables(
    header: Qcow2Header, file_size: Optional[int]
) -> Iterator[str]:
    yield from _check_table(
        header, 'L1 table', header.l1_offset,
        header.l1_entries * L1_ENTRY_BYTES, MAX_L1_BYTES, file_size,
    )
    yield from _check_table(
        header, 'refcount table', header.refcount_offset,
        header.refcount_clusters * header.cluster_size, MAX_REFCOUNT_BYTES,
        file_size,
    )
    yield from _check_table(
        header, 'snapshot table', header.snapshots_offset,
        header.snapshots * SNAPSHOT_HEADER_BYTES,
        MAX_SNAPSHOTS * SNAPSHOT_HEADER_BYTES, file_size,
    )
    if header.refcount_clusters == 0:
        yield 'no refcount table'
    entry_bits = 4 if header.incompatible & INCOMPATIBLE_EXTENDED_L2 else 3
    # Bytes of the guest that one L1 entry stands for: a cluster of L2 entries.
    reach = 1 << (2 * header.cluster_bits - entry_bits)
    needed = -(-header.virtual_size // reach)
    if header.l1_entries < needed:
        yield (
            f'L1 table of {header.l1_entries} entries, the virtual size '
            f'needs {needed}'
        )


def _check_table(
    header: Qcow2Header,
    table: str,
    offset: int,
    size: int,
    limit: int,
    file_size: Optional[int],
) -> Iterator[str]:
    """Check that a table is where a table may be; sizes in bytes."""
    if size > limit:
        yield f'{table} of {size} bytes, expected at most {limit}'
    if offset % header.cluster_size:
        yield f'{table} at {offset} does not begin with a cluster'
    if size and offset < header.cluster_size:
        yield f'{table} at {offset} overlaps the header'
    end = offset + size
    if end > MAX_OFFSET or (size and file_size is not None
                            and end > file_size):
        yield f'{table} ends at {end}, outside the file'


def _check_bitmaps(
    header: Qcow2Header, file_size: Optional[int]
) -> Iterator[str]:
    data = header.extension(EXTENSION_BITMAPS)
    if data is None:
        return
    if len(data) != _BITMAPS.size:
        yield f'bitmaps extension of {len(data)} bytes'
        return
    if not header.autoclear & AUTOCLEAR_BITMAPS:
        # The specification has readers ignore such bitmaps.
        return
    count, reserved, size, offset = _BITMAPS.unpack(data)
    if not 1 <= count <= MAX_BITMAPS or reserved:
        yield f'bitmaps extension with {count} bitmaps'
    if size == 0:
        yield 'bitmap directory of 0 bytes'
    yield from _check_table(
        header, 'bitmap directory', offset, size,
        MAX_BITMAP_DIRECTORY_BYTES, file_size,
    )
