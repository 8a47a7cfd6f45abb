"""``create``: from an admin's images to a repository that ``lago init`` uses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

import pytest

from tests.lab import (
    DiskImage, ImageSpec, LagoSandbox, Nginx, Publisher, check_disks,
    flatten, guest_digest, init_well, make_forest, require, run,
)
from tests.lab.images import MIB, write_content
from tests.lab.running import until
from tests.lab.signing import Signing
from tests.lab.small_disk import SmallDisk, fill
from tests.lab.steps import killed_at_steps, record
from tests.lab.tool import Tool

VMS = {'vm0': 'iscsi', 'vm1': 'other'}


@pytest.fixture
def admin(forest: Dict[str, DiskImage], tmp_path: Path) -> Path:
    """Give a directory of images that were made on another host."""
    directory = tmp_path / 'images'
    take_images(forest, directory)
    return directory


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path / 'work')


def take_images(forest: Dict[str, DiskImage], directory: Path) -> None:
    """Copy images whose backing files are absolute paths of nowhere."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, disk in forest.items():
        copy = directory / f'{name}.qcow2'
        shutil.copy(disk.path, copy)
        if disk.base:
            run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2',
                '-b', f'/home/builder/images/{disk.base}.qcow2', copy)


def state_of(directory: Path) -> Dict[str, str]:
    """Return the digest of every file that clients may see."""
    return {
        str(path.relative_to(directory)): run('sha256sum', path).split()[0]
        for path in sorted(directory.rglob('*'))
        if path.is_file() and not path.name.startswith('.')
    }


def index_of(directory: Path) -> Dict[str, Any]:
    document: Dict[str, Any] = json.loads(
        (directory / 'repo.metadata').read_text()
    )
    return document


def versions_of(directory: Path, template: str) -> List[str]:
    return sorted(index_of(directory)['templates'][template]['versions'])


def check_init(
    forest: Dict[str, DiskImage], root: Path, repo: object,
    vms: Dict[str, str] = VMS,
) -> LagoSandbox:
    """Make an environment of a repository; its disks are the originals."""
    box = LagoSandbox(root, vms, repo=str(repo))
    init_well(box)
    check_disks(box, forest)
    return box


@pytest.mark.parametrize('compress', ['zst', 'xz', 'gz', 'none'])
def test_from_images_of_another_host_to_lago_init(
    forest: Dict[str, DiskImage], admin: Path, tool: Tool, compress: str,
    tmp_path: Path,
) -> None:
    """The issue's way: real qcow2 files, one command, a real `lago init`."""
    originals = state_of(admin)
    with Nginx(admin) as server:
        done = tool.run(
            'create', admin, '--name', 'lab', '--version', 'v1',
            '--base-url', f'{server.url}/', '--compress', compress,
        )
        assert '4 images published, 0 unchanged' in done.stdout
        assert not [
            line for line in done.output.splitlines()
            if len(line) > 80 and str(tmp_path) not in line
        ]
        tool.run('lint', admin, '--deep')
        tool.run('lint', f'{server.url}/', '--deep')
        server.forget()
        check_init(forest, tmp_path / 'box', f'{server.url}/repo.metadata')
        # The index says all: one request before the first image.
        asked = [request.path for request in server.requests()]
        assert asked[0] == '/repo.metadata' and len(asked) == 5, asked
    assert originals.items() <= state_of(admin).items()
    for template, base in [('base', None), ('iscsi', 'nfs:v1')]:
        entry = index_of(admin)['templates'][template]['versions']['v1']
        assert entry['base'] == base
        assert {
            'size', 'compressed_size', 'virtual_size', 'sha1', 'sha256',
            'sha512', 'metadata', 'format', 'compression', 'timestamp',
        } <= set(entry)


@pytest.mark.parametrize('over', ['path', 'http'])
def test_without_a_base_url_images_lie_beside_the_index(
    forest: Dict[str, DiskImage], admin: Path, tool: Tool, over: str,
    tmp_path: Path,
) -> None:
    tool.run('create', admin, '--name', 'lab')
    moved = tmp_path / 'elsewhere'
    admin.rename(moved)
    with Nginx(moved) as server:
        index = f'{server.url}/repo.metadata'
        check_init(forest, tmp_path / 'box', {
            'path': moved / 'repo.metadata', 'http': index,
        }[over])


def test_the_verb_of_lago_and_without_lago(
    admin: Path, tmp_path: Path
) -> None:
    """Both do the same; the second one where `import lago` fails."""
    box = LagoSandbox(tmp_path / 'box', {})
    done = box.run('template-repo', 'create', str(admin), '--name', 'lab')
    assert done.code == 0, done.output
    assert '4 images published' in done.stdout
    done = box.run(
        '--out-format', 'json', 'template-repo', 'create', str(admin),
    )
    assert json.loads(done.stdout)['unchanged'] == 4
    done = box.run('template-repo', 'create', str(tmp_path / 'nowhere'))
    assert done.code == 2 and 'is not a directory' in done.output

    none = tmp_path / 'none' / 'lago'
    none.mkdir(parents=True)
    (none / '__init__.py').write_text('raise ImportError("no Lago here")\n')
    root = Path(__file__).parents[2]
    without = Tool(tmp_path / 'work', {'PYTHONPATH': f'{none.parent}:{root}'})
    assert without.data('create', admin)['unchanged'] == 4
    without.run('lint', admin)


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """20 images, 4 of them changed: the kernel counts what is read."""
    require('qemu-img', 'qemu-io')
    images = tmp_path / 'images'
    made = make_forest(images, {
        f'i{number:02}': ImageSpec(8) for number in range(20)
    })
    assert read_bytes(images, '--name', 'lab') > 20 * 8 * MIB
    little = read_bytes(images)
    time.sleep(0.01)
    for number in (3, 7, 8, 19):
        disk = made[f'i{number:02}']
        write_content(disk.path, 1, disk.virtual_size, 'new')
    four = read_bytes(images, '--version', 'v2')
    sizes = sum(
        made[f'i{number:02}'].path.stat().st_size for number in (3, 7, 8, 19)
    )
    # Once to be compared where the size is the same, once to be packed.
    assert sizes <= four - little <= 2.1 * sizes
    for number in range(20):
        assert len(versions_of(images, f'i{number:02}')) == (
            2 if number in (3, 7, 8, 19) else 1
        )


def read_bytes(*arguments: Union[str, Path]) -> int:
    """Run `create`; return how many bytes it has read, of whatever."""
    program = (
        'import sys; from lago_layered_provider.__main__ import main; '
        'main(sys.argv[1:]); '
        'print(open("/proc/self/io").read().split()[1])'
    )
    out = run(sys.executable, '-c', program, 'create', *arguments)
    return int(out.split()[-1])


def test_touched_and_moved_images_are_no_new_versions(
    forest: Dict[str, DiskImage], admin: Path, tool: Tool, tmp_path: Path
) -> None:
    """A copy of the directory has other times and inodes."""
    tool.run('create', admin, '--name', 'lab')
    before = state_of(admin)
    copy = tmp_path / 'copy'
    run('cp', '-r', admin, copy)
    (copy / 'published/.originals.json').unlink()
    for directory in (admin, copy):
        for path in directory.glob('*.qcow2'):
            path.touch()
        assert tool.data('create', directory)['unchanged'] == 4
        assert state_of(directory) == before


@pytest.mark.quick
def test_versions_grow_and_what_was_published_stays(
    forest: Dict[str, DiskImage], admin: Path, tool: Tool, tmp_path: Path
) -> None:
    tool.run('create', admin, '--name', 'lab', '--version', 'v1')
    old = state_of(admin / 'published')
    nfs, iscsi = admin / 'nfs.qcow2', admin / 'iscsi.qcow2'
    # An admin's tools need the chain to be whole; so does qemu-io here.
    for name in ('nfs', 'iscsi', 'other'):
        run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b',
            f'{forest[name].base}.qcow2', admin / f'{name}.qcow2')
    write_content(iscsi, 1, forest['nfs'].virtual_size, 'new')
    write_content(nfs, 1, forest['nfs'].virtual_size, 'newer')
    said = tool.fail('create', admin)
    assert 'nfs.qcow2, which it stands on, has changed' in said
    assert '--base iscsi.qcow2=nfs:v1' in said
    assert state_of(admin / 'published') == old
    iscsi.touch()  # made anew, over the new one
    said = tool.fail('create', admin, '--version', 'v1')
    assert 'nfs:v1 is published with another content' in said
    done = tool.data('create', admin, '--version', 'v2')
    assert {one['image']: one['base'] for one in done['published']} == {
        'nfs:v2': 'base:v1', 'iscsi:v2': 'nfs:v2',
    }
    assert old.items() <= state_of(admin / 'published').items()
    tool.run('lint', admin, '--deep')
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs:v1', 'vm1': 'nfs'},
        repo=admin / 'repo.metadata',
    )
    init_well(box)
    assert guest_digest(box.disk('vm0')) == forest['nfs'].guest_sha256
    assert guest_digest(box.disk('vm1')) == guest_digest(nfs)


def test_a_layer_on_a_new_base_is_another_one(
    tool: Tool, tmp_path: Path
) -> None:
    """Even when its own bytes are the same; if it was made anew."""
    images = tmp_path / 'images'
    made = make_forest(images, {
        'base': ImageSpec(1), 'nfs': ImageSpec(1, 'base'),
    })
    tool.run('create', images, '--name', 'lab', '--version', 'v1')
    write_content(made['base'].path, 1, made['base'].virtual_size, 'new')
    done = tool.run('create', images, '--version', 'v2')
    said = ' '.join(done.stderr.split())
    assert 'nfs:v1 stays on base:v1; base.qcow2 has changed since' in said
    assert versions_of(images, 'nfs') == ['v1']
    write_content(made['base'].path, 1, made['base'].virtual_size, 'newer')
    made['nfs'].path.touch()
    done = tool.data('create', images, '--version', 'v3')
    assert {one['image']: one['base'] for one in done['published']} == {
        'base:v3': None, 'nfs:v3': 'base:v3',
    }
    tool.run('lint', images, '--deep')


def test_what_was_removed_is_dropped_unless_something_stands_on_it(
    admin: Path, tool: Tool
) -> None:
    tool.run('create', admin, '--name', 'lab', '--version', 'v1')
    for path in admin.glob('*.qcow2'):
        path.unlink()
    done = tool.run('create', admin)
    assert 'stays on' not in done.stderr
    assert '0 images published' in done.stdout
    before = state_of(admin)
    nfs = admin / 'published/nfs/v1.qcow2.zst'
    kept = nfs.read_bytes()
    nfs.unlink()
    said = tool.fail('create', admin)
    assert 'iscsi:v1 stands on nfs:v1, whose published file is gone' in said
    assert 'remove published/iscsi/v1.qcow2.zst as well' in said
    nfs.write_bytes(kept)
    assert state_of(admin) == before
    (admin / 'published/iscsi/v1.qcow2.zst').unlink()
    nfs.unlink()
    assert tool.data('create', admin)['dropped'] == ['iscsi:v1', 'nfs:v1']
    assert not (admin / 'published/nfs').exists()
    tool.run('lint', admin, '--deep')
    nfs = admin / 'published/base/v1.qcow2.zst'
    nfs.write_bytes(nfs.read_bytes()[:-1])
    assert 'bytes, the index says' in tool.fail('create', admin)


def test_what_was_removed_comes_back_where_its_original_stays(
    admin: Path, tool: Tool
) -> None:
    tool.run('create', admin, '--name', 'lab', '--version', 'v1')
    (admin / 'published/iscsi/v1.qcow2.zst').unlink()
    done = tool.run(
        '--out-format', 'json', 'create', admin, '--version', 'v1'
    )
    said = ' '.join(done.stderr.split())
    assert 'iscsi:v1 was published again' in said
    assert 'iscsi.qcow2 is still here; to drop it, remove both' in said
    answer = json.loads(done.stdout)
    assert answer['dropped'] == []
    assert [one['image'] for one in answer['published']] == ['iscsi:v1']


def test_in_place_nothing_is_kept_twice(
    forest: Dict[str, DiskImage], admin: Path, tool: Tool, tmp_path: Path
) -> None:
    done = tool.data(
        'create', admin, '--name', 'lab', '--in-place', '--compress', 'none',
        '--version', 'v1',
    )
    assert {one['file'] for one in done['published']} == {
        f'{name}.qcow2' for name in forest
    }
    tool.run('lint', admin, '--deep')
    assert tool.data('create', admin)['unchanged'] == 4
    check_init(forest, tmp_path / 'box', admin / 'repo.metadata')


@pytest.mark.parametrize('dialect', ['images-2015', 'images-head'])
@pytest.mark.parametrize('packed', ['xz', None])
def test_a_directory_of_lago_images_becomes_a_whole_repository(
    forest: Dict[str, DiskImage], tool: Tool, dialect: str,
    packed: Optional[str], tmp_path: Path,
) -> None:
    """Its bases are in `.metadata`; names and versions stay what they were.
    """
    with Nginx(tmp_path / 'www') as server:
        repo = Publisher(
            tmp_path / 'www', base_url=f'{server.url}/', dialect=dialect,
            compression=packed,
        )
        repo.add_forest(forest)
        repo.write()
        before = {
            template: list(one['versions'])
            for template, one in index_of(repo.root)['templates'].items()
        }
        tool.run('create', repo.root)
        assert before == {
            template: list(one['versions'])
            for template, one in index_of(repo.root)['templates'].items()
        }
        tool.run('lint', repo.root, '--deep')
        server.forget()
        check_init(forest, tmp_path / 'box', f'{server.url}/repo.metadata')
        assert len(server.requests()) == 5
        assert tool.data('create', repo.root)['unchanged'] == 4


def test_raw_images_and_links(
    forest: Dict[str, DiskImage], tool: Tool, tmp_path: Path
) -> None:
    """A raw base, and a layer that names it as the README of old advised."""
    images = tmp_path / 'images'
    images.mkdir()
    raw = images / 'disk.img'
    run('qemu-img', 'convert', '-O', 'raw', forest['base'].path, raw)
    (images / 'raw-base:v1').symlink_to('disk.img')
    layer = images / 'layer.qcow2'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b',
        './raw-base:v1', layer)
    write_content(layer, 1, forest['base'].virtual_size, 'over raw')
    (images / 'README.md').write_text('No image.')
    (images / 'notes').write_text('No image either.')
    done = tool.data(
        'create', images, '--name', 'lab', '--compress', 'none',
        '--version', 'v1',
    )
    assert {one['image']: one['base'] for one in done['published']} == {
        'disk:v1': None, 'layer:v1': 'disk:v1',
    }
    copy = images / 'published/disk/v1.raw'
    assert copy.stat().st_blocks * 512 < copy.stat().st_size / 1.5
    tool.run('lint', images, '--deep')
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'layer', 'vm1': 'disk'},
        repo=images / 'repo.metadata',
    )
    init_well(box)
    assert guest_digest(box.disk('vm0')) == guest_digest(layer)
    assert guest_digest(box.disk('vm1')) == forest['base'].guest_sha256
    raw.touch()
    layer.touch()
    assert tool.data('create', images)['unchanged'] == 2


#: Lago's own classes, in a process that never loads the plugin. They were
#: written for Python 2, whose urllib took an answer of 404 as it came.
PLAIN_LAGO = '''
import http.client, sys, urllib.request
http.client.HTTPMessage.getheaders = http.client.HTTPMessage.get_all
class AsItComes(urllib.request.HTTPErrorProcessor):
    def http_response(self, request, response):
        return response
urllib.request.install_opener(urllib.request.build_opener(AsItComes))
from lago import templates, utils
utils.CommandStatus.__bool__ = lambda status: bool(status.code)
repo = templates.TemplateRepository.from_url(sys.argv[1])
version = repo.get_by_name('base').get_version()
version.download(sys.argv[2])
assert 'lago_layered_provider' not in sys.modules
sha1 = version.get_hash()
print('found', version.get_metadata(), version.timestamp(),
      sha1 if isinstance(sha1, str) else sha1.decode())
'''


@pytest.mark.parametrize('over, compress', [('file', 'none'), ('http', 'xz')])
def test_a_plain_lago_reads_flat_images(
    forest: Dict[str, DiskImage], tool: Tool, over: str, compress: str,
    tmp_path: Path,
) -> None:
    """Files as they are, and .xz over HTTP: more it never could."""
    images = tmp_path / 'images'
    images.mkdir()
    shutil.copy(forest['base'].path, images)
    with Nginx(images) as server:
        url = ['--base-url', f'{server.url}/'] if over == 'http' else []
        tool.run(
            'create', images, '--name', 'lab', '--compress', compress, *url
        )
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', PLAIN_LAGO,
             'repo.metadata', tmp_path / 'image'],
            cwd=images, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding='utf-8', check=False,
        )
    assert done.returncode == 0, done.stdout
    [entry] = index_of(images)['templates']['base']['versions'].values()
    assert done.stdout.split('found ')[1].split() == [
        '{}', str(entry['timestamp']), entry['sha1']
    ]
    assert run('sha1sum', tmp_path / 'image').split()[0] == entry['sha1']


def spoil(directory: Path) -> None:
    """Put all kinds of images into a directory that cannot be published."""
    base = directory / 'base.qcow2'
    (directory / 'lost.qcow2').write_bytes(b'')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b',
        '/far/away.qcow2', '-F', 'qcow2', directory / 'alone.qcow2', '1M')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
        f'data_file={directory}/x.bin', directory / 'outside.qcow2', '1M')
    (directory / 'x.bin').unlink()
    shutil.copy(base, directory / 'two words.qcow2')
    broken = directory / 'broken.qcow2'
    shutil.copy(base, broken)
    with open(broken, 'r+b') as stream:
        stream.seek(3 * 65536)
        stream.write(b'\xff' * 4096)
    (directory / 'cut.qcow2.xz').write_bytes(b'\xfd7zXZ\0garbage')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', directory / 'none.qcow2',
        '0')
    for name, form in [('win.img', 'vpc'), ('box.qcow2', 'vmdk')]:
        run('qemu-img', 'create', '-q', '-f', form, '-o',
            'subformat=fixed' if form == 'vpc' else 'compat6=off',
            directory / name, '1M')
    (directory / 'page.raw').write_bytes(b'<html>404</html>'.ljust(1024))
    (directory / 'odd.img').write_bytes(bytes(1000001))
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-u', '-b',
        'base.qcow2', directory / 'over-raw.qcow2', '24M')
    (directory / 'other.qcow2.metadata').write_text('{')


@pytest.mark.quick
def test_what_holds_nothing_is_left_out(admin: Path, tool: Tool) -> None:
    alone = tool.root / 'alone'
    for directory in (alone, admin):
        directory.mkdir(exist_ok=True)
        (directory / 'lost.img').touch()
        run('qemu-img', 'create', '-q', '-f', 'qcow2',
            directory / 'none.qcow2', '0')
    words = ['--name', 'lab', '--version', 'v1']
    told = ['lost.img: it is empty', 'none.qcow2: its disk has 0 bytes']
    said = tool.fail('create', alone, *words)
    assert all(each in said for each in told), said
    assert not (alone / 'repo.metadata').exists()
    done = tool.run('create', admin, *words)
    said = ' '.join(done.stderr.split())
    assert all(f'{each}, and it is left out' in said for each in told), said
    index = json.loads((admin / 'repo.metadata').read_text())
    assert set(index['templates']) == {'base', 'nfs', 'iscsi', 'other'}
    tool.run('lint', admin, '--deep')


def test_all_that_is_in_the_way_is_told_at_once(
    admin: Path, tool: Tool
) -> None:
    tool.run('create', admin, '--name', 'lab', '--version', 'v1')
    before = state_of(admin / 'published')
    spoil(admin)
    said = tool.fail('create', admin)
    for words in (
        'win.img: it is a vhd image, expected qcow2 or raw',
        'box.qcow2: it is a vmdk image, expected qcow2',
        'page.raw: it is an HTML page',
        'odd.img: it is no image: no qcow2, and its 1000001 bytes',
        'over-raw.qcow2: its header says that its base is raw, and base:',
        "alone.qcow2 stands on '/far/away.qcow2', which is neither",
        'outside.qcow2: its data is in another file',
        "two words.qcow2: template 'two words' is not a name",
        'broken.qcow2: ERROR',
        'cut.qcow2.xz: ',
        'Nothing was published',
    ):
        assert words in said, words
    # Of qemu-img, which must not even open what has its data elsewhere.
    assert 'json:' not in said and said.count('outside.qcow2') == 1
    assert state_of(admin / 'published') == before
    tool.run('lint', admin, '--deep')


def test_a_directory_without_images(tool: Tool, tmp_path: Path) -> None:
    """Somebody has mistyped its name."""
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'notes.txt').write_text('No image.')
    said = tool.fail('create', images, '--name', 'lab')
    assert 'there are no images in it' in said
    assert not (images / 'repo.metadata').exists()
    assert 'has no name yet' in tool.fail('create', images)


def test_an_image_that_is_being_written_is_refused(
    admin: Path, tool: Tool
) -> None:
    with subprocess.Popen(
        ['qemu-io', '-f', 'qcow2', admin / 'base.qcow2'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdin and writer.stdout
        writer.stdin.write(b'write 0 65536\n')
        writer.stdin.flush()
        writer.stdout.readline()
        said = tool.fail('create', admin, '--name', 'lab')
        assert 'base.qcow2: ' in said and 'lock' in said
        writer.stdin.close()
    tool.run('create', admin, '--name', 'lab')


@pytest.mark.parametrize('arguments, words', [
    ([], 'it has no name yet; give it one: --name NAME'),
    (['--name', 'a b'], "--name 'a b' is not a name"),
    (['--name', 'lab', '--version', '-1'], None),
    (['--name', 'lab', '--version', 'a/b'], "--version 'a/b' is not a name"),
    (['--name', 'lab', '--base', 'nfs'], '--base nfs: expected IMAGE=BASE'),
    (['--name', 'lab', '--base', 'x=base'], 'no new image is called x'),
])
def test_options_that_cannot_be(
    admin: Path, tool: Tool, arguments: List[str], words: Optional[str]
) -> None:
    if words is None:  # argparse says it
        tool.run('create', admin, *arguments, code=2)
        return
    assert words in tool.fail('create', admin, *arguments)
    assert not (admin / 'repo.metadata').exists()


@pytest.mark.parametrize('compress', ['zst', 'xz', 'none'])
def test_a_full_disk(
    forest: Dict[str, DiskImage], compress: str, tmp_path: Path
) -> None:
    """What was published stays as it was, and no part of a file is left."""
    with SmallDisk(tmp_path / 'disk', 24) as disk:
        images = disk.path / 'images'
        images.mkdir()
        flatten(forest['nfs'].path, images / 'flat.qcow2')
        tool = Tool(tmp_path / 'work')
        tool.prefix_command = disk.enter(tool.root)
        where = tmp_path / 'disk/images'
        tool.run('create', where, '--name', 'lab', '--version', 'v1')
        before = state_of(images)
        shutil.copy(forest['base'].path, images)
        fill(disk, leave=MIB)
        said = tool.fail('create', where, '--compress', compress)
        assert 'no room left' in said
        assert 'Nothing was published' in said
        after = state_of(images)
        assert before.items() <= after.items()
        assert set(after) - set(before) <= {'base.qcow2'}
        assert not list(images.rglob('.*.part'))
        (disk.path / 'another').unlink()
        tool.run('create', where)
        tool.run('lint', where, '--deep')


def test_two_at_once(admin: Path, tool: Tool) -> None:
    """One waits for the other, and has nothing left to do."""
    first = tool.popen('create', admin, '--name', 'lab')
    second = tool.popen('create', admin, '--name', 'lab')
    outputs = [each.communicate(timeout=60)[0] for each in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(re.findall(r'(\d) images published', ''.join(outputs))) == [
        '0', '4'
    ]
    tool.run('lint', admin, '--deep')


@pytest.mark.slow
def test_a_client_never_sees_a_broken_repository(
    forest: Dict[str, DiskImage], tool: Tool, tmp_path: Path
) -> None:
    """SIGKILL at the steps of `create`, while another process polls."""
    images = tmp_path / 'images'
    take_images(forest, images)
    tool.run('create', images, '--name', 'lab', '--version', 'v0')
    generation = 0

    def start(env: Mapping[str, str]) -> subprocess.Popen[str]:
        nonlocal generation
        generation += 1
        for name in ('base', 'other', 'nfs', 'iscsi'):
            # A whole new generation; only the contents matter.
            new = tmp_path / 'new.qcow2'
            shutil.copy(images / f'{name}.qcow2', new)
            with open(new, 'ab') as stream:
                stream.write(bytes(65536))
            new.replace(images / f'{name}.qcow2')
        return tool.popen(
            'create', images, '--version', f'v{generation}', env=env
        )

    with Nginx(images) as server:
        polling = Polling(server.url, tmp_path / 'poll')
        with polling:
            steps = record(start, tmp_path / 'steps')
            for step in killed_at_steps(start, tmp_path / 'steps', steps, 16):
                print(step)
                polling.poll_once_more()
        tool.run('lint', server.url + '/', '--deep')
        # What a kill has left is no reason not to go on.
        tool.run('create', images, '--version', 'last')
        tool.run('lint', server.url + '/', '--deep')
    assert {path.name for path in images.rglob('.*')} == {
        '.lock', '.originals.json'
    }


class Polling:
    """Runs `lint --deep` on a server again and again."""

    def __init__(self, url: str, root: Path) -> None:
        self._stop = root / 'stop'
        self._polls = root / 'polls'
        root.mkdir()
        self._polls.touch()
        program = (
            'import os, sys\n'
            'from lago_layered_provider.__main__ import main\n'
            'while not os.path.exists(sys.argv[2]):\n'
            '    status = main(["lint", "--deep", sys.argv[1]])\n'
            '    if status:\n'
            '        sys.exit(status)\n'
            '    with open(sys.argv[3], "a") as polls:\n'
            '        polls.write("x")\n'
        )
        self._process = subprocess.Popen(
            [sys.executable, '-c', program, f'{url}/', self._stop,
             self._polls],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding='utf-8', env={
                **os.environ, 'LAGO__TEMPLATE_REPO__PROGRESS': 'none',
            },
        )

    def poll_once_more(self) -> None:
        """Wait for the end of a poll that is under way, or begins now."""
        count = self._polls.stat().st_size
        until(
            lambda: self._polls.stat().st_size > count
            or self._process.poll() is not None, 'one more poll',
        )

    def __enter__(self) -> Polling:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.touch()
        output = self._process.communicate(timeout=120)[0]
        assert self._process.returncode == 0, output[-3000:]


def expiry(admin: Path) -> Optional[float]:
    """Return for how many seconds an index counts, None for ever."""
    index = json.loads((admin / 'repo.metadata').read_text())
    end = index.get('expires')
    return None if end is None else end - index['timestamp']


def test_a_signed_repository(
    forest: Dict[str, DiskImage], admin: Path, signing: Signing,
    tmp_path: Path,
) -> None:
    tool = Tool(tmp_path / 'work', signing.environment)
    said = tool.fail('create', admin, '--name', 'lab', '--sign', 'nobody@x.y')
    assert 'nobody@x.y' in said
    assert not list(admin.glob('published/*/*'))
    tool.run('create', admin, '--name', 'lab', '--sign', 'admin@example.com')
    box = LagoSandbox(
        tmp_path / 'box', VMS, repo=admin / 'repo.metadata',
        env=signing.demanding,
    )
    init_well(box)
    check_disks(box, forest)
    # A signature that is not renewed would shut all clients out.
    said = tool.fail('create', admin)
    assert '--sign KEY' in said
    shutil.copy(admin / 'base.qcow2', admin / 'more.qcow2')
    sign = ('create', admin, '--sign', 'admin@example.com')
    tool.run(*sign)
    assert expiry(admin) is None
    said = tool.fail('create', admin, '--valid-for', '3')
    assert '--sign' in said
    tool.run(*sign, '--valid-for', '3')
    assert expiry(admin) == 3 * 86400
    # It is made anew, for as long, by each run.
    signature = admin / 'repo.metadata.asc'
    before = signature.stat().st_mtime_ns
    tool.run(*sign)
    assert expiry(admin) == 3 * 86400
    assert signature.stat().st_mtime_ns > before
    box.run('destroy', '-y')
    init_well(box)
