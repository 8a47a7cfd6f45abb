"""Receiving an image: sparse, and the same bytes after any kill."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lago_layered_provider.store import Record, Resume, Stage, Store, sparse

NAME = 'repo:image:v1'
OTHER = 'repo:image:v1.5'
KIB = 1024


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.prepare()
    return store


@pytest.fixture
def stage(store: Store) -> Iterator[Stage]:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        yield stage


@pytest.fixture(autouse=True)
def without_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without fsync, which a kill does not need and disks are slow at."""
    monkeypatch.setattr(os, 'fsync', lambda fd: None)


def going_on(
    validator: Optional[str],
    consumed: int,
    produced: int,
    spooled: int,
    preamble: bytes = b'',
) -> Resume:
    return Resume(
        validator=validator, consumed=consumed, produced=produced,
        preamble=preamble, spooled=spooled,
    )


def staged(store: Store, name: str = NAME) -> Path:
    return Path(f'{store.root}/.layered/partial/{name}')


def open_again(store: Store, identity: str = 'it') -> Resume:
    with store.stage(NAME, identity=identity) as stage:
        assert stage is not None
        return stage.resume()


# Writing.

pieces = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 300 * KIB).map(bytes),
    st.tuples(st.integers(0, 70 * KIB), st.integers(1, 255)).map(
        lambda drawn: bytes([drawn[1]]) * drawn[0]
    ),
)


@given(st.lists(pieces, max_size=8), st.integers(0, 10000))
@example([bytes(65536), b'x', bytes(65536)], 1)
def test_runs_leave_out_zeros_and_nothing_else(
    parts: List[bytes], position: int
) -> None:
    data = b''.join(parts)
    rest = bytearray(len(data))
    before = 0
    for start, end in sparse.data_runs(data, position):
        assert before <= start < end <= len(data)
        rest[start:end] = data[start:end]
        before = end
    assert bytes(rest) == data


@given(st.lists(pieces, max_size=8), st.integers(1, 100 * KIB))
@settings(max_examples=40)
def test_a_file_is_read_with_its_holes(
    parts: List[bytes], size: int
) -> None:
    data = b''.join(parts)
    with tempfile.TemporaryFile(buffering=0) as file:
        for start, end in sparse.data_runs(data, 0):
            file.seek(start)
            file.write(data[start:end])
        file.truncate(len(data))
        chunks = list(sparse.read_chunks(file.fileno(), size))
    assert b''.join(chunks) == data
    assert all(0 < len(chunk) <= size for chunk in chunks)


def test_holes_are_not_read() -> None:
    """A disk that has nothing but two bytes in 64 GiB."""
    size = 8 * KIB * KIB
    with tempfile.TemporaryFile(buffering=0) as file:
        for position in (5 * KIB * size, 8 * KIB * size - 1):
            file.seek(position)
            file.write(b'x')
        count = 0
        kept = {}
        for chunk in sparse.read_chunks(file.fileno(), size):
            count += len(chunk)
            kept[id(chunk)] = chunk
    assert count == 8 * KIB * size
    assert sum(chunk.count(b'x') for chunk in kept.values()) == 2
    assert len(kept) < 10


@given(st.lists(pieces, max_size=8), st.integers(1, 100 * KIB))
@settings(max_examples=40)
def test_any_write_sizes_give_the_same_bytes(
    parts: List[bytes], size: int
) -> None:
    data = b''.join(parts)
    with tempfile.TemporaryDirectory() as root:
        store = Store(root)
        store.prepare()
        with store.stage(NAME, identity='it') as stage:
            assert stage is not None
            for start in range(0, len(data), size):
                stage.write(data[start:start + size])
            assert stage.size == len(data)
            stage.finish()
            assert staged(store).read_bytes() == data
            assert stage.head(1000) == data[:1000]
            stage.checkpoint(1, len(data), None)
            assert b''.join(stage.replay()) == data


def test_zeros_take_no_room(store: Store, stage: Stage) -> None:
    for _ in range(64):
        stage.write(b'x' * 4096 + bytes(2**20 - 4096))
    stage.finish()
    found = os.stat(staged(store))
    assert found.st_size == 64 * 2**20
    assert found.st_blocks * 512 <= 64 * 4096 + 65536


def test_hole_at_the_end_belongs_to_the_file(
    store: Store, stage: Stage
) -> None:
    stage.write(b'x' + bytes(10**6))
    assert stage.head(5) == b'x\0\0\0\0'
    stage.finish()
    assert staged(store).stat().st_size == 10**6 + 1


def test_head_of_a_hole(stage: Stage) -> None:
    stage.write(bytes(10000))
    assert stage.head(5000) == bytes(5000)
    assert stage.head(20000) == bytes(10000)


# Checkpoints and spools.

def test_new_stage_begins_at_zero(stage: Stage) -> None:
    assert stage.resume() == going_on(None, 0, 0, 0)
    assert stage.verified is None
    assert list(stage.replay()) == list(stage.spooled_chunks()) == []


def test_bytes_beyond_the_checkpoint_are_cut_off(
    store: Store, stage: Stage
) -> None:
    stage.write(b'whole block')
    stage.checkpoint(7, 11, '"etag"')
    stage.write(b'half')
    stage.spool(b'abc')
    stage.close()
    resumed = Stage(stage._paths, NAME, 'it')
    assert resumed.resume() == going_on('"etag"', 7, 11, 3)
    assert resumed.size == 11
    assert staged(store).read_bytes() == b'whole block'
    assert b''.join(resumed.spooled_chunks()) == b'abc'
    resumed.spool(b'def')
    assert b''.join(resumed.spooled_chunks()) == b'abcdef'
    resumed.close()


def test_resume_in_the_same_stage(stage: Stage) -> None:
    stage.write(b'block')
    stage.checkpoint(5, 5, None)
    stage.write(b'garbage')
    assert stage.resume() == going_on(None, 5, 5, 0)
    stage.write(b'!')
    stage.checkpoint(6, 6, None)
    assert b''.join(stage.replay()) == b'block!'


def test_preamble_belongs_to_the_checkpoint(
    store: Store, stage: Stage
) -> None:
    stage.checkpoint(5, 0, None, preamble=b'\xfd7zXZ\0')
    stage.close()
    resumed = Stage(stage._paths, NAME, 'it')
    assert resumed.resume() == going_on(None, 5, 0, 0, b'\xfd7zXZ\0')
    resumed.checkpoint(6, 0, None)
    assert resumed.resume() == going_on(None, 6, 0, 0)
    resumed.close()


def test_checkpoint_at_zero_keeps_the_validator(
    store: Store, stage: Stage
) -> None:
    stage.checkpoint(0, 0, '"etag"')
    stage.spool(b'abc')
    stage.close()
    with_spool = Stage(stage._paths, NAME, 'it')
    assert with_spool.resume() == going_on('"etag"', 0, 0, 3)
    with_spool.close()


def test_spooled_bytes_beyond_the_checkpoint_stay(stage: Stage) -> None:
    stage.spool(b'0123456789')
    stage.write(b'data')
    stage.checkpoint(6, 4, None)
    assert stage.resume() == going_on(None, 6, 4, 4)
    assert b''.join(stage.spooled_chunks()) == b'6789'


def test_checkpoints_while_the_spool_is_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('lago_layered_provider.store.spool.READ_BYTES', 4)
    stage.spool(b'0123456789abcdef')
    seen = b''
    for chunk in stage.spooled_chunks():
        seen += chunk
        stage.checkpoint(len(seen) - 1, 0, None)
    assert seen == b'0123456789abcdef'
    assert b''.join(stage.spooled_chunks()) == b'f'


def test_one_spool_at_a_time(store: Store, stage: Stage) -> None:
    for number in range(5):
        stage.spool(b'abc')
        stage.checkpoint(3 * number + 3, 0, None)
    stage.spool(b'tail')
    names = os.listdir(f'{store.root}/.layered/partial')
    assert sorted(names) == [NAME, f'{NAME}.15.spool', f'{NAME}.json']


def test_spools_of_other_images_stay(store: Store, stage: Stage) -> None:
    with store.stage(OTHER, identity='it') as other:
        assert other is not None
        other.spool(b'abc')
    stage.spool(b'x')
    stage.reset()
    stage.discard()
    with store.stage(OTHER, identity='it') as other:
        assert other is not None
        assert other.resume().spooled == 3


def test_checkpoint_must_be_true(stage: Stage) -> None:
    stage.write(b'abc')
    with pytest.raises(ValueError):
        stage.checkpoint(1, 4, None)
    stage.checkpoint(9, 3, None)
    with pytest.raises(ValueError):
        stage.checkpoint(8, 3, None)
    with pytest.raises(ValueError):
        stage.mark_verified(Record('raw', 4, 4, ()))


def test_partial_counts_checkpoint_and_spool(store: Store) -> None:
    assert store.partial(NAME) is None
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        assert store.partial(NAME) is None
        stage.write(b'x' * 8192)
        stage.checkpoint(100, 8192, None)
        stage.spool(b'y' * 23)
    partial = store.partial(NAME)
    assert partial is not None
    assert partial.fetched == 123 and partial.disk >= 8192
    other = store.partial(NAME, identity='other')
    assert other is not None
    assert other.fetched == 0 and other.disk == partial.disk


def test_verified_stage_counts_as_fetched(store: Store) -> None:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        stage.write(b'abc')
        stage.checkpoint(2, 3, None)
        stage.spool(b'index')
        stage.mark_verified(Record('raw', 3, 3, ()))
    partial = store.partial(NAME)
    assert partial is not None and partial.fetched == 7


# States that cannot be used.

def prepare_state(store: Store) -> None:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        stage.write(b'abcdef')
        stage.checkpoint(3, 6, 'etag')
        stage.spool(b'xyz')


@pytest.mark.parametrize('damage', [
    lambda path: path.with_name(f'{NAME}.json').write_text(''),
    lambda path: path.with_name(f'{NAME}.json').write_text('{"consumed": 1}'),
    lambda path: path.with_name(f'{NAME}.json').write_text('[' * 100000),
    lambda path: path.with_name(f'{NAME}.json').unlink(),
    lambda path: path.unlink(),
    lambda path: os.truncate(path, 5),
])
def test_damaged_state_begins_at_zero(
    store: Store, damage: Callable[[Path], Any]
) -> None:
    prepare_state(store)
    damage(staged(store))
    assert open_again(store) == going_on(None, 0, 0, 0)
    assert staged(store).stat().st_size == 0


@pytest.mark.parametrize('key, value', [
    ('consumed', -1), ('consumed', True), ('produced', '6'),
    ('validator', 1), ('identity', None), ('verified', {}),
    ('produced', 1e99), ('consumed', 1.0), ('preamble', 'no hex'),
    ('preamble', None),
])
def test_state_with_a_wrong_value_begins_at_zero(
    store: Store, key: str, value: object
) -> None:
    prepare_state(store)
    path = Path(f'{staged(store)}.json')
    state = json.loads(path.read_text())
    assert key in state
    path.write_text(json.dumps({**state, key: value}))
    assert open_again(store) == going_on(None, 0, 0, 0)


def test_another_identity_begins_at_zero(store: Store) -> None:
    prepare_state(store)
    assert open_again(store) == going_on('etag', 3, 6, 3)
    assert open_again(store, 'other') == going_on(None, 0, 0, 0)
    assert open_again(store) == going_on(None, 0, 0, 0)


def test_verified_stage_of_another_identity_is_dropped(
    store: Store
) -> None:
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        stage.write(b'abc')
        stage.mark_verified(Record('raw', 3, 3, ()))
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None and stage.verified is not None
    with store.stage(NAME, identity='other') as stage:
        assert stage is not None and stage.verified is None


def test_discard_leaves_nothing(store: Store) -> None:
    prepare_state(store)
    with store.stage(NAME, identity='it') as stage:
        assert stage is not None
        stage.discard()
    assert os.listdir(f'{store.root}/.layered/partial') == []
    assert store.partial(NAME) is None


def test_link_in_place_of_the_staged_file(
    store: Store, tmp_path: Path
) -> None:
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    staged(store).symlink_to(victim)
    with pytest.raises(Exception):
        open_again(store)
    assert victim.read_bytes() == b'precious'


# Kills.

class Killed(BaseException):
    """The process is gone."""


class Source:
    """A file on a server, made of blocks that a decompressor can begin at.

    A block is two bytes: what it expands to, and how many thousands of it.
    """

    def __init__(self, blocks: List[Tuple[int, int]]) -> None:
        self.data = b''.join(map(bytes, blocks))
        self.image = b''.join(
            bytes([value]) * (1000 * count) for value, count in blocks
        )
        self.sent = 0

    def read(self, start: int, size: int) -> bytes:
        data = self.data[start:start + size]
        self.sent += len(data)
        return data


class Receiver:
    """Receives a `Source` as a transfer does, and dies when told."""

    def __init__(self, stage: Stage, steps: Optional[int]) -> None:
        self.stage = stage
        self.steps = steps
        self.digest = hashlib.sha256()
        self.block = b''
        self.fed = 0

    def live(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise Killed

    def feed(self, data: bytes) -> None:
        for number in data:
            self.block += bytes([number])
            self.fed += 1
            if len(self.block) == 2:
                value, count = self.block
                self.block = b''
                for _ in range(count):
                    self.live()
                    piece = bytes([value]) * 1000
                    self.stage.write(piece)
                    self.digest.update(piece)
                self.live()
                self.stage.checkpoint(self.fed, self.stage.size, 'etag')

    def receive(self, source: Source, size: int) -> str:
        start = self.stage.resume()
        self.fed = start.consumed
        for chunk in self.stage.replay():
            self.digest.update(chunk)
        for chunk in self.stage.spooled_chunks():
            self.feed(chunk)
        here = start.consumed + start.spooled
        while here < len(source.data):
            data = source.read(here, size)
            here += len(data)
            self.stage.spool(data)
            self.live()
            self.feed(data)
        self.stage.finish()
        return self.digest.hexdigest()


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 255]), st.integers(0, 20)),
        min_size=1, max_size=12,
    ),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 7),
)
@settings(max_examples=60)
def test_any_kills_give_the_same_bytes_and_fetch_none_twice(
    blocks: List[Tuple[int, int]], kills: List[int], size: int
) -> None:
    source = Source(blocks)
    with tempfile.TemporaryDirectory() as root:
        store = Store(root)
        store.prepare()
        plans: List[Optional[int]] = [*kills, None]
        digest = ''
        for steps in plans:
            try:
                with store.stage(NAME, identity='it') as stage:
                    assert stage is not None
                    digest = Receiver(stage, steps).receive(source, size)
                    break
            except Killed:
                pass
        assert digest == hashlib.sha256(source.image).hexdigest()
        assert staged(store).read_bytes() == source.image
        assert source.sent == len(source.data)


def test_kill_at_every_call_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [(1, 2), (0, 5), (7, 1), (0, 0), (9, 3)]
    size = 3
    for at in range(1000):
        source = Source(blocks)
        store = Store(str(tmp_path / str(at)))
        store.prepare()
        with monkeypatch.context() as patch:
            killed = kill_at(patch, at)
            try:
                with store.stage(NAME, identity='it') as stage:
                    assert stage is not None
                    Receiver(stage, None).receive(source, size)
            except Killed:
                pass
        with store.stage(NAME, identity='it') as stage:
            assert stage is not None
            digest = Receiver(stage, None).receive(source, size)
        assert digest == hashlib.sha256(source.image).hexdigest()
        assert staged(store).read_bytes() == source.image
        # A chunk that was received and not yet spooled has to come again.
        assert source.sent <= len(source.data) + size
        if not killed:
            break
    assert not killed and at > 50


def kill_at(patch: pytest.MonkeyPatch, at: int) -> List[bool]:
    """Die at the n-th change of the disk; the list says whether it was."""
    killed: List[bool] = []
    left = [at]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def killing(*args: Any, **kwargs: Any) -> Any:
            for after in False, True:
                if killed or left[0] == 0:
                    killed.append(True)
                    raise Killed
                left[0] -= 1
                if not after:
                    result = call(*args, **kwargs)
            return result
        return killing

    for name in 'replace', 'unlink', 'pwrite', 'ftruncate':
        patch.setattr(os, name, wrap(getattr(os, name)))
    return killed
