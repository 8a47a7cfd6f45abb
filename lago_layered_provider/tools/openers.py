"""Say who has an image open, whoever the process belongs to."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Iterator, List

from . import files

#: struct flock, as a 64-bit Linux has it.
_FLOCK = struct.Struct('@hhqqi4x')

#: Where qemu locks bytes of an image that it has open, for writing or not:
#: RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE (QEMU, block/file-posix.c).
_QEMU_START, _QEMU_BYTES = 100, 200


def find_openers(path: str) -> List[str]:
    """Return the processes that have a file open, for people; [] for none.

    Only its owner and root see what a process has open. What qemu has open
    shows by its locks in any case.
    """
    try:
        stream = files.open_binary(path)
    except OSError:
        return []
    with stream:
        fd = stream.fileno()
        found = list(_processes(os.fstat(fd)))
        if not found and _is_locked_by_qemu(fd):
            found = ['a qemu of another user']
        return found


def _processes(wanted: os.stat_result) -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir('/proc')):
        if int(pid) != os.getpid() and _has_open(pid, wanted):
            yield f'process {pid} ({_name(pid)})'


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    try:
        numbers = os.listdir(f'/proc/{pid}/fd')
    except OSError:
        return False
    for number in numbers:
        try:
            found = os.stat(f'/proc/{pid}/fd/{number}')
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _name(pid: str) -> str:
    try:
        with files.open_text(f'/proc/{pid}/comm') as stream:
            name = stream.read().strip()
    except (OSError, ValueError):
        return '?'
    return name if name.isprintable() else '?'


def _is_locked_by_qemu(fd: int) -> bool:
    """Ask for the locks that an open file of another process has.

    The question takes no lock, and so disturbs nobody.
    """
    question = _FLOCK.pack(
        fcntl.F_WRLCK, os.SEEK_SET, _QEMU_START, _QEMU_BYTES, 0
    )
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    except (OSError, AttributeError):  # not Linux, or an old file system
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
