"""Several processes on one store: every byte once, and who waits says so."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, RudeServer, check_disks,
    flatten, require,
)
from tests.lab.running import RunningLago, until
from tests.lab.stores import (
    check_visible, held_locks, is_staged, kept_bytes, leftovers,
)

MIB = 2**20

#: What a stalled connection may have delivered and nobody has read yet.
UNREAD_BYTES = 2**18
SETTINGS = {'template_repo': {'progress': 'line', 'lock_timeout': 120}}
NAMES = ('base', 'nfs', 'iscsi', 'other')


def publish(
    root: Path, url: str, forest: Dict[str, DiskImage]
) -> Publisher:
    repo = Publisher(root, compression='zst')
    repo.add_forest({name: forest[name] for name in NAMES})
    repo.write(url)
    return repo


def make_box(
    root: Path, url: str, store: Path, *templates: str
) -> LagoSandbox:
    vms = {f'vm{n}': name for n, name in enumerate(templates)}
    return LagoSandbox(
        root, vms, repo=f'{url}/repo.metadata', store=store, config=SETTINGS,
    )


@contextlib.contextmanager
def started(boxes: List[LagoSandbox]) -> Iterator[List[RunningLago]]:
    """Start a ``lago init`` in each box, all at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RunningLago(box)) for box in boxes]


def waited_for(lago: RunningLago) -> List[int]:
    """Return the processes that it said it waits for."""
    return [
        int(pid) for pid in re.findall(
            rf'waiting for process (\d+) on {re.escape(socket.gethostname())}'
            r', [\w ]+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d', lago.output,
        )
    ]


def check_fetched_once(server: Nginx, repo: Publisher) -> None:
    """Insist on one request, of all its bytes, for each image."""
    sent: Counter[str] = Counter()
    for one in server.requests():
        if one.is_image:
            sent[one.path] += one.sent
            assert (one.method, one.status) == ('GET', 200)
    assert sent == {
        f'/{image.file.name}': image.compressed_size
        for image in repo.images.values()
    }


def test_four_at_once(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    (tmp_path / 'www').mkdir()
    # nginx sends a first second's worth at once: so little that all four
    # have begun before the first image is there.
    with Nginx(tmp_path / 'www', limit_rate=700_000) as server:
        repo = publish(server.root, server.url, forest)
        boxes = [
            make_box(
                tmp_path / f'box{n}', server.url, tmp_path / 'store',
                'iscsi', 'other',
            ) for n in range(4)
        ]
        with started(boxes) as running:
            codes = [lago.wait() for lago in running]
        outputs = '\n'.join(lago.output for lago in running)
        assert codes == [0] * 4, outputs
        check_fetched_once(server, repo)
    assert len(check_visible(tmp_path / 'store', repo)) == len(NAMES)
    assert leftovers(tmp_path / 'store') == []
    assert not held_locks(tmp_path / 'store')
    assert 'Traceback' not in outputs
    waiters = [lago for lago in running if waited_for(lago)]
    assert waiters, outputs
    pids = {lago.pid for lago in running}
    for lago in waiters:
        assert set(waited_for(lago)) <= pids - {lago.pid}, lago.output
    for box in boxes:
        check_disks(box, forest, vm0='iscsi', vm1='other')


def test_two_environments_that_overlap(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    (tmp_path / 'www').mkdir()
    with Nginx(tmp_path / 'www', limit_rate=1_500_000) as server:
        repo = publish(server.root, server.url, forest)
        store = tmp_path / 'store'
        left = make_box(tmp_path / 'left', server.url, store, 'iscsi')
        right = make_box(tmp_path / 'right', server.url, store, 'other', 'nfs')
        with started([left, right]) as running:
            for lago in running:
                assert lago.wait() == 0, lago.output
        check_fetched_once(server, repo)
    assert len(check_visible(store, repo)) == len(NAMES)
    check_disks(left, forest, vm0='iscsi')
    check_disks(right, forest, vm0='other', vm1='nfs')


@pytest.mark.quick
def test_one_is_killed_while_another_waits_for_it(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        repo = publish(server.root, server.url, forest)
        base = repo.images['base:v1']
        path = f'/{base.file.name}'
        server.fail(path, times=1, stall_after=base.compressed_size * 2 // 3)
        store = tmp_path / 'store'
        first = make_box(tmp_path / 'one', server.url, store, 'nfs')
        second = make_box(tmp_path / 'two', server.url, store, 'nfs', 'other')
        with RunningLago(first) as killed:
            killed.until(
                lambda: kept_bytes(store, repo, base) >= (
                    base.compressed_size * 2 // 3 - UNREAD_BYTES
                ) and is_staged(store, 'lab:nfs:v1'),
                'two thirds of the base are here, and all of the layer',
            )
            with RunningLago(second) as lago:
                lago.says(f'waiting for process {killed.pid} on ')
                # It does not stand still meanwhile.
                lago.until(
                    lambda: is_staged(store, 'lab:other:v1'),
                    'the other layer is staged',
                )
                kept = kept_bytes(store, repo, base)
                killed.kill()
                assert lago.wait() == 0, lago.output
        requests = [
            one for one in server.settled_requests() if one.is_image
        ]
        assert [one.range for one in requests if one.path == path] == [
            '', f'bytes={kept}-'
        ], requests
        layers = [one.path for one in requests if one.path != path]
        assert len(layers) == len(set(layers)) == 2
        again = sum(
            one.sent for one in requests if one.path == path
        ) - base.compressed_size
        print(f'fetched again: {again} bytes')
        assert 0 <= again <= 16 * MIB
    assert len(check_visible(store, repo)) == 3
    # The reservation of the killed one goes when the next plan is made.
    assert second.run(
        '--prefix-name', 'again', 'init', '--skip-bootstrap'
    ).code == 0
    assert leftovers(store) == []
    check_disks(second, forest, vm0='nfs', vm1='other')


def test_the_waiting_one_fetches_where_the_first_one_gives_up(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    """Not killed, but out of patience: the lock goes on to the other."""
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        repo = publish(server.root, server.url, forest)
        base = repo.images['base:v1']
        path = f'/{base.file.name}'
        server.fail(path, times=1, stall_after=500_000)
        store = tmp_path / 'store'
        first = make_box(tmp_path / 'one', server.url, store, 'nfs')
        first.config['template_repo'].update(timeout=10, patience=0)
        first.write()
        second = make_box(tmp_path / 'two', server.url, store, 'nfs')
        with RunningLago(first) as poor:
            poor.until(
                lambda: kept_bytes(store, repo, base) > UNREAD_BYTES,
                'it has begun and stalls',
            )
            with RunningLago(second) as lago:
                lago.says(f'waiting for process {poor.pid} on ')
                assert poor.wait() == 2, poor.output
                assert lago.wait() == 0, lago.output
        ranges = [
            one.range for one in server.settled_requests()
            if one.path == path
        ]
        assert len(ranges) == 2, ranges
        going_on = re.fullmatch(r'bytes=(\d+)-', ranges[1])
        assert going_on, ranges
        assert 500_000 - UNREAD_BYTES <= int(going_on[1]) <= 500_000
    check_disks(second, forest, vm0='nfs')


@contextlib.contextmanager
def foreign_holder(
    lock: Path, script: str = 'exec sleep 600'
) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a flock as a plain Lago does, while a shell script runs."""
    require('flock')
    lock.parent.mkdir(parents=True, exist_ok=True)
    ready = lock.with_name('ready.tmp')
    holder = subprocess.Popen(
        ['flock', str(lock), 'sh', '-c', f'touch "{ready}"; {script}'],
        start_new_session=True, stdin=subprocess.DEVNULL,
    )
    try:
        until(ready.exists, 'the flock is held')
        ready.unlink()
        yield holder
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


@pytest.fixture
def site(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> Iterator[Publisher]:
    (tmp_path / 'www').mkdir()
    with Nginx(tmp_path / 'www') as server:
        yield publish(server.root, server.url, forest)


def test_the_flock_of_another_program_is_waited_for(
    site: Publisher, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    box = make_box(tmp_path / 'box', site.base_url, store, 'nfs')
    with foreign_holder(store / 'lab:base:v1.lock') as holder:
        with RunningLago(box) as lago:
            lago.says('waiting for another process')
            lago.until(
                lambda: is_staged(store, 'lab:nfs:v1'), 'the layer is here'
            )
            assert check_visible(store, site) == []
            os.killpg(holder.pid, signal.SIGKILL)
            assert lago.wait() == 0, lago.output
    check_disks(box, forest, vm0='nfs')
    assert leftovers(store) == []


def test_an_image_that_a_plain_lago_is_making_is_waited_for(
    site: Publisher, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    """A plain Lago converts under the final name, holding its flock."""
    store = tmp_path / 'store'
    store.mkdir()
    raw = flatten(forest['base'].path, tmp_path / 'raw', form='raw')
    image, go = store / 'lab:base:v1', tmp_path / 'go'
    box = make_box(tmp_path / 'box', site.base_url, store, 'nfs')
    script = (
        f'head -c 1000000 "{raw}" > "{image}"; touch "{tmp_path}/half"; '
        f'until [ -e "{go}" ]; do sleep 0.05; done; cp "{raw}" "{image}"'
    )
    with foreign_holder(store / 'lab:base:v1.lock', script):
        until((tmp_path / 'half').exists, 'half of the image is there')
        with RunningLago(box) as lago:
            lago.says('waiting for another process')
            assert not box.disk('vm0').exists()
            go.touch()
            assert lago.wait() == 0, lago.output
    assert image.stat().st_size == raw.stat().st_size
    check_disks(box, forest, vm0='nfs')


def test_waiting_ends_after_lock_timeout(
    site: Publisher, tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    box = make_box(tmp_path / 'box', site.base_url, store, 'nfs')
    box.config['template_repo'] = {'lock_timeout': 1}
    box.write()
    with foreign_holder(store / 'lab:base:v1.lock'):
        done = box.init()
        assert done.code == 2, done.output
        assert 'Traceback' not in done.output
        assert re.search('lab:base:v1 is locked by another process', (
            done.output)), done.output
        assert check_visible(store, site) == []
        assert not box.workdir.exists()
    assert box.init().code == 0
