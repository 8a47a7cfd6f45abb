"""Export disks of any chain: what stands in for Lago's handlers.

The steps and their order are Lago's: copy, make sparse, rebase, hash,
metadata, compress. They work on a copy in a hidden directory beside the
target, which is renamed when all is done::

    DIRECTORY/.NAME.export/   NAME, NAME.hash, NAME.metadata, NAME.xz
    DIRECTORY/                the same, when they are complete

A killed export leaves that directory; the next one begins by removing it.
The environment's disks and the store are only read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any, Callable, Dict, Iterator, List, Optional

import lago.export
import lago.utils

from ..core import errors
from ..core.model import ImageRef
from ..environments import backing_chain, export_plan
from ..environments.export_plan import Link
from ..store import Store
from ..tools import disk_tools, files, qemu_img
from . import prefix_notes

#: What Lago calls the format of a CD's image.
ISO = 'iso'


class DiskExport(lago.export.DiskExportManager):
    """Exports one disk; Lago makes one for each, and calls `export`."""

    def __init__(
        self, dst: str, disk_type: str, disk: Dict[str, Any],
        do_compress: bool, *args: Any, standalone: bool, **kwargs: Any,
    ) -> None:
        super().__init__(dst, disk_type, disk, do_compress)
        self.exported_metadata: Dict[str, Any] = export_plan.inherit_metadata(
            disk['metadata']
        )
        self.standalone = standalone
        self.format = disk['format']
        directory = os.path.expandvars(dst)
        self.target = os.path.join(directory, self.name)
        self.staging = os.path.join(directory, f'.{self.name}.export')
        # What Lago's own steps work on.
        self.dst: str = os.path.join(self.staging, self.name)
        self.chain: List[Link] = []
        self.shape = export_plan.Shape(None, direct=True)

    def export(self) -> None:
        """Export the disk; on a failure nothing of it stays.

        Raises:
            LayeredError: a message says why it is not possible.
        """
        with lago.export.LogTask(
            f'Exporting disk {self.name} to {self.target}'
        ), self._told_when_full():
            self._follow_chain()
            try:
                shutil.rmtree(self.staging, ignore_errors=True)
                os.mkdir(self.staging)
                self.copy()
                self.sparse()
                self.rebase()
                self.calc_sha('sha1')
                self.update_lago_metadata()
                self.write_lago_metadata()
                self.compress()
                self._publish()
            finally:
                shutil.rmtree(self.staging, ignore_errors=True)

    def _follow_chain(self) -> None:
        self.chain = backing_chain.read_chain(self.src, self.format)
        self.shape = export_plan.shape_export(
            self.chain, standalone=self.standalone
        )
        for link in self.chain:
            if os.path.realpath(link.path) == os.path.realpath(self.target):
                raise errors.ExportError(
                    f'Cannot export {self.src} to {self.target}: the disk '
                    f'itself needs that file',
                    hint='Choose another directory with --dst-dir.',
                )

    def copy(self) -> None:
        """Copy the disk, so that the copy finds the chain of the original."""
        with lago.export.LogTask('Copying disk'):
            disk_tools.copy(self.src, self.dst)
            for below in self.chain[1:2]:
                qemu_img.rename_base(
                    self.dst, self.format, below.path, below.format
                )

    def sparse(self) -> None:
        """Give back what the guest does not use, where that is possible."""
        if self.format == ISO:
            return
        if not disk_tools.can_sparsify():
            return
        with lago.export.LogTask('Making disk sparse'):
            try:
                disk_tools.sparsify(self.dst, self.format)
            except errors.ToolError as error:
                error.hint = error.hint or (
                    'libguestfs-test-tool tells more. Where there is no '
                    'virt-sparsify, disks are exported as they are.'
                )
                raise

    def rebase(self) -> None:
        """Put the copy on the published template, or on nothing."""
        base = self.shape.base
        if not self.shape.direct:
            with lago.export.LogTask('Merging layered image with base'):
                qemu_img.rebase(
                    self.dst, self.format,
                    base.path if base else None, base.format if base else '',
                )
        if base:
            with lago.export.LogTask('Rebase'):
                self._name_base(base)

    def _name_base(self, base: Link) -> None:
        """Write the published name of the base into header and metadata."""
        directory, name = os.path.split(base.path)
        stored = Store(directory).find(name)
        digests = stored.digests if stored else ()
        ref = export_plan.published_ref(name, digests, self._stated_base())
        qemu_img.rename_base(
            self.dst, self.format, f'./{ref.short}',
            stored.format if stored else base.format,
        )
        self._describe_base(ref, export_plan.strongest(digests))

    def _stated_base(self) -> object:
        """Return what is written down of the template that was meant.

        By `lago init` in the environment's metadata; of an exported file
        that a disk stands on it stands beside the file.
        """
        assert self.shape.base is not None
        above = self.chain[self.chain.index(self.shape.base) - 1].path
        path, way = f'{above}.metadata', ['base']
        if self.disk.get('template_type', 'lago') == 'lago':
            directory, name = os.path.split(above)
            path = os.path.join(os.path.dirname(directory), 'metadata')
            way = [prefix_notes.IMAGES, name]
        try:
            with files.open_text(path) as stream:
                said = json.load(stream)
            for key in way:
                said = said[key]
            return said
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _describe_base(
        self, ref: Optional[ImageRef], digest: Optional[Any]
    ) -> None:
        self.exported_metadata.update(export_plan.describe_base(ref, digest))

    def compress(self) -> None:
        """Leave the compressed disk instead of the plain one, if wanted."""
        if self.do_compress:
            with lago.export.LogTask('Compressing disk'):
                disk_tools.compress(self.dst)
                os.unlink(self.dst)

    def _publish(self) -> None:
        """Give the files their names; those of an older export go."""
        for ending in ('', '.xz'):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.target + ending)
        # The image comes last: what it is called is there when it is.
        for ending in ('.metadata', '.hash', '.xz', ''):
            if os.path.exists(self.dst + ending):
                os.replace(self.dst + ending, self.target + ending)

    @contextlib.contextmanager
    def _told_when_full(self) -> Iterator[None]:
        """Say where there is no room: a tool's own words name a copy."""
        try:
            yield
        except (errors.ToolError, OSError) as error:
            if not files.is_full(error):
                raise
            directory = os.path.dirname(self.target)
            raise errors.ExportError(
                f'Cannot export {self.src}: no room left in {directory}',
                hint='Make room there, or choose another with --dst-dir.',
            ) from error


class TemplateExport(DiskExport):
    """Exports a disk that was made from a template."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._describe_base(None, None)


class FileExport(DiskExport):
    """Exports a disk that was made from a file, or empty.

    Lago only copies it when it is used again, so that nothing but all of it
    is of use; after a `lago snapshot` it stands on others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, 'standalone': True})


def warn_of_size(warn: Callable[[str], None]) -> None:
    """Say what is missed where there is no virt-sparsify."""
    if not disk_tools.can_sparsify():
        warn(
            f'{disk_tools.SPARSIFY} is not installed: exported disks keep '
            f'what their guests have deleted. {disk_tools.SPARSIFY_HINT}'
        )


#: In the place of Lago's, by the type of a disk.
HANDLERS = {
    'file': FileExport,
    'empty': FileExport,
    'template': TemplateExport,
}
