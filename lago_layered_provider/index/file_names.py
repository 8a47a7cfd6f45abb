"""How the files of a repository's directory are called."""

from __future__ import annotations

from typing import List

from ..core.model import Image, SUFFIXES, Unknown
from .entry import strip_suffix

#: Where published files are in a directory that `create` and `mirror` fill.
PUBLISHED = 'published'

SIDECARS = ('.metadata', '.hash')


def files_of(image: Image) -> List[str]:
    """Return the names that the files of an image may have."""
    suffixes = list(SUFFIXES.values())
    if not isinstance(image.compression, Unknown):
        suffixes = [SUFFIXES[image.compression]]
    plain = strip_suffix(image.handle)
    return [
        image.handle, *(plain + each for each in suffixes),
        *(image.handle + each for each in SIDECARS),
    ]
