"""A tiny bootable Linux whose layers leave markers, and a boot of it.

The disk is an MBR and one FAT16 partition at 1 MiB with syslinux, a kernel,
an initramfs and the directory ``layers``. Every layer adds one numbered file
there. The guest prints all of them on its serial console, in their order,
and powers off: that tells which layers a guest really sees.

Nothing is mounted and no loop device is used: mtools writes into the raw
image, and a layer is made of the clusters that this changed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, List, Optional

from . import kernel as kernel_module
from .commands import find, require, run
from .fat_disk import (
    PARTITION_START, add_files, make_partitioned, partition,
)
from .images import CLUSTER, MIB, create, flatten, write_at
from .kernel import get_kernel, make_initramfs

BOOT_SECONDS = 120
TOOLS = (
    'qemu-img', 'qemu-io', 'mkfs.vfat', 'mcopy', 'mmd', 'mdir', 'syslinux',
    'busybox',
)

SYSLINUX_CFG = """\
SERIAL 0 115200
DEFAULT tiny
PROMPT 0
LABEL tiny
  KERNEL vmlinuz
  APPEND initrd=initrd.gz console=ttyS0 quiet panic=-1
"""

INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
for module in /modules/*.ko; do $bb insmod $module; done
tries=0
while [ ! -b /dev/vda1 ] && [ $tries -lt 100 ]; do
    $bb sleep 0.1
    tries=$((tries + 1))
done
$bb mount -t vfat -o ro /dev/vda1 /mnt
echo
echo "tiny linux: booted from a disk with these layers, base first"
for file in /mnt/layers/*.txt; do
    echo "layer: $($bb cat $file)"
done
echo "tiny linux: end"
$bb poweroff -f
"""


class TinyLinux:
    """Make the bootable image once, and layers over it.

    Args:
        cache: directory that keeps the kernel and the finished base image.
        disk_mib: size of the disk, at most 2047.
    """

    def __init__(self, cache: Path, *, disk_mib: int = 64) -> None:
        self.cache = cache
        self.disk_mib = disk_mib

    def base(self, path: Path, marker: str, *, payload_mib: int = 0) -> Path:
        """Write the bootable image with its first marker to ``path``."""
        raw = path.with_suffix('.raw.tmp')
        flatten(self._blank(), raw, form='raw')
        add_files(raw, marker, payload_mib)
        run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, path)
        raw.unlink()
        return path

    def layer(
        self, base: Path, path: Path, marker: str, *, payload_mib: int = 0
    ) -> Path:
        """Write a layer over ``base`` that adds a marker to ``path``.

        Both must be in one directory: the backing file is named relatively.
        """
        size = self.disk_mib * MIB
        raw = path.with_suffix('.raw.tmp')
        flatten(base, raw, form='raw')
        before = _cluster_digests(raw)
        add_files(raw, marker, payload_mib)
        after = _cluster_digests(raw)
        create(path, size, base)
        with open(raw, 'rb') as stream:
            write_at(path, {
                first * CLUSTER: _read_clusters(stream.fileno(), first, last)
                for first, last in _changed_runs(before, after)
            })
        raw.unlink()
        return path

    def _blank(self) -> Path:
        """Return the cached image without markers; build it when missing."""
        require(*TOOLS)
        kernel = get_kernel(self.cache)
        recipe = inspect.getsource(kernel_module) + INIT + SYSLINUX_CFG
        recipe += f'{kernel.version} {self.disk_mib}'
        key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
        path = self.cache / f'tiny-linux-{key}.qcow2'
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
                raw = self._build(Path(scratch), kernel)
                done = Path(scratch, 'done')
                run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2',
                    raw, done)
                done.replace(path)
        return path

    def _build(self, scratch: Path, kernel: kernel_module.Kernel) -> Path:
        make_initramfs(kernel, INIT, scratch / 'initrd.gz')
        (scratch / 'syslinux.cfg').write_text(SYSLINUX_CFG)
        raw = scratch / 'disk.raw'
        make_partitioned(raw, self.disk_mib * MIB)
        run('mcopy', '-i', partition(raw), kernel.image, '::vmlinuz')
        run('mcopy', '-i', partition(raw), scratch / 'initrd.gz',
            scratch / 'syslinux.cfg', '::')
        run('mmd', '-i', partition(raw), '::layers')
        run('syslinux', '-t', PARTITION_START, '--install', raw)
        return raw


def _cluster_digests(raw: Path) -> List[bytes]:
    digests = []
    with open(raw, 'rb') as stream:
        for data in iter(lambda: stream.read(CLUSTER), b''):
            digests.append(hashlib.sha1(data).digest())
    return digests


def _changed_runs(before: List[bytes], after: List[bytes]) -> List[List[int]]:
    """Return first and last + 1 of the runs of changed clusters."""
    runs: List[List[int]] = []
    for number, (old, new) in enumerate(zip(before, after)):
        if old == new:
            continue
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return runs


def _read_clusters(descriptor: int, first: int, last: int) -> bytes:
    return os.pread(descriptor, (last - first) * CLUSTER, first * CLUSTER)


def boot(disk: Path, *, timeout: float = BOOT_SECONDS) -> str:
    """Boot a disk in qemu without KVM and return its serial console.

    The disk is not changed.

    Raises:
        RuntimeError: the guest did not power off in time; with its console.
    """
    require('qemu-system-x86_64')
    command = [
        find('qemu-system-x86_64') or '', '-accel', 'tcg', '-m', '256',
        '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none',
        '-serial', 'stdio', '-drive',
        f'file={str(disk).replace(",", ",,")},format=qcow2,if=virtio,'
        'snapshot=on',
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f'{disk}: no power-off in {timeout} s\n{_text(error.stdout)}'
        ) from None
    if done.returncode:
        raise RuntimeError(f'{disk}: {_text(done.stdout)}')
    return _text(done.stdout)


def _text(console: Optional[bytes]) -> str:
    return (console or b'').decode('utf-8', 'replace').replace('\r', '')


def markers_of(console: str) -> List[str]:
    """Return the layers' markers on a console, base first."""
    return re.findall(r'^layer: (.*)$', console, re.MULTILINE)


def make_layers(
    linux: TinyLinux, directory: Path, bases: Dict[str, Optional[str]],
    *, payload_mib: int = 0,
) -> Dict[str, Path]:
    """Make bootable images that stand on each other; markers are the names.

    Args:
        bases: name -> name of its base, or None; bases first.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths: Dict[str, Path] = {}
    for name, base in bases.items():
        path = directory / f'{name}.qcow2'
        if base is None:
            linux.base(path, name, payload_mib=payload_mib)
        else:
            linux.layer(paths[base], path, name, payload_mib=payload_mib)
        paths[name] = path
    return paths
