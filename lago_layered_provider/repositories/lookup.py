"""Look up what an index leaves open about an image, in few small requests.

In this order, and only what is missing:

1. the `.metadata` file, and `.hash` where no digest is known then;
2. which compressed form there is, and its size: a HEAD where base and size
   are known, otherwise the first bytes of the file, which hold the qcow2
   header as well;
3. the end of the file, which tells its size uncompressed (`lookup_size`).

What one image has shown of its source saves requests for the next one.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from ..core import model
from ..core.errors import IndexFaults, TransferError
from ..core.model import Digest, Image, ImageRef, UNKNOWN, Unknown
from ..index import document as index, entry, sidecar
from ..providers.ranges import is_missing, read_small
from ..transfer.ports import Provider
from . import lookup_file, lookup_size
from .lookup_file import Head

#: Sidecars are short; a page of an error or a game is not read to its end.
MAX_SIDECAR_BYTES = 2**20

#: The order in which an unnamed compression is tried; Lago's own first.
COMPRESSIONS = ('xz', None, 'zst', 'gz')

#: Sidecars of `NAME` and of `NAME.xz`: Lago itself reads both.
PLAIN, PACKED = 'plain', 'packed'

T = TypeVar('T')


def is_complete(image: Image) -> bool:
    """Tell whether the plan and the transfer can do without look-ups."""
    return (
        image.base is not UNKNOWN
        and image.compression is not UNKNOWN
        and image.digest is not None
        and image.size is not None
        and (image.compressed_size is not None or image.compression is None)
        and image.metadata is not None
    )


class Lookups:
    """Look-ups in one source of one index; used by several threads.

    An image that was looked up is not asked for again, even where something
    is still unknown: no answer would be another one.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._lock = threading.Lock()
        self._done: Dict[ImageRef, Image] = {}
        # What images have shown; only used to ask the likely thing first.
        self._compressions: Tuple[Optional[str], ...] = COMPRESSIONS
        self._forms: Tuple[str, ...] = (PLAIN, PACKED)
        self._ranges = True

    def look_up(self, image: Image) -> Image:
        """Return the image with all that its source can tell about it.

        Raises:
            TransferError: the source cannot be asked, or the image is not
                there.
            IndexFaults: a sidecar or the header is not what it should be.
        """
        with self._lock:
            found = self._done.get(image.ref)
        if found is None:
            found = self._look_up(image)
            with self._lock:
                self._done[image.ref] = found
            return found
        return replace(
            found,
            base=found.base if image.base is UNKNOWN else image.base,
            digests=image.digests or found.digests,
        )

    def _look_up(self, image: Image) -> Image:
        image = self._add_sidecars(image)
        if image.base is UNKNOWN or (
            image.size is None and image.compression is not None
        ):
            image, head = self._find(
                image,
                lambda one: lookup_file.read_head(one, self.provider),
            )
            image = _with_total(image, head.total)
            image = lookup_file.add_header(image, head, self.provider)
            if image.size is None:
                image = self._add_size(image, head)
            return replace(
                image, max_size=None if image.size is not None
                else lookup_size.raise_bound(image.max_size, head),
            )
        if not _has_total(image):
            image, info = self._find(
                image, lambda one: self.provider.stat(one.file)
            )
            image = _with_total(image, info.size)
        return image

    def _find(
        self, image: Image, ask: Callable[[Image], T]
    ) -> Tuple[Image, T]:
        """Ask for the form of an image that is there.

        Returns:
            the image with its compression, and the answer.
        """
        candidates: List[Optional[str]] = [
            name for name in COMPRESSIONS
            if name and image.handle.endswith(model.SUFFIXES[name])
        ] or list(self._compressions)
        if not isinstance(image.compression, Unknown):
            candidates = [image.compression]
        tried = []
        for compression in candidates:
            one = replace(image, compression=compression)
            try:
                answer = ask(one)
            except TransferError as error:
                if not is_missing(error) or len(candidates) == 1:
                    raise
                tried.append(one.file)
                continue
            others = (name for name in COMPRESSIONS if name != compression)
            self._compressions = (compression, *others)
            return one, answer
        raise TransferError(
            self.provider.locate(image.handle),
            f'there is no such image; tried {", ".join(tried)}', status=404,
            hint='The index names a file that is not there; tell the admin.',
        )

    def _add_sidecars(self, image: Image) -> Image:
        """Read `.metadata`, and `.hash` where no digest is known then.

        They mostly come in pairs, as plain Lago demands both: the form that
        the one has is asked first for the other. Whether the one is there
        says nothing of the other, and only a digest tells a wrong image.
        """
        forms = _forms_of(image, self._forms)
        if image.metadata is None or image.base is UNKNOWN:
            name, data = self._read_sidecar(forms, '.metadata')
            image = sidecar.add_sidecar(image, self._document(name, data))
            forms = dict(sorted(
                forms.items(), key=lambda form: form[1] != name
            ))
        if image.digest is None:
            name, data = self._read_sidecar(forms, '.hash')
            image = self._with_hash(image, name, data)
        return image

    def _read_sidecar(
        self, forms: Dict[str, str], suffix: str
    ) -> Tuple[str, Optional[bytes]]:
        """Return the first one that is there, and its name without suffix."""
        for form, name in forms.items():
            data = read_small(
                self.provider, name + suffix, MAX_SIDECAR_BYTES
            )
            if data is not None:
                self._forms = tuple(sorted(
                    (PLAIN, PACKED), key=lambda one: one != form
                ))
                return name, data
        return '', None

    def _document(self, name: str, data: Optional[bytes]) -> Dict[str, Any]:
        if data is None:
            return {}
        location = self.provider.locate(f'{name}.metadata')
        document = index.parse_json(data, location)
        if not isinstance(document, dict):
            raise IndexFaults(location, ['is not a JSON object'])
        return document

    def _with_hash(
        self, image: Image, name: str, data: Optional[bytes]
    ) -> Image:
        if data is None:
            return image
        # sha1sum writes the file's name behind the digest.
        words = data.decode('ascii', 'replace').split()
        try:
            digest = Digest('sha1', words[0].lower() if words else '')
        except ValueError as error:
            raise IndexFaults(
                self.provider.locate(f'{name}.hash'), [str(error)]
            ) from None
        return replace(image, digests=(digest,))

    def _add_size(self, image: Image, head: Head) -> Image:
        """Add the uncompressed size where it can be told exactly."""
        total = image.compressed_size
        size = None
        if head.is_whole:
            size = lookup_size.size_of_whole(image.compression, head)
        elif (
            total and self._ranges
            and lookup_size.has_tail(image.compression)
        ):
            try:
                size = lookup_size.size_by_tail(
                    self.provider, image.file, image.compression, total
                )
            except lookup_size.NoRange:
                self._ranges = False
        return replace(image, size=size)


def _has_total(image: Image) -> bool:
    """Whether compression and bytes to fetch are known."""
    if image.compression is None:
        return image.size is not None
    return (
        image.compression is not UNKNOWN and image.compressed_size is not None
    )


def _with_total(image: Image, total: Optional[int]) -> Image:
    """Return an image with the size that its file has at the source."""
    if image.compression is None:
        return image if image.size else replace(image, size=total)
    if image.compressed_size is not None:
        return image
    return replace(image, compressed_size=total)


def _forms_of(image: Image, order: Tuple[str, ...]) -> Dict[str, str]:
    """Return the names that sidecars may have, without their own suffix."""
    plain = entry.strip_suffix(image.handle)
    packed = image.handle
    if packed == plain and not isinstance(image.compression, Unknown):
        packed = image.file
    elif packed == plain:
        packed += model.SUFFIXES['xz']
    names = {PLAIN: plain, PACKED: packed}
    if packed == plain:
        del names[PACKED]
    return {form: names[form] for form in order if form in names}
