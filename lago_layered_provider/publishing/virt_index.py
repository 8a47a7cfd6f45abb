"""Write `DIR/index`, which virt-builder reads, beside `DIR/repo.metadata`."""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import replace
from typing import Dict, List, Optional, Tuple

from ..core import errors
from ..core.model import Image, Unknown
from ..formats import virt_index
from ..formats.virt_index import Section
from ..index import document, source_places
from ..index.document import Index
from ..lint.documents import INDEX_NAME, VIRT_NAME
from ..lint.findings import Level
from ..lint.images import judge_image
from ..lint.inspect import Inspector, Place
from ..providers.file import FileProvider
from ..repositories.sources import LOOKUP_THREADS
from ..tools import files, threads
from ..tools.tree import read_file, write_file
from . import virt_sections
from .virt_sections import Offer

READ_BYTES = 1 << 20

#: A file that is as much older than the index was there when it was read.
SETTLED_SECONDS = 2

#: The first line of what is written here, a comment to virt-builder.
MARK = b'# Written by lago template-repo index, from repo.metadata.\n'

HINT = 'Nothing was written. See all that is wrong with: lint'


def write_virt_index(directory: str) -> List[str]:
    """Write the index of a repository for virt-builder, in one step.

    A checksum of the index that is there is kept where file and size are the
    same and the file is older; all others take a read of the whole file.

    Returns:
        what people should know.

    Raises:
        PublishError: images cannot be used as they are published; all. Or
            the file that is there was written by somebody else.
        IndexFaults: there is no index, or it cannot be used.
    """
    try:
        return _Writer(directory).write()
    except OSError as error:
        raise errors.PublishError(directory, [
            f'{error.filename or directory}: {error.strerror or error}',
        ]) from error


class _Writer:
    """Writes one index."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._location = os.path.join(directory, INDEX_NAME)
        self._path = os.path.join(directory, VIRT_NAME)
        self._provider = FileProvider(directory)
        self._faults: List[str] = []
        self._warnings: List[str] = []
        self._old, self._time = self._read_old()

    def write(self) -> List[str]:
        """Do it; return what people should know."""
        data = read_file(self._location)
        if data is None:
            raise errors.IndexFaults(
                self._location, ['is not there'],
                hint='Make it with: lago template-repo create',
            )
        images = self._find_images(document.parse_index(data, self._location))
        offers = [
            offer for offer in threads.run_all(
                self._make_offer, images, LOOKUP_THREADS
            ) if offer is not None
        ]
        if self._faults:
            raise errors.PublishError(
                self._location, sorted(self._faults), hint=HINT
            )
        sections, warnings = virt_sections.make_sections(offers)
        write_file(
            self._path, MARK + virt_index.render(sections), sync=True
        )
        return sorted(self._warnings) + warnings

    def _read_old(self) -> Tuple[Dict[str, Section], float]:
        """Return the index that is there, by file, and its time."""
        data = read_file(self._path)
        if data is None:
            return {}, 0
        if data and not data.startswith(MARK):
            raise errors.PublishError(self._path, [
                'it is there, and this command has not written it',
            ], hint='Nothing was written. Move it away if it may go.')
        sections, _ = virt_index.parse(data)
        return (
            {section.path: section for section in sections},
            os.stat(self._path).st_mtime,
        )

    def _find_images(self, found: Index) -> List[Tuple[Image, bool]]:
        """Return images with handles beside the index, and if that is sure.
        """
        images = []
        for template in found.templates():
            for version in found.versions(template):
                try:
                    image = found.image(template, version)
                    spec = source_places.find_places(
                        found.source(image.source), self._location
                    )[0][0]
                except errors.IndexFaults as error:
                    self._faults.extend(
                        f'{template}:{version}: {fault}'
                        for fault in error.faults
                    )
                    continue
                within = ''
                if spec.type == 'file':
                    within = os.path.relpath(
                        str(spec.args.get('root')), self._directory
                    )
                if within.startswith('..'):
                    self._leave_out(image)
                    continue
                images.append((replace(image, handle=posixpath.normpath(
                    posixpath.join(within, image.handle)
                )), spec.type == 'file'))
        return images

    def _leave_out(self, image: Image) -> None:
        self._warnings.append(
            f'{image.ref.short} is left out: virt-builder takes only files '
            f'beside its index, and this one is elsewhere'
        )

    def _make_offer(self, pair: Tuple[Image, bool]) -> Optional[Offer]:
        image, is_sure = pair
        inspector = Inspector(Place(self._provider, ''), (), 0)
        try:
            seen = inspector.inspect(image)
        except errors.TransferError as error:
            self._faults.append(f'{image.ref.short}: {error.message}')
            return None
        if seen.missing and not is_sure:
            self._leave_out(image)
            return None
        virtual_size = seen.virtual_size
        faults = [
            finding.message for finding in judge_image(
                image, seen, None, None
            ) if finding.level is Level.ERROR
        ]
        if isinstance(seen.image.base, Unknown):
            faults = faults or ['its base cannot be told']
        elif virtual_size is None:
            faults = faults or ['its virtual size cannot be told']
        if faults or virtual_size is None:
            self._faults += [
                f'{image.ref.short}: {fault}' for fault in faults
            ]
            return None
        path, total = seen.image.file, seen.total
        assert total is not None
        return Offer(
            seen.image, path, virtual_size, total,
            self._checksum(path, total),
        )

    def _checksum(self, path: str, total: int) -> str:
        old = self._old.get(path)
        name = os.path.join(self._directory, path)
        if (
            old is not None and old.checksum
            and old.get('compressed_size') == str(total)
            and os.stat(name).st_mtime < self._time - SETTLED_SECONDS
        ):
            return old.checksum
        digest = hashlib.sha512()
        with files.open_binary(name) as stream:
            for data in iter(lambda: stream.read(READ_BYTES), b''):
                digest.update(data)
        return digest.hexdigest()
