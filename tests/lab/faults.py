"""What can go wrong with an answer, and which requests it goes wrong for."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer; several can be combined.

    Attributes:
        status: answer with this status (404, 500, 503 ...) and an HTML page.
        retry_after: value of the header ``Retry-After``.
        redirect: answer 302 to this address.
        html: answer 200 with a login page instead of the file.
        cut_after: close the connection after that many bytes of the body.
        reset: close it with RST; what the client has not read may be lost.
        stall_after: send nothing more after that many bytes of the body.
        delay: seconds before the first byte of the answer.
        rate: bytes per second.
        ignore_range: answer 200 with the whole file to a Range request.
        ignore_if_range: answer 206 although the ETag is another one.
        flip_at: flip the bits of the byte at this offset of the file.
        etag: send (and compare with) this ETag, quotes included; ``''``:
            send none.
        extra_length: announce that many bytes more (or less) than are sent.
        chunked: send no Content-Length.
        shift: send the bytes that follow that many after the wanted ones,
            with the Content-Range that fits them.
        crowd: answer 503 while so many other answers are being sent.
    """

    status: Optional[int] = None
    retry_after: Optional[str] = None
    redirect: Optional[str] = None
    html: bool = False
    cut_after: Optional[int] = None
    reset: bool = False
    stall_after: Optional[int] = None
    delay: float = 0
    rate: Optional[int] = None
    ignore_range: bool = False
    ignore_if_range: bool = False
    flip_at: Optional[int] = None
    etag: Optional[str] = None
    extra_length: int = 0
    chunked: bool = False
    shift: int = 0
    crowd: Optional[int] = None


@dataclass
class Rule:
    """A fault with the requests that it is for, and how often it struck."""

    pattern: str
    fault: Fault
    skip: int
    times: Optional[int]
    method: str
    seen: int = 0
    struck: int = 0

    def applies(self, method: str, path: str) -> bool:
        """Tell whether this request is met; counts it."""
        if self.method not in ('*', method):
            return False
        if not fnmatch.fnmatchcase(path, self.pattern):
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True
