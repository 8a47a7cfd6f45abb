"""Tell by its bytes what a file is; a name proves nothing.

The one decision about what becomes an image: a raw image has no header, so
all that is known to be something else is refused. qemu would take a web page,
or a compressed file, for a disk without complaint.
"""

from __future__ import annotations

import re
from typing import Optional

from ..core.magics import name_magic
from .qcow2 import is_qcow2

#: So many first and last bytes are enough for `tell_format`.
FIRST_BYTES = 512
LAST_BYTES = 512

#: Raw disks consist of sectors.
SECTOR_BYTES = 512

_HTML = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b', re.I
)

#: No text has them, and no disk is without.
_CONTROLS = re.compile('[\0-\x08\x0e-\x1f\x7f]')

#: A text is not told by less, and so much of it is shown.
_LEAST_CHARACTERS = 4
_SHOWN_CHARACTERS = 40


def tell_format(
    first: bytes, *, declared: Optional[str] = None,
    size: Optional[int] = None, last: bytes = b'',
) -> str:
    """Return the format of an image: qcow2 or raw.

    Args:
        first: its first `FIRST_BYTES` bytes, fewer if it has no more.
        declared: the format that somebody has given for it.
        size: its bytes in all, where known.
        last: its last `LAST_BYTES` bytes, where known.

    Raises:
        ValueError: it is something else, or not what was declared; the
            message says what.
    """
    if not first:
        raise ValueError('it is empty')
    found = 'qcow2' if is_qcow2(first) else 'raw'
    kind = None if found == 'qcow2' else name_kind(first, last, size)
    if kind is not None:
        raise ValueError(
            f'it is {kind}, expected {declared or "qcow2 or raw"}'
        )
    if declared not in (None, found):
        # Never the one or the other: who guesses, as qemu does, would give
        # a guest other bytes, or files of the host.
        raise ValueError(
            'it is a qcow2 image, expected raw' if found == 'qcow2'
            else 'it is no qcow2 image'
        )
    if found == 'raw' and size is not None and size % SECTOR_BYTES:
        raise ValueError(
            f'it is no image: no qcow2, and its {size} bytes are not whole '
            f'sectors of {SECTOR_BYTES}, as a raw image has them'
        )
    return found


def name_kind(
    first: bytes, last: bytes = b'', size: Optional[int] = None
) -> Optional[str]:
    """Say what a file is that is surely no raw disk, None for a disk.

    A text of whole sectors may be one: somebody's data, without a file
    system around.
    """
    if _HTML.match(first):
        return 'an HTML page'
    if size and size % SECTOR_BYTES == 0:
        return name_magic(first, last)
    return name_magic(first, last) or _name_text(first)


def _name_text(first: bytes) -> Optional[str]:
    """Say that a file is a text, and how it begins; None for another."""
    try:
        text = first.decode()
    except UnicodeDecodeError as error:
        if error.reason != 'unexpected end of data':
            return None
        text = first[:error.start].decode()  # a character was cut in two
    line = text.strip()[:_SHOWN_CHARACTERS].partition('\n')[0]
    if len(line) < _LEAST_CHARACTERS or _CONTROLS.search(text):
        return None
    return f'a text that begins with {line!r}'
