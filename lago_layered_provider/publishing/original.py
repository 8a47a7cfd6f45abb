"""The images of a directory as they were found, and what names they suggest.

An admin's images come from many hands: `NAME.qcow2`, `NAME:VERSION` as in a
store, files of lago-images with a `.metadata` beside them. Nothing is decided
here about what stands on what; that is in `publication`.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from ..core import model
from ..core.model import Image
from ..index import entry
from ..index.backing_names import IMAGE_ENDINGS

#: Endings that a raw image can be told by; it has no header.
RAW_ENDINGS = ('.img', '.raw')

ENDINGS = tuple(dict.fromkeys([*IMAGE_ENDINGS, *RAW_ENDINGS]))

#: Keys of a `.metadata` that speak of the file it lies beside, and not of the
#: template; a published file has others.
FILE_KEYS = frozenset({
    'base', 'size', 'sha1', 'sha256', 'sha512', 'checksum', 'timestamp',
    'uncompressed_checksum', 'compressed_size', 'compressed_sha1', 'version',
})


@dataclass(frozen=True)
class Original:
    """An image file of the directory that is not published as it is now.

    Attributes:
        path: from the directory on, with slashes.
        date: of the file, as a version can be called.
        time: of the file, in seconds since 1970.
        backing: the backing file, as the header names it; None for none. A
            path inside the directory is one from the directory on.
        backing_format: the format that the header gives for it.
        metadata: what lies beside it as `.metadata`.
        entry: what an index that another tool wrote says of the file.
    """

    path: str
    format: str
    time: float
    date: str
    backing: Optional[str] = None
    backing_format: Optional[str] = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    entry: Optional[Image] = None

    def suggest_name(self) -> Tuple[str, Optional[str]]:
        """Return a template and, where something tells it, a version.

        lago-images has both in its metadata; before it had versions its
        `name` was a title and the `id` the name.
        """
        if self.entry is not None:
            return self.entry.ref.template, self.entry.ref.version
        name, version = self.metadata.get('name'), self.metadata.get('version')
        if _is_name(name) and _is_name(version):
            return str(name), str(version)
        template, _, version = strip_endings(self.path).rpartition('/')[
            2
        ].partition(':')
        if ':' in version:  # as in a store: REPOSITORY:TEMPLATE:VERSION
            template, _, version = version.partition(':')
        if _is_name(self.metadata.get('id')):
            template = str(self.metadata['id'])
        return template, version or None

    def describe(self) -> Dict[str, Any]:
        """Return what the metadata says of the template."""
        known = dict(self.entry.metadata or {}) if self.entry else {}
        known.update(self.metadata)
        return {
            key: value for key, value in known.items() if key not in FILE_KEYS
        }

    def is_newer_layer_of(self, base: Original) -> bool:
        """Tell whether it seems to be made on what a base is now."""
        return (
            self.backing is not None and self.path != base.path
            and is_same_file(base.path, self.backing)
            and self.time >= base.time
        )


def strip_endings(name: str) -> str:
    """Return a file name without the endings of images and compressions."""
    name = entry.strip_suffix(name)
    for ending in ENDINGS:
        if name.endswith(ending):
            return name[:-len(ending)]
    return name


def is_same_file(path: str, name: str) -> bool:
    """Tell whether a backing file name may mean the file at a path."""
    return strip_endings(posixpath.basename(path)) == strip_endings(
        posixpath.basename(name)
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(
        model.NAME_PATTERN.fullmatch(value)
    )
