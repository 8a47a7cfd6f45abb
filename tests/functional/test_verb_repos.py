"""``lago template-repo add``, ``remove`` and ``update``, with a real git."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, require, run,
)


@pytest.fixture
def box(tmp_path: Path) -> LagoSandbox:
    """Return an environment without any repository."""
    require('git')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'base'})
    box.extra_env['LAGO__TEMPLATE_REPO__RETRIES'] = '0'
    return box


@pytest.fixture
def office(tmp_path: Path, forest: Dict[str, DiskImage]) -> Publisher:
    """Publish one image, of local files."""
    repo = Publisher(
        tmp_path / 'office', 'office', source='file', compression='gz'
    )
    repo.add(forest['base'].path, 'base')
    repo.write()
    return repo


def make_git(path: Path, repo: Publisher, name: str = 'field') -> Path:
    """Return a git repository whose index is that of a publisher."""
    path.mkdir()
    run('git', 'init', '--quiet', '--initial-branch', 'master', path)
    (path / 'package.json').write_text('{"name": "no-index"}')
    commit(path, {**repo.index(), 'name': name})
    return path


def commit(path: Path, index: Any) -> None:
    """Commit another index to a git repository."""
    (path / 'repo.json').write_text(json.dumps(index))
    git(path, 'add', '--all')
    git(path, '-c', 'user.name=a', '-c', 'user.email=a@example.com',
        'commit', '--quiet', '--message', 'Index')


def git(path: Path, *arguments: str) -> str:
    """Run git in a repository."""
    return run('git', '-C', path, *arguments)


def repos(box: LagoSandbox) -> Path:
    """Return the directory of repositories."""
    return box.root / 'repos'


def content(path: Path) -> List[str]:
    """Return what is in a directory."""
    return sorted(entry.name for entry in path.iterdir())


def verb(box: LagoSandbox, *arguments: str, code: int = 0) -> Finished:
    """Run ``lago template-repo``."""
    done = box.run('template-repo', *arguments)
    assert 'Traceback' not in done.output
    assert done.code == code, done.output
    return done


def plan_well(box: LagoSandbox, name: str) -> None:
    """Let `lago init` find a repository by its name."""
    done = box.run('init', '--plan', '--template-repo-name', name)
    assert done.code == 0, done.output
    assert f'{name}:base:v1' in done.stdout


def message(done: Finished) -> str:
    """Return what went wrong, in one line."""
    return ' '.join(done.stderr.split())


def test_an_index(
    box: LagoSandbox, server: Nginx, office: Publisher, tmp_path: Path
) -> None:
    url = f'{server.url}/repo.metadata'
    served = tmp_path / 'www/repo.metadata'
    served.parent.mkdir(exist_ok=True)
    shutil.copy(office.index_path, served)
    said = verb(box, 'add', url).stdout
    assert 'Added office' in said
    assert 'lago init --template-repo-name office' in said
    assert 'template-repo: [{name: office}]' in said
    assert content(repos(box)) == ['office.json', 'office.url']
    saved = repos(box) / 'office.json'
    assert saved.read_bytes() == office.index_path.read_bytes()
    plan_well(box, 'office')

    assert verb(box, 'update').stdout == 'office: unchanged\n'
    served.write_text(served.read_text().replace('"v1"', '"v2"'))
    assert verb(box, 'update', 'office').stdout == 'office: updated\n'
    assert saved.read_bytes() == served.read_bytes()
    # What is there now is no index: the old state stays.
    good = saved.read_bytes()
    served.write_text('<html>')
    done = verb(box, 'update', code=2)
    assert done.stdout == 'office: failed\n'
    assert url in done.stderr
    assert 'old state stays' in done.stderr
    assert saved.read_bytes() == good

    verb(box, 'remove', 'office')
    assert content(repos(box)) == []


@pytest.mark.quick
def test_a_git_repository(
    box: LagoSandbox, office: Publisher, tmp_path: Path
) -> None:
    upstream = make_git(tmp_path / 'upstream.git', office)
    # A hook of git has these; they lead to another repository.
    box.extra_env['GIT_DIR'] = str(tmp_path / 'nowhere')
    url = f'file://{upstream}'
    done = box.run('--out-format', 'json', 'template-repo', 'add', url)
    assert done.code == 0, done.output
    found = json.loads(done.stdout)
    assert found['added'] == {'name': 'upstream', 'kind': 'git', 'url': url}
    [known] = found['repositories']
    assert (known['name'], known['added']) == ('field', 'upstream')
    plan_well(box, 'field')

    index = json.loads((upstream / 'repo.json').read_text())
    index['templates']['other'] = index['templates']['base']
    commit(upstream, index)
    assert verb(box, 'update').stdout == 'upstream: updated\n'
    clone = repos(box) / 'upstream'
    assert json.loads((clone / 'repo.json').read_text()) == index
    # Without an index it would be of no use any more.
    commit(upstream, 'gone')
    assert 'no index any more' in message(verb(box, 'update', code=2))
    assert json.loads((clone / 'repo.json').read_text()) == index

    (clone / 'mine').touch()
    assert 'has changed' in message(verb(box, 'remove', 'upstream', code=2))
    (clone / 'mine').unlink()
    verb(box, 'remove', 'upstream')
    assert content(repos(box)) == []


def test_one_failed_update_does_not_keep_others(
    box: LagoSandbox, office: Publisher, tmp_path: Path
) -> None:
    upstream = make_git(tmp_path / 'upstream', office)
    verb(box, 'add', str(upstream), 'first')
    verb(box, 'add', '../office/repo.metadata', 'second')
    assert (repos(box) / 'second.url').read_text() == f'{office.index_path}\n'
    upstream.rename(tmp_path / 'away')
    office.name = 'bureau'
    office.write()
    done = verb(box, 'update', code=2)
    assert done.stdout == 'first: failed\nsecond: updated\n'
    assert (repos(box) / 'first/repo.json').exists()
    done = verb(box, 'update', 'third', code=2)
    assert 'there are: first, second' in message(done)


def test_two_of_one_name(
    box: LagoSandbox, office: Publisher, tmp_path: Path
) -> None:
    verb(box, 'add', str(office.index_path))
    upstream = make_git(tmp_path / 'upstream', office, 'office')
    done = verb(box, 'add', str(upstream))
    assert '2 repositories are named office' in message(done)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['office', '1', 'upstream', 'upstream/repo.json'] in rows
    assert ['office', '1', 'office', 'office.json'] in rows


def test_nothing_is_overwritten(box: LagoSandbox, office: Publisher) -> None:
    for name in ('one', 'two.json', 'three.url'):
        path = repos(box) / name
        path.mkdir(parents=True)
        given = name.split('.')[0]
        done = verb(box, 'add', str(office.index_path), given, code=2)
        assert f'{path} exists' in message(done)
        assert content(path) == []
    make_git(repos(box) / 'own', office)
    done = verb(box, 'remove', 'own', code=2)
    assert 'own was not added' in message(done)
    assert content(repos(box)) == ['one', 'own', 'three.url', 'two.json']


@pytest.mark.parametrize('arguments, said', [
    (['add', 'INDEX', '../x'], 'is not a name'),
    (['add', '--', '-uevil', 'x'], 'is not a URL'),
    (['add', 'ext::sh -c "touch hacked"', 'x'], "'ext' not allowed"),
    (['add', '/nowhere', 'x'], 'neither an index nor a git repository'),
    (['add', 'http://127.0.0.1:1/x.git'], 'neither an index nor a git'),
    (['add', 'EMPTY', 'x'], 'there is no index in that git repository'),
])
def test_refused(
    box: LagoSandbox, office: Publisher, tmp_path: Path,
    arguments: List[str], said: str,
) -> None:
    empty = make_git(tmp_path / 'empty', office)
    commit(empty, [])
    places = {'INDEX': str(office.index_path), 'EMPTY': str(empty)}
    words = [places.get(word, word) for word in arguments]
    assert said in message(verb(box, *words, code=2))
    assert not (box.root / 'hacked').exists()
    assert not repos(box).exists() or content(repos(box)) == []


def test_a_directory_that_cannot_be_made(
    box: LagoSandbox, office: Publisher
) -> None:
    box.config['init'] = {'template_repos': '/dev/null/repos'}
    box.write()
    done = verb(box, 'add', str(office.index_path), code=2)
    assert '/dev/null' in message(done)
    assert 'template_repos' in message(done)


def test_one_command_at_a_time(box: LagoSandbox, office: Publisher) -> None:
    repos(box).mkdir()
    left = repos(box) / '.changing-killed'
    left.mkdir()
    lock = os.open(repos(box), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = verb(box, 'add', str(office.index_path), code=2)
        assert 'another command' in message(done)
    finally:
        os.close(lock)
    verb(box, 'add', str(office.index_path))
    assert content(repos(box)) == ['office.json', 'office.url']
