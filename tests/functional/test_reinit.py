"""Environments made from what ``lago export`` wrote, here and elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Dict

import pytest
import yaml

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, flatten, guest_digest,
    init_well, links_of, run,
)
from tests.lab.images import MIB, write_at
from tests.lab.world import message_of

Forest = Dict[str, DiskImage]
VMS = {'vm0': 'base', 'vm1': 'nfs', 'vm2': 'iscsi'}


class Box(LagoSandbox):
    """An environment that is exported, and made again elsewhere."""

    def use(self) -> None:
        """Let the guests write something."""
        for vm in self.init_data['domains']:
            write_at(self.disk(vm), {
                64 * 1024: vm.encode() * 999, 5 * MIB: os.urandom(99_999),
            })

    def guests(self) -> Dict[str, str]:
        """Return the digest of what each guest sees."""
        return {
            vm: guest_digest(self.disk(vm))
            for vm in self.init_data['domains']
        }

    def export(self, target: Path, *options: str) -> Path:
        """Run ``lago export``; return the directory."""
        done = self.run('export', '--dst-dir', str(target), *options)
        assert done.code == 0, done.output
        return target

    def take(self, exported: Path) -> None:
        """Make the exported init file that of this environment."""
        self.init_data = yaml.safe_load(
            (exported / 'LagoInitFile').read_text()
        )

    def init_exported(self, exported: Path, *options: str) -> None:
        """Run ``lago init`` on an exported init file."""
        done = self.run(
            'init', '--skip-bootstrap', *options, str(self.workdir),
            str(exported / 'LagoInitFile'),
        )
        assert done.code == 0, done.output
        self.take(exported)


@pytest.fixture
def repo(forest: Forest, server: Nginx) -> Publisher:
    repo = Publisher(server.root, base_url=f'{server.url}/', compression='gz')
    for disk in forest.values():
        repo.add(disk.path, disk.name, base=disk.base,
                 metadata={'distro': 'el7', 'root-partition': '/dev/sda1'})
    repo.write()
    return repo


@pytest.fixture
def box(repo: Publisher, tmp_path: Path, plain_path: str) -> Box:
    """Return an environment that was made and used."""
    box = Box(tmp_path / 'box', VMS, env={'PATH': plain_path})
    box.init_data['template-repo'] = [f'{repo.base_url}repo.metadata']
    box.write()
    init_well(box)
    box.use()
    return box


def elsewhere(root: Path, near: Box) -> Box:
    """Return a machine that knows of no repository and has no images."""
    return Box(root, {}, env={'PATH': near.extra_env['PATH']})


@pytest.mark.parametrize('options', [
    [], ['--compress'], ['--standalone'], ['--standalone', '--compress'],
], ids=' '.join)
def test_starts_elsewhere(
    options: list[str], box: Box, server: Nginx, tmp_path: Path
) -> None:
    exported = box.export(tmp_path / 'out', *options)
    moved = shutil.move(exported, tmp_path / 'moved')
    shutil.move(box.store, tmp_path / 'gone')
    far = elsewhere(tmp_path / 'far', box)
    server.forget()
    far.init_exported(Path(moved))
    shutil.move(tmp_path / 'gone', box.store)
    assert far.guests() == box.guests()
    if options[:1] == ['--standalone']:
        assert far.stored() == []
        assert server.requests() == []
    else:
        assert far.stored() == ['lab:base:v1', 'lab:iscsi:v1', 'lab:nfs:v1']
    status = far.run('--out-format', 'json', 'status')
    shown = json.loads(status.stdout)['Prefix']['VMs']['vm2']
    assert shown['distro'] == 'el7'


def test_json_init_file_keeps_its_repositories(
    box: Box, tmp_path: Path
) -> None:
    done = box.run(
        '--out-format', 'json', 'export', '--dst-dir', str(tmp_path / 'out')
    )
    assert done.code == 0, done.output
    spec = json.loads((tmp_path / 'out' / 'LagoInitFile').read_text())
    assert spec['template-repo'] == [
        {'path': box.init_data['template-repo'][0]}
    ]


def test_export_of_an_export_of_an_export(
    box: Box, tmp_path: Path
) -> None:
    before = box
    for number in range(2):
        exported = before.export(tmp_path / f'out{number}')
        after = elsewhere(tmp_path / f'far{number}', box)
        after.init_exported(exported)
        assert after.guests() == before.guests()
        after.use()
        before = after
    exported = before.export(tmp_path / 'last')
    for vm, template in VMS.items():
        said = json.loads(
            (exported / f'{vm}_root.qcow2.metadata').read_text()
        )
        assert said['base'] == f'lab/{template}:v1'
        assert said['distro'] == 'el7'


def test_names_of_the_environment_are_kept(
    forest: Forest, tmp_path: Path, plain_path: str
) -> None:
    """The store has the same bytes under another repository's name."""
    index = {}
    for name, template in (('one', 'first'), ('two', 'second')):
        repo = Publisher(tmp_path / name, name, source='file')
        repo.add(forest['base'].path, template)
        index[name] = str(repo.write())
    box = Box(tmp_path / 'box', {'vm0': 'first'}, repo=index['one'],
              env={'PATH': plain_path})
    init_well(box)
    before = Box(tmp_path / 'two-box', {'vm0': 'second'}, repo=index['two'],
                 env={'PATH': plain_path}, store=box.store)
    init_well(before)
    assert box.stored() == ['one:first:v1']
    for number in range(2):
        before.use()
        exported = before.export(tmp_path / f'out{number}')
        said = json.loads((exported / 'vm0_root.qcow2.metadata').read_text())
        assert said['base'] == 'two/second:v1'
        # The first time on the same machine, where the links lead to `one`.
        after = Box(tmp_path / f'far{number}', {}, env=box.extra_env,
                    store=None if number else box.store)
        after.init_exported(exported)
        assert after.guests() == before.guests()
        before = after
    assert after.stored() == ['two:second:v1']


def test_stale_links_are_replaced(
    box: Box, forest: Forest, tmp_path: Path
) -> None:
    exported = box.export(tmp_path / 'out')
    (exported / 'nfs:v1').symlink_to('/nowhere/lab:nfs:v1')
    near = elsewhere(tmp_path / 'near', box)
    near.init_exported(exported)
    assert near.guests() == box.guests()
    # Now they lead into a store that is gone.
    shutil.rmtree(near.store)
    far = elsewhere(tmp_path / 'far', box)
    far.init_exported(exported)
    assert far.guests() == box.guests()
    # And now into one where a base is missing.
    run('rm', '-f', far.store / 'lab:base:v1')
    third = elsewhere(tmp_path / 'third', box)
    third.init_exported(exported)
    assert third.guests() == box.guests()
    # What leads somewhere is used as it is.
    again = elsewhere(tmp_path / 'again', box)
    again.init_exported(exported, '--offline')
    assert again.stored() == []
    assert again.guests() == box.guests()


@pytest.mark.quick
def test_base_published_anew(
    box: Box, repo: Publisher, forest: Forest, tmp_path: Path
) -> None:
    """An export must never stand on other bytes under the same name."""
    exported = box.export(tmp_path / 'out')
    flat = flatten(forest['other'].path, tmp_path / 'flat.qcow2')
    repo.add(flat, 'base')
    repo.write()
    far = elsewhere(tmp_path / 'far', box)
    done = far.run(
        'init', '--skip-bootstrap', str(far.workdir),
        str(exported / 'LagoInitFile'),
    )
    assert done.code == 2, done.output
    message = message_of(done)
    assert 'base:v1' in message and 'published again' in message
    assert far.stored() == []
    # Where the old one is, it is what the export stands on.
    near = Box(tmp_path / 'near', {}, store=box.store)
    near.init_exported(exported)
    assert near.guests() == box.guests()


def test_what_cannot_be_resolved(box: Box, tmp_path: Path) -> None:
    exported = box.export(tmp_path / 'out')
    for name, backing, words in (
        ('vm0', '/gone/disk.qcow2', ['/gone/disk.qcow2 is missing']),
        ('vm0', './disk.qcow2', ['disk.qcow2 is missing', 'NAME:VERSION']),
        ('vm0', 'nbd://127.0.0.1:9/x', ['nbd://', 'no path of a file']),
        ('vm0', './vm0_root.qcow2', ['stands on itself']),
        ('vm0', './nobody:v1', ['nobody']),
    ):
        run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2',
            '-b', backing, exported / f'{name}_root.qcow2')
        far = elsewhere(tmp_path / 'far', box)
        done = far.run(
            'init', '--skip-bootstrap', str(far.workdir),
            str(exported / 'LagoInitFile'),
        )
        assert done.code == 2, done.output
        message = ' '.join(message_of(done).split())
        for word in words:
            assert word in message
    (exported / 'vm0_root.qcow2').unlink()
    done = far.run(
        'init', '--skip-bootstrap', str(far.workdir),
        str(exported / 'LagoInitFile'),
    )
    assert done.code == 2
    message = ' '.join(message_of(done).split())
    assert 'vm0_root.qcow2: cannot be read' in message


def test_disk_keeps_its_repository(
    forest: Forest, tmp_path: Path, plain_path: str
) -> None:
    """Two repositories have the same name of a template."""
    flat = flatten(forest['other'].path, tmp_path / 'flat.qcow2')
    for name, image in (('one', forest['base'].path), ('two', flat)):
        repo = Publisher(tmp_path / name, name, source='file')
        repo.add(image, 'base')
        repo.write()
    box = Box(tmp_path / 'box', {
        'vm0': {'template_name': 'base', 'template-repo': '$TWO'},
        'vm1': {'template_name': 'base', 'template-repo': 'one'},
    }, env={
        'TWO': str(tmp_path / 'two' / 'repo.metadata'), 'PATH': plain_path,
    })
    box.init_data['template-repo'] = ['../one/repo.metadata', '$TWO']
    box.write()
    init_well(box)
    box.use()
    exported = box.export(tmp_path / 'out')
    far = elsewhere(tmp_path / 'far', box)
    done = far.run(
        'init', '--skip-bootstrap', str(far.workdir),
        str(exported / 'LagoInitFile'),
    )
    # One name cannot lead to two images.
    assert done.code == 2
    assert 'different directories' in message_of(done)
    (exported / 'one').mkdir()
    for path in exported.glob('vm1_*'):
        path.rename(exported / 'one' / path.name)
    text = (exported / 'LagoInitFile').read_text()
    (exported / 'LagoInitFile').write_text(
        text.replace('/vm1_root', '/one/vm1_root')
    )
    far.init_exported(exported)
    assert far.guests() == box.guests()
    assert links_of(far.disk('vm1'))[0][0] == 'vm1_root.qcow2'
    assert far.stored() == ['one:base:v1', 'two:base:v1']
