"""Repositories that know nothing of us, and stores of a plain Lago."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, check_disks, flatten,
    image_requests, init_well, links_of, run,
)

METADATA = {
    'distro': 'el7', 'arch': 'x86_64', 'root-partition': '/dev/vda3',
    'root-password': 'secret',
}


def domain_of(box: LagoSandbox, vm: str) -> Dict[str, Any]:
    """Return what Lago has saved of a VM."""
    saved = box.workdir / 'default' / 'virt' / f'vm-{vm}'
    domain: Dict[str, Any] = json.loads(saved.read_text())
    return domain


@pytest.mark.parametrize('source', ['http', 'file'])
def test_flat_repository_as_in_lagos_documentation(
    source: str, forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    flat = flatten(forest['nfs'].path, tmp_path / 'flat.qcow2')
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='plain', source=source
    )
    packed = repo.add(flat, 'packed', metadata=METADATA)
    other = flatten(forest['other'].path, tmp_path / 'other.qcow2')
    repo.add(other, 'unpacked', metadata=METADATA, compression=None)
    repo.write()
    index = f'{server.url}/' if source == 'http' else f'{server.root}/'
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'packed', 'vm1': 'unpacked'},
        repo=f'{index}repo.metadata',
    )
    init_well(box)
    check_disks(box, forest, vm0='nfs', vm1='other')
    assert links_of(box.disk('vm0')) == [('lab:packed:v1', 'qcow2')]
    assert links_of(box.disk('vm1')) == [('lab:unpacked:v1', 'qcow2')]
    for vm in ('vm0', 'vm1'):
        assert domain_of(box, vm)['disks'][0]['metadata'] == METADATA
    kept = (box.store / 'lab:packed:v1.hash').read_text()
    assert kept == packed.checksums['sha1']
    status = box.run('--out-format', 'json', 'status')
    assert status.code == 0, status.output
    shown = json.loads(status.stdout)['Prefix']['VMs']['vm0']
    assert shown['distro'] == 'el7'


@pytest.mark.parametrize('dialect, version', [
    ('images-2015', 'latest'), ('images-head', 'v1'), ('plain', 'v1'),
])
def test_chains_are_found_in_sidecars_and_headers(
    dialect: str, version: str, forest: Dict[str, DiskImage],
    tmp_path: Path, server: Nginx,
) -> None:
    # Without sidecars, only the qcow2 headers tell what stands on what.
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect=dialect,
        sidecars=dialect != 'plain',
    )
    repo.add_forest(forest)
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'iscsi', 'vm1': 'other'},
        repo=f'{server.url}/repo.metadata',
    )
    done = init_well(box)
    # Their sidecars are all that could tell a wrong image.
    proven = dialect != 'plain'
    assert ('Nothing can prove what is fetched' in done.output) != proven
    check_disks(box, forest, vm0='iscsi', vm1='other')
    assert links_of(box.disk('vm0')) == [
        (f'lab:{name}:{version}', 'qcow2')
        for name in ('iscsi', 'nfs', 'base')
    ]
    images = image_requests(server.requests())
    whole = sorted(one.path for one in images if not one.range)
    assert whole == sorted(one.url_path for one in repo.images.values())
    # Header and size cost little.
    assert all(one.sent <= 2 ** 18 for one in images if one.range)
    if dialect != 'plain':
        metadata = domain_of(box, 'vm0')['disks'][0]['metadata']
        assert metadata['distro'] == 'tiny'
        assert metadata['root-partition'].startswith('/dev/sda')


# What a plain Lago does with its own classes.
FILL_STORE = '''
import sys
from lago_layered_provider.plugin import repair
repair.repair()
from lago import templates
assert templates.TemplateStore.__module__ == 'lago.templates'
repo = templates.TemplateRepository.from_url(sys.argv[1])
store = templates.TemplateStore(sys.argv[2])
store.download(repo.get_by_name('base').get_latest_version())
'''


def test_store_of_a_plain_lago_is_used_as_it_is(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    flat = Publisher(
        tmp_path / 'flat', dialect='plain', source='file', compression=None
    )
    flat.add(forest['base'].path, 'base', metadata=METADATA)
    flat.write()
    repo = Publisher(server.root, base_url=f'{server.url}/')
    repo.add_forest(forest)
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'base', 'vm1': 'nfs'},
        repo=f'{server.url}/repo.metadata',
    )
    fill_store(flat.index_path, box.store)
    before = (box.store / 'lab:base:v1').read_bytes()
    assert not before.startswith(b'QFI')
    init_well(box)
    check_disks(box, forest, vm0='base', vm1='nfs')
    assert links_of(box.disk('vm0')) == [('lab:base:v1', 'raw')]
    assert links_of(box.disk('vm1')) == [
        ('lab:nfs:v1', 'qcow2'), ('lab:base:v1', 'raw')
    ]
    assert domain_of(box, 'vm0')['disks'][0]['metadata'] == METADATA
    assert paths_of(server) == ['/repo.metadata', '/nfs-v1.qcow2.xz']
    assert (box.store / 'lab:base:v1').read_bytes() == before


def fill_store(index: Path, store: Path) -> None:
    """Let a Lago without our part fetch its base image."""
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', FILL_STORE, index, store],
        check=True, timeout=60,
    )


def paths_of(server: Nginx) -> List[str]:
    """Return what was asked of a server."""
    return [one.path for one in server.requests()]


@pytest.mark.quick
def test_repository_is_found_by_its_name(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(
        tmp_path / 'www', 'mine', source='file', compression=None
    )
    repo.add(forest['base'].path, 'base')
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'base'},
        config={'init': {'template_repo_name': 'mine'}},
    )
    (box.root / 'repos' / 'deep').mkdir(parents=True)
    (box.root / 'repos' / 'broken.json').write_text('{')
    run('cp', repo.index_path, box.root / 'repos' / 'deep' / 'mine.json')
    init_well(box)
    check_disks(box, forest, vm0='base')


# What an index that came over the network may use

REFUSED = 'an index that came over the network may use only the network'


def secret_of(root: Path, forest: Dict[str, DiskImage]) -> Path:
    """Return the directory of an image that only its owner may read."""
    secret = root / 'secret'
    secret.mkdir()
    run('cp', forest['base'].path, secret / 'base.qcow2')
    (secret / 'base.qcow2').chmod(0o600)
    return secret


def publish_place(
    repo: Publisher, path: Path, type_name: str, *mirrors: str, **args: str
) -> None:
    """Publish an image that is at some place, all told in the index."""
    made = repo.add(path, 'base', compression=None, handle='base.qcow2')
    repo.edit(lambda index: index['sources'].update(lab={
        'type': type_name, 'args': args, 'mirrors': list(mirrors),
    }))
    repo.write()
    made.file.unlink()


def test_a_directory_in_an_index_of_the_network(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    secret = secret_of(tmp_path, forest)
    publish_place(
        Publisher(server.root), secret / 'base.qcow2', 'file',
        f'{secret}', secret.as_uri(), '$HOME', '~', f'{server.url}/no/',
        root=str(secret),
    )
    url = f'{server.url}/repo.metadata'
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'base'}, repo=url)
    pull = ('template-repo', 'pull', 'base', '--repo')
    done = box.run(*pull, url)
    assert done.code == 2, done.output
    said = ' '.join(done.stderr.split())
    assert said.count(REFUSED) == 3, said  # one place is told once
    assert f'{url}: source lab: refused: root {secret}' in said
    assert f'{server.url}/no/base.qcow2' in said
    assert box.stored() == []
    # A copy of it here is not of this machine either.
    assert box.run('template-repo', 'add', url).code == 0
    done = box.run(*pull, str(box.root / 'repos' / 'lab.json'))
    assert done.code == 2 and REFUSED in ' '.join(done.stderr.split())
    assert box.stored() == []
    box.extra_env['LAGO__TEMPLATE_REPO__LOCAL_ROOTS'] = f'/no:{tmp_path}'
    init_well(box)
    check_disks(box, forest, vm0='base')


def test_a_directory_in_an_index_of_git(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    secret = secret_of(tmp_path, forest)
    repo = Publisher(tmp_path / 'field')
    publish_place(repo, secret / 'base.qcow2', 'file', 'link', root='here')
    (repo.root / 'link').symlink_to(secret)
    (repo.root / 'here').mkdir()
    (repo.root / 'here' / 'base.qcow2').symlink_to(secret / 'base.qcow2')
    repo.index_path.rename(repo.root / 'lab.json')
    run('git', '-C', repo.root, 'init', '--quiet')
    run('git', '-C', repo.root, 'add', '--all')
    run('git', '-C', repo.root, '-c', 'user.name=a', '-c',
        'user.email=a@example.com', 'commit', '--quiet', '-m', 'Index')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'base'})
    done = box.run('template-repo', 'add', f'file://{repo.root}')
    assert done.code == 0, done.output
    done = box.init('--template-repo-name', 'lab')
    assert done.code == 2, done.output
    said = ' '.join(done.output.split())
    assert f'refused: it leads to {secret}/base.qcow2' in said
    assert REFUSED in said
    assert box.stored() == []
