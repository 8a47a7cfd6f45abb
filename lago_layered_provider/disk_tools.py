"""Copy, thin out and compress disk images, with the tools that Lago uses."""

from __future__ import annotations

import os
import shutil

from . import processes

#: Disks are large and machines can be slow; this only ends what hangs.
TIMEOUT_SECONDS = 6 * 3600

SPARSIFY = 'virt-sparsify'
SPARSIFY_HINT = (
    'Install virt-sparsify (Debian: libguestfs-tools, Fedora: '
    'guestfs-tools).'
)

#: Lago's, and those of lago-images: parts of a file can be had from it.
XZ_BLOCK_BYTES = 16 * 2**20


def copy(source: str, target: str) -> None:
    """Copy a file with its holes; the copy can be written by its owner.

    Raises:
        ToolError: cp failed.
        OSError: the disk failed.
    """
    processes.run(
        ['cp', '--sparse=auto', '--reflink=auto', '--', source, target],
        timeout=TIMEOUT_SECONDS,
    )
    os.chmod(target, os.stat(target).st_mode | 0o600)


def can_sparsify() -> bool:
    """Tell whether virt-sparsify is installed."""
    return shutil.which(SPARSIFY) is not None


def sparsify(path: str, fmt: str) -> None:
    """Give back the blocks that the guest's file systems do not use.

    Args:
        path: of an image whose whole chain can be found from there.

    Raises:
        ToolError: virt-sparsify is missing or failed.
    """
    processes.run(
        [SPARSIFY, '--quiet', '--format', fmt, '--in-place', path],
        timeout=TIMEOUT_SECONDS, hint=SPARSIFY_HINT,
    )


def compress(path: str) -> None:
    """Write a compressed copy of a file beside it, under ``PATH.xz``.

    Raises:
        ToolError: xz is missing or failed.
    """
    processes.run(
        ['xz', '--compress', '--keep', '--force', '--threads=0', '--best',
         f'--block-size={XZ_BLOCK_BYTES}', '--', path],
        timeout=TIMEOUT_SECONDS,
        hint='Install xz (Debian: xz-utils, Fedora: xz).',
    )
