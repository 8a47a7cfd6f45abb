"""``lint``: each kind of damage to a good repository, and what is said."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest

from tests.lab import (
    DiskImage, Fault, Finished, ImageSpec, LagoSandbox, Nginx, Publisher,
    RudeServer, make_forest, require, run,
)
from tests.lab.images import content
from tests.lab.nginx import free_port
from tests.lab.publish import checksums, compress

MIB = 1 << 20
SETTINGS = {
    'LAGO__TEMPLATE_REPO__RETRIES': '0',
    'LAGO__TEMPLATE_REPO__PROGRESS': 'none',
}

#: (code, image)
Codes = Set[Tuple[str, Optional[str]]]


class Site:
    """A good repository that a test spoils, and the command on it."""

    def __init__(self, root: Path, published: Publisher) -> None:
        self.root = root
        self.images = published.images
        shutil.copytree(published.root, root)
        self.index: Dict[str, Any] = json.loads(
            published.index_path.read_text()
        )
        self.index['sources']['lab'] = {'type': 'file', 'args': {'root': '.'}}
        self.write()

    def write(self) -> None:
        self.path.write_text(json.dumps(self.index))

    @property
    def path(self) -> Path:
        return self.root / 'repo.metadata'

    def entry(self, name: str) -> Dict[str, Any]:
        template, version = name.split(':')
        found: Dict[str, Any] = (
            self.index['templates'][template]['versions'][version]
        )
        return found

    def change(self, name: str, **changes: Any) -> None:
        self.entry(name).update(changes)
        self.write()

    def edit(self, change: Callable[[Dict[str, Any]], object]) -> None:
        change(self.index)
        self.write()

    def turn_into_directory(self, name: str) -> None:
        self.file(name).unlink()
        self.file(name).mkdir()

    def file(self, name: str) -> Path:
        return self.root / self.images[name].file.name

    def repack(self, name: str, change: Callable[[Path], object]) -> None:
        """Change an image, and publish it with the right sizes and sums."""
        image = self.root.parent / 'image'
        shutil.copy(self.images[name].image, image)
        change(image)
        file = self.file(name)
        compress(image, file, 'xz', 1)
        sums = checksums(image)
        handle = self.entry(name)['handle']
        (self.root / f'{handle}.hash').write_text(sums['sha1'])
        self.change(
            name, size=image.stat().st_size,
            compressed_size=file.stat().st_size, **sums,
        )

    def lint(
        self, *arguments: str, at: str = '', code: int = 0, **env: str
    ) -> Finished:
        return lint(at or str(self.root), *arguments, code=code, **env)

    def codes(self, *arguments: str, at: str = '', **env: str) -> Codes:
        return codes(at or str(self.root), *arguments, **env)


def lint(
    where: str, *arguments: str, code: Optional[int] = 0, **env: str
) -> Finished:
    """Run the command where there is no Lago to be seen."""
    done = subprocess.run(
        [sys.executable, '-m', 'lago_layered_provider', *arguments[:2],
         'lint', where, *arguments[2:]],
        env={'PATH': '/usr/bin:/bin', 'LC_ALL': 'C', **SETTINGS, **env},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding='utf-8', timeout=300, check=False,
    )
    found = Finished(done.returncode, done.stdout, done.stderr)
    assert 'Traceback' not in found.output
    assert code in (None, found.code), found.output
    return found


def data(where: str, *arguments: str, **env: str) -> Dict[str, Any]:
    done = lint(where, '--out-format', 'json', *arguments, code=None, **env)
    found: Dict[str, Any] = json.loads(done.stdout)
    failed = any(each['level'] == 'error' for each in found['findings'])
    assert done.code == (2 if failed else 0)
    return found


def codes(where: str, *arguments: str, **env: str) -> Codes:
    return {
        (each['code'], each['image'])
        for each in data(where, *arguments, **env)['findings']
    }


@pytest.fixture
def site(published: Publisher, tmp_path: Path) -> Site:
    return Site(tmp_path / 'www', published)


@pytest.fixture
def web(site: Site) -> Iterator[Nginx]:
    with Nginx(site.root) as running:
        yield running


def test_a_good_repository(site: Site, web: Nginx) -> None:
    for where in (
        str(site.root), f'{site.root}/', str(site.path), site.path.as_uri(),
        f'{web.url}/', f'{web.url}/repo.metadata',
    ):
        for deep in ((), ('--deep',)):
            done = lint(where, '--out-format', 'default', *deep)
            assert done.stdout == '4 images: nothing is wrong\n'
            assert done.stderr == ''


@pytest.mark.quick
def test_small_requests_only(site: Site, web: Nginx) -> None:
    site.lint(at=f'{web.url}/')
    requests = web.requests()
    # The index, what may be beside it, and four for each image.
    assert len(requests) == 3 + 4 * len(site.images)
    assert max(each.sent for each in requests) <= 128 << 10


def flip(path: Path, at: int) -> None:
    with open(path, 'r+b') as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 0xff]))


def poke(at: int, form: str, value: int) -> Callable[[Path], object]:
    """Return what writes a field of a qcow2 header."""
    def write(image: Path) -> None:
        with open(image, 'r+b') as stream:
            stream.seek(at)
            stream.write(struct.pack(form, value))
    return write


def stray(site: Site) -> None:
    """Leave what a removed version has left."""
    path = site.root / 'published/old/v1.qcow2.hash'
    path.parent.mkdir(parents=True)
    path.touch()


def long_window(site: Site) -> None:
    """Publish what only ``zstd -d --long=28`` decompresses."""
    data = b'\x28\xb5\x2f\xfd\0\x90\x29\0\0layer'
    (site.root / f'{site.entry(BASE)["handle"]}.zst').write_bytes(data)
    site.change(BASE, compression='zst', compressed_size=len(data))


def rebase(*arguments: str) -> Callable[[Path], object]:
    return lambda image: run(
        'qemu-img', 'rebase', '-u', '-f', 'qcow2', *arguments, image
    )


NFS = 'nfs:v1'
BASE = 'base:v1'

#: Said of a local index whose source is a directory by its absolute path.
HERE = ('source-here', None)

DAMAGES: Dict[str, Tuple[Callable[[Site], object], Codes]] = {
    'index cut': (
        lambda site: site.path.write_text(site.path.read_text()[:-9]),
        {('index-faulty', None)},
    ),
    'index gone': (
        lambda site: site.path.unlink(), {('index-unreadable', None)},
    ),
    'no such type': (
        lambda site: site.edit(
            lambda index: index['sources']['lab'].update(type='ftp')
        ), {('source-faulty', None)},
    ),
    'entry': (
        lambda site: site.change(NFS, size='x'),
        {('entry-faulty', NFS), ('base-faulty', 'iscsi:v1')},
    ),
    'base missing': (
        lambda site: site.change(NFS, base='gone:v1'),
        {('base-missing', NFS)},
    ),
    'circle': (
        lambda site: site.change(BASE, base='iscsi:v1'),
        {('base-cycle', BASE), ('backing-missing', BASE),
         ('base-younger', BASE)},
    ),
    'younger base': (
        lambda site: site.change(BASE, timestamp=1500000001.5),
        {('base-younger', NFS)},
    ),
    'file gone': (
        lambda site: site.file(NFS).unlink(), {('file-missing', NFS)},
    ),
    'files gone': (
        lambda site: run('sh', '-c', f'rm {site.root}/*.xz'),
        {('source-unreachable', None)},
    ),
    'file not to be read': (
        lambda site: site.turn_into_directory(NFS),
        {('file-unreadable', NFS)},
    ),
    'file cut': (
        lambda site: site.file(NFS).write_bytes(
            site.file(NFS).read_bytes()[:-500]
        ), {('compressed-size', NFS), ('damaged', NFS)},
    ),
    'size': (
        lambda site: site.change(NFS, size=site.images[NFS].size + 1),
        {('size', NFS)},
    ),
    'virtual size': (
        lambda site: site.change(NFS, virtual_size=512),
        {('virtual-size', NFS)},
    ),
    'no xz': (
        lambda site: site.file(NFS).write_bytes(
            bytes(site.images[NFS].compressed_size)
        ), {('damaged', NFS)},
    ),
    'no hash': (
        lambda site: (
            site.root / f'{site.entry(NFS)["handle"]}.hash'
        ).unlink(), {('sidecar-missing', NFS)},
    ),
    'stray files': (stray, {('stray-files', None)}),
    'a web page': (
        lambda site: site.repack(
            BASE, lambda path: path.write_text('<html>404</html>')
        ), {('format', BASE), ('virtual-size', BASE)},
    ),
    'a long window': (long_window, {('damaged', BASE)}),
    'said to be raw': (
        lambda site: site.change(BASE, format='raw'), {('format', BASE)},
    ),
    'header': (
        lambda site: site.repack(NFS, poke(4, '>I', 9)), {('header', NFS)},
    ),
    'base denied': (
        lambda site: site.change(NFS, base=None),
        {('backing-unexpected', NFS)},
    ),
    'another base': (
        lambda site: site.repack(NFS, rebase(
            '-F', 'qcow2', '-b', './other:v1'
        )), {('backing-foreign', NFS)},
    ),
    'a protocol': (
        lambda site: site.repack(NFS, rebase(
            '-F', 'raw', '-b', 'nbd:localhost:1'
        )), {('backing-foreign', NFS), ('unsafe', NFS)},
    ),
    'another format': (
        lambda site: site.repack(NFS, rebase(
            '-F', 'raw', '-b', './base:v1'
        )), {('unsafe', NFS)},
    ),
    'path of the host': (
        lambda site: site.repack(NFS, rebase(
            '-F', 'qcow2', '-b', '/build/here/base.qcow2'
        )), {('backing-foreign', NFS)},
    ),
    'path of the build host': (
        lambda site: site.repack(NFS, rebase(
            '-F', 'qcow2', '-b', '/build/here/base-v1.qcow2'
        )), {('backing-path', NFS)},
    ),
    'no backing file': (
        lambda site: site.repack(NFS, rebase('-b', '')),
        {('backing-missing', NFS)},
    ),
    'data file': (
        lambda site: site.repack(NFS, poke(72, '>Q', 4)), {('unsafe', NFS)},
    ),
    'corrupt': (
        lambda site: site.repack(BASE, poke(72, '>Q', 2)),
        {('unsafe', BASE)},
    ),
    'sidecars': (
        lambda site: (
            (site.root / 'nfs-v1.qcow2.hash').write_text('0' * 40),
            (site.root / 'base-v1.qcow2.hash').write_text('page not found'),
            (site.root / 'base-v1.qcow2.metadata').write_text('<html>'),
        ), {('sidecar-hash', NFS), ('sidecar-hash', BASE),
            ('sidecar-metadata', BASE)},
    ),
    'name': (
        lambda site: site.edit(lambda index: index['templates'].update(
            x={'versions': {'v.lock': site.entry(BASE)}}
        )), {('name-refused', 'x:v.lock')},
    ),
    'signature': (
        lambda site: (site.root / 'repo.metadata.asc').write_text('yes'),
        {('signature-bad', None)},
    ),
    'virt-builder': (
        lambda site: (site.root / 'index').write_text(
            '[nfs]\narch=x\nfile=nfs-v1.qcow2.xz\nsize=7\n'
            '[gone]\nfile=gone.xz\nsize=7\n'
        ), {('virt-size', NFS), ('virt-layer', NFS), ('virt-file', None),
            ('virt-field', None)},
    ),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_exactly_the_damage_is_found(name: str, site: Site) -> None:
    spoil, expected = DAMAGES[name]
    spoil(site)
    assert site.codes() == expected


@pytest.mark.parametrize('name', ['file gone', 'files gone', 'file cut'])
def test_the_same_over_http(name: str, site: Site, web: Nginx) -> None:
    spoil, expected = DAMAGES[name]
    spoil(site)
    assert site.codes(at=f'{web.url}/') == expected


def test_deep_finds_a_flipped_byte(site: Site) -> None:
    def change(image: Path) -> None:
        flip(image, image.stat().st_size - 70000)

    entry = dict(site.entry(NFS))
    site.repack(NFS, change)
    site.change(NFS, **{
        key: entry[key] for key in ('sha1', 'sha256', 'sha512')
    })
    (site.root / 'nfs-v1.qcow2.hash').write_text(entry['sha1'])
    assert site.codes() == set()
    found = data(str(site.root), '--deep')['findings']
    assert {each['code'] for each in found} == {'digest', 'sidecar-hash'}
    # In the middle of the file: its end still says the right size.
    flip(site.file(BASE), site.images[BASE].compressed_size // 2)
    assert ('damaged', BASE) in site.codes('--deep')
    assert ('damaged', BASE) not in site.codes()


def test_deep_checks_virt_builders_checksum(site: Site) -> None:
    run(sys.executable, '-m', 'lago_layered_provider', 'index', site.root,
        '--virt-builder')
    assert site.codes('--deep') == set()
    index = site.root / 'index'
    index.write_text(re.sub(
        '(?<=sha512]=).', lambda found: 'a' if found[0] == 'b' else 'b',
        index.read_text(), count=1,
    ))
    assert site.codes('--deep') == {('virt-checksum', BASE)}
    assert site.codes() == set()


def test_the_answer_for_people(site: Site) -> None:
    site.change(NFS, base='gone:v1', size=None)
    site.file('iscsi:v1').unlink()
    done = site.lint(code=2)
    lines = done.stdout.splitlines()
    assert lines[0] == 'iscsi:v1'
    assert lines[1].startswith('  error file-missing:')
    start = lines.index(NFS)
    assert lines[start + 1] == (
        '  error base-missing: stands on gone:v1, which is not in the index'
    )
    assert lines[start + 2].startswith('  warning facts-missing: ')
    assert lines[-1] == '4 images: 2 errors, 1 warning'
    assert not [
        line for line in lines if len(line) > 79 and str(site.root) not in
        line
    ]
    assert done.stderr == ''


def test_the_answer_for_programs(site: Site) -> None:
    site.change(NFS, base='gone:v1')
    assert data(str(site.root)) == {
        'location': str(site.path), 'name': 'lab', 'images': 4,
        'findings': [{
            'level': 'error', 'code': 'base-missing', 'image': NFS,
            'message': 'stands on gone:v1, which is not in the index',
        }],
    }


def test_warnings_alone_do_not_fail(site: Site) -> None:
    site.change(NFS, metadata=None)
    done = site.lint(code=0)
    assert done.stdout.endswith('4 images: 1 warning\n')


def test_by_lago(site: Site, tmp_path: Path) -> None:
    box = LagoSandbox(tmp_path / 'box', {})
    assert box.run('template-repo', 'lint', str(site.root)).code == 0
    site.file(NFS).unlink()
    done = box.run(
        '--out-format', 'json', 'template-repo', 'lint', str(site.root)
    )
    assert done.code == 2
    assert json.loads(done.stdout)['findings'][0]['code'] == 'file-missing'
    assert 'Traceback' not in done.output


@pytest.mark.parametrize('dialect', ['plain', 'images-2015', 'images-head'])
def test_other_publishers_are_right_but_slow(
    dialect: str, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', dialect=dialect, source='file')
    repo.add_forest(forest)
    repo.write()
    found = data(str(repo.root), '--deep')['findings']
    assert [
        (each['code'], each['image']) for each in found
        if each['level'] == 'note'
    ] == [HERE]
    assert {each['level'] for each in found} == {'note', 'warning'}
    assert len([
        each for each in found if each['code'] == 'facts-missing'
    ]) == 4


def test_a_source_that_is_away(site: Site) -> None:
    for url in (
        f'https://127.0.0.1:{free_port()}/', f'http://127.0.0.1:{free_port()}'
    ):
        site.index['sources']['lab'] = {
            'type': 'http', 'args': {'baseurl': url},
        }
        site.write()
        found = data(str(site.root))['findings']
        assert [each['code'] for each in found] == ['source-unreachable']
        assert '4 images' in found[0]['message']
    assert codes(f'http://127.0.0.1:{free_port()}/') == {
        ('index-unreadable', None)
    }


def test_a_server_that_refuses_one_file(site: Site) -> None:
    with RudeServer(site.root) as server:
        server.fail('/nfs-v1.qcow2.xz', Fault(status=403))
        assert site.codes(at=f'{server.url}/') == {('file-unreadable', NFS)}


def test_mirrors(site: Site, web: Nginx, tmp_path: Path) -> None:
    shutil.copytree(site.root, tmp_path / 'mirror')
    with Nginx(tmp_path / 'mirror') as mirror:
        away = f'http://127.0.0.1:{free_port()}/'
        site.index['sources']['lab']['mirrors'] = [mirror.url]
        site.write()
        assert site.codes() == set()
        site.index['sources']['lab']['mirrors'] = [mirror.url, away]
        site.write()
        (tmp_path / 'mirror' / 'nfs-v1.qcow2.xz').unlink()
        with open(tmp_path / 'mirror' / 'base-v1.qcow2.xz', 'ab') as stream:
            stream.write(bytes(4))
        assert site.codes(at=f'{web.url}/') == {
            ('mirror-unreachable', None), ('mirror-incomplete', NFS),
            ('mirror-differs', BASE),
        }


def test_a_directory_in_an_index_of_the_web(site: Site, web: Nginx) -> None:
    site.index['sources']['lab']['args']['root'] = str(site.root)
    site.write()
    refused = {('source-faulty', None)}
    assert site.codes(at=f'{web.url}/') == refused
    assert site.codes() == {('source-here', None)}
    allow = {'LAGO__TEMPLATE_REPO__LOCAL_ROOTS': str(site.root)}
    assert site.codes(at=f'{web.url}/', **allow) == {('source-local', None)}
    # A mirror disables itself only.
    site.index['sources']['lab'] = {
        'type': 'file', 'args': {'root': '.'}, 'mirrors': [str(site.root)],
    }
    site.write()
    assert site.codes(at=f'{web.url}/') == refused
    assert site.codes() == {('source-here', None)}


def test_a_layer_that_carries_its_base(tmp_path: Path) -> None:
    """Lago's issue 51: what virt-resize makes holds all of the base."""
    require('qemu-img', 'qemu-io', 'xz')
    forest = make_forest(tmp_path / 'src', {
        'base': ImageSpec(20), 'full': ImageSpec(19, 'base'),
        'small': ImageSpec(1, 'base', virtual_mib=40),
    })
    repo = Publisher(tmp_path / 'www', source='file')
    repo.add_forest(forest)
    repo.write()
    assert codes(str(repo.root)) == {
        ('carries-base', 'full:v1'), ('shrinks', 'small:v1'), HERE,
    }


def test_one_large_block(tmp_path: Path) -> None:
    require('qemu-img', 'xz', 'zstd')
    image = tmp_path / 'image'
    image.write_bytes(content(MIB, 'x') + bytes(64 * MIB))
    for compression, expected in (
        ('xz', set()), ('xz-single', {('one-block', BASE)}),
        ('zst', {('one-block', BASE)}), (None, set()),
    ):
        repo = Publisher(
            tmp_path / f'{compression}', source='file',
            compression=compression,
        )
        repo.add(image, 'base', form='raw')
        repo.write()
        assert codes(str(repo.root), '--deep') == {HERE, *expected}


def test_a_repository_that_changes_meanwhile(site: Site) -> None:
    """Files and index are replaced after the index was read."""
    with RudeServer(site.root) as server:
        server.fail('/nfs-v1.qcow2.metadata', Fault(delay=1.5), times=1)
        found: List[Codes] = []
        looking = threading.Thread(target=lambda: found.append(
            site.codes(at=f'{server.url}/')
        ))
        looking.start()
        while not server.requests():
            assert looking.is_alive()
        old, handle = site.entry(NFS)['handle'], 'published/nfs.qcow2'
        (site.root / handle).parent.mkdir()
        for ending in ('.xz', '.hash', '.metadata'):
            shutil.copy(
                site.root / f'{old}{ending}', site.root / f'{handle}{ending}'
            )
        site.change(NFS, handle=handle)
        site.file(NFS).unlink()
        looking.join()
        assert found == [set()]
        asked = [each.path for each in server.requests()]
        assert asked.count('/nfs-v1.qcow2.xz') == 1


def test_a_repository_that_never_rests(site: Site) -> None:
    site.file(NFS).unlink()
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            new = site.root / 'new'
            new.write_text(json.dumps({**site.index, 'timestamp': number}))
            new.replace(site.path)

    writer = threading.Thread(target=publish)
    writer.start()
    try:
        with RudeServer(site.root) as server:
            # A look takes longer than a busy machine keeps the writer off.
            server.fail('/base-v1*', delay=0.5)
            assert site.codes(at=f'{server.url}/') == {
                ('file-missing', NFS), ('index-changing', None)
            }
    finally:
        stop.set()
        writer.join()


def test_progress_of_a_long_look(site: Site) -> None:
    with RudeServer(site.root) as server:
        server.fail(
            '/base-v1.qcow2.xz', Fault(rate=2 * MIB), skip=2
        )
        done = site.lint(
            '--out-format', 'default', '--deep', at=f'{server.url}/',
            LAGO__TEMPLATE_REPO__PROGRESS='line',
        )
    assert re.match(r'checking: reading \d.*, \d.* are read\n', done.stderr)
    assert done.stdout == '4 images: nothing is wrong\n'


def test_a_keyring(site: Site, tmp_path: Path) -> None:
    require('gpg', 'gpgv')
    home = tmp_path / 'gnupg'
    home.mkdir(mode=0o700)

    def gpg(*arguments: str) -> None:
        run('gpg', '--homedir', home, '--batch', '--pinentry-mode',
            'loopback', '--passphrase', '', *arguments)

    keyring = tmp_path / 'keys'
    gpg('--quick-generate-key', 'admin@example.com', 'ed25519', 'sign')
    gpg('--output', str(keyring), '--export')
    key = {'LAGO__TEMPLATE_REPO__KEYRING': str(keyring)}
    assert site.codes(**key) == {('signature-missing', None)}
    site.index['timestamp'] = 1500000000
    site.write()
    gpg('--armor', '--detach-sign', str(site.path))
    assert site.codes(**key) == set()
    assert site.codes() == {('signature-unchecked', None)}
    site.change(NFS, timestamp=1500000001.5)
    assert site.codes(**key) == {('signature-bad', None)}
    for seconds, expected in (
        (-60, {('signature-bad', None)}), (3600, set()),
    ):
        site.index['expires'] = time.time() + seconds
        site.write()
        gpg('--yes', '--armor', '--detach-sign', str(site.path))
        assert site.codes(**key) == expected
    run('gpgconf', '--homedir', home, '--kill', 'all')
