"""What is taken for a repository that was added, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.repositories.added import AddedRepositories
from lago_layered_provider.repositories.added_files import (
    Added, ReposDirectory,
)
from lago_layered_provider.repositories.reading import Fetched

INDEX = {'name': 'office', 'sources': {}, 'templates': {'a': {}}}
URL = 'http://templates.example.com/repo.metadata'


class Server:
    """Documents by their URL; none is there that was not put there."""

    def __init__(self) -> None:
        self.documents: Dict[str, bytes] = {URL: json.dumps(INDEX).encode()}

    def read(self, url: str) -> Fetched:
        if url not in self.documents:
            raise errors.TransferError(url, 'HTTP 404', status=404)
        return Fetched(self.documents[url])


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def added(tmp_path: Path, server: Server) -> AddedRepositories:
    """Return the repositories of a directory that is not there yet."""
    directory = ReposDirectory(str(tmp_path / 'lago/repos'))
    return AddedRepositories(directory, server.read, timeout=1)


@pytest.mark.parametrize('name', ['', '..', 'a/b', '/a', '.a', '-a', 'a b'])
def test_names_that_are_none(added: AddedRepositories, name: str) -> None:
    with pytest.raises(errors.RepositoryError, match='is not a name'):
        added.add(URL, name)
    for action in (added.remove, added.update):
        with pytest.raises(errors.RepositoryError, match='is not a name'):
            action(name)
    assert not Path(added.directory.path).exists()


@pytest.mark.parametrize('url', ['', '-uevil', '--upload-pack=x', 'a\nb'])
def test_urls_that_are_none(added: AddedRepositories, url: str) -> None:
    with pytest.raises(errors.RepositoryError, match='is not a URL'):
        added.add(url, 'x')


@pytest.mark.parametrize('name, expected', [(None, 'office'), ('x', 'x')])
def test_an_index_is_found_by_its_own_name(
    added: AddedRepositories, name: Optional[str], expected: str
) -> None:
    assert added.add(URL, name) == Added(expected, 'index', URL)
    assert added.directory.added() == [Added(expected, 'index', URL)]
    [known] = added.directory.known()
    assert (known.name, known.added) == ('office', expected)
    assert known.templates == 1


def test_what_others_put_there_is_known_and_left_alone(
    added: AddedRepositories
) -> None:
    added.add(URL, None)
    directory = Path(added.directory.path)
    (directory / 'deep/er').mkdir(parents=True)
    for name in ('mine.json', 'deep/er/a.json'):
        (directory / name).write_text(json.dumps({**INDEX, 'name': 'mine'}))
    (directory / 'package.json').write_text('{"name": "package"}')
    (directory / 'broken.json').write_text('{')
    assert [
        (one.name, one.added) for one in added.directory.known()
    ] == [('mine', None), ('mine', None), ('office', 'office')]
    for name in ('mine', 'deep', 'package'):
        with pytest.raises(errors.RepositoryError, match='was not added'):
            added.remove(name)


def test_a_killed_command_leaves_nothing_that_stays(
    added: AddedRepositories
) -> None:
    directory = Path(added.directory.path)
    (directory / '.changing-x').mkdir(parents=True)
    (directory / '.changing-x/half.json').write_text(json.dumps(INDEX))
    # The URL comes first; an update brings the rest, a removal ends it.
    (directory / 'office.url').write_text(f'{URL}\n')
    assert added.directory.known() == []
    assert added.update('office')
    assert names(directory) == ['office.json', 'office.url']
    (directory / 'office.json').unlink()
    added.remove('office')
    assert names(directory) == []


@pytest.mark.parametrize('document', [
    b'', b'{', b'[]', b'{"name": "x"}', b'{"name": "/", "templates": {}}',
    json.dumps({**INDEX, 'templates': {}}).encode(), None,
])
def test_a_failed_update_leaves_the_old_state(
    added: AddedRepositories, server: Server, document: Optional[bytes]
) -> None:
    added.add(URL, None)
    saved = Path(added.directory.path) / 'office.json'
    before = saved.read_bytes()
    del server.documents[URL]
    if document is not None:
        server.documents[URL] = document
    with pytest.raises(errors.LayeredError):
        added.update('office')
    assert saved.read_bytes() == before
    assert names(saved.parent) == ['office.json', 'office.url']


def names(directory: Path) -> List[str]:
    """Return what is in a directory."""
    return sorted(entry.name for entry in directory.iterdir())
