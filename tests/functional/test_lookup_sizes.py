"""Sizes that are told without fetching, against files of the real tools."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import List, Optional

import pytest

from lago_layered_provider.formats.qcow2_peek import (
    FIRST_BYTES, largest_file, peek_header, peek_length,
)
from lago_layered_provider.formats.zstd import parse_content_size
from tests.lab import require, run

MIB = 1 << 20

#: A bound that is far above would make people free room for nothing.
SLACK = 1.03
SLACK_CLUSTERS = 16


def bound_of(image: Path) -> Optional[int]:
    """Return the bound, from no more bytes than it should need."""
    with open(image, 'rb') as stream:
        first = stream.read(FIRST_BYTES)
        head = first + stream.read(peek_length(first) - len(first))
    return largest_file(peek_header(head))


def create(image: Path, size: int, *options: str) -> None:
    require('qemu-img')
    given = ['-o', ','.join(options)] if options else []
    run('qemu-img', 'create', '-q', '-f', 'qcow2', *given, image, str(size))


def fill(image: Path, size: int, order: List[int]) -> None:
    """Write every 64 KiB of a disk, in an order of its own."""
    step = 64 << 10
    commands = []
    for place in order:
        length = min(step, size - place * step)
        commands += ['-c', f'write -q -P 1 {place * step} {length}']
    subprocess.run(
        ['qemu-io', '-f', 'qcow2', '-t', 'unsafe', *commands, str(image)],
        check=True, timeout=120,
    )


@pytest.mark.parametrize('options, cluster_bits', [
    (options, bits)
    for options, smallest in (
        ([], 9), (['refcount_bits=1'], 9), (['refcount_bits=64'], 9),
        (['compat=0.10'], 9), (['extended_l2=on'], 14),
    )
    for bits in range(smallest, 22)
])
def test_full_image_is_within_the_bound(
    options: List[str], cluster_bits: int, tmp_path: Path
) -> None:
    image = tmp_path / 'image'
    cluster = 1 << cluster_bits
    for size in (0, 512, 21 * MIB + 512):
        create(
            image, size, f'cluster_size={cluster}', 'preallocation=falloc',
            *options,
        )
        bound = bound_of(image)
        found = image.stat().st_size
        assert bound is not None
        assert found <= bound <= found * SLACK + SLACK_CLUSTERS * cluster


@pytest.mark.parametrize('cluster', [512, 4096, 65536, 2 * MIB])
def test_written_and_grown_image_is_within_the_bound(
    cluster: int, tmp_path: Path
) -> None:
    image = tmp_path / 'image'
    create(image, 4 * MIB, f'cluster_size={cluster}', 'refcount_bits=64')
    size = 24 * MIB
    run('qemu-img', 'resize', '-q', '-f', 'qcow2', image, str(size))
    order = list(range(size >> 16))
    random.Random('order').shuffle(order)
    fill(image, size, order)
    bound = bound_of(image)
    assert bound is not None
    assert image.stat().st_size <= bound


@pytest.mark.parametrize('change', ['snapshot', 'bitmap'])
def test_more_than_the_disk_has_no_bound(
    change: str, tmp_path: Path
) -> None:
    image = tmp_path / 'image'
    create(image, 4 * MIB)
    assert bound_of(image) is not None
    if change == 'snapshot':
        run('qemu-img', 'snapshot', '-c', 'one', image)
    else:
        run('qemu-img', 'bitmap', '--add', '-f', 'qcow2', image, 'one')
    assert bound_of(image) is None


def test_backing_name_is_read_from_few_bytes(tmp_path: Path) -> None:
    base, layer = tmp_path / 'base', tmp_path / 'layer'
    create(base, MIB)
    create(layer, MIB, 'cluster_size=2M', f'backing_file={base}',
           'backing_fmt=qcow2')
    head = layer.read_bytes()[:64 << 10]
    assert peek_length(head[:FIRST_BYTES]) == len(head)
    assert peek_header(head).backing_file == str(base)


@pytest.mark.parametrize('size', [0, 1, 255, 256, 65791, 65792, 3 * MIB])
@pytest.mark.parametrize('options', [[], ['--no-check'], ['--long=27']])
def test_frame_tells_its_size(
    size: int, options: List[str], tmp_path: Path
) -> None:
    require('zstd')
    plain, packed = tmp_path / 'plain', tmp_path / 'packed'
    plain.write_bytes(bytes(size))
    run('zstd', '-q', *options, plain, '-o', packed)
    assert parse_content_size(packed.read_bytes()[:18]) == size
    run('sh', '-c', 'zstd -q < "$1" > "$2"', 'sh', plain, packed)
    assert parse_content_size(packed.read_bytes()[:18]) is None or not size
