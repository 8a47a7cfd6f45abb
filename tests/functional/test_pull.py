"""``lago template-repo pull``: the transfer alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, check_disks, image_requests,
    init_well,
)

Forest = Dict[str, DiskImage]


@pytest.fixture
def box(forest: Forest, tmp_path: Path, server: Nginx) -> LagoSandbox:
    repo = Publisher(server.root, base_url=f'{server.url}/', compression='gz')
    repo.add_forest(forest)
    repo.write()
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )


def pull(box: LagoSandbox, *arguments: str) -> List[str]:
    done = box.run('template-repo', 'pull', *arguments)
    assert done.code == 0, done.output
    return [name.split(':')[1] for name in box.stored()]


@pytest.mark.quick
def test_the_init_file_here_then_init_fetches_nothing(
    box: LagoSandbox, server: Nginx, forest: Forest
) -> None:
    assert pull(box) == ['base', 'nfs']
    server.forget()
    init_well(box)
    check_disks(box, forest, vm0='nfs')
    assert image_requests(server.requests()) == []


def test_templates(box: LagoSandbox) -> None:
    assert pull(box, 'other:v1', 'lab/base') == ['base', 'other']
    assert pull(box, 'other:v1') == ['base', 'other']


def test_all(box: LagoSandbox, server: Nginx) -> None:
    assert pull(box, '--all') == ['base', 'iscsi', 'nfs', 'other']
    assert len(image_requests(server.requests())) == 4


def test_all_names_what_it_leaves_out(
    box: LagoSandbox, server: Nginx
) -> None:
    path = server.root / 'repo.metadata'
    index = json.loads(path.read_text())
    index['templates']['other']['versions']['v1']['virtual_size'] = 0
    path.write_text(json.dumps(index))
    done = box.run('template-repo', 'pull', '--all')
    assert done.code == 0, done.output
    said = ' '.join(done.stderr.split())
    assert 'left out, as their entries are faulty' in said
    assert 'other:v1: virtual_size: 0 is not' in said
    assert [name.split(':')[1] for name in box.stored()] == [
        'base', 'iscsi', 'nfs'
    ]


def test_repositories_of_ones_own(
    box: LagoSandbox, forest: Forest, tmp_path: Path
) -> None:
    index = []
    for name in ('one', 'two'):
        repo = Publisher(tmp_path / name, name, source='file')
        repo.add(forest['base'].path, name)
        index.append(str(repo.write()))
    box.repo = ''
    box.write()
    assert pull(box, '--repo', index[0], '--repo', index[1], 'one') == ['one']
    box.init_data['template-repo'] = index
    box.write()
    assert pull(
        box, '--init-file', str(box.init_file), 'one/one:v1'
    ) == ['one']


def test_as_data(box: LagoSandbox) -> None:
    done = box.run('--out-format', 'json', 'template-repo', 'pull', 'nfs')
    assert done.code == 0, done.output
    found = json.loads(done.stdout)
    assert found['wanted'] == ['lab:nfs:v1']
    assert {one['state'] for one in found['layers']} == {'missing'}


@pytest.mark.parametrize('arguments, message', [
    (['--all', 'nfs'], 'without names'),
    (['nothing'], 'nothing'),
    (['--offline'], 'unrecognized'),
])
def test_what_cannot_be_pulled(
    arguments: List[str], message: str, box: LagoSandbox
) -> None:
    done = box.run('template-repo', 'pull', *arguments)
    assert done.code == 2, done.output
    assert message in done.stderr
    assert box.stored() == []


def test_no_room(box: LagoSandbox) -> None:
    box.extra_env['LAGO__TEMPLATE_REPO__RESERVE'] = '9999T'
    done = box.run('template-repo', 'pull', 'nfs')
    assert done.code == 2
    assert 'not enough room' in ' '.join(done.stderr.split())
    assert box.stored() == []


@pytest.mark.parametrize('mebibytes', [250, 740])
def test_little_memory(
    mebibytes: int, forest: Forest, tmp_path: Path, server: Nginx
) -> None:
    """All of it, or one message; never a traceback, never without end."""
    repo = Publisher(server.root, base_url=f'{server.url}/', compression='xz')
    repo.add_forest(forest)
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )
    box.prefix_command = [
        'sh', '-c', f'ulimit -v {mebibytes << 10} && exec "$@"', 'sh'
    ]
    done = box.run('template-repo', 'pull', 'nfs')
    assert 'Traceback' not in done.output, done.output
    if done.code:
        assert done.code == 2, done.output
        assert 'not enough memory' in ' '.join(done.stderr.split())
    else:
        assert box.stored() == ['lab:base:v1', 'lab:nfs:v1']
