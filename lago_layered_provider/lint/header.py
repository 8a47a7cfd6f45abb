"""Find what is wrong with the beginning of an image: format and header."""

from __future__ import annotations

from typing import Iterator, Optional

from ..core.model import Image, Unknown
from ..formats import detect, qcow2_safety
from ..formats.qcow2 import Qcow2Header
from ..index import backing_names
from .findings import Finding
from .seen import Seen


def judge_format(
    raw: Image, seen: Seen, base: Optional[Image]
) -> Iterator[Finding]:
    name = raw.ref.short
    fault = _format_fault(raw, seen)
    if seen.head_fault:
        yield Finding(
            'damaged', f'{seen.url} cannot be decompressed: '
            f'{seen.head_fault}', name,
        )
    elif fault:
        yield Finding('format', fault, name)
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


def _format_fault(raw: Image, seen: Seen) -> str:
    """Say why an image has no format that it may have, '' if it has."""
    if seen.first is None:
        return ''
    try:
        detect.tell_format(
            seen.first, declared=raw.format, size=seen.file_size,
            last=seen.content.last if seen.content else seen.last,
        )
    except ValueError as error:
        return str(error)
    return ''


def judge_header(
    raw: Image, seen: Seen, header: Qcow2Header, base: Optional[Image],
    base_seen: Optional[Seen],
) -> Iterator[Finding]:
    name = raw.ref.short
    yield from _judge_backing(raw, seen.image, header, base)
    # The backing file is judged above, under codes of its own.
    expected = None if header.backing_file is None else [header.backing_file]
    for danger in qcow2_safety.find_dangers(
        header, expected_backing=expected,
        base_format=base_seen.format if base_seen else None,
        file_size=seen.file_size,
    ):
        yield Finding('unsafe', danger, name)
    if raw.virtual_size not in (None, header.virtual_size):
        yield Finding(
            'virtual-size', f'the header says {header.virtual_size} bytes; '
            f'the index says {raw.virtual_size}', name,
        )
    for oddity in qcow2_safety.find_oddities(
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
