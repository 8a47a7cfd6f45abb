"""``lago init`` on a layered repository: the real command, end to end."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Mapping, Tuple

import pytest

from tests.lab import (
    DiskImage, ImageSpec, LagoSandbox, Nginx, Publisher, Request,
    backing_chain, check_disks, guest_digest, image_requests, init_well,
    links_of, make_forest, max_in_flight, require,
)

#: Bytes per second: each image takes seconds, so they must overlap.
LIMIT_RATE = 600_000
SECONDS = 60

#: vm2 takes its disk from a prototype, by a YAML alias, as Lago wants it.
INIT_FILE = '''\
vm-prototypes:
  small: &small
    memory: 256
    bootstrap: false
    nics: [{net: lan}]
    disks:
      - template_name: other
        type: template
        name: root
        dev: vda
        format: qcow2
domains:
  vm0:
    <<: *small
    disks:
      - {template_name: nfs, type: template, name: root, dev: vda,
         format: qcow2}
  vm1:
    memory: 256
    bootstrap: false
    nics: [{net: lan}]
    disks:
      - {template_name: iscsi, template_version: v1, type: template,
         name: root, dev: vda, format: qcow2}
  vm2:
    based-on: *small
nets:
  lan: {type: nat, management: true, dhcp: {start: 100, end: 254}}
'''


def publish(
    root: Path, forest: Dict[str, DiskImage], url: str
) -> Publisher:
    """Publish the forest with a complete index."""
    repo = Publisher(root, base_url=f'{url}/')
    repo.add_forest(forest)
    repo.write()
    return repo


def box_on(
    server: Nginx, root: Path, vms: Mapping[str, str]
) -> LagoSandbox:
    """Return an environment whose repository the server has."""
    return LagoSandbox(root, vms, repo=f'{server.url}/repo.metadata')


def forget_prefix(box: LagoSandbox) -> None:
    """Make the environment new again, on the same store."""
    shutil.rmtree(box.workdir)


# One environment with three VMs, looked at from several sides

@dataclass(frozen=True)
class Started:
    """An environment, what its init printed, and the server's log."""

    box: LagoSandbox
    log: str
    requests: List[Request]


@pytest.fixture(scope='module')
def started(
    forest: Dict[str, DiskImage], tmp_path_factory: pytest.TempPathFactory
) -> Started:
    require('nginx')
    root = tmp_path_factory.mktemp('started')
    with Nginx(root / 'www', limit_rate=LIMIT_RATE) as server:
        publish(root / 'www', forest, server.url)
        box = box_on(server, root / 'box', {})
        box.init_file.write_text(INIT_FILE)
        done = init_well(box)
        return Started(box, done.stderr, server.requests())


@pytest.mark.quick
def test_guests_see_the_bytes_of_the_originals(
    started: Started, forest: Dict[str, DiskImage]
) -> None:
    check_disks(started.box, forest, vm0='nfs', vm1='iscsi', vm2='other')


def test_disks_stand_on_their_chains_with_all_formats(
    started: Started
) -> None:
    base, nfs, iscsi, other = (
        (f'lab:{name}:v1', 'qcow2')
        for name in ('base', 'nfs', 'iscsi', 'other')
    )
    disk = started.box.disk
    assert links_of(disk('vm0')) == [nfs, base]
    assert links_of(disk('vm1')) == [iscsi, nfs, base]
    assert links_of(disk('vm2')) == [other, base]


def test_store_is_read_only_and_can_be_moved(
    started: Started, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    box = started.box
    names = ['lab:base:v1', 'lab:iscsi:v1', 'lab:nfs:v1', 'lab:other:v1']
    assert box.stored() == names
    modes = {(box.store / name).stat().st_mode & 0o777 for name in names}
    assert modes == {0o444}
    moved = shutil.copytree(box.store, tmp_path / 'moved')
    with hidden(box.store):
        chain = backing_chain(moved / 'lab:iscsi:v1')
        assert [link.get('backing-filename') for link in chain] == [
            './lab:nfs:v1', './lab:base:v1', None
        ]
        assert all(
            str(link['filename']).startswith(str(moved)) for link in chain
        )
        digest = guest_digest(moved / 'lab:iscsi:v1')
    assert digest == forest['iscsi'].guest_sha256


@contextlib.contextmanager
def hidden(directory: Path) -> Iterator[None]:
    """Take a directory away for a while."""
    away = directory.rename(directory.with_name('hidden'))
    try:
        yield
    finally:
        away.rename(directory)


def test_index_costs_one_request_and_each_image_its_bytes(
    started: Started
) -> None:
    images = image_requests(started.requests)
    small = [one for one in started.requests if not one.is_image]
    assert [(one.method, one.path) for one in small] == [
        ('GET', '/repo.metadata')
    ]
    www = started.box.root.parent / 'www'
    assert {one.path: one.sent for one in images} == {
        f'/{file.name}': file.stat().st_size for file in www.glob('*.xz')
    }
    assert len(images) == 4
    assert max_in_flight(images) > 1


def test_chain_of_five_among_fifty_costs_one_request(
    tmp_path: Path, server: Nginx
) -> None:
    specs = {'l0': ImageSpec(1)}
    for number in range(1, 5):
        specs[f'l{number}'] = ImageSpec(1, f'l{number - 1}')
    images = make_forest(tmp_path / 'images', specs)
    repo = Publisher(server.root, base_url=f'{server.url}/', compression='gz')
    repo.add_forest(images)

    def add_others(index: Dict[str, Any]) -> None:
        entry = index['templates']['l0']['versions']['v1']
        for number in range(45):
            # Less is known of them than of those that are wanted.
            other = {key: entry[key] for key in (
                'source', 'handle', 'timestamp',
            )}
            index['templates'][f'other{number}'] = {'versions': {'v1': other}}

    repo.edit(add_others)
    repo.write()
    box = box_on(server, tmp_path / 'box', {'vm0': 'l4'})
    init_well(box)
    assert len(box.stored()) == 5
    asked = [(one.method, one.path) for one in server.requests()]
    assert asked[0] == ('GET', '/repo.metadata')
    assert sorted(asked[1:]) == sorted(
        ('GET', one.url_path) for one in repo.images.values()
    )


def test_log_is_short_and_has_no_carriage_returns(started: Started) -> None:
    log = started.log
    assert '\r' not in log
    for image in ('base', 'nfs', 'iscsi', 'other'):
        said = re.findall(rf'^{image}:v1: .*', log, re.MULTILINE)
        assert said[0].startswith(f'{image}:v1: fetching ')
        assert said[-1].startswith(f'{image}:v1: in the store, ')
        assert len(said) < 6, said
    assert '4 layers: 4 missing' in log
    assert re.search(r'^  room left  [0-9.]+ [GT]iB$', log, re.MULTILINE)


# The store and the server, one without the other

def test_unchanged_index_costs_a_304_and_a_lost_server_a_warning(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    publish(server.root, forest, server.url)
    box = box_on(server, tmp_path / 'box', {'vm0': 'iscsi'})
    init_well(box)
    server.forget()
    forget_prefix(box)
    done = init_well(box)
    assert '3 layers, all present: nothing to fetch.' in done.output
    assert [(one.path, one.status) for one in server.requests()] == [
        ('/repo.metadata', 304)
    ]
    assert 'using the index kept' not in done.output
    server.stop()
    forget_prefix(box)
    done = init_well(box)
    assert 'using the index kept' in ' '.join(done.output.split())
    check_disks(box, forest, vm0='iscsi')


def test_a_destroyed_environment_comes_back_from_the_store(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = publish_files(tmp_path / 'www', forest)
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'nfs'}, repo=repo.index_path)
    init_well(box)
    before = facts_of(box)
    done = box.run('destroy', '--yes', '--all-prefixes')
    assert done.code == 0, done.output
    assert not box.workdir.exists()
    init_well(box)
    assert facts_of(box) == before
    check_disks(box, forest, vm0='nfs')


def publish_files(
    root: Path, forest: Dict[str, DiskImage], **options: Any
) -> Publisher:
    """Publish the forest in a directory that needs no server."""
    repo = Publisher(root, source='file', compression='zst', **options)
    repo.add_forest(forest)
    repo.write()
    return repo


def facts_of(box: LagoSandbox) -> Dict[str, Tuple[int, int]]:
    """Return inode and time of all images in the store."""
    found = {name: (box.store / name).stat() for name in box.stored()}
    return {
        name: (facts.st_ino, facts.st_mtime_ns)
        for name, facts in found.items()
    }


# What an index and an init file may say

def test_every_compression(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    repo = Publisher(server.root, base_url=f'{server.url}/')
    for image, compression in {
        'base': 'xz-single', 'nfs': 'zst', 'iscsi': 'gz', 'other': None,
    }.items():
        disk = forest[image]
        repo.add(disk.path, image, base=disk.base, compression=compression)
    repo.write()
    box = box_on(server, tmp_path / 'box', {
        'vm0': 'base', 'vm1': 'nfs', 'vm2': 'iscsi', 'vm3': 'other'
    })
    init_well(box)
    check_disks(
        box, forest, vm0='base', vm1='nfs', vm2='iscsi', vm3='other'
    )
    assert sorted(one.path for one in image_requests(server.requests())) == [
        '/base-v1.qcow2.xz', '/iscsi-v1.qcow2.gz', '/nfs-v1.qcow2.zst',
        '/other-v1.qcow2',
    ]


def test_two_disks_versions_as_numbers_and_the_newest(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', source='file', compression=None)
    for image, version, timestamp in (
        ('base', '7.2', 300.5), ('nfs', '10', 200), ('other', '9', 100),
    ):
        base = forest[image].base
        repo.add(
            forest[image].path, 'el7', version, timestamp=timestamp,
            base='el7:7.2' if base else None,
        )
    repo.write()
    box = LagoSandbox(tmp_path / 'box', {
        'vm0': [{'template_name': 'el7', 'template_version': 10},
                {'template_name': 'el7', 'template_version': '9'}],
        'vm1': [{'template_name': 'el7', 'template_version': 7.2},
                {'template_name': 'el7'}],
    }, repo=repo.index_path)
    init_well(box)
    check_disks(box, forest, vm0='nfs', vm1='base')
    newest = [('lab:el7:7.2', 'qcow2')]
    assert links_of(box.disk('vm0', 'disk1')) == [
        ('lab:el7:9', 'qcow2'), *newest
    ]
    assert links_of(box.disk('vm1', 'disk1')) == newest


def test_a_republished_image_gets_a_name_of_its_own(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = publish_files(tmp_path / 'www', forest)
    old = LagoSandbox(tmp_path / 'old', {'vm0': 'nfs'}, repo=repo.index_path)
    init_well(old)
    before = facts_of(old)
    second = make_forest(
        tmp_path / 'second', {'nfs': ImageSpec(4), 'top': ImageSpec(1, 'nfs')},
        seed='second',
    )
    image = repo.add(second['nfs'].path, 'nfs')
    repo.add(second['top'].path, 'top', base='nfs')
    repo.write()
    new = LagoSandbox(
        tmp_path / 'new', {'vm0': 'nfs', 'vm1': 'top'},
        repo=repo.index_path, store=old.store,
    )
    init_well(new)
    name = f'lab:nfs:v1+{image.checksums["sha512"][:8]}'
    assert new.stored() == sorted([*before, name, 'lab:top:v1'])
    assert {key: facts_of(new)[key] for key in before} == before
    assert links_of(new.disk('vm1')) == [
        ('lab:top:v1', 'qcow2'), (name, 'qcow2')
    ]
    check_disks(new, second, vm0='nfs', vm1='top')
    check_disks(old, forest, vm0='nfs')


# Beside a plain Lago

HOLD = '''
import sys
from lago.utils import LockFile
with LockFile(sys.argv[1]):
    print('locked', flush=True)
    sys.stdin.readline()
'''


@contextlib.contextmanager
def lago_lock(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let a process hold a lock as a plain Lago does, until a line comes."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding='utf-8',
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == 'locked\n'
            yield process
        finally:
            process.kill()


def test_waits_for_a_plain_lago_and_goes_on(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = publish_files(tmp_path / 'www', forest)
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'nfs'}, repo=repo.index_path)
    box.store.mkdir()
    with lago_lock(box.store / 'lab:base:v1.lock') as holder:
        init = box.popen('init', '--skip-bootstrap')
        assert init.stderr is not None
        seen = read_until(init.stderr, 'nfs:v1: fetching')
        if 'base:v1: waiting for' not in seen:
            seen += read_until(init.stderr, 'base:v1: waiting for')
        time.sleep(1)
        assert init.poll() is None
        assert box.stored() == []
        holder.communicate('go\n', timeout=SECONDS)
        _, log = init.communicate(timeout=SECONDS)
    assert init.returncode == 0, seen + log
    assert 'base:v1: waiting for another process\n' in seen + log
    check_disks(box, forest, vm0='nfs')


def read_until(stream: IO[str], text: str) -> str:
    """Return the lines up to one that begins with a text."""
    seen = ''
    for line in stream:
        seen += line
        if line.startswith(text):
            return seen
    pytest.fail(f'{text!r} never came:\n{seen}')
