"""Read the first bytes of an image, and what its header says of it.

The bytes are decompressed on the way. No file name in a header is ever
opened; the header decides here what to plan, and is checked again by
`transfer.verify` before anybody uses the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

from ..core.errors import IndexFaults
from ..core.model import Image, UNKNOWN, Unknown
from ..formats import detect, qcow2, qcow2_peek
from ..index import backing_names
from ..providers.ranges import read_range
from ..transfer.decode import CorruptStream, make_decoder
from ..transfer.ports import Provider

#: How far a source is asked for the header, in bytes: enough for all that
#: qemu-img makes, then a little, then more than any header can need.
ENDS = (128 << 10, 512 << 10, 4 << 20)

#: The decoder gets so much at once: it must not decode much in vain.
FEED_BYTES = 2**14

HINT = 'Such an image is refused; tell the admin.'


@dataclass(frozen=True)
class Head:
    """The beginning of an image.

    Attributes:
        image: the first bytes of the image, uncompressed.
        file: the first bytes of its file, as the source has it.
        total: bytes of the whole file, where known.
        fault: why the image cannot be read further, '' if it can.
    """

    image: bytes
    file: bytes
    total: Optional[int]
    fault: str = ''

    @property
    def is_whole(self) -> bool:
        """Whether `file` is the whole file."""
        return len(self.file) == self.total


def read_head(image: Image, provider: Provider) -> Head:
    """Read as much as the header of an image needs, mostly in one request.

    Raises:
        TransferError: it is not there, or cannot be read.
    """
    file, validator = b'', None
    for end in ENDS:
        part = read_range(provider, image.file, len(file), end, validator)
        if part.start != len(file):
            part = read_range(provider, image.file, 0, end)
            file = b''
        file += part.data
        validator = part.validator
        head, missing, fault = _decode(image, file)
        if not missing or fault or len(file) < end:
            break
    return Head(head, file, part.total, fault)


def _decode(image: Image, file: bytes) -> Tuple[bytes, bool, str]:
    """Return the image's first bytes, whether too few, and what is wrong."""
    assert not isinstance(image.compression, Unknown)
    head, needed = b'', qcow2_peek.FIRST_BYTES
    try:
        decoder = make_decoder(image.compression)
        for at in range(0, len(file), FEED_BYTES):
            for piece in decoder.feed(file[at:at + FEED_BYTES]):
                head += piece
                if len(head) >= qcow2_peek.FIRST_BYTES:
                    needed = qcow2_peek.peek_length(
                        head[:qcow2_peek.FIRST_BYTES]
                    )
                if len(head) >= needed:
                    return head, False, ''
    except (CorruptStream, qcow2.BadHeader) as error:
        return head, True, str(error)
    return head, True, ''


def add_header(image: Image, head: Head, provider: Provider) -> Image:
    """Return an image with what its header says and nothing else does.

    Where the base is known a header that cannot be read is no fault yet: it
    is left to who checks the whole image.

    Raises:
        IndexFaults: the base is not known and the header cannot tell it.
    """
    try:
        if head.fault:
            raise ValueError(head.fault)
        found = detect.tell_format(head.image, declared=image.format)
        if found == 'raw':
            return replace(
                image, format=found,
                base=None if image.base is UNKNOWN else image.base,
            )
        header = qcow2_peek.peek_header(head.image)
        if image.base is UNKNOWN:
            name = header.backing_file
            base = backing_names.parse_backing(name) if name else None
            image = replace(image, base=base)
    except ValueError as error:
        if image.base is not UNKNOWN:
            return image
        raise IndexFaults(
            provider.locate(image.file), [str(error)], hint=HINT
        ) from None
    return replace(
        image,
        format=image.format or 'qcow2',
        virtual_size=image.virtual_size or header.virtual_size,
        max_size=qcow2_peek.largest_file(header),
    )
