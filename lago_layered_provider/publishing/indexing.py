"""The index of a directory: what it says already, and what it is to say."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..core import errors
from ..core.model import Image, Unknown, check_name
from ..index import document, writing
from ..index.document import Index, SourceSpec
from ..index.file_names import PUBLISHED, files_of
from ..index.entry import strip_suffix
from ..tools import tree as disk
from .layout import HINT, Known, Place, SIGNATURE
from .options import Options
from .originals import File

DAY_SECONDS = 86400


@dataclass(frozen=True)
class Before:
    """What is published already.

    Attributes:
        name: of the repository.
        images: what stays, by `TEMPLATE:VERSION`.
        listed: path of an original -> the image that an index of another
            tool says it is; these are among `images` too.
        dropped: images whose published file is gone.
        faults: what is wrong with the index.
        body: the index as it is, None where there is none.
        lifetime: seconds from its timestamp until it expires, None where it
            does not; a later run gives it as many again.
    """

    name: str
    images: Mapping[str, Image] = field(default_factory=dict)
    listed: Mapping[str, Image] = field(default_factory=dict)
    dropped: Tuple[str, ...] = ()
    faults: Tuple[str, ...] = ()
    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    timestamp: float = 0
    body: Optional[bytes] = None
    lifetime: Optional[float] = None


def read_before(
    place: Place, options: Options, files: Sequence[File],
    known: Mapping[str, Known],
) -> Before:
    """Read the index of the directory, and see what of it is still there.

    Raises:
        ToolError: nothing can be signed with the key; better known now than
            after all was packed.
    """
    if options.key is not None:
        from ..tools import gpg

        gpg.sign(b'', options.key)
    body = disk.read_file(place.index)
    faults = list(_option_faults(place, options, body))
    if body is None:
        return Before(options.name or '', faults=tuple(faults))
    try:
        found = document.parse_index(body, place.index)
    except errors.IndexFaults as error:
        return Before('', faults=(*faults, error.message), body=body)
    if options.name not in (None, found.name):
        faults.append(
            f'it is the repository {found.name}, and who uses it knows it by '
            f'that name: it cannot become {options.name}'
        )
    lifetime = None
    if found.expires is not None and found.timestamp is not None:
        lifetime = found.expires - found.timestamp
    reading = _Reading(place, found, files, known)
    faults += reading.faults
    return Before(
        found.name, reading.images, reading.listed, tuple(reading.dropped),
        tuple(faults), reading.sources, found.timestamp or 0, body,
        lifetime,
    )


def _option_faults(
    place: Place, options: Options, body: Optional[bytes]
) -> Iterable[str]:
    if body is None and options.name is None:
        yield 'it has no name yet; give it one: --name NAME'
    for value, option in (
        (options.name, '--name'), (options.version, '--version'),
    ):
        if value is not None:
            try:
                check_name(value, option)
            except ValueError as error:
                yield str(error)


def signature_faults(place: Place, options: Options) -> List[str]:
    """Return what is wrong with writing an index that is not signed."""
    if options.key is not None or not os.path.exists(place.path(SIGNATURE)):
        return []
    return [
        f'{SIGNATURE} is there, so clients expect a signature; give '
        f'--sign KEY, or remove that file'
    ]


class _Reading:
    """Sorts the entries of an index."""

    def __init__(
        self, place: Place, found: Index, files: Sequence[File],
        known: Mapping[str, Known],
    ) -> None:
        self.images: Dict[str, Image] = {}
        self.listed: Dict[str, Image] = {}
        self.dropped: List[str] = []
        self.faults: List[str] = []
        self.sources: Dict[str, SourceSpec] = {}
        self._place = place
        self._files = {file.path: file for file in files}
        self._known = known
        self._by_handle = {strip_suffix(file.path): file for file in files}
        for template, version, _ in found.entries():
            try:
                image = found.image(template, version)
                self.sources[image.source] = found.source(image.source)
            except errors.IndexFaults as error:
                self.faults.append(error.message)
                continue
            self._sort(image)
        for image in self.images.values():
            if str(image.base) in self.dropped:
                self.faults.append(
                    f'{image.ref.short} stands on {image.base}, whose '
                    f'published file is gone; bring it back, or remove '
                    f'{self._called(image)} as well'
                )

    def _called(self, image: Image) -> str:
        """Return the name of an image's file, as it is here."""
        file = self._by_handle.get(strip_suffix(image.handle))
        if isinstance(image.compression, Unknown):
            return file.path if file else image.handle
        return image.file

    def _sort(self, image: Image) -> None:
        short = image.ref.short
        if image.handle.startswith(f'{PUBLISHED}/') and not isinstance(
            image.compression, Unknown
        ):
            try:
                size = os.path.getsize(self._place.path(image.file))
            except FileNotFoundError:
                self.dropped.append(short)
                return
            announced = image.compressed_size or image.size
            if announced not in (None, size):
                self.faults.append(
                    f'{image.file} has {size} bytes, the index says '
                    f'{announced}; bring the right one back, or remove it'
                )
        elif image.handle in self._known:  # published as it lies there
            file = self._files.get(image.handle)
            one = self._known[image.handle]
            if file is None or (
                one.image == short and one.identity != file.identity
            ):
                self.dropped.append(short)
                return
        else:
            file = self._by_handle.get(strip_suffix(image.handle))
            if file is not None:
                self.listed[file.path] = image
        self.images[short] = image


def write_index(
    place: Place, options: Options, before: Before, new: Sequence[Image]
) -> None:
    """Replace the index and its signature; remove what no index names.

    What says the same as before keeps its bytes, so that clients need not
    read it again.
    """
    images = dict(before.images)
    images.update({image.ref.short: image for image in new})
    sources = {
        image.source: before.sources[image.source]
        for image in images.values() if image.source in before.sources
    }
    sources[before.name] = _our_source(options, before)

    lifetime = before.lifetime
    if options.valid_days is not None:
        lifetime = options.valid_days * DAY_SECONDS

    def render(timestamp: float) -> bytes:
        return writing.render_document(writing.make_document(
            before.name, sources, images.values(), timestamp,
            None if lifetime is None else timestamp + int(lifetime),
        ))

    body = render(before.timestamp)
    if body != before.body or lifetime is not None:
        # Clients that demand signatures refuse an index that seems older,
        # and one that expires is there to be made anew.
        body = render(max(int(time.time()), before.timestamp))
    replace_index(place, body, before.body, options.key)
    remove_unlisted(place, before, new)


def remove_unlisted(
    place: Place, before: Before, new: Sequence[Image]
) -> None:
    """Remove what neither the old index names nor the new one.

    Who has just read the old one still finds its files; the next run removes
    them.
    """
    place.remove_unlisted({
        name for image in [*before.images.values(), *new]
        for name in files_of(image)
    })


def _our_source(options: Options, before: Before) -> SourceSpec:
    spec = before.sources.get(before.name) or SourceSpec('file', {'root': '.'})
    if options.base_url is not None:
        spec = replace(spec, type='http', args={'baseurl': options.base_url})
    if options.mirrors is not None:
        spec = replace(spec, mirrors=options.mirrors)
    return spec


def replace_index(
    place: Place, body: bytes, old: Optional[bytes], key: Optional[str]
) -> None:
    """Put an index in place of the old one, signed if there is a key.

    Index and signature are two files; until the second is there the
    signature is good for the old and the new index.

    Raises:
        PublishError: clients could not read all of the new index.
    """
    _read_back(place, body)
    if key is None:
        if body != old:
            disk.write_file(place.index, body, sync=True)
    else:
        from ..tools import gpg

        signature = gpg.sign(body, key)
        if old is not None and body != old:
            disk.write_file(
                place.path(SIGNATURE),
                gpg.join(gpg.sign(old, key), signature), sync=True,
            )
        if old is None:
            disk.write_file(place.path(SIGNATURE), signature, sync=True)
        if body != old:
            disk.write_file(place.index, body, sync=True)
        disk.write_file(place.path(SIGNATURE), signature, sync=True)
    disk.sync_directory(place.root)


def _read_back(place: Place, body: bytes) -> None:
    """Read an index as a client does, before it replaces the old one."""
    faults: List[str] = []
    try:
        found = document.parse_index(body, place.index)
        for template, version, _ in found.entries():
            try:
                found.image(template, version)
            except errors.IndexFaults as error:
                faults.append(error.message)
    except errors.IndexFaults as error:
        faults.append(error.message)
    if faults:
        raise errors.PublishError(
            f'{place.root}: the index that was to be written is faulty',
            faults, hint=HINT,
        )


def write_verbatim(
    place: Place, body: bytes, signature: Optional[bytes]
) -> None:
    """Put an index in place of the old one, and the signature that it has."""
    path = place.path(SIGNATURE)
    old = disk.read_file(path)
    if signature is None:
        disk.write_file(place.index, body, sync=True)
        disk.remove_file(path)
    else:
        from ..tools import gpg

        if old is not None:
            try:
                disk.write_file(path, gpg.join(old, signature), sync=True)
            except ValueError:
                pass  # one of them is none: there is nothing to keep up
        else:
            disk.write_file(path, signature, sync=True)
        disk.write_file(place.index, body, sync=True)
        disk.write_file(path, signature, sync=True)
    disk.sync_directory(place.root)
