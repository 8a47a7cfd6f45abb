"""Tell the most important of a qcow2 header from few bytes.

`qcow2.parse_header` wants the whole first cluster, up to 2 MiB of which a few
hundred bytes are used. Here the rest is taken to be zeros: good enough to
plan with, never to decide whether an image is safe.
"""

from __future__ import annotations

import struct
from typing import Optional

from . import qcow2
from .qcow2 import EXTENSION_BITMAPS, INCOMPATIBLE_EXTENDED_L2, Qcow2Header

#: First bytes that tell how many more are of use.
FIRST_BYTES = 512

#: Extensions stand in the first few hundred bytes; this is the whole cluster
#: where qemu-img has chosen its size.
USUAL_BYTES = 64 << 10

#: Offset and length of the backing file's name.
_BACKING_FIELDS = struct.Struct('>QI')
_BACKING_AT = 8

L1_ENTRY_BYTES = 8
REFCOUNT_ENTRY_BYTES = 8


def peek_length(first: bytes) -> int:
    """Return how many first bytes of an image `peek_header` needs.

    Args:
        first: the first `FIRST_BYTES` of the image, or all of a smaller one.

    Raises:
        BadHeader: it is a qcow2 of a version or cluster size nobody knows.
    """
    if not qcow2.is_qcow2(first):
        return len(first)
    cluster_size = qcow2.head_length(first)
    offset, size = _BACKING_FIELDS.unpack_from(first, _BACKING_AT)
    return min(cluster_size, max(USUAL_BYTES, int(offset + size)))


def peek_header(head: bytes) -> Qcow2Header:
    """Read the header of an image from its first `peek_length` bytes.

    Raises:
        BadHeader: it cannot be understood; the message is for people.
    """
    if len(head) < peek_length(head):
        raise qcow2.BadHeader(
            f'the header is cut off after {len(head)} bytes'
        )
    return qcow2.parse_header(head.ljust(qcow2.head_length(head), b'\0'))


def largest_file(header: Qcow2Header) -> Optional[int]:
    """Return how large the file can be at most, in bytes.

    That is an image with every cluster of the guest in use and its tables as
    qemu makes them (QEMU, block/qcow2.c, `qcow2_calc_prealloc_size`); those
    that grow with the file leave holes behind and are counted twice.

    Returns:
        None where more than the guest's disk is in the file: internal
        snapshots, bitmaps, or what the header does not tell. A file that had
        snapshots once does not shrink and may be larger, too.
    """
    if (
        header.snapshots or header.extension(EXTENSION_BITMAPS) is not None
        or header.data_file or header.encrypted
    ):
        return None
    cluster = header.cluster_size
    extended = header.incompatible & INCOMPATIBLE_EXTENDED_L2
    data = _clusters(header.virtual_size, cluster)
    l2_tables = _clusters(data * (16 if extended else 8), cluster)
    l1_entries = max(header.l1_entries, l2_tables)
    l1_table = _clusters(l1_entries * L1_ENTRY_BYTES, cluster)
    used = 1 + data + l2_tables + 2 * l1_table
    return (used + 2 * _refcount_clusters(header, used)) * cluster


def _refcount_clusters(header: Qcow2Header, used: int) -> int:
    """Return the clusters that count references to `used` and themselves."""
    # 2^refcount_order bits for each cluster of the file; 64 at most.
    order = min(header.refcount_order, 6)
    in_block = max(1, header.cluster_size * 8 >> order)
    clusters = 0
    while True:
        blocks = -(-(used + clusters) // in_block)
        table = max(header.refcount_clusters, _clusters(
            blocks * REFCOUNT_ENTRY_BYTES, header.cluster_size
        ))
        needed = blocks + table
        if needed <= clusters:
            return clusters
        clusters = needed


def _clusters(size: int, cluster: int) -> int:
    return -(-size // cluster)
