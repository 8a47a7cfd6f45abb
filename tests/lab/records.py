"""Requests as a server saw them, and what a test asks about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, List

#: Small files beside the images; everything else counts as an image.
SMALL_SUFFIXES = ('.metadata', '.hash', '.json', '.html', '/')


@dataclass(frozen=True)
class Request:
    """One answered request; ``start`` and ``end`` are seconds since 1970."""

    method: str
    path: str
    status: int
    range: str
    if_range: str
    if_none_match: str
    sent: int
    start: float
    end: float
    user_agent: str = ''

    @property
    def begin(self) -> int:
        """The first byte of the file that was sent."""
        found = re.match(r'bytes=(\d+)-', self.range)
        return int(found[1]) if found and self.status == 206 else 0

    @property
    def is_image(self) -> bool:
        """Tell whether the request was for image bytes."""
        return (
            self.method == 'GET'
            and not self.path.endswith(SMALL_SUFFIXES)
            and self.status in (200, 206)
        )


def image_requests(requests: Iterable[Request]) -> List[Request]:
    """Return the requests that were answered with image bytes."""
    return [request for request in requests if request.is_image]


def bytes_sent(requests: Iterable[Request]) -> int:
    """Return how many bytes of bodies the requests were answered with."""
    return sum(request.sent for request in requests)


def overlap(requests: Iterable[Request]) -> int:
    """Return how many bytes of one file were sent more than once."""
    again = here = 0
    for begin, end in sorted(
        (one.begin, one.begin + one.sent) for one in requests
        if one.status in (200, 206)
    ):
        again += max(0, min(here, end) - begin)
        here = max(here, end)
    return again


def max_in_flight(requests: Iterable[Request]) -> int:
    """Return how many *different paths* were being sent at the same time.

    Several connections for one image count once.
    """
    requests = list(requests)
    moments = sorted(request.start for request in requests)
    most = 0
    for moment in moments:
        paths = {
            request.path
            for request in requests
            if request.start <= moment < request.end
        }
        most = max(most, len(paths))
    return most
