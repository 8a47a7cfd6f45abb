"""Fill, clean, thin out and compress images, with the tools Lago uses.

Those of libguestfs get the options that lago-images gives them.
"""

from __future__ import annotations

import os
import shutil
from typing import Iterable, List

from . import processes

#: Disks are large and machines can be slow; this only ends what hangs.
TIMEOUT_SECONDS = 6 * 3600

BUILDER = 'virt-builder'
CUSTOMIZE = 'virt-customize'
SYSPREP = 'virt-sysprep'
SPARSIFY = 'virt-sparsify'
GUESTFS_HINT = (
    'Install what is missing (Debian: libguestfs-tools, Fedora: '
    'guestfs-tools; qemu-img: qemu-utils, qemu-img).'
)
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


def find_missing(tools: Iterable[str]) -> List[str]:
    """Return those of some programs that are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def build_template(name: str, commands: str, path: str) -> str:
    """Make a qcow2 image of a template of virt-builder.

    Where templates come from is the user's own configuration.

    Args:
        commands: the file with the commands of virt-builder.

    Returns:
        what it printed.

    Raises:
        ToolError: it is missing or failed.
    """
    return _run_guestfs([
        BUILDER, f'--commands-from-file={commands}', '--format=qcow2',
        f'--output={path}', '--', name,
    ])


def customize(path: str, commands: str) -> str:
    """Run the commands of a file on a qcow2 image; return what it printed.

    Raises:
        ToolError: virt-customize is missing or failed.
    """
    return _run_guestfs([
        CUSTOMIZE, f'--commands-from-file={commands}', '--format=qcow2',
        f'--add={path}',
    ])


def sysprep(path: str) -> str:
    """Take out of a qcow2 image what only one machine may have.

    Raises:
        ToolError: virt-sysprep is missing or failed.
    """
    return _run_guestfs([
        SYSPREP, '--format=qcow2', '--selinux-relabel', f'--add={path}',
    ])


def _run_guestfs(command: List[str]) -> str:
    return processes.run(
        command, timeout=TIMEOUT_SECONDS, hint=GUESTFS_HINT
    )


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
