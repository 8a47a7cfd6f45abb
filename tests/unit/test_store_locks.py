"""The lock of an image: Lago's flock, seen as one of `lockfile`."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any, List

import lockfile
import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.tools import locks


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / 'repo:image:v1.lock')


def test_lock_and_release(path: str) -> None:
    lock = locks.ImageLock(path)
    assert not lock.is_locked() and not os.path.exists(path)
    with lock:
        assert lock.is_locked() and lock.i_am_locking()
        assert locks.ImageLock(path).is_locked()
        assert not locks.ImageLock(path).i_am_locking()
    assert not lock.is_locked()
    assert os.path.exists(path)
    with lock:
        assert lock.i_am_locking()


def test_lock_file_is_like_lagos(path: str, tmp_path: Path) -> None:
    with locks.ImageLock(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_errors_are_those_of_lockfile(path: str) -> None:
    lock = locks.ImageLock(path)
    with pytest.raises(lockfile.NotLocked):
        lock.release()
    with pytest.raises(lockfile.LockFailed):
        lock.break_lock()
    with lock:
        with pytest.raises(lockfile.AlreadyLocked):
            lock.acquire(0)
        with pytest.raises(lockfile.AlreadyLocked):
            locks.ImageLock(path).acquire(0)
        started = time.monotonic()
        with pytest.raises(lockfile.LockTimeout):
            locks.ImageLock(path).acquire(0.03)
        assert time.monotonic() - started > 0.02


def test_plain_flock_excludes_us_and_we_it(path: str) -> None:
    with open(path, 'w+') as lago:
        fcntl.flock(lago, fcntl.LOCK_EX)
        told: List[str] = []
        with pytest.raises(lockfile.LockTimeout, match='another process'):
            locks.ImageLock(path, waiting=told.append).acquire(0.05)
        assert told == ['another process']
        fcntl.flock(lago, fcntl.LOCK_UN)
        with locks.ImageLock(path):
            with pytest.raises(BlockingIOError):
                fcntl.flock(lago, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_plain_lago_that_waits_truncates_the_text_only(path: str) -> None:
    with locks.ImageLock(path) as lock:
        with open(path, 'w+'):
            assert lock.is_locked()
            assert lock.holder() == 'another process'


def test_forty_threads_one_at_a_time(path: str) -> None:
    inside: List[int] = []
    most: List[int] = []
    start = threading.Barrier(40)

    def run(number: int) -> None:
        start.wait()
        with locks.ImageLock(path):
            inside.append(number)
            most.append(len(inside))
            threading.Event().wait(0.001)
            inside.remove(number)

    threads = [
        threading.Thread(target=run, args=(number,)) for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 40


def test_lock_of_a_removed_file_is_worth_nothing(path: str) -> None:
    with locks.ImageLock(path) as lock:
        os.unlink(path)
        assert not locks.is_held(path)
        with locks.ImageLock(path) as other:
            assert lock.i_am_locking() and other.i_am_locking()


def test_file_replaced_between_open_and_flock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    replaced: List[str] = []

    def late(fd: int, operation: int) -> None:
        if not replaced:
            replaced.append(path)
            os.unlink(path)
            Path(path).touch()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, 'flock', late)
    with locks.ImageLock(path):
        monkeypatch.undo()
        assert replaced
        assert locks.is_held(path)


def test_holder_changes_are_told(path: str) -> None:
    told: List[str] = []
    seen = threading.Event()
    free = threading.Event()

    def note(holder: str) -> None:
        told.append(holder)
        seen.set()

    def wait() -> None:
        with locks.ImageLock(path, waiting=note):
            free.set()

    thread = threading.Thread(target=wait)
    with locks.ImageLock(path, what='fetching'):
        thread.start()
        assert seen.wait(10)
        seen.clear()
        state = json.loads(Path(path).read_text())
        # In one go: who reads a half of it is told of nobody.
        with open(path, 'r+b', buffering=0) as stream:
            stream.write(json.dumps({**state, 'what': 'committing'}).encode())
        assert seen.wait(10)
    thread.join()
    assert free.is_set()
    assert [text.split(', ')[1] for text in told] == [
        'fetching', 'committing'
    ]


@pytest.mark.parametrize('text', [
    '', '{', '[]', '1', '{"pid": 1}', '\0' * 100,
    '{"pid": "x", "host": "h", "what": "w", "since": 0}',
    '{"pid": 1, "host": "h", "what": "w", "since": 1e300}',
    '{"pid": 1, "host": "\\u001b[2J", "what": "w", "since": 0}',
])
def test_garbage_about_the_holder(path: str, text: str) -> None:
    Path(path).write_text(text)
    assert locks.ImageLock(path).holder() == 'another process'


def test_cancelled_while_waiting(path: str) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with locks.ImageLock(path):
        with pytest.raises(errors.Cancelled):
            locks.ImageLock(path, cancelled=cancelled).acquire()


def test_signal_while_signing_leaves_no_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'pwrite', interrupt)
        with pytest.raises(KeyboardInterrupt):
            locks.ImageLock(path).acquire()
    assert not locks.is_held(path)


def test_full_disk_does_not_hinder_locking(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'pwrite', fail)
    with locks.ImageLock(path) as lock:
        assert lock.i_am_locking()


def test_looking_needs_no_file(path: str) -> None:
    assert not locks.is_held(path)
    assert not os.path.exists(path)
