"""What an index leaves open is looked up in few requests, in all dialects.

A chain of three on a real server: for each dialect and compression, with all
the names that a header may give its base. `plan` says what it costs, `init`
whether it is right.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Published, Publisher, Request, RudeServer,
    check_disks, init_well, links_of, run,
)
from tests.lab.publish import KEEP

CHAIN = ('iscsi', 'nfs', 'base')

#: No look-up is answered with as many bytes.
MAX_BYTES = 2**18

#: Frames of a seekable .zst file, uncompressed.
FRAME_BYTES = 2**20

OTHER = 128 * 'd'

#: How a header names its base, given what was published.
FORMS: Dict[str, Callable[[Published], str]] = {
    'dot-version': lambda base: f'./{base.template}:{base.version}',
    'version': lambda base: f'{base.template}:{base.version}',
    'name': lambda base: base.template,
    'file': lambda base: f'{base.handle}',
    'dot-file': lambda base: f'./{base.handle}',
    'lago': lambda base: f'lago::{base.checksums["sha512"]}::{base.template}',
    'sha512': lambda base: f'{base.checksums["sha512"]}:{base.template}',
    'host': lambda base: f'/srv/image-repo/layer/{base.handle}',
    # What lago-images makes of a base that it had to decompress.
    'host-xz': lambda base: f'/srv/image-repo/layer/{base.handle}.xz',
    'host-relative': lambda base: f'./image-repo/layer/{base.handle}',
}


@dataclass(frozen=True)
class Case:
    """A repository, and what the look-ups for its chain may cost.

    Attributes:
        forms: names of the bases in the headers of nfs and iscsi.
        requests: for each layer, in the order in which they are looked up.
        exact: the plan knows the sizes.
    """

    dialect: str
    compression: Optional[str]
    forms: Sequence[str]
    requests: Sequence[int]
    exact: bool = True

    def __str__(self) -> str:
        return f'{self.dialect}-{self.compression}-{"-".join(self.forms)}'


#: Without sidecars: `.metadata` and `.hash` in two forms each, the first
#: bytes, the end. The first layer also shows which compression there is; where
#: a header tells the digest of a base, no `.hash` is asked for.
CASES = [
    Case('bare', 'xz', ('dot-version', 'version'), (6, 6, 6)),
    Case('bare', 'xz', ('file', 'dot-file'), (6, 6, 6)),
    Case('bare', 'xz-single', ('name', 'lago'), (6, 4, 6)),
    Case('bare', 'seekable', ('version', 'sha512'), (8, 4, 6)),
    Case('bare', 'zst', ('sha512', 'file'), (8, 6, 4), exact=False),
    Case('bare', 'gz', ('lago', 'name'), (8, 5, 3), exact=False),
    Case('bare', None, ('dot-file', 'dot-version'), (6, 5, 5)),
    Case('images-2015', 'xz', ('name', 'dot-version'), (2, 2, 2)),
    Case('images-2015', 'xz-single', ('lago', 'file'), (2, 2, 2)),
    Case('images-2015', 'zst', ('sha512', 'host'), (4, 2, 2)),
    Case('images-2015', 'gz', ('version', 'host-relative'), (5, 2, 2)),
    Case('images-2015', None, ('dot-file', 'host-xz'), (3, 2, 2)),
    Case('images-head', 'xz', ('host', 'host-xz'), (2, 2, 2)),
    Case('images-head', 'xz-single', ('host-relative', 'sha512'), (2, 2, 2)),
    Case('images-head', 'zst', ('name', 'lago'), (4, 2, 2)),
    Case('images-head', 'gz', ('version', 'dot-version'), (5, 2, 2)),
    Case('images-head', None, ('file', 'dot-file'), (3, 2, 2)),
]

Server = Union[Nginx, RudeServer]


def publish(
    server: Server,
    forest: Dict[str, DiskImage],
    case: Case,
    backing: Optional[str] = None,
) -> Publisher:
    """Publish the chain as the case has it.

    Args:
        backing: the name in the header of nfs, over the case's.
    """
    bare = case.dialect == 'bare'
    repo = Publisher(
        server.root, base_url=f'{server.url}/', sidecars=not bare,
        dialect='plain' if bare else case.dialect,
    )
    seekable = case.compression == 'seekable'
    below: Optional[Published] = None
    for number, name in enumerate(reversed(CHAIN)):
        called = KEEP
        if below is not None:
            called = FORMS[case.forms[number - 1]](below)
        if name == 'nfs' and backing is not None:
            called = backing
        below = repo.add(
            forest[name].path, name, base=below.name if below else None,
            backing=called, compression='zst' if seekable
            else case.compression,
        )
        if seekable:
            make_seekable(below)
    repo.write()
    return repo


def make_seekable(image: Published) -> None:
    """Write an image's .zst file as frames with a seek table at the end."""
    data, table = b'', b''
    content = image.image.read_bytes()
    piece = image.image.with_name('piece')
    for at in range(0, len(content), FRAME_BYTES):
        piece.write_bytes(content[at:at + FRAME_BYTES])
        run('zstd', '-q', '-f', '-1', piece, '-o', f'{piece}.zst')
        frame = Path(f'{piece}.zst').read_bytes()
        size = min(FRAME_BYTES, len(content) - at)
        table += struct.pack('<II', len(frame), size)
        data += frame
    footer = struct.pack('<IBI', len(table) // 8, 0, 0x8F92EAB1)
    table += footer
    header = struct.pack('<II', 0x184D2A5E, len(table))
    image.file.write_bytes(data + header + table)


def box_on(server: Server, root: Path) -> LagoSandbox:
    """Return an environment with the chain's top."""
    return LagoSandbox(
        root, {'vm0': 'iscsi'}, repo=f'{server.url}/repo.metadata'
    )


def plan(box: LagoSandbox) -> Dict[str, Any]:
    """Return the layers of the plan by template."""
    done = box.run('--out-format', 'json', 'template-repo', 'plan')
    assert done.code == 0, done.output
    layers = json.loads(done.stdout)['layers']
    return {layer['name'].split(':')[1]: layer for layer in layers}


def lookups_of(
    requests: Sequence[Request], repo: Publisher
) -> List[List[Request]]:
    """Return the requests for each layer, in the order of the chain."""
    rest = [one for one in requests if one.path != '/repo.metadata']
    found = []
    for name in CHAIN:
        handles = [
            image.handle for image in repo.images.values()
            if image.template == name
        ]
        found.append([
            one for one in rest if one.path.startswith(f'/{handles[0]}')
        ])
    assert sum(map(len, found)) == len(rest)
    return found


def check_cheap(
    requests: Sequence[Request], repo: Publisher, counts: Sequence[int]
) -> None:
    """Insist on how many requests each layer costs, and on their bytes."""
    found = lookups_of(requests, repo)
    assert [len(each) for each in found] == list(counts), [
        [(one.method, one.path, one.status, one.range) for one in each]
        for each in found
    ]
    assert len(requests) == sum(counts) + 1
    assert all(one.sent < MAX_BYTES for one in requests)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_chain(
    case: Case, forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    repo = publish(server, forest, case)
    box = box_on(server, tmp_path / 'box')
    planned = plan(box)
    check_cheap(server.requests(), repo, case.requests)
    server.forget()
    init_well(box)
    check_disks(box, forest, vm0='iscsi')
    version = repo.dialect.version or 'v1'
    assert links_of(box.disk('vm0')) == [
        (f'lab:{name}:{version}', 'qcow2') for name in CHAIN
    ]
    # The index is in the store now: 304. Then as many as for the plan.
    whole = [
        one for one in server.requests()
        if one.method == 'GET' and one.status == 200 and not one.range
        and not one.path.endswith('.metadata')
    ]
    assert sorted(one.path for one in whole) == sorted(
        image.url_path for image in repo.images.values()
    )
    early = [one for one in server.requests() if one not in whole]
    check_cheap(early, repo, case.requests)
    check_sizes(case, box, repo, planned)


def check_sizes(
    case: Case, box: LagoSandbox, repo: Publisher, planned: Dict[str, Any]
) -> None:
    """Hold a plan against what is in the store."""
    for image in repo.images.values():
        layer = planned[image.template]
        size = (box.store / f'lab:{image.name}').stat().st_size
        assert size == image.size
        assert layer['to_fetch'] == image.file.stat().st_size
        if case.exact:
            assert layer['to_keep'] == size
        elif layer['to_keep'] is not None:
            assert layer['to_keep'] >= size


def refused(box: LagoSandbox) -> str:
    """Run an init that must fail, and return its message in one line."""
    done = box.init()
    assert done.code == 2, done.output
    assert 'Traceback' not in done.output
    return ' '.join(done.output.split())


BARE = Case('bare', 'xz', ('version', 'version'), ())
HEAD = Case('images-head', 'xz', ('name', 'name'), ())


@pytest.mark.parametrize('case, backing, message', [
    # Told by the header alone: no path.
    (BARE, '/srv/repo/base-v1.qcow2', 'is not in its directory'),
    (BARE, './repo/base-v1.qcow2', 'is not in its directory'),
    (BARE, '../base:v1', 'is not in its directory'),
    (BARE, 'nbd:unix:socket', 'is not a name'),
    (BARE, f'lago::{OTHER}::nowhere', 'which is not in'),
    # Declared by the sidecar: a path, but to the base and nothing else.
    (HEAD, '/srv/image-repo/other', 'expected its base'),
    (HEAD, '/srv/image-repo/../base', 'expected its base'),
    (HEAD, 'nbd://host/base', 'expected its base'),
    (HEAD, 'json:/base', 'expected its base'),
    (HEAD, f'lago::{OTHER}::base', 'expected its base'),
    (HEAD, f'{OTHER}:base', 'expected its base'),
], ids=lambda value: str(value)[:24])
def test_other_names_are_refused(
    case: Case, backing: str, message: str, forest: Dict[str, DiskImage],
    tmp_path: Path, server: Nginx,
) -> None:
    publish(server, forest, case, backing)
    box = box_on(server, tmp_path / 'box')
    assert message in refused(box)
    # The base itself may be there: nothing is wrong with it.
    assert not {'lab:nfs:v1', 'lab:iscsi:v1'} & set(box.stored())


@pytest.mark.parametrize('case, tails', [
    (replace(BARE, forms=('name', 'file')), 1),
    (replace(BARE, compression='zst'), 1),
    (replace(HEAD, compression='gz'), 0),
], ids=str)
def test_server_without_range(
    case: Case, tails: int, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    with RudeServer(tmp_path / 'www') as server:
        server.root.mkdir()
        server.fail('*', ignore_range=True)
        repo = publish(server, forest, case)
        box = box_on(server, tmp_path / 'box')
        planned = plan(box)
        requests = server.settled_requests()
        init_well(box)
    check_disks(box, forest, vm0='iscsi')
    # Where the end was asked for once and did not come, never again.
    asked = [one for one in requests if one.range[:8] not in ('', 'bytes=0-')]
    assert len(asked) == tails
    exact = case.dialect != 'bare'
    check_sizes(replace(case, exact=exact), box, repo, planned)


def test_gone_is_not_there(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    with RudeServer(tmp_path / 'www') as server:
        server.root.mkdir()
        server.fail('*v1*.metadata', status=410)
        server.fail('*.xz', status=410)
        repo = publish(server, forest, replace(BARE, compression=None))
        box = box_on(server, tmp_path / 'box')
        plan(box)
        check_cheap(server.requests(), repo, (6, 5, 5))


def test_sidecars_under_the_name_of_the_compressed_file(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    repo = publish(server, forest, replace(HEAD, forms=('name', 'name')))
    for image in repo.images.values():
        for suffix in ('.metadata', '.hash'):
            sidecar = server.root / f'{image.handle}{suffix}'
            sidecar.rename(server.root / f'{image.handle}.xz{suffix}')
    box = box_on(server, tmp_path / 'box')
    planned = plan(box)
    check_cheap(server.requests(), repo, (3, 2, 2))
    init_well(box)
    check_disks(box, forest, vm0='iscsi')
    check_sizes(HEAD, box, repo, planned)


@pytest.mark.quick
def test_lago_repository_with_layers(
    forest: Dict[str, DiskImage], tmp_path: Path, server: Nginx
) -> None:
    """Sidecars that tell neither base nor size: Lago's own."""
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='plain'
    )
    repo.add_forest(forest)
    repo.write()
    box = box_on(server, tmp_path / 'box')
    plan(box)
    check_cheap(server.requests(), repo, (4, 4, 4))
    small = {
        one.path for one in server.requests()
        if one.path.endswith(('.metadata', '.hash'))
    }
    assert small == {'/repo.metadata'} | {
        f'/{repo.images[f"{name}:v1"].handle}{suffix}'
        for name in CHAIN for suffix in ('.metadata', '.hash')
    }
    init_well(box)
    check_disks(box, forest, vm0='iscsi')
    for name in CHAIN:
        kept = (box.store / f'lab:{name}:v1.hash').read_text()
        assert kept == repo.images[f'{name}:v1'].checksums['sha1']


@pytest.mark.parametrize('base', [
    'libguestfs:centos-7.5', 'simple:http://builder.invalid/cloud.qcow2',
    None, 'None', 'iscsi',
])
def test_bottom_images(
    base: Optional[str], forest: Dict[str, DiskImage], tmp_path: Path,
    server: Nginx,
) -> None:
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='images-head'
    )
    image = repo.add(forest['base'].path, 'iscsi')
    repo.write()
    path = server.root / f'{image.handle}.metadata'
    sidecar = json.loads(path.read_text())
    path.write_text(json.dumps({**sidecar, 'base': base}))
    box = box_on(server, tmp_path / 'box')
    planned = plan(box)
    assert planned['iscsi']['base'] is None
    assert planned['iscsi']['to_keep'] == image.size
    # What `lago export` writes as base is no answer: the header is.
    told = bool(base) and ':' in str(base)
    first = '' if told else 'bytes=0-131071'
    assert [one.range for one in server.requests()] == ['', '', first]
    init_well(box)
    assert box.stored() == ['lab:iscsi:v1']


def test_large_clusters_need_no_more(
    tmp_path: Path, server: Nginx
) -> None:
    source = tmp_path / 'large.qcow2'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M',
        source, '64M')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 8M', source)
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='plain',
        sidecars=False, compression=None,
    )
    image = repo.add(source, 'iscsi')
    repo.write()
    box = box_on(server, tmp_path / 'box')
    planned = plan(box)
    assert planned['iscsi']['to_keep'] == image.size
    requests = server.requests()
    # A sidecar and a sum are asked for in both forms, then the header.
    assert [one.path for one in requests] == ['/repo.metadata'] + [
        f'/{image.handle}{form}{sidecar}'
        for sidecar in ('.metadata', '.hash') for form in ('', '.xz')
    ] + [f'/{image.handle}.xz', f'/{image.handle}']
    assert sum(one.sent for one in requests) < MAX_BYTES


def test_small_files_tell_their_size_in_any_compression(
    tmp_path: Path, server: Nginx
) -> None:
    source = tmp_path / 'small.qcow2'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', source, '64M')
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='plain',
        sidecars=False,
    )
    sizes = {}
    for compression in ('gz', 'zst', 'xz-single'):
        image = repo.add(
            source, compression[:3].strip('-'), compression=compression
        )
        sizes[image.template] = image.size
    repo.write()
    box = LagoSandbox(tmp_path / 'box', {
        f'vm{number}': name for number, name in enumerate(sizes)
    }, repo=f'{server.url}/repo.metadata')
    planned = plan(box)
    assert {name: planned[name]['to_keep'] for name in sizes} == sizes
    assert not [
        one for one in server.requests()
        if one.range and one.range != 'bytes=0-131071'
    ]
