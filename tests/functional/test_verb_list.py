"""``lago template-repo list`` and ``show``: tables, trees, one image."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher,
)
from tests.lab.environments import lago_command

WIDTH = 80
LONG = 'a-template-with-a-name-that-is-longer-than-a-terminal-has-room-for'


@pytest.fixture(scope='module')
def repo(
    forest: Dict[str, DiskImage], tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    """Publish the forest, and entries with every kind of fault."""
    repo = Publisher(
        tmp_path_factory.mktemp('list') / 'www', source='file',
        compression='gz',
    )
    repo.add_forest(forest)
    base = forest['base'].path
    for name in ('spoiled', 'orphan', 'egg', 'hen', 'itself', LONG):
        repo.add(base, name)
    repo.add(base, 'open', metadata={'root-partition': '/dev/sda3'})
    repo.edit_version('spoiled:v1', source='nowhere')
    repo.edit_version('orphan:v1', base='lost:v1')
    repo.edit_version('egg:v1', base='hen:v1')
    repo.edit_version('hen:v1', base='egg:v1')
    repo.edit_version('itself:v1', base='itself:v1')
    repo.edit_version('open:v1', base=..., size=..., compressed_size=...)
    repo.write()
    return repo


@pytest.fixture
def box(repo: Publisher, tmp_path: Path) -> LagoSandbox:
    """Return an environment on the repository."""
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=repo.index_path
    )


def verb(box: LagoSandbox, *arguments: str, code: int = 0) -> Finished:
    """Run ``lago template-repo``."""
    done = box.run('template-repo', *arguments)
    assert 'Traceback' not in done.output
    assert done.code == code, done.output
    return done


def data(box: LagoSandbox, *arguments: str) -> Any:
    """Run ``lago template-repo`` and read its answer as a program does."""
    done = box.run('--out-format', 'json', 'template-repo', *arguments)
    assert done.code == 0, done.output
    return json.loads(done.stdout)


def cells(text: str) -> List[List[str]]:
    """Return the cells of a table as awk -F '  +' would."""
    return [
        [cell.strip() for cell in line.split('  ') if cell.strip()]
        for line in text.splitlines()
    ]


def on_a_terminal(box: LagoSandbox, *arguments: str) -> str:
    """Run ``lago template-repo`` on a terminal of 80 columns."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [lago_command(), 'template-repo', *arguments], cwd=box.root,
        env=box.environment(), stdin=subprocess.DEVNULL, stdout=slave,
        stderr=subprocess.DEVNULL,
    )
    os.close(slave)
    chunks = []
    while True:
        try:
            chunks.append(os.read(master, 4096))
        except OSError:  # EIO: nobody has the other end any more
            break
    os.close(master)
    assert process.wait() == 0
    return b''.join(chunks).decode()


@pytest.mark.quick
def test_one_line_an_image_in_a_pipe(box: LagoSandbox) -> None:
    done = verb(box, 'list')
    header, *rows = cells(done.stdout)
    assert header == [
        'TEMPLATE', 'VERSION', 'DATE', 'BASE', 'FETCH', 'KEEP', 'STATE'
    ]
    assert {len(row) for row in rows} == {7}
    shown = {row[0]: row for row in rows}
    assert shown['nfs'][1:4] == ['v1', '2017-07-14', 'base:v1']
    assert shown['open'][3:6] == ['?', 'unknown', 'unknown']
    assert shown['base'][3] == '-'
    assert LONG in shown
    # One faulty entry is told, and hides neither the others nor itself.
    assert 'spoiled' not in shown
    assert 'nowhere' in done.stderr
    assert len(rows) == 10


def test_folded_on_a_terminal(box: LagoSandbox) -> None:
    text = on_a_terminal(box, 'list')
    assert LONG not in text
    assert LONG[:10] in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_column_more_for_several_repositories(
    box: LagoSandbox, forest: Dict[str, DiskImage], repo: Publisher,
    tmp_path: Path,
) -> None:
    office = Publisher(tmp_path / 'office', name='office', source='file')
    office.add(forest['other'].path, 'mine', timestamp=1)
    office.edit_version('mine:v1', base='lab/base:v1')
    office.write()
    both = [
        '--repo', str(repo.index_path), '--repo', str(office.index_path)
    ]
    header, *rows = cells(verb(box, 'list', *both).stdout)
    assert header[:2] == ['REPO', 'TEMPLATE']
    assert ['office', 'mine', 'v1', '1970-01-01', 'lab/base:v1'] in [
        row[:5] for row in rows
    ]
    assert {row[0] for row in rows} == {'lab', 'office'}
    tree = verb(box, 'list', 'mine', '--tree', *both).stdout.splitlines()
    assert tree[1].startswith('lab/base:v1 ')
    assert tree[2].startswith('└── office/mine:v1 ')
    assert len(tree) == 3


def test_a_repository_that_is_away_hides_no_other(
    box: LagoSandbox, repo: Publisher, tmp_path: Path
) -> None:
    gone = tmp_path / 'gone' / 'repo.metadata'
    both = ('--repo', str(repo.index_path), '--repo', str(gone))
    done = verb(box, 'list', 'nfs', *both)
    assert cells(done.stdout)[1][0] == 'nfs'
    said = f'Repository {gone} could not be asked: No such file or directory'
    assert done.stderr.count(said) == 1
    assert 'To leave it out' in done.stderr
    done = verb(box, 'show', 'nfz', *both, code=2)
    assert 'Nearest: nfs.' in done.output.replace('\n', ' ')
    assert 'could not be asked' in done.output


def test_the_tree_shows_what_is_wrong(box: LagoSandbox) -> None:
    lines = verb(box, 'list', '--tree').stdout.splitlines()
    names = [re.split(r'  +(?=\d|unknown|FETCH)', line)[0] for line in lines]
    assert names[0] == 'IMAGE'
    start = names.index('base:v1')
    assert names[start:start + 4] == [
        'base:v1', '├── nfs:v1', '│   └── iscsi:v1', '└── other:v1',
    ]
    for title, below in {
        '? (only a look-up can tell: show)': ['└── open:v1'],
        'lost:v1 (in no repository)': ['└── orphan:v1'],
        'egg:v1 -> hen:v1 -> egg:v1 (a circle)':
            ['├── egg:v1', '└── hen:v1'],
        'itself:v1 -> itself:v1 (a circle)': ['└── itself:v1'],
    }.items():
        start = names.index(title) + 1
        assert names[start:start + len(below)] == below
    assert f'{LONG}:v1' in names
    rows = {
        row['template']: row
        for row in data(box, 'list', '--tree')['templates']
    }
    assert rows['iscsi']['stands_on'] == 'lab/nfs:v1'
    assert rows['base']['stands_on'] is rows['base']['problem'] is None
    assert rows['hen']['problem'].endswith('(a circle)')


def test_a_list_asks_for_the_index_only(
    forest: Dict[str, DiskImage], server: Nginx, tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', dialect='images-2015')
    repo.add_forest(forest)
    repo.write(server.url)
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )
    lines = verb(box, 'list', '--tree').stdout.splitlines()
    assert lines[1] == '? (only a look-up can tell: show)'
    assert [each.path for each in server.requests()] == ['/repo.metadata']
    assert not (box.store / '.layered').exists()


def test_show(box: LagoSandbox, repo: Publisher) -> None:
    text = verb(box, 'show', 'nfs').stdout
    image = repo.images['nfs:v1']
    found = data(box, 'show', 'lab/nfs:v1')
    assert found['chain'] == ['lab/base:v1', 'lab/nfs:v1']
    assert found['url'] == str(image.file)
    assert found['index'] == str(repo.index_path)
    assert found['compression'] == 'gz'
    assert found['digests'] == image.checksums
    assert found['metadata'] == {'distro': 'tiny'}
    assert found['stored'] is None
    sizes = [found[key] for key in ('compressed_size', 'size')]
    assert sizes == [image.compressed_size, image.size]
    for line in (
        'lab/nfs:v1', 'date          2017-07-14', 'base          base:v1',
        'in the store  no', 'distro        tiny',
        f'sha1          {image.checksums["sha1"]}',
        f'sha512        {image.checksums["sha512"][:64]}',
    ):
        assert line in text.splitlines()
    paths = (str(image.file), str(repo.index_path))
    assert not [
        line for line in text.splitlines()
        if len(line) > WIDTH and not line.endswith(paths)
    ]
    assert '└── lab:nfs:v1' in text


def test_show_what_is_in_the_store(box: LagoSandbox) -> None:
    verb(box, 'pull', 'iscsi')
    stored = data(box, 'show', 'nfs')['stored']
    assert stored['name'] == 'lab:nfs:v1'
    assert stored['backing'] == 'lab:base:v1'
    assert stored['path'] == str(box.store / 'lab:nfs:v1')
    above = data(box, 'show', 'base')['above']
    assert above == [
        {'name': 'lab:nfs:v1', 'backing': 'lab:base:v1'},
        {'name': 'lab:iscsi:v1', 'backing': 'lab:nfs:v1'},
    ]
    text = verb(box, 'show', 'base').stdout
    assert text.endswith(
        'STANDING ON IT IN THE STORE\nlab:nfs:v1\nlab:iscsi:v1\n'
    )
    assert 'in the store  lab:base:v1' in text
    assert 'present' in verb(box, 'list', 'nfs').stdout


def test_show_looks_up_what_the_index_lacks(
    forest: Dict[str, DiskImage], server: Nginx, tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', dialect='images-2015')
    repo.add_forest(forest)
    repo.write(server.url)
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )
    found = data(box, 'show', 'iscsi')
    assert found['chain'] == [
        'lab/base:latest', 'lab/nfs:latest', 'lab/iscsi:latest'
    ]
    assert found['url'] == f'{server.url}/iscsi.xz'
    assert found['size'] == repo.images['iscsi:latest'].size
    assert found['problems'] == []
    # Without a server, what is here is shown, and what failed.
    verb(box, 'pull', 'iscsi')
    server.stop()
    box.extra_env['LAGO__TEMPLATE_REPO__RETRIES'] = '0'
    done = verb(box, 'show', 'iscsi')
    assert 'in the store  lab:iscsi:latest' in done.stdout.splitlines()
    assert server.url in done.stderr


@pytest.mark.parametrize('name, message', [
    ('orphan', 'lost:v1'),
    ('egg', 'egg:v1 -> hen:v1 -> egg:v1'),
])
def test_show_of_an_image_without_a_chain(
    box: LagoSandbox, name: str, message: str
) -> None:
    done = verb(box, 'show', name, code=2)
    assert done.stdout.startswith(f'lab/{name}:v1\n')
    assert message in done.stderr


@pytest.mark.parametrize('name, message', [
    ('nsf', 'nfs'), ('nfs:v7', 'v7'), ('a:b:c', "'a:b:c'"),
    ('spoiled', 'nowhere'),
])
def test_show_nothing(box: LagoSandbox, name: str, message: str) -> None:
    done = verb(box, 'show', name, code=2)
    assert done.stdout == ''
    assert message in done.stderr
