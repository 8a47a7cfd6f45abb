"""Connections to a server, shared by the images that want them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import Callable, List, Optional, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_layered_provider.core.errors import TransferError
from lago_layered_provider.transfer.claims import Run
from lago_layered_provider.transfer.connections import Connections, Crowded
from lago_layered_provider.transfer.ports import Provider

SECONDS = 20


class Place:
    """A source that is only asked where a file is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def locate(self, path: str) -> str:
        return f'{self._url}/{path}'


def place(url: str = 'http://host:80') -> Provider:
    return cast(Provider, Place(url))


class Gauge:
    """How many connections are open, and how many were at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Image:
    """An image of so many runs, each of which takes a moment.

    Args:
        crowded: tells for each run whether the server wants fewer.
    """

    def __init__(
        self,
        runs: int,
        gauge: Gauge,
        crowded: Callable[[], bool] = lambda: False,
        name: str = '',
        order: Optional[List[str]] = None,
    ) -> None:
        self._left = runs
        self._gauge = gauge
        self._crowded = crowded
        self._name = name
        self._order = order
        self.helped = 0
        self._lock = threading.Lock()
        self.fetched = 0
        self.done = threading.Event()
        self._wanted = runs

    def claim(self, now: float) -> Optional[Run]:
        with self._lock:
            if not self._left:
                return None
            self._left -= 1
            if self._order is not None:
                self._order.append(self._name)
            return Run([], 0, now, now, now)

    def help(self, now: float) -> Optional[Run]:
        assert not self._left
        self.helped += 1
        return None

    def fetch(self, run: Run, has_others: Callable[[], bool]) -> bool:
        with self._gauge:
            time.sleep(0.002)
            crowded = self._crowded() and has_others()
        with self._lock:
            if crowded:
                self._left += 1
                return True
            self.fetched += 1
            if self.fetched == self._wanted:
                self.done.set()
        return False


@given(
    limit=st.integers(1, 5),
    counts=st.lists(st.integers(1, 8), min_size=1, max_size=4),
)
@settings(max_examples=25)
def test_never_more_than_the_limit_and_all_is_fetched(
    limit: int, counts: List[int]
) -> None:
    gauge = Gauge()
    connections = Connections(limit, [])
    images = [Image(count, gauge) for count in counts]
    threads = [
        threading.Thread(target=_serve, args=(connections, image))
        for image in images
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    connections.close()
    assert [image.fetched for image in images] == counts
    assert 1 <= gauge.most <= limit


def _serve(connections: Connections, image: Image) -> None:
    with connections.serving(place(), 'file', image, 1):
        assert image.done.wait(SECONDS)


def test_all_connections_are_used_for_one_image() -> None:
    gauge = Gauge()
    connections = Connections(4, [])
    barrier = threading.Barrier(4)

    def meet() -> bool:
        barrier.wait(SECONDS)
        return False

    _serve(connections, Image(8, gauge, meet))
    connections.close()
    assert gauge.most == 4


def test_one_who_reads_himself_counts_as_well() -> None:
    gauge = Gauge()
    connections = Connections(2, [])
    image = Image(30, gauge)

    def read() -> None:
        for _ in range(10):
            with connections.one(place(), 'other', lambda: None), gauge:
                time.sleep(0.002)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    _serve(connections, image)
    for reader in readers:
        reader.join(SECONDS)
        assert not reader.is_alive()
    connections.close()
    assert gauge.most == 2
    assert gauge.now == 0


def test_who_waits_for_a_connection_can_be_stopped() -> None:
    class Stopped(Exception):
        pass

    def check() -> None:
        raise Stopped

    connections = Connections(1, [])
    with connections.one(place(), 'a', lambda: None):
        with pytest.raises(Stopped):
            with connections.one(place(), 'b', check):
                raise AssertionError('there is but one connection')
    # It was given back, by both.
    with connections.one(place(), 'c', check):
        pass


def test_each_server_has_its_own() -> None:
    """Host and port make a server; what this machine has is another one."""
    connections = Connections(1, [])

    def check() -> None:
        raise AssertionError('it has to wait')

    with connections.one(place('http://a:80/x'), 'f', check), \
            connections.one(place('http://a:81/x'), 'f', check), \
            connections.one(place('https://b/x'), 'f', check), \
            connections.one(place('/srv/images'), 'f', check):
        with pytest.raises(AssertionError):
            with connections.one(place('http://a:80/y'), 'g', check):
                pass
        with pytest.raises(AssertionError):
            with connections.one(place('/mnt'), 'g', check):
                pass


def test_a_server_that_wants_fewer_gets_fewer() -> None:
    gauge = Gauge()
    connections = Connections(4, [])

    def crowded() -> bool:
        return gauge.now > 2

    image = Image(300, gauge, crowded)
    _serve(connections, image)
    # It was learned: the next image does not find out again.
    gauge.most = 0
    _serve(connections, Image(60, gauge))
    connections.close()
    assert image.fetched == 300
    assert gauge.most == 2


def test_one_connection_always_stays() -> None:
    gauge = Gauge()
    refusals = Counter[str]()

    def crowded() -> bool:
        refusals['all'] += 1
        return refusals['all'] <= 3

    connections = Connections(3, [])
    _serve(connections, Image(30, gauge, crowded))
    gauge.most = 0
    _serve(connections, Image(30, gauge))
    connections.close()
    assert gauge.most == 1


def test_the_largest_image_comes_first() -> None:
    """Whenever it came; the next one gets what it cannot use."""
    gauge = Gauge()
    order: List[str] = []
    connections = Connections(1, [])
    images = {
        name: Image(5, gauge, name=name, order=order)
        for name in ('small', 'large', 'middle')
    }
    sizes = {'small': 10, 'large': 30, 'middle': 20}
    with contextlib.ExitStack() as stack:
        with connections.one(place(), 'x', lambda: None):
            for name, image in images.items():
                stack.enter_context(connections.serving(
                    place(), name, image, sizes[name]
                ))
            assert order == []
        for image in images.values():
            assert image.done.wait(SECONDS)
    connections.close()
    assert order == ['large'] * 5 + ['middle'] * 5 + ['small'] * 5


def test_who_reads_himself_goes_first() -> None:
    """A small request must not wait for a large image to end."""
    connections = Connections(1, [])
    order: List[str] = []
    image = Image(50, Gauge(), name='run', order=order)

    def read() -> None:
        with connections.one(place(), 'tail', lambda: None):
            order.append('tail')

    reader = threading.Thread(target=read)
    with connections.serving(place(), 'image', image, 1):
        while not order:
            time.sleep(0.001)
        reader.start()
        reader.join(SECONDS)
        assert image.done.wait(SECONDS)
    connections.close()
    assert order.index('tail') < 45


@pytest.mark.parametrize('status, left', [(503, 1), (429, 1), (404, 2)])
def test_who_reads_himself_may_find_a_crowd(status: int, left: int) -> None:
    connections = Connections(2, [])
    with connections.one(place(), 'a', lambda: None):
        with pytest.raises(Crowded if left == 1 else TransferError):
            with connections.one(place(), 'b', lambda: None):
                raise TransferError('b', 'no', status=status)
    gauge = Gauge()
    _serve(connections, Image(40, gauge))
    assert gauge.most == left
    # Alone it is an error as any other.
    with pytest.raises(TransferError):
        with connections.one(place(), 'b', lambda: None):
            raise TransferError('b', 'no', status=status)
    connections.close()


def test_threads_end_when_it_is_closed() -> None:
    before = threading.active_count()
    connections = Connections(3, [])
    _serve(connections, Image(9, Gauge()))
    connections.close()
    deadline = time.monotonic() + SECONDS
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
