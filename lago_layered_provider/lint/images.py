"""Find what is wrong with the files of images, from what was seen of them.

What a client would refuse is an error; the rules are those of
`transfer.verify`, here applied to the first and the last bytes of a file.
"""

from __future__ import annotations

from typing import Iterator, Optional

from ..core import sizes
from ..core.model import Image
from .findings import Finding
from .header import judge_format, judge_header
from .seen import Content, Seen

#: A file of one block takes longer from here on: it cannot be decoded in
#: parallel, nor continued in the middle.
LARGE_BYTES = 64 << 20

#: A layer that has that share of its base's size may hold it all again; of
#: bases from that size on (uncompressed), others hardly matter.
SAME_SHARE = 0.9
NOTABLE_BYTES = 16 << 20


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
        yield from judge_format(raw, seen, base)
        if seen.header is not None:
            yield from judge_header(raw, seen, seen.header, base, base_seen)
        if base_seen is not None:
            yield from _judge_weight(seen, base_seen)
    if seen.content is not None:
        yield from _judge_content(seen, seen.content)
    yield from _judge_digests(raw, seen)
    if seen.unpaired and not (seen.missing or seen.trouble):
        yield Finding(
            'sidecar-missing', f'a plain Lago cannot fetch it without its '
            f'sidecar {", ".join(seen.unpaired)}', name,
        )


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
