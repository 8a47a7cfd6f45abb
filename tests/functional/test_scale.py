"""Much of everything: versions in an index, layers, images, processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, check_disks,
    guest_digest, image_requests, init_well, make_chain,
)
from tests.lab.environments import kill
from tests.lab.images import content
from tests.lab.stores import check_visible, held_locks, leftovers

Forest = Dict[str, DiskImage]

KIB = 1024

#: What small requests may fetch of an image before its transfer.
LOOKUP_BYTES = 64 * KIB

#: A version that nobody wants, with all that is known of images.
ENTRY = {
    'source': 'lab', 'handle': 'published/other/v1.qcow2',
    'base': None, 'compression': 'zst', 'format': 'qcow2',
    'size': 700000000, 'compressed_size': 200000000, 'virtual_size': 2**32,
    'sha256': 'a' * 64, 'sha1': 'a' * 40,
    'metadata': {'distro': 'el7', 'root-password': '123456'},
}


def pull(box: LagoSandbox, *arguments: str) -> Finished:
    done = box.run('template-repo', 'pull', *arguments)
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    return done


def fetched(server: Nginx) -> List[str]:
    """Return what was asked for since the last time."""
    requests = server.requests()
    server.forget()
    return [f'{one.path} {one.status}' for one in requests]


# A hundred thousand versions

def add_versions(index: Dict[str, Any]) -> None:
    """Add versions of other templates; one in ten is faulty."""
    for number in range(100_000):
        entry = {**ENTRY, 'timestamp': number}
        if number % 10 == 0:
            entry['handle'] = '../../etc/passwd'
        template = index['templates'].setdefault(
            f'crowd{number % 1000}', {'versions': {}}
        )
        template['versions'][f'v{number}'] = entry


@pytest.fixture(scope='module')
def large(
    forest: Forest, tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    repo = Publisher(
        tmp_path_factory.mktemp('large') / 'www', compression='gz'
    )
    repo.add_forest({name: forest[name] for name in ('base', 'nfs', 'iscsi')})
    repo.edit(add_versions)
    # In all the ways that an index may name a base.
    repo.edit_version('nfs:v1', base='layer:base-v1.qcow2.xz')
    digest = repo.images['nfs:v1'].checksums['sha512']
    repo.edit_version('iscsi:v1', base=f'{digest}:nfs')
    repo.write('.')
    return repo


@pytest.fixture
def box(large: Publisher, tmp_path: Path) -> Iterator[LagoSandbox]:
    with Nginx(large.root) as server:
        yield LagoSandbox(
            tmp_path / 'box', {'vm0': 'iscsi'},
            repo=f'{server.url}/repo.metadata',
        )


def test_wanted_among_many_versions(
    box: LagoSandbox, large: Publisher, forest: Forest
) -> None:
    init_well(box)
    check_disks(box, forest, vm0='iscsi')
    assert sorted(check_visible(box.store, large)) == [
        'base:v1', 'iscsi:v1', 'nfs:v1'
    ]


def test_neighbours_that_are_faulty(box: LagoSandbox) -> None:
    for _ in 'fetched', 'kept':
        done = box.run('template-repo', 'plan', 'crowd0:v10000')
        assert done.code == 2, done.output
        assert 'leaves its source' in done.output
        done = box.run('template-repo', 'plan', 'crowd1:v99999')
        assert done.code == 2, done.output
        assert 'Version \'v99999\' of template \'crowd1\'' in done.output
        done = box.run(
            '--out-format', 'json', 'template-repo', 'plan', 'crowd1'
        )
        assert done.code == 0, done.output
        assert json.loads(done.stdout)['wanted'] == ['lab:crowd1:v99001']


@pytest.mark.parametrize('damage', [
    lambda data: data[:len(data) // 2],
    lambda data: data.replace(b'base-v1', b'base-v2'),
], ids=['cut', 'edited'])
def test_what_was_kept_is_damaged(
    box: LagoSandbox, forest: Forest, damage: Any
) -> None:
    pull(box, 'base')
    [kept] = (box.store / '.layered/indexes').iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    init_well(box)
    check_disks(box, forest, vm0='iscsi')
    assert kept.read_bytes().splitlines()[1:] == whole.splitlines()[1:]


# Thirty layers

def test_thirty_layers(tmp_path: Path, server: Nginx) -> None:
    chain = make_chain(tmp_path / 'src', 2, *[1] * 29)
    repo = Publisher(server.root, compression='zst')
    repo.add_forest({disk.name: disk for disk in chain})
    repo.write(f'{server.url}/')
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'layer29', 'vm1': 'layer14'},
        repo=f'{server.url}/repo.metadata',
    )
    pull(box)
    assert len(image_requests(server.requests())) >= 30
    assert len(check_visible(box.store, repo)) == 30
    server.forget()
    pull(box)
    assert fetched(server) == ['/repo.metadata 304']
    init_well(box)
    assert fetched(server) == ['/repo.metadata 304']
    for vm, disk in (('vm0', chain[29]), ('vm1', chain[14])):
        assert guest_digest(box.disk(vm)) == disk.guest_sha256
    assert leftovers(box.store) == []


# Five hundred images

@pytest.mark.slow
def test_five_hundred_images(tmp_path: Path, server: Nginx) -> None:
    repo = Publisher(server.root, compression='gz')
    source = tmp_path / 'source'
    for number in range(500):
        source.write_bytes(content(64 * KIB, str(number)))
        repo.add(source, f'image{number}', form='raw')
    repo.write(f'{server.url}/')
    box = LagoSandbox(
        tmp_path / 'box', {}, repo=f'{server.url}/repo.metadata'
    )
    done = pull(box, '--all')
    assert '500 layers: 500 missing' in done.stderr
    assert len(check_visible(box.store, repo)) == 500
    sent = Counter(one.path for one in image_requests(server.requests()))
    assert set(sent.values()) == {1} and len(sent) == 500
    server.forget()
    done = pull(box, '--all')
    assert done.stderr == '\n500 layers, all present: nothing to fetch.\n\n'
    assert fetched(server) == ['/repo.metadata 304']
    (box.store / 'lab:image7:v1').unlink()
    done = pull(box, '--all')
    listed = [line for line in done.stderr.splitlines() if 'lab:' in line]
    assert len(listed) == 1 and 'lab:image7:v1' in listed[0]
    assert '(499 more are present)' in done.stderr
    assert '500 layers: 499 present, 1 missing' in done.stderr
    assert leftovers(box.store) == []


# Sixteen processes

@contextlib.contextmanager
def running(
    boxes: List[LagoSandbox], *arguments: str
) -> Iterator[List[subprocess.Popen[str]]]:
    """Run the same command in all boxes at once; none outlives it."""
    processes: List[subprocess.Popen[str]] = []
    try:
        for box in boxes:
            with open(box.root / 'output', 'w') as output:
                processes.append(box.popen(
                    *arguments, stdout=output, stderr=subprocess.STDOUT,
                ))
        yield processes
    finally:
        for process in processes:
            kill(process)
            process.wait()


@pytest.mark.slow
def test_sixteen_processes(forest: Forest, tmp_path: Path) -> None:
    (tmp_path / 'www').mkdir()
    # So slow that all have begun before the first image is there.
    with Nginx(tmp_path / 'www', limit_rate=150_000) as server:
        repo = Publisher(server.root, compression='zst')
        repo.add_forest(forest)
        repo.write(f'{server.url}/')
        boxes = [
            LagoSandbox(
                tmp_path / f'box{number}', {'vm0': 'iscsi', 'vm1': 'other'},
                repo=f'{server.url}/repo.metadata', store=tmp_path / 'store',
                config={'template_repo': {'progress': 'line'}},
            ) for number in range(16)
        ]
        with running(boxes, 'template-repo', 'pull') as processes:
            codes = [process.wait(timeout=300) for process in processes]
        outputs = [(box.root / 'output').read_text() for box in boxes]
        assert codes == [0] * 16, '\n'.join(outputs)
        sent: Counter[str] = Counter()
        for one in image_requests(server.requests()):
            sent[one.path] += one.sent
    for image in repo.images.values():
        again = sent[image.url_path] - image.compressed_size
        assert 0 <= again <= LOOKUP_BYTES, image.name
    assert len(check_visible(tmp_path / 'store', repo)) == 4
    assert leftovers(tmp_path / 'store') == []
    assert not held_locks(tmp_path / 'store')
    assert not any('Traceback' in output for output in outputs)
    assert sum('waiting for process' in each for each in outputs) >= 14
