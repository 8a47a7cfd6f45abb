"""Tell by its first bytes what an image is; a name proves nothing.

What is no qcow2 counts as raw, unless it is known to be something else: qemu
would take a compressed file for a disk without complaint.
"""

from __future__ import annotations

from typing import Optional, Tuple

from .qcow2 import is_qcow2

#: So many first bytes are enough for `tell_format`.
FIRST_BYTES = 512

#: Raw disks consist of sectors.
SECTOR_BYTES = 512

#: Offset, bytes there, and what such a file is.
_FOREIGN: Tuple[Tuple[int, bytes, str], ...] = (
    (0, b'\xfd7zXZ\0', 'compressed by xz'),
    (0, b'\x28\xb5\x2f\xfd', 'compressed by zstd'),
    (0, b'\x1f\x8b', 'compressed by gzip'),
    (0, b'BZh', 'compressed by bzip2'),
    (0, b'PK\x03\x04', 'a zip archive'),
    (0, b'KDMV', 'a vmdk image'),
    (0, b'# Disk DescriptorFile', 'a vmdk image'),
    (64, b'\x7f\x10\xda\xbe', 'a vdi image'),
    (0, b'vhdxfile', 'a vhdx image'),
    (0, b'conectix', 'a vhd image'),
    (0, b'QED\0', 'a qed image'),
    (0, b'LUKS\xba\xbe', 'encrypted (LUKS)'),
)


def tell_format(first: bytes) -> str:
    """Return the format of an image: qcow2 or raw.

    Args:
        first: its first `FIRST_BYTES` bytes, fewer if it has no more.

    Raises:
        ValueError: it is something else; the message says what.
    """
    if is_qcow2(first):
        return 'qcow2'
    if not first:
        raise ValueError('it is empty')
    kind = name_kind(first)
    if kind:
        raise ValueError(f'it is {kind}, expected qcow2 or raw')
    return 'raw'


def name_kind(first: bytes) -> Optional[str]:
    """Return what a file is by its first bytes, None where they do not tell.
    """
    for offset, magic, kind in _FOREIGN:
        if first[offset:offset + len(magic)] == magic:
            return kind
    return None
