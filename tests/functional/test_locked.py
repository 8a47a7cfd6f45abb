"""Lock files: the same images again, whatever was published since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, Mapping

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, check_disks, flatten,
    image_requests, init_well, links_of,
)
from tests.lab.world import message_of

Forest = Dict[str, DiskImage]


class World:
    """A repository that changes, and environments of it."""

    def __init__(
        self, root: Path, forest: Forest, server: Nginx, **keys: Any
    ) -> None:
        self.root = root
        self.forest = forest
        self.server = server
        self.keys: Dict[str, Any] = {'compression': None, **keys}
        self.repo = self.publish('lab', 'base', 'nfs')

    @property
    def index(self) -> str:
        return f'{self.server.url}/lab/repo.metadata'

    def publish(self, directory: str, *templates: str) -> Publisher:
        repo = Publisher(
            self.server.root / directory, directory.split('-')[0],
            f'{self.server.url}/{directory}/', **self.keys,
        )
        for name in templates:
            repo.add(self.forest[name].path, name,
                     base=self.forest[name].base)
        repo.write()
        return repo

    def publish_other_base(self, version: str = 'v1') -> None:
        """Publish another image as the base, as old as the first."""
        flat = flatten(
            self.forest['other'].path, self.root / f'flat-{version}.qcow2'
        )
        self.repo.add(flat, 'base', version, timestamp=1500000000)
        self.repo.write()

    def publish_next(self) -> None:
        self.repo.add(self.forest['other'].path, 'nfs', 'v2', base='base')
        self.repo.write()

    def box(
        self, vms: Mapping[str, Any], name: str = 'box', **keys: Any
    ) -> LagoSandbox:
        return LagoSandbox(
            self.root / name, vms, **{'repo': self.index, **keys}
        )

    def locked_box(self, template: str = 'nfs', **keys: Any) -> LagoSandbox:
        box = self.box({'vm0': template}, **keys)
        well(box, 'template-repo', 'lock')
        return box


@pytest.fixture
def world(tmp_path: Path, forest: Forest, server: Nginx) -> World:
    return World(tmp_path, forest, server)


def well(box: LagoSandbox, *arguments: str) -> Finished:
    done = box.run(*arguments)
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    return done


def data_of(box: LagoSandbox, *arguments: str) -> Any:
    done = well(box, '--out-format', 'json', 'template-repo', *arguments)
    return json.loads(done.stdout)


def failure_of(done: Finished) -> str:
    """Return the message of a failure on one line."""
    assert done.code == 2, done.output
    assert 'Traceback' not in done.output
    return ' '.join(message_of(done).split())


def lock_of(box: LagoSandbox) -> Path:
    return box.root / 'LagoInitFile.lock'


def wants(box: LagoSandbox, *templates: str) -> None:
    """Let the only VM have disks on these templates."""
    [domain] = box.init_data['domains'].values()
    first = domain['disks'][0]
    domain['disks'] = [
        {**first, 'template_name': template, 'name': f'disk{number}',
         'dev': f'vd{"abc"[number]}'}
        for number, template in enumerate(templates)
    ]
    box.write()


# The same again

def test_newer_versions_do_not_matter(world: World) -> None:
    box = world.locked_box()
    world.publish_next()
    text = lock_of(box).read_text()
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='nfs')
    saved = json.loads((box.workdir / 'default' / 'metadata').read_text())
    assert saved['template-repo'] == [{'path': world.index}]
    shutil.rmtree(box.workdir)
    box.extra_env['LAGO__INIT__LOCKED'] = '1'
    init_well(box)
    check_disks(box, world.forest, vm0='nfs')
    assert lock_of(box).read_text() == text
    # Who does not ask for it gets the newest.
    shutil.rmtree(box.workdir)
    del box.extra_env['LAGO__INIT__LOCKED']
    box.config['init'] = {'locked': 'no'}
    box.write()
    init_well(box)
    check_disks(box, world.forest, vm0='other')
    box.config['init'] = {'locked': 'perhaps'}
    box.write()
    assert 'yes or no' in failure_of(box.run('init', '--plan'))


def test_a_lock_can_be_read_and_is_always_the_same(world: World) -> None:
    box = world.locked_box()
    text = lock_of(box).read_text()
    [entry] = json.loads(text)['templates']
    assert entry['wanted'] == 'nfs'
    assert [
        (each['repository'], each['location'], each['template'],
         each['version'])
        for each in entry['chain']
    ] == [
        ('lab', world.index, 'base', 'v1'), ('lab', world.index, 'nfs', 'v1'),
    ]
    assert entry['chain'][1]['digests']['sha512'] == (
        world.repo.images['nfs:v1'].checksums['sha512']
    )
    inode = lock_of(box).stat().st_ino
    well(box, 'template-repo', 'lock')
    assert lock_of(box).stat().st_ino == inode
    well(box, 'template-repo', 'pull')
    well(box, 'template-repo', 'lock', '--update')
    assert lock_of(box).read_text() == text
    assert [path.name for path in box.root.glob('*.tmp')] == []


def test_what_is_in_the_store_needs_no_repository(world: World) -> None:
    box = world.locked_box()
    init_well(box)
    shutil.rmtree(box.workdir)
    shutil.rmtree(box.store / '.layered' / 'indexes')
    shutil.rmtree(world.server.root / 'lab')
    world.server.forget()
    well(box, 'init', '--plan', '--locked')
    init_well(box, '--locked', '--offline')
    check_disks(box, world.forest, vm0='nfs')
    saved = json.loads((box.workdir / 'default' / 'metadata').read_text())
    assert saved['template-repo'] == [{'path': world.index}]
    assert world.server.requests() == []


def test_plan_and_pull(world: World) -> None:
    box = world.locked_box()
    world.publish_next()
    names = ['lab:base:v1', 'lab:nfs:v1']
    planned = data_of(box, 'plan', '--locked')
    assert [each['name'] for each in planned['layers']] == names
    done = well(box, 'init', '--plan', '--locked')
    assert 'lab:nfs:v1' in done.stdout
    well(box, 'template-repo', 'pull', 'LagoInitFile', '--locked')
    assert box.stored() == names
    for arguments in (['pull', '--all'], ['plan', 'nfs']):
        done = box.run('template-repo', *arguments, '--locked')
        assert 'lock' in failure_of(done)


# What was published again

def test_base_published_again(world: World) -> None:
    box = world.locked_box()
    world.publish_other_base()
    world.server.forget()
    for done in (box.init('--locked'), box.run('init', '--plan', '--locked')):
        message = failure_of(done)
        assert 'lab/base:v1 was published again' in message
        assert 'nfs:v1' not in message
        assert 'lock --update' in message
    assert image_requests(world.server.requests()) == []
    assert not (box.workdir / 'default').exists()
    assert box.stored() == []


@pytest.mark.parametrize('here', ['nfs', 'base'])
def test_the_old_one_is_in_the_store(here: str, world: World) -> None:
    """Of the chain all or only the base; the rest is fetched."""
    box = world.locked_box()
    well(box, 'template-repo', 'pull', here)
    world.publish_other_base()
    world.server.forget()
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='nfs')
    assert box.stored() == ['lab:base:v1', 'lab:nfs:v1']
    fetched = image_requests(world.server.requests())
    assert len(fetched) == (0 if here == 'nfs' else 1)


def test_the_old_one_has_a_name_of_its_own(world: World) -> None:
    """Two repositories of one name; the store had the other one first."""
    box = world.locked_box('base')
    world.publish_other_base()
    well(box, 'template-repo', 'pull', 'base')
    world.publish('lab-old', 'base')
    old = f'{world.server.url}/lab-old/repo.metadata'
    well(box, 'template-repo', 'pull', 'base', '--repo', old)
    assert len(box.stored()) == 2
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='base')
    assert links_of(box.disk('vm0'))[0][0].startswith('lab:base:v1+')
    # A layer comes to stand on the old one as well.
    layer = world.box({'vm0': 'nfs'}, 'layer', store=box.store)
    layer.init_data['template-repo'] = old
    world.publish('lab-old', 'base', 'nfs')
    layer.write()
    well(layer, 'template-repo', 'lock')
    init_well(layer, '--locked')
    check_disks(layer, world.forest, vm0='nfs')


def test_the_layer_stands_on_the_other_one(world: World) -> None:
    """In the store; it cannot be there a second time on the old base."""
    box = world.locked_box()
    kept = lock_of(box).read_text()
    world.publish_other_base()
    well(box, 'template-repo', 'pull', 'nfs')
    world.publish('lab-old', 'base', 'nfs')
    lock_of(box).write_text(kept.replace('/lab/repo', '/lab-old/repo'))
    done = box.init(
        '--locked', '--template-repo-path',
        f'{world.server.url}/lab-old/repo.metadata',
    )
    message = failure_of(done)
    assert f'{box.store} has not what is locked' in message
    assert 'lab:nfs:v1 stands on lab:base:v1 there' in message
    assert '--template-store' in message


# What is another one

def test_what_changed_is_told_at_once(world: World) -> None:
    world.repo.add(world.forest['iscsi'].path, 'iscsi', base='nfs')
    world.repo.add(world.forest['base'].path, 'gone')
    world.repo.write()
    box = world.box({'vm0': [
        {'template_name': 'iscsi'}, {'template_name': 'gone'},
    ]})
    well(box, 'template-repo', 'lock')
    world.publish_other_base('v2')
    world.repo.edit_version('nfs:v1', base='base:v2')
    world.repo.edit(lambda index: index['templates'].pop('gone'))
    world.repo.write()
    message = failure_of(box.init('--locked'))
    assert 'nfs:v1 stands on lab/base:v2 now, locked on lab/base:v1' in message
    assert 'lab/gone:v1 is in no repository any more' in message
    assert world.index in message
    assert box.stored() == []


def test_init_file_and_lock(world: World) -> None:
    box = world.box({'vm0': 'nfs'})
    message = failure_of(box.init('--locked'))
    assert 'LagoInitFile.lock: there is no such file' in message
    assert 'lago template-repo lock' in message
    well(box, 'template-repo', 'lock')
    world.publish_next()
    wants(box, 'nfs', 'base', 'lab/nfs:v2')
    message = failure_of(box.init('--locked'))
    assert 'base is not in it' in message
    assert 'lab/nfs:v2 is not in it' in message
    done = well(box, 'template-repo', 'lock')
    assert 'base: added: lab/base:v1' in done.stdout
    assert '3 templates locked, 2 changed' in ' '.join(done.stdout.split())
    wants(box, 'nfs', 'lab/nfs:v2')
    rows = data_of(box, 'lock')['templates']
    assert [(row['wanted'], row['change']) for row in rows] == [
        ('base', 'dropped'), ('lab/nfs:v2', 'kept'), ('nfs', 'kept'),
    ]
    init_well(box, '--locked')
    assert links_of(box.disk('vm0', 'disk0'))[0][0] == 'lab:nfs:v1'
    assert links_of(box.disk('vm0', 'disk1'))[0][0] == 'lab:nfs:v2'


def test_outdated_and_update(world: World) -> None:
    box = world.box({'vm0': [
        {'template_name': 'nfs'}, {'template_name': 'nfs:v1'},
    ]})
    well(box, 'template-repo', 'lock')
    assert outdated(box) == {'nfs': 'current', 'nfs:v1': 'current'}
    world.publish_next()
    assert outdated(box) == {'nfs': 'another version', 'nfs:v1': 'current'}
    done = well(box, 'template-repo', 'outdated')
    [line] = [
        line for line in done.stdout.splitlines() if 'another' in line
    ]
    assert line.split()[:3] == ['nfs', 'lab/nfs:v1', 'lab/nfs:v2']
    done = well(box, 'template-repo', 'lock', '--update')
    assert 'nfs: another version: lab/nfs:v1 -> lab/nfs:v2' in done.stdout
    world.publish_other_base()
    world.repo.add(world.forest['iscsi'].path, 'nfs', base='base',
                   timestamp=1500000001)
    world.repo.write()
    wants(box, 'nfs', 'nfs:v1', 'base')
    assert outdated(box) == {
        'nfs': 'another base', 'nfs:v1': 'published again',
        'base': 'not locked',
    }
    well(box, 'template-repo', 'lock', '--update')
    assert set(outdated(box).values()) == {'current'}


def outdated(box: LagoSandbox) -> Dict[str, str]:
    rows = data_of(box, 'outdated')['templates']
    for row in rows:
        assert row['outdated'] == (row['state'] != 'current')
    return {row['wanted']: row['state'] for row in rows}


# Several repositories, other kinds of images

def test_two_repositories(world: World) -> None:
    other = world.publish('other', 'base')
    other.add(world.forest['other'].path, 'nfs', 'v7', base='base')
    other.write()
    box = world.box({'vm0': 'other/nfs', 'vm1': 'nfs', 'vm2': {
        'template_name': 'nfs', 'template-repo': '../two.json',
    }}, repo='')
    link = world.root / 'two.json'
    link.symlink_to(other.root / 'repo.metadata')
    box.init_data['template-repo'] = [world.index, '../two.json']
    box.write()
    well(box, 'template-repo', 'lock')
    text = lock_of(box).read_text()
    assert str(world.root) not in text
    assert [each['wanted'] for each in json.loads(text)['templates']] == [
        '../two.json/nfs', 'nfs', 'other/nfs',
    ]
    world.publish_next()
    # A repository that comes before does not change what is locked.
    box.init_data['template-repo'].insert(0, '../two.json')
    box.write()
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='other', vm1='nfs', vm2='other')
    shutil.rmtree(box.workdir)
    shutil.rmtree(world.server.root)
    world.server.forget()
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='other', vm1='nfs', vm2='other')
    assert world.server.requests() == []


@pytest.mark.parametrize('dialect', ['plain', 'images-2015'])
def test_indexes_that_say_little(
    dialect: str, tmp_path: Path, forest: Forest, server: Nginx
) -> None:
    world = World(
        tmp_path, forest, server, dialect=dialect, compression='gz'
    )
    box = world.locked_box()
    version = world.repo.images[next(iter(world.repo.images))].version
    flat = flatten(forest['other'].path, tmp_path / 'flat.qcow2')
    world.repo.add(flat, 'base', version, timestamp=1500000000)
    world.repo.write()
    message = failure_of(box.init('--locked'))
    assert f'lab/base:{version} was published again' in message
    assert box.stored() == []
    world.repo.add(forest['base'].path, 'base', version,
                   timestamp=1500000000)
    world.repo.write()
    init_well(box, '--locked')
    check_disks(box, forest, vm0='nfs')


def test_an_image_without_a_digest(
    tmp_path: Path, forest: Forest, server: Nginx
) -> None:
    world = World(tmp_path, forest, server, sidecars=False)
    for name in ('base:v1', 'nfs:v1'):
        world.repo.edit_version(name, sha1=..., sha256=..., sha512=...)
    world.repo.write()
    box = world.box({'vm0': 'nfs'})
    message = failure_of(box.run('template-repo', 'lock'))
    assert 'base:v1 cannot be locked' in message
    assert 'lago template-repo pull lab/base:v1' in message
    assert not lock_of(box).exists()
    well(box, 'template-repo', 'pull')
    well(box, 'template-repo', 'lock')
    # Only the transfer can tell that it is another one.
    world.publish_other_base()
    third = world.box({'vm0': 'nfs'}, 'third')
    shutil.copyfile(lock_of(box), lock_of(third))
    assert 'sha1' in failure_of(third.init('--locked'))
    assert third.stored() == []


@pytest.mark.quick
def test_disks_on_files(world: World) -> None:
    """As `lago export` leaves them."""
    top = world.root / 'exported' / 'top.qcow2'
    box = world.box({'vm0': {'template_type': 'qcow2', 'path': str(top)}})
    top.parent.mkdir()
    shutil.copyfile(world.repo.images['nfs:v1'].image, top)
    digest = 'sha512:' + world.repo.images['base:v1'].checksums['sha512']
    top.with_name('top.qcow2.metadata').write_text(
        json.dumps({'base_digest': digest})
    )
    well(box, 'template-repo', 'lock')
    [entry] = json.loads(lock_of(box).read_text())['templates']
    assert (entry['wanted'], entry['digest']) == ('base:v1', digest)
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='nfs')
    # Published again: the store has the old one, and that can be locked.
    world.publish_other_base()
    well(box, 'template-repo', 'lock', '--update')
    assert outdated(box) == {'base:v1': 'current'}
    shutil.rmtree(box.workdir)
    init_well(box, '--locked')
    check_disks(box, world.forest, vm0='nfs')
    shutil.rmtree(box.workdir)
    message = failure_of(box.init('--locked', '--template-store', 'empty'))
    assert 'lab/base:v1 was published again' in message


# Locks that are none

def test_locks_that_are_none(world: World) -> None:
    box = world.locked_box()
    text = lock_of(box).read_text()
    lock_of(box).write_text(text.replace('"v1"', '"../v1"'))
    message = failure_of(box.run('template-repo', 'outdated'))
    assert 'LagoInitFile.lock: 2 faults' in message
    assert "line 7: nfs, image 1: version '../v1' is not" in message
    lock_of(box).write_text(text[:text.index('repo.metadata')])
    for command in (['init', '--locked'], ['template-repo', 'lock']):
        message = failure_of(box.run(*command))
        assert 'LagoInitFile.lock: is not JSON' in message
        assert 'line 9' in message
    assert not (box.workdir / 'default').exists()
    init_well(box)


def test_the_lock_cannot_be_written(world: World) -> None:
    box = world.box({'vm0': 'nfs'})
    lock_of(box).mkdir()
    message = failure_of(box.run('template-repo', 'lock'))
    assert 'LagoInitFile.lock' in message
