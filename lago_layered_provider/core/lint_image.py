"""Find what is wrong with the files of images, from what was seen of them.

What a client would refuse is an error; the rules are those of
`transfer.verify`, here applied to the first and the last bytes of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

from . import backing_names, safety, sizes
from .lint import Finding
from .model import Digest, Image, Unknown
from .qcow2 import Qcow2Header

#: A file of one block takes longer from here on: it cannot be decoded in
#: parallel, nor continued in the middle.
LARGE_BYTES = 64 << 20

#: A layer that has that share of its base's size may hold it all again; of
#: bases from that size on (uncompressed), others hardly matter.
SAME_SHARE = 0.9
NOTABLE_BYTES = 16 << 20


@dataclass(frozen=True)
class Content:
    """What the whole of an image is, read to its end.

    Attributes:
        size, digests: of the uncompressed image.
        file_sha512: of the file as it is fetched.
        fault: why it could not be read to its end.
    """

    size: int
    digests: Tuple[Digest, ...] = ()
    file_sha512: str = ''
    fault: str = ''


@dataclass(frozen=True)
class MirrorFile:
    """A file at a mirror: its size, or why there is none."""

    place: str
    size: Optional[int] = None
    fault: str = ''


@dataclass(frozen=True)
class Seen:
    """What the source shows of an image.

    Attributes:
        image: as the index has it, with what was looked up.
        url: where its file is.
        missing: its file is not there.
        trouble: why its file cannot be read.
        faults: what is wrong, found while it was looked at.
        total: bytes of the file as the source has it.
        head_fault: why the beginning cannot be decompressed.
        is_qcow2: None where the beginning could not be read.
        header: of a qcow2 image, None where it cannot be understood.
        header_fault: why not.
        size: bytes of the uncompressed image, as the end of the file says.
        units: blocks or frames that can be decoded each for itself; None
            where that was not told.
        hashed: the digest in the sidecar `.hash`.
        content: when it was read to its end.
    """

    image: Image
    url: str = ''
    missing: bool = False
    trouble: str = ''
    faults: Tuple[Finding, ...] = ()
    total: Optional[int] = None
    head_fault: str = ''
    is_qcow2: Optional[bool] = None
    header: Optional[Qcow2Header] = None
    header_fault: str = ''
    size: Optional[int] = None
    units: Optional[int] = None
    hashed: Optional[Digest] = None
    mirrors: Tuple[MirrorFile, ...] = ()
    content: Optional[Content] = None

    @property
    def file_size(self) -> Optional[int]:
        """Bytes of the uncompressed image, as it was found."""
        if self.content is not None and not self.content.fault:
            return self.content.size
        return self.size

    @property
    def virtual_size(self) -> Optional[int]:
        """Bytes that the guest sees."""
        if self.header is not None:
            return self.header.virtual_size
        if self.is_qcow2 is False:
            return self.file_size
        return self.image.virtual_size


def judge_image(
    raw: Image, seen: Seen, base: Optional[Image],
    base_seen: Optional[Seen],
) -> Iterator[Finding]:
    """Find what is wrong with one image.

    Args:
        raw: as the index has it, without look-ups.
        base: None where there is none, or none that is known.
    """
    name = raw.ref.short
    yield from seen.faults
    if seen.missing:
        yield Finding('file-missing', f'{seen.url} is not there', name)
    elif seen.trouble:
        yield Finding('file-unreadable', seen.trouble, name)
    else:
        yield from _judge_sizes(raw, seen)
        yield from _judge_units(seen)
        yield from _judge_format(raw, seen, base)
        if seen.header is not None:
            yield from _judge_header(raw, seen, seen.header, base, base_seen)
        if base_seen is not None:
            yield from _judge_weight(seen, base_seen)
    if seen.content is not None:
        yield from _judge_content(seen, seen.content)
    yield from _judge_digests(raw, seen)


def _judge_sizes(raw: Image, seen: Seen) -> Iterator[Finding]:
    name = raw.ref.short
    for code, said, found, what in (
        ('compressed-size', None if seen.image.compression is None
         else seen.image.compressed_size, seen.total, 'file'),
        ('size', None if seen.content else seen.image.size, seen.size,
         'image, uncompressed,'),
    ):
        if None not in (said, found) and said != found:
            yield Finding(
                code, f'the {what} has {found} bytes, not {said} as the '
                f'index or its sidecar says', name,
            )


def _judge_units(seen: Seen) -> Iterator[Finding]:
    size = seen.size or seen.image.size or 0
    if size < LARGE_BYTES or seen.units is None or seen.units > 1:
        return
    kind, advice = {
        'xz': ('block', 'xz --block-size=16MiB'),
        'zst': ('frame', 'the seekable format'),
    }[str(seen.image.compression)]
    yield Finding(
        'one-block',
        f'{sizes.size_text(size)} in a single {kind}: it is decoded by one '
        f'processor, and from the start after a break; use {advice}',
        seen.image.ref.short,
    )


def _judge_format(
    raw: Image, seen: Seen, base: Optional[Image]
) -> Iterator[Finding]:
    name = raw.ref.short
    if seen.head_fault:
        yield Finding(
            'damaged', f'{seen.url} cannot be decompressed: '
            f'{seen.head_fault}', name,
        )
    elif raw.format == 'raw' and seen.is_qcow2:
        yield Finding(
            'format', 'is a qcow2 image; the index says raw', name
        )
    elif raw.format == 'qcow2' and seen.is_qcow2 is False:
        yield Finding(
            'format', 'is no qcow2 image, as the index says', name
        )
    elif seen.header_fault:
        yield Finding('header', seen.header_fault, name)
    elif seen.is_qcow2 is False and base is not None:
        yield Finding(
            'format', f'is a raw image and cannot stand on '
            f'{base.ref.short}', name,
        )
    if seen.is_qcow2 is False and None not in (
        raw.virtual_size, seen.size
    ) and raw.virtual_size != seen.size:
        yield Finding(
            'virtual-size', f'has {seen.size} bytes; the index says '
            f'virtual_size {raw.virtual_size}', name,
        )


def _judge_header(
    raw: Image, seen: Seen, header: Qcow2Header, base: Optional[Image],
    base_seen: Optional[Seen],
) -> Iterator[Finding]:
    name = raw.ref.short
    yield from _judge_backing(raw, seen.image, header, base)
    # The backing file is judged above, under codes of its own.
    expected = None if header.backing_file is None else [header.backing_file]
    for danger in safety.find_dangers(
        header, expected_backing=expected, file_size=seen.file_size,
    ):
        yield Finding('unsafe', danger, name)
    if raw.virtual_size not in (None, header.virtual_size):
        yield Finding(
            'virtual-size', f'the header says {header.virtual_size} bytes; '
            f'the index says {raw.virtual_size}', name,
        )
    for oddity in safety.find_oddities(
        header,
        base_virtual_size=base_seen.virtual_size if base_seen else None,
    ):
        yield Finding('shrinks', oddity, name)


def _judge_backing(
    raw: Image, image: Image, header: Qcow2Header, base: Optional[Image]
) -> Iterator[Finding]:
    name, backing = raw.ref.short, header.backing_file
    if isinstance(image.base, Unknown):
        return  # the header cannot tell it, which was said
    if image.base is None:
        if backing is not None:
            yield Finding(
                'backing-unexpected', f'its header names the backing file '
                f'{backing!r}; the index says that it has no base', name,
            )
        return
    if backing is None:
        yield Finding(
            'backing-missing', f'its header names no backing file; the '
            f'index says that it stands on {image.base}', name,
        )
        return
    if header.backing_format is None:
        yield Finding(
            'backing-format', 'its header does not say the format of its '
            'backing file: qemu-img refuses it or guesses', name,
        )
    if base is None:
        return
    accepted = backing_names.Accepted(base.ref, base.handle, base.digests)
    if backing not in accepted:
        yield Finding(
            'backing-foreign', f'its header names the backing file '
            f'{backing!r}, which is not its base {base.ref.short}', name,
        )
    elif backing_names.is_path(backing) and (
        '/' in backing[2 if backing.startswith('./') else 0:]
    ):
        yield Finding(
            'backing-path', f'its header names a path of another machine, '
            f'{backing!r}: a client of ours replaces it, other tools do '
            f'not', name,
        )


def _judge_weight(seen: Seen, base: Seen) -> Iterator[Finding]:
    """Find a layer that holds its base again: Lago's issue 51."""
    own, below = _weight(seen), _weight(base)
    if own is None or below is None or below < NOTABLE_BYTES:
        return
    if own >= SAME_SHARE * below:
        yield Finding(
            'carries-base',
            f'takes {sizes.size_text(own)}, its base '
            f'{base.image.ref.short} {sizes.size_text(below)}: it may hold '
            f'all of it again, as after virt-resize; see add-layer',
            seen.image.ref.short,
        )


def _weight(seen: Seen) -> Optional[int]:
    found = seen.file_size
    return seen.image.size if found is None else found


def _judge_content(seen: Seen, content: Content) -> Iterator[Finding]:
    name = seen.image.ref.short
    if content.fault:
        yield Finding('damaged', content.fault, name)
        return
    if seen.image.size not in (None, content.size):
        yield Finding(
            'size', f'the image, uncompressed, has {content.size} bytes, not '
            f'{seen.image.size} as the index or its sidecar says', name,
        )
    made = {digest.algorithm: digest.value for digest in content.digests}
    for digest in seen.image.digests:
        found = made.get(digest.algorithm, digest.value)
        if found != digest.value:
            yield Finding(
                'digest', f'its {digest.algorithm} is {found[:16]}..., not '
                f'{digest.value[:16]}... as the index or its sidecar says',
                name,
            )


def _judge_digests(raw: Image, seen: Seen) -> Iterator[Finding]:
    name = raw.ref.short
    if seen.image.digest is None and not (seen.missing or seen.trouble):
        yield Finding(
            'digest-missing', 'nothing gives a digest of it: no client can '
            'tell whether it is the right file', name,
        )
    if seen.hashed is None:
        return
    others = [(raw.digests, 'the index says')]
    if seen.content is not None and not seen.content.fault:
        others.append((seen.content.digests, 'that of the image is'))
    for digests, says in others:
        for digest in digests:
            if (
                digest.algorithm == seen.hashed.algorithm
                and digest != seen.hashed
            ):
                yield Finding(
                    'sidecar-hash', f'its sidecar .hash says sha1 '
                    f'{seen.hashed.value[:16]}...; {says} '
                    f'{digest.value[:16]}...', name,
                )
                return
