"""A plan is carried out, or there is an error that says why not."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.core.model import Digest, ImageRef
from lago_layered_provider.core.plan import Layer, Plan, Room, State
from lago_layered_provider.store import Store
from lago_layered_provider.tools import threads
from lago_layered_provider.transfer import checking, mapping, receive
from lago_layered_provider.transfer.block_receiver import BlockReceiver
from lago_layered_provider.transfer.engine import carry_out
from lago_layered_provider.transfer.fetch import Limits
from lago_layered_provider.transfer.jobs import Jobs
from tests.unit.test_block_receiver import (
    File, Origin, Stream, Told, make_file,
)
from tests.unit.test_store import CLUSTER, make_qcow2

LIMITS = Limits(
    jobs=2, connections=2, blocks=2, patience=0, lock_timeout=10,
)


class Ends(Told):
    """How the layers ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: List[Tuple[str, str]] = []

    def end(self, name: str, outcome: str) -> None:
        self.ended.append((name, outcome))


@pytest.fixture(name='store')
def fixture_store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.prepare()
    return store


def raw_file(name: str, compression: Optional[str] = None) -> File:
    rng = random.Random(name)
    file = make_file(compression, [rng.randbytes(200 << 9) for _ in range(3)])
    return replace(file, image=replace(
        file.image, ref=ImageRef('repo', name, 'v1'), handle=name,
        compressed_size=len(file.data) if compression else None,
    ))


def trust(path: str, fmt: str) -> None:
    """Find no damage in any image."""


def plan_of(files: Dict[str, File], store: Store) -> Plan:
    return Plan(tuple(
        Layer(
            f'repo:{name}:v1', None, State.MISSING, file.image,
            len(file.data), len(file.content),
        ) for name, file in files.items()
    ), (), Room(store.root, 1 << 30))


@pytest.mark.parametrize('compression', ['xz', 'one zst', 'gz'])
def test_what_has_no_size_stops_at_the_reserve(
    compression: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made of it goes; others of the disk lose nothing."""
    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    monkeypatch.setattr(checking, 'ROOM_BYTES', 50_000)
    file = raw_file('a', compression)
    file.image = replace(file.image, size=None)
    plan = plan_of({'a': file}, store)
    origins = {'repo:a:v1': Origin(file.data)}
    with pytest.raises(errors.NotEnoughSpace, match='repo:a:v1, whose size'):
        carry_out(
            replace(plan, reserve=1 << 60), origins, store,
            limits=LIMITS, progress=Ends(), check=trust,
        )
    assert [*Path(store.root, '.layered/partial').iterdir()] == []
    carry_out(
        plan, origins, store, limits=LIMITS, progress=Ends(), check=trust
    )
    assert store.find('repo:a:v1')


def fetch(
    store: Store, told: Ends, *names: str, broken: Tuple[str, ...] = (),
    compression: Optional[str] = None,
) -> None:
    files = {name: raw_file(name, compression) for name in names}
    carry_out(
        plan_of(files, store), {
            f'repo:{name}:v1': Origin(
                file.data, [0] * 9 if name in broken else []
            ) for name, file in files.items()
        }, store, limits=LIMITS, progress=told, check=trust,
    )


def test_what_can_be_had_is_had(store: Store) -> None:
    told = Ends()
    with pytest.raises(errors.TransferError, match='it broke'):
        fetch(store, told, 'a', 'b', 'c', broken=('b',))
    assert [
        name for name in 'abc' if store.find(f'repo:{name}:v1')
    ] == ['a', 'c']
    assert sorted(told.ended) == [
        ('repo:a:v1', 'fetched'), ('repo:b:v1', 'failed'),
        ('repo:c:v1', 'fetched'),
    ]


def test_what_stands_on_a_failed_base_is_not_fetched(store: Store) -> None:
    """However far below it that is."""
    told = Ends()
    files = {name: raw_file(name) for name in ('base', 'layer', 'top')}
    base, layer, top = plan_of(files, store).layers
    # The largest one is fetched first.
    base = replace(base, fetch=1 << 20)
    layer = replace(layer, base=base.name)
    top = replace(top, base=layer.name)
    origins = {
        one.name: Origin(files[one.name.split(':')[1]].data)
        for one in (base, layer, top)
    }
    origins[base.name].cuts = [0] * 9
    with pytest.raises(errors.TransferError, match='it broke'):
        carry_out(
            Plan((base, layer, top), (), Room(store.root, 1 << 30)), origins,
            store, limits=replace(LIMITS, jobs=1), progress=told, check=trust,
        )
    assert [
        name for name, origin in origins.items() if origin.opened
    ] == [base.name]
    assert told.ended == [(base.name, 'failed')]


def test_what_is_told_of_is_in_the_store(store: Store) -> None:
    """A layer has ended when it is visible, not when all of it has come."""
    class Looking(Ends):
        def end(self, name: str, outcome: str) -> None:
            super().end(name, outcome)
            assert store.find(name)

    told = Looking()
    fetch(store, told, 'a', 'b')
    assert sorted(told.ended) == [
        ('repo:a:v1', 'fetched'), ('repo:b:v1', 'fetched'),
    ]


class Breaking(Origin):
    """A source that breaks at three quarters of its file, but for its end."""

    def open(self, path: str, **options: Any) -> Stream:
        left = len(self.data) * 3 // 4 - options.get('start', 0)
        with self.lock:
            self.cuts = [left if left >= 0 else None]
        return super().open(path, **options)


class Once(Ends):
    """Nothing is said twice: that would be so for ever."""

    def note(self, text: str) -> None:
        assert text not in self.notes
        super().note(text)


@pytest.mark.parametrize('damaged', ['what is here', 'the source'])
@pytest.mark.parametrize('compression', [None, 'gz'])
def test_wrong_bytes_come_again_once_if_an_earlier_run_has_left_some(
    compression: Optional[str], damaged: str, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a power cut a state may be on the disk, and the bytes not."""
    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    monkeypatch.setattr(receive, 'CHECKPOINT_BYTES', 1)
    file, other = raw_file('a', compression), raw_file('b', compression)

    def carry_on(origin: Origin, told: Ends) -> None:
        carry_out(
            plan_of({'a': file}, store), {'repo:a:v1': origin}, store,
            limits=replace(LIMITS, connections=1), progress=told, check=trust,
        )

    told = Once()
    wrong = Origin(other.data[:len(file.data)])
    with pytest.raises(errors.VerifyError):
        carry_on(wrong, told)
    assert told.notes == []
    with pytest.raises(errors.TransferError, match='it broke'):
        carry_on(Breaking(file.data), Ends())
    told = Once()
    partial = Path(store.root, '.layered/partial')
    if damaged == 'the source':
        with pytest.raises(errors.VerifyError):
            carry_on(wrong, told)
        assert told.ended == [('repo:a:v1', 'failed')]
        assert [*partial.iterdir()] == []
    else:
        for path in [*partial.glob('*.spool')] or [partial / 'repo:a:v1']:
            with open(path, 'r+b') as stream:
                stream.seek(40_000)
                stream.write(bytes(20_000))
        carry_on(Origin(file.data), told)
        assert told.ended == [('repo:a:v1', 'fetched')]
        stored = Path(store.root, 'repo:a:v1').read_bytes()
        assert stored == file.content
    assert ['fetching it anew' in note for note in told.notes] == [True]


class Stopping(Store):
    """A store that is told to stop, although no user has done so."""

    @contextlib.contextmanager
    def stage(self, name: str, **options: Any) -> Iterator[Any]:
        raise errors.Cancelled(f'{name} was stopped')
        yield


def test_nothing_but_the_user_stops_in_silence(store: Store) -> None:
    told = Ends()
    with pytest.raises(errors.Cancelled, match='a:v1 was stopped'):
        fetch(Stopping(store.root), told, 'a')
    assert told.ended == [('repo:a:v1', 'failed')]


class Forgetful(Store):
    """A store that does not do what it says."""

    def commit(self, name: str, **options: Any) -> Any:
        return None

    @contextlib.contextmanager
    def stage(self, name: str, **options: Any) -> Iterator[Any]:
        yield None


def test_what_is_not_there_at_the_end_is_an_error(store: Store) -> None:
    with pytest.raises(errors.StoreError, match='repo:a:v1, repo:b:v1'):
        fetch(Forgetful(store.root), Ends(), 'a', 'b')


class Full(Forgetful):
    """A store that cannot make one image visible."""

    def commit(self, name: str, **options: Any) -> Any:
        if name == 'repo:layer:v1':
            raise errors.StoreError('no room for the layer')


def test_the_layer_that_failed_is_named(store: Store) -> None:
    """Not its base, whose commit has led to that of the layer."""
    told = Ends()
    base, layer = plan_of(
        {name: raw_file(name) for name in ('base', 'layer')}, store
    ).layers
    # The larger one is fetched first, and waits for its base.
    layer = replace(layer, base=base.name, fetch=1 << 20)
    origin = Origin(b'')
    with pytest.raises(errors.StoreError, match='no room for the layer'):
        carry_out(
            Plan((base, layer), (), Room(store.root, 1 << 30)),
            {base.name: origin, layer.name: origin}, Full(store.root),
            limits=replace(LIMITS, jobs=1), progress=told,
            check=trust,
        )
    assert told.ended == [
        ('repo:base:v1', 'fetched'), ('repo:layer:v1', 'failed'),
    ]


class Threads:
    """How many threads the system still gives."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: List[str] = []
        self._lock = threading.Lock()
        self._count = count
        self._start = threading.Thread.start
        monkeypatch.setattr(
            threading.Thread, 'start', lambda thread: self.start(thread)
        )

    def start(self, thread: threading.Thread) -> None:
        with self._lock:
            if len(self.started) >= self._count:
                raise RuntimeError("can't start new thread")
            self.started.append(thread.name.rsplit('-', 1)[0])
        self._start(thread)


@pytest.mark.parametrize('compression', [None, 'xz', 'gz', 'one xz'])
@pytest.mark.parametrize('count', range(7))
def test_some_threads_cannot_be_started(
    count: int, compression: Optional[str], store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It works with those there are, or says so; nobody waits for ever."""
    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    Threads(count, monkeypatch)
    told = Ends()
    try:
        fetch(store, told, 'a', 'b', compression=compression)
    except errors.SeveralFailed as error:
        failures = list(error.errors)
    except errors.LayeredError as error:
        failures = [error]
    else:
        failures = []
    for failure in failures:
        assert isinstance(failure, errors.NotEnoughMemory)
        assert 'not enough memory: can\'t start new thread' in str(failure)
    assert count or failures
    fetched = [name for name, outcome in told.ended if outcome == 'fetched']
    assert all(map(store.find, fetched))
    assert failures or len(fetched) == 2


@pytest.mark.parametrize('compression', [None, 'xz', 'gz', 'one xz'])
def test_little_memory_is_enough_for_one_thread_of_each_kind(
    compression: Optional[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    monkeypatch.setattr(threads, 'SPARE_BYTES', 1 << 62)
    system = Threads(99, monkeypatch)
    fetch(store, Ends(), 'a', 'b', compression=compression)
    assert len(system.started) == len(set(system.started))
    assert {'fetch', 'connection'} <= set(system.started)
    assert store.find('repo:a:v1') and store.find('repo:b:v1')


@pytest.mark.parametrize('compression, subject, method', [
    ('xz', BlockReceiver, 'fetch'), ('gz', BlockReceiver, 'fetch'),
    ('xz', Jobs, '_run'),
])
def test_a_thread_that_is_lost_ends_the_transfer(
    compression: Optional[str], subject: type, method: str, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its memory ends where it cannot even say what it was doing."""
    def run_out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    monkeypatch.setattr(subject, method, run_out_of_memory)
    with pytest.raises(errors.NotEnoughMemory, match='repo:a:v1: not enough'):
        fetch(store, Ends(), 'a', compression=compression)


def qcow2_file() -> File:
    """Return an image of qcow2, in a plain file."""
    content = make_qcow2(body=bytes(CLUSTER))
    file = make_file(None, [content])
    return replace(file, image=replace(
        file.image, ref=ImageRef('repo', 'a', 'v1'), handle='a',
        format='qcow2', virtual_size=2**20, compressed_size=None,
    ))


def test_tables_are_checked_before_an_image_is_visible(store: Store) -> None:
    file = qcow2_file()
    checked: List[Tuple[str, bool]] = []

    def check(path: str, fmt: str) -> None:
        assert Path(path).read_bytes() == file.content
        checked.append((fmt, store.find('repo:a:v1') is None))

    carry_out(
        plan_of({'a': file}, store), {'repo:a:v1': Origin(file.data)}, store,
        limits=LIMITS, progress=Ends(), check=check,
    )
    assert checked == [('qcow2', True)]
    stored = store.find('repo:a:v1')
    assert stored is not None
    # What the index says, and the sha1 that a plain Lago wants.
    assert {*stored.digests} == {*file.image.digests, Digest(
        'sha1', hashlib.sha1(file.content).hexdigest()
    )}


@pytest.mark.parametrize('status, kind', [
    (2, errors.UnsafeImage), (None, errors.ToolError),
])
def test_tables_that_are_damaged(
    status: Optional[int], kind: Type[errors.LayeredError], store: Store
) -> None:
    """A tool that is missing says nothing of the image."""
    def check(path: str, fmt: str) -> None:
        raise errors.ToolError(['qemu-img'], status=status, stderr='broken')

    file = qcow2_file()
    with pytest.raises(errors.LayeredError, match='broken') as caught:
        carry_out(
            plan_of({'a': file}, store), {'repo:a:v1': Origin(file.data)},
            store, limits=LIMITS, progress=Ends(), check=check,
        )
    assert type(caught.value) is kind
    assert store.find('repo:a:v1') is None


class Watched(Store):
    """A store that tells in which order what was staged, and how."""

    staged: List[Tuple[str, int]] = []

    @contextlib.contextmanager
    def stage(self, name: str, **options: Any) -> Iterator[Any]:
        self.staged.append((name, options['keep_free']))
        with super().stage(name, **options) as stage:
            yield stage


def test_the_largest_comes_first_and_leaves_the_reserve(
    store: Store
) -> None:
    files = {name: raw_file(name) for name in 'abc'}
    watched = Watched(store.root)
    watched.staged = []
    made = plan_of(files, store)
    sizes = {'a': 1000, 'b': 5000, 'c': 3000}
    carry_out(
        replace(made, reserve=100, temporary=20, layers=tuple(
            replace(layer, fetch=sizes[layer.name.split(':')[1]])
            for layer in made.layers
        )),
        {f'repo:{name}:v1': Origin(file.data) for name, file in files.items()},
        watched, limits=replace(LIMITS, jobs=1), progress=Ends(), check=trust,
    )
    assert watched.staged == [
        (f'repo:{name}:v1', 120) for name in 'bca'
    ]


class Apart(Origin):
    """A source whose bytes must not be joined."""

    def tell(self, text: str) -> None:
        raise AssertionError(text)

    def is_alone(self, path: str) -> bool:
        return True

    def reject(self, path: str, old: bool) -> bool:
        return False


@pytest.mark.parametrize('kind, requests', [(Apart, 1), (Origin, 2)])
def test_what_must_not_be_joined_comes_in_one_go(
    kind: Type[Origin], requests: int, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mapping, 'SMALL_BYTES', 1)
    file = raw_file('a', 'xz')
    origin = kind(file.data)
    carry_out(
        plan_of({'a': file}, store), {'repo:a:v1': origin}, store,
        limits=LIMITS, progress=Ends(), check=trust,
    )
    assert min(len(origin.opened), 2) == requests
