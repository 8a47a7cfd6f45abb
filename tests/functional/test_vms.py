"""VMs on layered disks, under a real libvirt: from start to destroy.

The guests are tiny Linuxes that print the markers of their layers, and that
can be reached over ssh. They are emulated, as KVM is not there everywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.lab import (
    Finished, LagoSandbox, Publisher, init_well, markers_of, require,
)
from tests.lab.guest import LAST_WORDS, GuestLinux
from tests.lab.libvirt import Libvirt, wait_until
from tests.lab.tiny_linux import BOOT_SECONDS, make_layers

BASES = {'base': None, 'nfs': 'base', 'iscsi': 'nfs', 'other': 'base'}
CHAIN = ['iscsi', 'nfs', 'base']

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture(scope='module')
def repository(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Path:
    """Publish a chain of three and a second layer on its base."""
    require('zstd')
    linux = GuestLinux(pytestconfig.rootpath / '.cache' / 'tiny')
    root = tmp_path_factory.mktemp('guests')
    disks = make_layers(linux, root / 'built', BASES)
    repo = Publisher(root / 'www', source='file', compression='zst')
    for name, base in BASES.items():
        repo.add(disks[name], name, base=base)
    repo.write()
    return repo.index_path


@pytest.fixture
def libvirt() -> Iterator[Libvirt]:
    with Libvirt() as running:
        yield running


def lago(box: LagoSandbox, *arguments: str) -> Finished:
    """Run a command of Lago and insist on success."""
    done = box.run(*arguments)
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    return done


def in_guest(box: LagoSandbox, vm: str, command: str) -> List[str]:
    """Run a command in a guest, once it can be reached; return its words."""
    return lago(box, 'shell', vm, '-c', command).stdout.split()


def status(box: LagoSandbox) -> Dict[str, Any]:
    """Return what ``lago status`` says of each VM."""
    printed = lago(box, '--out-format', 'json', 'status').stdout
    vms: Dict[str, Any] = json.loads(printed)['Prefix']['VMs']
    return vms


def states(box: LagoSandbox) -> Dict[str, str]:
    return {name: vm['status'] for name, vm in status(box).items()}


def layers_seen(box: LagoSandbox, vm: str) -> List[List[str]]:
    """Return the layers, base first, that each complete boot has printed."""
    console = box.workdir / 'default' / 'logs' / f'{vm}.console'
    boots = console.read_text().replace('\r', '').split(LAST_WORDS)
    return [markers_of(boot) for boot in boots[:-1]]


def files_of(libvirt: Libvirt) -> List[Path]:
    """Return the disk of the only domain and all files below it."""
    [domain] = libvirt.domains()
    found = re.findall(r"<source file='(.*?)'", libvirt.virsh(
        'dumpxml', domain
    ))
    return [Path(path) for path in found]


def facts_of(store: Path) -> Dict[str, Tuple[str, int, int, int, int]]:
    """Return what must not change of the images in the store."""
    found = {path: path.stat() for path in store.glob('lab:*:v1')}
    return {
        path.name: (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            facts.st_mode, facts.st_uid, facts.st_ino, facts.st_mtime_ns,
        )
        for path, facts in found.items()
    }


def check_stopped(box: LagoSandbox, libvirt: Libvirt) -> None:
    """Insist that nothing of the environment is left in libvirt."""
    assert libvirt.domains() == libvirt.networks() == []
    assert libvirt.links() == ['lo']
    programs = ' '.join(libvirt.processes())
    assert 'libvirtd' in programs
    assert 'qemu' not in programs and 'dnsmasq' not in programs


def destroy(box: LagoSandbox, libvirt: Libvirt) -> None:
    """Run ``lago destroy`` and insist that nothing is left."""
    lago(box, 'destroy', '--yes')
    assert not box.workdir.joinpath('default').exists()
    leases = [path.name for path in (box.root / 'leases').iterdir()]
    assert leases == ['subnet-lease.lock']
    check_stopped(box, libvirt)


def test_guests_see_their_layers_from_start_to_destroy(
    libvirt: Libvirt, repository: Path, tmp_path: Path
) -> None:
    box = libvirt.sandbox(
        tmp_path / 'box', {'vm0': 'iscsi', 'vm1': 'other'}, repository
    )
    init_well(box)
    before = facts_of(box.store)
    lago(box, 'start')
    assert len(libvirt.domains()) == 2 and len(libvirt.networks()) == 1
    assert in_guest(box, 'vm0', 'cat /mnt/layers/*') == [
        'base', 'nfs', 'iscsi'
    ]
    in_guest(box, 'vm0', 'echo kept >/mnt/kept.txt')
    wait_until(lambda: layers_seen(box, 'vm1') != [], BOOT_SECONDS)
    assert states(box) == {'vm0': 'running', 'vm1': 'running'}
    lago(box, 'stop')
    check_stopped(box, libvirt)
    assert layers_seen(box, 'vm1') == [['base', 'other']]
    lago(box, 'start', 'vm0')
    assert states(box) == {'vm0': 'running', 'vm1': 'down'}
    assert in_guest(box, 'vm0', 'cat /mnt/kept.txt') == ['kept']
    assert layers_seen(box, 'vm0') == [['base', 'nfs', 'iscsi']] * 2
    # The guest itself powers off.
    lago(box, 'shutdown')
    check_stopped(box, libvirt)
    destroy(box, libvirt)
    assert facts_of(box.store) == before


def test_snapshots_on_a_chain_of_layers(
    libvirt: Libvirt, repository: Path, tmp_path: Path
) -> None:
    box = libvirt.sandbox(tmp_path / 'box', {'vm0': 'iscsi'}, repository)
    init_well(box)
    before = facts_of(box.store)
    assert {mode & 0o777 for _, mode, *_ in before.values()} == {0o444}
    lago(box, 'start')
    in_guest(box, 'vm0', 'echo one >/mnt/1.txt')
    lago(box, 'snapshot', 'first')
    first = files_of(libvirt)
    assert first[1:] == [
        box.disk('vm0'), *(box.store / f'lab:{name}:v1' for name in CHAIN)
    ]
    assert in_guest(box, 'vm0', 'echo two >/mnt/2.txt; cat /mnt/*.txt') == [
        'one', 'two'
    ]
    lago(box, 'snapshot', 'second')
    second = files_of(libvirt)
    assert second[0] not in first and second[1:] == first
    assert status(box)['vm0']['snapshots'] == 'first, second'
    # The topmost disk is made anew, on what the first snapshot has kept.
    lago(box, 'revert', 'first')
    assert files_of(libvirt) == [second[0], *first[1:]]
    assert in_guest(box, 'vm0', 'cat /mnt/*.txt') == ['one']
    assert layers_seen(box, 'vm0') == [CHAIN[::-1]] * 2
    # While it runs.
    destroy(box, libvirt)
    assert facts_of(box.store) == before
