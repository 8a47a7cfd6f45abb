"""A store without room, without the right to write, or that is none.

The disks are real: a small or read-only tmpfs in a mount namespace, which
the test's ``lago`` enters and which vanishes with the process that holds it.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.lab import DiskImage, Finished, Publisher, require
from tests.lab import run as run_tool
from tests.lab.small_disk import SmallDisk, fill
from tests.lab.world import World, check_leftovers, message_of

KIB = 1024
MIB = 1024 * KIB
START_SECONDS = 20.0
VMS = {'vm0': 'iscsi', 'vm1': 'other'}


def in_small_disk(
    tmp_path: Path, published: Publisher, disk: SmallDisk, **settings: object
) -> World:
    """Make a world whose store is on the disk; no bytes are held back."""
    world = World(tmp_path / 'world', published, VMS, store=tmp_path / 'store')
    world.box.prefix_command = disk.enter(world.box.root)
    world.box.config['template_repo'].update({'reserve': 0, **settings})
    world.box.write()
    return world


def complete_inside(
    world: World, disk: SmallDisk, forest: Dict[str, DiskImage]
) -> List[str]:
    """Return the templates on the disk, all of them complete."""
    inside, world.box.store = world.box.store, disk.path
    try:
        return world.complete(forest)
    finally:
        world.box.store = inside


def images_sent(world: World) -> List[str]:
    return [
        each.path for each in world.server.requests() if each.is_image
    ]


def run(world: World, disk: SmallDisk) -> None:
    """See ``lago init`` succeed, with the disks' bytes as published."""
    done = world.box.init()
    assert done.code == 0, done.output
    for vm in VMS:
        assert world.box.disk(vm).exists()


def test_no_room_is_refused_before_the_first_byte(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with SmallDisk(tmp_path / 'store', 3) as disk, in_small_disk(
        tmp_path, published, disk
    ) as world:
        message = world.fail()
        plain = ' '.join(message.split())
        assert f'{tmp_path / "store"}: not enough room' in plain
        need, free, short = amounts(plain)
        assert need - free == short > 0
        assert 2.5 * MIB < free <= 3 * MIB
        images = published.images
        assert need >= sum(image.size for image in images.values())
        for image in images.values():
            assert f'lab:{image.name}: {image.size} bytes' in plain
        assert '--template-store' in plain
        assert images_sent(world) == []
        assert complete_inside(world, disk, forest) == []
        disk.mount('size=64m')
        run(world, disk)
        assert len(complete_inside(world, disk, forest)) == 4


def amounts(message: str) -> List[int]:
    """Return the bytes needed, free and short."""
    found = re.search(
        r'needed (\d+) bytes .* free (\d+) bytes .* short (\d+) bytes',
        message,
    )
    assert found, message
    return [int(number) for number in found.groups()]


def test_reserve_counts(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with SmallDisk(tmp_path / 'store', 64) as disk, in_small_disk(
        tmp_path, published, disk, reserve='60M'
    ) as world:
        _, free, _ = amounts(' '.join(world.fail().split()))
        assert free <= 4 * MIB
        world.box.config['template_repo']['reserve'] = '5 percent'
        world.box.write()
        run(world, disk)


def test_what_is_present_needs_no_room(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with SmallDisk(tmp_path / 'store', 64) as disk, in_small_disk(
        tmp_path, published, disk
    ) as world:
        run(world, disk)
        fill(disk, leave=0)
        done = init_again(world)
        assert done.code == 0, done.output


def init_again(world: World) -> Finished:
    """Run ``lago init`` for another environment on the same store."""
    return world.box.init(str(world.root / 'second'), 'LagoInitFile')


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f'{path} does not appear'
        time.sleep(0.02)


def test_full_disk_keeps_what_was_fetched(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with SmallDisk(tmp_path / 'store', 64) as disk, in_small_disk(
        tmp_path, published, disk, jobs=1
    ) as world:
        # Slow enough to fill the disk in the middle of the last layer.
        world.server.fail('/nfs*', rate=300 * KIB)
        process = world.box.popen('init', '--skip-bootstrap')
        wait_for(disk.path / 'lab:base:v1')
        fill(disk, leave=128 * KIB)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 2, stderr
        message = finished_message(process.returncode, stdout, stderr)
        assert f'{tmp_path / "store"}: no room left' in message
        assert 'bytes free' in message
        assert 'What was fetched is kept.' in message
        assert '--template-store' in message
        check_leftovers(world.box)
        (disk.path / 'another').unlink()
        assert complete_inside(world, disk, forest) == ['base']
        world.server.heal()
        world.server.forget()
        run(world, disk)
        assert len(complete_inside(world, disk, forest)) == 4
        assert '/base-v1.qcow2.xz' not in images_sent(world)


def finished_message(code: int, stdout: str, stderr: str) -> str:
    return ' '.join(message_of(Finished(code, stdout, stderr)).split())


def test_read_only_store(
    tmp_path: Path, published: Publisher, forest: Dict[str, DiskImage]
) -> None:
    with SmallDisk(tmp_path / 'store', 64) as disk, in_small_disk(
        tmp_path, published, disk
    ) as world:
        disk.mount('ro')
        plain = ' '.join(world.fail().split())
        assert f'{tmp_path / "store"}: the store cannot be written' in plain
        assert 'ead-only' in plain
        assert '--template-store' in plain
        assert images_sent(world) == []
        disk.mount('rw')
        run(world, disk)
        # A store that is complete need not be written.
        disk.mount('ro')
        done = init_again(world)
        assert done.code == 0, done.output


@pytest.fixture
def world(tmp_path: Path, published: Publisher) -> Iterator[World]:
    with World(tmp_path, published, {'vm0': 'iscsi'}) as made:
        yield made


def test_no_right_to_write(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    if os.geteuid() == 0:
        # Root without the right to ignore modes is a user like others.
        require('setpriv')
        world.box.prefix_command = [
            'setpriv', '--bounding-set=-dac_override,-dac_read_search',
        ]
    world.box.store.mkdir(mode=0o555)
    plain = ' '.join(world.fail().split())
    assert f'{world.box.store}: the store cannot be written' in plain
    assert images_sent(world) == []
    world.box.store.chmod(0o755)
    world.succeed(forest)


@pytest.mark.quick
def test_store_that_is_a_file(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    world.box.store.write_text('')
    plain = ' '.join(world.fail().split())
    assert str(world.box.store) in plain
    assert images_sent(world) == []
    world.box.store.unlink()
    world.succeed(forest)


def test_image_that_is_a_directory(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    image = world.box.store / 'lab:nfs:v1'
    image.mkdir(parents=True)
    plain = ' '.join(world.fail().split())
    assert f'{image} is not a file' in plain
    assert 'Remove it' in plain
    image.rmdir()
    world.succeed(forest)


def test_foreign_image_in_the_store(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    """Nobody verified it, and its header leads elsewhere."""
    world.box.store.mkdir()
    image = world.box.store / 'lab:nfs:v1'
    image.write_bytes(world.take_image('nfs').read_bytes())
    run_tool('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '/etc/passwd',
             '-F', 'raw', image)
    plain = ' '.join(world.fail().split())
    assert f'{image}: refused before use' in plain
    assert "backing file '/etc/passwd' (a path of the host)" in plain
    assert 'remove it' in plain
    image.unlink()
    world.succeed(forest)


def test_a_complete_store_that_somebody_else_keeps(
    world: World, forest: Dict[str, DiskImage]
) -> None:
    """The directory can be written, but not what is noted in it."""
    world.succeed(forest)
    if os.geteuid() == 0:
        require('setpriv')
        world.box.prefix_command = [
            'setpriv', '--bounding-set=-dac_override,-dac_read_search',
        ]
    noted = [*(world.box.store / '.layered').rglob('*')]
    for path in [*noted, world.box.store / '.layered']:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = init_again(world)
    assert done.code == 0, done.output
    assert 'will not know of this environment' in ' '.join(
        done.output.split()
    )
    for path in [world.box.store / '.layered', *noted]:
        path.chmod(0o755 if path.is_dir() else 0o644)
