"""Look up what an index leaves open about an image, in small requests.

In this order, and only what is missing: which compressed form the server
has (its size comes with the answer), the `.metadata` and `.hash` files, the
uncompressed size from the index at the end of an .xz file, and the base
from the qcow2 header in the first bytes of the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple, Union

from .core import entry, index, model, qcow2, xz, xz_index
from .core.errors import IndexFaults, TransferError
from .core.model import UNKNOWN, BaseName, Digest, Image
from .transfer.decode import CorruptStream, make_decoder
from .transfer.ports import Provider

#: Sidecars are short; a page of an error or a game is not read to its end.
MAX_SIDECAR_BYTES = 2**20
READ_BYTES = 2**16
FIRST_BYTES = 512

#: Asked of a source for a header: enough for qemu-img's usual clusters. A
#: server would send megabytes of the rest before it sees that we have gone.
HEAD_BYTES = 2**18

#: The order in which an unnamed compression is tried; Lago's own first.
COMPRESSIONS = ('xz', None, 'zst', 'gz')


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


def look_up(image: Image, provider: Provider) -> Image:
    """Return the image with all that its source can tell about it.

    Raises:
        TransferError: the source cannot be asked, or the image is not there.
        IndexFaults: a sidecar is not what it should be.
    """
    image = _find_file(image, provider)
    if image.metadata is None or image.base is UNKNOWN:
        document = _read_metadata(image, provider)
        image = entry.add_sidecar(image, document)
    if image.digest is None:
        image = _read_hash(image, provider)
    if image.size is None:
        image = replace(image, size=_uncompressed_size(image, provider))
    if image.base is UNKNOWN:
        image = _read_header(image, provider)
    return image


def _find_file(image: Image, provider: Provider) -> Image:
    if image.compression is not UNKNOWN:
        if image.compressed_size is not None or (
            image.compression is None and image.size is not None
        ):
            return image
        size = provider.stat(image.file).size
        return replace(image, compressed_size=size)
    candidates: List[Optional[str]] = [
        name for name in COMPRESSIONS
        if name and image.handle.endswith(model.SUFFIXES[name])
    ] or list(COMPRESSIONS)
    tried = []
    for compression in candidates:
        candidate = replace(image, compression=compression)
        try:
            size = provider.stat(candidate.file).size
        except TransferError as error:
            if error.status not in (404, 410):
                raise
            tried.append(candidate.file)
            continue
        if compression is None:
            return replace(candidate, size=image.size or size)
        return replace(candidate, compressed_size=size)
    raise TransferError(
        provider.locate(image.handle),
        f'there is no such image; tried {", ".join(tried)}',
        status=404,
        hint='The index names a file that its server lacks; tell the admin.',
    )


def _sidecar(
    image: Image, provider: Provider, suffix: str
) -> Tuple[str, Optional[bytes]]:
    """Read a sidecar; Lago also knows it under the compressed file's name."""
    handle = entry.strip_suffix(image.handle)
    names = [handle + suffix]
    if image.file != handle:
        names.append(image.file + suffix)
    for name in names:
        try:
            stream = provider.open(name)
        except TransferError as error:
            if error.status not in (404, 410):
                raise
            continue
        try:
            data = b''
            while len(data) <= MAX_SIDECAR_BYTES:
                chunk = stream.read(READ_BYTES)
                if not chunk:
                    return provider.locate(name), data
                data += chunk
        finally:
            stream.close()
        raise IndexFaults(
            provider.locate(name),
            [f'is more than {MAX_SIDECAR_BYTES} bytes'],
        )
    return provider.locate(names[0]), None


def _read_metadata(image: Image, provider: Provider) -> Dict[str, Any]:
    location, data = _sidecar(image, provider, '.metadata')
    if data is None:
        return {}
    document = index.parse_json(data, location)
    if not isinstance(document, dict):
        raise IndexFaults(location, ['is not a JSON object'])
    return document


def _read_hash(image: Image, provider: Provider) -> Image:
    location, data = _sidecar(image, provider, '.hash')
    if data is None:
        return image
    # sha1sum writes the file's name behind the digest.
    words = data.decode('ascii', 'replace').split()
    try:
        digest = Digest('sha1', words[0].lower() if words else '')
    except ValueError as error:
        raise IndexFaults(location, [str(error)]) from None
    return replace(image, digests=(digest,))


def _uncompressed_size(image: Image, provider: Provider) -> Optional[int]:
    if image.compression is None:
        return image.compressed_size
    if image.compression != 'xz' or image.compressed_size is None:
        return None
    total = image.compressed_size
    needed = min(total, READ_BYTES)
    while True:
        tail = _read_range(provider, image.file, total - needed, total)
        if tail is None:
            return None
        try:
            found = xz_index.parse_index_tail(tail, total)
        except xz.BadXz:
            return None
        if not isinstance(found, xz_index.Needed):
            return found.uncompressed_size if found else None
        needed = found.bytes_needed


def _read_range(
    provider: Provider, path: str, start: int, end: int
) -> Optional[bytes]:
    """Read a range, or None where the source only sends from the start."""
    stream = provider.open(path, start=start, end=end)
    try:
        if stream.start != start:
            return None
        data = b''
        while len(data) < end - start:
            chunk = stream.read(min(READ_BYTES, end - start - len(data)))
            if not chunk:
                break
            data += chunk
        return data
    finally:
        stream.close()


def _read_header(image: Image, provider: Provider) -> Image:
    """Tell base and format from the qcow2 header."""
    head = _read_head(image, provider)
    if not qcow2.is_qcow2(head):
        return replace(image, base=None, format='raw')
    try:
        header = qcow2.parse_header(head)
    except qcow2.BadHeader as error:
        raise IndexFaults(provider.locate(image.file), [str(error)]) from None
    return replace(
        image, base=_named_by_header(image, provider, header),
        format='qcow2', virtual_size=header.virtual_size,
    )


def _named_by_header(
    image: Image, provider: Provider, header: qcow2.Qcow2Header
) -> Union[model.Base, None]:
    name = header.backing_file
    if name is None:
        return None
    plain = name[2:] if name.startswith('./') else name
    try:
        if '/' in plain:
            raise ValueError(f'backing file {name!r} is not in its directory')
        base = entry.parse_base(plain)
        if not isinstance(base, (BaseName, model.BaseDigest)):
            raise ValueError(f'backing file {name!r} names no image')
    except ValueError as error:
        raise IndexFaults(
            provider.locate(image.file), [str(error)],
            hint='Such an image is refused; tell the admin.',
        ) from None
    return base


def _read_head(image: Image, provider: Provider) -> bytes:
    """Read the first cluster, which holds header and backing file name."""
    head, needed = _read_first(image, provider, HEAD_BYTES)
    if len(head) < needed:
        head, _ = _read_first(image, provider, None)
    return head


def _read_first(
    image: Image, provider: Provider, end: Optional[int]
) -> Tuple[bytes, int]:
    """Return first bytes of the image, and how many the header needs.

    Args:
        end: so many bytes are asked of the source; None: no limit.
    """
    assert not isinstance(image.compression, model.Unknown)
    decoder = make_decoder(image.compression)
    stream = provider.open(image.file, end=end)
    head, needed = b'', FIRST_BYTES
    try:
        while len(head) < needed:
            chunk = stream.read(READ_BYTES // 4)
            if not chunk:
                break
            for piece in decoder.feed(chunk):
                head += piece
                if len(head) >= FIRST_BYTES and qcow2.is_qcow2(head):
                    needed = qcow2.head_length(head)
                if len(head) >= needed:
                    break
    except (CorruptStream, qcow2.BadHeader) as error:
        raise IndexFaults(provider.locate(image.file), [str(error)]) from None
    finally:
        stream.close()
    return head, needed
