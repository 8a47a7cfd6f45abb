"""SIGKILL, SIGTERM and SIGINT at bad moments of a real ``lago init``.

The moments are random, from a seed; set LAB_SEED for others. The figures
printed (bytes fetched again, time to stop) are shown by ``pytest -rP``.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from tests.lab import (
    DiskImage, Fault, ImageSpec, LagoSandbox, Publisher, Request, RudeServer,
    guest_digest, make_forest, overlap, require,
)
from tests.lab.running import RunningLago, until
from tests.lab.stores import (
    check_visible, held_locks, is_staged, kept_bytes, leftovers, store_name,
    written_bytes,
)

MIB = 2**20
KILLS = 5
FORMATS = [
    'xz-quick', 'xz-single-quick', 'xz-blocks', 'zst', 'zst-frames', None,
]

#: For each connection: slow enough to hit a moment of it.
RATE = 20 * MIB

#: What the specification allows to be fetched again of an image.
AGAIN_BYTES = 16 * MIB

#: A run asks for the end of a large file, which tells of its blocks. What is
#: before them in an .xz file is never asked for.
TAIL_BYTES = 4 * 1024
HEAD_BYTES = 12

#: Less than the minute that the server may stay silent. It takes about one
#: second; the rest is for a busy machine.
STOP_SECONDS = 45.0

SETTINGS = {'template_repo': {'progress': 'line', 'timeout': 60}}


@pytest.fixture(scope='module')
def large_forest(
    tmp_path_factory: pytest.TempPathFactory
) -> Dict[str, DiskImage]:
    require('qemu-img', 'qemu-io', 'xz', 'zstd')
    return make_forest(tmp_path_factory.mktemp('large'), {
        'base': ImageSpec(34), 'nfs': ImageSpec(6, 'base'),
    })


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RudeServer]:
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as running:
        yield running


@pytest.fixture
def rng() -> random.Random:
    return random.Random(os.environ.get('LAB_SEED', '1'))


def publish(
    server: RudeServer,
    forest: Dict[str, DiskImage],
    compression: Optional[str] = 'zst',
) -> Publisher:
    repo = Publisher(server.root, compression=compression)
    repo.add_forest({name: forest[name] for name in ('base', 'nfs')})
    repo.write(server.url)
    return repo


def make_box(root: Path, server: RudeServer, store: Path) -> LagoSandbox:
    return LagoSandbox(
        root, {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata',
        store=store, config=SETTINGS,
    )


def sent_for(requests: List[Request], repo: Publisher, name: str) -> int:
    """Return the bytes that were sent of an image.

    On a machine with other work a connection may be slow, and be helped: what
    two have brought at the same time counts once.
    """
    path = f'/{repo.images[name].file.name}'
    found = [one for one in requests if one.path == path]
    return sum(one.sent for one in found) - overlap(found)


# SIGKILL

def draw_moment(
    rng: random.Random, store: Path, repo: Publisher
) -> Tuple[str, Callable[[], bool]]:
    """Return a random moment of a transfer: its name, and whether it came.

    Two in three lie anywhere in the bytes, the others shortly after a step
    of the store.
    """
    if rng.random() < 2 / 3:
        share = rng.uniform(0.02, 0.97)
        return f'{share:.0%} of the bytes', lambda: (
            share_done(store, repo) >= share
        )
    pattern = rng.choice([
        '*.lock', '.layered/reservations/*', '.layered/partial/*.json',
        '.layered/images/*.head', '*.metadata', '.layered/images/*.json',
        '*:base:v1', '*:nfs:v1',
    ])
    delay = rng.choice([0.0, rng.uniform(0, 0.05)])

    def came() -> bool:
        if not any(store.glob(pattern)):
            return False
        time.sleep(delay)
        return True

    return f'{delay * 1000:.0f} ms after {pattern}', came


def share_done(store: Path, repo: Publisher) -> float:
    """Return how much of all the bytes is in the store, 0 to 1."""
    images = repo.images.values()
    if repo.compression is None:
        # Checkpoints of a plain file are too rare to aim with.
        return written_bytes(store) / sum(image.size for image in images)
    return (
        sum(kept_bytes(store, repo, image) for image in images)
        / sum(image.compressed_size for image in images)
    )


def init_and_kill(
    box: LagoSandbox, rng: random.Random, repo: Publisher
) -> Optional[str]:
    """Kill a ``lago init`` at a random moment; None when it was faster."""
    name, came = draw_moment(rng, box.store, repo)
    with RunningLago(box) as lago:
        until(lambda: lago.ended or came(), name)
        code = lago.kill()
    assert code in (0, -signal.SIGKILL), lago.output
    return name if code else None


@pytest.mark.slow
@pytest.mark.parametrize('compression', FORMATS)
def test_killed_at_random_moments(
    compression: Optional[str],
    large_forest: Dict[str, DiskImage],
    server: RudeServer,
    rng: random.Random,
    tmp_path: Path,
) -> None:
    repo = publish(server, large_forest, compression)
    killed = tried = 0
    while killed < KILLS:
        tried += 1
        assert tried < 10 * KILLS, 'lago ends before it can be killed'
        root = tmp_path / f'round{tried}'
        server.forget()
        server.heal()
        server.fail('/*.qcow2*', rate=RATE)
        box = make_box(root, server, root / 'store')
        moment = init_and_kill(box, rng, repo)
        if moment is not None:
            killed += 1
            print(f'{compression}: killed {moment}: '
                  + go_on_after_kill(box, server, repo))
            assert guest_digest(box.disk('vm0')) == (
                large_forest['nfs'].guest_sha256)
        shutil.rmtree(root)


def go_on_after_kill(
    box: LagoSandbox, server: RudeServer, repo: Publisher
) -> str:
    """Check the store after a kill, run again; say what was fetched again."""
    store = box.store
    check_visible(store, repo)
    assert not held_locks(store)
    kept = {
        name: kept_bytes(store, repo, image)
        for name, image in repo.images.items()
    }
    # Of the run that was killed: the server knows when it has noticed.
    before = server.settled_requests()
    server.forget()
    server.heal()
    shutil.rmtree(box.workdir, ignore_errors=True)
    done = box.init()
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    assert sorted(check_visible(store, repo)) == sorted(repo.images)
    assert not held_locks(store)
    # Killed right after the last rename: there is nothing more to fetch, and
    # this small file goes with the next fetch.
    assert set(leftovers(store)) <= {'.layered/partial/lab:nfs:v1.json'}
    after = server.requests()
    told = []
    for name, image in repo.images.items():
        more = sent_for(after, repo, name)
        assert more <= image.compressed_size - kept[name] + TAIL_BYTES, (
            f'{name}: {kept[name]} bytes were kept of '
            f'{image.compressed_size}, {more} were fetched'
        )
        again = sent_for(before, repo, name) + more - image.compressed_size
        assert -HEAD_BYTES <= again <= AGAIN_BYTES, f'{name}: {again}'
        told.append(
            f'{name} kept {kept[name]} of {image.compressed_size}, '
            f'fetched again {again}'
        )
    return '; '.join(told)


@pytest.mark.quick
def test_layer_staged_before_its_base_is_not_fetched_again(
    forest: Dict[str, DiskImage], server: RudeServer, tmp_path: Path
) -> None:
    repo = publish(server, forest)
    rule = server.fail('/base*', stall_after=100_000)
    box = make_box(tmp_path / 'one', server, tmp_path / 'store')
    with RunningLago(box) as lago:
        lago.until(
            lambda: rule.struck and is_staged(box.store, 'lab:nfs:v1'),
            'the layer is staged, its base stalls',
        )
        lago.kill()
    assert check_visible(box.store, repo) == []
    server.settled_requests()
    server.forget()
    server.heal()
    other = make_box(tmp_path / 'two', server, tmp_path / 'store')
    done = other.init()
    assert done.code == 0, done.output
    assert [one.path for one in server.requests() if one.is_image] == [
        f'/{repo.images["base:v1"].file.name}'
    ]
    assert len(check_visible(box.store, repo)) == 2
    assert guest_digest(other.disk('vm0')) == forest['nfs'].guest_sha256


@pytest.mark.parametrize('compression', ['zst', None])
def test_staged_bytes_that_a_power_cut_took_are_noticed(
    compression: Optional[str], forest: Dict[str, DiskImage],
    server: RudeServer, tmp_path: Path,
) -> None:
    """What says how far it is may be on the disk, and the bytes not."""
    repo = publish(server, forest, compression)
    base = repo.images['base:v1']
    cut = base.compressed_size - 1000
    server.fail('/base*', stall_after=cut)
    box = make_box(tmp_path / 'one', server, tmp_path / 'store')
    with RunningLago(box) as lago:
        lago.until(
            lambda: kept_bytes(box.store, repo, base) >= cut * 3 // 4,
            'most of the base is here',
        )
        lago.kill()
    partial = box.store / '.layered/partial'
    spools = [*partial.glob('lab:base:v1.*.spool')]
    for path in spools or [partial / 'lab:base:v1']:
        with open(path, 'r+b') as stream:
            stream.seek(300_000)
            stream.write(bytes(50_000))
    server.heal()
    shutil.rmtree(box.workdir)
    done = box.init()
    assert done.code == 0, done.output
    assert re.search(r'base:v1.*fetching it\s+anew', done.output, re.DOTALL)
    assert len(check_visible(box.store, repo)) == 2
    assert guest_digest(box.disk('vm0')) == forest['nfs'].guest_sha256


# SIGTERM and SIGINT

#: Where a transfer may be when it is stopped, and what the server does then.
SITUATIONS = {
    'flowing': Fault(rate=500_000),
    'stalled': Fault(stall_after=700_000),
    'unanswered': Fault(delay=120),
    'retrying': Fault(cut_after=700_000),
}


@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal(
    number: signal.Signals, situation: str,
    forest: Dict[str, DiskImage], server: RudeServer, tmp_path: Path,
) -> None:
    repo = publish(server, forest)
    base = repo.images['base:v1']
    path = f'/{base.file.name}'
    if situation == 'retrying':
        # So that it is in a pause, and a long one.
        server.fail(path, SITUATIONS[situation], times=1)
        rule = server.fail(path, status=503, retry_after='60')
    else:
        rule = server.fail(path, SITUATIONS[situation])
    box = make_box(tmp_path / 'box', server, tmp_path / 'store')
    wanted = 0 if situation == 'unanswered' else 500_000

    def is_there() -> bool:
        return rule.struck > 0 and (
            kept_bytes(box.store, repo, base) >= wanted
        ) and (box.store / 'lab:base:v1.lock').exists()

    with RunningLago(box) as lago:
        lago.until(is_there, f'the transfer is {situation}')
        if situation == 'retrying':
            lago.says('trying again in')
        began = time.monotonic()
        # Ctrl-C reaches the whole group, kill(1) one process.
        lago.send(number, group=number == signal.SIGINT)
        code = lago.wait()
        seconds = time.monotonic() - began
    print(f'{number.name}, {situation}: stopped after {seconds:.2f} s')
    check_stopped(lago, box, code, number)
    assert seconds < STOP_SECONDS
    kept = kept_bytes(box.store, repo, base)
    assert wanted <= kept < base.compressed_size
    server.heal()
    server.settled_requests()
    server.forget()
    done = box.init()
    assert done.code == 0, done.output
    assert sent_for(server.requests(), repo, 'base:v1') == (
        base.compressed_size - kept)
    assert len(check_visible(box.store, repo)) == 2
    assert leftovers(box.store) == []


def check_stopped(
    lago: RunningLago, box: LagoSandbox, code: int, number: signal.Signals
) -> None:
    """Check what a stopped ``lago init`` says and leaves."""
    output = lago.output
    assert code == 128 + number, output
    assert 'Traceback' not in output
    # Lago closes each open task with ERROR: ours, and that around all.
    assert output.count('ERROR') <= 2, output
    assert 'failed' not in output
    assert not held_locks(box.store)
    assert not box.workdir.exists(), [*box.workdir.iterdir()]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_the_index_does_not_come(
    number: signal.Signals, forest: Dict[str, DiskImage],
    server: RudeServer, tmp_path: Path,
) -> None:
    publish(server, forest)
    rule = server.fail('/repo.metadata', delay=120)
    box = make_box(tmp_path / 'box', server, tmp_path / 'store')
    with RunningLago(box) as lago:
        lago.until(lambda: rule.struck, 'it asks for the index')
        began = time.monotonic()
        lago.send(number, group=number == signal.SIGINT)
        code = lago.wait()
        assert time.monotonic() - began < STOP_SECONDS
    check_stopped(lago, box, code, number)
    server.heal()
    assert box.init().code == 0


def test_stopped_while_waiting_for_another(
    forest: Dict[str, DiskImage], server: RudeServer, tmp_path: Path
) -> None:
    repo = publish(server, forest)
    server.fail('/base*', stall_after=700_000)
    store = tmp_path / 'store'
    first = make_box(tmp_path / 'first', server, store)
    second = make_box(tmp_path / 'second', server, store)
    with RunningLago(first) as holder:
        holder.until(
            lambda: is_staged(store, 'lab:nfs:v1') and kept_bytes(
                store, repo, repo.images['base:v1']) >= 500_000,
            'the first one has begun',
        )
        with RunningLago(second) as waiter:
            waiter.says(f'waiting for process {holder.pid}')
            began = time.monotonic()
            waiter.send(signal.SIGTERM)
            code = waiter.wait()
            assert time.monotonic() - began < STOP_SECONDS
            assert code == 128 + signal.SIGTERM, waiter.output
        assert not holder.ended
        assert held_locks(store) == ['lab:base:v1.lock']
        assert not second.workdir.exists()
    assert store_name(repo, repo.images['base:v1']) not in (
        path.name for path in store.iterdir())
