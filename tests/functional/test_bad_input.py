"""Bad input: one message that helps, nothing half-made, no broken workdir.

Each case spoils a repository, its server or an environment that were in
order, runs the real ``lago init``, mends what it spoiled, and runs the same
``lago init`` in the same directory again.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple,
)

import pytest

from tests.lab import DiskImage, Finished, Publisher, require, run
from tests.lab.publish import compress
from tests.lab.world import World, message_of

MIB = 2 ** 20
INDEX_LIMIT = 64 * MIB

#: Of a process that meets a bomb of `BOMB_MIB`.
MEMORY_MIB = 200
BOMB_MIB = 320

Spoil = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """What is spoiled, what the message says, and which images stay.

    Words of ``says`` may hold ``{url}``: of the server. ``again``: mend it
    and run it again; left out where another case is mended the same way.
    """

    name: str
    spoil: Spoil
    says: Tuple[str, ...]
    stays: Tuple[str, ...] = ()
    again: bool = True


@pytest.fixture
def world(tmp_path: Path, published: Publisher) -> Iterator[World]:
    with World(tmp_path, published, {'vm0': 'iscsi'}) as made:
        yield made


def check(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    """Spoil, fail, mend, succeed."""
    case.spoil(world)
    message = world.fail()
    plain = ' '.join(message.split())
    for words in case.says:
        words = words.replace('{url}', world.server.url)
        assert words in plain, message
    assert world.complete(forest) == sorted(case.stays)
    if case.again:
        world.mend()
        world.succeed(forest)


def parametrize(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        'case', cases, ids=[case.name for case in cases]
    )


# What is wanted, and what the index says

def want(**keys: Any) -> Spoil:
    def spoil(world: World) -> None:
        disk = world.box.init_data['domains']['vm0']['disks'][0]
        disk.update(keys)
        world.box.write()

    return spoil


def edit(template: str, **changes: Any) -> Spoil:
    return lambda world: world.edit(template, **changes)


def serve_index(data: bytes) -> Spoil:
    return lambda world: world.write_raw_index(data)


def edit_index(**changes: Any) -> Spoil:
    def spoil(world: World) -> None:
        world.index.update(changes)
        world.write_index()

    return spoil


def edit_source(source: object) -> Spoil:
    return edit_index(sources={'lab': source})


NAMES = [
    Case('template', want(template_name='iscsx'), (
        "Template 'iscsx' is not in repository lab ({url}/repo.metadata)",
        'Nearest: iscsi.', 'lago template-repo list',
    )),
    Case('version', want(template_version='v2'), (
        "Version 'v2' of template 'iscsi' is not in repository lab",
        'Nearest: v1.', '{url}/repo.metadata',
    )),
    Case('base', edit('iscsi', base='nfx:v1'), (
        'iscsi:v1 stands on nfx:v1, which is not in repository lab',
        'Nearest: nfs.', '{url}/repo.metadata', 'tell the admin',
    )),
    Case('base-version', edit('iscsi', base='nfs:v9'), (
        'iscsi:v1 stands on nfs:v9, which is not in repository lab',
        '{url}/repo.metadata',
    ), again=False),
    Case('cycle', edit('base', base='iscsi:v1'), (
        'circle', 'iscsi:v1 -> nfs:v1 -> base:v1 -> iscsi:v1',
        'tell the admin',
    )),
    Case('base-on-itself', edit('iscsi', base='iscsi:v1'), (
        'iscsi:v1 -> iscsi:v1',
    ), again=False),
    Case('source', edit('iscsi', source='gone'), (
        '{url}/repo.metadata: iscsi:v1',
        "source 'gone' is not defined; defined are: lab", 'tell the admin',
    )),
    Case('source-type', edit_source({'type': 'gopher', 'args': {}}), (
        "Unknown source type 'gopher'", 'file, http',
    )),
    Case('source-args', edit_source({'type': 'http', 'args': {'a': 1}}), (
        'source of type http', 'a=1', 'tell the admin',
    ), again=False),
]


@parametrize(NAMES)
def test_names(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    check(case, world, forest)


ENTRIES = [
    Case('handle', edit('iscsi', handle='../iscsi'), (
        "handle '../iscsi' leaves its source",
    )),
    Case('timestamp', edit('iscsi', timestamp='today'), (
        "timestamp: 'today' is not a number of seconds",
    )),
    Case('size', edit('iscsi', size='big'), (
        "size: 'big' is not a number of bytes",
    )),
    Case('digest', edit('iscsi', sha512='12ab'), (
        "sha512 '12ab' is not 128 hexadecimal digits",
    )),
    Case('compression', edit('iscsi', compression='bz2'), (
        "compression: 'bz2' is none of null, xz, zst, gz",
    )),
    Case('several', edit(
        'iscsi', handle=..., base=7, metadata='x', format='vmdk',
    ), (
        '4 faults', 'handle is missing', 'base 7', "metadata: 'x'",
        "format: 'vmdk'",
    )),
]


@parametrize(ENTRIES)
def test_faulty_entry_disables_itself_and_never_its_neighbours(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    case.spoil(world)
    message = ' '.join(world.fail().split())
    assert f'{world.index_url}: iscsi:v1' in message
    for words in case.says:
        assert words in message
    want(template_name='nfs')(world)
    world.succeed(forest)
    assert world.complete(forest) == ['base', 'nfs']


# An index that cannot be read

def fault(pattern: str, **what: Any) -> Spoil:
    def spoil(world: World) -> None:
        world.server.fail(pattern, **what)

    return spoil


def index_fault(**what: Any) -> Spoil:
    return fault('/repo.metadata', **what)


def serve_large_index(world: World) -> None:
    os.truncate(world.www / 'repo.metadata', INDEX_LIMIT + 1)


def serve_large_index_in_chunks(world: World) -> None:
    serve_large_index(world)
    index_fault(chunked=True)(world)


def vanish(world: World) -> None:
    world.server.stop()


def name_index(location: str) -> Spoil:
    def spoil(world: World) -> None:
        world.box.repo = location.replace('ROOT', str(world.root))
        world.box.write()

    return spoil


HERE = '{url}/repo.metadata: '
INDEXES = [
    Case('not-json', serve_index(b'{"name": "lab", '), (
        HERE + 'is not JSON', 'line 1 column',
    )),
    Case('empty', serve_index(b''), (HERE + 'is not JSON', ), again=False),
    Case('binary', serve_index(bytes(range(256))), (
        HERE + 'is not JSON',
    ), again=False),
    Case('deep', serve_index(b'[' * 100000), (
        HERE + 'is nested too deeply',
    ), again=False),
    Case('html', index_fault(html=True), (
        HERE + 'expected JSON, found an HTML', 'Check the address',
    )),
    Case('404', index_fault(status=404), (HERE + 'HTTP 404 Not Found', )),
    Case('500', index_fault(status=500), (
        HERE + 'HTTP 500 Internal Server Error',
    )),
    Case('too-large', serve_large_index, (
        HERE + f'too large: more than {INDEX_LIMIT} bytes',
    ), again=False),
    Case('too-large-chunked', serve_large_index_in_chunks, (
        HERE + f'too large: more than {INDEX_LIMIT} bytes',
    )),
    Case('cut', index_fault(cut_after=100), (
        HERE + 'the connection ended', 'later',
    ), again=False),
    Case('silence', index_fault(stall_after=0), (
        HERE + 'no answer within 3 s',
    ), again=False),
    Case('refused', vanish, (HERE + 'connection refused', )),
    Case('list', serve_index(b'[]'), (HERE + 'is not a JSON object', )),
    Case('types', edit_index(name=7, sources=[], templates='x'), (
        HERE + '3 faults', "repository's name 7", '"sources"',
        '"templates" is not an object',
    ), again=False),
    Case('entry-type', edit_index(templates={'iscsi': {'versions': {
        'v1': 'iscsi.qcow2',
    }}}), ('{url}/repo.metadata: iscsi:v1', 'is not an object'), again=False),
    Case('no-file', name_index('ROOT/nowhere/repo.metadata'), (
        '/nowhere/repo.metadata: No such file or directory',
    )),
    Case('directory', name_index('ROOT/www'), (
        '/www: it is a directory, expected a regular file',
    ), again=False),
    Case('scheme', name_index('ftp://127.0.0.1/repo.metadata'), (
        'ftp://127.0.0.1/repo.metadata: ftp URLs are not supported',
    ), again=False),
]


@parametrize(INDEXES)
def test_index(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    check(case, world, forest)


# An image file that is not the announced one

BELOW = ('base', 'nfs')
FILE = '{url}/iscsi-v1.qcow2.xz'
REFUSAL = f'lab:iscsi:v1 from {FILE}: refused'


def change_by(key: str, difference: int) -> Spoil:
    def spoil(world: World) -> None:
        world.edit('iscsi', **{key: world.entry('iscsi')[key] + difference})

    return spoil


def publish_plain(difference: int) -> Spoil:
    def spoil(world: World) -> None:
        world.publish(
            'iscsi', world.take_image('iscsi'), None, compressed_size=...
        )
        change_by('size', difference)(world)

    return spoil


def cut_file(world: World) -> None:
    os.truncate(world.file('iscsi'), 300_000)


def cut_file_of_unknown_size(world: World) -> None:
    cut_file(world)
    world.edit('iscsi', compressed_size=...)


def remove_file(world: World) -> None:
    world.file('iscsi').unlink()


def damage(compression: str) -> Spoil:
    def spoil(world: World) -> None:
        file = world.publish(
            'iscsi', world.take_image('iscsi'), compression
        )
        middle = file.stat().st_size // 2
        fault(f'/{file.name}', flip_at=middle)(world)

    return spoil


def not_compressed(world: World) -> None:
    file = world.file('iscsi')
    file.write_bytes(bytes(range(256)) * 1000)
    world.edit('iscsi', compressed_size=file.stat().st_size)


def page_of_unknown_size(world: World) -> None:
    world.file('iscsi').write_bytes(b'<!DOCTYPE html>' + bytes(9))
    world.edit('iscsi', compressed_size=...)


def long_window(world: World) -> None:
    file = world.www / 'iscsi-v1.qcow2.zst'
    file.write_bytes(b'\x28\xb5\x2f\xfd\0\x90\x29\0\0layer')
    world.edit(
        'iscsi', compression='zst', compressed_size=file.stat().st_size
    )


FILES = [
    Case('digest', edit('iscsi', sha256='0' * 64), (
        'lab:iscsi:v1: sha256', FILE, 'expected 0000', 'found ',
        'tell the admin',
    ), BELOW),
    Case('sha512', edit('iscsi', sha256=..., sha512='0' * 128), (
        'lab:iscsi:v1: sha512', FILE, 'expected 0000', 'found ',
        'tell the admin',
    ), BELOW),
    Case('sha1', edit(
        'iscsi', sha512=..., sha256=..., sha1='1' * 40,
    ), ('lab:iscsi:v1: sha1', 'expected ' + '1' * 40), BELOW, again=False),
    Case('index-says-more', change_by('size', 512), (
        'lab:iscsi:v1: size of the uncompressed image', 'expected ',
        'found ', 'tell the admin',
    ), BELOW),
    Case('index-says-less', change_by('size', -512), (
        'lab:iscsi:v1: size of the uncompressed image', 'expected ',
        'found more than that',
    ), BELOW, again=False),
    Case('compressed-size-more', change_by('compressed_size', 1), (
        'lab:iscsi:v1: size of ' + FILE, 'expected ', 'found ',
    ), BELOW),
    Case('compressed-size-less', change_by('compressed_size', -1), (
        'lab:iscsi:v1: size of ' + FILE, 'expected ', 'found ',
    ), BELOW, again=False),
    Case('plain-more', publish_plain(512), (
        'lab:iscsi:v1: size of {url}/iscsi-v1.qcow2', 'expected ', 'found ',
    ), BELOW),
    Case('plain-less', publish_plain(-512), (
        'lab:iscsi:v1: size of {url}/iscsi-v1.qcow2', 'expected ', 'found ',
    ), BELOW, again=False),
    Case('cut-file', cut_file, (
        'lab:iscsi:v1: size of ' + FILE, 'found 300000 bytes',
    ), BELOW),
    Case('cut-file-of-unknown-size', cut_file_of_unknown_size, (
        'lab:iscsi:v1', FILE, 'ends too early',
    ), BELOW),
    Case('always-cut', fault('/iscsi*', cut_after=300_000), (
        FILE + ': the connection ended after 300000 of ',
    ), BELOW),
    Case('always-reset', fault('/iscsi*', cut_after=0, reset=True), (
        FILE + ': connection reset after 0 of ',
    ), BELOW, again=False),
    Case('silence', fault('/iscsi*', stall_after=300_000), (
        FILE + ': no answer within 3 s after ',
    ), BELOW, again=False),
    Case('missing', remove_file, (FILE + ': HTTP 404 Not Found', ), BELOW),
    Case('forbidden', fault('/iscsi*', status=403), (
        FILE + ': HTTP 403 Forbidden',
    ), BELOW, again=False),
    Case('login-page', fault('/iscsi*', html=True), (
        'lab:iscsi:v1: size of ' + FILE, 'found ', 'bytes, an HTML page',
    ), BELOW, again=False),
    Case('page-of-unknown-size', page_of_unknown_size, (
        'lab:iscsi:v1', FILE, 'found this is an HTML page',
    ), BELOW, again=False),
    Case('long-window', long_window, (
        'lab:iscsi:v1', 'found a window of 256 MiB, at most 128 MiB',
    ), BELOW, again=False),
    Case('not-compressed', not_compressed, (
        'lab:iscsi:v1', FILE, 'expected a whole xz file',
    ), BELOW, again=False),
    Case('damaged-xz', damage('xz'), (
        'lab:iscsi:v1', FILE, 'expected a whole xz file', 'tell the admin',
    ), BELOW),
    Case('damaged-zst', damage('zst'), (
        'lab:iscsi:v1', 'iscsi-v1.qcow2.zst', 'expected a whole zst file',
    ), BELOW),
    Case('damaged-gz', damage('gz'), (
        'lab:iscsi:v1', 'iscsi-v1.qcow2.gz', 'expected a whole gz file',
    ), BELOW),
]


@parametrize(FILES)
def test_image_file(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    require('xz', 'zstd', 'gzip')
    check(case, world, forest)


# An image that must not be opened

def change_image(
    template: str, change: Callable[[Path], None], **keys: Any
) -> Spoil:
    def spoil(world: World) -> None:
        image = world.take_image(template)
        change(image)
        world.publish(template, image, **keys)

    return spoil


def backing(name: str, form: str = 'qcow2') -> Callable[[Path], None]:
    def change(image: Path) -> None:
        run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', name,
            '-F', form, image)

    return change


def poke(offset: int, form: str, value: int) -> Callable[[Path], None]:
    """Overwrite a field of the header; see docs/interop/qcow2.txt of QEMU."""
    def change(image: Path) -> None:
        with open(image, 'r+b') as stream:
            stream.seek(offset)
            stream.write(struct.pack(f'>{form}', value))

    return change


def no_backing(image: Path) -> None:
    run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '', image)


def external_data(image: Path) -> None:
    image.unlink()
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
        f'data_file={image}.data', image, '24M')
    backing('./nfs:v1')(image)


def to_raw(image: Path) -> None:
    image.write_bytes(b'\xebc\x90' + bytes(507) + b'U\xaa' + bytes(65536))


def to_vmdk(image: Path) -> None:
    image.unlink()
    run('qemu-img', 'create', '-q', '-f', 'vmdk', image, '16M')


def damage_tables(image: Path) -> None:
    """Let the first L2 table be outside of the file."""
    with open(image, 'rb') as stream:
        offset = struct.unpack_from('>Q', stream.read(48), 40)[0]
    poke(offset, 'Q', 1 << 63 | 1 << 50)(image)


def foreign(name: str, kind: str, form: str = 'raw') -> Case:
    return Case(f'backing-{kind}', change_image(
        'iscsi', backing(name, form)
    ), (
        REFUSAL, f'backing file {name!r}', kind,
        'expected its base', "'nfs:v1'",
    ), BELOW, again=kind == 'a path of the host')


REFUSED = [
    foreign('/etc/passwd', 'a path of the host'),
    foreign('json:{"driver": "null-co"}', 'a protocol of qemu'),
    foreign('nbd://127.0.0.1:10809/x', 'a protocol'),
    foreign('../nfs:v1', 'outside the store'),
    foreign('./sub/other:v1', 'in another directory'),
    foreign('./lab:base:v1', 'another file', 'qcow2'),
    Case('no-backing', change_image('iscsi', no_backing), (
        REFUSAL, 'no backing file, expected its base',
        "'nfs:v1'", 'tell the admin',
    ), BELOW),
    Case('bottom-with-backing', change_image(
        'base', backing('./other:v1')
    ), (
        'lab:base:v1 from {url}/base-v1.qcow2.xz: refused',
        "backing file './other:v1'",
        'expected none: it is a bottom image',
    )),
    Case('external-data', change_image('iscsi', external_data), (
        REFUSAL, 'external data file',
    ), BELOW),
    Case('corrupt', change_image('iscsi', poke(72, 'Q', 2)), (
        REFUSAL, 'it is marked as corrupt',
    ), BELOW),
    Case('unknown-feature', change_image('iscsi', poke(72, 'Q', 1 << 40)), (
        REFUSAL, 'unknown incompatible features 0x1',
    ), BELOW, again=False),
    Case('encrypted', change_image('iscsi', poke(32, 'I', 1)), (
        REFUSAL, 'it is encrypted',
    ), BELOW),
    Case('version-4', change_image('iscsi', poke(4, 'I', 4)), (
        REFUSAL, 'qcow2 version 4, expected 2 or 3',
    ), BELOW, again=False),
    Case('table-outside', change_image('iscsi', poke(40, 'Q', 1 << 40)), (
        REFUSAL, 'L1 table ends at', 'outside the file',
    ), BELOW, again=False),
    Case('raw-as-qcow2', change_image('base', to_raw), (
        'lab:base:v1 from {url}/base-v1.qcow2.xz: refused',
        'it is no qcow2 image',
    )),
    Case('qcow2-as-raw', edit('base', format='raw'), (
        'lab:base:v1 from {url}/base-v1.qcow2.xz: refused',
        'it is a qcow2 image, expected raw',
    ), again=False),
    Case('vmdk', change_image('base', to_vmdk, format=..., virtual_size=...), (
        'lab:base:v1 from {url}/base-v1.qcow2.xz: refused',
        'it is a vmdk image, expected qcow2 or raw',
    ), again=False),
    Case('backing-of-another-format', change_image(
        'iscsi', backing('./nfs:v1', 'raw'), format=...
    ), (REFUSAL, "backing format 'raw', but its base is qcow2"), BELOW,
         again=False),
    Case('damaged-tables', change_image('iscsi', damage_tables), (
        REFUSAL, 'qemu-img check: ERROR',
    ), BELOW),
    Case('raw-as-layer', change_image('iscsi', to_raw, format=...), (
        REFUSAL, 'a raw image', 'nfs:v1',
    ), BELOW),
    Case('virtual-size', edit('iscsi', virtual_size=MIB), (
        REFUSAL, 'virtual size', f'the index says {MIB}',
    ), BELOW, again=False),
]


@parametrize(REFUSED)
def test_refused_image(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    check(case, world, forest)


def test_index_without_bases_gives_no_way_around_the_refusal(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    """The base is then looked up in the header: a host path is refused."""
    change_image('iscsi', backing('/etc/passwd', 'raw'), base=...)(world)
    for sidecar in world.www.glob('*.metadata'):
        if sidecar.name != 'repo.metadata':
            sidecar.write_text('{}')
    message = ' '.join(world.fail().split())
    assert f'{world.server.url}/iscsi-v1.qcow2.xz' in message
    assert "backing file '/etc/passwd'" in message
    assert world.complete(forest) == []


def test_smaller_layer_is_warned_of(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with World(tmp_path, published, {'vm0': 'nfs'}) as world:
        image = world.take_image('nfs')
        # No guest needs the last cluster of this disk.
        small = forest['nfs'].virtual_size - 65536
        poke(24, 'Q', small)(image)
        world.publish('nfs', image, virtual_size=small)
        done = world.box.init()
    assert done.code == 0, done.output
    said = ' '.join(done.output.split())
    assert f'lab:nfs:v1: warning: virtual size {small} bytes' in said
    assert str(forest['base'].virtual_size) in said


# More bytes than announced

def make_bomb(world: World, compression: Optional[str]) -> None:
    """Publish zeros; the index announces three MiB, uncompressed."""
    file = world.root / 'zeros'
    file.touch()
    os.truncate(file, BOMB_MIB * MIB)
    target = world.www / 'iscsi-v1.qcow2'
    if compression is None:
        file.replace(target)
        # So that no announced length stops it.
        fault(f'/{target.name}', chunked=True)(world)
    else:
        target = target.with_name(f'{target.name}.{compression}')
        compress(file, target, compression, 1)
    world.edit(
        'iscsi', compression=compression, size=3 * MIB, compressed_size=(
            ... if compression is None else target.stat().st_size
        ),
    )


@pytest.mark.parametrize('compression', ['gz', 'zst', 'xz', None])
def test_bomb(
    compression: Optional[str], world: World, forest: Dict[str, DiskImage]
) -> None:
    require('xz', 'zstd', 'gzip')
    make_bomb(world, compression)
    before = disk_use(world.box.store)
    done, memory = run_measured(world)
    assert done.code == 2, done.output
    message = ' '.join(message_of(done).split())
    assert 'lab:iscsi:v1: size of' in message
    assert f'expected {3 * MIB} bytes' in message
    assert 'found more than that' in message
    assert memory < MEMORY_MIB
    assert disk_use(world.box.store) - before < 24 * MIB
    assert world.complete(forest) == ['base', 'nfs']
    world.mend()
    world.succeed(forest)


def disk_use(directory: Path) -> int:
    """Return the bytes that all files below a directory take of the disk."""
    return sum(
        path.lstat().st_blocks * 512 for path in directory.rglob('*')
    )


def run_measured(world: World) -> Tuple[Finished, float]:
    """Run ``lago init``; return what it left, and its peak MiB of memory."""
    log = world.root / 'log'
    with open(log, 'w') as stream:
        process = world.box.popen(
            'init', '--skip-bootstrap', stdout=stream, stderr=stream,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.WEXITSTATUS(status)
    return (
        Finished(process.returncode, '', log.read_text()),
        usage.ru_maxrss / 1024,
    )


# Several at once

def test_all_failed_layers_are_named(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    vms = {'vm0': 'iscsi', 'vm1': 'other'}
    with World(tmp_path, published, vms) as world:
        world.file('other').unlink()
        world.edit('iscsi', sha256='0' * 64)
        message = world.fail()
        assert message.startswith('2 images failed:\n- '), message
        plain = ' '.join(message.split())
        assert 'lab:iscsi:v1: sha256' in plain
        assert f'{world.server.url}/other-v1.qcow2.xz: HTTP 404' in plain
        assert world.complete(forest) == ['base', 'nfs']
        world.mend()
        world.server.forget()
        world.succeed(forest)
        fetched = {r.path for r in world.server.requests() if r.is_image}
    assert fetched == {'/iscsi-v1.qcow2.xz', '/other-v1.qcow2.xz'}


# The environment

def write_init_file(text: str) -> Spoil:
    return lambda world: void(world.box.init_file.write_text(text))


def void(_: object) -> None:
    """Make an expression of a call whose result does not matter."""


def edit_init_file(**changes: Any) -> Spoil:
    return lambda world: write_init_file(
        json.dumps({**world.box.init_data, **changes})
    )(world)


def setting(name: str, value: object) -> Spoil:
    def spoil(world: World) -> None:
        world.box.config['template_repo'][name] = value
        world.box.write()

    return spoil


def without_qemu_img(world: World) -> None:
    """Leave only what Lago needs to make a prefix."""
    require('ssh-keygen')
    tools = world.root / 'bin'
    tools.mkdir(exist_ok=True)
    for name in ('sh', 'ssh-keygen'):
        target = run('sh', '-c', 'command -v "$0"', name).strip()
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(target)
    world.box.extra_env['PATH'] = str(tools)


def without_ssh_keygen(world: World) -> None:
    """Leave only a shell."""
    without_qemu_img(world)
    (world.root / 'bin/ssh-keygen').unlink()


def without_libvirt(world: World) -> None:
    """Let no daemon listen where libvirt is sought."""
    world.box.extra_env['LAGO_LIBVIRT_URL'] = (
        f'qemu+unix:///system?socket={world.root}/nobody'
    )


def disk(**keys: Any) -> Dict[str, Any]:
    return {'vm0': {'disks': [{'type': 'template', 'name': 'root', **keys}]}}


ENVIRONMENTS = [
    Case('not-yaml', write_init_file('domains: [\n'), (
        'LagoInitFile: is neither JSON nor YAML', 'line ',
    )),
    Case('aliases', write_init_file(
        'a: &a [x]\n' + ''.join(
            f'{name}: &{name} [{", ".join([f"*{below}"] * 9)}]\n'
            for below, name in zip('abcdefghi', 'bcdefghij')
        )
    ), ('LagoInitFile', 'aliases stand for'), again=False),
    Case('nested', write_init_file('[' * 9999), (
        'LagoInitFile: is nested too deeply',
    ), again=False),
    Case('long-number', write_init_file(f'a: {"9" * 5000}'), (
        'LagoInitFile: line 1: a number of 5000 characters',
    ), again=False),
    Case('disk-type', edit_init_file(domains=disk(type='templat')), (
        "type is 'templat'", 'did you mean template?',
    ), again=False),
    Case('text', write_init_file('hello\n'), ('"domains"', ), again=False),
    Case('empty', write_init_file(''), ('"domains"', ), again=False),
    Case('no-domains', write_init_file('nets: {}\n'), (
        'LagoInitFile', 'has no "domains"',
    )),
    Case('domains-list', edit_init_file(domains=['vm0']), (
        'LagoInitFile', '"domains"',
    ), again=False),
    Case('no-template-name', edit_init_file(domains=disk()), (
        'LagoInitFile', 'domain vm0, disk root', 'template_name is missing',
    )),
    Case('template-number', edit_init_file(domains=disk(template_name=[7])), (
        'LagoInitFile', 'domain vm0, disk root', 'template_name',
    ), again=False),
    Case('jobs', setting('jobs', 0), (
        "jobs = '0': expected a number, 1 or more", '[template_repo]',
        'LAGO__TEMPLATE_REPO__JOBS',
    )),
    Case('reserve', setting('reserve', 'abc'), (
        "reserve = 'abc': expected bytes", '[template_repo]',
    )),
    Case('retries', setting('retries', -1), (
        "retries = '-1'", '0 or more',
    ), again=False),
    Case('timeout', setting('timeout', 'soon'), (
        "timeout = 'soon'",
    ), again=False),
    Case('progress', setting('progress', 'loud'), (
        "progress = 'loud'", 'auto, bar, line or none',
    ), again=False),
    Case('no-qemu-img', without_qemu_img, (
        'Cannot run qemu-img: not found', 'Install qemu-img',
    )),
    Case('no-ssh-keygen', without_ssh_keygen, (
        'Cannot run ssh-keygen: not found', 'Install it',
    )),
    Case('no-libvirt', without_libvirt, (
        'No connection to libvirt at qemu+unix:///system?socket=',
        'nobody', 'Start its daemon',
    )),
]


@parametrize(ENVIRONMENTS)
def test_environment(
    case: Case, world: World, forest: Dict[str, DiskImage]
) -> None:
    check(case, world, forest)
    images: List[str] = [
        request.path for request in world.server.requests()
        if request.is_image
    ]
    # Nothing was fetched by the run that failed.
    assert len(images) == len(set(images)) == (3 if case.again else 0)


@pytest.mark.quick
def test_all_that_is_missing_is_told_at_once(world: World) -> None:
    without_libvirt(world)
    without_qemu_img(world)
    vm = world.box.init_data['domains']['vm0']
    vm['disks'][0]['build'] = [{'virt-customize': [{'touch': '/x'}]}]
    del vm['bootstrap']
    world.box.write()
    done = world.box.run('init')
    assert done.code == 2, done.output
    for missing in (
        'libvirt at', 'qemu-img: not', 'virt-customize: not',
        'virt-sysprep: not',
    ):
        assert missing in message_of(done)
    done = world.box.run('init', '--skip-bootstrap', '--skip-build')
    assert done.code == 2, done.output
    assert 'virt-sysprep' not in done.output
    assert 'virt-customize' not in done.output
    assert not any(one.is_image for one in world.server.requests())
    assert not (world.box.workdir / 'default').exists()
