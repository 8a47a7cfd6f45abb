"""What a correct HTTP server answers for a file, and what a fault makes of it.

RFC 9110: Range with one range, If-Range and If-None-Match with strong ETags.
Nothing here touches a socket.
"""

from __future__ import annotations

import email.utils
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, Mapping, Optional, Tuple

from .faults import Fault

CHUNK = 64 * 1024
PAUSE_SECONDS = 0.05
HTML = b'<html><body><h1>Welcome to the hotel network</h1></body></html>\n'


@dataclass
class Response:
    """Status, headers, and the bytes: of a file from start to end, or own."""

    status: int
    headers: Dict[str, str] = field(default_factory=dict)
    file: Optional[Path] = None
    start: int = 0
    end: int = 0
    body: bytes = b''

    @property
    def length(self) -> int:
        """Return the bytes of the body."""
        return self.end - self.start if self.file else len(self.body)


def respond(
    root: Path, path: str, headers: Mapping[str, str], fault: Fault
) -> Response:
    """Answer a GET of a path below ``root``.

    Args:
        headers: of the request, their names in lower case.
    """
    response = _special(fault) or _file_response(root, path, headers, fault)
    if fault.retry_after is not None:
        response.headers['Retry-After'] = fault.retry_after
    if response.status not in (204, 304):
        length = response.length + fault.extra_length
        if fault.chunked:
            response.headers['Transfer-Encoding'] = 'chunked'
        else:
            response.headers['Content-Length'] = str(length)
    return response


def _special(fault: Fault) -> Optional[Response]:
    page = {'Content-Type': 'text/html'}
    if fault.redirect is not None:
        return Response(302, {'Location': fault.redirect})
    if fault.status is not None:
        return Response(fault.status, page, body=HTML)
    if fault.html:
        return Response(200, page, body=HTML)
    return None


def _file_response(
    root: Path, path: str, headers: Mapping[str, str], fault: Fault
) -> Response:
    file = (root / path.lstrip('/')).resolve()
    if root.resolve() not in file.parents or not file.is_file():
        page = {'Content-Type': 'text/html'}
        return Response(404, page, body=b'<html>404 Not Found</html>\n')
    facts = file.stat()
    size = facts.st_size
    etag = f'"{int(facts.st_mtime):x}-{size:x}"'
    if fault.etag is not None:
        etag = fault.etag
    common = {
        'Content-Type': 'application/octet-stream',
        'Last-Modified': email.utils.formatdate(facts.st_mtime, usegmt=True),
        'Accept-Ranges': 'bytes',
    }
    if etag:
        common['ETag'] = etag
    if etag and headers.get('if-none-match') in (etag, '*'):
        return Response(304, common)
    span = None
    if not fault.ignore_range:
        same = headers.get('if-range', etag) in (etag, common['Last-Modified'])
        if same or fault.ignore_if_range:
            span = parse_range(headers.get('range', ''), size)
    if span is None:
        return Response(200, common, file, 0, size)
    if span == (0, 0):
        common['Content-Range'] = f'bytes */{size}'
        return Response(416, common)
    start, end = min(span[0] + fault.shift, size - 1), span[1]
    common['Content-Range'] = f'bytes {start}-{end - 1}/{size}'
    return Response(206, common, file, start, end)


def parse_range(header: str, size: int) -> Optional[Tuple[int, int]]:
    """Return start and end (exclusive) of a Range header.

    Returns:
        None when there is no range, or more than one, or nonsense (the whole
        file is the answer then); ``(0, 0)`` when it cannot be satisfied, as
        nginx has it also for a last byte before the first.
    """
    match = re.fullmatch(r'bytes=(\d*)-(\d*)', header.strip())
    if not match or match.group(1) == match.group(2) == '':
        return None
    first, last = match.groups()
    if first == '':
        count = min(int(last), size)
        return (size - count, size) if count else (0, 0)
    end = min(int(last) + 1, size) if last else size
    return (int(first), end) if int(first) < end else (0, 0)


def blocks(response: Response, fault: Fault) -> Iterator[bytes]:
    """Yield the bytes of a response in blocks, one of them flipped."""
    if response.file is None:
        yield response.body
        return
    size = CHUNK
    if fault.rate:
        size = max(1, min(CHUNK, int(fault.rate * PAUSE_SECONDS)))
    with open(response.file, 'rb') as stream:
        stream.seek(response.start)
        place = response.start
        while place < response.end:
            data = stream.read(min(size, response.end - place))
            if not data:
                return
            at = -1 if fault.flip_at is None else fault.flip_at - place
            if 0 <= at < len(data):
                data = data[:at] + bytes([data[at] ^ 0xff]) + data[at + 1:]
            yield data
            place += len(data)
