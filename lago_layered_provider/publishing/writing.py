"""Write one image as it is published, from the admin's original."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from ..index.file_names import PUBLISHED
from ..core.errors import PublishError
from ..core.model import BaseName, Image, ImageRef, SUFFIXES
from ..index.entry import strip_suffix
from ..tools import qemu_img, tree
from ..transfer.ports import Progress
from .decide import Draft
from .layout import HINT, Place, identify
from .originals import Found
from .packing import Packed, Packer, digest
from .reading_originals import read_original


@dataclass(frozen=True)
class Written:
    """A published image; `path` and `identity` are those of its original."""

    image: Image
    path: str
    identity: str


class Writer:
    """Writes images; several at the same time.

    Args:
        name: of the repository.
        compression: of the published files.
        in_place: originals get the names of their bases, and are published
            themselves where nothing is compressed.
    """

    def __init__(
        self, place: Place, name: str, compression: Optional[str],
        packer: Packer, progress: Progress, *, in_place: bool,
    ) -> None:
        self._place = place
        self._name = name
        self._compression = compression
        self._packer = packer
        self._progress = progress
        self._in_place = in_place

    def write(self, draft: Draft, found: Found) -> Written:
        """Write the file and the sidecars of an image.

        Raises:
            PublishError, ToolError, OSError: what was written is of no use;
                no index names it.
        """
        ref = ImageRef(self._name, draft.template, draft.version)
        path = self._place.path(found.file.path)
        packed_original = strip_suffix(path) != path
        change = self._in_place and not packed_original
        self._progress.begin(
            str(ref), None if packed_original else os.path.getsize(path), 0
        )
        outcome = 'failed'
        try:
            if change and draft.base:
                _rename_base(path, draft)
            # What --in-place has written may have changed it.
            identity = identify(path)
            if change and self._compression is None:
                handle, packed = found.file.path, self._read(path, ref)
            else:
                handle = (
                    f'{PUBLISHED}/{draft.template}/{draft.version}.'
                    f'{draft.original.format}'
                )
                packed = self._pack(handle, path, ref, draft)
            if identity != identify(path) or (
                identity != found.file.identity and not self._in_place
            ):
                raise PublishError(
                    path, ['it was changed while it was read'], hint=HINT
                )
            outcome = 'fetched'
        finally:
            self._progress.end(str(ref), outcome)
        image = self._describe(draft, found, ref, handle, packed)
        self._place.write_sidecars(image)
        return Written(image, found.file.path, identity)

    def _describe(
        self, draft: Draft, found: Found, ref: ImageRef, handle: str,
        packed: Packed,
    ) -> Image:
        return Image(
            ref=ref, source=self._name, handle=handle,
            timestamp=draft.timestamp,
            base=_base(draft), format=draft.original.format,
            compression=self._compression, size=packed.size,
            compressed_size=packed.compressed_size,
            virtual_size=(
                found.header.virtual_size if found.header else packed.size
            ),
            digests=packed.digests, metadata=draft.metadata,
        )

    def _pack(
        self, handle: str, path: str, ref: ImageRef, draft: Draft
    ) -> Packed:
        name = handle + SUFFIXES[self._compression]
        part = self._place.part(name)
        chunks = read_original(
            path, f'./{draft.base}' if draft.base else None,
            draft.base_format,
        )
        try:
            with tree.open_output(part) as output:
                packed = self._packer.pack(
                    chunks, output, self._compression,
                    lambda count: self._progress.advance(str(ref), count),
                    None if strip_suffix(path) != path
                    else os.path.getsize(path),
                )
            self._place.finish(name)
            return packed
        except BaseException:
            tree.remove_file(part)
            raise

    def _read(self, path: str, ref: ImageRef) -> Packed:
        size = os.path.getsize(path)
        digests = digest(read_original(path, None, None))
        self._progress.advance(str(ref), size)
        return Packed(size, size, digests)


def _base(draft: Draft) -> Optional[BaseName]:
    if draft.base is None:
        return None
    template, version = draft.base.split(':')
    return BaseName(template, version)


def _rename_base(path: str, draft: Draft) -> None:
    """Write the name of the base into an original; its time stays."""
    before = os.stat(path)
    qemu_img.rename_base(
        path, 'qcow2', f'./{draft.base}', draft.base_format or 'qcow2'
    )
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
