"""``add-layer`` and ``flatten``: real images, compared as guests see them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

import pytest

from tests.lab import (
    DiskImage, ImageSpec, LagoSandbox, Nginx, Publisher, flatten,
    guest_digest, make_forest, require, run,
)
from tests.lab.images import (
    CLUSTER, MIB, create, drop_backing_format, write_at,
)
from tests.lab.publish import checksums
from tests.lab.small_disk import SmallDisk, fill
from tests.lab.steps import killed_at_steps, record
from tests.lab.tool import Tool

#: The base has that many MiB of content, and the images change a half.
BASE_MIB = 16
CHANGED = 8 * MIB // CLUSTER


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, DiskImage]:
    """Build a base and a layer on it."""
    require('qemu-img', 'qemu-io')
    return make_forest(tmp_path_factory.mktemp('layering'), {
        'base': ImageSpec(BASE_MIB), 'nfs': ImageSpec(4, 'base'),
    })


@pytest.fixture
def tool(tmp_path: Path, images: Dict[str, DiskImage]) -> Tool:
    """Return the tool in a directory with copies of the images."""
    made = Tool(tmp_path / 'work')
    for image in images.values():
        shutil.copy(image.path, made.root)
    return made


def change(path: Path, count: int, seed: str = 'x') -> None:
    """Write over some clusters of a qcow2, with bytes like no others."""
    rng = random.Random(seed)
    chosen = rng.sample(range(BASE_MIB * MIB // CLUSTER), count)
    write_at(path, {
        number * CLUSTER: rng.getrandbits(8 * CLUSTER).to_bytes(
            CLUSTER, 'little'
        ) for number in chosen
    })


def differences(one: Path, other: Path) -> Tuple[int, int]:
    """Count the clusters that differ, and those of them with data.

    Both are as a guest sees them; what ends first goes on with zeros.
    """
    zeros = bytes(CLUSTER)
    changed = data = 0
    raws = [flatten(path, path.with_suffix('.seen'), form='raw')
            for path in (one, other)]
    with open(raws[0], 'rb') as old, open(raws[1], 'rb') as new:
        while True:
            was, now = old.read(CLUSTER), new.read(CLUSTER)
            if not was and not now:
                break
            now = now.ljust(CLUSTER, b'\0')
            if was.ljust(CLUSTER, b'\0') != now:
                changed += 1
                data += now != zeros
    for raw in raws:
        raw.unlink()
    return changed, data


def header_of(path: Path) -> Tuple[str, str]:
    """Return what the header names: backing file and its format."""
    said = json.loads(run(
        'qemu-img', 'info', '-f', 'qcow2', '--output=json', path
    ))
    return said['backing-filename'], said['backing-filename-format']


def check_layer(
    layer: Path, image: Path, base: Path, name: str, form: str = 'qcow2'
) -> None:
    """See that a layer is what its image is, and no larger than it must."""
    assert header_of(layer) == (name, form)
    assert guest_digest(layer) == guest_digest(image)
    _, data = differences(base, image)
    size = layer.stat().st_size
    # Header and tables of an empty layer are not content.
    empty = layer.with_suffix('.empty')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', empty, '1G')
    overhead = empty.stat().st_size + 2 * CLUSTER
    empty.unlink()
    assert data * CLUSTER <= size <= data * CLUSTER * 1.1 + overhead
    run('qemu-img', 'check', '-q', '-f', 'qcow2', layer)


def no_leftovers(directory: Path) -> None:
    assert [path for path in directory.iterdir()
            if path.name.startswith('.')] == []


@pytest.mark.quick
def test_a_full_image_becomes_a_layer(tool: Tool) -> None:
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    change(full, CHANGED)
    before = checksums(full), full.stat().st_mtime_ns
    out = tool.run('add-layer', 'base.qcow2', 'full.qcow2',
                   '--output', 'layer.qcow2').stdout
    layer = tool.root / 'layer.qcow2'
    assert 'layer.qcow2: a layer on ./base.qcow2' in out
    assert (checksums(full), full.stat().st_mtime_ns) == before
    changed, data = differences(tool.root / 'base.qcow2', full)
    assert changed == data == CHANGED
    # All of the file, tables too.
    assert abs(layer.stat().st_size / (CHANGED * CLUSTER) - 1) < 0.1
    check_layer(layer, full, tool.root / 'base.qcow2', './base.qcow2')
    no_leftovers(tool.root)


def test_the_answer_for_programs_and_the_usual_place(tool: Tool) -> None:
    """The layer lies beside its base, named as the image."""
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    change(full, CHANGED)
    away = tool.root / 'away'
    away.mkdir()
    full = full.rename(away / 'el7.raw.qcow2')
    answer = tool.data('add-layer', tool.root / 'base.qcow2', full)
    layer = tool.root / 'el7.raw.qcow2'
    assert answer['layer'] == str(layer)
    assert answer['base'] == './base.qcow2'
    assert answer['base_format'] == 'qcow2'
    assert answer['warnings'] == []
    # Less the holes that qemu leaves in its tables.
    for key, path in (('layer_size', layer), ('image_size', full)):
        assert 0 <= path.stat().st_size - answer[key] < 8 * CLUSTER
    saved = 100 * (1 - answer['layer_size'] / answer['image_size'])
    assert answer['saved_percent'] == round(saved, 1) > 50
    # A base elsewhere is named by the way to it.
    tool.run('add-layer', 'base.qcow2', full, '--output', 'away/layer.qcow2')
    check_layer(away / 'layer.qcow2', full, tool.root / 'base.qcow2',
                '../base.qcow2')


def test_zeros_take_no_room(tool: Tool) -> None:
    """Written zeros, not holes, and clusters that are zero in part only."""
    base = tool.root / 'base.qcow2'
    write_at(base, {
        # Half of each cluster, so that sectors tell nothing of clusters.
        number * CLUSTER: b'x' * (CLUSTER // 2) + bytes(CLUSTER // 2)
        for number in range(16, 80)
    })
    raw = flatten(base, tool.root / 'full.raw', form='raw')
    with open(raw, 'r+b') as stream:
        stream.seek(MIB)
        stream.write(bytes(16 * MIB))
        stream.seek(20 * MIB)
        stream.write(os.urandom(MIB))
    changed, data = differences(base, raw_to_qcow2(raw))
    assert changed > data + 64
    tool.run('add-layer', base, raw, '--output', 'layer.qcow2')
    layer = tool.root / 'layer.qcow2'
    assert layer.stat().st_size < 2 * MIB
    check_layer(layer, raw_to_qcow2(raw), base, './base.qcow2')


def raw_to_qcow2(raw: Path) -> Path:
    made = raw.with_suffix('.qcow2')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, made)
    return made


def test_a_raw_base_and_a_larger_disk(tool: Tool) -> None:
    raw = flatten(tool.root / 'base.qcow2', tool.root / 'old.img', form='raw')
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    size = raw.stat().st_size + 32 * MIB
    run('qemu-img', 'resize', '-q', '-f', 'qcow2', full, size)
    write_at(full, {size - MIB: b'end' * 1000, 5 * MIB: b'new' * 1000})
    answer = tool.data('add-layer', raw, full, '--output', 'layer.qcow2')
    assert answer['virtual_size'] == size
    assert answer['warnings'] == []
    check_layer(tool.root / 'layer.qcow2', full, raw_to_qcow2(raw),
                './old.img', 'raw')


def test_a_smaller_disk_is_warned_of(tool: Tool) -> None:
    full = tool.root / 'full.qcow2'
    create(full, 8 * MIB)
    write_at(full, {0: b'small' * 1000})
    done = tool.run('add-layer', 'base.qcow2', full, '--output', 'l.qcow2')
    assert 'smaller than that of its base' in ' '.join(done.stderr.split())
    assert guest_digest(tool.root / 'l.qcow2') == guest_digest(full)


def test_layers_as_image_and_as_base(tool: Tool) -> None:
    """An image that is a layer itself, and a base that is one."""
    image = tool.root / 'image.qcow2'
    create(image, (2 * BASE_MIB + 16) * MIB, tool.root / 'nfs.qcow2')
    write_at(image, {3 * MIB: b'third' * 9000})
    before = checksums(image)
    for below in ('nfs', 'base'):
        name = f'on-{below}.qcow2'
        tool.run('add-layer', f'{below}.qcow2', image, '--output', name)
        assert checksums(image) == before
        check_layer(tool.root / name, image, tool.root / f'{below}.qcow2',
                    f'./{below}.qcow2')


def test_an_image_of_something_else_is_warned_of(tool: Tool) -> None:
    other = make_forest(
        tool.root / 'other', {'other': ImageSpec(BASE_MIB)}, seed='other'
    )['other'].path
    done = tool.run('add-layer', 'base.qcow2', other, '--output', 'l.qcow2')
    message = ' '.join(done.stderr.split())
    assert 'l.qcow2: the layer is hardly smaller than the image' in message
    assert 'was probably not made from this base' in message


def spoil(tool: Tool) -> None:
    """Make files that must not be used."""
    root = tool.root
    (root / 'empty.qcow2').write_bytes(b'')
    (root / 'text.img').write_text('Do not forget the milk.\n')
    (root / 'odd.img').write_bytes(bytes(24))
    (root / 'packed').write_bytes(bytes(MIB))
    run('xz', '-1', root / 'packed')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
        'data_file=secret.raw,data_file_raw=on', 'outside.qcow2', '8M',
        cwd=root)
    for name, backing, form in (
        ('lost.qcow2', '/build/host/el7.qcow2', ['-F', 'qcow2']),
        ('net.qcow2', 'nbd://example.invalid/x', ['-F', 'raw']),
    ):
        run('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', *form,
            '-b', backing, root / name, '8M')


@pytest.mark.parametrize('base, image, output, words', [
    ('base.qcow2', './base.qcow2', 'l', ['base.qcow2 is the base itself']),
    ('base.qcow2', 'gone.qcow2', 'l', ['gone.qcow2: there is no such file']),
    ('gone.img', 'empty.qcow2', 'nfs.qcow2', [
        'gone.img: there is no such file', 'empty.qcow2: it is empty',
        'nfs.qcow2: it is there already',
    ]),
    ('base.qcow2', 'text.img', 'l', [
        "it is a text that begins with 'Do not forget the milk.'",
    ]),
    ('base.qcow2', 'odd.img', 'l', ['24 bytes are not whole sectors']),
    ('base.qcow2', 'packed.xz', 'l', ['compressed by xz, expected qcow2']),
    ('base.qcow2', '.', 'l', ['it is no file']),
    ('base.qcow2', 'outside.qcow2', 'l', ['external data file']),
    ('outside.qcow2', 'nfs.qcow2', 'l', ['external data file']),
    ('base.qcow2', 'lost.qcow2', 'l', [
        'the backing file of', 'is missing: /build/host/el7.qcow2',
    ]),
    ('base.qcow2', 'net.qcow2', 'l', ["'nbd://example.invalid/x'"]),
    ('base.qcow2', 'nfs.qcow2', 'no/l', ['there is no directory']),
    ('a:b:c', 'nfs.qcow2', 'l', ["'a:b:c'"]),
])
def test_what_cannot_be_a_layer(
    tool: Tool, base: str, image: str, output: str, words: List[str]
) -> None:
    require('xz')
    spoil(tool)
    before = sorted(tool.root.rglob('*'))
    message = tool.fail('add-layer', base, image, '--output', output)
    for word in words:
        assert word in message
    assert sorted(tool.root.rglob('*')) == before


def test_a_format_that_qemu_would_guess(tool: Tool) -> None:
    """What a raw disk looks like is decided by its guest."""
    raw = flatten(tool.root / 'base.qcow2', tool.root / 'raw', form='raw')
    image = tool.root / 'image.qcow2'
    create(image, raw.stat().st_size)
    run('qemu-img', 'rebase', '-q', '-u', '-f', 'qcow2', '-F', 'raw',
        '-b', './raw', image)
    drop_backing_format(image)
    message = tool.fail('add-layer', 'base.qcow2', image, '--output', 'l')
    assert 'does not say that ./raw is raw' in message
    assert 'qemu-img rebase -u -f qcow2 -F raw -b ./raw' in message
    # Its own magic is no guess.
    run('qemu-img', 'rebase', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2',
        '-b', './base.qcow2', image)
    drop_backing_format(image)
    tool.run('add-layer', 'base.qcow2', image, '--output', 'l')
    assert guest_digest(tool.root / 'l') == guest_digest(
        tool.root / 'base.qcow2'
    )


@pytest.fixture
def repository(
    forest: Dict[str, DiskImage], published: Publisher, tmp_path: Path,
    server: Nginx,
) -> LagoSandbox:
    """Serve the small forest; return an environment on it."""
    shutil.copytree(published.root, server.root, dirs_exist_ok=True)
    index = server.root / 'repo.metadata'
    text = index.read_text().replace('"baseurl": ""',
                                     f'"baseurl": "{server.url}"')
    assert server.url in text
    index.write_text(text)
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )


def test_the_base_is_a_template(
    repository: LagoSandbox, forest: Dict[str, DiskImage]
) -> None:
    box = repository
    full = flatten(forest['nfs'].path, box.root / 'full.img', form='raw')
    with open(full, 'r+b') as stream:
        stream.seek(2 * MIB)
        stream.write(b'changed' * 20_000)
    done = box.run('template-repo', 'add-layer', 'nfs', str(full))
    assert done.code == 0, done.output
    assert 'full.qcow2: a layer on ./nfs:v1' in done.stdout
    layer = box.root / 'full.qcow2'
    assert header_of(layer) == ('./nfs:v1', 'qcow2')
    assert layer.stat().st_size < MIB
    assert box.stored() == ['lab:base:v1', 'lab:nfs:v1']
    # The name is the template's, for `create`; in a store it leads there.
    for name in ('base', 'nfs'):
        os.symlink(box.store / f'lab:{name}:v1', box.root / f'{name}:v1')
        os.symlink(box.store / f'lab:{name}:v1', box.root / f'lab:{name}:v1')
    assert guest_digest(layer) == guest_digest(raw_to_qcow2(full))
    done = box.run('template-repo', 'add-layer', 'nsf', str(full),
                   '--output', 'l')
    assert done.code == 2
    assert 'nfs' in done.stderr and 'Traceback' not in done.output


def test_flatten(
    repository: LagoSandbox, forest: Dict[str, DiskImage]
) -> None:
    box = repository
    done = box.run('template-repo', 'flatten', 'iscsi')
    assert done.code == 0, done.output
    flat = box.root / 'iscsi-v1.qcow2'
    assert 'iscsi-v1.qcow2: iscsi:v1 without a base' in done.stdout
    assert guest_digest(flat) == forest['iscsi'].guest_sha256
    said = run('qemu-img', 'info', '-f', 'qcow2', flat)
    assert 'backing file' not in said
    assert flat.stat().st_size < 8 * MIB
    # Nothing is replaced, and nothing else is left.
    before = checksums(flat)
    done = box.run('template-repo', 'flatten', 'iscsi:v1')
    assert done.code == 2
    assert 'it is there already' in ' '.join(done.stderr.split())
    assert checksums(flat) == before
    no_leftovers_but = {path.name for path in box.root.iterdir()
                        if path.name.startswith('.')}
    assert no_leftovers_but <= {'.lago'}
    # The same without Lago.
    tool = Tool(box.root / 'tool')
    answer = tool.data('flatten', 'iscsi', '--repo', box.repo,
                       '--template-store', box.store, '--output', 'x.qcow2')
    assert answer['layers'] == 3
    assert answer['template'] == 'iscsi:v1'
    assert answer['size'] <= (tool.root / 'x.qcow2').stat().st_size
    assert guest_digest(tool.root / 'x.qcow2') == (
        forest['iscsi'].guest_sha256
    )
    message = tool.fail('flatten', 'iscsy', '--repo', box.repo)
    assert 'iscsy' in message and 'iscsi' in message


def test_killed_at_each_step(tool: Tool, tmp_path: Path) -> None:
    """No half layer is ever seen, and the next run clears away."""
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    change(full, CHANGED)
    layer = tool.root / 'layer.qcow2'
    command = ('add-layer', 'base.qcow2', 'full.qcow2', '--output', layer)

    def start(env: Mapping[str, str]) -> subprocess.Popen[str]:
        layer.unlink(missing_ok=True)
        return tool.popen(*command, env=env)

    steps = record(start, tmp_path / 'steps')
    for step in killed_at_steps(start, tmp_path / 'steps', steps, 12):
        print(step)
        if layer.exists():
            check_layer(layer, full, tool.root / 'base.qcow2',
                        './base.qcow2')
    layer.unlink(missing_ok=True)
    tool.run(*command)
    no_leftovers(tool.root)


def test_two_at_a_time(tool: Tool) -> None:
    """Neither takes the other's directory for that of a killed run."""
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    change(full, CHANGED)
    running = [
        tool.popen('add-layer', 'base.qcow2', 'full.qcow2',
                   '--output', f'{number}.qcow2') for number in range(3)
    ]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    for number in range(3):
        assert guest_digest(tool.root / f'{number}.qcow2') == guest_digest(
            full
        )
    no_leftovers(tool.root)


def test_a_full_disk(
    tool: Tool, tmp_path: Path, repository: LagoSandbox,
    forest: Dict[str, DiskImage],
) -> None:
    full = flatten(tool.root / 'base.qcow2', tool.root / 'full.qcow2')
    change(full, CHANGED)
    with SmallDisk(tmp_path / 'small', 24) as disk:
        tool.prefix_command = disk.enter(tool.root)
        fill(disk, leave=4 * MIB)
        message = tool.fail('add-layer', 'base.qcow2', 'full.qcow2',
                            '--output', tmp_path / 'small' / 'l.qcow2')
        assert f'{tmp_path / "small"}: - no room left' in message
        assert 'Nothing was left there' in message
        assert [path.name for path in disk.path.iterdir()] == ['another']
        # A chain tells before how large it becomes.
        arguments = ('flatten', 'iscsi', '--repo', repository.repo,
                     '--output', tmp_path / 'small' / 'f.qcow2')
        message = tool.fail(*arguments)
        assert f'{tmp_path / "small"}: not enough room' in message
        assert [path.name for path in disk.path.iterdir()] == ['another']
        (disk.path / 'another').unlink()
        tool.run(*arguments)
        assert guest_digest(disk.path / 'f.qcow2') == (
            forest['iscsi'].guest_sha256
        )
