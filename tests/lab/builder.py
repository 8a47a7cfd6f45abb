"""A source of virt-builder with one template, made on the spot.

Its operating system is a static busybox: as much as libguestfs takes for a
Debian, and enough to run commands in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict

from .commands import find, require, run

TEMPLATE = 'tiny'
DISK_MIB = 24

OS_RELEASE = """\
NAME="Debian GNU/Linux"
ID=debian
VERSION_ID="12"
PRETTY_NAME="Debian GNU/Linux 12 (tiny)"
"""
FILES = {
    'etc/os-release': OS_RELEASE,
    'etc/debian_version': '12.0\n',
    'etc/fstab': '/dev/sda / ext4 defaults 0 1\n',
    'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
    'etc/shadow': 'root:*:19000:0:99999:7:::\n',
    'etc/group': 'root:x:0:\n',
    'etc/hostname': 'tiny\n',
}
DIRECTORIES = (
    'bin', 'boot', 'dev', 'etc', 'home', 'lib', 'proc', 'root', 'run', 'sbin',
    'sys', 'tmp', 'usr/bin', 'var/log', 'var/tmp',
)
APPLETS = ('cat', 'echo', 'mkdir', 'mv', 'rm', 'sh', 'touch')


def make_source(directory: Path) -> Dict[str, str]:
    """Make a source, and a configuration that names no other.

    Returns:
        the environment variables for virt-builder.
    """
    require('virt-builder', 'mke2fs', 'busybox', 'qemu-img', 'xz')
    source = directory / 'source'
    source.mkdir(parents=True)
    image = make_system(directory, source / 'tiny.qcow2')
    run('xz', '-1', image)
    (source / 'index').write_text(
        f'[{TEMPLATE}]\nname=Tiny Linux\narch=x86_64\nformat=qcow2\n'
        f'file={image.name}.xz\nsize={DISK_MIB * 2**20}\n\n'
    )
    repos = directory / 'config' / 'virt-builder' / 'repos.d'
    repos.mkdir(parents=True)
    (repos / 'tiny.conf').write_text(
        f'[tiny]\nuri=file://{source}/index\n'
    )
    return {
        'VIRT_BUILDER_DIRS': str(directory / 'config'),
        'XDG_CONFIG_HOME': str(directory / 'config'),
        'XDG_CACHE_HOME': str(directory / 'cache'),
    }


def make_system(directory: Path, target: Path) -> Path:
    """Write a qcow2 whose file system is a system that can be inspected."""
    root = directory / 'system'
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    shutil.copy(find('busybox') or '', root / 'bin' / 'busybox')
    for name in APPLETS:
        (root / 'bin' / name).symlink_to('busybox')
    raw = directory / 'system.raw'
    run('mke2fs', '-q', '-t', 'ext4', '-d', root, raw, f'{DISK_MIB}M')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, target)
    raw.unlink()
    return target


def read_file(disk: Path, path: str) -> str:
    """Return a file of the file system on a disk; '' where there is none."""
    raw = disk.with_suffix('.read')
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', disk, raw)
    try:
        return run('debugfs', '-R', f'cat {path}', raw)
    finally:
        raw.unlink()
