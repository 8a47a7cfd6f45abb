"""Decide what an exported disk stands on, and what is said of it.

A layered export stands on the published template that its disk stood on.
Files between the two are known to nobody else, so they become part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple

from ..core.model import BaseName, DIGEST_LENGTHS, Digest, ImageRef
from ..index.entry import parse_base

#: The end of the store name of an image that was published again under the
#: name of another one: the beginning of its digest.
_REPUBLISHED = re.compile(r'\+([0-9a-f]{8})')

#: What a template's metadata may say of its file, which is not the export's.
#: lago-images writes most of them; they would be taken for the new file's.
FACTS_OF_FILE = frozenset({
    'sha256', 'sha512', 'checksum', 'uncompressed_checksum', 'virtual_size',
    'compressed_size', 'compressed_sha1', 'base', 'base_digest',
})


@dataclass(frozen=True)
class Link:
    """One file of a disk's chain.

    Attributes:
        path: absolute; of an image in a template store its real path.
        store_name: the name it has in a template store, None for any other
            file.
    """

    path: str
    format: str
    store_name: Optional[str] = None


@dataclass(frozen=True)
class Shape:
    """What becomes of a disk's chain.

    Attributes:
        base: the file that the export stands on, None for no one.
        direct: the disk stands on `base`, or on nothing, as it is; otherwise
            the files between are merged into the export.
    """

    base: Optional[Link]
    direct: bool


def shape_export(chain: Sequence[Link], *, standalone: bool) -> Shape:
    """Decide what becomes of a chain, which begins with the disk itself."""
    below: Iterable[Tuple[int, Link]] = enumerate(chain[1:], 1)
    for distance, link in below:
        if link.store_name is not None and not standalone:
            return Shape(link, direct=distance == 1)
    return Shape(None, direct=len(chain) == 1)


def published_ref(
    store_name: str,
    digests: Iterable[Digest],
    stated: object = None,
) -> ImageRef:
    """Return the name under which an image in the store was published.

    Args:
        digests: those of the image.
        stated: `repository/template:version`, what the disk was made from as
            far as somebody wrote it down. It may be another name than the
            store's, which keeps the same bytes only once.
    """
    known = _read_ref(stated)
    if known is not None:
        return known
    ref = ImageRef(*store_name.split(':'))
    plain = _plain_version(ref.version)
    ending = ref.version[len(plain) + 1:]
    # A version may look like this and be meant so.
    if ending and any(digest.value.startswith(ending) for digest in digests):
        return ImageRef(ref.repository, ref.template, plain)
    return ref


def _read_ref(stated: object) -> Optional[ImageRef]:
    """Read a complete name, None for anything else."""
    try:
        name = parse_base(stated)
    except ValueError:
        return None
    if not isinstance(name, BaseName):
        return None
    if name.version is None or name.repository is None:
        return None
    return ImageRef(name.repository, name.template, name.version)


def _plain_version(version: str) -> str:
    plain, ending = version[:-9], version[-9:]
    return plain if plain and _REPUBLISHED.fullmatch(ending) else version


def base_text(ref: ImageRef) -> str:
    """Return an image's name as an index says it of a base elsewhere."""
    return str(BaseName(ref.template, ref.version, ref.repository))


def strongest(digests: Iterable[Digest]) -> Optional[Digest]:
    """Return the strongest one, None where there is none."""
    order = list(DIGEST_LENGTHS)
    return min(
        digests, key=lambda digest: order.index(digest.algorithm),
        default=None,
    )


def describe_base(
    ref: Optional[ImageRef], digest: Optional[Digest]
) -> Dict[str, Any]:
    """Return what an export's metadata says of its base."""
    if ref is None:
        return {'base': None}
    said = {'base': base_text(ref)}
    if digest is not None:
        said['base_digest'] = str(digest)
    return said


def inherit_metadata(metadata: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what of a template's metadata is true of its export as well."""
    return {
        key: value for key, value in metadata.items()
        if key not in FACTS_OF_FILE
    }
