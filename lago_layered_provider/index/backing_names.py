"""Read what a published qcow2 header calls its base, and judge it.

The store gives every layer a backing file name of its own before anything
opens the file, so a published name is only compared here, never followed.
Why paths of a build host may be among them: docs/decisions/0009.
"""

from __future__ import annotations

import posixpath
import re
from typing import Collection, FrozenSet, Iterator

from ..core import model
from ..core.model import Base, Digest, ImageRef
from . import entry

IMAGE_ENDINGS = ('.qcow2', '.img')
SUFFIXES = tuple(filter(None, model.SUFFIXES.values()))


def parse_backing(name: str) -> Base:
    """Return the base that a header names, where nothing else does.

    Known are `NAME`, `NAME:VERSION`, a file name with the ending of an image
    (`NAME.qcow2`), each with or without `./`, and the two forms that begin
    with a sha512 of the base's file.

    Raises:
        ValueError: it is none of these; above all, no path.
    """
    plain = _without_dot(name)
    digest = entry.split_digest(plain)
    if digest:
        return model.BaseDigest(*digest)
    if '/' in plain:
        raise ValueError(f'backing file {name!r} is not in its directory')
    try:
        if plain.endswith(IMAGE_ENDINGS + SUFFIXES):
            file = model.check_name(plain, 'backing file')
            return model.BaseFile(entry.strip_suffix(file))
        base = entry.parse_base(plain)
    except ValueError as error:
        raise ValueError(f'backing file {name!r}: {error}') from None
    if not isinstance(base, model.BaseName):
        raise ValueError(f'backing file {name!r} names no image')
    return base


def accepted_backings(ref: ImageRef, handle: str) -> FrozenSet[str]:
    """Return how a published header may name the base `ref`.

    A plain file name, with or without ``./``, never in another directory.
    qemu would take ``name:version`` without ``./`` for a protocol; it is
    accepted because the store writes a name of its own in any case.

    Args:
        handle: the path of the base's file in its source.
    """
    file = posixpath.basename(handle)
    plain = entry.strip_suffix(file)
    stem = _cut(plain, IMAGE_ENDINGS)
    names = {ref.template, ref.short, str(ref)}
    if stem not in ('', '.', '..') and ':' not in file:
        names |= {file, plain, stem, *(stem + end for end in IMAGE_ENDINGS)}
        # lago-images decompresses NAME.xz to a file that keeps that name.
        names |= {plain + suffix for suffix in SUFFIXES}
    return frozenset(names | {f'./{name}' for name in names})


class Accepted(Collection[str]):
    """What the published header of a layer may call its base.

    It contains all that is accepted; iterating over it gives the usual
    names only, for a message. Beside `accepted_backings` these are the forms
    with the sha512 of the base, and a path that ends in an accepted name:
    the place of the base on the machine where the layer was made.

    Args:
        digests: those known of the base; without a sha512 among them the
            name in a form with a digest must be an accepted one.
    """

    def __init__(
        self, ref: ImageRef, handle: str, digests: Collection[Digest] = ()
    ) -> None:
        self._names = accepted_backings(ref, handle)
        self._shown = [
            name for name in sorted(self._names)
            if not name.endswith(SUFFIXES)
        ]
        self._sha512 = {
            digest.value for digest in digests
            if digest.algorithm == 'sha512'
        }

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        named = entry.split_digest(_without_dot(name))
        if named:
            digest, called = named
            if self._sha512:
                return digest.value in self._sha512
            return called in self._names
        return name in self._names or (
            is_path(name) and posixpath.basename(name) in self._names
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)


def is_path(name: str) -> bool:
    """Tell whether a backing file name is a path and nothing else.

    Not one of qemu's protocols (`nbd:`, `json:`), which end at a colon before
    the first slash (QEMU, block.c, `path_has_protocol`), and not upwards.
    """
    return (
        '/' in name and name.isprintable()
        and not re.match('[^/]*:', name)
        and '..' not in name.split('/')
    )


def _without_dot(name: str) -> str:
    return name[2:] if name.startswith('./') else name


def _cut(name: str, endings: Collection[str]) -> str:
    """Return `name` without the first of `endings` that it has."""
    for ending in endings:
        if name.endswith(ending):
            return name[:-len(ending)]
    return name
