"""The directory of a repository on this machine."""

from __future__ import annotations

import os
from typing import Iterator

from ..index.file_names import PUBLISHED


def published_files(root: str, *, hidden: bool = False) -> Iterator[str]:
    """Yield the files below `published`, relative to the directory.

    Args:
        hidden: those that are being written, too, and what is kept of them.
    """
    for parent, _, names in os.walk(os.path.join(root, PUBLISHED)):
        for name in names:
            if hidden or not name.startswith('.'):
                yield os.path.relpath(os.path.join(parent, name), root)
