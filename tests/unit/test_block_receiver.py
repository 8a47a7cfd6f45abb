"""Images received block by block from a source that fails in all ways.

The source is in memory, the store is a real one; connections, decoding and
digests are those of a transfer.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import random
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple, Type

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_layered_provider.core.errors import (
    Cancelled, LayeredError, SizeMismatch, TransferError,
)
from lago_layered_provider.core.model import Digest, Image, ImageRef
from lago_layered_provider.formats import zstd
from lago_layered_provider.formats.blocks import BlockMap, read_map
from lago_layered_provider.formats.detect import FIRST_BYTES
from lago_layered_provider.report.console import make_console
from lago_layered_provider.report.choose import make_progress
from lago_layered_provider.report.progress import Lines
from lago_layered_provider.store import Stage, Store
from lago_layered_provider.transfer import ordered, retries
from lago_layered_provider.transfer.block_receiver import BlockReceiver
from lago_layered_provider.transfer.claims import Part
from lago_layered_provider.transfer.connections import Connections
from lago_layered_provider.transfer.jobs import Jobs
from lago_layered_provider.transfer.landing import Landing, place_blocks
from lago_layered_provider.transfer.mapping import Mapped
from lago_layered_provider.transfer.ports import FileInfo
from lago_layered_provider.transfer.retries import WrongAnswer
from lago_layered_provider.transfer.shared import BlockRoom, Shared
from tests.unit.test_decode import xz_in_blocks, zstd_module

NAME = 'repo:image:v1'
SECONDS = 30
KIB = 1 << 10

#: What can be decoded block by block, and what cannot.
BLOCKS = ['xz', 'zst', None]
IN_ORDER = ['gz', 'one xz', 'one zst']

#: So that small files come in many pieces.
WINDOW_BYTES = 100_000


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, 'WINDOW_BYTES', WINDOW_BYTES)
    monkeypatch.setattr(retries, 'FIRST_PAUSE_SECONDS', 0.001)


class Stream:
    """Bytes of a file in memory, from `start` to `end`; maybe cut."""

    def __init__(
        self, data: bytes, start: int, end: int, cut: Optional[int]
    ) -> None:
        self.start = start
        self.total: Optional[int] = len(data)
        self.validator: Optional[str] = None
        self.sent = 0
        self._data = data
        self._end = end
        self._cut = cut
        self._aborted = False
        self.unread = False

    def has_unread(self) -> bool:
        return self.unread

    def read(self, size: int) -> bytes:
        here = self.start + self.sent
        left = self._end - here
        if self._cut is not None:
            left = min(left, self._cut - self.sent)
        if self._aborted or (left <= 0 and here < self._end):
            raise TransferError('memory', 'it broke', retryable=True)
        chunk = self._data[here:here + min(size, left)]
        self.sent += len(chunk)
        return chunk

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        """Keep nothing open."""


@dataclass
class Origin:
    """A source with one file.

    Attributes:
        cuts: after how many bytes the first streams break, one after the
            other; None: not at all.
    """

    data: bytes
    cuts: List[Optional[int]] = field(default_factory=list)
    opened: List[Stream] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def locate(self, path: str) -> str:
        return f'memory://origin/{path}'

    def stat(self, path: str) -> FileInfo:
        return FileInfo(len(self.data), None)

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        with self.lock:
            cut = self.cuts.pop(0) if self.cuts else None
            stream = Stream(
                self.data, start, len(self.data) if end is None else end, cut
            )
            self.opened.append(stream)
        return stream

    @property
    def sent(self) -> int:
        return sum(stream.sent for stream in self.opened)


class Told:
    """What people would be told."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun: List[Tuple[Optional[int], int]] = []
        self.advanced = 0
        self.notes: List[str] = []

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        self.begun.append((total, done))

    def advance(self, name: str, count: int) -> None:
        with self.lock:
            self.advanced += count

    def wait(self, name: str, reason: str) -> None:
        raise AssertionError('nobody else is here')

    def end(self, name: str, outcome: str) -> None:
        raise AssertionError('a receiver does not end a layer')

    def note(self, text: str) -> None:
        self.notes.append(text)


class Stopping(Told):
    """Stops the transfer when so many bytes have come."""

    shared: Shared

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def advance(self, name: str, count: int) -> None:
        super().advance(name, count)
        if self.advanced >= self._limit:
            self.shared.cancelled.set()


@dataclass
class File:
    """An image and its file at the source."""

    image: Image
    content: bytes
    data: bytes
    found: Optional[BlockMap]

    @property
    def map(self) -> BlockMap:
        assert self.found is not None
        return self.found

    @property
    def mapped(self) -> Mapped:
        return Mapped(len(self.data), None, self.found)


def make_file(kind: Optional[str], parts: List[bytes]) -> File:
    content = b''.join(parts)
    compression = kind and kind.split()[-1]
    if kind in IN_ORDER:
        data = {
            'gz': gzip.compress, 'one xz': lzma.compress,
            'one zst': zstd_module().compress,
        }[kind](content)
    elif compression == 'xz':
        data = xz_in_blocks(parts)
    elif compression == 'zst':
        frames = [zstd_module().compress(part) for part in parts]
        data = b''.join(frames) + zstd.make_seek_table([
            (len(frame), len(part)) for frame, part in zip(frames, parts)
        ])
    else:
        data = content
    found = None
    if kind not in IN_ORDER:
        read = read_map(compression, data, len(data))
        assert isinstance(read, BlockMap)
        found = read
    image = Image(
        ImageRef('repo', 'image', 'v1'), 'source', 'image', 1.0, None,
        'raw', compression, len(content), len(data), len(content),
        (Digest('sha256', hashlib.sha256(content).hexdigest()),),
    )
    return File(image, content, data, found)


def open_receiver(
    file: File, origin: Origin, stage: Stage, shared: Shared
) -> BlockReceiver:
    jobs = Jobs(shared)
    aim = place_blocks if file.found else ordered.order_pieces
    claims, target = aim(
        file.image, stage, file.mapped, shared, jobs, 'memory'
    )
    return BlockReceiver(
        NAME, file.image, origin, file.mapped, claims, target, jobs, shared
    )


class Receiving:
    """One transfer of a file into a store."""

    def __init__(
        self, store: Store, file: File, origin: Origin, *,
        connections: int = 3, told: Optional[Told] = None,
        patience: float = SECONDS,
    ) -> None:
        self.told = told or Told()
        self.shared = Shared(
            connections, patience, self.told, BlockRoom(4)
        )
        self._store = store
        self._file = file
        self._origin = origin

    def run(self) -> Dict[str, str]:
        """Receive it all; return the digests."""
        connections = Connections(
            self.shared.connections, self.shared.pool.lost
        )
        try:
            with self._store.stage(NAME, identity='it') as stage:
                assert stage is not None
                receiver = open_receiver(
                    self._file, self._origin, stage, self.shared
                )
                with contextlib.closing(receiver), connections.serving(
                    self._origin, 'image', receiver, 1
                ) as wake:
                    made = receiver.wait(wake)
        finally:
            connections.close()
            self.shared.pool.close()
        return {digest.algorithm: digest.value for digest in made}


def staged_bytes(store: Store) -> bytes:
    return Path(f'{store.root}/.layered/partial/{NAME}').read_bytes()


@pytest.fixture(name='store')
def fixture_store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.prepare()
    return store


@contextlib.contextmanager
def fresh_store(factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(str(factory.mktemp('store')))
    store.prepare()
    yield store


def random_parts(seed: int, count: int, size: int) -> List[bytes]:
    rng = random.Random(seed)
    sizes = [rng.randrange(1, size) for _ in range(count)]
    return [
        bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
        for size in sizes
    ]


@given(
    compression=st.sampled_from([*BLOCKS, *IN_ORDER]),
    seed=st.integers(0, 10**6), count=st.integers(2, 9),
    connections=st.integers(1, 4),
    cuts=st.lists(st.none() | st.integers(1, 200_000), max_size=8),
)
@settings(max_examples=40)
def test_right_whatever_breaks(
    tmp_path_factory: pytest.TempPathFactory, compression: Optional[str],
    seed: int, count: int, connections: int, cuts: List[Optional[int]],
) -> None:
    size = 400_000 if compression else 3_000_000
    file = make_file(compression, random_parts(seed, count, size))
    origin = Origin(file.data, list(cuts))
    with fresh_store(tmp_path_factory) as store:
        receiving = Receiving(
            store, file, origin, connections=connections
        )
        made = receiving.run()
        assert staged_bytes(store) == file.content
        # What was decoded takes no room any more.
        assert not file.found or [*Path(store.root).rglob('*.spool')] == []
        # Only where nothing else waits there is room for so much.
        assert receiving.shared.room.acquire(sys.maxsize, 0)
    assert made['sha256'] == hashlib.sha256(file.content).hexdigest()
    told = receiving.told
    # Each byte counts once for people, and comes once over the line.
    assert told.begun == [(file.mapped.to_fetch, 0)]
    assert told.advanced == file.mapped.to_fetch
    assert origin.sent == file.mapped.to_fetch


@given(
    compression=st.sampled_from(['xz', 'zst', None]),
    seed=st.integers(0, 10**6), stop_at=st.floats(0, 1),
    connections=st.integers(1, 4),
)
@settings(max_examples=30)
def test_stopped_and_continued(
    tmp_path_factory: pytest.TempPathFactory, compression: Optional[str],
    seed: int, stop_at: float, connections: int,
) -> None:
    """What has come is not fetched again, also of blocks not complete."""
    size = 400_000 if compression else 3_000_000
    file = make_file(compression, random_parts(seed, 6, size))
    told = Stopping(stop_at * file.map.to_fetch)
    first = Origin(file.data)
    with fresh_store(tmp_path_factory) as store:
        receiving = Receiving(
            store, file, first, connections=connections, told=told
        )
        told.shared = receiving.shared
        with contextlib.suppress(Cancelled):
            receiving.run()
        second = Origin(file.data)
        again = Receiving(store, file, second, connections=connections)
        again.run()
        assert staged_bytes(store) == file.content
    assert again.told.begun == [(file.map.to_fetch, told.advanced)]
    assert told.advanced + again.told.advanced == file.map.to_fetch
    assert second.sent == again.told.advanced


@given(
    compression=st.sampled_from(IN_ORDER),
    seed=st.integers(0, 10**6), stop_at=st.floats(0, 1),
    connections=st.integers(2, 4),
)
@settings(max_examples=30)
def test_in_order_stopped_and_continued(
    tmp_path_factory: pytest.TempPathFactory, compression: str,
    seed: int, stop_at: float, connections: int,
) -> None:
    """No more comes again than may wait for its turn."""
    file = make_file(compression, random_parts(seed, 6, 400_000))
    told = Stopping(stop_at * len(file.data))
    with fresh_store(tmp_path_factory) as store:
        receiving = Receiving(
            store, file, Origin(file.data), connections=connections,
            told=told,
        )
        told.shared = receiving.shared
        with contextlib.suppress(Cancelled):
            receiving.run()
        second = Origin(file.data)
        again = Receiving(store, file, second, connections=connections)
        again.run()
        assert staged_bytes(store) == file.content
    (total, done), = again.told.begun
    assert total == len(file.data)
    assert told.advanced - WINDOW_BYTES <= done <= told.advanced
    assert second.sent == again.told.advanced == total - done


def test_nothing_is_fetched_far_ahead(store: Store) -> None:
    """While the first piece does not come, the others wait."""
    file = make_file('one zst', [random.Random(1).randbytes(600_000)])
    held = threading.Event()
    pieces = WINDOW_BYTES // 5

    class First(Origin):
        def open(
            self, path: str, *, start: int = 0, end: Optional[int] = None,
            validator: Optional[str] = None,
        ) -> Stream:
            stream = super().open(path, start=start, end=end)
            if start == 0:
                assert held.wait(SECONDS)
            return stream

    class Waiting(Told):
        def advance(self, name: str, count: int) -> None:
            super().advance(name, count)
            # All but the first piece of what may be here.
            if self.advanced == WINDOW_BYTES - pieces:
                threading.Timer(0.3, held.set).start()
            if not held.is_set():
                assert self.advanced <= WINDOW_BYTES - pieces

    origin = First(file.data)
    Receiving(store, file, origin, connections=4, told=Waiting()).run()
    assert staged_bytes(store) == file.content
    assert origin.sent == len(file.data)
    assert sorted(stream.start for stream in origin.opened[:5]) == [
        *range(0, WINDOW_BYTES, pieces)
    ]


@pytest.mark.parametrize('compression', ['xz', 'zst', None])
def test_a_block_that_two_have_received_lands_once(
    compression: Optional[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One brings the last bytes while the other still counts its own."""
    landed: List[Part] = []
    land = Landing.land

    def see(landing: Landing, part: Part) -> None:
        landed.append(part)
        land(landing, part)

    monkeypatch.setattr(Landing, 'land', see)
    rng = random.Random(2)
    file = make_file(compression, [
        rng.randbytes(2 << 20), rng.randbytes(10_000)
    ])
    completed = threading.Event()

    class Slow(Told):
        """Who brought the first bytes goes on when the block is whole."""

        def advance(self, name: str, count: int) -> None:
            super().advance(name, count)
            if self.advanced == count:
                assert completed.wait(SECONDS)

    origin = Origin(file.data)
    fetch_helped(store, file, origin, Slow(), completed)
    assert [part.block for part in landed] == [*file.map.blocks]


def fetch_helped(
    store: Store, file: File, origin: Origin, told: Told,
    completed: threading.Event,
) -> None:
    """Fetch a file of two blocks, the first one over two connections.

    Args:
        completed: is set when the second one has brought it.
    """
    receiving = Receiving(store, file, origin, told=told, connections=1)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        receiver = open_receiver(file, origin, stage, receiving.shared)
        with contextlib.closing(receiver):
            run = receiver.claim(0.0)
            assert run and run.parts[0].block == file.map.blocks[0]
            slow = threading.Thread(
                target=receiver.fetch, args=(run, lambda: True)
            )
            slow.start()
            while not run.parts[0].received:
                assert slow.is_alive()
            receiver._claims._best = 10e6
            stream = origin.opened[-1]
            # Its bytes are here, only nobody reads them.
            stream.unread = True
            assert receiver.help(1e9) is None
            stream.unread = False
            helper = receiver.help(1e9)
            assert helper is not None
            receiver.fetch(helper, lambda: True)
            completed.set()
            slow.join(SECONDS)
            rest = receiver.claim(1e9)
            assert rest is not None
            receiver.fetch(rest, lambda: True)
            assert receiver.claim(1e9) is None
            receiver.wait(lambda: None)
        assert stage.size == len(file.content)
    assert staged_bytes(store) == file.content
    receiving.shared.pool.close()


class TakingTurns(Origin):
    """Two streams bring the same bytes, the second one a moment earlier."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.second_put = threading.Event()
        self.first_put = threading.Event()

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        stream = super().open(path, start=start, end=end)
        read, number, reads = stream.read, len(self.opened), [0]

        def take_turns(size: int) -> bytes:
            reads[0] += 1
            if number == 1 and reads[0] == 2:
                assert self.second_put.wait(SECONDS)
            if number == 1 and reads[0] == 3:
                self.first_put.set()
            if number == 2 and reads[0] == 2:
                self.second_put.set()
                assert self.first_put.wait(SECONDS)
            return read(size)

        stream.read = take_turns  # type: ignore[method-assign]
        return stream


@pytest.mark.parametrize('compression', ['xz', 'zst', None])
def test_bytes_that_two_bring_count_once(
    compression: Optional[str], store: Store
) -> None:
    rng = random.Random(6)
    file = make_file(compression, [
        rng.randbytes(2 << 20), rng.randbytes(10_000)
    ])
    if compression is None:
        assert len(file.map.blocks) == 2
    told = Told()
    origin = TakingTurns(file.data)
    fetch_helped(store, file, origin, told, threading.Event())
    assert told.advanced == file.map.to_fetch < origin.sent


class Odd(Origin):
    """A source whose answers are wrong, for some requests.

    Attributes:
        wrong: which requests, by their number; None: all.
        shift: theirs begin so much later.
        more: bytes that their file has more.
    """

    wrong: Optional[Set[int]] = None
    shift = more = 0

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        stream = super().open(path, start=start, end=end)
        if self.wrong is None or len(self.opened) in self.wrong:
            stream.start += self.shift
            stream.total = len(self.data) + self.more
        return stream


@pytest.mark.parametrize('change', ['shift', 'more'])
@pytest.mark.parametrize('kind', ['xz', 'gz', None])
def test_after_a_wrong_answer_it_is_asked_again(
    kind: Optional[str], change: str, store: Store
) -> None:
    """One node of several may be wrong: what is here stays."""
    file = make_file(kind, random_parts(3, 5, 2 << 20))
    origin = Odd(file.data)
    setattr(origin, change, 1)
    origin.wrong = {1, 3}
    receiving = Receiving(store, file, origin)
    receiving.run()
    assert staged_bytes(store) == file.content
    assert receiving.told.advanced == file.mapped.to_fetch
    # A message may name what else came, by its first bytes.
    assert origin.sent - receiving.told.advanced <= 2 * FIRST_BYTES
    assert 'trying again in' in receiving.told.notes[0]


@pytest.mark.parametrize('change, error', [
    ('shift', WrongAnswer), ('more', SizeMismatch),
])
def test_a_server_with_wrong_answers_only_means_them(
    change: str, error: Type[Exception], store: Store
) -> None:
    file = make_file('xz', random_parts(3, 5, 400_000))
    origin = Odd(file.data)
    setattr(origin, change, 1)
    receiving = Receiving(store, file, origin, connections=1)
    with pytest.raises(error):
        receiving.run()
    assert len(origin.opened) == retries.WRONG_ANSWERS + 1
    assert len(receiving.told.notes) == retries.WRONG_ANSWERS


def test_any_new_byte_renews_the_patience(store: Store) -> None:
    """However many connections break, one after the other."""
    file = make_file('gz', [random.Random(1).randbytes(30_000)])
    origin = Origin(file.data, [100] * 250)
    receiving = Receiving(
        store, file, origin, connections=1, patience=0.001
    )
    receiving.run()
    assert staged_bytes(store) == file.content
    assert origin.sent == len(file.data)
    assert len(origin.opened) > 250


class Limiting(Origin):
    """A server with a limit of its rate: of eight requests it answers one."""

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        stream = super().open(path, start=start, end=end)
        if len(self.opened) % 8:
            raise TransferError(
                'memory', 'HTTP 429', status=429, retryable=True,
                retry_after=0.001,
            )
        return stream


@pytest.mark.parametrize('connections', [1, 3])
@pytest.mark.parametrize('kind', ['xz', 'gz'])
def test_a_limit_of_the_rate_slows_down_and_comes_to_its_end(
    kind: str, connections: int, store: Store
) -> None:
    file = make_file(kind, random_parts(3, 6, 100_000))
    origin = Limiting(file.data)
    receiving = Receiving(store, file, origin, connections=connections)
    receiving.run()
    assert staged_bytes(store) == file.content
    assert origin.sent == receiving.told.advanced == file.mapped.to_fetch
    # All others were refused, more in a row than any number of tries.
    answered = [one for one in origin.opened if one.sent]
    assert len(origin.opened) >= 8 * len(answered)


def test_patience_ends(store: Store) -> None:
    """What breaks without any progress is not tried for ever."""
    file = make_file('xz', random_parts(4, 6, 400_000))
    origin = Origin(file.data, [0] * 10**5)
    with pytest.raises(TransferError, match='it broke'):
        Receiving(store, file, origin, patience=0.1).run()


class Expiring(Origin):
    """A source that answers three requests, and then refuses all.

    Args:
        begun: is waited for before.
    """

    def __init__(self, data: bytes, begun: threading.Event) -> None:
        super().__init__(data)
        self._begun = begun

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        if len(self.opened) == 3:
            assert self._begun.wait(SECONDS)
            raise TransferError('memory', 'it has expired', status=403)
        return super().open(path, start=start, end=end, validator=validator)


@pytest.mark.parametrize('compression', IN_ORDER)
def test_the_reason_is_raised_whoever_is_stopped_by_it(
    compression: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection fails while the image's own thread decodes."""
    work = ordered.Ordered.work
    begun = threading.Event()

    def work_when_it_has_failed(target: ordered.Ordered) -> None:
        jobs = target._jobs
        begun.set()
        with jobs.changed:
            assert jobs.changed.wait_for(lambda: jobs.over, SECONDS)
        work(target)

    monkeypatch.setattr(ordered.Ordered, 'work', work_when_it_has_failed)
    file = make_file(compression, [random.Random(7).randbytes(600_000)])
    with pytest.raises(TransferError, match='it has expired'):
        Receiving(store, file, Expiring(file.data, begun)).run()


def test_a_block_makes_no_more_than_it_says(store: Store) -> None:
    """Else a small file would fill the disk, or overwrite its neighbours."""
    file = make_file('zst', [bytes(1000), bytes(1000)])
    frames = [
        zstd_module().compress(bytes(size)) for size in (1000, 4_000_000)
    ]
    data = b''.join(frames) + zstd.make_seek_table([
        (len(frame), 1000) for frame in frames
    ])
    found = read_map('zst', data, len(data))
    assert isinstance(found, BlockMap)
    file = replace(
        file, data=data, found=found,
        image=replace(file.image, compressed_size=len(data)),
    )
    with pytest.raises(LayeredError, match='makes more than 1000 bytes'):
        Receiving(store, file, Origin(data)).run()
    assert len(staged_bytes(store)) <= 2000


@pytest.mark.parametrize('compression', [*BLOCKS, *IN_ORDER])
def test_a_damaged_block_ends_it(
    compression: Optional[str], store: Store
) -> None:
    file = make_file(compression, [
        random.Random(number).randbytes(400_000) for number in range(4)
    ])
    data = bytearray(file.data)
    data[len(data) // 2] ^= 0xff
    origin = Origin(bytes(data))
    with pytest.raises(LayeredError, match='image:v1'):
        Receiving(store, file, origin).run()


def test_no_thread_stays(store: Store) -> None:
    before = threading.active_count()
    file = make_file('xz', random_parts(5, 6, 400_000))
    Receiving(store, file, Origin(file.data)).run()
    names = [thread.name for thread in threading.enumerate()]
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(5)
    assert threading.active_count() <= before, names


@pytest.mark.parametrize('told', ['begin', 'advance', 'note', 'refresh'])
def test_what_goes_wrong_while_people_are_told_ends_no_transfer(
    told: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a pipe that nobody reads any more."""
    def fail(*_: object) -> None:
        raise BrokenPipeError(told)

    monkeypatch.setattr(Lines, told, fail)
    stream = io.StringIO()
    file = make_file(None, random_parts(3, 4, 2 << 20))
    receiving = Receiving(store, file, Origin(file.data, [1000]))
    with make_progress('line', make_console(stream)) as progress:
        receiving.shared = replace(receiving.shared, progress=progress)
        receiving.run()
    assert staged_bytes(store) == file.content
    assert stream.getvalue().count('cannot be shown') == 1


def test_people_hear_of_no_bytes_before_the_beginning(store: Store) -> None:
    """Other connections are on their way while one announces the layer."""
    brought = threading.Event()

    class Slow(Told):
        def begin(self, name: str, total: Optional[int], done: int) -> None:
            assert not brought.wait(0.3)
            super().begin(name, total, done)

        def advance(self, name: str, count: int) -> None:
            brought.set()
            assert self.begun
            super().advance(name, count)

    file = make_file(None, random_parts(3, 4, 2 << 20))
    told = Slow()
    Receiving(store, file, Origin(file.data), told=told).run()
    assert told.begun == [(len(file.data), 0)]
