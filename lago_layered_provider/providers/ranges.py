"""Read a little of a file of a source, never more than was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..core.errors import IndexFaults, TransferError
from ..tools.deadline import Deadline
from ..transfer.ports import Provider, Stream

READ_BYTES = 2**16

#: A server that sends a byte now and then would keep a plan for ever.
READ_SECONDS = 120.0


@dataclass(frozen=True)
class Part:
    """Bytes of a file from `start` on; `total` and `validator` as `Stream`."""

    start: int
    data: bytes
    total: Optional[int]
    validator: Optional[str]


def read_range(
    provider: Provider,
    path: str,
    start: int,
    end: int,
    validator: Optional[str] = None,
) -> Part:
    """Read a range of a file; the end of the file may come before.

    Returns:
        what was asked for; nothing, from 0, where the source does not
        continue at `start`.

    Raises:
        TransferError: it cannot be read.
    """
    stream = provider.open(path, start=start, end=end, validator=validator)
    try:
        data = b''
        if stream.start == start:
            data = _read(stream, end - start, provider.locate(path))
        return Part(stream.start, data, stream.total, stream.validator)
    finally:
        # An answer with more than the range is not read to its end.
        stream.close()


def read_small(provider: Provider, path: str, limit: int) -> Optional[bytes]:
    """Read a whole small file, None where it is not there.

    Raises:
        IndexFaults: it has more than `limit` bytes.
        TransferError: it cannot be read.
    """
    try:
        stream = provider.open(path)
    except TransferError as error:
        # A mirror may lack what another place, which is away now, has: an
        # image shall not lose its digest for that.
        if is_missing(error) and not error.retryable:
            return None
        raise
    try:
        data = _read(stream, limit + 1, provider.locate(path))
    finally:
        stream.close()
    if len(data) > limit:
        raise IndexFaults(
            provider.locate(path), [f'is more than {limit} bytes']
        )
    return data


def is_missing(error: TransferError) -> bool:
    """Tell whether a file is not there, as opposed to all other failures."""
    return error.status in (404, 410)


def _read(stream: Stream, size: int, url: str) -> bytes:
    data = b''
    deadline = Deadline(READ_SECONDS, stream.abort)
    try:
        with deadline:
            while len(data) < size:
                chunk = stream.read(min(READ_BYTES, size - len(data)))
                if not chunk:
                    break
                data += chunk
    except TransferError as error:
        if not deadline.passed:
            raise
        raise TransferError(
            url, f'no more than {len(data)} bytes within {READ_SECONDS:g} s',
            hint='Run it again later.',
        ) from error
    return data
