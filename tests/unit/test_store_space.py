"""Free room, reservations and kept indexes."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import List, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.store import Store

A, B = 'repo:a:v1', 'repo:b:v1'
URL = 'http://server/repo.metadata'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    return store


def reservations(store: Store) -> List[str]:
    return os.listdir(f'{store.root}/.layered/reservations')


# Room.

def test_room_is_that_of_the_file_system(store: Store) -> None:
    stat = os.statvfs(store.root)
    room = store.room({})
    assert room.directory == store.root
    assert abs(room.free - stat.f_bavail * stat.f_frsize) < 2**30
    assert room.total == stat.f_blocks * stat.f_frsize
    assert room.reserved == 0


def test_room_of_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    room = Store(str(tmp_path / 'a' / 'b' / 'c')).room({A: 1})
    assert room.free > 0 and room.directory.endswith('/a/b/c')
    assert os.listdir(tmp_path) == []


# Reservations.

def test_others_count_and_our_names_do_not(store: Store) -> None:
    with store.reserve({A: 1000, B: 20}):
        assert store.room({}).reserved == 1020
        assert store.room({A: 1}).reserved == 20
        assert store.room({A: 1, B: 1}).reserved == 0
    assert store.room({}).reserved == 0
    assert reservations(store) == []


def test_image_that_two_want_counts_once(store: Store) -> None:
    with store.reserve({A: 1000}), store.reserve({A: 1200, B: 30}):
        assert store.room({}).reserved == 1230


def test_what_is_on_the_disk_is_not_needed_any_more(store: Store) -> None:
    with store.reserve({A: 100000, B: 10}):
        for name in A, B:
            with store.stage(name, identity='it') as stage:
                assert stage is not None
                stage.write(b'x' * 8192)
                stage.checkpoint(1, 8192, None)
        partial = store.partial(A)
        assert partial is not None
        assert store.room({}).reserved == 100000 - partial.disk


def test_visible_image_is_not_needed_any_more(store: Store) -> None:
    with store.reserve({A: 100000}):
        Path(store.path(A)).write_bytes(b'image')
        assert store.room({}).reserved == 0


def test_stale_reservation_vanishes(store: Store) -> None:
    stale = Path(store.root, '.layered/reservations/0123.json')
    stale.write_text(json.dumps({'needs': {A: 1000}}))
    with store.reserve({B: 20}):
        assert store.room({}).reserved == 20
    assert reservations(store) == []


@pytest.mark.parametrize('text', [
    '', '{', '[]', '{"needs": []}', '{"needs": {"a/b": 5}}',
    '{"needs": {"repo:a:v1": "many"}}', '{"needs": {"repo:a:v1": -5}}',
])
def test_garbage_in_a_running_reservation(store: Store, text: str) -> None:
    with store.reserve({B: 20}):
        Path(
            f'{store.root}/.layered/reservations', reservations(store)[0]
        ).write_text(text)
        assert store.room({}).reserved == 0


def test_reservation_ends_with_an_error(store: Store) -> None:
    with pytest.raises(ConnectionError):
        with store.reserve({A: 1}):
            raise ConnectionError
    assert reservations(store) == []


def test_reservation_needs_a_prepared_store(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError):
        with Store(str(tmp_path / 'no')).reserve({A: 1}):
            pass


# Kept indexes.

#: The first line of the kept index `body`.
HEAD = {
    'url': URL, 'validator': None, 'fetched': 1, 'lengths': [4, 0, 0],
    'crc32': zlib.crc32(b'body'),
}


@given(
    st.binary(max_size=1000),
    st.one_of(st.none(), st.text(st.characters(codec='utf-8'))),
    st.one_of(st.none(), st.binary(min_size=1)),
)
@settings(max_examples=30)
def test_index_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, body: bytes,
    validator: Optional[str], table: Optional[bytes],
) -> None:
    store = Store(str(tmp_path_factory.getbasetemp() / 'indexes'))
    store.keep_index(URL, b'older', None)
    store.keep_index(URL, body, validator, table=table)
    kept = store.kept_index(URL)
    assert kept is not None
    assert (kept.url, kept.body, kept.validator, kept.table) == (
        URL, body, validator, table
    )
    assert kept.fetched > 1.6e9


def test_indexes_are_told_apart_by_their_url(store: Store) -> None:
    store.keep_index(URL, b'one', None)
    assert store.kept_index(f'{URL}?2') is None
    store.keep_index(f'{URL}?2', b'two', None)
    kept = store.kept_index(URL)
    assert kept is not None and kept.body == b'one'
    assert len(os.listdir(f'{store.root}/.layered/indexes')) == 2


def test_signed_index_lies_beside_the_other_one(store: Store) -> None:
    store.keep_index(URL, b'signed', 'v1', b'signature')
    assert store.kept_index(URL) is None
    store.keep_index(URL, b'unsigned', 'v2')
    signed = store.kept_index(URL, signed=True)
    assert signed is not None
    assert (signed.body, signed.validator, signed.signature) == (
        b'signed', 'v1', b'signature'
    )
    unsigned = store.kept_index(URL)
    assert unsigned is not None
    assert (unsigned.body, unsigned.signature) == (b'unsigned', None)
    # To be removed by hand, as a message may say.
    os.unlink(signed.path)
    assert store.kept_index(URL, signed=True) is None


def test_password_of_a_url_is_not_kept(store: Store) -> None:
    url = 'http://user:secret@server/repo.metadata'
    store.keep_index(url, b'body', None)
    [path] = Path(store.root, '.layered/indexes').iterdir()
    assert 'secret' not in path.read_text()
    kept = store.kept_index(url)
    assert kept is not None and kept.url == url


@pytest.mark.parametrize('url, body, mode', [
    (URL, b'{}', 0o644),
    ('http://user:secret@server/repo.metadata', b'{}', 0o600),
    (f'{URL}?sig=secret', b'{}', 0o600),
    (URL, b'{"baseurl": "http:\\/\\/me:secret@server\\/"}', 0o600),
    (URL, b'{"baseurl": "https://server/x?sig=secret"}', 0o600),
])
def test_an_index_with_secrets_is_its_owners(
    store: Store, url: str, body: bytes, mode: int
) -> None:
    before = os.umask(0o022)
    try:
        store.keep_index(url, body, None)
    finally:
        os.umask(before)
    [path] = Path(store.root, '.layered/indexes').iterdir()
    assert path.stat().st_mode & 0o777 == mode
    assert b'secret' not in path.read_bytes().split(b'\n')[0]


def test_spellings_of_a_url_share_their_index(store: Store) -> None:
    store.keep_index('http://Server:80//a/repo.metadata', b'body', None)
    kept = store.kept_index('http://server/a/./repo.metadata')
    assert kept is not None and kept.body == b'body'


def test_any_damage_makes_an_index_absent(store: Store) -> None:
    store.keep_index(URL, b'body', None, b'signature', b'table')
    [path] = Path(store.root, '.layered/indexes').iterdir()
    data = path.read_bytes()
    for at in range(len(data)):
        for damaged in (
            data[:at], data[:at] + data[at + 1:],
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1:],
        ):
            path.write_bytes(damaged)
            kept = store.kept_index(URL, signed=True)
            # The first line says when it was fetched, and what it is called.
            assert kept is None or at < data.index(b'\n') and (
                kept.body, kept.table, kept.signature
            ) == (b'body', b'table', b'signature')
    path.write_bytes(data + b'more')
    assert store.kept_index(URL, signed=True) is None
    path.write_bytes(data)
    assert store.kept_index(URL, signed=True)


@pytest.mark.parametrize('head', [
    '', '{', '[]', 'null', '[' * 10**5,
    json.dumps({'url': URL, 'validator': None, 'fetched': 1}),
    json.dumps({**HEAD, 'validator': 1}),
    json.dumps({**HEAD, 'fetched': 'x'}),
    json.dumps({**HEAD, 'url': 'x'}),
    json.dumps({**HEAD, 'lengths': [4]}),
    json.dumps({**HEAD, 'lengths': [5, -1, 0]}),
    json.dumps({**HEAD, 'lengths': 'xyz'}),
    json.dumps({**HEAD, 'crc32': 1}),
])
def test_damaged_index_is_absent(store: Store, head: str) -> None:
    store.keep_index(URL, b'body', None)
    [path] = Path(store.root, '.layered/indexes').iterdir()
    path.write_text(f'{json.dumps(HEAD)}\nbody')
    assert store.kept_index(URL)
    path.write_text(f'{head}\nbody')
    assert store.kept_index(URL) is None


def test_index_in_a_place_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    store = Store(str(tmp_path / 'file'))
    store.keep_index(URL, b'body', None)
    assert store.kept_index(URL) is None
