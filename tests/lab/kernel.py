"""Get a Linux kernel, and make an initramfs for it.

The kernel is Debian's for clouds: small, and the same in every test run. An
installed one is used when it can be read; otherwise the package is downloaded
and unpacked (not installed) into the caller's cache. No root, no cpio, no
initramfs-tools.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Tuple

from .commands import find, run, unavailable

KERNEL_PACKAGE = 'linux-image-cloud-amd64'

#: In the order in which they can be loaded. What a kernel lacks is built in.
MODULES = (
    'virtio_ring', 'virtio', 'virtio_pci_legacy_dev',
    'virtio_pci_modern_dev', 'virtio_pci', 'virtio_blk',
    'nls_cp437', 'nls_ascii', 'nls_utf8', 'fat', 'vfat',
)


@dataclass(frozen=True)
class Kernel:
    """A kernel image and the directory of its modules."""

    version: str
    image: Path
    modules: Path

    def module_files(self) -> List[Path]:
        """Return the files of ``MODULES``, in their order."""
        found = {
            path.name.split('.')[0]: path
            for path in self.modules.rglob('*.ko*')
        }
        return [found[name] for name in MODULES if name in found]


def get_kernel(cache: Path) -> Kernel:
    """Return the installed cloud kernel, or one downloaded into a cache."""
    unpacked = cache / 'kernel'
    for root in (Path('/'), unpacked):
        kernel = _find_kernel(root)
        if kernel:
            return kernel
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        tree = Path(scratch, 'tree')
        run('dpkg', '-x', _download(Path(scratch)), tree)
        # Another process may have been faster; then its tree is as good.
        with contextlib.suppress(OSError):
            tree.rename(unpacked)
    kernel = _find_kernel(unpacked)
    if not kernel:
        raise RuntimeError(f'{KERNEL_PACKAGE}: no kernel in {unpacked}')
    return kernel


def _find_kernel(root: Path) -> Optional[Kernel]:
    for image in sorted(root.glob('boot/vmlinuz-*-cloud-amd64')):
        version = image.name[len('vmlinuz-'):]
        for library in ('lib', 'usr/lib'):
            modules = root / library / 'modules' / version
            if modules.is_dir() and _readable(image):
                return Kernel(version, image, modules)
    return None


def _readable(path: Path) -> bool:
    try:
        with open(path, 'rb'):
            return True
    except OSError:
        return False


def _download(directory: Path) -> Path:
    """Download the package that the kernel's meta package stands for."""
    if not find('apt-get'):
        unavailable('no cloud kernel is installed, and no apt-get is there')
    try:
        out = run('apt-cache', 'depends', '--important', KERNEL_PACKAGE)
        names = [
            line.split()[-1] for line in out.splitlines() if 'Depends:' in line
        ]
        run('apt-get', '-q', '-o', 'Acquire::Retries=3', 'download',
            names[0], cwd=directory)
    except (RuntimeError, IndexError) as error:
        unavailable(
            f'cannot download {KERNEL_PACKAGE}; install it, or run '
            f'"apt-get update" first: {error}'
        )
    return next(directory.glob('*.deb'))


def make_initramfs(kernel: Kernel, init: str, destination: Path) -> None:
    """Write an initramfs of busybox, the kernel's modules and ``/init``."""
    busybox = find('busybox')
    if not busybox:
        unavailable('not installed: busybox (package busybox-static)')
    entries: List[Tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b'')
        for name in ('bin', 'dev', 'mnt', 'modules', 'proc', 'sys')
    ]
    entries += [
        ('init', stat.S_IFREG | 0o755, init.encode()),
        ('bin/busybox', stat.S_IFREG | 0o755, Path(busybox).read_bytes()),
    ]
    for number, path in enumerate(kernel.module_files()):
        data = path.read_bytes()
        if path.suffix == '.xz':
            data = lzma.decompress(data)
        name = f'modules/{number:02}-{path.name.split(".")[0]}.ko'
        entries.append((name, stat.S_IFREG | 0o644, data))
    with gzip.GzipFile(destination, 'wb', 6, mtime=0) as stream:
        shutil.copyfileobj(_Chunks(cpio(entries)), stream)


class _Chunks:
    """Make an iterator of bytes readable."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, _size: int = -1) -> bytes:
        return next(self._chunks, b'')


def cpio(entries: Iterable[Tuple[str, int, bytes]]) -> Iterator[bytes]:
    """Yield a cpio archive in the "newc" format, which the kernel reads.

    See https://www.kernel.org/doc/html/latest/driver-api/early-userspace/
    buffer-format.html

    Args:
        entries: path, mode and content of each file.
    """
    number = 0
    for number, (name, mode, data) in enumerate(entries, 1):
        yield _cpio_entry(name, mode, data, number)
    yield _cpio_entry('TRAILER!!!', 0, b'', number + 1)


def _cpio_entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    fields = (
        number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0
    )
    header = b'070701' + b''.join(b'%08X' % field for field in fields)
    head = header + name.encode() + b'\0'
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b'\0' * (-len(data) % 4)
