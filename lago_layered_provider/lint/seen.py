"""What was seen of an image: values, and no judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ..core.model import Digest, Image
from ..formats.detect import tell_format
from ..formats.qcow2 import Qcow2Header, is_qcow2
from .findings import Finding


@dataclass(frozen=True)
class Content:
    """What the whole of an image is, read to its end.

    Attributes:
        size, digests, last: of the uncompressed image; `last` is its last
            bytes.
        file_sha512: of the file as it is fetched.
        fault: why it could not be read to its end.
    """

    size: int
    digests: Tuple[Digest, ...] = ()
    file_sha512: str = ''
    last: bytes = b''
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
        first: bytes of the uncompressed image, None where they could not be
            read.
        last: bytes of it, where they were read.
        header: of a qcow2 image, None where it cannot be understood.
        header_fault: why not.
        size: bytes of the uncompressed image, as the end of the file says.
        units: blocks or frames that can be decoded each for itself; None
            where that was not told.
        hashed: the digest in the sidecar `.hash`.
        unpaired: endings of the sidecars that are not there.
        content: when it was read to its end.
    """

    image: Image
    url: str = ''
    missing: bool = False
    trouble: str = ''
    faults: Tuple[Finding, ...] = ()
    total: Optional[int] = None
    head_fault: str = ''
    first: Optional[bytes] = None
    last: bytes = b''
    header: Optional[Qcow2Header] = None
    header_fault: str = ''
    size: Optional[int] = None
    units: Optional[int] = None
    hashed: Optional[Digest] = None
    unpaired: Tuple[str, ...] = ()
    mirrors: Tuple[MirrorFile, ...] = ()
    content: Optional[Content] = None

    @property
    def is_qcow2(self) -> Optional[bool]:
        """Whether it is a qcow2 image, None where that was not seen."""
        return None if self.first is None else is_qcow2(self.first)

    @property
    def format(self) -> Optional[str]:
        """Its format, None where that was not seen, or it has none."""
        try:
            return tell_format(self.first or b'')
        except ValueError:
            return None

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
