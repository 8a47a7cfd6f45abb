"""The lab: real images, repositories, servers and environments for tests.

It stands on the other side of what it tests: it knows of
``lago_layered_provider`` only what a publisher, a web server and a user at a
shell know, and never imports it, but for ``fork_server.py``, which does so in
a process of its own in order to run it.

    commands.py      run a tool; ``require`` one (skip on a laptop, fail in CI)
    images.py        chains and forests of qcow2 images; the guest's bytes
    tiny_linux.py    a bootable image, a marker per layer, a boot in qemu
    guest.py         the same with network, ssh and a guest agent
    libvirt.py       daemons of its own in namespaces, and a lago inside
    tcg_provider.py  Lago's VM provider for machines without KVM
    guestfs.py       libguestfs without KVM and without a kernel package
    fat_disk.py      its partition
    kernel.py        its kernel and initramfs
    publish.py       a repository directory: compress, sidecars, index
    dialects.py      what the indexes and sidecars of four publishers look like
    records.py       requests as a server saw them; how many at a time
    nginx.py         the well-behaved server
    rude_server.py   the one that fails on demand
    faults.py        what can go wrong with an answer, and for which requests
    ledger.py        its rules and its record of requests
    response.py      what a correct server answers
    rude_handler.py  sends that, as badly as asked for
    environments.py  a LagoInitFile, a store, and the real ``lago`` on them
    starting.py      starts it, or asks ``fork_server.py`` for a fork
    fork_server.py   has it imported, and forks for each command
    kept.py          keeps what was built from one run to the next
    steps.py         kills a command before a chosen change of the files
    terminal.py      a pseudo-terminal with keys, and what a person sees
    running.py       a ``lago`` that runs while a test looks on or kills it
    stores.py        is what is visible in a store right, is it at rest?
    checks.py        what holds for every environment that was made
    world.py         all of these in order, for a test to spoil and to mend
    tool.py          ``python -m lago_layered_provider``, without a Lago
    signing.py       a key of gpg, and a keyring that trusts it
    small_disk.py    a real disk with little room
    builder.py       a source of virt-builder with a tiny system
    stand_ins.py     stand-ins for virt-builder and its kin, for what fails
    showcase.py      the demo's repository
    report.py        steps, paragraphs and tables, for people

A walk through all of it::

    forest = make_forest(tmp / 'src', {
        'base': ImageSpec(8), 'nfs': ImageSpec(2, 'base')})
    repo = Publisher(tmp / 'www', name='lab')
    repo.add_forest(forest)
    repo.write()
    with Nginx(tmp / 'www') as server:
        box = LagoSandbox(tmp / 'box', {'vm0': 'nfs'},
                          repo=server.url + '/repo.metadata')
        done = box.run('init', '--skip-bootstrap')
        assert done.code == 0, done.stderr
        assert guest_digest(box.disk('vm0')) == forest['nfs'].guest_sha256
"""

from __future__ import annotations

from .checks import check_disks, init_well, links_of
from .commands import have, require, run
from .dialects import Published
from .environments import Finished, LagoSandbox
from .faults import Fault
from .images import (
    DiskImage, ImageSpec, backing_chain, flatten, guest_digest, make_chain,
    make_forest,
)
from .nginx import Nginx
from .publish import Publisher
from .records import Request, image_requests, max_in_flight, overlap
from .rude_server import RudeServer
from .tiny_linux import TinyLinux, boot, markers_of

__all__ = [
    'DiskImage', 'Fault', 'Finished', 'ImageSpec', 'LagoSandbox', 'Nginx',
    'Published', 'Publisher', 'Request', 'RudeServer', 'TinyLinux',
    'backing_chain', 'boot', 'check_disks', 'flatten', 'guest_digest', 'have',
    'image_requests', 'init_well', 'links_of', 'make_chain', 'make_forest',
    'markers_of', 'max_in_flight', 'overlap', 'require', 'run',
]
