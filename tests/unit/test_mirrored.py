"""One source at several places, all of them in memory."""

from __future__ import annotations

import contextlib
from typing import Callable, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import TransferError
from lago_layered_provider.providers.mirrored import Mirrored
from lago_layered_provider.providers.mirrored_stream import join_failures
from lago_layered_provider.providers.ranges import read_small
from lago_layered_provider.transfer.fetch import can_differ
from lago_layered_provider.transfer.ports import FileInfo, Mirrors

PATH = 'base.qcow2'
DATA = bytes(range(200))

#: What the next `open` of a place does: a number of bytes after which the
#: connection breaks, or one of these.
WELL, AWAY, MISSING = -1, -2, -3

#: Where requests began, and the states that they named.
Asked = List[Tuple[int, Optional[str]]]


class Place:
    """A server with one file, and with a list of what goes wrong next."""

    def __init__(
        self, name: str, faults: Tuple[int, ...] = (), *,
        data: bytes = DATA, always: int = WELL, ranges: bool = True,
    ) -> None:
        self.name = name
        self.data = data
        self.faults = list(faults)
        self.always = always
        self.ranges = ranges
        self.etag = f'"{name}"'
        self.asked: Asked = []
        self.sent = 0

    def locate(self, path: str) -> str:
        return f'http://{self.name}/{path}'

    def _next(self, path: str) -> int:
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == AWAY:
            raise TransferError(
                self.locate(path), 'connection refused', retryable=True
            )
        if fault == MISSING:
            raise TransferError(self.locate(path), 'HTTP 404', status=404)
        return fault

    def stat(self, path: str) -> FileInfo:
        self._next(path)
        return FileInfo(len(self.data), self.etag)

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Bytes:
        self.asked.append((start, validator))
        fault = self._next(path)
        if not self.ranges or validator not in (None, self.etag):
            start = 0
        return Bytes(self, start, end, fault)


class Bytes:
    """The bytes of a place; breaks after so many."""

    def __init__(
        self, place: Place, start: int, end: Optional[int], limit: int
    ) -> None:
        self.start = start
        self.total: Optional[int] = len(place.data)
        self.validator: Optional[str] = place.etag
        self.aborted = False
        self._place = place
        self._left = limit
        self._rest = place.data[start:end]

    def read(self, size: int) -> bytes:
        if self._left == 0 or self.aborted:
            raise TransferError(
                self._place.locate(PATH), 'the connection ended',
                retryable=True,
            )
        size = size if self._left == WELL else min(size, self._left)
        data, self._rest = self._rest[:size], self._rest[size:]
        if self._left != WELL:
            self._left -= len(data)
        self._place.sent += len(data)
        return data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass


class CachedPlace(Place):
    """A place behind a cache."""

    avoided = False

    def avoid_caches(self) -> None:
        self.avoided = True


def test_a_wrong_image_is_fetched_anew_past_the_caches() -> None:
    cached, plain = CachedPlace('a'), Place('b')
    source, _ = mirrored(cached, plain)
    assert not cached.avoided
    assert can_differ(source, PATH, True)
    assert cached.avoided
    alone = CachedPlace('c')
    assert not can_differ(alone, PATH, False)
    assert alone.avoided


def mirrored(*places: Place) -> Tuple[Mirrored, List[str]]:
    told: List[str] = []
    return Mirrored(places, told.append), told


def read_all(source: Mirrored, retries: int = 0, size: int = 7) -> bytes:
    """Read the file as a transfer does, trying again where it broke off."""
    data, validator = b'', None
    while True:
        try:
            stream = source.open(PATH, start=len(data), validator=validator)
            if stream.start == 0:
                data = b''
            assert stream.start == len(data)
            validator = stream.validator
            while True:
                piece = stream.read(size)
                if not piece:
                    return data
                data += piece
        except TransferError:
            if not retries:
                raise
            retries -= 1


def test_the_interface_is_the_one_that_the_transfer_knows() -> None:
    assert isinstance(mirrored(Place('a'))[0], Mirrors)
    assert not isinstance(Place('a'), Mirrors)


def test_a_place_that_works_is_the_only_one_asked() -> None:
    a, b = Place('a'), Place('b')
    source, told = mirrored(a, b)
    assert read_all(source) == DATA
    assert (a.asked, b.asked, told) == ([(0, None)], [], [])


def test_a_place_that_is_away_is_told_once_and_asked_no_more() -> None:
    a, b = Place('a', always=AWAY), Place('b')
    source, told = mirrored(a, b)
    for _ in range(3):
        assert read_all(source) == DATA
        assert source.stat(PATH).size == len(DATA)
    assert len(a.asked) == 1
    assert told == [
        'http://a/base.qcow2: connection refused; going on with '
        'http://b/base.qcow2'
    ]
    assert source.locate(PATH) == 'http://b/base.qcow2'


def test_it_goes_back_when_the_other_one_is_away_in_turn() -> None:
    a, b = Place('a', (AWAY,)), Place('b', (WELL, AWAY))
    source, told = mirrored(a, b)
    assert read_all(source) == read_all(source) == DATA
    assert (len(a.asked), len(b.asked), len(told)) == (2, 2, 2)


def test_a_file_that_is_missing_says_nothing_of_others() -> None:
    a, b = Place('a', (MISSING,)), Place('b')
    source, told = mirrored(a, b)
    assert read_all(source) == DATA
    assert read_all(source) == DATA
    assert (len(a.asked), len(b.asked), told) == (2, 1, [])


ALL_FAIL = {
    'missing everywhere': (MISSING, MISSING, 404, False),
    'missing at the first': (MISSING, AWAY, 404, True),
    'missing at the mirror': (AWAY, MISSING, 404, True),
    'away': (AWAY, AWAY, None, True),
}


@pytest.mark.parametrize('a, b, status, retryable', ALL_FAIL.values(),
                         ids=ALL_FAIL)
@pytest.mark.parametrize('ask', [Mirrored.stat, Mirrored.open])
def test_all_fail(
    ask: Callable[[Mirrored, str], object], a: int, b: int,
    status: Optional[int], retryable: bool,
) -> None:
    source, told = mirrored(Place('a', always=a), Place('b', always=b))
    with pytest.raises(TransferError) as caught:
        ask(source, PATH)
    error = caught.value
    assert (error.status, error.retryable) == (status, retryable)
    assert error.url == 'http://a/base.qcow2'
    assert 'a mirror failed too: http://b/base.qcow2' in error.message
    assert told == []


def test_a_sidecar_is_not_missing_while_a_place_is_away() -> None:
    """An image shall not lose its digest for an incomplete mirror."""
    missing = Place('b', always=MISSING)
    with pytest.raises(TransferError):
        read_small(mirrored(Place('a', always=AWAY), missing)[0], PATH, 999)
    assert read_small(
        mirrored(Place('a', always=MISSING), missing)[0], PATH, 999
    ) is None


def test_a_file_that_breaks_off_is_continued_without_the_validator() -> None:
    a, b = Place('a', (50,)), Place('b')
    source, told = mirrored(a, b)
    assert read_all(source) == DATA
    assert (a.asked, b.asked) == ([(0, None)], [(50, None)])
    assert len(told) == 1
    # And later files begin at the one that works.
    assert read_all(source) == DATA
    assert len(a.asked) == 1


def test_a_part_that_breaks_off_is_continued_to_its_end() -> None:
    source, _ = mirrored(Place('a', (5,)), Place('b'))
    stream = source.open(PATH, start=10, end=30)
    data = b''.join(iter(lambda: stream.read(3), b''))
    assert data == DATA[10:30]


@pytest.mark.parametrize('other', [
    Place('b', data=DATA + b'!'), Place('b', ranges=False),
    Place('b', always=MISSING), Place('b', always=AWAY),
])
def test_a_file_that_cannot_be_continued_elsewhere(other: Place) -> None:
    a = Place('a', (50,))
    source, _ = mirrored(a, other)
    assert read_all(source, retries=1) == DATA
    # The same place again, in whatever state it is: the digest will tell.
    assert a.asked == [(0, None), (50, None)]
    assert (a.sent, other.sent) == (len(DATA), 0)


NAMED = [
    # Where the digest decides no state has to be named.
    (False, WELL, [(50, None)], [], 50),
    (False, AWAY, [(50, None)], [(50, None)], 50),
    (True, WELL, [(50, '"a"')], [], 50),
    (True, AWAY, [(50, '"a"')], [(0, None)], 0),
]


@pytest.mark.parametrize('apart, fault, asked_a, asked_b, start', NAMED)
def test_a_validator_names_its_place(
    apart: bool, fault: int, asked_a: Asked, asked_b: Asked, start: int
) -> None:
    """After a kill: there with its own, elsewhere with none."""
    first = mirrored(Place('a'), Place('b'))[0].open(PATH)
    a, b = Place('a', always=fault), Place('b')
    source, _ = mirrored(a, b)
    if apart:
        source.keep_apart(PATH)
    stream = source.open(PATH, start=50, validator=first.validator)
    assert stream.start == start
    assert (a.asked, b.asked) == (asked_a, asked_b)


def test_a_validator_of_a_place_that_is_no_mirror_any_more() -> None:
    gone = mirrored(Place('gone'), Place('b'))[0].open(PATH).validator
    a = Place('a')
    source, _ = mirrored(a, Place('b'))
    assert source.open(PATH, start=50, validator=gone).start == 50
    assert a.asked == [(50, None)]


@pytest.mark.parametrize('etag', ['"a"', '"ab"', '"1"', '7', 'Mon, 1 Jan'])
def test_a_validator_from_before_there_were_mirrors(etag: str) -> None:
    a = Place('a')
    a.etag = etag
    source, _ = mirrored(a, Place('b'))
    source.keep_apart(PATH)
    assert source.open(PATH, start=50, validator=etag).start == 50
    assert a.asked == [(50, etag)]


def test_a_part_is_read_where_files_are_kept_apart_too() -> None:
    source, _ = mirrored(Place('a', (AWAY,)), Place('b', (3,)))
    source.keep_apart(PATH)
    stream = source.open(PATH, start=50, end=60)
    assert stream.start == 50
    data = b''.join(iter(lambda: stream.read(4), b''))
    assert data == DATA[50:60]


@pytest.mark.parametrize('mirrors', [0, 1])
def test_states_of_one_place_are_joined_as_places_are(mirrors: int) -> None:
    """Nodes behind one name have ETags of their own for the same bytes."""
    a = Place('a', (50, 50))
    source, _ = mirrored(a, *[Place('b', always=MISSING)] * mirrors)
    data, validator = b'', None
    for node in ('"1"', '"2"', '"1"'):
        a.etag = node
        stream = source.open(PATH, start=len(data), validator=validator)
        assert stream.start == len(data)
        validator = stream.validator
        with contextlib.suppress(TransferError):
            for piece in iter(lambda: stream.read(50), b''):
                data += piece
    assert data == DATA
    assert a.sent == len(DATA)
    # Are they wrong together, all is fetched in one of the states.
    assert source.reject(PATH, False)
    assert source.is_alone(PATH)
    stream = source.open(PATH)
    a.etag = '"2"'
    again = source.open(PATH, start=50, validator=stream.validator)
    assert (again.start, a.asked[-1]) == (0, (50, '"1"'))
    assert source.reject(PATH, False) == bool(mirrors)


def test_a_place_with_another_file_is_left_before_a_byte_is_used() -> None:
    """Only its size was seen, in a request that joins nothing."""
    a, b = Place('a', data=DATA * 2), Place('b')
    source, _ = mirrored(a, b)
    assert source.open(PATH, start=50, end=60).total == 400
    assert source.reject(PATH, False)
    assert source.open(PATH).total == 200
    source, _ = mirrored(a)
    source.open(PATH, start=50, end=60)
    assert not source.reject(PATH, False)


def test_it_begins_anew_where_no_place_continues() -> None:
    a, b = Place('a', ranges=False), Place('b', ranges=False)
    source, _ = mirrored(a, b)
    stream = source.open(PATH, start=50)
    assert (stream.start, stream.read(500)) == (0, DATA)
    # What has answered already is not asked once more.
    assert (a.asked, b.asked) == ([(50, None)], [(50, None)])


def test_an_aborted_stream_goes_nowhere() -> None:
    b = Place('b')
    source, _ = mirrored(Place('a'), b)
    stream = source.open(PATH)
    stream.read(10)
    stream.abort()
    with pytest.raises(TransferError):
        stream.read(10)
    assert b.asked == []


# Wrong bytes

def test_a_place_with_wrong_bytes_is_left_for_the_next_one() -> None:
    a, b = Place('a', data=DATA[::-1]), Place('b')
    source, _ = mirrored(a, b)
    assert read_all(source) != DATA
    assert source.reject(PATH, False)
    assert read_all(source) == DATA
    assert not source.reject(PATH, False), 'both have been refused'
    # Other files may be right there.
    source.open('other')
    assert len(a.asked) == 2


def test_joined_bytes_that_are_wrong_are_fetched_from_one_place() -> None:
    a, b = Place('a', (50,)), Place('b', data=DATA[::-1])
    source, _ = mirrored(a, b)
    assert read_all(source) not in (a.data, b.data)
    assert source.reject(PATH, False)
    assert read_all(source) == b.data
    assert source.reject(PATH, False)
    assert read_all(source) == a.data == DATA
    assert not source.reject(PATH, False)


def test_what_an_earlier_run_left_may_be_wrong() -> None:
    a = Place('a')
    source, _ = mirrored(a, Place('b', always=AWAY))
    validator = source.open(PATH).validator
    source, _ = mirrored(a, Place('b', always=AWAY))
    assert source.open(PATH, start=50, validator=validator).start == 50
    assert source.reject(PATH, False)
    assert read_all(source) == DATA


def test_damage_that_is_seen_before_anything_is_opened() -> None:
    source, _ = mirrored(Place('a'), Place('b'))
    assert source.reject(PATH, False)


def test_bytes_without_a_digest_are_never_joined() -> None:
    a, b = Place('a', (50, AWAY)), Place('b', data=DATA[::-1])
    source, _ = mirrored(a, b)
    source.keep_apart(PATH)
    assert read_all(source, retries=1) == b.data
    assert (a.asked, b.asked) == ([(0, None), (50, '"a"')], [(0, None)])


def test_a_place_alone_is_continued_there() -> None:
    a, b = Place('a', (50, 50)), Place('b')
    source, _ = mirrored(a, b)
    source.keep_apart(PATH)
    assert read_all(source, retries=2) == DATA
    assert [start for start, _ in a.asked] == [0, 50, 100]
    assert b.asked == []


FAULTS = st.lists(
    st.one_of(st.sampled_from([WELL, AWAY, MISSING]), st.integers(0, 250)),
    max_size=4,
).map(tuple)


@given(st.lists(FAULTS, min_size=1, max_size=4), st.integers(0, 3),
       st.integers(1, 90))
def test_no_byte_is_sent_twice_whatever_fails(
    faults: List[Tuple[int, ...]], retries: int, size: int
) -> None:
    places = [Place(str(n), each) for n, each in enumerate(faults)]
    source, _ = mirrored(*places)
    try:
        assert read_all(source, retries, size) == DATA
    except TransferError:
        assert sum(place.sent for place in places) < len(DATA) + 1
    else:
        assert sum(place.sent for place in places) == len(DATA)
    for place in places:
        assert {each for _, each in place.asked} <= {None, place.etag}


@given(st.lists(st.tuples(FAULTS, st.booleans(), st.booleans()),
                min_size=1, max_size=4), st.integers(1, 90))
def test_the_right_bytes_are_found_where_they_are(
    given_places: List[Tuple[Tuple[int, ...], bool, bool]], size: int
) -> None:
    """As `transfer.fetch` does it: reject, and fetch anew."""
    places = [
        Place(str(n), faults, ranges=ranges,
              data=DATA if right else bytes([n]) * len(DATA))
        for n, (faults, ranges, right) in enumerate(given_places)
    ]
    source, _ = mirrored(*places)
    rounds = 0
    while True:
        rounds += 1
        # More failures than all places together can have.
        found = read_all(source, retries=20, size=size)
        if found == DATA or not source.reject(PATH, False):
            break
    assert rounds <= len(places) + 1
    if any(right for _, _, right in given_places):
        assert found == DATA


def test_the_message_of_many_mirrors_names_a_few() -> None:
    error = join_failures({
        number: TransferError(f'http://m{number}/x', 'it is away')
        for number in range(17)
    })
    assert 'http://m0/x' in error.message
    assert '16 mirrors failed too: http://m1/x: it is away' in error.message
    assert 'http://m3/x: it is away and 13 more' in error.message
    assert 'm4' not in error.message
