"""The lab itself: what other tests take for granted of it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple, Union

import pytest

from tests.lab import (
    DiskImage, ImageSpec, LagoSandbox, Nginx, Publisher, RudeServer,
    TinyLinux, backing_chain, boot, flatten, guest_digest, image_requests,
    make_forest, markers_of, max_in_flight, require, run,
)
from tests.lab.commands import MissingTool
from tests.lab.report import tree
from tests.lab.tiny_linux import make_layers

Server = Union[Nginx, RudeServer]
SPECS = {
    'base': ImageSpec(4),
    'nfs': ImageSpec(1, 'base'),
    'iscsi': ImageSpec(1, 'nfs'),
    'other': ImageSpec(2, 'base'),
}
SIZE = 300_000

RANGES = [
    '', 'bytes=0-', 'bytes=0-0', 'bytes=100-199', 'bytes=299999-',
    'bytes=-10', 'bytes=-400000', 'bytes=300000-', 'bytes=299990-999999',
    'bytes=5-4', 'nonsense', 'bytes=0-1,5-6',
]


@pytest.fixture(scope='module')
def forest(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, DiskImage]:
    require('qemu-img', 'qemu-io')
    return make_forest(tmp_path_factory.mktemp('forest'), SPECS)


@pytest.fixture(params=[Nginx, RudeServer])
def server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Server]:
    root = tmp_path / 'www'
    root.mkdir()
    (root / 'image').write_bytes(bytes(range(256)) * (SIZE // 256 + 1))
    os.truncate(root / 'image', SIZE)
    (root / 'other').write_bytes(b'o' * SIZE)
    with request.param(root) as running:
        yield running


def get(
    server: Server, path: str, method: str = 'GET', **headers: str
) -> Tuple[int, Dict[str, str], bytes]:
    """Make one request; ``If_Range`` stands for If-Range."""
    connection = http.client.HTTPConnection('127.0.0.1', server.port, 20)
    named = {name.replace('_', '-'): text for name, text in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    try:
        body = answer.read()
    finally:
        connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


# Images

@pytest.mark.quick
def test_forest_has_the_backing_files_and_bytes_it_says(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    chain = backing_chain(forest['iscsi'].path)
    assert [Path(str(one['filename'])).name for one in chain] == [
        'iscsi.qcow2', 'nfs.qcow2', 'base.qcow2'
    ]
    assert chain[0]['backing-filename-format'] == 'qcow2'
    digests = {disk.guest_sha256 for disk in forest.values()}
    assert len(digests) == 4
    flat = flatten(forest['iscsi'].path, tmp_path / 'flat.qcow2')
    assert guest_digest(flat) == forest['iscsi'].guest_sha256
    assert len(backing_chain(flat)) == 1


def test_forest_is_the_same_every_time(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    again = make_forest(tmp_path, SPECS)
    assert [disk.guest_sha256 for disk in again.values()] == [
        disk.guest_sha256 for disk in forest.values()
    ]


# Repositories

UNPACK = {
    'xz': ['xz', '-dc'], 'xz-single': ['xz', '-dc'], 'zst': ['zstd', '-dc'],
    'xz-blocks': ['xz', '-dc'], 'xz-wide': ['xz', '-dc'],
    'zst-frames': ['zstd', '-dc'], 'gz': ['gzip', '-dc'], None: ['cat'],
}


@pytest.mark.parametrize('compression', UNPACK)
def test_published_bytes_have_the_digests_of_the_index(
    forest: Dict[str, DiskImage], tmp_path: Path, compression: str
) -> None:
    repo = Publisher(tmp_path / 'www', compression=compression)
    repo.add_forest(forest)
    index = json.loads(repo.write('http://h/').read_text())
    entry = index['templates']['iscsi']['versions']['v1']
    published = repo.images['iscsi:v1']
    unpacked = tmp_path / 'unpacked'
    run('sh', '-c', '"$@" > "$0"', unpacked, *UNPACK[compression],
        published.file)
    data = unpacked.read_bytes()
    assert len(data) == entry['size']
    for name in ('sha1', 'sha256', 'sha512'):
        assert hashlib.new(name, data).hexdigest() == entry[name]
    assert published.file.stat().st_size == entry['compressed_size']
    assert entry['base'] == 'nfs:v1'
    assert entry['virtual_size'] == forest['iscsi'].virtual_size
    assert header(unpacked) == ('./nfs:v1', 'qcow2')


@pytest.mark.parametrize('dialect, name, base, expected', [
    ('plain', 'nfs:v1', None, ('./base:v1', 'qcow2')),
    ('images-2015', 'nfs:latest', 'base', ('base', None)),
    ('images-head', 'nfs:v1', 'layer:http://builder.invalid/base.xz',
     ('base', None)),
])
def test_dialects(
    forest: Dict[str, DiskImage], tmp_path: Path,
    dialect: str, name: str, base: str, expected: Tuple[str, str],
) -> None:
    repo = Publisher(tmp_path / 'www', dialect=dialect)
    repo.add_forest(forest)
    index = json.loads(repo.write('http://h/').read_text())
    template, version = name.split(':')
    entry = index['templates'][template]['versions'][version]
    assert set(entry) == {'source', 'handle', 'timestamp'}
    published = repo.images[name]
    assert header(published.image) == expected
    sidecar = json.loads(
        (repo.root / f'{entry["handle"]}.metadata').read_text()
    )
    assert sidecar.get('base') == base
    digest = (repo.root / f'{entry["handle"]}.hash').read_text()
    assert digest == published.checksums['sha1']


def test_head_swaps_the_names_of_its_checksums(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', dialect='images-head')
    image = repo.add(forest['base'].path, 'base')
    repo.write()
    sidecar = json.loads((repo.root / 'base.metadata').read_text())
    assert sidecar['checksum'] == image.checksums['sha512']
    on_server = hashlib.sha512(image.file.read_bytes()).hexdigest()
    assert sidecar['uncompressed_checksum'] == on_server


def test_an_entry_can_be_spoiled(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www')
    repo.add(forest['base'].path, 'base')
    repo.edit_version('base:v1', sha1='0' * 40, sha512=..., base='gone')
    entry = json.loads(repo.write().read_text())[
        'templates']['base']['versions']['v1']
    assert entry['sha1'] == '0' * 40
    assert entry['base'] == 'gone'
    assert 'sha512' not in entry


def header(image: Path) -> Tuple[object, object]:
    """Return the backing file and its format as the header says."""
    facts = json.loads(run(
        'qemu-img', 'info', '-f', 'qcow2', '--output=json', image
    ))
    return (
        facts.get('backing-filename'), facts.get('backing-filename-format')
    )


# Servers: the rude one, when it is asked nothing, must be like nginx

@pytest.mark.parametrize('wanted', RANGES)
def test_servers_answer_ranges_alike(tmp_path: Path, wanted: str) -> None:
    (tmp_path / 'image').write_bytes(os.urandom(SIZE))
    answers = []
    for kind in (Nginx, RudeServer):
        with kind(tmp_path) as server:
            headers = {'Range': wanted} if wanted else {}
            status, names, body = get(server, '/image', **headers)
        if wanted.count(',') and status == 206:
            status, names, body = 200, {}, (tmp_path / 'image').read_bytes()
        answers.append((
            status, names.get('content-range'),
            body if status in (200, 206) else b'',
        ))
    assert answers[0] == answers[1]


def test_etag_and_if_range(server: Server) -> None:
    _, names, _ = get(server, '/image', 'HEAD')
    etag = names['etag']
    assert etag.startswith('"')
    assert names['content-length'] == str(SIZE)
    part = {'Range': 'bytes=9-'}
    assert get(server, '/image', If_Range=etag, **part)[0] == 206
    assert get(server, '/image', If_Range='"x"', **part)[0] == 200
    assert get(server, '/image', If_None_Match=etag)[0] == 304
    assert get(server, '/nothing')[0] == 404


def test_requests_are_recorded(server: Server) -> None:
    get(server, '/image', Range='bytes=100-')
    get(server, '/nothing')
    first, second = server.requests()
    assert (first.method, first.path, first.status) == ('GET', '/image', 206)
    assert (first.range, first.sent) == ('bytes=100-', SIZE - 100)
    assert second.status == 404
    assert image_requests(server.requests()) == [first]
    server.forget()
    assert server.requests() == []


def test_a_stopped_server_comes_back_on_its_port(server: Server) -> None:
    port = server.port
    server.stop()
    with pytest.raises(OSError):
        get(server, '/image')
    server.start()
    assert server.port == port
    assert get(server, '/image')[0] == 200


def test_images_in_flight_are_counted(tmp_path: Path) -> None:
    for name in ('a', 'b', 'c'):
        (tmp_path / name).write_bytes(os.urandom(SIZE))
    with Nginx(tmp_path, limit_rate=SIZE) as server:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name: get(server, name), ['/a', '/b', '/c']))
        assert max_in_flight(server.requests()) == 3
        server.forget()
        for name in ('/a', '/b'):
            get(server, name)
        assert max_in_flight(server.requests()) == 1


# Faults: what the client sees of each

FAULTS: List[Tuple[Dict[str, Any], Callable[[int, Any, bytes], bool]]] = [
    ({'status': 503, 'retry_after': '7'},
     lambda s, h, b: s == 503 and h['retry-after'] == '7'),
    ({'html': True}, lambda s, h, b: s == 200 and b.startswith(b'<html>')),
    ({'redirect': '/other'}, lambda s, h, b: h['location'] == '/other'),
    ({'ignore_range': True}, lambda s, h, b: s == 200 and len(b) == SIZE),
    ({'flip_at': 150}, lambda s, h, b: (b[49], b[50]) == (149, 150 ^ 255)),
    ({'etag': '"new"'}, lambda s, h, b: s == 200 and h['etag'] == '"new"'),
    ({'etag': ''}, lambda s, h, b: 'etag' not in h),
    ({'chunked': True}, lambda s, h, b: 'content-length' not in h
     and len(b) == SIZE - 100),
    ({'shift': 1}, lambda s, h, b: b[0] == 101),
]


@pytest.mark.parametrize('fault, seen', FAULTS, ids=lambda x: str(x)[:24])
def test_faults(
    tmp_path: Path,
    fault: Dict[str, Any],
    seen: Callable[[int, Any, bytes], bool],
) -> None:
    (tmp_path / 'image').write_bytes((bytes(range(256)) * 1200)[:SIZE])
    with RudeServer(tmp_path) as server:
        _, names, _ = get(server, '/image', 'HEAD')
        wanted = {'Range': 'bytes=100-', 'If_Range': names['etag']}
        server.fail('/im*', times=1, **fault)
        assert seen(*get(server, '/image', **wanted))
        assert get(server, '/image', **wanted)[0] == 206


@pytest.mark.parametrize('reset', [False, True])
def test_cut_connection(tmp_path: Path, reset: bool) -> None:
    (tmp_path / 'image').write_bytes(os.urandom(SIZE))
    with RudeServer(tmp_path) as server:
        server.fail('/image', skip=1, cut_after=70_000, reset=reset)
        assert len(get(server, '/image')[2]) == SIZE
        error = ConnectionError if reset else http.client.IncompleteRead
        with pytest.raises(error) as caught:
            get(server, '/image')
        assert server.requests()[-1].sent == 70_000
        if isinstance(caught.value, http.client.IncompleteRead):
            assert len(caught.value.partial) == 70_000
        server.heal()
        assert len(get(server, '/image')[2]) == SIZE


def test_what_began_before_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / 'image').write_bytes(os.urandom(SIZE))
    with RudeServer(tmp_path) as server:
        server.fail('/image', rate=SIZE, times=1)
        connection = http.client.HTTPConnection('127.0.0.1', server.port)
        connection.request('GET', '/image')
        answer = connection.getresponse()
        server.forget()
        assert get(server, '/image', Range='bytes=5-')[0] == 206
        assert len(answer.read()) == SIZE
        connection.close()
        found, = server.settled_requests()
        assert found.range == 'bytes=5-'


def test_stalled_server_lets_go_when_stopped(tmp_path: Path) -> None:
    (tmp_path / 'image').write_bytes(os.urandom(SIZE))
    with RudeServer(tmp_path) as server:
        server.fail('/image', stall_after=1000)
        connection = http.client.HTTPConnection('127.0.0.1', server.port, 1)
        connection.request('GET', '/image')
        answer = connection.getresponse()
        assert len(answer.read(1000)) == 1000
        with pytest.raises(socket.timeout):
            answer.read(1)
        connection.close()


def test_slow_server(tmp_path: Path) -> None:
    (tmp_path / 'image').write_bytes(os.urandom(SIZE))
    with RudeServer(tmp_path) as server:
        server.fail('/image', rate=SIZE * 2)
        get(server, '/image')
        request = server.requests()[-1]
        assert 0.4 < request.end - request.start < 2


# A boot

@pytest.mark.vm
def test_guest_sees_the_markers_of_all_its_layers(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    require('qemu-system-x86_64', 'qemu-img', 'mcopy', 'syslinux')
    linux = TinyLinux(pytestconfig.rootpath / '.cache' / 'tiny')
    disks = make_layers(linux, tmp_path, {
        'base': None, 'nfs': 'base', 'iscsi': 'nfs', 'other': 'base'
    })
    assert disks['iscsi'].stat().st_size < 2 << 20
    assert markers_of(boot(disks['iscsi'])) == ['base', 'nfs', 'iscsi']
    assert markers_of(boot(disks['other'])) == ['base', 'other']


# Environments and reports

def test_sandbox_configures_lago(tmp_path: Path) -> None:
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs', 'vm1': [
            {'template_name': 'base', 'template_version': 'v1'},
            {'template_name': 'other'},
        ]},
        repo='/nowhere/repo.metadata', config={'template_repo': {'jobs': 2}},
    )
    disks = box.init_data['domains']['vm1']['disks']
    assert [disk['name'] for disk in disks] == ['root', 'disk1']
    done = box.run('--help')
    assert done.code == 0, done.output
    done = box.init()
    assert done.code != 0
    assert '/nowhere/repo.metadata' in done.output
    assert box.stored() == []


def test_tree() -> None:
    bases = {'a': None, 'b': 'a', 'c': 'b', 'd': 'a', 'e': None}
    assert tree(bases) == ['a', '├─ b', '│  └─ c', '└─ d', 'e']


def test_require_skips_on_a_laptop_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(MissingTool, match='no-such-tool'):
        require('no-such-tool')
    monkeypatch.delenv('CI')
    with pytest.raises(pytest.skip.Exception):
        require('no-such-tool')
