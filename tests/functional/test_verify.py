"""The real ``lago template-repo verify``: damage is found and repaired."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Set, Tuple

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, RudeServer,
    guest_digest, image_requests, init_well, make_forest, run,
)
from tests.lab.images import ImageSpec
from tests.lab.running import until
from tests.lab.steps import killed_at_steps, record
from tests.lab.stores import check_visible, held_locks

CHAIN = ('base', 'nfs', 'iscsi')
BASE, NFS, ISCSI = (f'lab:{name}:v1' for name in CHAIN)
OFFLINE = {'LAGO__TEMPLATE_REPO__OFFLINE': 'yes'}
DEAD = 'http://127.0.0.1:9/repo.metadata'
WIDTH = 80


Damage = Callable[[LagoSandbox], None]


@dataclass
class World:
    """A store that was filled, the server it came from, the truth."""

    server: Nginx
    repo: Publisher
    forest: Dict[str, DiskImage]
    box: LagoSandbox

    def copy(self, root: Path, **keys: Any) -> LagoSandbox:
        """Return an environment with a copy of the store."""
        store = root / 'store'
        root.mkdir(exist_ok=True)
        run('cp', '-a', self.box.store, store)
        keys.setdefault('repo', f'{self.server.url}/repo.metadata')
        return LagoSandbox(
            root / 'box', {'vm0': 'iscsi'}, store=store, **keys
        )


@pytest.fixture(scope='module')
def world(
    forest: Dict[str, DiskImage], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    root = tmp_path_factory.mktemp('verify')
    with Nginx(root / 'www') as server:
        repo = Publisher(server.root)
        repo.add_forest({name: forest[name] for name in CHAIN})
        repo.write(server.url)
        box = LagoSandbox(
            root / 'box', {'vm0': 'iscsi'},
            repo=f'{server.url}/repo.metadata',
        )
        init_well(box)
        yield World(server, repo, forest, box)


@pytest.fixture
def box(world: World, tmp_path: Path) -> LagoSandbox:
    """Return an environment whose store can be damaged."""
    world.server.forget()
    return world.copy(tmp_path)


def verify(box: LagoSandbox, *arguments: str) -> Finished:
    """Run the command; check that a terminal could show its answer."""
    done = box.run('template-repo', 'verify', *arguments)
    assert 'Traceback' not in done.output, done.output
    assert all(len(line) <= WIDTH for line in done.stdout.splitlines())
    return done


def states(done: Finished) -> Dict[str, str]:
    """Read the answer as awk does; the last word on an image counts."""
    rows = (line.split() for line in done.stdout.splitlines())
    return {
        row[1]: row[0] for row in rows
        if len(row) == 2 and row[1].count(':') == 2
    }


def change(path: Path, edit: Callable[[bytearray], object]) -> None:
    """Edit a file in place; images are read-only."""
    data = bytearray(path.read_bytes())
    edit(data)
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with open(path, 'r+b') as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1 << bit]))
    path.chmod(mode)


def record_of(box: LagoSandbox, name: str) -> Path:
    return box.store / f'.layered/images/{name}.json'


def head_of(box: LagoSandbox, name: str) -> Path:
    return box.store / f'.layered/images/{name}.head'


def snapshot(box: LagoSandbox, *names: str) -> Dict[str, Tuple[int, ...]]:
    """Return what tells that files were not touched."""
    found: Dict[str, Tuple[int, ...]] = {}
    for name in names:
        paths = [box.store / f'{name}{end}'
                 for end in ('', '.metadata', '.hash')]
        for path in (*paths, record_of(box, name)):
            here = path.stat()
            found[str(path)] = (
                here.st_ino, here.st_mtime_ns, here.st_size, here.st_mode)
    return found


def fetched(world: World) -> List[str]:
    """Return which images the server was asked for."""
    by_path = {
        f'/{image.file.name}': name
        for name, image in world.repo.images.items()
    }
    return sorted({
        by_path[one.path] for one in image_requests(world.server.requests())
    })


def check_repaired(world: World, box: LagoSandbox) -> None:
    assert len(check_visible(box.store, world.repo)) == len(CHAIN)
    assert guest_digest(box.store / ISCSI) == (
        world.forest['iscsi'].guest_sha256)
    assert not held_locks(box.store)
    assert not [*box.store.glob('.layered/partial/*')]
    assert not [*box.store.glob('.layered/images/*repair*')]


def test_an_intact_store(world: World, box: LagoSandbox) -> None:
    before = snapshot(box, BASE, NFS, ISCSI)
    done = verify(box)
    assert (done.code, states(done)) == (
        0, {BASE: 'intact', NFS: 'intact', ISCSI: 'intact'})
    assert '\x1b' not in done.output
    assert snapshot(box, BASE, NFS, ISCSI) == before
    done = verify(box, '--repair')
    assert done.code == 0
    assert snapshot(box, BASE, NFS, ISCSI) == before
    assert world.server.requests() == []


@pytest.mark.parametrize('word, found', [
    ('nfs', {BASE, NFS}), ('lab/base:v1', {BASE}),
])
def test_named_images_and_what_they_stand_on(
    box: LagoSandbox, word: str, found: Set[str]
) -> None:
    assert set(states(verify(box, word))) == found


def test_a_name_that_is_not_there(box: LagoSandbox) -> None:
    done = verify(box, 'nsf')
    assert done.code == 2
    assert 'nsf is not in the store. Nearest:' in done.stderr
    assert done.stdout == ''


def test_json(box: LagoSandbox) -> None:
    flip(box.store / NFS, 200_000)
    done = box.run('--out-format', 'json', 'template-repo', 'verify')
    assert done.code == 2
    rows = {row['name']: row for row in json.loads(done.stdout)['images']}
    assert rows[NFS]['state'] == 'damaged'
    assert rows[NFS]['damaged_parts'] == ['image']
    assert rows[ISCSI]['state'] == 'on-damaged'


# What is found

def test_one_bit_anywhere_is_found(box: LagoSandbox) -> None:
    """Seven rounds of one bit in each of the three images."""
    rng = random.Random(20151122)
    images = [box.store / name for name in (BASE, NFS, ISCSI)]
    for number in range(7):
        places = []
        for path in images:
            size = path.stat().st_size
            offset = {
                0: size - 1, 1: rng.randrange(65536), 2: rng.randrange(120),
            }.get(number, rng.randrange(size))
            places.append((path, offset, rng.randrange(8)))
        for place in places:
            flip(*place)
        done = verify(box)
        assert done.code == 2
        assert set(states(done).values()) == {'damaged'}, (places, done)
        for place in places:
            flip(*place)
    assert verify(box).code == 0


def damage_size(box: LagoSandbox) -> None:
    change(box.store / NFS, lambda data: data.extend(b'x'))


def damage_head(box: LagoSandbox) -> None:
    flip(head_of(box, NFS), 64)


def damage_no_head(box: LagoSandbox) -> None:
    head_of(box, NFS).unlink()


def damage_record(box: LagoSandbox) -> None:
    record_of(box, NFS).write_text('{"format": "qcow')


def damage_no_record(box: LagoSandbox) -> None:
    record_of(box, NFS).unlink()


def damage_record_digest(box: LagoSandbox) -> None:
    record = json.loads(record_of(box, NFS).read_text())
    record['digests'] = {
        key: value[::-1] for key, value in record['digests'].items()}
    record_of(box, NFS).write_text(json.dumps(record))


def damage_record_virtual_size(box: LagoSandbox) -> None:
    record = json.loads(record_of(box, NFS).read_text())
    record['virtual_size'] += 512
    record_of(box, NFS).write_text(json.dumps(record))


def damage_no_file(box: LagoSandbox) -> None:
    (box.store / NFS).unlink()


def damage_all_is_gone(box: LagoSandbox) -> None:
    for path in (box.store / NFS, record_of(box, NFS), head_of(box, NFS),
                 box.store / f'{NFS}.hash', box.store / f'{NFS}.metadata'):
        path.unlink()


def damage_metadata(box: LagoSandbox) -> None:
    (box.store / f'{NFS}.metadata').write_text('[1]')


def damage_no_metadata(box: LagoSandbox) -> None:
    (box.store / f'{NFS}.metadata').unlink()


def damage_hash(box: LagoSandbox) -> None:
    (box.store / f'{NFS}.hash').write_text('0' * 40)


def damage_link(box: LagoSandbox) -> None:
    (box.store / NFS).chmod(0o644)
    run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b',
        './lab:other:v1', box.store / NFS)


#: What is damaged -> words of the report; whether it must be fetched; and
#: whether an image above it may be wrong for a guest.
DAMAGES: Dict[Damage, Tuple[str, bool, bool]] = {
    damage_size: ('bytes, expected', True, True),
    damage_head: ('', True, True),
    damage_no_head: ('first cluster as published', True, True),
    damage_record: ('its record is missing or damaged', False, True),
    damage_no_record: ('its record is missing or damaged', False, True),
    damage_record_digest: ('sha', False, True),
    damage_record_virtual_size: ('virtual size', False, True),
    damage_no_file: ('its file is missing', True, True),
    damage_all_is_gone: ('it is not in the store, and', True, True),
    damage_metadata: ('.metadata is unreadable', False, False),
    damage_no_metadata: ('.metadata is missing', False, False),
    damage_hash: ('.hash is not', False, False),
    damage_link: ("'./lab:other:v1' as backing file", True, True),
}


@pytest.mark.parametrize(
    'damage', DAMAGES, ids=lambda damage: str(damage.__name__)[7:])
def test_damage_is_found_and_repaired(
    damage: Damage, world: World, box: LagoSandbox
) -> None:
    words, fetch, spoils = DAMAGES[damage]
    others = snapshot(box, BASE, ISCSI)
    image = (box.store / NFS).stat()
    damage(box)
    done = verify(box, '--repair')
    first, _, second = done.stdout.partition('read in')
    assert words in ' '.join(first.split()), done.stdout
    found = states(Finished(0, first, ''))
    assert found == {
        BASE: 'intact', NFS: 'damaged',
        ISCSI: 'on-damaged' if spoils else 'intact',
    }
    assert set(states(Finished(0, second, '')).values()) == {'intact'}
    assert done.code == 0, done.output
    assert fetched(world) == (['nfs:v1'] if fetch else [])
    assert snapshot(box, BASE, ISCSI) == others
    if not fetch:
        now = (box.store / NFS).stat()
        assert (now.st_ino, now.st_mtime_ns) == (
            image.st_ino, image.st_mtime_ns)
    check_repaired(world, box)


@pytest.mark.quick
def test_a_damaged_base_is_reported_and_repaired_alone(
    world: World, box: LagoSandbox
) -> None:
    shutil.copyfile(world.forest['other'].path, box.store / 'new')
    (box.store / 'new').chmod(0o444)
    (box.store / 'new').replace(box.store / BASE)
    others = snapshot(box, NFS, ISCSI)
    done = verify(box, 'iscsi')
    assert done.code == 2
    assert states(done) == {
        BASE: 'damaged', NFS: 'on-damaged', ISCSI: 'on-damaged'}
    assert f'stands on {BASE}, which is damaged' in done.stdout
    assert '1 image is damaged: lab:base:v1' in ' '.join(done.stderr.split())
    assert verify(box, '--repair').code == 0
    assert fetched(world) == ['base:v1']
    assert snapshot(box, NFS, ISCSI) == others
    check_repaired(world, box)


def test_all_of_a_chain_is_gone_but_the_top(
    world: World, box: LagoSandbox
) -> None:
    for path in [*box.store.glob('*'), *box.store.glob('.layered/*/*')]:
        if path.is_file() and path.name.startswith((BASE, NFS)):
            path.unlink()
    done = verify(box, '--repair')
    assert fetched(world) == ['base:v1', 'nfs:v1'], done.output
    assert verify(box).code == 0
    check_repaired(world, box)


def test_images_of_a_plain_lago_cannot_be_checked(
    world: World, box: LagoSandbox
) -> None:
    """It converts to raw, and keeps the sha1 of what it has converted."""
    path = box.store / BASE
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw',
        world.repo.images['base:v1'].image, path.with_name('raw'))
    path.with_name('raw').replace(path)
    for name in (NFS, ISCSI):
        for part in (box.store / name, record_of(box, name)):
            part.unlink()
    digest = world.repo.images['base:v1'].checksums['sha1']
    for removed in ('', 'record'):
        if removed:
            record_of(box, BASE).unlink()
        (box.store / f'{BASE}.hash').write_text(digest)
        done = verify(box, '--repair')
        assert done.code == 0, done.output
        assert states(done)[BASE] == 'unproven'
        assert 'cannot be checked' in done.stdout
    (box.store / f'{BASE}.metadata').unlink()
    image = path.stat()
    assert verify(box).code == 2
    assert verify(box, '--repair').code == 0
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (
        image.st_ino, image.st_mtime_ns)
    assert fetched(world) == []


# What is not repaired

HOLDER = 'import sys; f = open(sys.argv[1], "rb"); sys.stdin.read()'


def is_open(pid: int, path: Path) -> bool:
    for link in Path(f'/proc/{pid}/fd').iterdir():
        with contextlib.suppress(OSError):
            if os.path.samefile(link, path):
                return True
    return False


@pytest.mark.parametrize('holder', ['python', 'qemu-io'])
def test_an_image_that_is_open_is_left_alone(
    holder: str, world: World, box: LagoSandbox
) -> None:
    flip(box.store / NFS, 100_000)
    flip(box.store / BASE, 100_000)
    command = {
        'python': [sys.executable, '-c', HOLDER, str(box.store / NFS)],
        'qemu-io': ['qemu-io', '-r', '-f', 'qcow2', '-c', 'length',
                    '-c', 'sleep 60000', str(box.store / ISCSI)],
    }[holder]
    before = snapshot(box, NFS)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: is_open(process.pid, box.store / NFS), 'it is open')
            done = verify(box, '--repair')
        finally:
            process.kill()
    assert done.code == 2
    text = ' '.join(done.stderr.split())
    assert f'{NFS} is left as it is: process {process.pid}' in text
    assert snapshot(box, NFS) == before
    # The base is open as well when qemu has opened the chain.
    assert fetched(world) == (['base:v1'] if holder == 'python' else [])
    assert verify(box, '--repair').code == 0
    check_repaired(world, box)


def test_published_again_or_gone_or_offline(
    world: World, tmp_path: Path
) -> None:
    """What cannot be had is said, and left as it is."""
    repo = Publisher(tmp_path / 'again', source='file')
    repo.add(world.forest['base'].path, 'base')
    repo.add(world.forest['other'].path, 'nfs', base='base')
    again = repo.write()
    repo = Publisher(tmp_path / 'without', source='file')
    repo.add(world.forest['base'].path, 'base')
    without = repo.write()
    online = f'{world.server.url}/repo.metadata'
    for number, (index, env, words) in enumerate([
        (again, {}, 'another image of that name'),
        (without, {}, "Template 'nfs' is not in"),
        (online, OFFLINE, 'no server is asked'),
        (DEAD, {'LAGO__TEMPLATE_REPO__RETRIES': '0'}, '127.0.0.1'),
    ]):
        box = world.copy(tmp_path / str(number), repo=index, env=env)
        flip(box.store / NFS, 100_000)
        before = snapshot(box, BASE, NFS, ISCSI)
        world.server.forget()
        done = verify(box, '--repair')
        assert done.code == 2, done.output
        assert words in ' '.join(done.stderr.split())
        assert f'1 image is still damaged: {NFS}' in (
            ' '.join(done.stderr.split()))
        assert snapshot(box, BASE, NFS, ISCSI) == before
        assert fetched(world) == []


def test_offline_what_is_beside_an_image_is_mended(
    world: World, tmp_path: Path
) -> None:
    box = world.copy(tmp_path, repo=DEAD, env=OFFLINE)
    damage_hash(box)
    assert verify(box, '--repair').code == 0


def test_no_room(world: World, box: LagoSandbox) -> None:
    flip(box.store / NFS, 100_000)
    box.extra_env['LAGO__TEMPLATE_REPO__RESERVE'] = '9999T'
    done = verify(box, '--repair')
    assert done.code == 2
    assert 'not enough room' in done.stderr
    assert fetched(world) == []


# Kills, and others beside it

@pytest.fixture(scope='module')
def large(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, DiskImage]:
    return make_forest(tmp_path_factory.mktemp('large'), {
        'base': ImageSpec(12), 'nfs': ImageSpec(1, 'base'),
    })


def test_killed_repair(
    large: Dict[str, DiskImage], tmp_path: Path
) -> None:
    """Never worse: damaged as before, or repaired."""
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        repo = Publisher(server.root, compression='zst')
        repo.add_forest(large)
        repo.write(server.url)
        box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'},
            repo=f'{server.url}/repo.metadata',
        )
        init_well(box)
        image = box.store / BASE
        good = repo.images['base:v1'].image.read_bytes()
        bad, layer = b'', snapshot(box, NFS)

        def start(env: Mapping[str, str]) -> subprocess.Popen[str]:
            nonlocal bad
            flip(image, 3_000_000)
            bad = image.read_bytes()
            return box.popen(
                'template-repo', 'verify', '--repair',
                env={**box.environment(), **env},
            )

        log = tmp_path / 'steps'
        steps = record(start, log)
        for step in killed_at_steps(start, log, steps, 6, BASE):
            now = image.read_bytes()
            print(step, now == good)
            assert now in (bad, good)
            assert snapshot(box, NFS) == layer
            assert not held_locks(box.store)
            done = verify(box, '--repair')
            assert done.code == 0, done.output
            first = states(Finished(0, done.stdout.split('read in')[0], ''))
            assert first[BASE] == ('intact' if now == good else 'damaged')
            assert len(check_visible(box.store, repo)) == 2


def test_beside_an_init(world: World, tmp_path: Path) -> None:
    """Looks and repairs do not disturb, and are not disturbed."""
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'iscsi'},
        repo=f'{world.server.url}/repo.metadata',
    )
    init = box.popen('init', '--skip-bootstrap')
    seen = []
    while init.poll() is None:
        done = verify(box, '--repair')
        assert done.code == 0, done.output
        seen.append(states(done))
    output = ''.join(init.communicate())
    assert init.returncode == 0, output
    assert seen
    assert guest_digest(box.disk('vm0')) == (
        world.forest['iscsi'].guest_sha256)


def test_an_init_beside_a_repair(world: World, box: LagoSandbox) -> None:
    for name in (BASE, ISCSI):
        flip(box.store / name, 150_000)
    repairs = [
        box.popen('template-repo', 'verify', '--repair') for _ in range(2)
    ]
    init = box.popen('init', '--skip-bootstrap')
    for process in (*repairs, init):
        output = ''.join(process.communicate())
        assert 'Traceback' not in output
        assert process.returncode == 0 or process is not init, output
    assert verify(box, '--repair').code == 0
    check_repaired(world, box)
    assert guest_digest(box.disk('vm0')) == (
        world.forest['iscsi'].guest_sha256)
