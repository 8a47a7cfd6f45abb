"""``lago export`` of disks on chains: the real command, end to end.

Its results are judged by what a guest sees of them, with what they stand on
put beside them as Lago does it for an environment made from an export.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import yaml

from tests.lab import (
    DiskImage, Finished, ImageSpec, LagoSandbox, Publisher, backing_chain,
    flatten, guest_digest, init_well, make_forest, require,
)
from tests.lab import run as run_tool
from tests.lab.guestfs import guestfs_environment
from tests.lab.images import MIB, write_at
from tests.lab.small_disk import SmallDisk
from tests.lab.world import message_of

KIB = 1024
SPARSIFY = 'virt-sparsify'
CHAINS = {'vm0': 'base', 'vm1': 'nfs', 'vm2': 'iscsi'}


class Box(LagoSandbox):
    """An environment whose disks have been written to by their guests."""

    def write_disk(self, vm: str) -> Path:
        """Write something of its own into a VM's disk; return its path."""
        disk = self.disk(vm)
        write_at(disk, {
            64 * KIB: vm.encode() * 1000, 5 * MIB: os.urandom(200 * KIB),
        })
        return disk

    def export(self, target: Path, *options: str) -> Finished:
        """Run ``lago export`` and insist on success."""
        done = self.run('export', '--dst-dir', str(target), *options)
        assert done.code == 0, done.output
        assert 'Traceback' not in done.output
        assert not list(target.glob('.*')), 'something is left'
        return done

    def fail_to_export(self, target: Path, *options: str) -> str:
        """Run ``lago export``, see it fail as it should; its message."""
        there = state_of(target)
        was_there = target.exists()
        done = self.run('export', '--dst-dir', str(target), *options)
        assert done.code == 2, done.output
        message = message_of(done)
        print(message)
        assert state_of(target) == there
        assert target.exists() == was_there
        return ' '.join(message.split())


def state_of(directory: Path) -> Dict[str, str]:
    """Return the files of a directory and what is in them."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.glob('*') if path.is_file()
        # Locks come and go.
        and path.suffix != '.lock'
    }


def make_box(
    root: Path, repo: Publisher, vms: Dict[str, Any], path: str
) -> Box:
    """Return an environment that was made and used."""
    box = Box(root, vms, repo=repo.index_path, env={'PATH': path})
    init_well(box)
    for vm in vms:
        box.write_disk(vm)
    return box


def publish(root: Path, forest: Dict[str, DiskImage]) -> Publisher:
    """Publish in a directory, with metadata as lago-images writes it."""
    repo = Publisher(root, source='file', compression=None)
    for disk in forest.values():
        repo.add(disk.path, disk.name, base=disk.base, metadata={
            'distro': 'tiny', 'checksum': '0' * 128, 'base': 'a lie',
        })
    repo.write()
    return repo


@pytest.fixture
def box(
    tmp_path: Path, forest: Dict[str, DiskImage], plain_path: str
) -> Box:
    """Return an environment with one VM on a chain of two images."""
    repo = publish(tmp_path / 'www', forest)
    return make_box(tmp_path / 'box', repo, {'vm0': 'nfs'}, plain_path)


def put_beside(exported: Path, store: Path, **links: str) -> None:
    """Put what an exported layer stands on beside it, by its names."""
    for path in store.glob('*:*:*'):
        if path.suffix not in ('.lock', '.hash', '.metadata'):
            (exported.parent / path.name).symlink_to(path)
    for short, name in links.items():
        (exported.parent / short).symlink_to(store / name)


def base_of(exported: Path) -> Tuple[Any, Any]:
    """Return name and format of the base that a header records."""
    info = json.loads(run_tool(
        'qemu-img', 'info', '-f', 'qcow2', '--output=json', exported
    ))
    return info.get('backing-filename'), info.get('backing-filename-format')


def metadata_of(exported: Path) -> Dict[str, Any]:
    """Return an export's metadata, checked against its file and hash."""
    said: Dict[str, Any] = json.loads(
        Path(f'{exported}.metadata').read_text()
    )
    sha1 = hashlib.sha1(exported.read_bytes()).hexdigest()
    assert Path(f'{exported}.hash').read_text() == sha1 == said['sha1']
    assert said['size'] == exported.stat().st_size
    assert said['name'] == exported.name
    assert said['distro'] == 'tiny'
    assert 'checksum' not in said
    return said


# One environment with chains of one, two and three images

@pytest.fixture(scope='module')
def chains(
    forest: Dict[str, DiskImage],
    plain_path: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tuple[Box, Publisher]:
    """Return the environment and what it was made from; do not write it."""
    root = tmp_path_factory.mktemp('chains')
    repo = publish(root / 'www', forest)
    return make_box(root / 'box', repo, CHAINS, plain_path), repo


@pytest.mark.quick
def test_a_layer_stands_on_the_published_template(
    chains: Tuple[Box, Publisher], tmp_path: Path
) -> None:
    box, repo = chains
    store, disks = state_of(box.store), state_of(box.disk('vm0').parent)
    done = box.export(tmp_path / 'out')
    assert state_of(box.store) == store
    assert state_of(box.disk('vm0').parent) == disks
    said = ' '.join(done.output.split())
    assert said.count('virt-sparsify is not installed') == 1
    assert 'libguestfs-tools' in said
    put_beside(tmp_path / 'out/any', box.store, **{
        f'{name}:v1': f'lab:{name}:v1' for name in CHAINS.values()
    })
    for vm, template in CHAINS.items():
        exported = tmp_path / 'out' / box.disk(vm).name
        assert base_of(exported) == (f'./{template}:v1', 'qcow2')
        told = metadata_of(exported)
        digest = repo.images[f'{template}:v1'].checksums['sha512']
        assert told['base'] == f'lab/{template}:v1'
        assert told['base_digest'] == f'sha512:{digest}'
        assert guest_digest(exported) == guest_digest(box.disk(vm))
        # Nothing of the base is in it.
        assert exported.stat().st_size < MIB


def test_a_standalone_disk_has_it_all(
    chains: Tuple[Box, Publisher], tmp_path: Path
) -> None:
    box, _ = chains
    box.export(tmp_path / 'out', '--standalone')
    for vm in CHAINS:
        exported = tmp_path / 'out' / box.disk(vm).name
        assert base_of(exported) == (None, None)
        said = metadata_of(exported)
        assert said['base'] is None
        assert 'base_digest' not in said
        assert guest_digest(exported) == guest_digest(box.disk(vm))


@pytest.mark.parametrize('form', ['yaml', 'json'])
def test_init_file_names_the_exported_disks(
    form: str, chains: Tuple[Box, Publisher], tmp_path: Path
) -> None:
    box, _ = chains
    done = box.run(
        '--out-format', form, 'export', '--dst-dir', str(tmp_path / 'out'),
        '--vm-names', 'vm1', '--init-file-name', 'Exported',
    )
    assert done.code == 0, done.output
    text = (tmp_path / 'out/Exported').read_text()
    init = json.loads(text) if form == 'json' else yaml.safe_load(text)
    assert list(init['domains']) == ['vm1']
    disk, = init['domains']['vm1']['disks']
    assert disk['type'] == 'template'
    assert disk['template_type'] == 'qcow2'
    assert 'template-image' not in disk
    assert disk['path'] == f'$LAGO_INITFILE_PATH/{box.disk("vm1").name}'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'Exported', 'vm1_root.qcow2', 'vm1_root.qcow2.hash',
        'vm1_root.qcow2.metadata',
    ]


def test_collecting_writes_nothing(
    chains: Tuple[Box, Publisher], tmp_path: Path
) -> None:
    box, _ = chains
    done = box.run('export', '--collect-only', '-d', str(tmp_path / 'out'))
    assert done.code == 0, done.output
    assert 'vm2_root.qcow2' in done.stdout
    assert 'not installed' not in done.output
    assert not list((tmp_path / 'out').glob('*'))


# Special bases, special disks

def test_a_republished_base_has_its_published_name(
    forest: Dict[str, DiskImage], plain_path: str, tmp_path: Path
) -> None:
    repo = publish(tmp_path / 'www', forest)
    old = make_box(tmp_path / 'old', repo, {'vm0': 'nfs'}, plain_path)
    second = make_forest(
        tmp_path / 'second', {'nfs': ImageSpec(2)}, seed='second'
    )
    image = repo.add(second['nfs'].path, 'nfs')
    repo.write()
    new = Box(
        tmp_path / 'new', {'vm0': 'nfs'}, repo=repo.index_path,
        store=old.store, env={'PATH': plain_path},
    )
    init_well(new)
    new.write_disk('vm0')
    digest = image.checksums['sha512']
    name = f'lab:nfs:v1+{digest[:8]}'
    assert name in new.stored()
    new.export(tmp_path / 'out')
    exported = tmp_path / 'out/vm0_root.qcow2'
    assert base_of(exported) == ('./nfs:v1', 'qcow2')
    assert metadata_of(exported)['base'] == 'lab/nfs:v1'
    assert metadata_of(exported)['base_digest'] == f'sha512:{digest}'
    put_beside(exported, old.store, **{'nfs:v1': name})
    assert guest_digest(exported) == guest_digest(new.disk('vm0'))


def test_a_raw_image_of_a_plain_lago(
    forest: Dict[str, DiskImage], plain_path: str, tmp_path: Path
) -> None:
    """It has no record of ours, and only Lago's sha1."""
    repo = publish(tmp_path / 'www', forest)
    sha1 = repo.images['nfs:v1'].checksums['sha1']
    stored = tmp_path / 'box/store/lab:nfs:v1'
    stored.parent.mkdir(parents=True)
    flatten(forest['nfs'].path, stored, form='raw')
    Path(f'{stored}.metadata').write_text('{"distro": "tiny"}')
    Path(f'{stored}.hash').write_text(sha1)
    box = make_box(tmp_path / 'box', repo, {'vm0': 'nfs'}, plain_path)
    box.export(tmp_path / 'out')
    exported = tmp_path / 'out/vm0_root.qcow2'
    assert base_of(exported) == ('./nfs:v1', 'raw')
    assert metadata_of(exported)['base'] == 'lab/nfs:v1'
    assert metadata_of(exported)['base_digest'] == f'sha1:{sha1}'
    put_beside(exported, box.store, **{'nfs:v1': 'lab:nfs:v1'})
    assert guest_digest(exported) == guest_digest(box.disk('vm0'))


def change_disk(box: Box, **keys: Any) -> None:
    """Change what Lago keeps of a disk."""
    path = box.workdir / 'default/virt/vm-vm0'
    vm = json.loads(path.read_text())
    vm['disks'][0].update(keys)
    path.write_text(json.dumps(vm))


def test_what_init_wrote_down_counts(box: Box, tmp_path: Path) -> None:
    """The store may keep the bytes under the name of another image."""
    # What Lago keeps of the disk, and shows, is what it would be without us.
    kept = json.loads((box.workdir / 'default/virt/vm-vm0').read_text())
    given = box.init_data['domains']['vm0']['disks'][0]
    assert set(kept['disks'][0]) == {*given, 'path', 'metadata'}
    path = box.workdir / 'default/metadata'
    said = json.loads(path.read_text())
    assert said['template-images'] == {'vm0_root.qcow2': 'lab/nfs:v1'}
    said['template-images']['vm0_root.qcow2'] = 'other/nfs-too:v3'
    path.write_text(json.dumps(said))
    box.export(tmp_path / 'out')
    exported = tmp_path / 'out/vm0_root.qcow2'
    assert base_of(exported) == ('./nfs-too:v3', 'qcow2')
    assert metadata_of(exported)['base'] == 'other/nfs-too:v3'
    # Of a disk on a local file it tells of another environment.
    change_disk(box, template_type='qcow2')
    box.export(tmp_path / 'again')
    exported = tmp_path / 'again/vm0_root.qcow2'
    assert base_of(exported) == ('./nfs:v1', 'qcow2')


def make_layer(
    disk: Path, backing: object, form: str = 'qcow2', *size: object
) -> None:
    """Make an empty layer, in the place of what was there."""
    disk.unlink(missing_ok=True)
    run_tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', form,
             '-b', str(backing), disk, *map(str, size), cwd=disk.parent)


@pytest.fixture
def again(box: Box, tmp_path: Path) -> Tuple[Box, Path]:
    """Return an environment that was made from an export, and the export.

    As Lago makes one: the VM's disk stands on the exported one.
    """
    box.export(tmp_path / 'first')
    local = tmp_path / 'first/vm0_root.qcow2'
    put_beside(local, box.store, **{'nfs:v1': 'lab:nfs:v1'})
    make_layer(box.disk('vm0'), local)
    box.write_disk('vm0')
    return box, local


def test_local_layers_become_part_of_the_export(
    again: Tuple[Box, Path], tmp_path: Path
) -> None:
    box, local = again
    before = state_of(local.parent)
    box.export(tmp_path / 'out')
    assert state_of(local.parent) == before
    exported = tmp_path / 'out/vm0_root.qcow2'
    check_on_nfs(exported, box)
    assert exported.stat().st_size < 2 * MIB


def check_on_nfs(exported: Path, box: Box) -> None:
    """Check an export that stands on nfs:v1 and holds all above it."""
    assert base_of(exported) == ('./nfs:v1', 'qcow2')
    said = metadata_of(exported)
    assert said['base'] == 'lab/nfs:v1'
    assert said['base_digest'].startswith('sha512:')
    put_beside(exported, box.store, **{'nfs:v1': 'lab:nfs:v1'})
    assert len(backing_chain(exported)) == 3
    assert guest_digest(exported) == guest_digest(box.disk('vm0'))


def test_layers_with_relative_names_and_other_sizes(
    again: Tuple[Box, Path], tmp_path: Path
) -> None:
    """As snapshots and users' own layers may have them."""
    box, local = again
    disk = box.disk('vm0')
    middle = disk.with_name('middle.qcow2')
    disk.rename(middle)
    make_layer(disk, './middle.qcow2', 'qcow2', '64M')
    box.write_disk('vm0')
    write_at(disk, {63 * MIB: b'end' * 1000})
    box.export(tmp_path / 'out')
    check_on_nfs(tmp_path / 'out/vm0_root.qcow2', box)
    box.export(tmp_path / 'alone', '--standalone')
    alone = tmp_path / 'alone/vm0_root.qcow2'
    assert base_of(alone) == (None, None)
    assert guest_digest(alone) == guest_digest(disk)


def test_a_smaller_layer_between_hides_the_end_of_the_base(
    box: Box, tmp_path: Path
) -> None:
    disk = box.disk('vm0')
    middle = disk.with_name('middle.qcow2')
    make_layer(middle, box.store / 'lab:nfs:v1', 'qcow2', '4M')
    make_layer(disk, middle, 'qcow2', '32M')
    box.write_disk('vm0')
    box.export(tmp_path / 'out')
    check_on_nfs(tmp_path / 'out/vm0_root.qcow2', box)


def test_what_stands_on_local_files_only_becomes_standalone(
    box: Box, tmp_path: Path
) -> None:
    local = flatten(box.disk('vm0'), tmp_path / 'local.qcow2')
    make_layer(box.disk('vm0'), local)
    box.write_disk('vm0')
    box.export(tmp_path / 'out')
    exported = tmp_path / 'out/vm0_root.qcow2'
    assert base_of(exported) == (None, None)
    assert metadata_of(exported)['base'] is None
    assert guest_digest(exported) == guest_digest(box.disk('vm0'))


def test_empty_disks_and_their_snapshots(
    forest: Dict[str, DiskImage], plain_path: str, tmp_path: Path
) -> None:
    """They are of use only as a whole: `lago init` copies them."""
    box = Box(tmp_path / 'box', {'vm0': [{
        'type': 'empty', 'name': name, 'dev': dev, 'format': form,
        'size': '16M',
    } for name, dev, form in (
        ('one', 'vda', 'qcow2'), ('two', 'vdb', 'raw'),
    )]}, repo=publish(tmp_path / 'www', forest).index_path,
        env={'PATH': plain_path})
    init_well(box)
    one = box.disk('vm0', 'one')
    below = one.with_name('below.qcow2')
    one.rename(below)
    write_at(below, {MIB: b'below' * 1000})
    make_layer(one, './below.qcow2')
    write_at(one, {2 * MIB: b'above' * 1000})
    box.export(tmp_path / 'out')
    exported = tmp_path / 'out' / one.name
    assert base_of(exported) == (None, None)
    assert guest_digest(exported) == guest_digest(one)
    assert 'base' not in json.loads(
        Path(f'{exported}.metadata').read_text()
    )
    raw = tmp_path / 'out/vm0_two.raw'
    assert raw.stat().st_size == 16 * MIB


def test_compressed(box: Box, tmp_path: Path) -> None:
    run_tool('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 22M',
             box.disk('vm0'))
    out = tmp_path / 'out'
    box.export(out)
    box.export(out, '--compress')
    packed, plain = out / 'vm0_root.qcow2.xz', out / 'vm0_root.qcow2'
    # Not even that of the export before, which the others do not describe.
    assert not plain.exists()
    sizes = [
        int(line.split()[7])
        for line in run_tool(
            'xz', '--robot', '--list', '-vv', packed
        ).splitlines() if line.startswith('block')
    ]
    assert len(sizes) == 2 and sizes[0] == 16 * MIB
    run_tool('xz', '--decompress', '--keep', packed)
    assert metadata_of(plain)['base'] == 'lab/nfs:v1'
    put_beside(plain, box.store, **{'nfs:v1': 'lab:nfs:v1'})
    assert guest_digest(plain) == guest_digest(box.disk('vm0'))
    box.export(out)
    assert not packed.exists()


# What fails

def test_missing_and_unreadable_backing_files(
    again: Tuple[Box, Path], tmp_path: Path
) -> None:
    box, local = again
    box.export(tmp_path / 'out')
    there = local.read_bytes()
    local.write_bytes(b'QFI\xfb' + b'\xff' * 4096)
    message = box.fail_to_export(tmp_path / 'out')
    assert str(box.disk('vm0')) in message
    assert f'{local} is no qcow2 image' in message
    local.unlink()
    message = box.fail_to_export(tmp_path / 'out')
    assert f'is missing: {local}' in message
    local.write_bytes(there)
    (box.store / 'lab:base:v1').rename(box.store / 'away')
    message = box.fail_to_export(tmp_path / 'out', '--standalone')
    assert f'is missing: {box.store / "lab:base:v1"}' in message


@pytest.mark.parametrize('backing, reason', [
    ('nbd://example.com/disk', 'not the path of a file'),
    ('./vm0_root.qcow2', 'stands on itself'),
])
def test_chains_that_lead_nowhere(
    backing: str, reason: str, box: Box, tmp_path: Path
) -> None:
    run_tool('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2',
             '-b', backing, box.disk('vm0'))
    assert reason in box.fail_to_export(tmp_path / 'out')


def test_not_onto_what_the_disk_stands_on(
    again: Tuple[Box, Path]
) -> None:
    box, local = again
    for directory in local.parent, box.disk('vm0').parent:
        message = box.fail_to_export(directory)
        assert 'the disk itself needs that file' in message
        assert '--dst-dir' in message


@pytest.mark.parametrize('kib, options', [
    (256, []), (2048, ['--standalone']), (512, ['--compress']),
])
def test_full_disk(
    kib: int, options: List[str], box: Box, tmp_path: Path
) -> None:
    """It is full while the disk is copied, merged or compressed."""
    write_at(box.disk('vm0'), {8 * MIB: os.urandom(64 * KIB)})
    store, disks = state_of(box.store), state_of(box.disk('vm0').parent)
    with SmallDisk(tmp_path / 'out', kib / KIB) as small:
        box.prefix_command = small.enter(box.root)
        message = box.fail_to_export(tmp_path / 'out', *options)
        assert f'no room left in {tmp_path / "out"}' in message
        assert '--dst-dir' in message
        assert not list(small.path.iterdir())
        small.mount('size=64m')
        done = box.run('export', '-d', str(tmp_path / 'out'), *options)
        assert done.code == 0, done.output
    assert state_of(box.store) == store
    assert state_of(box.disk('vm0').parent) == disks


def test_no_right_to_write(box: Box, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    message = box.fail_to_export(tmp_path / 'file/out')
    assert 'Cannot export' in message
    assert str(tmp_path / 'file/out') in message


def test_a_failing_virt_sparsify_says_so(
    box: Box, plain_path: str, tmp_path: Path
) -> None:
    require(SPARSIFY)
    box.extra_env = {
        'LIBGUESTFS_BACKEND': 'direct', 'LIBGUESTFS_CACHEDIR': str(tmp_path),
        'SUPERMIN_KERNEL': str(tmp_path / 'no-kernel'),
    }
    message = box.fail_to_export(tmp_path / 'out')
    assert 'virt-sparsify' in message
    assert 'libguestfs-test-tool' in message


# Free blocks of the guest's file system

DELETED = b'deleted by the guest'


@pytest.fixture
def with_files(
    tmp_path: Path, pytestconfig: pytest.Config
) -> Iterator[Box]:
    """Return an environment whose disk has an ext4, and garbage in it."""
    require('mke2fs', 'debugfs')
    files = tmp_path / 'files'
    files.mkdir()
    (files / 'kept').write_bytes(b'kept' * 50_000)
    raw = tmp_path / 'raw'
    run_tool('mke2fs', '-q', '-t', 'ext4', '-d', files, raw, '32M')
    base = DiskImage('base', tmp_path / 'base.qcow2', None, 32 * MIB, '')
    run_tool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw,
             base.path)
    layer = DiskImage('top', tmp_path / 'top.qcow2', 'base', 32 * MIB, '')
    make_layer(layer.path, './base.qcow2')
    repo = publish(tmp_path / 'www', {'base': base, 'top': layer})
    box = Box(
        tmp_path / 'box', {'vm0': 'top'}, repo=repo.index_path,
        env=guestfs_environment(pytestconfig.rootpath / '.cache' / 'tiny'),
    )
    init_well(box)
    write_at(box.disk('vm0'), {31 * MIB: DELETED * 20_000})
    yield box
    shutil.rmtree(box.workdir)


@pytest.mark.slow
@pytest.mark.vm
def test_what_a_guest_has_deleted_is_not_exported(
    with_files: Box, tmp_path: Path
) -> None:
    """On a disk which is to be merged, the longest way."""
    box = with_files
    disk = box.disk('vm0')
    middle = disk.with_name('middle.qcow2')
    disk.rename(middle)
    make_layer(disk, './middle.qcow2')
    before = state_of(disk.parent)
    done = box.export(tmp_path / 'out')
    assert 'not installed' not in done.output
    assert state_of(disk.parent) == before
    exported = tmp_path / 'out' / disk.name
    assert base_of(exported) == ('./top:v1', 'qcow2')
    assert DELETED in middle.read_bytes()
    assert DELETED not in exported.read_bytes()
    put_beside(exported, box.store, **{'top:v1': 'lab:top:v1'})
    seen = flatten(exported, tmp_path / 'seen', form='raw')
    assert DELETED not in seen.read_bytes()
    content = run_tool('debugfs', '-R', 'cat /kept', seen)
    assert content == 'kept' * 50_000
