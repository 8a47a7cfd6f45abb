"""Judge an index of virt-builder by the images that it offers."""

from __future__ import annotations

from typing import Iterator, Mapping, Optional, Sequence, Tuple

from ..formats.virt_index import Fault, Section
from .findings import Finding
from .seen import Seen

WHERE = 'index of virt-builder'


def judge_virt_index(
    sections: Sequence[Section],
    faults: Sequence[Fault],
    images: Mapping[str, Seen],
    sizes: Mapping[str, Optional[int]],
) -> Iterator[Finding]:
    """Find what is wrong with an index of virt-builder.

    Args:
        faults: of its own.
        images: those of the repository, by their path beside the index.
        sizes: bytes of the files by that path; None: not there.
    """
    for fault in faults:
        yield Finding(fault.code, f'{WHERE}: {fault.message}')
    for section in sections:
        path = section.path
        if not path:
            continue
        seen = images.get(path)
        name = seen.image.ref.short if seen else None
        where = f'{WHERE}, [{section.name}]'
        if path in sizes and sizes[path] is None and not (
            seen and seen.missing
        ):
            yield Finding('virt-file', f'{where}: {path} is not there', name)
        for code, text in _compare(section, seen, sizes.get(path)):
            yield Finding(code, f'{where}: {text}', name)


def _compare(
    section: Section, seen: Optional[Seen], total: Optional[int]
) -> Iterator[Tuple[str, str]]:
    """Compare a section with its image."""
    said = section.get('compressed_size') or ''
    if total is not None and said.isdigit() and int(said) != total:
        yield 'virt-size', f'compressed_size {said}, the file has {total}'
    if seen is None:
        return
    said = section.get('size') or ''
    virtual = seen.virtual_size
    if virtual is not None and said.isdigit() and int(said) != virtual:
        yield 'virt-size', f'size {said}, the image has {virtual}'
    content = seen.content
    if content and content.file_sha512 and section.checksum and (
        content.file_sha512 != section.checksum.lower()
    ):
        yield 'virt-checksum', 'its checksum is not that of the file'
    if seen.image.base is not None and not section.hidden and (
        seen.header is None or seen.header.backing_file is not None
    ):
        yield 'virt-layer', (
            'it is a layer, which virt-builder cannot use, and not hidden'
        )
