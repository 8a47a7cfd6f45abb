"""What an environment says of its repositories, in files that others read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from lago_layered_provider import providers
from lago_layered_provider.core.errors import (
    IndexFaults, NotAsLocked, TransferError,
)
from lago_layered_provider.core.model import Digest, ImageRef
from lago_layered_provider.core.wanted import Pin, Wanted
from lago_layered_provider.environments import lock_file
from lago_layered_provider.environments.environment import (
    Environment, read_environment,
)
from lago_layered_provider.providers import Document
from lago_layered_provider.repositories.template_repository import (
    TemplateRepository,
)
from lago_layered_provider.repositories.where import (
    ByName, ByPath, Repository, search_order,
)
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store
from tests.unit.test_store import BASE_BYTES, make_qcow2, make_record, put

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
    read_document = providers.read_document

    def read(location: str, **more: Any) -> Document:
        if '://' not in location:
            return read_document(location, **more)
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
    lock_file.write_lock(init_file, {
        wish: lock_file.find_newest(found, wanted, store, sources)
        for wish, wanted in lock_file.find_wishes(found).items()
    })
    assert asked == [LAB]
    text = Path(lock_file.lock_path(init_file)).read_text()
    assert 'SECRET' not in text
    assert 'lab.invalid/repo.metadata' in text
    held = lock_file.hold(read_init(
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


# The lock

def find_newest(
    tmp_path: Path, wanted: Wanted = Wanted('base'), **entry: Any
) -> Pin:
    """Return what is locked of an index in a file, and of a store."""
    document = json.loads(INDEX)
    document['sources']['web'] = {'type': 'file', 'args': {'root': '.'}}
    versions = document['templates']['base']['versions']
    versions['v1'].update(entry)
    versions['v1'] = {
        key: value for key, value in versions['v1'].items()
        if value is not ...
    }
    (tmp_path / 'index').write_text(json.dumps(document))
    store = Store(str(tmp_path / 'store'))
    found = read_init(tmp_path, [{'path': str(tmp_path / 'index')}])
    [pin] = lock_file.find_newest(
        found, wanted, store, found.repository.sources(store)
    )
    assert pin.location in ('', str(tmp_path / 'index'))
    return pin


def test_what_an_init_file_wants_and_its_lock_has_not(
    tmp_path: Path
) -> None:
    init_file = str(tmp_path / 'LagoInitFile')
    found = read_init(tmp_path, [{'path': LAB}])
    for path in (init_file, None):
        with pytest.raises(IndexFaults, match='no such file') as caught:
            lock_file.hold(found, path)
        assert caught.value.hint == lock_file.MAKE_HINT
    lock_file.write_lock(init_file, {})
    with pytest.raises(NotAsLocked, match='base is not in it'):
        lock_file.hold(found, init_file)


def test_a_digest_that_no_index_tells(tmp_path: Path) -> None:
    """A file beside the image tells it, else the image in the store."""
    with pytest.raises(IndexFaults, match='base:v1 cannot be locked'):
        find_newest(tmp_path, sha256=...)
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    put(store, 'lab:base:v1', BASE_BYTES)
    assert set(find_newest(tmp_path, sha256=...).digests) == set(
        make_record(BASE_BYTES).digests
    )
    (tmp_path / 'base.hash').write_text('1' * 40)
    assert find_newest(tmp_path, sha256=...).digests == (
        Digest('sha1', '1' * 40),
    )


@pytest.mark.parametrize('mark', [True, False])
def test_an_image_that_only_the_store_has(mark: bool, tmp_path: Path) -> None:
    """The mark of one that was published again is not of its version."""
    digest = make_record(BASE_BYTES).digests[-1]
    added = digest.value[:8] if mark else '12345678'
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    put(store, f'lab:gone:v1+{added}', BASE_BYTES)
    pin = find_newest(tmp_path, Wanted('gone', digest=digest))
    assert pin.location == ''
    assert pin.ref.short == ('gone:v1' if mark else 'gone:v1+12345678')
    assert digest in pin.digests


# Files of its own

def test_what_a_file_of_a_disk_stands_on(tmp_path: Path) -> None:
    path = tmp_path / 'top.qcow2'
    path.write_bytes(make_qcow2('./base:v1', 'qcow2'))
    found = read_init(tmp_path, [{'path': LAB}], disk={
        'template_type': 'qcow2', 'path': str(path), 'template-repo': LAB,
    })
    [parent] = found.parents
    # It comes from where the disk says.
    assert str(parent.wanted) == f'{ByPath(LAB).location}/base:v1'
    store = Store(str(tmp_path / 'store'))
    assert found.wanted(store) == [parent.wanted]
    here = replace(found, parents=(replace(parent, is_here=True),))
    assert here.wanted(store) == []
    # Its base alone does not tell the chain that a lock has.
    pins = (Pin(
        ImageRef('lab', 'base', 'v1'), make_record(BASE_BYTES).digests
    ),)
    held = replace(here, pins={parent.wanted: pins})
    assert held.wanted(store) == [replace(parent.wanted, pins=pins)]
