"""How far a staged image is: what stands in its state file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

from ..core import errors, model
from ..core.record import Record, is_count, parse_record
from . import files, layout


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
    """

    identity: str
    validator: Optional[str] = None
    consumed: int = 0
    produced: int = 0
    preamble: bytes = b''
    verified: Optional[Record] = None

    def to_json(self) -> Dict[str, Any]:
        """Return the progress as JSON's values."""
        return {
            'identity': self.identity,
            'validator': self.validator,
            'consumed': self.consumed,
            'produced': self.produced,
            'preamble': self.preamble.hex(),
            'verified': self.verified and self.verified.to_json(),
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
    value = files.read_object(paths.state(name))
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
    except ValueError:
        return None
    return Progress(
        identity, validator, int(str(consumed)), int(str(produced)),
        preamble, verified,
    )


def write_progress(
    paths: layout.Layout, name: str, progress: Progress
) -> None:
    """Replace the state of a staged image.

    It is not forced to the disk: after a power cut the digest of the whole
    file decides whether what was found there is true.
    """
    files.write_json(paths.state(name), progress.to_json())


def read_partial(
    paths: layout.Layout, name: str, identity: Optional[str]
) -> Optional[model.Partial]:
    """Return what is there of an unfinished image, None for nothing.

    Args:
        identity: what is to be fetched now; bytes of anything else do not
            count as fetched. None: do not care.
    """
    progress = read_progress(paths, name)
    disk = files.disk_bytes(paths.staged(name))
    if progress is None or identity not in (None, progress.identity):
        return model.Partial(0, disk) if disk else None
    spooled = 0
    if progress.verified is None:
        try:
            spooled = os.stat(paths.spool(name, progress.consumed)).st_size
        except OSError:
            spooled = 0
    fetched = progress.consumed + spooled
    return model.Partial(fetched, disk) if fetched or disk else None


def remove_spools(
    paths: layout.Layout, name: str, *, keep: Optional[int] = None
) -> None:
    """Remove an image's spools, but for the one that begins at `keep`."""
    for entry in os.listdir(paths.partial):
        path = os.path.join(paths.partial, entry)
        if paths.is_spool(name, entry) and (
            keep is None or path != paths.spool(name, keep)
        ):
            files.remove_file(path)


def remove_staged(paths: layout.Layout, name: str) -> None:
    """Remove all of an unfinished image.

    The state goes first: a kill in between leaves bytes that nobody believes.
    """
    files.remove_file(paths.state(name))
    remove_spools(paths, name)
    files.remove_file(paths.staged(name))


def sweep(paths: layout.Layout, visible: Callable[[str], bool]) -> None:
    """Remove unfinished images that are visible by now.

    A kill right after a commit's rename leaves the state file, a plain Lago
    that fetched the image leaves all of it.
    """
    for entry in os.listdir(paths.partial):
        name, ending = os.path.splitext(entry)
        # Whoever put a file of his own there shall not stop us.
        with contextlib.suppress(errors.StoreError):
            if ending == '.json' and visible(name):
                remove_staged(paths, name)


def open_staged(path: str) -> int:
    """Open a staged file to read and write it, create it if need be."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o666)
    except PermissionError:
        # A commit was killed after it had made the file read-only.
        os.chmod(path, 0o644)
        return os.open(path, flags, 0o666)
