"""Numbers of bytes for people."""

from __future__ import annotations

from typing import Optional


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
