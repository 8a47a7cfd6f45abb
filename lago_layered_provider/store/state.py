"""How far a staged image is: what stands in its state file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

import lockfile

from ..core import errors, model
from ..formats.block import Block
from . import layout
from .record import Record, is_count, parse_record


@dataclass(frozen=True)
class Progress:
    """The place to go on from.

    Attributes:
        identity: what is being fetched, in the caller's words.
        validator: the state of the file on the server.
        consumed: offset in the file on the server, in bytes.
        produced: bytes of the image that were made of what lies before it.
        preamble: what a decompressor must know to begin there.
        verified: set when the image is complete and proven.
        ahead: blocks that are done beyond `consumed`.
    """

    identity: str
    validator: Optional[str] = None
    consumed: int = 0
    produced: int = 0
    preamble: bytes = b''
    verified: Optional[Record] = None
    ahead: Tuple[Block, ...] = ()

    def to_json(self) -> Dict[str, Any]:
        """Return the progress as JSON's values."""
        return {
            'identity': self.identity,
            'validator': self.validator,
            'consumed': self.consumed,
            'produced': self.produced,
            'preamble': self.preamble.hex(),
            'verified': self.verified and self.verified.to_json(),
            'ahead': [
                [block.offset, block.size, block.at, block.makes]
                for block in self.ahead
            ],
        }


@dataclass(frozen=True)
class Resume:
    """Where a stage goes on, in bytes; see `Progress`.

    `spooled` bytes of the file on the server, from `consumed` on, need not
    be fetched again: `Stage.spooled_chunks` has them.
    """

    validator: Optional[str]
    consumed: int
    produced: int
    preamble: bytes
    spooled: int


def read_progress(paths: layout.Layout, name: str) -> Optional[Progress]:
    """Return the state of a staged image, None for none and for garbage."""
    value = paths.tree.read_object(paths.state(name))
    if value is None:
        return None
    verified = parse_record(value.get('verified'))
    if value.get('verified') is not None and verified is None:
        return None
    identity, validator = value.get('identity'), value.get('validator')
    consumed, produced = value.get('consumed'), value.get('produced')
    if (
        not isinstance(identity, str)
        or not (validator is None or isinstance(validator, str))
        or not is_count(consumed)
        or not is_count(produced)
    ):
        return None
    try:
        preamble = bytes.fromhex(str(value.get('preamble')))
        ahead = tuple(map(_parse_block, value.get('ahead') or ()))
    except (ValueError, TypeError):
        return None
    return Progress(
        identity, validator, int(str(consumed)), int(str(produced)),
        preamble, verified, ahead,
    )


def _parse_block(value: Any) -> Block:
    offset, size, at, makes = value
    if not all(map(is_count, (offset, size, at, makes))):
        raise ValueError('a block that is no numbers of bytes')
    return Block(offset, size, at, makes)


def write_progress(
    paths: layout.Layout, name: str, progress: Progress
) -> None:
    """Replace the state of a staged image.

    It is not forced to the disk: after a power cut the digest of the whole
    file decides whether what was found there is true.
    """
    paths.tree.write_json(paths.state(name), progress.to_json())


def read_partial(
    paths: layout.Layout, name: str, identity: Optional[str]
) -> Optional[model.Partial]:
    """Return what is there of an unfinished image, None for nothing.

    Args:
        identity: what is to be fetched now; bytes of anything else do not
            count as fetched. None: do not care.
    """
    progress = read_progress(paths, name)
    disk = paths.tree.disk_bytes(paths.staged(name))
    if progress is None or identity not in (None, progress.identity):
        return model.Partial(0, disk) if disk else None
    fetched = progress.consumed
    if progress.verified is None:
        ranges = [(block.offset, block.size) for block in progress.ahead]
        ranges += spool_sizes(paths, name).items()
        fetched += _count(ranges, progress.consumed)
    return model.Partial(fetched, disk) if fetched or disk else None


def _count(ranges: Iterable[Tuple[int, int]], start: int) -> int:
    """Return how many bytes from `start` on lie in any of the ranges."""
    count = 0
    for offset, size in sorted(ranges):
        begin = max(start, offset)
        start = max(start, offset + size)
        count += start - begin if start > begin else 0
    return count


def spool_sizes(paths: layout.Layout, name: str) -> Dict[int, int]:
    """Return the bytes in each spool of an image, by where it begins."""
    sizes = {}
    for entry in paths.tree.list(paths.partial):
        if not paths.is_spool(name, entry):
            continue
        found = paths.tree.stat(os.path.join(paths.partial, entry))
        if found is not None:
            sizes[int(entry.split('.')[-2])] = found.st_size
    return sizes


def remove_spools(
    paths: layout.Layout, name: str, *, keep: Optional[int] = None
) -> None:
    """Remove an image's spools, but for the one that begins at `keep`."""
    kept = None if keep is None else paths.spool(name, keep)
    for entry in paths.tree.list(paths.partial):
        path = os.path.join(paths.partial, entry)
        if paths.is_spool(name, entry) and path != kept:
            paths.tree.remove(path)


def remove_staged(paths: layout.Layout, name: str) -> None:
    """Remove all of an unfinished image.

    The state goes first: a kill in between leaves bytes that nobody believes.
    """
    paths.tree.remove(paths.state(name))
    remove_spools(paths, name)
    paths.tree.remove(paths.staged(name))


def remove_unseen(paths: layout.Layout, name: str) -> None:
    """Remove all of an image that is not visible; the caller has its lock.

    The staged file without a state goes last: as long as that is there,
    `sweep` begins this anew.
    """
    paths.tree.remove(paths.state(name))
    remove_spools(paths, name)
    for path in (
        paths.record(name), paths.metadata(name), paths.hash(name),
        paths.head(name), paths.staged(name),
    ):
        paths.tree.remove(path)


def sweep(paths: layout.Layout, visible: Callable[[str], bool]) -> None:
    """Remove what kills have left behind.

    A kill right after a commit's rename leaves the state file, without the
    file that it tells of; a plain Lago that fetched the image leaves all of
    an unfinished one. A kill of a removal leaves a staged file that has no
    state.
    """
    for directory in paths.directories:
        paths.tree.sweep(directory)
    entries = set(paths.tree.list(paths.partial))
    for entry in entries:
        name, ending = os.path.splitext(entry)
        # Whoever put a file of his own there shall not stop us.
        with contextlib.suppress(errors.StoreError):
            if ending == '.json' and (
                visible(name) or not paths.tree.exists(paths.staged(name))
            ):
                remove_staged(paths, name)
            elif layout.is_store_name(entry) and not visible(entry):
                if f'{entry}.json' not in entries:
                    _finish_removal(paths, entry)


def _finish_removal(paths: layout.Layout, name: str) -> None:
    lock = paths.lock_of(name, 'removing it')
    try:
        lock.acquire(timeout=0)
    except lockfile.AlreadyLocked:
        return
    try:
        if not (
            paths.tree.exists(paths.state(name))
            or paths.tree.exists(paths.image(name))
        ):
            remove_unseen(paths, name)
    finally:
        lock.release()


def open_staged(paths: layout.Layout, name: str) -> int:
    """Open a staged file to read and write it, create it if need be."""
    path = paths.staged(name)
    flags = os.O_RDWR | os.O_CREAT
    try:
        return paths.tree.open(path, flags)
    except PermissionError:
        # A commit was killed after it had made the file read-only.
        fd = paths.tree.open(path)
    try:
        os.fchmod(fd, 0o644)
    except PermissionError:
        # Another user's: nobody else can make it writable again.
        paths.tree.remove(path)
    finally:
        os.close(fd)
    return paths.tree.open(path, flags)
