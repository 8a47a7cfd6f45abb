"""A raw disk with one FAT16 partition, written with mtools, never mounted."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

from .commands import run
from .images import MIB, content

SECTOR = 512
PARTITION_START = 1 * MIB

#: Where distributions keep syslinux' master boot record.
BOOT_RECORDS = (
    '/usr/lib/syslinux/mbr/mbr.bin', '/usr/lib/SYSLINUX/mbr.bin',
    '/usr/share/syslinux/mbr.bin', '/usr/lib/syslinux/bios/mbr.bin',
)


def make_partitioned(raw: Path, size: int) -> None:
    """Write a raw disk with an active, empty FAT16 partition."""
    start = PARTITION_START // SECTOR
    sectors = size // SECTOR - start
    # The FAT is made in a file of its own: --offset is new in dosfstools 4.2.
    fat = raw.with_suffix('.fat')
    with open(fat, 'wb') as stream:
        stream.truncate(sectors * SECTOR)
    run('mkfs.vfat', '-F', 16, '-h', start, '-n', 'TINY', '-i', '1a901a90',
        fat)
    entry = struct.pack(
        '<B3sB3sII', 0x80, b'\xfe\xff\xff', 0x0e, b'\xfe\xff\xff',
        start, sectors,
    )
    code = next(path for path in map(Path, BOOT_RECORDS) if path.exists())
    record = code.read_bytes()[:440].ljust(446, b'\0')
    raw.write_bytes(record + entry + b'\0' * 48 + b'\x55\xaa')
    run('dd', f'if={fat}', f'of={raw}', 'bs=1M', 'seek=1', 'conv=sparse',
        'status=none')
    os.truncate(raw, size)
    fat.unlink()


def partition(raw: Path) -> str:
    """Return how mtools names the partition."""
    return f'{raw}@@{PARTITION_START}'


def add_files(raw: Path, marker: str, payload_mib: int) -> None:
    """Write a layer's marker, numbered, and its share of data."""
    listing = run('mdir', '-b', '-i', partition(raw), '::layers')
    number = len(listing.splitlines()) + 1
    with tempfile.TemporaryDirectory(dir=raw.parent) as scratch:
        text = Path(scratch, f'{number:02}.txt')
        text.write_text(f'{marker}\n')
        run('mcopy', '-i', partition(raw), text, '::layers')
        if payload_mib:
            payload = Path(scratch, f'data{number:02}.bin')
            payload.write_bytes(content(payload_mib * MIB, marker))
            run('mcopy', '-i', partition(raw), payload, '::')
