"""A guest that boots from a disk of ``lago init`` sees all its layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import (
    LagoSandbox, Nginx, Publisher, TinyLinux, boot, init_well, markers_of,
    require,
)
from tests.lab.tiny_linux import make_layers

BASES = {'base': None, 'nfs': 'base', 'iscsi': 'nfs', 'other': 'base'}


@pytest.mark.vm
def test_guest_prints_the_markers_of_all_its_layers(
    tmp_path: Path, pytestconfig: pytest.Config, server: Nginx
) -> None:
    require('qemu-system-x86_64', 'qemu-img', 'mcopy', 'syslinux', 'zstd')
    linux = TinyLinux(pytestconfig.rootpath / '.cache' / 'tiny')
    disks = make_layers(linux, tmp_path / 'built', BASES)
    repo = Publisher(
        server.root, base_url=f'{server.url}/', compression='zst'
    )
    for name, base in BASES.items():
        repo.add(disks[name], name, base=base)
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'iscsi', 'vm1': 'other'},
        repo=f'{server.url}/repo.metadata',
    )
    init_well(box)
    assert markers_of(boot(box.disk('vm0'))) == ['base', 'nfs', 'iscsi']
    assert markers_of(boot(box.disk('vm1'))) == ['base', 'other']
