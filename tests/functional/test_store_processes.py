"""The store under several real processes, and under SIGKILL."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Mapping, Optional

import pytest

from lago_layered_provider.core import errors, model
from lago_layered_provider.store import Record, Store
from tests.lab.commands import unavailable
from tests.lab.steps import killed_at_steps, record

ROOT = Path(__file__).parents[2]
BASE, LAYER = 'repo:base:v1', 'repo:layer:v1'
SECONDS = 30

PRELUDE = r'''
import hashlib, os, random, struct, sys, time
from lago_layered_provider.core import errors, model
from lago_layered_provider.store import Record, Store

BASE, LAYER = 'repo:base:v1', 'repo:layer:v1'


def note(text):
    # One write, appended: lines of several processes do not mix.
    fd = os.open(os.path.join(sys.argv[2], 'log'),
                 os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (text + '\n').encode())
    os.close(fd)


def qcow2(backing, filler):
    name = (backing or '').encode()
    head = struct.pack(
        '>4sIQIIQIIQQIIQ', b'QFI\xfb', 3, 112 if backing else 0, len(name),
        16, 2**20, 0, 1, 196608, 65536, 1, 0, 0,
    ) + struct.pack('>QQQII', 0, 0, 0, 4, 104) + bytes(8) + name
    return head.ljust(65536, b'\0') + bytes(196608) + filler * 3000


IMAGES = {
    BASE: (qcow2(None, b'base'), None), LAYER: (qcow2('b', b'layer'), BASE),
}


def receive(store, name):
    """Fetch an image in pieces of 10000 bytes, note each, and commit it."""
    image, base = IMAGES[name]
    with store.stage(name, identity='it') as stage:
        if stage is not None and stage.verified is None:
            digest = hashlib.sha256()
            here = stage.resume().consumed
            for chunk in stage.replay():
                digest.update(chunk)
            while here < len(image):
                data = image[here:here + 10000]
                stage.write(data)
                digest.update(data)
                here += len(data)
                note('%s %d' % (name, here))
                stage.checkpoint(here, here, None)
            assert digest.digest() == hashlib.sha256(image).digest()
            stage.mark_verified(Record(
                'qcow2', len(image), 2**20,
                (model.Digest('sha256', digest.hexdigest()),), base,
            ))
    return store.commit(name, base=base, metadata={'distro': 'el7'})


store = Store(sys.argv[1])
'''


@pytest.fixture
def children(tmp_path: Path) -> Iterator['Children']:
    found = Children(tmp_path)
    yield found
    found.end()


class Children:
    """Processes that work on one store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(str(path / 'store'))
        self.store.prepare()
        self._running: List[Any] = []

    def start(
        self, script: str, env: Optional[Mapping[str, str]] = None
    ) -> Any:
        given = dict(env or {})
        given['PYTHONPATH'] = ':'.join(
            filter(None, [given.get('PYTHONPATH'), str(ROOT)])
        )
        child = subprocess.Popen(
            [sys.executable, '-c', PRELUDE + script, self.store.root,
             str(self.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **given}, start_new_session=True,
        )
        self._running.append(child)
        return child

    def end(self) -> None:
        for child in self._running:
            child.kill()
            child.communicate()

    def log(self) -> List[str]:
        path = self.path / 'log'
        return path.read_text().splitlines() if path.exists() else []


def wait_for_line(stream: IO[str]) -> str:
    return stream.readline().strip()


def expect_success(child: Any) -> str:
    output, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 0
    return str(output)


RECEIVE_ALL = 'for name in BASE, LAYER: receive(store, name)\n'


def test_several_processes_fetch_every_byte_once(children: Children) -> None:
    running = [children.start(RECEIVE_ALL) for _ in range(6)]
    for child in running:
        expect_success(child)
    log = children.log()
    assert len(log) == len(set(log)) > 10
    stored = children.store.find(LAYER)
    assert stored is not None and stored.backing == BASE


HOLD = '''
with store.stage(BASE, identity='it', what='fetching it') as stage:
    stage.write(b'x' * 5000)
    stage.checkpoint(50, 5000, 'etag')
    stage.write(b'torn')
    stage.spool(b'spooled')
    print('holding', flush=True)
    sys.stdin.read()
'''

WAIT = '''
def told(holder):
    print(holder, flush=True)

with store.stage(BASE, identity='it', waiting=told, timeout=30) as stage:
    found = stage.resume()
    print(found.consumed, found.produced, found.spooled, stage.size)
'''


@pytest.mark.quick
def test_killed_holder_frees_the_lock_and_the_next_goes_on(
    children: Children
) -> None:
    holder = children.start(HOLD)
    assert wait_for_line(holder.stdout) == 'holding'
    waiter = children.start(WAIT)
    text = wait_for_line(waiter.stdout)
    assert text.startswith(f'process {holder.pid} on ')
    assert ', fetching it, since ' in text
    holder.send_signal(signal.SIGKILL)
    assert expect_success(waiter).strip() == '50 5000 7 5000'


PLAIN_LAGO = '''
import fcntl
# Lago's utils.Flock, step by step.
lock = open(store.path(BASE) + '.lock', mode='w+')
os.chmod(lock.name, 0o660)
fcntl.flock(lock, fcntl.LOCK_EX)
print('holding', flush=True)
sys.stdin.read()
with open(store.path(BASE), 'wb') as image:
    image.write(b'raw')
'''


def test_plain_lago_excludes_us_and_its_image_serves(
    children: Children
) -> None:
    lago = children.start(PLAIN_LAGO)
    assert wait_for_line(lago.stdout) == 'holding'
    with pytest.raises(errors.LockTimeout, match='another process'):
        with children.store.stage(BASE, identity='it', timeout=0.2):
            pass
    lago.stdin.close()
    lago.stdin = None
    with children.store.stage(BASE, identity='it', timeout=SECONDS) as stage:
        assert stage is None
    stored = children.store.find(BASE)
    assert stored is not None and stored.format == 'raw'


def test_we_exclude_a_plain_lago(children: Children) -> None:
    with children.store.stage(BASE, identity='it'):
        lago = children.start(PLAIN_LAGO)
        with pytest.raises(subprocess.TimeoutExpired):
            lago.wait(timeout=1)
    assert wait_for_line(lago.stdout) == 'holding'


RESERVE = '''
with store.reserve({BASE: 12345}):
    print('reserved', flush=True)
    sys.stdin.read()
'''


def test_reservation_counts_as_long_as_its_process_lives(
    children: Children
) -> None:
    child = children.start(RESERVE)
    assert wait_for_line(child.stdout) == 'reserved'
    assert children.store.room({}).reserved == 12345
    assert children.store.room({BASE: 1}).reserved == 0
    child.kill()
    child.wait()
    assert children.store.room({}).reserved == 0
    directory = Path(children.store.root, '.layered/reservations')
    assert list(directory.iterdir()) == []


def check_visible(store: Store) -> None:
    """Check that what is visible is complete, its base too."""
    for name in LAYER, BASE:
        stored = store.find(name)
        if stored is None:
            continue
        digest = hashlib.sha256()
        for chunk in store.read_published(name):
            digest.update(chunk)
        assert stored.digests == (
            model.Digest('sha256', digest.hexdigest()),
        )
        assert store.read_metadata(name) == {'distro': 'el7'}
        if stored.backing is not None:
            assert store.find(stored.backing) is not None


def test_sigkill_at_each_step(children: Children, tmp_path: Path) -> None:
    def start(env: Mapping[str, str]) -> Any:
        shutil.rmtree(children.store.root)
        children.store.prepare()
        return children.start(RECEIVE_ALL, env)

    steps = record(start, tmp_path / 'steps')
    for step in killed_at_steps(start, tmp_path / 'steps', steps, 12, BASE):
        print(step)
        check_visible(children.store)
        expect_success(children.start(RECEIVE_ALL))
        check_visible(children.store)
        assert children.store.find(LAYER)
        # Two dead ones never leave a lock behind.
        assert children.store.commit(
            LAYER, base=BASE, metadata={}, timeout=1
        )


UNPRIVILEGED = '''
image, base = IMAGES[BASE]
with store.stage(BASE, identity='it') as stage:
    stage.write(image)
    stage.mark_verified(Record('qcow2', len(image), 2**20, ()))
store.commit(BASE, base=None, metadata={})
image, base = IMAGES[LAYER]
with store.stage(LAYER, identity='it') as stage:
    stage.write(image)
    stage.mark_verified(Record('qcow2', len(image), 2**20, (), BASE))
# As a commit leaves it that is killed right before the rename.
os.chmod(os.path.join(store.root, '.layered/partial', LAYER), 0o444)
assert store.commit(LAYER, base=BASE, metadata={}).backing == BASE

os.chmod(store.root, 0o555)
Store(store.root).keep_index('http://server/', b'body', None)
try:
    Store(store.root).prepare()
except errors.StoreNotWritable as error:
    print(error)
os.chmod(store.root, 0o755)
'''


def test_without_the_rights_of_root(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, 'store')
        drop = ''
        if os.geteuid() == 0:
            os.chmod(directory, 0o777)
            drop = 'os.setegid(65534)\nos.seteuid(65534)\n'
        run = subprocess.run(
            [sys.executable, '-c',
             PRELUDE + drop + 'store.prepare()\n' + UNPRIVILEGED,
             str(root), directory],
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE, text=True, timeout=SECONDS,
        )
    assert run.returncode == 0
    assert f'{root}: the store cannot be written' in run.stdout
    assert '--template-store' in run.stdout


AS_USER = """
from lago_layered_provider.store.usage_notes import UsageNote
from lago_layered_provider.store import Inventory, Usage

os.umask({umask})
os.setgroups([])
os.setresgid({group}, {group}, {group})
os.setresuid({user}, {user}, {user})
usage, inventory = Usage(store.root), Inventory(store.root)
wait = 5, lambda holder: None
"""

FIRST_USER = """
with usage.using(*wait):
    store.prepare()
    with store.reserve({BASE: 1}):
        receive(store, BASE)
        with store.stage(LAYER, identity='it') as stage:
            stage.write(IMAGES[LAYER][0][:20000])
            stage.checkpoint(20000, 20000, None)
    usage.note(UsageNote('/a', 'aaa', ()))
usage.hold(BASE, 'of the first')
store.keep_index('http://server/', b'body', None)
"""

SECOND_USER = """
assert usage.holds() == {BASE: 'of the first'}
assert [note.uuid for note in usage.notes()] == ['aaa']
assert [one.fetched for one in inventory.unfinished()] == [20000]
with usage.using(*wait):
    store.prepare()
    receive(store, LAYER)
    usage.note(UsageNote('/b', 'bbb', ()))
usage.hold(LAYER, 'of the second')
store.keep_index('http://server/', b'newer', None)
assert store.kept_index('http://server/').body == b'newer'
"""

FIRST_USER_AGAIN = """
with usage.alone('pruning', *wait):
    usage.forget(usage.notes()[1])
    for name in LAYER, BASE:
        usage.release(name)
        inventory.remove(name)
assert inventory.images() == ({}, []) and usage.holds() == {}
"""

OTHER_USER = """
for action in (
    usage.holds, usage.notes, inventory.unfinished, inventory.locked,
    store.prepare, lambda: usage.hold(BASE, ''), lambda: usage.release(BASE),
    lambda: inventory.remove(BASE), lambda: store.reserve({}).__enter__(),
    lambda: usage.alone('', *wait).__enter__(),
):
    try:
        action()
    except errors.StoreError as error:
        print(error)
with usage.using(*wait):
    pass
"""


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_users_of_a_group_share_a_store(umask: int) -> None:
    if os.geteuid():
        unavailable('only root can be several users')
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        root = Path(directory, 'store')
        root.mkdir()
        os.chown(root, 0, 60000)
        root.chmod(0o2775)

        def run(user: int, script: str) -> str:
            group = 60000 if user < 60009 else 60009
            start = AS_USER.format(umask=umask, user=user, group=group)
            done = subprocess.run(
                [sys.executable, '-c', PRELUDE + start + script,
                 str(root), directory],
                env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=SECONDS,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        Path(directory, 'log').touch()
        Path(directory, 'log').chmod(0o666)
        run(60001, FIRST_USER)
        run(60002, SECOND_USER)
        log = Path(directory, 'log').read_text().splitlines()
        assert len(log) == len(set(log)) > 10
        said = run(60009, OTHER_USER)
        assert f'{root}: the store cannot be written: ' in said
        assert f', no right to write in {root}' in said
        if umask == 0o077:
            assert f'no right to search it: {root}/.layered' in said
        run(60001, FIRST_USER_AGAIN)
        left = [
            path.name for path in root.rglob('*')
            if path.is_file() and path.suffix != '.index'
        ]
        assert sorted(left) == sorted([
            'aaa.json', f'{BASE}.lock', f'{LAYER}.lock', 'use.lock',
        ])


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, which only root can make."""
    path = tmp_path / 'tiny'
    path.mkdir()
    mount = shutil.which('mount')
    made = mount and subprocess.run(
        [mount, '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(path)],
        stderr=subprocess.DEVNULL,
    ).returncode == 0
    if not made:
        pytest.skip('no right to mount a tmpfs')
    yield path
    subprocess.run(['umount', str(path)], check=True)


def test_full_disk_keeps_what_was_fetched(tiny: Path) -> None:
    store = Store(str(tiny / 'store'))
    store.prepare()
    assert 0 < store.room({}).free <= 2**20
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(b'x' * 400000)
        stage.checkpoint(400000, 400000, None)
        with pytest.raises(errors.StoreError) as caught:
            stage.write(b'y' * 2**20)
    assert str(store.root) in str(caught.value)
    assert 'bytes free' in caught.value.message
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        assert stage.resume().produced == 400000
        assert b''.join(stage.replay()) == b'x' * 400000


def run_qemu_img(*arguments: str) -> str:
    return subprocess.run(
        ['qemu-img', *arguments], check=True, stdout=subprocess.PIPE,
        text=True, env={**os.environ, 'LC_ALL': 'C'}, timeout=SECONDS,
    ).stdout


def test_qemu_reads_a_chain_from_the_store(tmp_path: Path) -> None:
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        if os.environ.get('CI') == 'true':
            pytest.fail('qemu-img and qemu-io are needed')
        pytest.skip('no qemu-img and qemu-io')
    base, layer = tmp_path / 'base', tmp_path / 'layer'
    run_qemu_img('create', '-q', '-f', 'qcow2', str(base), '8M')
    write_pattern(base, '0x11 0 4M')
    run_qemu_img(
        'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base',
        str(layer),
    )
    write_pattern(layer, '0x22 2M 1M')
    flat = tmp_path / 'flat'
    run_qemu_img('convert', '-O', 'raw', str(layer), str(flat))
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    images: Dict[str, Any] = {BASE: (base, None), LAYER: (layer, BASE)}
    for name, (path, backing) in images.items():
        data = path.read_bytes()
        with store.stage(name, identity='it') as stage:
            assert stage is not None
            stage.write(data)
            stage.mark_verified(
                Record('qcow2', len(data), 8 * 2**20, (), backing)
            )
        store.commit(name, base=backing, metadata={})
    shutil.move(str(tmp_path / 'store'), str(tmp_path / 'moved'))
    top = str(tmp_path / 'moved' / LAYER)
    run_qemu_img('compare', '-f', 'qcow2', '-F', 'raw', top, str(flat))
    chain = run_qemu_img('info', '--backing-chain', '-f', 'qcow2', top)
    assert f'backing file: ./{BASE}' in chain
    assert 'backing file format: qcow2' in chain
    run_qemu_img('check', '-q', '-f', 'qcow2', top)
    # Without its records, as a copy of the visible files leaves it.
    shutil.rmtree(tmp_path / 'moved' / '.layered')
    found = Store(str(tmp_path / 'moved')).find(LAYER)
    assert found is not None
    assert (found.backing, found.virtual_size) == (BASE, 8 * 2**20)


def write_pattern(image: Path, what: str) -> None:
    subprocess.run(
        ['qemu-io', '-f', 'qcow2', '-c', f'write -P {what}', str(image)],
        check=True, stdout=subprocess.DEVNULL, timeout=SECONDS,
    )
