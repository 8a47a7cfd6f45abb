"""Digests that follow behind those who write."""

from __future__ import annotations

import hashlib
import threading
from typing import List

from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.model import Digest
from lago_layered_provider.transfer.digests import BUFFER_BYTES, Behind


class Written:
    """An image of which so much has been written."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.end = 0
        self.read: List[int] = []
        self.reading = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()

    def read_into(self, buffer: memoryview, position: int) -> None:
        assert position + len(buffer) <= self.end
        self.reading.set()
        assert self.may_read.wait(20)
        self.read.append(position)
        buffer[:] = self.data[position:position + len(buffer)]


def digests(data: bytes) -> List[Digest]:
    return [
        Digest(name, hashlib.new(name, data).hexdigest())
        for name in ('sha512', 'sha1')
    ]


def follow(written: Written) -> Behind:
    return Behind(('sha512', 'sha1'), written, lambda: written.end)


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=9))
def test_any_steps(data: bytes, steps: List[int]) -> None:
    written = Written(data * 300)
    behind = follow(written)
    for step in steps:
        written.end = min(written.end + step * 100, len(written.data))
        behind.advance()
        assert behind.position == written.end
    assert [*behind.finish()] == digests(written.data[:written.end])


def test_every_byte_is_read_once() -> None:
    written = Written(bytes(range(256)) * 4096)
    behind = follow(written)
    written.end = len(written.data)
    behind.advance()
    behind.advance()
    assert written.read == [*range(0, written.end, BUFFER_BYTES)]


def test_many_threads() -> None:
    """Whoever comes while another is at it goes away, and nothing is lost."""
    written = Written(hashlib.sha512(b'x').digest() * 40_000)
    behind = follow(written)
    lock = threading.Lock()

    def write() -> None:
        for _ in range(200):
            with lock:
                written.end = min(written.end + 1999, len(written.data))
            behind.advance()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert behind.position == written.end > 2_000_000
    assert [*behind.finish()] == digests(written.data[:written.end])


def test_nobody_waits_for_another() -> None:
    written = Written(bytes(1000))
    behind = follow(written)
    written.end = 500
    written.may_read.clear()
    first = threading.Thread(target=behind.advance)
    first.start()
    assert written.reading.wait(20)
    written.end = 1000
    behind.advance()  # returns, although the first one is not done
    assert behind.position == 0
    written.may_read.set()
    first.join(20)
    # It has looked once more.
    assert behind.position == 1000
    assert [*behind.finish()] == digests(bytes(1000))


def test_stop() -> None:
    written = Written(bytes(10 * BUFFER_BYTES))
    behind = follow(written)
    written.end = len(written.data)
    written.may_read.clear()
    thread = threading.Thread(target=behind.advance)
    thread.start()
    assert written.reading.wait(20)
    behind.stop()
    written.may_read.set()
    thread.join(20)
    assert not thread.is_alive()
    assert behind.position == BUFFER_BYTES
