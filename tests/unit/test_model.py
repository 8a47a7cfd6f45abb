"""The values refuse what must never reach a file name or a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest

from lago_layered_provider.core.model import (
    BaseName, Chain, Digest, Image, ImageRef, UNKNOWN, check_handle,
    check_name,
)

IMAGE = Image(
    ref=ImageRef('lab', 'el7', 'v1'), source='main', handle='el7.qcow2',
    timestamp=1,
)

BAD_NAMES = {
    'empty': '',
    'dot': '.',
    'dots': '..',
    'climbs out': '../el7',
    'absolute': '/el7',
    'inner slash': 'a/b',
    'backslash': 'a\\b',
    'leading dot': '.el7',
    'leading dash': '-el7',
    'colon': 'el7:v1',
    'scheme': 'http://host/el7',
    'newline at the end': 'el7\n',
    'newline within': 'el\n7',
    'carriage return': 'el7\r',
    'NUL': 'el7\0',
    'escape': 'el7\x1b[2J',
    'blank': 'el 7',
    'dollar': '$HOME',
    'back quote': '`id`',
    'star': 'el*',
    'percent': '%2e%2e',
    'cyrillic e': '\u0435l7',
    'full-width dots': '\uff0e\uff0e',
    'two dot leader': '\u2025',
    'division slash': 'a\u2215b',
    'arabic digit': 'el\u0667',
    'zero width space': 'el7\u200b',
    'right to left': 'el7\u202e',
    'lone surrogate': 'el7\ud800',
    'not a string': 7,
    'none': None,
    'bytes': b'el7',
    'list': ['el7'],
}

BAD_HANDLES = {
    'empty': '',
    'climbs out': '../el7',
    'climbs out later': 'a/../../el7',
    'climbs out at the end': 'a/..',
    'absolute': '/etc/passwd',
    'other host': '//host/el7',
    'home': '~/el7',
    'option': '-o',
    'http': 'http://host/el7',
    'file': 'file:///etc/passwd',
    'scheme in capitals': 'HTTP://host/el7',
    'nbd': 'nbd:localhost:10809',
    'json': 'json:{}',
    'backslash': 'a\\..\\b',
    'newline': 'el7\n',
    'carriage return': 'el7\r\nHost: other',
    'NUL': 'el7\0.qcow2',
    'escape': 'el7\x1b[2J',
    'line separator': 'el7\u2028',
    'right to left': 'el7\u202eqcow2',
    'lone surrogate': 'el7\ud800',
    'not a string': 7,
    'none': None,
    'bytes': b'el7',
    'list': ['el7'],
}


@pytest.mark.parametrize(
    'name', ['el7', '7', 'v1.2', 'el7-nfs', '_x', 'a+b', '+', '@x', 'x..y']
)
def test_names(name: str) -> None:
    assert check_name(name, 'template') == name


@pytest.mark.parametrize('name', BAD_NAMES.values(), ids=BAD_NAMES)
def test_bad_names(name: object) -> None:
    with pytest.raises(ValueError, match='^template .* is not a name'):
        check_name(name, 'template')


@pytest.mark.parametrize('place', range(3))
@pytest.mark.parametrize('name', BAD_NAMES.values(), ids=BAD_NAMES)
def test_no_image_has_a_bad_name(name: object, place: int) -> None:
    parts = ['lab', 'el7', 'v1']
    parts[place] = name  # type: ignore[call-overload]
    with pytest.raises(ValueError, match='is not a name'):
        ImageRef(*parts)


@pytest.mark.parametrize('handle', [
    'el7', 'el7.qcow2', 'el7/v1/disk.xz', 'a..b/c', '.hidden', 'x/...',
    'with blank', 'dir/el7:v1', '\u00e9l7',
])
def test_handles(handle: str) -> None:
    assert check_handle(handle) == handle


@pytest.mark.parametrize('handle', BAD_HANDLES.values(), ids=BAD_HANDLES)
def test_bad_handles(handle: object) -> None:
    with pytest.raises(ValueError, match='^handle '):
        check_handle(handle)


def test_a_name_in_a_message_cannot_steer_the_terminal() -> None:
    with pytest.raises(ValueError) as caught:
        check_name('el7\x1b[2J\n', 'template')
    assert str(caught.value).isprintable()


def test_the_text_of_a_reference_is_the_name_in_the_store() -> None:
    ref = ImageRef('lab', 'el7', 'v1')
    assert str(ref) == 'lab:el7:v1'
    assert ref.short == 'el7:v1'


@pytest.mark.parametrize('algorithm, value', [
    ('md5', '0' * 32),
    ('sha1', '0' * 39),
    ('sha1', '0' * 41),
    ('sha256', '0' * 40),
    ('sha1', 'A' * 40),
    ('sha1', 'g' * 40),
    ('sha1', '0' * 40 + '\n'),
    ('sha1', '\u0660' * 40),
    ('sha512', ''),
])
def test_bad_digests(algorithm: str, value: str) -> None:
    with pytest.raises(ValueError):
        Digest(algorithm, value)


def test_the_strongest_digest_counts() -> None:
    weak = Digest('sha1', '1' * 40)
    middle = Digest('sha256', '2' * 64)
    strong = Digest('sha512', '3' * 128)
    assert IMAGE.digest is None
    assert replace(IMAGE, digests=(weak,)).digest == weak
    assert replace(IMAGE, digests=(weak, middle)).digest == middle
    assert replace(IMAGE, digests=(weak, strong, middle)).digest == strong


@pytest.mark.parametrize('handle, compression, file', [
    ('el7', None, 'el7'),
    ('el7', 'xz', 'el7.xz'),
    ('el7', 'zst', 'el7.zst'),
    ('el7', 'gz', 'el7.gz'),
    ('el7.xz', 'xz', 'el7.xz'),
    ('el7.xz', 'gz', 'el7.xz.gz'),
    ('el7.xz', None, 'el7.xz'),
])
def test_the_file_on_the_server(
    handle: str, compression: Optional[str], file: str
) -> None:
    image = replace(IMAGE, handle=handle, compression=compression)
    assert image.file == file


def test_no_file_without_compression() -> None:
    with pytest.raises(ValueError, match='lab:el7:v1'):
        replace(IMAGE, compression=UNKNOWN).file


def test_a_chain_has_an_image() -> None:
    with pytest.raises(ValueError):
        Chain(())
    chain = Chain((IMAGE, replace(IMAGE, handle='top')))
    assert len(chain) == 2
    assert chain.top.handle == 'top'
    assert [image.handle for image in chain] == ['el7.qcow2', 'top']


@pytest.mark.parametrize('base, text', [
    (BaseName('el7'), 'el7'),
    (BaseName('el7', 'v1'), 'el7:v1'),
    (BaseName('el7', 'v1', 'other'), 'other/el7:v1'),
    (BaseName('el7', None, 'other'), 'other/el7'),
])
def test_a_base_reads_as_the_index_has_it(base: BaseName, text: str) -> None:
    assert str(base) == text
