"""Find what an image stands on among what is here and what is published.

A header may name its backing file in many ways, most of them places on the
machine where it was made: `docs/index-format.rst` has the list.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Mapping, Optional

from ..core.model import BaseName, Image
from ..index import entry
from .original import Original, is_same_file, strip_endings


@dataclass(frozen=True)
class Library:
    """What is published already.

    Attributes:
        images: by `TEMPLATE:VERSION`.
        places: path of an original -> what it was published as last.
    """

    images: Mapping[str, Image] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    def newest(self, template: str) -> Optional[Image]:
        """Return the newest version of a template."""
        return max(
            (
                image for image in self.images.values()
                if image.ref.template == template
            ),
            key=lambda image: image.age, default=None,
        )


class BaseFinder:
    """Finds bases by what headers and admins call them.

    Args:
        shorts: path of an original -> `TEMPLATE:VERSION`, changed or not.
        names: `TEMPLATE:VERSION` of a changed original -> its path.
    """

    def __init__(
        self, shorts: Mapping[str, str], names: Mapping[str, str],
        library: Library,
    ) -> None:
        self._shorts = shorts
        self._names = names
        self._library = library

    def find(self, name: str, original: Original) -> Optional[str]:
        """Return the image that a name means; see `docs/index-format.rst`.

        Raises:
            ValueError: it may mean several.
        """
        place = posixpath.normpath(posixpath.join(
            posixpath.dirname(original.path), name
        ))
        for path in (place, posixpath.normpath(name)):
            if path in self._shorts and path != original.path:
                return self._shorts[path]
        named = entry.split_digest(name[2:] if name[:2] == './' else name)
        if named:
            return next((
                short for short, image in self._library.images.items()
                if named[0] in image.digests
            ), None)
        plain = posixpath.basename(name)
        short = ':'.join(plain.split(':')[-2:])
        if short in self._names or short in self._library.images:
            return short
        return self._find_file(plain, original) or self._find_template(plain)

    def _find_file(self, name: str, original: Original) -> Optional[str]:
        paths = [
            path for path in self._shorts
            if path != original.path and is_same_file(path, name)
        ]
        here = posixpath.dirname(original.path)
        near = [path for path in paths if posixpath.dirname(path) == here]
        if len(near or paths) > 1:
            raise ValueError(
                f'it stands on {name!r}, which may be '
                + ' or '.join(sorted(near or paths))
                + '; say --base IMAGE=FILE'
            )
        return self._shorts[(near or paths)[0]] if paths else None

    def _find_template(self, name: str) -> Optional[str]:
        template = strip_endings(name)
        for short in self._names:
            if short.split(':')[0] == template:
                return short
        newest = self._library.newest(template)
        return newest.ref.short if newest else None


def declared_base(original: Original) -> Optional[str]:
    """Return the base that the metadata names."""
    try:
        base = entry.parse_base(original.metadata.get('base'))
    except ValueError:
        return None
    if isinstance(base, BaseName):
        return str(base).rpartition('/')[2]
    return None if base is None else base.name
