"""Marks with which files of a kind begin or end."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

XZ = b'\xfd7zXZ\0'
GZIP = b'\x1f\x8b'
ZSTD_FRAME = b'\x28\xb5\x2f\xfd'
#: Of frames, and of those that decoders skip.
ZSTD = (ZSTD_FRAME, *(
    bytes([first]) + b'\x2a\x4d\x18' for first in range(0x50, 0x60)
))

#: With what units of compressed files begin, by the name of an index.
MAGICS: Dict[str, Tuple[bytes, ...]] = {
    'xz': (XZ,), 'gz': (GZIP,), 'zst': ZSTD,
}

#: Offset, bytes there, and what such a file is.
_FOREIGN: Tuple[Tuple[int, bytes, str], ...] = (
    *((0, magic, 'compressed by xz') for magic in MAGICS['xz']),
    *((0, magic, 'compressed by gzip') for magic in MAGICS['gz']),
    *((0, magic, 'compressed by zstd') for magic in MAGICS['zst']),
    (0, b'BZh', 'compressed by bzip2'),
    (0, b'\x04\x22\x4d\x18', 'compressed by lz4'),
    (0, b'\x02\x21\x4c\x18', 'compressed by lz4'),
    (0, b'\x5d\0\0', 'compressed by lzma'),
    (0, b'LZIP', 'compressed by lzip'),
    (0, b'\x89LZO\0\r\n\x1a\n', 'compressed by lzop'),
    (0, b'7z\xbc\xaf\x27\x1c', 'a 7z archive'),
    (0, b'PK\x03\x04', 'a zip archive'),
    (0, b'Rar!\x1a\x07', 'a rar archive'),
    (257, b'ustar', 'a tar archive'),
    (0, b'KDMV', 'a vmdk image'),
    (0, b'COWD', 'a vmdk image'),
    (0, b'# Disk DescriptorFile', 'a vmdk image'),
    (64, b'\x7f\x10\xda\xbe', 'a vdi image'),
    (0, b'vhdxfile', 'a vhdx image'),
    (0, b'conectix', 'a vhd image'),
    (0, b'QED\0', 'a qed image'),
    (0, b'WithoutFreeSpace', 'a parallels image'),
    (0, b'WithouFreSpacExt', 'a parallels image'),
    (0, b'LUKS\xba\xbe', 'encrypted (LUKS)'),
)

#: The same of the last sector.
_FOREIGN_ENDS: Tuple[Tuple[bytes, str], ...] = (
    (b'conectix', 'a vhd image'),
    (b'koly', 'a dmg image'),
)


def name_magic(first: bytes, last: bytes = b'') -> Optional[str]:
    """Say what a file is that has a mark of its kind, None for others."""
    for offset, magic, kind in _FOREIGN:
        if first.startswith(magic, offset):
            return kind
    for magic, kind in _FOREIGN_ENDS:
        if last.startswith(magic):
            return kind
    return None
