"""Signed indexes: real gpg and gpgv, a real web server, a real lago."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.index.document import Index
from lago_layered_provider.repositories.where import ByName, ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store
from lago_layered_provider.tools import gpg
from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, init_well, require, run,
)

OLD, NEW = 1_700_000_000, 1_700_000_001
PAST = '20200101T000000'


class Keys:
    """A GNUPGHOME of its own; short, since a socket lies in it."""

    def __init__(self) -> None:
        require('gpg', 'gpgv')
        self.home = Path(tempfile.mkdtemp(prefix='lab-', dir='/tmp'))

    def gpg(self, *arguments: str, data: bytes = b'') -> bytes:
        """Run gpg; return what it prints."""
        return subprocess.run(
            ['gpg', '--batch', '--quiet', '--homedir', str(self.home),
             '--pinentry-mode', 'loopback', '--passphrase', '', *arguments],
            input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            check=True,
        ).stdout

    def make(self, user: str, expires: str = 'never', *options: str) -> None:
        """Make a key."""
        self.gpg(*options, '--quick-gen-key', user, 'ed25519', 'sign',
                 expires)

    def export(self, path: Path, *users: str, armor: bool = False) -> str:
        """Write a keyring; return its path."""
        options = ['--armor'] if armor else []
        path.write_bytes(self.gpg(*options, '--export', *users))
        return str(path)

    def sign(self, data: bytes, user: str, *options: str) -> bytes:
        """Return a detached signature."""
        return self.gpg(
            '--armor', '--local-user', user, *options, '--output', '-',
            '--detach-sign', data=data,
        )

    def close(self) -> None:
        """End the agent, and remove the keys."""
        subprocess.run(
            ['gpgconf', '--homedir', str(self.home), '--kill', 'all'],
            check=False,
        )
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope='module')
def keys() -> Iterator[Keys]:
    made = Keys()
    try:
        made.make('ann@example.com')
        made.make('bob@example.com')
        made.make('old@example.com', 'never', '--faked-system-time', PAST)
        made.make('gone@example.com', '1d', '--faked-system-time', PAST)
        made.make('lost@example.com')
        yield made
    finally:
        made.close()


@pytest.fixture(scope='module')
def keyring(
    keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return a keyring with the keys of all but Bob."""
    return keys.export(
        tmp_path_factory.mktemp('keys') / 'keys.gpg', 'ann@example.com',
        'old@example.com', 'gone@example.com',
    )


@pytest.fixture
def settings(keyring: str) -> Settings:
    return Settings(keyring=keyring, retries=0, timeout=5)


class Repository:
    """An index on a web server, signed or not."""

    def __init__(self, server: Nginx, keys: Keys) -> None:
        self.server = server
        self.keys = keys
        self.path = server.root / 'repo.metadata'
        self.url = f'{server.url}/repo.metadata'
        self._written = 0

    def write(
        self, user: Optional[str] = 'ann@example.com', *options: str,
        timestamp: Optional[float] = OLD, expires: Optional[float] = None,
    ) -> bytes:
        """Publish an index, signed by a user; return its bytes."""
        document: Dict[str, Any] = {
            'name': 'lab', 'sources': {},
            'templates': {'base': {'versions': {}}},
        }
        if timestamp is not None:
            document['timestamp'] = timestamp
        if expires is not None:
            document['expires'] = expires
        body = json.dumps(document).encode()
        self.path.write_bytes(body)
        # nginx makes ETags of the second and the size.
        self._written += 1
        os.utime(self.path, (OLD + self._written, OLD + self._written))
        if user is None:
            self.signature.unlink(missing_ok=True)
        else:
            self.signature.write_bytes(self.keys.sign(body, user, *options))
        return body

    @property
    def signature(self) -> Path:
        return self.path.with_name('repo.metadata.asc')

    def asked(self) -> Dict[str, List[int]]:
        """Return the statuses of the requests since the last time."""
        found: Dict[str, List[int]] = {}
        for one in self.server.requests():
            found.setdefault(one.path.rpartition('.')[2], []).append(
                one.status
            )
        self.server.forget()
        return found


@pytest.fixture
def repository(tmp_path: Path, keys: Keys) -> Iterator[Repository]:
    (tmp_path / 'www').mkdir()
    with Nginx(tmp_path / 'www') as server:
        yield Repository(server, keys)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    return store


def read(
    location: str, settings: Settings, store: Optional[Store] = None,
    told: Optional[List[str]] = None,
) -> Index:
    """Read an index; nobody is warned, unless `told` is given."""
    warned: List[str] = []
    found = ByPath(location).read(settings, warned.append, store)
    assert bool(warned) == (told is not None), warned
    if told is not None:
        told += warned
    return found


def refused(
    location: str, settings: Settings, store: Optional[Store] = None
) -> str:
    """Read an index that must be refused; return what it says."""
    with pytest.raises(errors.SignatureRefused) as caught:
        ByPath(location).read(settings, lambda text: None, store)
    message = str(caught.value)
    assert location in message
    assert caught.value.hint
    print(message)
    return message


# gpg and gpgv themselves

def test_signed_and_checked(
    keys: Keys, keyring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('GNUPGHOME', str(keys.home))
    before = int(time.time())
    signature = gpg.sign(b'index', 'ann@example.com')
    assert signature.startswith(b'-----BEGIN PGP SIGNATURE-----')
    assert before <= gpg.check(b'index', signature, keyring) <= time.time()
    with pytest.raises(errors.SignatureRefused, match='not what ann@'):
        gpg.check(b'Index', signature, keyring)


def test_key_that_is_not_there(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('GNUPGHOME', str(keys.home))
    with pytest.raises(errors.ToolError) as caught:
        gpg.sign(b'index', 'nobody@example.com')
    assert 'No secret key' in caught.value.message
    assert 'gpg --list-secret-keys' in caught.value.hint


@pytest.mark.parametrize('tool', ['gpg', 'gpgv'])
def test_tool_that_is_not_there(
    tool: str, keys: Keys, keyring: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature = keys.sign(b'index', 'ann@example.com')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(errors.ToolError) as caught:
        if tool == 'gpg':
            gpg.sign(b'index', 'ann@example.com')
        else:
            gpg.check(b'index', signature, keyring)
    assert caught.value.message == f'Cannot run {tool}: not found'
    assert f'Debian: {tool},' in caught.value.hint


@pytest.mark.parametrize('order', ['bad first', 'good first'])
def test_one_good_signature_is_enough(
    order: str, keys: Keys, keyring: str, tmp_path: Path
) -> None:
    """gpgv itself stops at a bad one, so that it is given each alone."""
    good = keys.sign(b'index', 'ann@example.com')
    others = [keys.sign(b'other', 'ann@example.com'),
              keys.sign(b'index', 'bob@example.com')]
    for other in others:
        pair = (good, other) if order == 'good first' else (other, good)
        both = gpg.join(*pair)
        assert both.count(b'BEGIN PGP SIGNATURE') == 1
        gpg.check(b'index', both, keyring)
        # An armor that GnuPG can read as well.
        (tmp_path / 'both').write_bytes(both)
        listed = keys.gpg('--list-packets', str(tmp_path / 'both'))
        assert listed.count(b':signature packet:') == 2
    with pytest.raises(errors.SignatureRefused, match='not what ann@'):
        gpg.check(b'index', gpg.join(*others), keyring)
    assert gpg.join(good, good) == good


def test_keyrings(keys: Keys, tmp_path: Path) -> None:
    signature = keys.sign(b'index', 'ann@example.com')
    users = ['bob@example.com', 'ann@example.com']
    rings = [
        keys.export(tmp_path / 'both.gpg', *users),
        keys.export(tmp_path / 'both.asc', *users, armor=True),
    ]
    each = [keys.gpg('--armor', '--export', user) for user in users]
    (tmp_path / 'joined.asc').write_bytes(b''.join(each))
    with contextlib.closing(Keys()) as others:
        others.gpg('--no-default-keyring', '--keyring',
                   str(tmp_path / 'box.kbx'), '--import', rings[0])
    for ring in [*rings, f'{tmp_path}/joined.asc', f'{tmp_path}/box.kbx']:
        gpg.check(b'index', signature, ring)


@pytest.mark.parametrize('content, reason', [
    (None, 'No such file'), (b'', 'empty'),
    (b'-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx', 'no end'),
    (b'no keyring', 'not in the keyring'),
])
def test_keyrings_that_are_none(
    content: Optional[bytes], reason: str, keys: Keys, tmp_path: Path
) -> None:
    path = tmp_path / 'keys.gpg'
    if content is not None:
        path.write_bytes(content)
    signature = keys.sign(b'index', 'ann@example.com')
    with pytest.raises(errors.SignatureRefused, match=reason) as caught:
        gpg.check(b'index', signature, str(path))
    assert str(path) in str(caught.value)


def test_key_that_was_revoked(keys: Keys, tmp_path: Path) -> None:
    signature = keys.sign(b'index', 'lost@example.com')
    ring = keys.export(tmp_path / 'before.gpg', 'lost@example.com')
    gpg.check(b'index', signature, ring)
    listed = keys.gpg('--with-colons', '--list-keys', 'lost@example.com')
    print_of = listed.decode().split('fpr:::::::::')[1].split(':')[0]
    made = keys.home / f'openpgp-revocs.d/{print_of}.rev'
    # gpg puts a colon before it, so that nobody imports it by mistake.
    text = made.read_text().replace(':-----BEGIN', '-----BEGIN')
    keys.gpg('--import', data=text.encode())
    ring = keys.export(tmp_path / 'after.gpg', 'lost@example.com')
    with pytest.raises(errors.SignatureRefused, match='was revoked'):
        gpg.check(b'index', signature, ring)


# An index on a server

def test_well_signed(repository: Repository, settings: Settings) -> None:
    repository.write()
    assert read(repository.url, settings).name == 'lab'
    assert repository.asked() == {'metadata': [200], 'asc': [200]}
    assert read(str(repository.path), settings).timestamp == OLD


def test_without_a_keyring_no_signature_is_asked_for(
    repository: Repository, settings: Settings
) -> None:
    repository.write()
    assert read(repository.url, replace(settings, keyring=None))
    assert repository.asked() == {'metadata': [200]}


@pytest.mark.parametrize('local', [False, True])
def test_unsigned(
    local: bool, repository: Repository, settings: Settings
) -> None:
    repository.write(None)
    where = str(repository.path) if local else repository.url
    assert f'it is not signed; there is no {where}.asc' in (
        refused(where, settings))
    if not local:
        # Both once more: they might just have been replaced.
        assert repository.asked() == {
            'metadata': [200, 200], 'asc': [404, 404]
        }


REFUSED = {
    'another key': (('bob@example.com',), 'not in the keyring'),
    'expired': (
        ('old@example.com', '--faked-system-time', PAST,
         '--default-sig-expire', '1d'),
        'the signature of old@example.com',
    ),
    'expired key': (
        ('gone@example.com', '--faked-system-time', PAST),
        'the key of gone@example.com',
    ),
}


@pytest.mark.parametrize('signer, reason', REFUSED.values(), ids=REFUSED)
def test_not_well_signed(
    signer: List[str], reason: str, repository: Repository,
    settings: Settings, store: Store,
) -> None:
    repository.write(*signer)
    message = refused(repository.url, settings, store)
    assert reason in message
    if 'expired' in message:
        assert 'has expired' in message
    assert 'Tell the admin' in message
    assert store.kept_index(repository.url, signed=True) is None


def test_tampered(repository: Repository, settings: Settings) -> None:
    body = repository.write()
    repository.path.write_bytes(body.replace(b'base', b'bose'))
    assert 'it is not what ann@example.com' in (
        refused(repository.url, settings))


@pytest.mark.parametrize('signature, reason', [
    (b'', 'it is empty'),
    (b'<html>', 'no OpenPGP signature'),
    (b'-----BEGIN PGP SIGNATURE-----\n\nabc', 'its armor has no end'),
])
def test_signature_that_is_none(
    signature: bytes, reason: str, repository: Repository,
    settings: Settings,
) -> None:
    repository.write()
    repository.signature.write_bytes(signature)
    assert reason in refused(repository.url, settings)


def test_signature_that_is_too_large(
    repository: Repository, settings: Settings
) -> None:
    repository.write()
    repository.signature.write_bytes(bytes(2**16 + 1))
    with pytest.raises(errors.TransferError, match='too large'):
        read(repository.url, settings)


def test_nothing_is_parsed_before_it_is_checked(
    repository: Repository, settings: Settings
) -> None:
    repository.write()
    repository.path.write_bytes(b'{')
    assert 'it is not what' in refused(repository.url, settings)


def test_published_anew_in_two_steps(
    repository: Repository, settings: Settings
) -> None:
    """As `create` does it, looked at after each step."""
    repository.write(timestamp=OLD)
    old = repository.signature.read_bytes()
    assert read(repository.url, settings).timestamp == OLD
    body = repository.path.read_bytes().replace(b'00000000', b'00000001')
    new = repository.keys.sign(body, 'ann@example.com')
    repository.signature.write_bytes(gpg.join(old, new))
    assert read(repository.url, settings).timestamp == OLD
    repository.path.write_bytes(body)
    assert read(repository.url, settings).timestamp == NEW
    repository.signature.write_bytes(new)
    assert read(repository.url, settings).timestamp == NEW


# Kept from the last time

def test_kept_index_is_used_when_it_has_not_changed(
    repository: Repository, settings: Settings, store: Store
) -> None:
    repository.write()
    read(repository.url, settings, store)
    repository.asked()
    assert read(repository.url, settings, store).name == 'lab'
    assert repository.asked() == {'metadata': [304]}
    repository.write(timestamp=NEW)
    assert read(repository.url, settings, store).timestamp == NEW
    assert repository.asked() == {'metadata': [200], 'asc': [200]}


def test_kept_index_is_used_without_the_server(
    repository: Repository, settings: Settings, store: Store
) -> None:
    repository.write()
    read(repository.url, settings, store)
    offline = replace(settings, offline=True)
    assert read(repository.url, offline, store).name == 'lab'
    repository.server.stop()
    told: List[str] = []
    assert read(repository.url, settings, store, told).name == 'lab'
    assert 'using the index kept from the last time' in told[0]


def test_index_kept_without_a_signature_is_not_used(
    repository: Repository, settings: Settings, store: Store
) -> None:
    unchecked = replace(settings, keyring=None)
    repository.write()
    read(repository.url, unchecked, store)
    with pytest.raises(errors.Offline):
        read(repository.url, replace(settings, offline=True), store)
    repository.asked()
    read(repository.url, settings, store)
    assert repository.asked() == {'metadata': [200], 'asc': [200]}
    # And who needs no signature takes nobody's away.
    read(repository.url, unchecked, store)
    assert read(repository.url, replace(settings, offline=True), store)
    repository.server.stop()
    with pytest.raises(errors.TransferError):
        read(repository.url, settings, Store(f'{store.root}/other'))


def test_kept_index_is_checked_again(
    repository: Repository, settings: Settings, store: Store,
    keys: Keys, tmp_path: Path,
) -> None:
    """Its signature expires while it is kept."""
    body = repository.write('old@example.com')
    read(repository.url, settings, store)
    kept = store.kept_index(repository.url, signed=True)
    assert kept is not None and kept.body == body
    # As time would do it: the same bytes, signed until a day long past.
    store.keep_index(
        repository.url, body, kept.validator, keys.sign(
            body, 'old@example.com', '--faked-system-time', PAST,
            '--default-sig-expire', '1d',
        ), kept.table,
    )
    offline = replace(settings, offline=True)
    assert 'has expired' in refused(repository.url, offline, store)
    # The same index with a new signature: not 304, but all of it.
    repository.asked()
    repository.write()
    read(repository.url, settings, store)
    assert repository.asked() == {'metadata': [200], 'asc': [200]}
    assert read(repository.url, offline, store)
    # And its key may be trusted no more.
    bob = keys.export(tmp_path / 'bob.gpg', 'bob@example.com')
    assert 'not in the keyring' in refused(
        repository.url, replace(offline, keyring=bob), store
    )


def test_refusal_is_final_although_there_is_a_kept_one(
    repository: Repository, settings: Settings, store: Store
) -> None:
    repository.write()
    read(repository.url, settings, store)
    repository.write(None, timestamp=NEW)
    assert 'it is not signed' in refused(repository.url, settings, store)
    kept = store.kept_index(repository.url, signed=True)
    assert kept is not None and str(OLD).encode() in kept.body


# Rolled back

@pytest.mark.parametrize('timestamp, found', [
    (OLD, '2023-11-14 22:13:20 UTC'), (None, 'none'),
])
def test_rolled_back(
    timestamp: Optional[float], found: str, repository: Repository,
    settings: Settings, store: Store,
) -> None:
    repository.write(timestamp=NEW)
    read(repository.url, settings, store)
    repository.write(timestamp=timestamp)
    for _ in range(2):  # it is not kept by the first refusal
        message = refused(repository.url, settings, store)
        assert 'from 2023-11-14 22:13:21 UTC on' in message
        assert f'found {found}' in message
    # Only where nobody can notice it; and what the hint says helps.
    assert read(repository.url, replace(settings, keyring=None), store)
    os.unlink(message.rpartition('remove ')[2].rstrip('.'))
    assert read(repository.url, settings, store).timestamp == timestamp


@pytest.mark.parametrize('before, after', [
    (NEW, NEW), (OLD, NEW), (None, None), (None, OLD),
])
def test_not_rolled_back(
    before: Optional[float], after: Optional[float],
    repository: Repository, settings: Settings, store: Store,
) -> None:
    repository.write(timestamp=before)
    read(repository.url, settings, store)
    repository.write(timestamp=after)
    assert read(repository.url, settings, store).timestamp == after


def test_rolled_back_behind_another_spelling(
    repository: Repository, settings: Settings, store: Store
) -> None:
    repository.write(timestamp=NEW)
    read(repository.url, settings, store)
    repository.write(timestamp=OLD)
    other = repository.url.replace('/repo.', '//./repo.')
    assert 'is older than the one' in refused(other, settings, store)


# Expired

#: Until when an index counts.
PASSED, TO_COME = 1_700_000_002, 32_000_000_000


def test_expired(
    repository: Repository, settings: Settings, store: Store
) -> None:
    body = repository.write(expires=PASSED)
    message = refused(repository.url, settings, store)
    assert 'it counted until 2023-11-14 22:13:22 UTC' in message
    assert read(repository.url, replace(settings, keyring=None)).expires
    # As it was kept before, whether the server says that it is the same,
    # says nothing, or is not asked.
    store.keep_index(
        repository.url, body, 'x', repository.signature.read_bytes()
    )
    assert 'expired' in refused(repository.url, settings, store)
    offline = replace(settings, offline=True)
    assert 'expired' in refused(repository.url, offline, store)
    repository.server.stop()
    with pytest.raises(errors.TransferError):
        read(repository.url, settings, store)
    repository.server.start()
    # An older one is none, although the newer one has expired.
    repository.write(timestamp=OLD - 1, expires=TO_COME)
    assert 'is older' in refused(repository.url, settings, store)
    repository.write(timestamp=NEW, expires=TO_COME)
    assert read(repository.url, settings, store).expires == TO_COME
    assert read(repository.url, offline, store).expires == TO_COME


def test_an_index_that_does_not_say_when_it_expires(
    repository: Repository, settings: Settings
) -> None:
    repository.write()
    old = replace(settings, max_index_age=1)
    assert 'until 2023-11-15 22:13:20' in refused(repository.url, old)
    assert read(repository.url, replace(settings, max_index_age=10**6))
    repository.write(expires=TO_COME)
    assert read(repository.url, old)


# By its name

def test_by_name(
    repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    """Others need no signature, and the wanted one does."""
    repos = tmp_path / 'repos'
    repos.mkdir()
    (repos / 'a.json').write_text('{"name": "other"}')
    (repos / 'b.json').write_text('{')
    repository.write()
    shutil.copy(repository.path, repos / 'lab.json')
    by_name = ByName('lab', str(repos))
    with pytest.raises(errors.SignatureRefused, match='it is not signed'):
        by_name.read(settings, lambda text: None)
    shutil.copy(repository.signature, repos / 'lab.json.asc')
    assert by_name.read(settings, lambda text: None).name == 'lab'
    with pytest.raises(errors.TemplateNotFound, match='lab, other'):
        ByName('x', str(repos)).read(settings, lambda text: None)


# With lago

@pytest.fixture
def box(
    tmp_path: Path, repository: Repository, keyring: str
) -> LagoSandbox:
    """Return an environment on the repository, with the keyring."""
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'base'}, repo=repository.url,
        config={'template_repo': {'keyring': keyring, 'retries': 0}},
    )


@pytest.mark.quick
def test_init(
    box: LagoSandbox, repository: Repository,
    forest: Dict[str, DiskImage], keys: Keys,
) -> None:
    repo = Publisher(repository.server.root, compression='zst')
    repo.add(forest['base'].path, 'base')
    repo.write(repository.server.url)
    done = box.init()
    assert done.code == 2
    assert 'Traceback' not in done.output
    assert 'it is not signed' in ' '.join(done.output.split())
    assert box.stored() == []
    repository.signature.write_bytes(
        keys.sign(repository.path.read_bytes(), 'ann@example.com')
    )
    init_well(box)


def test_added_repository(
    box: LagoSandbox, repository: Repository, keyring: str
) -> None:
    repos = box.root / 'repos'

    def verb(*arguments: str, code: int = 0) -> str:
        done = box.run('template-repo', *arguments)
        assert done.code == code, done.output
        assert 'Traceback' not in done.output
        return ' '.join(done.output.split())

    def names() -> List[str]:
        return sorted(path.name for path in repos.iterdir())

    repository.write(None)
    assert 'it is not signed' in verb('add', repository.url, code=2)
    assert not repos.exists() or names() == []
    repository.write(timestamp=NEW)
    verb('add', repository.url)
    assert names() == ['lab.json', 'lab.json.asc', 'lab.url']
    settings = Settings(keyring=keyring)
    by_name = ByName('lab', str(repos))
    assert by_name.read(settings, lambda text: None).origin == repository.url
    assert 'lab: unchanged' in verb('update')
    for options, reason in [
        ({'timestamp': OLD}, 'it is older than the one'),
        ({'user': 'bob@example.com', 'timestamp': NEW + 1}, 'not in the'),
    ]:
        repository.write(**options)  # type: ignore[arg-type]
        assert reason in verb('update', code=2)
        assert by_name.read(settings, lambda text: None).timestamp == NEW
    repository.write(timestamp=NEW + 1)
    assert 'lab: updated' in verb('update')
    assert by_name.read(settings, lambda text: None).timestamp == NEW + 1
    # As the message says.
    repository.write(timestamp=OLD)
    (repos / 'lab.json').unlink()
    assert 'lab: updated' in verb('update')
    verb('remove', 'lab')
    assert names() == []


def test_added_git_repository(
    box: LagoSandbox, repository: Repository, settings: Settings,
    tmp_path: Path,
) -> None:
    """The signature is in it, and needed when the index is used."""
    require('git')
    git = tmp_path / 'git'
    run('git', 'init', '--quiet', git)
    repository.write()
    shutil.copy(repository.path, git / 'repo.json')

    def commit() -> None:
        run('git', '-C', git, 'add', '--all')
        run('git', '-C', git, '-c', 'user.name=a', '-c', 'user.email=a@b.c',
            'commit', '--quiet', '--message', 'Index')

    commit()
    done = box.run('template-repo', 'add', str(git))
    assert done.code == 0, done.output
    by_name = ByName('lab', str(box.root / 'repos'))
    with pytest.raises(errors.SignatureRefused, match='it is not signed'):
        by_name.read(settings, lambda text: None)
    shutil.copy(repository.signature, git / 'repo.json.asc')
    commit()
    done = box.run('template-repo', 'update')
    assert done.code == 0, done.output
    assert by_name.read(settings, lambda text: None).origin == ''


SCRIPT = '''
import sys
from lago_layered_provider import __main__
from lago_layered_provider.repositories.where import ByPath
ByPath(sys.argv[1]).read(__main__._read_settings(), print)
'''


def test_without_lago(
    repository: Repository, keyring: str, tmp_path: Path
) -> None:
    """The environment says it where there is no lago.conf."""
    repository.write()
    for path, reason in [
        (keyring, ''), (str(tmp_path / 'none.gpg'), 'cannot be used'),
        ('keys.gpg', 'expected an absolute path'),
    ]:
        done = subprocess.run(
            [sys.executable, '-c', SCRIPT, repository.url],
            env={**os.environ, 'LAGO__TEMPLATE_REPO__KEYRING': path},
            stderr=subprocess.PIPE, text=True, check=False,
        )
        assert (done.returncode == 0) == (not reason)
        assert reason in done.stderr
