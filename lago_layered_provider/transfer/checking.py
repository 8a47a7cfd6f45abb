"""What an image must be like, and what is said when it is not."""

from __future__ import annotations

import contextlib
from typing import Dict, Tuple, Union

from ..core import errors
from ..core.magics import MAGICS
from ..core.model import Digest, Image, Unknown
from ..formats import detect
from .ports import Stream
from .retries import WrongAnswer
from .store_ports import Stage

#: So much is written between two looks at the room.
ROOM_BYTES = 4 << 20

_HINT = 'It was not kept; tell the admin of the repository.'


class RoomWatch:
    """Watch the room on the disk where no plan knew how large an image is."""

    def __init__(self, image: Image, stage: Stage) -> None:
        self._stage = stage
        self._watches = image.size is None
        self._written = 0

    def take(self, count: int) -> None:
        """Count bytes that are written now; any thread may call it.

        Raises:
            NotEnoughSpace: they take room that shall stay free.
        """
        self._written += count
        if self._watches and self._written >= ROOM_BYTES:
            self._written = 0
            self._stage.check_room()


def algorithms(image: Image) -> Tuple[str, ...]:
    """The digest to check, and the sha1 that Lago keeps beside an image."""
    announced: Dict[str, None] = {}
    if image.checked:
        announced[image.checked.algorithm] = None
    if 'sha1' not in {digest.algorithm for digest in image.digests}:
        announced['sha1'] = None
    return tuple(announced)


def check_total(image: Image, stream: Stream, location: str) -> None:
    """Raise SizeMismatch when a file has another size than announced."""
    total = stream.total
    expected = image.compressed_size
    if expected is None and image.compression is None:
        expected = image.size
    if None not in (total, expected) and total != expected:
        first = b''
        if stream.start == 0:
            with contextlib.suppress(errors.TransferError):
                first = stream.read(detect.FIRST_BYTES)
        raise errors.SizeMismatch(
            str(image.ref), what=f'size of {location}',
            expected=f'{expected} bytes',
            found=f'{total} bytes{_comma_kind(first, image.compression)}',
            hint=(
                'The index and the file do not belong together; the '
                'repository may be in the middle of an update.'
            ),
        )


def check_answer(
    image: Image, stream: Stream, location: str, *, begun: bool
) -> None:
    """Raise when an answer is of a file with another size than announced.

    Args:
        begun: bytes of the file are here: one answer does not decide.

    Raises:
        SizeMismatch: it is.
        WrongAnswer: the same, where others may be right.
    """
    try:
        check_total(image, stream, location)
    except errors.SizeMismatch as error:
        if not begun:
            raise
        raise WrongAnswer(
            location, f'it has {stream.total} bytes now', error
        ) from error


def _comma_kind(
    first: bytes, compression: Union[str, None, Unknown] = None
) -> str:
    """Return what a wrong file is, '' if its first bytes do not tell."""
    kind = detect.name_kind(first)
    own = MAGICS.get(str(compression), ())
    if kind is None or first.startswith(own):
        return ''
    return f', {kind}'


def check_size(
    image: Image, size: int, location: str, first: bytes = b''
) -> None:
    """Raise SizeMismatch when an image is not as large as announced.

    Args:
        first: its first bytes; the message says what they are of.
    """
    if image.size is not None and size != image.size:
        raise wrong_size(
            image, f'{size} bytes{_comma_kind(first)}', location
        )


def check_digests(
    image: Image, digests: Tuple[Digest, ...], location: str,
    first: bytes = b'',
) -> None:
    """Raise DigestMismatch when one of them is not the announced one.

    Args:
        first: as for `check_size`.
    """
    announced = image.checked
    for digest in digests:
        if announced and digest.algorithm == announced.algorithm:
            if digest != announced:
                raise errors.DigestMismatch(
                    str(image.ref), what=f'{digest.algorithm} of the '
                    f'image from {location}{_comma_kind(first)}',
                    expected=announced.value, found=digest.value,
                    hint=(
                        'The download was damaged or the repository '
                        'changed; it was not kept. If it happens again, '
                        'tell the admin of the repository.'
                    ),
                )


def wrong_size(
    image: Image, found: str, location: str
) -> errors.SizeMismatch:
    """Return the error of an image that is too long or too short."""
    return errors.SizeMismatch(
        str(image.ref),
        what=f'size of the uncompressed image from {location}',
        expected=f'{image.size} bytes', found=found, hint=_HINT,
    )


def damaged(
    image: Image, error: Exception, location: str
) -> errors.DamagedImage:
    """Return the error of a file that cannot be decompressed."""
    return errors.DamagedImage(
        str(image.ref), what=location,
        expected=f'a whole {image.compression} file', found=str(error),
        hint=_HINT,
    )
