"""The verb ``lago template-repo``: list, plan, help and wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterable

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Publisher, init_well,
)

NO_ROOM = {'LAGO__TEMPLATE_REPO__RESERVE': '9999T'}
WIDTH = 80


@pytest.fixture(scope='module')
def repo(
    forest: Dict[str, DiskImage], tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    """Publish the forest, and an image whose entry is faulty."""
    repo = Publisher(
        tmp_path_factory.mktemp('verb') / 'www', source='file',
        compression='gz',
    )
    repo.add_forest(forest)
    repo.add(forest['base'].path, 'spoiled')
    repo.edit_version('spoiled:v1', source='nowhere')
    repo.write()
    return repo


@pytest.fixture
def box(repo: Publisher, tmp_path: Path) -> LagoSandbox:
    """Return an environment of two VMs on the repository."""
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'iscsi', 'vm1': 'other'},
        repo=repo.index_path,
    )


def verb(box: LagoSandbox, *arguments: str) -> Finished:
    """Run ``lago template-repo``; its output fits into a terminal."""
    done = box.run('template-repo', *arguments)
    assert 'Traceback' not in done.output
    too_wide = [
        line for line in done.stdout.splitlines() if len(line) > WIDTH
    ]
    assert not too_wide
    return done


def data(box: LagoSandbox, *arguments: str) -> Any:
    """Run ``lago template-repo`` and read its answer as a program does."""
    done = box.run('--out-format', 'json', 'template-repo', *arguments)
    assert done.code == 0, done.output
    return json.loads(done.stdout)


def rows(text: str) -> Iterable[Any]:
    """Return the words of each line, without the branches of a tree."""
    return [line.replace('│', '').split() for line in text.splitlines()]


def test_help(box: LagoSandbox) -> None:
    done = box.run('--help')
    assert done.code == 0
    assert ['template-repo', 'List,', 'fetch,', 'check'] in [
        row[:4] for row in rows(done.stdout)
    ]
    for command in ([], ['list'], ['plan']):
        done = verb(box, *command, '--help')
        assert done.code == 0
        assert 'usage: lago template-repo' in done.stdout


@pytest.mark.parametrize('arguments, message', [
    ([], 'COMMAND'),
    (['nonsense'], "'nonsense'"),
    (['list', 'a', 'b'], 'unrecognized arguments: b'),
    (['plan', '--jobs'], 'unrecognized arguments: --jobs'),
    (['list', '--repo'], 'expected one argument'),
    (['plan', 'bsae'], 'Nearest: base'),
    (['plan', 'base:v7'], 'v7'),
    (['plan', 'base', 'no:such:thing'], "'no:such:thing'"),
    (['plan', ''], "''"),
    (['plan', '/dev/null'], '/dev/null'),
    (['plan', '../LagoInitFil'], '../LagoInitFil: cannot be read'),
    (['plan', 'spoiled'], 'nowhere'),
    (['list', '--repo', 'missing/repo.metadata'], 'missing/repo.metadata'),
    (['plan', 'base', '--template-store', '/dev/null'], '/dev/null'),
])
def test_wrong_arguments_are_told_without_traceback(
    box: LagoSandbox, arguments: Iterable[str], message: str
) -> None:
    done = verb(box, *arguments)
    assert done.code == 2, done.output
    # Long messages are folded.
    assert message in ' '.join(done.stderr.split())
    assert done.stdout == ''


def test_list(box: LagoSandbox) -> None:
    done = verb(box, 'list')
    assert done.code == 0, done.output
    header, *images = rows(done.stdout)
    assert header[:4] == ['TEMPLATE', 'VERSION', 'DATE', 'BASE']
    shown = {(row[0], row[1], row[3], row[-1]) for row in images}
    assert shown == {
        ('base', 'v1', '-', 'missing'), ('nfs', 'v1', 'base:v1', 'missing'),
        ('iscsi', 'v1', 'nfs:v1', 'missing'),
        ('other', 'v1', 'base:v1', 'missing'),
    }
    # What is wrong with one entry does not hide the others, nor itself.
    assert 'nowhere' in done.stderr
    assert [one['template'] for one in data(box, 'list', 's')['templates']] \
        == ['base', 'iscsi', 'nfs']


def test_plan_before_and_after_the_init(box: LagoSandbox) -> None:
    done = verb(box, 'plan')
    assert done.code == 0, done.output
    states = {
        row[-1] for row in rows(done.stdout) if 'lab:' in ' '.join(row)
    }
    assert states == {'missing'}
    assert '4 layers: 4 missing' in done.stdout
    assert box.stored() == []
    planned = data(box, 'plan', str(box.init_file))
    by_name = {one['name']: one for one in planned['layers']}
    assert by_name['lab:iscsi:v1']['base'] == 'lab:nfs:v1'
    assert planned['wanted'] == ['lab:iscsi:v1', 'lab:other:v1']
    assert planned['to_keep'] == sum(
        one['to_keep'] for one in by_name.values()
    )
    assert planned['fits']
    init_well(box)
    kept = sum((box.store / name).stat().st_size for name in box.stored())
    assert kept == planned['to_keep']
    after = data(box, 'plan')
    assert {one['state'] for one in after['layers']} == {'present'}
    assert (after['to_fetch'], after['to_keep']) == (0, 0)


@pytest.mark.quick
def test_plan_of_templates(box: LagoSandbox) -> None:
    planned = data(box, 'plan', 'nfs', 'lab/other:v1')
    assert [one['name'] for one in planned['layers']] == [
        'lab:base:v1', 'lab:nfs:v1', 'lab:other:v1'
    ]
    assert planned['wanted'] == ['lab:nfs:v1', 'lab:other:v1']


def test_plan_without_room_exits_with_3(box: LagoSandbox) -> None:
    box.extra_env.update(NO_ROOM)
    done = verb(box, 'plan', 'nfs')
    assert done.code == 3, done.output
    assert 'short' in done.stdout
    message = done.stderr
    for word in (str(box.store), 'needed', 'free', 'short', 'lab:nfs:v1'):
        assert word in message
    assert box.run('init').code == 2
    assert box.stored() == []
