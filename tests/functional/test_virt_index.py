"""``index --virt-builder``, read by Debian's own virt-builder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, require, run,
)
from tests.lab.commands import find
from tests.lab.guestfs import guestfs_environment
from tests.lab.tool import Tool

MIB = 1 << 20


@pytest.fixture
def repo(forest: Dict[str, DiskImage], tmp_path: Path) -> Publisher:
    """Publish the forest, and versions of a template with odd names."""
    repo = Publisher(tmp_path / 'www', source='file')
    repo.add_forest(forest)
    base = forest['base'].path
    for version in ('v1', 'v2'):
        repo.add(
            base, 'c++', version, metadata={'root-partition': '/dev/vda2'},
            handle=f'published/c++/{version} #1%41.qcow2',
        )
    repo.add(base, 'plain', compression=None)
    repo.add(base, 'quick', compression='zst')
    repo.write()
    return repo


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path / 'box')


def write(tool: Tool, repo: Publisher) -> Finished:
    return tool.run('index', repo.root, '--virt-builder')


def virt_builder(
    repo: Publisher, *arguments: str, url: str = '', **env: str
) -> str:
    """Run virt-builder on nothing but this index."""
    require('virt-builder', 'virt-index-validate', 'curl')
    done = subprocess.run(
        [find('virt-builder') or '', '--no-check-signature', '--source',
         url or f'file://{repo.root}/index', *arguments],
        env={
            **os.environ, 'LC_ALL': 'C', 'VIRT_BUILDER_DIRS': '/nonexistent',
            'HOME': str(repo.root.parent), 'no_proxy': '127.0.0.1',
            'XDG_CONFIG_HOME': '/nonexistent', **env,
            'XDG_CACHE_HOME': str(repo.root.parent / 'cache'),
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding='utf-8', timeout=300, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.quick
def test_virt_builder_reads_it(tool: Tool, repo: Publisher) -> None:
    done = write(tool, repo)
    index = repo.root / 'index'
    assert done.stdout == f'{index} is written\n'
    assert done.stderr.split() == (
        'Warning: virt-builder unpacks .xz only, so these are hidden: '
        'quick:v1; publish them with --compress xz or none'
    ).split()
    require('virt-index-validate')
    assert 'validated OK' in run('virt-index-validate', index)
    listed = [
        line.split() for line in
        virt_builder(repo, '--list').splitlines() if line
    ]
    # The newest version of each template that it can use, and nothing else.
    assert listed == [
        ['base', 'x86_64', 'base', 'v1'], ['c__', 'x86_64', 'c++', 'v2'],
        ['plain', 'x86_64', 'plain', 'v1'],
    ]
    assert 'Full name:               c++ v2' in virt_builder(
        repo, '--list', '--long'
    )
    assert 'A layer on base:v1' in virt_builder(repo, '--notes', 'nfs')
    found: List[Dict[str, Any]] = json.loads(virt_builder(
        repo, '--list', '--list-format', 'json'
    ))['templates']
    hidden = {
        each['os-version'] for each in found if each['hidden']
    }
    assert hidden == {'c__-v1', 'iscsi', 'nfs', 'other', 'quick'}
    image = repo.images['c++:v2']
    newest = next(each for each in found if each['os-version'] == 'c__')
    assert newest['size'] == image.virtual_size
    assert int(newest['compressed-size']) == image.compressed_size
    assert newest['aliases'] == ['c__-v2']


def test_it_is_right(tool: Tool, repo: Publisher) -> None:
    write(tool, repo)
    sums = [
        line.partition('=')[2]
        for line in (repo.root / 'index').read_text().splitlines()
        if line.startswith('checksum[sha512]=')
    ]
    assert sorted(sums) == sorted(
        image.compressed_checksums['sha512']
        for image in repo.images.values()
    )
    findings = tool.data('lint', repo.root, '--deep')['findings']
    # Only that the source of this index is a directory by its path.
    assert [each['code'] for each in findings] == ['source-here']


def test_unchanged_files_are_not_read_again(
    tool: Tool, repo: Publisher
) -> None:
    write(tool, repo)
    index = repo.root / 'index'
    first = index.read_text()
    # Other bytes of the same size and age: only a read would tell.
    file = repo.images['base:v1'].file
    bytes_ = bytearray(file.read_bytes())
    bytes_[-30000] ^= 0xff
    old = index.stat().st_mtime - 60
    file.write_bytes(bytes_)
    for name, image in repo.images.items():
        os.utime(image.file, (old, old))
    write(tool, repo)
    assert index.read_text() == first
    os.utime(file)
    write(tool, repo)
    assert hashlib.sha512(bytes_).hexdigest() in index.read_text()


def test_by_lago_and_for_programs(repo: Publisher, tmp_path: Path) -> None:
    box = LagoSandbox(tmp_path / 'sandbox', {})
    done = box.run(
        '--out-format', 'json', 'template-repo', 'index', str(repo.root),
        '--virt-builder',
    )
    assert done.code == 0, done.output
    found = json.loads(done.stdout)
    assert found['index'] == str(repo.root / 'index')
    assert len(found['warnings']) == 1


def test_nothing_wrong_is_published(tool: Tool, repo: Publisher) -> None:
    write(tool, repo)
    before = (repo.root / 'index').read_text()
    repo.images['base:v1'].file.unlink()
    repo.images['plain:v1'].file.write_bytes(b'')
    repo.edit_version('nfs:v1', size='x')
    repo.write()
    done = tool.run('index', repo.root, '--virt-builder', code=2)
    message = ' '.join(done.stderr.split())
    for part in (
        f'base:v1: {repo.images["base:v1"].file} is not there',
        'nfs:v1: size:', 'plain:v1: it is empty',
        'plain:v1: the image, uncompressed, has 0 bytes',
        'Nothing was written',
    ):
        assert part in message
    assert (repo.root / 'index').read_text() == before
    assert not list(repo.root.glob('*.tmp'))


def test_the_index_of_somebody_else_stays(
    tool: Tool, repo: Publisher
) -> None:
    theirs = '[own]\nname=by hand\narch=x86_64\nfile=own.xz\nsize=1\n'
    index = repo.root / 'index'
    index.write_text(theirs)
    done = tool.run('index', repo.root, '--virt-builder', code=2)
    assert 'this command has not written it' in ' '.join(done.stderr.split())
    assert index.read_text() == theirs
    index.unlink()
    for _ in range(2):
        write(tool, repo)


def test_no_repository(tool: Tool, tmp_path: Path) -> None:
    for text, word in ((None, 'is not there'), ('{', 'is not JSON')):
        if text:
            (tmp_path / 'repo.metadata').write_text(text)
        done = tool.run('index', tmp_path, '--virt-builder', code=2)
        assert word in ' '.join(done.stderr.split())
        assert not (tmp_path / 'index').exists()


def test_images_elsewhere_are_left_out(
    tool: Tool, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', base_url='http://127.0.0.1:1/')
    repo.add(forest['base'].path, 'here')
    repo.add(forest['base'].path, 'there')
    repo.write()
    repo.images['there:v1'].file.unlink()
    done = write(tool, repo)
    assert 'there:v1 is left out' in done.stderr
    text = (repo.root / 'index').read_text()
    assert '[here]' in text and '[there]' not in text


def make_system(directory: Path) -> Path:
    """Make an image that libguestfs takes for a system it knows."""
    require('mkfs.ext4', 'qemu-img')
    tree = directory / 'tree'
    for name in ('bin', 'etc', 'root', 'usr', 'var', 'tmp', 'dev', 'proc'):
        (tree / name).mkdir(parents=True)
    for name, text in {
        'os-release': 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n',
        'debian_version': '12.0\n',
        'passwd': 'root:x:0:0:root:/root:/bin/sh\n',
        'shadow': 'root:!:19000:0:99999:7:::\n',
        'fstab': '/dev/sda / ext4 defaults 0 0\n',
        'hostname': 'tiny\n',
    }.items():
        (tree / 'etc' / name).write_text(text)
    raw = directory / 'raw'
    run('mkfs.ext4', '-q', '-d', tree, raw, '32M')
    image = directory / 'system.qcow2'
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, image)
    return image


def test_virt_builder_builds_from_it(
    tool: Tool, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    environment = guestfs_environment(
        pytestconfig.rootpath / '.cache' / 'tiny'
    )
    repo = Publisher(tmp_path / 'www', source='file')
    repo.add(
        make_system(tmp_path), 'debian+12', '7.2',
        handle='published/debian+12/7.2 #1.qcow2',
    )
    repo.write()
    write(tool, repo)
    output = tmp_path / 'built.img'
    with Nginx(repo.root) as server:
        virt_builder(
            repo, 'debian_12-7.2', '--no-network', '--output', str(output),
            '--root-password', 'password:x', '--write', '/built:yes',
            url=f'{server.url}/index', **environment,
        )
        asked = {each.path for each in server.requests()}
    assert '/published/debian+12/7.2 #1.qcow2.xz' in asked
    assert output.stat().st_size == repo.images['debian+12:7.2'].virtual_size
    assert b'yes' in output.read_bytes()
