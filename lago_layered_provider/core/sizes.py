"""Numbers of bytes for people."""

from __future__ import annotations

import re
from typing import Optional

UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def size_text(count: Optional[float]) -> str:
    """Return a number of bytes for people: '1.4 GiB'."""
    if count is None:
        return 'unknown'
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if abs(count) < 1024:
            break
        count /= 1024
    else:
        unit = 'TiB'
    digits = 0 if unit == 'B' or abs(count) >= 100 else 1
    return f'{count:.{digits}f} {unit}'


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 64M, 2G or 1.5 GiB.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(
        r'(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?', text.strip()
    )
    if not found or float(found[1]) >= 2**50:
        raise ValueError(f'{text!r} is no size; expected is one as 64M or 2G')
    return int(float(found[1]) * UNITS[found[2]])
