"""Look at image files of this machine before qemu-img opens them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from ..core import errors
from ..environments import backing_chain
from ..environments.export_plan import Link
from ..formats import detect, qcow2, qcow2_safety
from ..tools import files


@dataclass(frozen=True)
class LocalImage:
    """An image file and what it stands on; sizes in bytes.

    Attributes:
        chain: its files, the image itself first.
        used: what the files of the chain take of the disk.
    """

    path: str
    format: str
    virtual_size: int
    used: int
    chain: Tuple[Link, ...]


def examine(path: str) -> LocalImage:
    """Look at all headers of an image's chain.

    Raises:
        PublishError: it is missing, no image, or must not be opened; with
            all reasons.
    """
    faults: List[str] = []
    links: List[Link] = []
    try:
        fmt = read_format(path)
        for link in backing_chain.follow_chain(path, fmt):
            links.append(link)
            faults.extend(_check(link))
    except errors.LocalLayerError as error:
        if not faults:
            faults.append(_shorten(error.message, path))
    except (ValueError, OSError) as error:
        faults.append(_reason(error))
    if faults:
        raise errors.PublishError(path, faults)
    return LocalImage(
        os.path.abspath(path), fmt, _virtual_size(path, fmt),
        sum(used_bytes(link.path) for link in links), tuple(links),
    )


def read_format(path: str, declared: Optional[str] = None) -> str:
    """Tell the format of a file by its bytes.

    Args:
        declared: the format that somebody has given for it.

    Raises:
        ValueError: it is no image; says what it is.
        OSError: it cannot be read.
    """
    if not os.path.exists(path):
        raise ValueError('there is no such file')
    if not os.path.isfile(path):
        raise ValueError('it is no file')
    with files.open_binary(path) as stream:
        first = stream.read(detect.FIRST_BYTES)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - detect.LAST_BYTES))
        return detect.tell_format(
            first, declared=declared, size=size, last=stream.read()
        )


def read_header(path: str) -> qcow2.Qcow2Header:
    """Return the header of a qcow2 file.

    Raises:
        BadHeader: it has none that can be understood.
        OSError: it cannot be read.
    """
    with files.open_binary(path) as stream:
        length = qcow2.head_length(stream.read(detect.FIRST_BYTES))
        stream.seek(0)
        return qcow2.parse_header(stream.read(length))


def used_bytes(path: str) -> int:
    """Return what a file takes: its length, less the holes in it."""
    found = os.stat(path)
    return min(found.st_size, found.st_blocks * 512)


def _check(link: Link) -> Iterator[str]:
    """Yield why a file of a chain must not be opened."""
    if link.format != 'qcow2':
        return
    header = read_header(link.path)
    name = header.backing_file
    for danger in qcow2_safety.find_dangers(
        header, expected_backing=None if name is None else [name],
        file_size=os.path.getsize(link.path),
    ):
        yield f'{link.path}: {danger}'
    if name is None or header.backing_format is not None:
        return
    below = os.path.join(os.path.dirname(link.path), name)
    # qemu would guess; of a raw image its guest decides what it looks like.
    if os.path.isfile(below) and read_format(below) == 'raw':
        yield (
            f'{link.path}: its header does not say that {name} is raw; write '
            f'it there: qemu-img rebase -u -f qcow2 -F raw -b {name} '
            f'{link.path}'
        )


def _virtual_size(path: str, fmt: str) -> int:
    if fmt == 'qcow2':
        return read_header(path).virtual_size
    return os.path.getsize(path)


def _shorten(message: str, path: str) -> str:
    """Return a message without the path that the caller says anyway."""
    return message[len(path) + 2:] if message.startswith(path) else message


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f'it cannot be read: {error.strerror}'
    return str(error)
