"""The repositories of an environment: what can be read answers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from lago_layered_provider import providers
from lago_layered_provider.core.errors import (
    LayeredError, SignatureRefused, TemplateNotFound, TransferError,
)
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.index.catalog import Unread
from lago_layered_provider.index.document import Index, parse_index
from lago_layered_provider.lint import documents
from lago_layered_provider.lint.run import lint_repository
from lago_layered_provider.providers import Document
from lago_layered_provider.repositories.reading import (
    INDEX_HINT, KEPT_TIMEOUT_SECONDS, fetch_index, try_again,
)
from lago_layered_provider.repositories.sources import Sources
from lago_layered_provider.repositories.where import ByName, ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store
from lago_layered_provider.tools import processes
from tests.unit.test_openpgp import ARMORED, BAD, GOOD

#: Whether each index was read past the caches.
READ: List[bool] = []

GONE = 'host name cannot be resolved'


@dataclass(frozen=True)
class FakeRepository:
    """A repository in memory; without templates nobody answers."""

    location: str
    templates: Sequence[str] = ()

    @property
    def place(self) -> Unread:
        return Unread(self.location)

    def read(self, *arguments: Any) -> Index:
        READ.append(arguments[-1])
        if not self.templates:
            raise TransferError(self.location, GONE)
        entry = {'source': 'web', 'handle': 'x', 'timestamp': 1}
        return parse_index(json.dumps({
            'name': self.location, 'sources': {'web': {'type': 'http'}},
            'templates': {
                name: {'versions': {'v1': entry}} for name in self.templates
            },
        }).encode(), self.location)


def sources_of(**repositories: Sequence[str]) -> Sources:
    """Return the sources of repositories, named with their templates."""
    fakes: Any = [FakeRepository(*each) for each in repositories.items()]
    return Sources(fakes, Settings(), lambda text: None)


def fails(sources: Sources, template: str) -> LayeredError:
    with pytest.raises(LayeredError) as caught:
        sources.find(Wanted(template))
    return caught.value


def test_a_misspelt_name_while_another_repository_is_away() -> None:
    error = fails(sources_of(office=['el7-nfs'], dead=[]), 'el7-nfz')
    assert isinstance(error, TemplateNotFound)
    first, second = error.message.splitlines()
    assert 'not in repository office' in first
    assert 'Nearest: el7-nfs.' in first
    assert second == f'Repository dead could not be asked: {GONE}'
    assert 'To leave it out' in error.hint


def test_what_comes_after_a_repository_that_is_away_does_not_count() -> None:
    sources = sources_of(office=['a'], dead=[], other=['b'])
    sources.read_each()
    error = fails(sources, 'b')
    assert isinstance(error, TransferError)
    assert 'b is not in office, other, and the next' in error.message


def test_after_a_wrong_image_no_cache_is_asked() -> None:
    sources = sources_of(office=['a'])
    READ.clear()
    sources.find(Wanted('a'))
    sources.renew()
    sources.find(Wanted('a'))
    assert READ == [False, True]


def test_what_does_not_belong_together_is_read_again_past_the_caches(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[Tuple[str, bool]] = []

    def read(location: str, fresh: bool = False, **_: Any) -> Document:
        asked.append((location.rpartition('.')[2], fresh))
        if location.endswith('.asc'):
            raise TransferError(location, 'HTTP 404', status=404)
        return Document(b'{}', None)

    monkeypatch.setattr(providers, 'read_document', read)
    with pytest.raises(SignatureRefused, match='not signed'):
        fetch_index('http://a/repo.metadata', Settings(keyring='/keys'))
    assert asked == [
        ('metadata', False), ('asc', False), ('metadata', True), ('asc', True)
    ]


def test_lint_looks_again_past_the_caches(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[bool] = []

    def read(location: str, fresh: bool = False, **_: Any) -> Document:
        asked.append(fresh)
        if location.endswith('.asc'):
            read_none()
        return Document(b'{', None)

    def read_none(*_: Any) -> None:
        raise TransferError('http://a/index', 'HTTP 404', status=404)

    monkeypatch.setattr(documents, 'read_document', read)
    monkeypatch.setattr(documents, 'open_beside', read_none)
    assert lint_repository('http://a/r', Settings()).failed
    # The index and its signature, twice.
    assert asked == [False, False, True, True]


def test_the_only_repository_is_away() -> None:
    sources = sources_of(dead=[])
    assert fails(sources, 'a').message == f'dead: {GONE}'
    with pytest.raises(TransferError, match=f'^dead: {GONE}$'):
        sources.read_each()


def test_a_list_has_what_can_be_read() -> None:
    catalog, unread = sources_of(
        office=['a'], dead=[], other=['b']
    ).read_each()
    assert [each.name for each in catalog.indexes] == ['office', 'other']
    assert len(unread) == 1
    assert unread[0].startswith(f'Repository dead could not be asked: {GONE}')


@pytest.mark.parametrize('refused, wish, seconds', [
    (True, None, 5), (False, None, 15.5),
    # Whatever a server wishes, no command waits for hours.
    (False, 1e9, 120), (True, 1e9, 5),
])
def test_a_small_request_is_given_up(
    refused: bool, wish: Optional[float], seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address that refuses, sooner."""
    slept: List[float] = []
    told: List[str] = []
    monkeypatch.setattr(time, 'sleep', slept.append)
    monkeypatch.setattr(time, 'monotonic', lambda: sum(slept))

    def ask() -> None:
        raise TransferError(
            'http://a/', 'no', retryable=True, refused=refused,
            retry_after=wish,
        )

    with pytest.raises(TransferError):
        try_again(ask, 5, lambda error, pause: told.append(pause))
    assert sum(slept) == seconds
    assert told[0] == f'trying again in {slept[0]:.1f} s (1 of 5)'
    assert len(told) == len(slept)


@pytest.mark.parametrize('wish, pauses', [
    (None, [0.5, 1.0]), (8, [8, 8]), (0.1, [0.5, 1.0]),
])
def test_a_small_request_waits_as_the_server_wishes(
    wish: Optional[float], pauses: List[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: List[float] = []
    told: Dict[str, str] = {}
    monkeypatch.setattr(time, 'sleep', slept.append)

    def ask() -> str:
        if len(slept) < 2:
            raise TransferError(
                'http://a/', f'busy {len(slept)}', retryable=True,
                retry_after=wish,
            )
        return 'answer'

    assert try_again(ask, 2, lambda error, pause: told.update(
        {error.reason: pause}
    )) == 'answer'
    assert slept == pauses
    assert list(told) == ['busy 0', 'busy 1']
    assert f'trying again in {pauses[0]:.1f} s' in told['busy 0']


def test_an_address_is_used_as_it_is_and_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    url = 'http://me:SECRET@host/a/repo.metadata?sig=SECRET'
    asked: List[str] = []

    def read(location: str, **_: Any) -> Document:
        asked.append(location)
        entry = {
            'source': 'web', 'handle': 'x', 'timestamp': 1,
            'compression': None,
        }
        return Document(json.dumps({
            'name': 'lab',
            'sources': {'web': {'type': 'http', 'args': {'baseurl': '.'}}},
            'templates': {'a': {'versions': {'v1': entry}}},
        }).encode(), None)

    monkeypatch.setattr(providers, 'read_document', read)
    sources = Sources([ByPath(url)], Settings(), lambda text: None)
    image = sources.find(Wanted('a'))
    assert asked == [url]
    shown = [
        image.location, sources.first().location,
        fails(sources, 'b').message, ByPath(url).location,
        sources.provider(image).locate('x'),
    ]
    assert not any('SECRET' in each for each in shown), shown
    # Relative sources need the password as well.
    provider: Any = sources.provider(image)
    place, = provider._places
    assert place.baseurl == 'http://me:SECRET@host/a/'
    # An environment names its repositories by what is shown of them.
    assert sources.find(Wanted('a', repository=ByPath(url).location)) == image
    assert sources.was_read(ByPath(url))


def test_repositories_that_differ_in_their_query_are_two() -> None:
    urls = [f'http://host/index?repo={name}' for name in 'ab']
    assert len({ByPath(url).place for url in urls}) == 2


URL = 'http://a/repo.metadata'
TAG = '"one"'


class Server:
    """A server of an index, in memory, and what it was asked for.

    Attributes:
        failure: what it answers instead.
        timeouts, validators: of the requests for the index.
    """

    def __init__(self) -> None:
        self.failure: Optional[TransferError] = None
        self.timeouts: List[float] = []
        self.validators: List[Optional[str]] = []
        self.publish()

    def publish(self, tag: str = TAG, **values: Any) -> None:
        self._tag = tag
        self._body = json.dumps({'name': 'lab', **values}).encode()

    def read(
        self, location: str, timeout: float = 0,
        validator: Optional[str] = None, **_: Any,
    ) -> Document:
        if location.endswith('.asc'):
            return Document(ARMORED, None)
        self.timeouts.append(timeout)
        self.validators.append(validator)
        if self.failure is not None:
            raise self.failure
        if validator == self._tag:
            return Document(None, validator)
        return Document(self._body, self._tag)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(providers, 'read_document', made.read)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / 'store'))
    made.prepare()
    return made


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Return settings with a keyring; all signatures are good."""
    monkeypatch.setattr(processes, 'run', lambda *_, **__: GOOD)
    (tmp_path / 'keys').write_bytes(b'keys')
    return Settings(keyring=str(tmp_path / 'keys'), retries=0)


def away(status: Optional[int] = None, **more: Any) -> TransferError:
    return TransferError(URL, f'it says {status}', status=status, **more)


@pytest.mark.parametrize('failure', [
    None, away(), away(503, retryable=True)
], ids=['not changed', 'away', '503'])
def test_a_kept_index_counts_by_the_keys_of_today(
    failure: Optional[TransferError], server: Server, store: Store,
    signed: Settings, monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = ByPath(URL).read
    assert read(signed, pytest.fail, store).name == 'lab'
    server.failure = failure
    said: List[str] = []
    assert read(signed, said.append, store).name == 'lab'
    assert len(said) == (failure is not None)
    revoked = BAD['revoked key'][0]
    monkeypatch.setattr(processes, 'run', lambda *_, **__: revoked)
    with pytest.raises(LayeredError) as caught:
        read(signed, pytest.fail, store)
    assert caught.value is failure or isinstance(
        caught.value, SignatureRefused
    ) and 'was revoked' in caught.value.message
    with pytest.raises(SignatureRefused, match='was revoked'):
        read(replace(signed, offline=True), pytest.fail, store)


@pytest.mark.parametrize('failure', [
    away(), away(500), away(502, retryable=True), away(429, retryable=True),
], ids=['no answer', '500', '502', '429'])
def test_a_server_in_trouble_is_done_without(
    failure: TransferError, server: Server, store: Store
) -> None:
    read = ByPath(URL).read
    read(Settings(), pytest.fail, store)
    server.failure = failure
    said: List[str] = []
    assert read(Settings(retries=0), said.append, store).name == 'lab'
    assert said == [
        f'{failure.message}; using the index kept from the last time'
    ]


@pytest.mark.parametrize('status', [401, 403, 404])
def test_an_answer_says_more_than_what_was_kept(
    status: int, server: Server, store: Store
) -> None:
    read = ByPath(URL).read
    read(Settings(), pytest.fail, store)
    server.failure = away(status)
    with pytest.raises(TransferError) as caught:
        read(Settings(retries=0), pytest.fail, store)
    assert caught.value is server.failure
    assert caught.value.hint == INDEX_HINT


@pytest.mark.parametrize('timeout', [1, KEPT_TIMEOUT_SECONDS + 50])
def test_nobody_waits_long_for_what_can_be_done_without(
    timeout: float, server: Server, store: Store
) -> None:
    settings = Settings(timeout=timeout)
    read = ByPath(URL).read
    read(settings, pytest.fail, store)
    read(settings, pytest.fail, store)
    server.failure = away(retryable=True)
    read(settings, lambda text: None, store)
    short = min(timeout, KEPT_TIMEOUT_SECONDS)
    # And once is enough, then.
    assert server.timeouts == [timeout, short, short]


def test_a_kept_index_counts_until_it_expires(
    server: Server, store: Store, signed: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, 'time', lambda: now)
    server.publish(expires=2000)
    read = ByPath(URL).read
    assert read(signed, pytest.fail, store).expires == 2000
    now = 2000
    assert read(signed, pytest.fail, store).expires == 2000
    assert server.validators == [None, TAG]
    now = 2001
    # It is asked for as if none was kept: the same one counts no more.
    for settings in signed, replace(signed, offline=True):
        with pytest.raises(SignatureRefused, match='it has expired'):
            read(settings, pytest.fail, store)
    server.failure = away()
    with pytest.raises(TransferError) as caught:
        read(signed, pytest.fail, store)
    assert caught.value is server.failure
    server.failure = None
    server.publish(expires=3000)
    assert read(signed, pytest.fail, store).expires == 3000
    assert server.validators[2:] == [None] * 3
    # Without a keyring nobody has promised anything.
    now = 4000
    assert read(Settings(), pytest.fail, store).expires == 3000


@pytest.mark.parametrize('timestamp, age, counts', [
    (500, 86400, True), (500, 86401, False), (None, 86400, True),
    (None, 86401, False),
])
def test_the_age_of_an_index_that_does_not_say_when_it_expires(
    timestamp: Optional[float], age: float, counts: bool, server: Server,
    signed: Settings, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, 'time', lambda: (timestamp or 0) + age)
    server.publish(timestamp=timestamp)
    aged = replace(signed, max_index_age=1)
    assert ByPath(URL).read(signed, pytest.fail).name == 'lab'
    if counts:
        assert ByPath(URL).read(aged, pytest.fail).name == 'lab'
        return
    with pytest.raises(SignatureRefused, match='it has expired'):
        ByPath(URL).read(aged, pytest.fail)


@pytest.mark.parametrize('timestamp, older', [
    (100, False), (101, False), (99, True), (None, True),
])
def test_a_signed_index_is_never_set_back(
    timestamp: Optional[float], older: bool, server: Server, store: Store,
    signed: Settings,
) -> None:
    read = ByPath(URL).read
    server.publish(timestamp=100)
    read(signed, pytest.fail, store)
    server.publish('"two"', timestamp=timestamp)
    if not older:
        assert read(signed, pytest.fail, store).timestamp == timestamp
        return
    for _ in range(2):  # nor is it kept
        with pytest.raises(SignatureRefused, match='older than the one'):
            read(signed, pytest.fail, store)
    # Without a keyring it may be.
    read(Settings(), pytest.fail, store)


def test_what_is_only_looked_at_is_not_kept(
    server: Server, store: Store
) -> None:
    ByPath(URL).read(Settings(), pytest.fail, store, keep=False)
    assert store.kept_index(URL) is None
    ByPath(URL).read(Settings(), pytest.fail, store)
    kept = store.kept_index(URL)
    assert kept is not None and kept.validator == TAG


def test_an_index_found_by_its_name_is_signed(
    signed: Settings, tmp_path: Path
) -> None:
    repos = tmp_path / 'repos'
    repos.mkdir()
    (repos / 'a.json').write_text('[')
    (repos / 'b.json').write_text('{"name": "lab"}')
    lab, other = (ByName(name, str(repos)) for name in ('lab', 'other'))
    assert lab.read(Settings(), pytest.fail).name == 'lab'
    assert lab.is_there(signed) and not other.is_there(signed)
    with pytest.raises(SignatureRefused, match='b.json: .* not signed'):
        lab.read(signed, pytest.fail)
    (repos / 'b.json.asc').write_bytes(ARMORED)
    assert lab.read(signed, pytest.fail).name == 'lab'
    with pytest.raises(TemplateNotFound, match='there are: lab\n'):
        other.read(signed, pytest.fail)


@pytest.mark.parametrize('written, origin', [
    ('http://a/repo.metadata\n', 'http://a/repo.metadata'),
    ('/mnt/repo.metadata', '/mnt/repo.metadata'),
    # As browsers keep them.
    ('[InternetShortcut]\nURL=http://a/', ''), ('', ''), (None, ''),
])
def test_where_an_added_index_is_from(
    written: Optional[str], origin: str, tmp_path: Path
) -> None:
    (tmp_path / 'lab.json').write_text('{"name": "lab"}')
    if written is not None:
        (tmp_path / 'lab.url').write_text(written)
    found = ByPath(str(tmp_path / 'lab.json')).read(Settings(), pytest.fail)
    assert (found.origin, found.clone) == (origin, '')
    assert found.roots(()) == (() if '://' in origin else None)


def test_an_index_in_a_clone_may_use_the_clone(tmp_path: Path) -> None:
    (tmp_path / 'clone' / '.git').mkdir(parents=True)
    (tmp_path / 'clone' / 'sub').mkdir()
    path = tmp_path / 'clone' / 'sub' / 'lab.json'
    path.write_text('{"name": "lab"}')
    read = ByPath(str(path)).read
    assert read(Settings(), pytest.fail).roots(()) is None
    (tmp_path / 'clone' / '.git' / 'lago-url').write_text('git://a')
    clone = str((tmp_path / 'clone').resolve())
    assert read(Settings(), pytest.fail).roots(()) == (clone,)


def test_an_index_in_a_file_that_has_changed(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / 'index'
    names = []
    for name in ('lab', 'lab', 'office'):
        if name not in names:
            path.write_text(json.dumps({'name': name}))
        names.append(ByPath(str(path)).read(
            Settings(), pytest.fail, store
        ).name)
    assert names == ['lab', 'lab', 'office']
