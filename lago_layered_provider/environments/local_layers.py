"""Disks on qcow2 files of their own, as `lago export` writes them.

Such a file may be a layer of a published template: its header names it as
`./template:version`, and a link of that name beside the file leads into the
store. What is missing there is found here; who plans brings it in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from dataclasses import dataclass, replace
from typing import Generator, Optional

from ..core import errors
from ..core.model import Digest
from ..core.wanted import Wanted, parse_wanted
from ..formats import qcow2
from ..tools import files
from ..tools.tree import open_output

PACKED = '.xz'
READ_BYTES = 2**16
FIRST_BYTES = 512
MAX_METADATA_BYTES = 2**20


@dataclass(frozen=True)
class Parent:
    """A template that a local file stands on.

    Attributes:
        file: the file whose header names it.
        link: where qemu looks for it.
        is_here: the link is there already, and leads to the whole chain.
    """

    file: str
    link: str
    wanted: Wanted
    is_here: bool = False


def find_parent(path: str, repository: Optional[str]) -> Optional[Parent]:
    """Follow the backing files of a local file to a template.

    As qemu does: a relative name begins at the directory of the path that
    led to the file, so links to all layers of the template lie beside it.

    Args:
        repository: where the template has to come from, None for anywhere.

    Returns:
        the template that is missing, or in a store that a link leads to;
        None when the file needs none.

    Raises:
        LocalLayerError: a file cannot be read, or what is missing is no
            template.
    """
    linked: Optional[Parent] = None
    seen = set()
    while os.path.realpath(path) not in seen:
        seen.add(os.path.realpath(path))
        header = _read_header(path)
        if header is None or header.backing_file is None:
            return linked and replace(linked, is_here=True)
        name = header.backing_file
        if re.match('[^/]*:', name):
            raise _fault(path, f'backing file {name!r} is no path of a file')
        at = os.path.join(os.path.dirname(path), name)
        if linked is None and _leads_to_store(at):
            # A link into a store; more of them follow, or are missing.
            with contextlib.suppress(errors.LocalLayerError):
                linked = _name_parent(path, at, repository)
        if not os.path.isfile(at):
            return linked or _name_parent(path, at, repository)
        path = at
    raise _fault(path, 'it stands on itself')


def _leads_to_store(path: str) -> bool:
    """Tell whether a path is a link to an image of a store."""
    return os.path.islink(path) and (
        os.path.basename(os.readlink(path)).count(':') == 2
    )


def _name_parent(
    path: str, at: str, repository: Optional[str]
) -> Parent:
    """Return the template that a missing backing file is."""
    try:
        if os.path.dirname(at) not in (
            os.path.dirname(path), os.path.join(os.path.dirname(path), '.')
        ):
            raise ValueError('it is not beside the file')
        wanted = parse_wanted(os.path.basename(at))
        if wanted.version is None:
            raise ValueError('a template is named NAME:VERSION')
    except ValueError as error:
        raise _fault(
            path, f'its backing file {at} is missing, and is no template '
            f'that could be fetched: {error}'
        ) from None
    return Parent(path, at, Wanted(
        wanted.template, wanted.version, repository, _read_digest(path)
    ))


def _read_digest(path: str) -> Optional[Digest]:
    """Return the base's digest, where the export has written it down."""
    try:
        with files.open_binary(f'{path}.metadata') as stream:
            said = json.loads(stream.read(MAX_METADATA_BYTES))
        algorithm, _, value = said['base_digest'].partition(':')
        return Digest(algorithm, value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_packed(path: str) -> bool:
    """Tell whether there is only the compressed form of a file."""
    return not os.path.exists(path) and os.path.isfile(path + PACKED)


def _read_header(path: str) -> Optional[qcow2.Qcow2Header]:
    """Return the header of a qcow2 file, None for any other file."""
    try:
        head, needed = b'', FIRST_BYTES
        with contextlib.closing(_chunks(path)) as chunks:
            for chunk in chunks:
                head += chunk
                if not qcow2.is_qcow2(head):
                    return None
                if len(head) >= FIRST_BYTES:
                    needed = qcow2.head_length(head)
                if len(head) >= needed:
                    break
        return qcow2.parse_header(head)
    except OSError as error:
        raise _fault(path, f'cannot be read: {error.strerror}') from error
    except qcow2.BadHeader as error:
        raise _fault(path, str(error)) from error


def _chunks(path: str) -> Generator[bytes, None, None]:
    """Yield the bytes of a file, decompressed if need be."""
    from ..transfer.decode import CorruptStream, make_decoder

    packed = is_packed(path)
    decoder = make_decoder('xz' if packed else None)
    with files.open_binary(path + PACKED if packed else path) as stream:
        try:
            while True:
                data = stream.read(READ_BYTES)
                if not data:
                    break
                yield from decoder.feed(data)
            decoder.finish()
        except CorruptStream as error:
            raise _fault(path + PACKED, str(error)) from error


def unpack(path: str) -> None:
    """Write a file beside its compressed form, in one step.

    Raises:
        LocalLayerError: it cannot be decompressed or written.
    """
    temporary = f'{path}.{secrets.token_hex(4)}.tmp'
    try:
        with open_output(temporary) as target:
            for chunk in _chunks(path):
                target.write(chunk)
        os.replace(temporary, path)
    except OSError as error:
        raise _fault(path, f'cannot be written: {error.strerror}') from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def make_link(link: str, target: str) -> None:
    """Let a link lead to an image in the store, wherever it led before.

    Raises:
        LocalLayerError: it cannot be made.
    """
    temporary = f'{link}.{secrets.token_hex(4)}.tmp'
    try:
        os.symlink(target, temporary)
        os.replace(temporary, link)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise _fault(
            link, f'the link to {target} cannot be made: {error.strerror}'
        ) from error


def _fault(path: str, reason: str) -> errors.LocalLayerError:
    return errors.LocalLayerError(
        f'{path}: {reason}',
        hint='It is the file of a disk with "template_type: qcow2".',
    )
