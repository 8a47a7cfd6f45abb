"""What somebody asks for, as a value and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence, Tuple

from .model import (
    BaseName, DIGEST_LENGTHS, Digest, Image, ImageRef, check_name,
)


@dataclass(frozen=True)
class Pin:
    """One image of a chain that was written down to be had again.

    Attributes:
        digests: at least one.
        location: where its repository was; empty where only the store had
            the image.
    """

    ref: ImageRef
    digests: Tuple[Digest, ...]
    location: str = ''

    def __post_init__(self) -> None:
        if not self.digests:
            raise ValueError('there is no digest')

    def __str__(self) -> str:
        return f'{self.ref.repository}/{self.ref.short}'

    def shares(self, digests: Iterable[Digest]) -> bool:
        """Tell whether some digest can be compared with ours."""
        ours = {digest.algorithm for digest in self.digests}
        return any(digest.algorithm in ours for digest in digests)

    def contradiction(self, digests: Iterable[Digest]) -> Optional[Digest]:
        """Return the digest that shows another image, None for no such."""
        ours = {digest.algorithm: digest for digest in self.digests}
        return next((
            digest for digest in digests
            if ours.get(digest.algorithm, digest) != digest
        ), None)

    def is_proven_by(self, digests: Sequence[Digest]) -> bool:
        """Tell whether digests leave no doubt that it is the same image."""
        return self.shares(digests) and self.contradiction(digests) is None


#: A whole chain of them, base first.
Pins = Tuple[Pin, ...]


def sort_digests(digests: Iterable[Digest]) -> Tuple[Digest, ...]:
    """Return digests, the strongest first."""
    order = list(DIGEST_LENGTHS)
    return tuple(
        sorted(digests, key=lambda digest: order.index(digest.algorithm))
    )


@dataclass(frozen=True)
class Wanted:
    """A template that somebody asks for.

    Attributes:
        version: None for the newest.
        repository: the name or the location of one; None for any.
        digest: the image must have it, where that is known.
        pins: its whole chain must be this one; empty for any. Then nothing
            else of what is wanted matters.
    """

    template: str
    version: Optional[str] = None
    repository: Optional[str] = None
    digest: Optional[Digest] = None
    pins: Pins = ()

    def __str__(self) -> str:
        return str(BaseName(self.template, self.version, self.repository))

    def is_met_by(self, image: Image) -> bool:
        """Tell whether nothing that is known of an image speaks against it."""
        if self.digest is None:
            return True
        return all(
            digest.value == self.digest.value for digest in image.digests
            if digest.algorithm == self.digest.algorithm
        )


def parse_wanted(text: str) -> Wanted:
    """Read `template`, `template:version` or `repository/template:version`.

    Raises:
        ValueError: it is none of them.
    """
    repository, slash, rest = text.rpartition('/')
    template, colon, version = rest.partition(':')
    return Wanted(
        template=check_name(template, 'template'),
        version=check_name(version, 'version') if colon else None,
        repository=(
            check_name(repository, 'repository') if slash else None
        ),
    )


def make_image(pin: Pin) -> Image:
    """Return a pinned image that nobody has to fetch."""
    return Image(
        ref=pin.ref, source='', handle='', timestamp=0, base=None,
        compression=None, digests=pin.digests, location=pin.location,
    )
