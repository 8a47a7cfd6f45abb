"""Look at the files of one image, in few small requests.

The first bytes of the file, its last ones, its two sidecars; at mirrors a
HEAD. What that means is judged by `images`; nothing is raised for
what an admin or a server can have done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import (
    Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar,
)

from ..core import errors, model
from ..core.model import Digest, Image, Unknown
from ..formats import blocks, detect, qcow2, qcow2_peek, xz, zstd
from ..formats.block import Needed
from ..index import document as index, entry, sidecar
from ..providers import ranges
from ..repositories import lookup, lookup_file, lookup_size
from ..repositories.lookup_file import Head
from ..repositories.reading import try_again
from ..transfer.ports import Provider
from .findings import Finding
from .seen import MirrorFile, Seen

T = TypeVar('T')


@dataclass(frozen=True)
class Place:
    """A source, or a mirror of it; `name` is for messages."""

    provider: Provider
    name: str


class Inspector:
    """Looks at the images of one source.

    Args:
        mirrors: further places that have the same files.
        retries: of a small request.
    """

    def __init__(
        self, place: Place, mirrors: Sequence[Place], retries: int
    ) -> None:
        self._provider = place.provider
        self._mirrors = mirrors
        self._retries = retries
        self._dead: Dict[str, str] = {}

    def inspect(self, image: Image) -> Seen:
        """Return what there is to see of an image.

        Raises:
            TransferError: its source cannot be asked.
        """
        seen = self._read_sidecars(image)
        image = seen.image
        found = self._find(image)
        if found is None:
            return replace(
                seen, missing=True, url=self._provider.locate(
                    image.handle if isinstance(image.compression, Unknown)
                    else image.file
                ),
            )
        seen = self._look_into(replace(seen, image=found[0]), found[1])
        return replace(seen, mirrors=tuple(
            self._ask_mirror(seen.image, each) for each in self._mirrors
        ))

    def _look_into(self, seen: Seen, head: Head) -> Seen:
        """Add what a file shows that is there."""
        file, total = seen.image.file, head.total
        if total is None:
            total = self._ask(lambda: self._provider.stat(file)).size
        seen = _read_header(replace(
            seen, total=total, head_fault=head.fault,
            url=self._provider.locate(file),
        ), head, self._provider)
        try:
            size, units = self._read_end(seen.image, head, total)
            seen = replace(seen, last=self._read_last(seen, total))
        except xz.BadXz as error:
            size, units = None, None
            seen = replace(seen, faults=(*seen.faults, Finding(
                'damaged', f'the end of {seen.url}: {error}',
                seen.image.ref.short,
            )))
        image = seen.image
        return replace(seen, size=size, units=units, image=replace(
            image,
            size=size if image.size is None else image.size,
            compressed_size=(
                total if image.compressed_size is None
                else image.compressed_size
            ),
        ))

    def _ask(self, action: Callable[[], T]) -> T:
        return try_again(action, self._retries)

    def _find(self, image: Image) -> Optional[Tuple[Image, Head]]:
        """Return the image with its compression, and its first bytes."""
        forms: List[Optional[str]] = [
            name for name in lookup.COMPRESSIONS
            if name and image.handle.endswith(model.SUFFIXES[name])
        ] or list(lookup.COMPRESSIONS)
        if not isinstance(image.compression, Unknown):
            forms = [image.compression]
        for form in forms:
            one = replace(image, compression=form)
            try:
                return one, self._ask(
                    lambda: lookup_file.read_head(one, self._provider)
                )
            except errors.TransferError as error:
                if not ranges.is_missing(error):
                    raise
        return None

    def _read_sidecars(self, image: Image) -> Seen:
        """Read `.metadata` and `.hash`, where they are."""
        faults: List[Finding] = []
        hashed = None
        names = [entry.strip_suffix(image.handle)]
        packed = names[0] + (
            '.xz' if isinstance(image.compression, Unknown)
            else model.SUFFIXES[image.compression]
        )
        if packed not in names:
            names.append(packed)
        unpaired = []
        data = self._read_first(names, '.metadata', faults, image)
        if data is not None:
            image = self._add_metadata(image, data, faults)
        elif not faults:
            unpaired.append('.metadata')
        before = len(faults)
        data = self._read_first(names, '.hash', faults, image)
        if data is None and len(faults) == before:
            unpaired.append('.hash')
        elif data is not None:
            words = data.decode('ascii', 'replace').split()
            try:
                hashed = Digest('sha1', words[0].lower() if words else '')
            except ValueError as error:
                faults.append(_sidecar_fault(image, 'hash', str(error)))
            else:
                image = replace(image, digests=image.digests or (hashed,))
        return Seen(
            image, faults=tuple(faults), hashed=hashed,
            unpaired=tuple(unpaired),
        )

    def _read_first(
        self, names: Sequence[str], suffix: str, faults: List[Finding],
        image: Image,
    ) -> Optional[bytes]:
        for name in names:
            try:
                data = self._ask(lambda: ranges.read_small(
                    self._provider, name + suffix, lookup.MAX_SIDECAR_BYTES
                ))
            except errors.IndexFaults as error:
                faults += [
                    _sidecar_fault(image, suffix[1:], fault)
                    for fault in error.faults
                ]
                return None
            if data is not None:
                return data
        return None

    def _add_metadata(
        self, image: Image, data: bytes, faults: List[Finding]
    ) -> Image:
        try:
            document: Any = index.parse_json(data, '')
            if not isinstance(document, dict):
                raise errors.IndexFaults('', ['is not a JSON object'])
        except errors.IndexFaults as error:
            faults += [
                _sidecar_fault(image, 'metadata', fault)
                for fault in error.faults
            ]
            return image
        return sidecar.add_sidecar(image, document)

    def _read_last(self, seen: Seen, total: Optional[int]) -> bytes:
        """Return the last bytes of a raw image that is not compressed."""
        if seen.is_qcow2 is not False or seen.image.compression or not total:
            return b''
        start = max(0, total - detect.LAST_BYTES)
        part = self._ask(lambda: ranges.read_range(
            self._provider, seen.image.file, start, total
        ))
        return part.data if part.start == start else b''

    def _read_end(
        self, image: Image, head: Head, total: Optional[int]
    ) -> Tuple[Optional[int], Optional[int]]:
        """Return the uncompressed size, and the units that a file has.

        Raises:
            BadXz: it does not end as an .xz file does.
        """
        if image.compression is None:
            return total, None
        assert not isinstance(image.compression, Unknown)
        if head.is_whole:
            return lookup_size.size_of_whole(image.compression, head), None
        if total is None or not lookup_size.has_tail(image.compression):
            return None, None
        needed = min(total, lookup_size.TAIL_BYTES)
        while True:
            part = self._ask(lambda: ranges.read_range(
                self._provider, image.file, total - needed, total
            ))
            if part.start != total - needed or len(part.data) < needed:
                return None, None
            found = blocks.read_map(image.compression, part.data, total)
            if not isinstance(found, Needed):
                break
            needed = found.bytes_needed
        if found is not None:
            return found.image_size, len(found.blocks)
        if image.compression == 'zst':
            # One frame that says how much it makes has no other after it,
            # if that is all of the image.
            made = zstd.parse_content_size(head.file)
            whole = made is not None and made == image.size
            return None, 1 if whole else None
        return None, None

    def _ask_mirror(self, image: Image, mirror: Place) -> MirrorFile:
        if mirror.name in self._dead:
            return MirrorFile(mirror.name, fault=self._dead[mirror.name])
        try:
            info = self._ask(lambda: mirror.provider.stat(image.file))
        except errors.TransferError as error:
            missing = ranges.is_missing(error)
            if error.status is None:
                # Nobody should wait for it as often as there are images.
                self._dead[mirror.name] = error.message
            return MirrorFile(
                mirror.name, fault='' if missing else error.message
            )
        return MirrorFile(mirror.name, info.size)


def _read_header(seen: Seen, head: Head, provider: Provider) -> Seen:
    """Add what the first bytes tell, and what is wrong with them."""
    if head.fault and not head.image:
        return seen
    seen = replace(
        seen, first=head.image[:detect.FIRST_BYTES], head_fault=''
    )
    if not seen.is_qcow2 and head.fault:
        return replace(seen, head_fault=head.fault)
    if seen.is_qcow2 and seen.image.format != 'raw':
        try:
            header = qcow2_peek.peek_header(head.image)
            seen = replace(seen, header=header)
        except qcow2.BadHeader as error:
            reason = head.fault or str(error)
            return replace(seen, header_fault=reason)
    elif seen.first and detect.name_kind(seen.first):
        return seen  # it is no image at all, which will be said
    try:
        return replace(seen, image=lookup_file.add_header(
            seen.image, head, provider
        ))
    except errors.IndexFaults as error:
        return replace(seen, faults=(*seen.faults, *(
            Finding('backing-foreign', fault, seen.image.ref.short)
            for fault in error.faults
        )))


def _sidecar_fault(image: Image, kind: str, fault: str) -> Finding:
    return Finding(
        f'sidecar-{kind}', f'its sidecar .{kind}: {fault}', image.ref.short
    )
