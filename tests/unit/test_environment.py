"""What an environment says of its repositories, in files that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from lago_layered_provider import initlock, providers
from lago_layered_provider.core.errors import TransferError
from lago_layered_provider.environment import Environment, read_environment
from lago_layered_provider.providers import Document
from lago_layered_provider.repositories import (
    ByName, ByPath, Repository, search_order,
)
from lago_layered_provider.repository import TemplateRepository
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store

LAB = 'http://me:SECRET@lab.invalid/repo.metadata?sig=SECRET'
OTHER = 'http://me:SECRET@other.invalid/repo.metadata'

INDEX = json.dumps({
    'name': 'lab', 'sources': {'web': {'type': 'http'}},
    'templates': {'base': {'versions': {'v1': {
        'source': 'web', 'handle': 'base', 'timestamp': 1, 'base': None,
        'format': 'raw', 'compression': None, 'size': 1,
        'sha256': 'ab' * 32, 'metadata': {},
    }}}},
}).encode()


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """Return which indexes were asked for; lab.invalid has one."""
    found: List[str] = []

    def read(location: str, **_: Any) -> Document:
        found.append(location)
        if 'lab.invalid' not in location:
            raise TransferError(location, 'nobody is there')
        return Document(INDEX, None)

    monkeypatch.setattr(providers, 'read_document', read)
    return found


def read_init(
    tmp_path: Path, entries: List[Dict[str, str]],
    *given: Repository, default: Optional[Repository] = None,
    disk: Optional[Dict[str, str]] = None,
) -> Environment:
    """Return an environment with one disk on `base`."""
    data = {'template-repo': entries, 'domains': {'vm': {'disks': [
        {'type': 'template', 'template_name': 'base', **(disk or {})}
    ]}}}
    if not entries:
        del data['template-repo']
    return read_environment(
        data, TemplateRepository(given, Settings, pytest.fail), default,
        '/repos', str(tmp_path / 'LagoInitFile'),
    )


@pytest.mark.parametrize('by_disk', [False, True])
def test_a_lock_holds_no_secrets_and_fits_again(
    by_disk: bool, tmp_path: Path, asked: List[str]
) -> None:
    """By the URL with its password the template is found, and named without.
    """
    disk = {'template-repo': LAB} if by_disk else {}
    found = read_init(tmp_path, [{'path': LAB}], disk=disk)
    init_file = str(tmp_path / 'LagoInitFile')
    store = Store(str(tmp_path / 'store'))
    sources = found.repository.sources(store)
    initlock.write_lock(init_file, {
        wish: initlock.find_newest(found, wanted, store, sources)
        for wish, wanted in initlock.find_wishes(found).items()
    })
    assert asked == [LAB]
    text = Path(initlock.lock_path(init_file)).read_text()
    assert 'SECRET' not in text
    assert 'lab.invalid/repo.metadata' in text
    held = initlock.hold(read_init(
        tmp_path, [{'path': LAB}], disk=disk
    ), init_file)
    [(wanted, [pin])] = held.pins.items()
    assert wanted in held.all_wanted()
    # The place is known again, so that its password is used.
    assert pin.location == ByPath(LAB).location
    assert held.is_pinned_to(ByPath(LAB))


def test_saved_repositories_hold_no_secrets_of_the_user(
    tmp_path: Path
) -> None:
    found = read_init(
        tmp_path, [], ByPath(LAB), default=ByPath(OTHER)
    )
    assert found.saved_repositories() == []
    found.repository.sources().find(found.disks[0].wanted)
    # The one that was asked, and no other.
    saved = found.saved_repositories()
    assert saved == [{'path': 'http://lab.invalid/repo.metadata?sig=SECRET'}]


def test_saved_repositories_are_as_the_init_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('WHO', 'me:SECRET')
    monkeypatch.setenv('PLACE', 'here')
    found = read_init(tmp_path, [
        {'path': LAB}, {'name': 'office'}, {'path': '$PLACE/index'},
        {'path': 'http://$WHO@other.invalid/index'},
    ])
    assert found.saved_repositories() == [
        {'path': LAB}, {'name': 'office'},
        {'path': str(tmp_path / 'here/index')},
        # What a variable holds is not in the file.
        {'path': 'http://other.invalid/index'},
    ]


@pytest.mark.parametrize('path, portable', [
    (OTHER, 'http://other.invalid/repo.metadata'),
    ('file:///a@b/index', 'file:///a@b/index'), ('/a/index', '/a/index'),
])
def test_a_path_that_means_the_same_elsewhere(
    path: str, portable: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ByPath(path).portable == portable
    monkeypatch.chdir(tmp_path)
    assert ByPath('index').portable == str(tmp_path / 'index')


def test_order_of_search() -> None:
    one, two, default = ByPath('/one'), ByName('two', '/repos'), ByPath('/d')
    assert search_order([one], [two], default) == (one, two, default)
    # A default that was only repeated by hand does not come first.
    assert search_order([default], [two], default) == (two, default)
    assert search_order([default, one], [], default) == (one, default)
    assert search_order([], [default, two, two], default) == (default, two)
    assert search_order([], [], None) == ()


def test_a_password_that_was_given_is_used(
    tmp_path: Path, asked: List[str]
) -> None:
    """The init file names the same repository without it."""
    plain = ByPath(LAB).portable
    found = read_init(tmp_path, [{'path': plain}], ByPath(LAB))
    found.repository.sources().find(found.disks[0].wanted)
    assert asked == [LAB]
    assert found.saved_repositories() == [{'path': plain}]
