"""Check a staged image against the index before anybody opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol, Tuple

from ..core import errors
from ..core.model import Image
from ..formats import detect, qcow2, qcow2_safety
from ..index.backing_names import Accepted


class Complete(Protocol):
    """An image that is here as a whole, such as a `Stage`."""

    @property
    def size(self) -> int:
        """Bytes of the image, uncompressed."""

    def head(self, length: int) -> bytes:
        """Return the image's first bytes."""

    def tail(self, length: int) -> bytes:
        """Return the image's last bytes."""


@dataclass(frozen=True)
class Verified:
    """What the header of a safe image says; `virtual_size` in bytes."""

    format: str
    virtual_size: int
    oddities: Tuple[str, ...] = ()


def verify_staged(
    image: Image,
    base: Optional[Image],
    stage: Complete,
    *,
    url: str = '',
    base_virtual_size: Optional[int] = None,
) -> Verified:
    """Check format and header of a complete staged image.

    Args:
        base: the image that the index gives as base, None for a bottom
            image.
        url: where the image came from, for the message.
        base_virtual_size: of the base in bytes, None where nobody knows it
            yet.

    Returns:
        what it is; `oddities` are what the user should be warned of.

    Raises:
        UnsafeImage: the image must not be used; says all that is wrong.
    """
    name = str(image.ref)
    try:
        found = detect.tell_format(
            stage.head(detect.FIRST_BYTES), declared=image.format,
            size=stage.size, last=stage.tail(detect.LAST_BYTES),
        )
        if found == 'raw' and base is not None:
            raise ValueError(
                f'it is a raw image and cannot stand on {base.ref.short}'
            )
    except ValueError as error:
        raise errors.UnsafeImage(name, [str(error)], url=url) from None
    if found == 'raw':
        return Verified('raw', stage.size)
    header = _read_safe_header(image, base, stage, url)
    return Verified('qcow2', header.virtual_size, tuple(
        qcow2_safety.find_oddities(header, base_virtual_size=base_virtual_size)
    ))


def _read_safe_header(
    image: Image, base: Optional[Image], stage: Complete, url: str
) -> qcow2.Qcow2Header:
    name = str(image.ref)
    try:
        length = qcow2.head_length(stage.head(detect.FIRST_BYTES))
        header = qcow2.parse_header(stage.head(length))
    except qcow2.BadHeader as error:
        raise errors.UnsafeImage(name, [str(error)], url=url) from None
    dangers = qcow2_safety.find_dangers(
        header,
        expected_backing=(
            Accepted(base.ref, base.handle, base.digests) if base else None
        ),
        base_format=base.format if base else None,
        file_size=stage.size,
        virtual_size=image.virtual_size,
    )
    if dangers:
        raise errors.UnsafeImage(name, dangers, url=url)
    return header
