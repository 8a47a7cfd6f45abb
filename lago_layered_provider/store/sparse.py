"""Find the zeros that need no room on the disk."""

from __future__ import annotations

from typing import Iterator, Tuple

#: What a file system gives out; a smaller hole saves nothing.
BLOCK_BYTES = 4096
#: Long zero runs are found in pieces of this.
PIECE_BYTES = 16 * BLOCK_BYTES

_BLOCK = bytes(BLOCK_BYTES)
_PIECE = bytes(PIECE_BYTES)


def data_runs(data: bytes, position: int) -> Iterator[Tuple[int, int]]:
    """Return where `data` is not zero, as [start, end) in `data`.

    Blocks are those of the file, in which `data` begins at `position`. Zeros
    at either end, of blocks that other writes share, are left out as well:
    what nobody writes reads as zeros.
    """
    start = -1
    here = 0
    end = len(data)
    while here < end:
        # startswith compares in place; a slice would copy every byte.
        if data.startswith(_PIECE, here):
            size = PIECE_BYTES
            zero = True
        else:
            size = BLOCK_BYTES - (position + here) % BLOCK_BYTES
            size = min(size, end - here)
            zero = data.startswith(
                _BLOCK if size == BLOCK_BYTES else _BLOCK[:size], here
            )
        if zero and start >= 0:
            yield start, here
            start = -1
        elif not zero and start < 0:
            start = here
        here += size
    if start >= 0:
        yield start, end
