"""Fill in what the `.metadata` file beside an image says.

Four kinds of publisher write it, each with keys of its own. It is free-form:
what cannot be understood is left out, and never a fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, Mapping, Optional, TypeVar, Union

from ..core import model
from ..core.model import Base, Digest, Image, UNKNOWN, Unknown
from . import entry

T = TypeVar('T')


def add_sidecar(image: Image, document: Mapping[str, Any]) -> Image:
    """Fill in what an image's `.metadata` file says and the index does not.

    lago-images writes `base`, `size` and digests there (2015: `sha1`,
    `sha512`; later: `checksum`, the sha512 of the uncompressed file, while
    its `uncompressed_checksum` is that of the compressed one). The file is
    free-form, so that a value of another form is not a fault but left out.
    """
    def take(key: str, read: Callable[[Any], T]) -> Optional[T]:
        try:
            return read(document[key])
        except (KeyError, ValueError):
            return None

    digests: Dict[str, Digest] = {}
    for key, algorithm in (
        ('sha1', 'sha1'), ('sha256', 'sha256'), ('sha512', 'sha512'),
        ('checksum', 'sha512'),
    ):
        digest = take(key, lambda value: entry.read_digest(algorithm, value))
        if digest:
            digests.setdefault(algorithm, digest)
    for digest in image.digests:
        digests[digest.algorithm] = digest
    return replace(
        image,
        base=_sidecar_base(image, document),
        size=_first(image.size, take('size', _read_size_text)),
        compressed_size=_first(
            image.compressed_size,
            take('compressed_size', _read_size_text),
        ),
        digests=tuple(digests.values()),
        metadata=_first(image.metadata, document),
    )


def _sidecar_base(
    image: Image, document: Mapping[str, Any]
) -> Union[Base, None, Unknown]:
    # `lago export` writes the exported file's own name or 'None' as base,
    # whatever the truth is: that is no answer.
    if image.base is not UNKNOWN or document.get('base') in (None, 'None'):
        return image.base
    try:
        base = entry.parse_base(document['base'])
    except ValueError:
        return UNKNOWN
    if isinstance(base, model.BaseName) and base.template in (
        image.ref.template,
        entry.strip_suffix(image.handle.rsplit('/', 1)[-1]),
    ) and base.version in (None, image.ref.version):
        return UNKNOWN
    return base


def _first(old: Optional[T], new: Optional[T]) -> Optional[T]:
    return new if old is None else old


def _read_size_text(value: object) -> int:
    return entry.read_size(int(value) if isinstance(value, str) else value)
