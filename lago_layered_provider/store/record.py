"""What is kept of a verified image beside its bytes; to JSON and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping, Optional, Tuple

from ..core import model


@dataclass(frozen=True)
class Record:
    """An image that was verified.

    Attributes:
        size: length of the file in bytes.
        virtual_size: bytes that a guest sees.
        digests: those of the file as published, before its header was
            changed.
        backing: the store name of its base, None for a bottom image.
        url: where it came from.
        time: when it was verified, in seconds since 1970.
        published: when it was published, as its index says.
    """

    format: str
    size: int
    virtual_size: int
    digests: Tuple[model.Digest, ...]
    backing: Optional[str] = None
    url: str = ''
    time: float = 0.0
    published: float = 0.0

    def __post_init__(self) -> None:
        if self.format not in model.FORMATS:
            raise ValueError(f'unknown format {self.format!r}')
        if not is_count(self.size) or not is_count(self.virtual_size):
            raise ValueError('a size is not a number of bytes')
        if self.backing is not None and not isinstance(self.backing, str):
            raise ValueError('a backing file that is not a name')

    @property
    def sha1(self) -> Optional[str]:
        """The digest that Lago keeps, where it is known."""
        found = [d.value for d in self.digests if d.algorithm == 'sha1']
        return found[0] if found else None

    def on(self, backing: Optional[str]) -> Record:
        """Return the record of the same image on another base."""
        return replace(self, backing=backing)

    def to_json(self) -> Dict[str, Any]:
        """Return the record as JSON's values."""
        return {
            'format': self.format,
            'size': self.size,
            'virtual_size': self.virtual_size,
            'digests': {d.algorithm: d.value for d in self.digests},
            'backing': self.backing,
            'url': self.url,
            'time': self.time,
            'published': self.published,
        }


def parse_record(value: object) -> Optional[Record]:
    """Return the record that JSON's values describe, None for garbage."""
    if not isinstance(value, Mapping):
        return None
    try:
        return Record(
            format=value['format'],
            size=value['size'],
            virtual_size=value['virtual_size'],
            digests=tuple(
                model.Digest(algorithm, digest)
                for algorithm, digest in value['digests'].items()
            ),
            backing=value['backing'],
            url=str(value.get('url', '')),
            time=float(value.get('time', 0)),
            published=float(value.get('published', 0)),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def is_count(value: object) -> bool:
    """Whether a value from JSON is a number of bytes."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value >= 0
    )
