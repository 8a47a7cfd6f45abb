"""Read the header of a qcow2 image, without qemu.

It decides what the header says, never whether the image may be used (that is
`safety`'s), and opens no file: the first cluster comes in as bytes.

The header is the start of the first cluster, big endian (QEMU,
docs/interop/qcow2.txt,
https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt)::

      0  magic 'QFI\\xfb'               48  refcount table offset
      4  version, 2 or 3               56  refcount table clusters
      8  backing name offset, or 0     60  internal snapshots
     16  backing name bytes            64  snapshot table offset
     20  cluster_bits                  -- version 2 ends here (72) --
     24  virtual size                  72  incompatible features
     32  crypt_method                  80  compatible features
     36  L1 table entries              88  autoclear features
     40  L1 table offset               96  refcount_order
                                      100  header_length, 104 or more
                                      104  compression_type (one byte)

Then extensions (type, length, data, padding to 8 bytes) up to a type of 0,
then the name of the backing file, not terminated; all in the first cluster.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional, Tuple

MAGIC = b'QFI\xfb'

#: Limits of qemu; a cluster has 512 bytes to 2 MiB.
MIN_CLUSTER_BITS = 9
MAX_CLUSTER_BITS = 21
MAX_NAME_BYTES = 1023
MAX_FORMAT_BYTES = 15

#: As many first bytes of an image always hold its whole header.
HEAD_BYTES = 1 << MAX_CLUSTER_BITS

INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4
AUTOCLEAR_BITMAPS = 1 << 0
AUTOCLEAR_RAW_DATA_FILE = 1 << 1
AUTOCLEAR_KNOWN = AUTOCLEAR_BITMAPS | AUTOCLEAR_RAW_DATA_FILE

EXTENSION_END = 0
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_FEATURE_NAMES = 0x6803F857
EXTENSION_BITMAPS = 0x23852875
EXTENSION_CRYPTO = 0x0537BE77
EXTENSION_DATA_FILE = 0x44415441

_FIXED = struct.Struct('>4sIQIIQIIQQIIQ')
_FIXED_NAMES = (
    'magic', 'version', 'name_offset', 'name_size', 'cluster_bits',
    'virtual_size', 'crypt_method', 'l1_entries', 'l1_offset',
    'refcount_offset', 'refcount_clusters', 'snapshots', 'snapshots_offset',
)
_VERSION_3 = struct.Struct('>QQQII')
_VERSION_3_NAMES = (
    'incompatible', 'compatible', 'autoclear', 'refcount_order',
    'header_length',
)
_VERSION_2_MEANS = (0, 0, 0, 4, _FIXED.size)
_EXTENSION = struct.Struct('>II')
_COMPRESSION_AT = 104


class BadHeader(ValueError):
    """The bytes are no qcow2 header that can be understood."""


@dataclass(frozen=True)
class Extension:
    """A header extension, without its padding."""

    kind: int
    data: bytes

    def __bytes__(self) -> bytes:
        padding = bytes(-len(self.data) % 8)
        return _EXTENSION.pack(self.kind, len(self.data)) + self.data + padding


@dataclass(frozen=True)
class Qcow2Header:
    """What a header says; sizes and offsets are in bytes.

    Names are decoded as file names are (UTF-8, surrogates for the rest).
    """

    version: int
    cluster_bits: int
    virtual_size: int
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    refcount_order: int
    header_length: int
    compression_type: int
    extensions: Tuple[Extension, ...]
    backing_file: Optional[str]

    def extension(self, kind: int) -> Optional[bytes]:
        """Return the data of an extension, None when there is none."""
        for extension in self.extensions:
            if extension.kind == kind:
                return extension.data
        return None

    @property
    def backing_format(self) -> Optional[str]:
        """The format of the backing file; it may stand without one."""
        data = self.extension(EXTENSION_BACKING_FORMAT)
        return _decode(data) if data else None

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def dirty(self) -> bool:
        """Whether it was not closed: reference counts may be off."""
        return bool(self.incompatible & INCOMPATIBLE_DIRTY)

    @property
    def corrupt(self) -> bool:
        """Whether qemu has found it damaged."""
        return bool(self.incompatible & INCOMPATIBLE_CORRUPT)

    @property
    def data_file(self) -> bool:
        """Whether anything in it points to an external data file."""
        return (
            bool(self.incompatible & INCOMPATIBLE_DATA_FILE)
            or bool(self.autoclear & AUTOCLEAR_RAW_DATA_FILE)
            or self.extension(EXTENSION_DATA_FILE) is not None
        )

    @property
    def encrypted(self) -> bool:
        """Whether anything in it speaks of encryption."""
        return (
            self.crypt_method != 0
            or self.extension(EXTENSION_CRYPTO) is not None
        )


def is_qcow2(head: bytes) -> bool:
    """Tell by the magic whether an image is meant as a qcow2."""
    return head[:len(MAGIC)] == MAGIC


def head_length(first: bytes) -> int:
    """Return how many first bytes `parse_header` needs: one cluster.

    Args:
        first: the first 72 bytes of the image, or more.

    Raises:
        BadHeader: this is no qcow2 of a version and cluster size we know.
    """
    if not is_qcow2(first):
        raise BadHeader('not a qcow2 image')
    if len(first) < _FIXED.size:
        raise BadHeader(f'the header is cut off after {len(first)} bytes')
    _, version, _, _, cluster_bits, *_ = _FIXED.unpack_from(first)
    if version not in (2, 3):
        raise BadHeader(f'qcow2 version {version}, expected 2 or 3')
    if not MIN_CLUSTER_BITS <= cluster_bits <= MAX_CLUSTER_BITS:
        raise BadHeader(
            f'cluster size 2^{cluster_bits}, expected '
            f'2^{MIN_CLUSTER_BITS} to 2^{MAX_CLUSTER_BITS} bytes'
        )
    return 1 << int(cluster_bits)


def parse_header(head: bytes) -> Qcow2Header:
    """Read the header of an image.

    Args:
        head: the first `head_length` bytes of the image, or more.

    Raises:
        BadHeader: it cannot be understood; the message is for people.
    """
    cluster_size = head_length(head)
    if len(head) < cluster_size:
        raise BadHeader(
            f'the header is cut off after {len(head)} of {cluster_size} bytes'
        )
    fixed = dict(zip(_FIXED_NAMES, _FIXED.unpack_from(head)))
    version = fixed['version']
    later = dict(zip(_VERSION_3_NAMES, (
        _VERSION_2_MEANS if version == 2
        else _VERSION_3.unpack_from(head, _FIXED.size)
    )))
    length = later['header_length']
    _check_length(version, length, cluster_size)
    del fixed['magic']
    name_offset = fixed.pop('name_offset')
    name_size = fixed.pop('name_size')
    return Qcow2Header(
        **fixed,
        **later,
        compression_type=(
            head[_COMPRESSION_AT] if length > _COMPRESSION_AT else 0
        ),
        backing_file=_read_name(
            head, name_offset, name_size, length, cluster_size
        ),
        extensions=_read_extensions(
            head, length, name_offset or cluster_size
        ),
    )


def _check_length(version: int, length: int, cluster_size: int) -> None:
    if version == 3 and (length < _COMPRESSION_AT or length % 8):
        raise BadHeader(
            f'header length {length}, expected a multiple of 8, '
            f'{_COMPRESSION_AT} or more'
        )
    if length > cluster_size:
        raise BadHeader(f'header length {length} exceeds the first cluster')


def _read_name(
    head: bytes, offset: int, size: int, start: int, end: int
) -> Optional[str]:
    """Return the name of the backing file, None for none."""
    if offset == 0:
        return None
    # qemu would take a name out of the middle of the header; no tool writes
    # that, and the bytes would have two meanings.
    if not start <= offset <= end:
        raise BadHeader(
            f'backing file name at {offset}, expected it between the end of '
            f'the header ({start}) and of the first cluster ({end})'
        )
    if size > min(MAX_NAME_BYTES, end - offset):
        raise BadHeader(f'backing file name of {size} bytes is too long')
    return _decode(head[offset:offset + size]) or None


def _read_extensions(
    head: bytes, start: int, end: int
) -> Tuple[Extension, ...]:
    """Return the extensions between two offsets, in their order."""
    found = {}
    while start < end:
        if end - start < _EXTENSION.size:
            raise BadHeader(f'header extension at {start} is cut off')
        kind, size = _EXTENSION.unpack_from(head, start)
        start += _EXTENSION.size
        if size > end - start:
            raise BadHeader(
                f'header extension 0x{kind:08x} of {size} bytes is too large'
            )
        if kind == EXTENSION_END:
            break
        # Of two, qemu believes the last one, others the first.
        if kind in found:
            raise BadHeader(f'header extension 0x{kind:08x} appears twice')
        if kind == EXTENSION_BACKING_FORMAT and size > MAX_FORMAT_BYTES:
            raise BadHeader(f'backing format of {size} bytes is too long')
        found[kind] = Extension(kind, head[start:start + size])
        start += size + -size % 8
    return tuple(found.values())


def _decode(data: bytes) -> str:
    return data.decode('utf-8', 'surrogateescape')
