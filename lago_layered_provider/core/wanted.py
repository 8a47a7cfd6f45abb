"""What somebody asks for, as a value and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .model import BaseName, Digest, Image, check_name


@dataclass(frozen=True)
class Wanted:
    """A template that somebody asks for.

    Attributes:
        version: None for the newest.
        repository: the name or the location of one; None for any.
        digest: the image must have it, where that is known.
    """

    template: str
    version: Optional[str] = None
    repository: Optional[str] = None
    digest: Optional[Digest] = None

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
