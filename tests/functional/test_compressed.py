"""Images whose clusters are compressed are kept as they were published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, check_disks, image_requests,
    init_well, links_of, run,
)
from tests.lab.images import CLUSTER
from tests.lab.publish import KEEP
from tests.lab.stores import check_visible

#: Incompatible feature bit 3: the compression type is not zlib.
#: https://www.qemu.org/docs/master/interop/qcow2.html
COMPRESSION_BIT = 1 << 3


def compress_clusters(
    image: DiskImage, target: Path, kind: str, below: Optional[Path]
) -> Path:
    """Write an image's own clusters compressed, on a base or on none."""
    backing: List[str] = []
    if below:
        backing = ['-B', f'./{below.name}', '-F', 'qcow2']
    run('qemu-img', 'convert', '-c', '-f', 'qcow2', '-O', 'qcow2',
        '-o', f'compression_type={kind}', *backing, image.path, target)
    return target


def info(path: Path) -> Any:
    return json.loads(run(
        'qemu-img', 'info', '-f', 'qcow2', '--output=json', path
    ))


def has_compressed(path: Path) -> bool:
    """Tell whether some of a file's own clusters are compressed.

    qemu writes those plainly that do not become smaller.
    """
    extents = json.loads(run(
        'qemu-img', 'map', '-f', 'qcow2', '--output=json', path
    ))
    # There is no offset to give for a compressed one.
    return any(
        each['depth'] == 0 and each['data'] and 'offset' not in each
        for each in extents
    )


@pytest.mark.parametrize('packing', [None, 'zst'])
@pytest.mark.parametrize('kind', ['zlib', 'zstd'])
def test_compressed_clusters_stay_as_they_are(
    kind: str, packing: Optional[str], forest: Dict[str, DiskImage],
    tmp_path: Path, server: Nginx,
) -> None:
    repo = Publisher(server.root, compression=packing)
    base = compress_clusters(
        forest['base'], tmp_path / 'base.qcow2', kind, None
    )
    layer = compress_clusters(
        forest['nfs'], tmp_path / 'nfs.qcow2', kind, base
    )
    repo.add(base, 'base', handle='base.qcow2')
    repo.add(layer, 'nfs', base='base', handle='nfs.qcow2', backing=KEEP)
    # A layer with plain clusters on it, as a build makes it in a hurry.
    plain = tmp_path / 'iscsi.qcow2'
    run('cp', forest['iscsi'].path, plain)
    run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', './nfs.qcow2',
        '-F', 'qcow2', plain)
    repo.add(plain, 'iscsi', base='nfs', handle='iscsi.qcow2', backing=KEEP)
    repo.write(f'{server.url}/')
    box = LagoSandbox(
        tmp_path / 'box', {'vm': 'nfs', 'vm2': 'iscsi'},
        repo=f'{server.url}/repo.metadata',
    )
    init_well(box)
    # Above all that they are, but for a header, the bytes as published.
    assert len(check_visible(box.store, repo)) == 3
    for name in 'base', 'nfs':
        stored = box.store / f'lab:{name}:v1'
        published = repo.images[f'{name}:v1'].image
        assert stored.read_bytes()[CLUSTER:] == (
            published.read_bytes()[CLUSTER:]
        )
        bits = int.from_bytes(stored.read_bytes()[72:80], 'big')
        assert bits == (COMPRESSION_BIT if kind == 'zstd' else 0)
        found = info(stored)['format-specific']['data']
        assert found['compression-type'] == kind
        assert has_compressed(stored)
        run('qemu-img', 'check', '-q', '-f', 'qcow2', stored)
    assert (box.store / 'lab:base:v1').read_bytes() == base.read_bytes()
    assert [name for name, _ in links_of(box.disk('vm2'))] == [
        'lab:iscsi:v1', 'lab:nfs:v1', 'lab:base:v1'
    ]
    check_disks(box, forest, vm='nfs', vm2='iscsi')
    done = box.run('template-repo', 'verify')
    assert done.code == 0, done.output
    assert len(image_requests(server.requests())) >= 3
