"""Providers against real servers, real files and real compressors."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.server
import json
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import pytest

from lago_layered_provider.core.errors import SettingsError, TransferError
from lago_layered_provider.formats import xz_index
from lago_layered_provider.providers import (
    http as http_provider, http_deadline, make_provider, read_document,
)
from lago_layered_provider.providers.file import FileProvider
from lago_layered_provider.providers.http import HttpProvider
from lago_layered_provider.providers.http_deadline import (
    SLOWEST_BYTES_A_SECOND,
)
from lago_layered_provider.providers.mirrored import Mirrored
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store
from lago_layered_provider.tools.deadline import Deadline
from lago_layered_provider.transfer.decode import Checkpoint, make_decoder
from lago_layered_provider.transfer.ports import Buffered, Provider, Stream
from tests.lab.running import until

DATA = b''.join(
    hashlib.sha256(str(count).encode()).digest() for count in range(20000)
)
LONG_AGO = 1_400_000_000


def need(tool: str) -> str:
    """Return the path of a program; without it skip, or fail in CI."""
    found = shutil.which(tool, path=os.environ['PATH'] + ':/usr/sbin')
    if found:
        return found
    if os.environ.get('CI') == 'true':
        pytest.fail(f'{tool} is missing')
    pytest.skip(f'{tool} is missing')


def read_all(stream: Stream) -> bytes:
    chunks: List[bytes] = []
    with contextlib.closing(stream):
        while True:
            data = stream.read(1 << 20)
            if not data:
                return b''.join(chunks)
            chunks.append(data)


def fails(call: Callable[[], Any]) -> TransferError:
    with pytest.raises(TransferError) as caught:
        call()
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A source with one image and its sidecars."""
    path = tmp_path / 'images'
    (path / 'sub').mkdir(parents=True)
    (path / 'el7').write_bytes(DATA)
    (path / 'sub' / 'with space').write_bytes(b'spacious')
    (path / 'el7.hash').write_text(hashlib.sha1(DATA).hexdigest() + '\n')
    (path / 'el7.metadata').write_text('{"distro": "el7"}')
    for name in path.rglob('*'):
        os.utime(name, (LONG_AGO, LONG_AGO))
    return path


# nginx: the good server.

NGINX = '''
daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;
events {{}}
http {{
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2;
  fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4;
  scgi_temp_path {dir}/t5;
  log_format short '$connection'; access_log {dir}/log short;
  gzip on; gzip_types *; gzip_min_length 1;
  server {{ listen 127.0.0.1:{port}; root {root}; etag {etag}; }}
}}
'''


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def nginx_over(root: Path, place: Path, etag: str) -> Iterator[str]:
    program, port = need('nginx'), free_port()
    place.mkdir()
    (place / 'conf').write_text(NGINX.format(
        dir=place, port=port, root=root, etag=etag
    ))
    process = subprocess.Popen(
        [program, '-p', str(place), '-c', str(place / 'conf')],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', port)).close()
                break
            time.sleep(0.05)
        yield f'http://127.0.0.1:{port}'
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=['on', 'off'], ids=['etag', 'date'])
def nginx(
    root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The base URL of an nginx over `root`, with entity tags or without."""
    with nginx_over(root, tmp_path / 'nginx', request.param) as url:
        yield url


def test_nginx_whole_and_ranges(nginx: str) -> None:
    provider = HttpProvider(nginx)
    info = provider.stat('el7')
    assert info.size == len(DATA)
    assert info.validator
    whole = provider.open('el7')
    assert (whole.start, whole.total) == (0, len(DATA))
    assert whole.validator == info.validator
    assert read_all(whole) == DATA
    for start, end in ((0, 10), (7, None), (100, 100100), (5, 10 ** 9)):
        part = provider.open(
            'el7', start=start, end=end, validator=info.validator
        )
        assert (part.start, part.total) == (start, len(DATA))
        assert read_all(part) == DATA[start:end]


def test_nginx_complete_already(nginx: str) -> None:
    provider = HttpProvider(nginx)
    stream = provider.open('el7', start=len(DATA))
    assert (stream.start, stream.total) == (len(DATA), len(DATA))
    assert read_all(stream) == b''


def test_nginx_past_the_end_begins_again(nginx: str) -> None:
    stream = HttpProvider(nginx).open('el7', start=len(DATA) + 1)
    assert stream.start == 0
    assert read_all(stream) == DATA


def test_nginx_changed_file_begins_again(nginx: str, root: Path) -> None:
    provider = HttpProvider(nginx)
    validator = provider.stat('el7').validator
    (root / 'el7').write_bytes(DATA[::-1])
    os.utime(root / 'el7', (LONG_AGO + 9, LONG_AGO + 9))
    stream = provider.open('el7', start=100, validator=validator)
    assert stream.start == 0
    assert stream.validator != validator
    assert read_all(stream) == DATA[::-1]


def test_nginx_quoting(nginx: str) -> None:
    provider = HttpProvider(nginx)
    for handle in ('sub/with space', 'sub/with%20space'):
        assert read_all(provider.open(handle)) == b'spacious'


def test_nginx_missing(nginx: str) -> None:
    provider = HttpProvider(nginx)
    for call in (provider.stat, provider.open):
        error = fails(lambda: call('el8'))
        assert error.status == 404
        assert not error.retryable
        assert error.reason == 'HTTP 404 Not Found'
        assert error.url == f'{nginx}/el8'


def test_nginx_connection_is_kept(nginx: str, tmp_path: Path) -> None:
    provider = HttpProvider(nginx)
    for _ in range(3):
        provider.stat('el7')
        fails(lambda: provider.open('el8'))
        read_all(provider.open('el7'))
        read_all(provider.open('el7', start=len(DATA) - 9))
    connections = (tmp_path / 'nginx' / 'log').read_text().split()
    # The last line is written after its answer was sent.
    assert len(connections) >= 11
    assert len(set(connections)) == 1


def test_nginx_document(nginx: str) -> None:
    url = f'{nginx}/el7.metadata'
    document = read_document(url, limit=100)
    assert document.body == b'{"distro": "el7"}'
    again = read_document(url, limit=100, validator=document.validator)
    assert (again.body, again.validator) == (None, document.validator)
    assert 'too large' in fails(lambda: read_document(url, limit=5)).reason
    assert fails(lambda: read_document(f'{nginx}/no', limit=5)).status == 404


# Both types: Lago's methods.


@pytest.mark.parametrize('kind', ['http', 'file'])
@pytest.mark.parametrize('tool, suffix', [
    ('xz', '.xz'), ('zstd', '.zst'), ('gzip', '.gz'), (None, ''),
])
def test_lago_methods(
    kind: str, tool: Optional[str], suffix: str, root: Path, tmp_path: Path
) -> None:
    if tool:
        subprocess.run([need(tool), '-1qf', str(root / 'el7')], check=True)
        (root / 'el7').unlink(missing_ok=True)
    dest = tmp_path / 'image'
    with contextlib.ExitStack() as stack:
        provider: Any = FileProvider(str(root))
        if kind == 'http':
            provider = HttpProvider(stack.enter_context(
                nginx_over(root, tmp_path / 'nginx', 'on')
            ))
        for handle in ('el7', 'el7' + suffix):
            provider.download_image(handle, str(dest))
            assert dest.read_bytes() == DATA
        assert provider.get_hash('el7') == hashlib.sha1(DATA).hexdigest()
        assert provider.get_metadata('el7') == {'distro': 'el7'}
        assert fails(lambda: provider.get_hash('el8')).status == 404


def test_sidecar_of_the_compressed_file_comes_first(root: Path) -> None:
    """That is Lago's order over HTTP."""
    (root / 'el7.xz.metadata').write_text('{"distro": "xz"}')
    with serving(
        lambda *args: QuietFiles(*args, directory=str(root))
    ) as url:
        assert HttpProvider(url).get_metadata('el7') == {'distro': 'xz'}
    assert FileProvider(str(root)).get_metadata('el7') == {'distro': 'el7'}


def test_lago_methods_on_bad_files(root: Path, tmp_path: Path) -> None:
    provider = FileProvider(str(root))
    (root / 'bad.xz').write_bytes(b'<html>')
    (root / 'bad.metadata').write_text('[]')
    (root / 'bad.hash').write_text('')
    dest = tmp_path / 'image'
    fails(lambda: provider.download_image('bad', str(dest)))
    assert not dest.exists()
    assert 'object' in fails(lambda: provider.get_metadata('bad')).reason
    assert 'empty' in fails(lambda: provider.get_hash('bad')).reason


# Python's own server: no Range.


@contextlib.contextmanager
def serving(
    handler: Callable[..., http.server.BaseHTTPRequestHandler],
    context: Optional[ssl.SSLContext] = None,
) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def test_server_without_range(root: Path) -> None:
    with serving(
        lambda *args: QuietFiles(*args, directory=str(root))
    ) as url:
        provider = HttpProvider(url)
        info = provider.stat('el7')
        stream = provider.open('el7', start=100, validator=info.validator)
        assert (stream.start, stream.total) == (0, len(DATA))
        assert read_all(stream) == DATA
        assert read_all(provider.open('el7', start=10, end=20)) == DATA[:20]


# A server that misbehaves.

Answer = Tuple[int, Dict[str, str], Union[bytes, Callable[[Any], None]]]


class Rude:
    """Answers by a script: a function of the request's headers."""

    def __init__(self, script: Callable[[Any], Answer]) -> None:
        self.requests: List[Tuple[str, Dict[str, str]]] = []
        rude = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self) -> None:
                rude.requests.append((self.command, dict(self.headers)))
                status, headers, body = script(self)
                self.send_response(status)
                if isinstance(body, bytes):
                    headers.setdefault('Content-Length', str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == 'HEAD':
                    return
                if isinstance(body, bytes):
                    self.wfile.write(body)
                else:
                    body(self)
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.handler = Handler


@contextlib.contextmanager
def rude(
    script: Callable[[Any], Answer]
) -> Iterator[Tuple[HttpProvider, Rude]]:
    server = Rude(script)
    with serving(server.handler) as url:
        yield HttpProvider(url, timeout=5), server


def send(data: bytes) -> Callable[[Any], None]:
    def write(request: Any) -> None:
        request.wfile.write(data)

    return write


def test_cut_body() -> None:
    with rude(
        lambda _: (200, {'Content-Length': '100'}, send(b'x' * 40))
    ) as (provider, _):
        stream = provider.open('el7')
        assert stream.total == 100
        error = fails(lambda: read_all(stream))
        assert error.retryable
        assert 'of 100 bytes' in error.reason
        url = provider.locate('el7')
        error = fails(lambda: read_document(url, limit=1000))
        assert error.retryable


def test_cut_chunked_body() -> None:
    chunks = b'5\r\nhello\r\n' + b'10\r\nshort'
    with rude(
        lambda _: (200, {'Transfer-Encoding': 'chunked'}, send(chunks))
    ) as (provider, _):
        stream = provider.open('el7')
        assert stream.total is None
        assert fails(lambda: read_all(stream)).retryable


def test_whole_chunked_body() -> None:
    chunks = b'5\r\nhello\r\n0\r\n\r\n'
    with rude(
        lambda _: (200, {'Transfer-Encoding': 'chunked'}, send(chunks))
    ) as (provider, _):
        assert read_all(provider.open('el7')) == b'hello'


@pytest.mark.parametrize('keep', ['close', 'keep-alive'])
def test_abort_wakes_a_stalled_reader(keep: str) -> None:
    release = threading.Event()

    def stall(request: Any) -> None:
        request.wfile.write(b'x' * 10)
        request.wfile.flush()
        release.wait(120)

    with rude(lambda _: (
        200, {'Content-Length': '100', 'Connection': keep}, stall
    )) as (provider, _):
        provider.timeout = 120
        stream = provider.open('el7')
        caught: List[TransferError] = []
        reader = threading.Thread(
            target=lambda: caught.append(fails(lambda: read_all(stream)))
        )
        reader.start()
        time.sleep(0.3)
        stream.abort()
        # The server is silent until the reader has ended.
        reader.join(60)
        ended = not reader.is_alive()
        release.set()
        stream.close()
        stream.close()
        assert ended
        assert caught[0].reason == 'the transfer was stopped'
        assert not caught[0].retryable


@pytest.mark.quick
def test_abort_and_trust_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([
        need('openssl'), 'req', '-x509', '-newkey', 'rsa:2048', '-nodes',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1',
        '-keyout', str(tmp_path / 'key'), '-out', str(tmp_path / 'cert'),
    ], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / 'cert', tmp_path / 'key')
    release = threading.Event()

    def stall(request: Any) -> None:
        request.wfile.write(b'x' * 10)
        release.wait(60)

    server = Rude(lambda _: (200, {'Content-Length': '100'}, stall))
    with serving(server.handler, context) as url:
        provider = HttpProvider(url.replace('http:', 'https:'))
        error = fails(lambda: provider.stat('el7'))
        assert 'certificate' in error.reason
        assert not error.retryable
        monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(tmp_path / 'cert'))
        stream = provider.open('el7')
        threading.Timer(0.3, stream.abort).start()
        began = time.monotonic()
        error = fails(lambda: read_all(stream))
        waited = time.monotonic() - began
        release.set()
        stream.close()
        assert waited < 50
        assert error.reason == 'the transfer was stopped'


def test_late_abort_does_not_hit_the_next_stream() -> None:
    with rude(lambda _: (200, {}, DATA)) as (provider, _):
        first = provider.open('el7')
        chunk = b''
        while len(chunk) < len(DATA):
            chunk += first.read(1 << 20)
        second = provider.open('el7')
        first.abort()
        assert read_all(second) == DATA
        first.close()


def test_what_waits_for_its_reader_is_seen() -> None:
    release = threading.Event()

    def send_some(request: Any) -> None:
        request.wfile.write(bytes(1 << 20))
        request.wfile.flush()
        release.wait(60)

    with rude(
        lambda _: (200, {'Content-Length': str(2 << 20)}, send_some)
    ) as (provider, _):
        stream = provider.open('el7')
        mirrored = Mirrored([provider], lambda _: None).open('el7')
        for each in (stream, mirrored):
            assert isinstance(each, Buffered)
            left = 1 << 20
            until(each.has_unread, 'bytes wait')
            while left:
                left -= len(each.read(min(left, 1 << 16)))
            assert not each.has_unread()
        release.set()
        for each in (stream, mirrored):
            each.close()
            assert isinstance(each, Buffered) and not each.has_unread()


def test_stall_ends_by_timeout() -> None:
    release = threading.Event()

    def stall(request: Any) -> None:
        release.wait(60)

    with rude(
        lambda _: (200, {'Content-Length': '9'}, stall)
    ) as (provider, _):
        provider.timeout = 2
        stream = provider.open('el7')
        error = fails(lambda: stream.read(9))
        release.set()
        stream.close()
        assert error.retryable
        assert 'no answer within 2 s' in error.reason


def http_date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize('status, retryable', [
    (503, True), (500, True), (502, True), (429, True), (408, True),
    (425, True), (501, False), (403, False), (401, False), (204, False),
])
def test_statuses(status: int, retryable: bool) -> None:
    with rude(lambda _: (status, {}, b'')) as (provider, _):
        error = fails(lambda: provider.open('el7'))
        assert (error.status, error.retryable) == (status, retryable)
        assert error.reason.startswith(f'HTTP {status} ')
        assert error.retry_after is None


@pytest.mark.parametrize('wish, low, high', [
    ('7', 7, 7), (60, 50, 70), (-60, 0, 0),
])
def test_retry_after(wish: Union[str, int], low: int, high: int) -> None:
    value = wish if isinstance(wish, str) else http_date(wish)
    with rude(lambda _: (503, {'Retry-After': value}, b'')) as (provider, _):
        found = fails(lambda: provider.open('el7')).retry_after
        assert found is not None
        assert low <= found <= high


@pytest.mark.parametrize('value', ['soon', '-5', '1e9', 'nan'])
def test_retry_after_without_sense(value: str) -> None:
    with rude(lambda _: (503, {'Retry-After': value}, b'')) as (provider, _):
        assert fails(lambda: provider.open('el7')).retry_after is None


def ranged(first: int, total: object, tag: str) -> Callable[[Any], Answer]:
    """Answer a range with a Content-Range of one's own."""

    def script(request: Any) -> Answer:
        if 'Range' not in request.headers:
            return 200, {'ETag': tag}, DATA
        return 206, {
            'ETag': tag,
            'Content-Range': f'bytes {first}-{len(DATA) - 1}/{total}',
        }, DATA[first:]

    return script


@pytest.mark.parametrize('first, tag, start', [
    (100, '"a"', 100),
    # Another range than the one asked for.
    (90, '"a"', 0),
    # If-Range was ignored although the file changed.
    (100, '"b"', 0),
])
@pytest.mark.parametrize('total', [len(DATA), '*'])
def test_content_range(
    first: int, tag: str, start: int, total: object
) -> None:
    with rude(ranged(first, total, tag)) as (provider, server):
        stream = provider.open('el7', start=100, validator='"a"')
        assert stream.start == start
        assert read_all(stream) == DATA[start:]
        asked = server.requests[0][1]
        assert asked['Range'] == 'bytes=100-'
        assert asked['If-Range'] == '"a"'
        assert asked['Accept-Encoding'] == 'identity'


def test_range_answered_in_part() -> None:
    """A server may send less than asked for; the rest is to be asked."""
    with rude(lambda _: (206, {
        'Content-Range': f'bytes 10-19/{len(DATA)}',
    }, DATA[10:20])) as (provider, _):
        stream = provider.open('el7', start=10)
        assert stream.read(100) == DATA[10:20]
        assert fails(lambda: stream.read(100)).retryable
        stream.close()


@pytest.mark.parametrize('path, coding, fine', [
    ('el7.qcow2', 'gzip', False),
    ('el7.qcow2', 'br', False),
    ('el7.qcow2', 'identity', True),
    ('el7.qcow2.xz', 'gzip', False),
    ('el7.qcow2.zst', 'zstd', True),
    # As apache labels such files.
    ('el7.qcow2.gz', 'x-gzip', True),
])
def test_what_the_server_compresses_is_named(
    path: str, coding: str, fine: bool
) -> None:
    with rude(
        lambda _: (200, {'Content-Encoding': coding}, DATA)
    ) as (provider, _):
        if fine:
            assert read_all(provider.open(path)) == DATA
            assert provider.stat(path).size == len(DATA)
            return
        for call in (
            lambda: provider.open(path), lambda: provider.stat(path),
            lambda: provider.open(path, start=5),
        ):
            error = fails(call)
            assert f'(Content-Encoding: {coding})' in error.message
            assert not error.retryable


def test_unasked_range_is_refused() -> None:
    with rude(lambda _: (206, {
        'Content-Range': 'bytes 5-9/10',
    }, b'56789')) as (provider, _):
        error = fails(lambda: provider.open('el7', start=3))
        assert (error.status, error.retryable) == (206, False)


LAST_YEARS = 'Thu, 01 Jan 2015 00:00:00 GMT'


@pytest.mark.parametrize('headers, expected', [
    ({'ETag': '"a"', 'Last-Modified': LAST_YEARS}, '"a"'),
    ({'ETag': 'W/"a"', 'Last-Modified': LAST_YEARS}, None),
    ({'Last-Modified': LAST_YEARS}, LAST_YEARS),
    # Not changed before the second of the answer.
    ({'Last-Modified': 'Tue, 01 Jan 2999 00:00:00 GMT'}, None),
    ({'Last-Modified': 'yesterday'}, None),
    ({}, None),
])
def test_validators(
    headers: Dict[str, str], expected: Optional[str]
) -> None:
    with rude(lambda _: (200, dict(headers), b'x')) as (provider, _):
        assert provider.stat('el7').validator == expected
        with contextlib.closing(provider.open('el7')) as stream:
            assert stream.validator == expected


@pytest.mark.parametrize('status', [405, 501])
def test_server_without_head(status: int) -> None:
    def script(request: Any) -> Answer:
        return (status if request.command == 'HEAD' else 200), {}, DATA

    with rude(script) as (provider, server):
        assert provider.stat('el7').size == len(DATA)
        assert [method for method, _ in server.requests] == ['HEAD', 'GET']


def test_redirect_to_another_host() -> None:
    with rude(lambda _: (200, {}, DATA)) as (there, server):
        with rude(lambda request: (
            302, {'Location': there.baseurl + request.path}, b''
        )) as (here, _):
            assert here.stat('el7').size == len(DATA)
            assert read_all(here.open('el7')) == DATA
            server.requests.clear()
            read_all(here.open('el7', start=5))
            assert server.requests[0][1]['Range'] == 'bytes=5-'


def test_redirects_without_end() -> None:
    with rude(lambda _: (302, {'Location': '/round'}, b'')) as (provider, _):
        assert not fails(lambda: provider.open('el7')).retryable


def test_document_larger_than_announced_or_allowed() -> None:
    def script(request: Any) -> Answer:
        if request.path == '/announced':
            return 200, {'Content-Length': str(1 << 40)}, send(b'x')
        endless = b'400\r\n' + b'x' * 1024 + b'\r\n'
        return 200, {'Transfer-Encoding': 'chunked'}, send(endless * 2000)

    with rude(script) as (provider, _):
        for path in ('announced', 'endless'):
            error = fails(lambda: read_document(
                provider.locate(path), limit=1 << 20
            ))
            assert error.reason == 'too large: more than 1048576 bytes'


def test_nobody_there() -> None:
    provider = HttpProvider(f'http://127.0.0.1:{free_port()}')
    error = fails(lambda: provider.open('el7'))
    assert error.reason == 'connection refused'
    assert error.retryable
    assert error.refused


def test_unknown_name() -> None:
    error = fails(lambda: HttpProvider('http://no-such.invalid').open('x'))
    assert error.reason == 'host name cannot be resolved'


@pytest.mark.parametrize('answer, reason', [
    (b'SSH-2.0-OpenSSH_9.2\r\n', "not an HTTP answer: 'SSH-2.0-OpenSSH_9.2'"),
    (b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 150, 'got more than 100 headers'),
])
@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_answers_that_are_none(
    scheme: str, answer: bytes, reason: str
) -> None:
    """What was being handled before has nothing to do with it."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        def serve() -> None:
            connection = server.accept()[0]
            connection.recv(4096)
            connection.sendall(answer)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f'{scheme}://127.0.0.1:{server.getsockname()[1]}/x'
        try:
            raise KeyError('an older failure')
        except KeyError:
            error = fails(lambda: read_document(url, limit=1))
    if scheme == 'https':
        reason = 'TLS: wrong version number; the server may only speak http'
    assert error.reason == reason
    assert not error.retryable and not error.hint


def test_caches_are_asked_to_ask_the_server() -> None:
    with rude(lambda _: (200, {}, DATA)) as (provider, server):
        provider.open('el7').close()
        provider.avoid_caches()
        provider.open('el7', start=5).close()
        provider.stat('el7')
        for fresh in (False, True):
            read_document(
                provider.locate('el7'), limit=len(DATA), fresh=fresh
            )
    assert [
        request[1].get('Cache-Control') for request in server.requests
    ] == [None, 'no-cache', 'no-cache', None, 'no-cache']


OK = b'HTTP/1.1 200 OK\r\n'
DRIPS = {
    'headers': (OK, b'X: '),
    'continue': (b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    'body': (OK + b'Content-Length: 100000\r\n\r\n', b' '),
    'body without a length': (OK + b'\r\n', b' '),
    'TLS': (b'\x16\x03\x03\x40\x00', b'\x02'),
}


@pytest.mark.parametrize('what', DRIPS)
def test_an_answer_that_never_ends(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is the whole that takes too long, not the time between two bytes.
    monkeypatch.setattr(http_deadline, 'TIMEOUTS', 1 / 60)
    timeout = 60
    first, drip = DRIPS[what]
    gone = threading.Event()

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                connection.recv(4096)
                connection.sendall(first)
                with contextlib.suppress(OSError):
                    while not gone.wait(0.02):
                        connection.sendall(drip)
                connection.close()

    with socket.create_server(('127.0.0.1', 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        scheme = 'https' if what == 'TLS' else 'http'
        url = f'{scheme}://127.0.0.1:{server.getsockname()[1]}/x'
        error = fails(lambda: read_document(
            url, limit=10**6, timeout=timeout
        ))
        assert error.reason == 'no whole answer within 1 s'
        if what == 'headers':
            provider = HttpProvider(url, timeout=timeout)
            for ask in (provider.open, provider.stat):
                error = fails(lambda: ask('y'))
                assert error.reason == 'no whole answer within 1 s'
        # It is as if the server were away.
        store = Store(str(tmp_path))
        store.prepare()
        store.keep_index(url, b'{"name": "kept"}', None)
        said: List[str] = []
        found = ByPath(url).read(Settings(timeout=60), said.append, store)
        assert found.name == 'kept'
        assert 'using the index kept from the last time' in said[0]
        gone.set()


def test_a_long_answer_that_comes_has_its_time() -> None:
    class Response:
        headers: Dict[str, str] = {}

        def iter_content(self, size: int) -> List[bytes]:
            return [bytes(size)] * 4

    deadline = Deadline(90, lambda: None)
    body = http_provider._read_body(
        'http://a/', Response(), 1 << 20, deadline  # type: ignore[arg-type]
    )
    assert deadline.seconds == 90 + len(body) / SLOWEST_BYTES_A_SECOND


def test_ca_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', '/nonexistent/ca.pem')
    error = fails(lambda: read_document('https://127.0.0.1:1/', limit=1))
    assert '/nonexistent/ca.pem' in error.reason
    assert not error.retryable


def test_password_is_not_shown() -> None:
    url = f'http://me:secret@127.0.0.1:{free_port()}'
    for error in (
        fails(lambda: HttpProvider(url).open('x')),
        fails(lambda: read_document(url, limit=1)),
    ):
        assert 'secret' not in str(error)


# Ranges that a server does not give.

#: What a server answers to a Range request; without one, all of the file.
ODD: Dict[str, Answer] = {
    'bad request': (400, {}, b''),
    'not implemented': (501, {}, b''),
    'a range without its place': (206, {}, DATA[5:9]),
    'several parts': (
        206, {'Content-Type': 'multipart/byteranges; boundary=x'}, b'--x'
    ),
}


@pytest.mark.parametrize('odd', ODD.values(), ids=ODD)
@pytest.mark.parametrize('end', [None, 9])
def test_what_cannot_be_had_in_part_is_had_whole(
    end: Optional[int], odd: Answer
) -> None:
    def script(request: Any) -> Answer:
        return odd if 'Range' in request.headers else (200, {}, DATA)

    with rude(script) as (provider, server):
        stream = provider.open('el7', start=5, end=end)
        assert stream.start == 0
        if end is None:
            assert read_all(stream) == DATA
        # For a part alone the whole file is not begun.
        assert len(server.requests) == (2 if end is None else 1)
        # It was learned, for other files as well.
        server.requests.clear()
        assert provider.open('el8', start=5, end=9).start == 0
        assert server.requests == []
        assert read_all(provider.open('el8', start=5)) == DATA
        assert read_all(provider.open('el8', end=9)) == DATA[:9]
        assert not any('Range' in asked for _, asked in server.requests)


def test_one_odd_answer_of_a_server_that_gives_ranges() -> None:
    """Such as one node of several: ranges are asked for all the same."""
    answers: List[Answer] = [(400, {}, b'')]

    def script(request: Any) -> Answer:
        if 'Range' in request.headers and len(server.requests) == 2:
            return answers[0]
        return ranged(5, len(DATA), '"a"')(request)

    with rude(script) as (provider, server):
        assert read_all(provider.open('el7', start=5)) == DATA[5:]
        assert provider.open('el7', start=5, end=9).start == 0
        assert read_all(provider.open('el7', start=5)) == DATA[5:]


@pytest.mark.parametrize('status', [401, 403, 404, 410, 429, 500, 503])
def test_what_is_no_answer_to_the_range_is_not_asked_twice(
    status: int
) -> None:
    with rude(lambda _: (status, {}, b'')) as (provider, server):
        fails(lambda: provider.open('el7', start=5))
        assert len(server.requests) == 1


# Addresses with a query, and redirects.

def test_the_path_goes_before_the_query_of_a_source() -> None:
    """Signed addresses: all that is asked for, sidecars as well."""
    seen: List[str] = []

    def script(request: Any) -> Answer:
        seen.append(request.path)
        return 200, {}, b'{"distro": "el7"}'

    with rude(script) as (here, _):
        for base in ('/images', '/images/', ''):
            provider = HttpProvider(f'{here.baseurl}{base}?sig=a/b%2F&x=')
            provider.stat('el7.xz')
            provider.open('sub/el 7', start=3).close()
            provider.get_metadata('el7')
            root = base.rstrip('/')
            assert seen == [
                f'{root}/{name}?sig=a/b%2F&x='
                for name in ('el7.xz', 'sub/el%207', 'el7.xz.metadata')
            ]
            seen.clear()


class Moving:
    """A server that redirects each file to a place on another one.

    Attributes:
        expired: what places that were given out before answer.
    """

    def __init__(self) -> None:
        self.expired: Dict[str, int] = {}
        self.asked: List[str] = []
        self.given = 0
        self.there = ''

    def redirect(self, request: Any) -> Answer:
        self.asked.append('here')
        self.given += 1
        where = f'{self.there}/{self.given}'
        return 302, {'Location': where}, b''

    def answer(self, request: Any) -> Answer:
        self.asked.append(request.path)
        if request.path in self.expired:
            return self.expired[request.path], {}, b''
        return ranged(5, len(DATA), '"a"')(request)


@contextlib.contextmanager
def moving() -> Iterator[Tuple[HttpProvider, Moving]]:
    made = Moving()
    with rude(made.answer) as (there, _), rude(made.redirect) as (here, _):
        made.there = there.baseurl
        yield here, made


@pytest.mark.parametrize('status', [401, 403, 404, 410])
def test_a_redirect_is_followed_until_its_place_is_good_no_more(
    status: int
) -> None:
    with moving() as (provider, made):
        for _ in range(3):
            assert read_all(provider.open('a', start=5, end=99)) == (
                DATA[5:99])
        assert made.asked == ['here', '/1', '/1', '/1']
        made.expired['/1'] = status
        for _ in range(2):
            assert read_all(provider.open('a', start=5)) == DATA[5:]
        assert made.asked[4:] == ['/1', 'here', '/2', '/2']
        # Each file has its own place.
        read_all(provider.open('b'))
        assert made.asked[8:] == ['here', '/3']
        # A file that is gone for good is not asked for again and again.
        made.expired['/2'] = made.expired['/4'] = status
        assert fails(lambda: provider.open('a')).status in (status, 404)
        assert made.asked[10:] == ['/2', 'here', '/4']


def test_a_place_that_is_away_is_asked_for_anew() -> None:
    with moving() as (provider, made):
        read_all(provider.open('a'))
        made.expired['/1'] = 503
        assert fails(lambda: provider.open('a')).retryable
        read_all(provider.open('a'))
        assert made.asked == ['here', '/1', '/1', 'here', '/2']
        provider._places['a'] = f'http://127.0.0.1:{free_port()}/gone'
        assert fails(lambda: provider.open('a')).refused
        read_all(provider.open('a'))
        assert made.asked[5:] == ['here', '/3']


@pytest.mark.parametrize('other', [False, True])
def test_credentials_are_for_their_own_server(other: bool) -> None:
    """On the way of a redirect, and when its place is used directly."""
    def script(request: Any) -> Answer:
        if request.path == '/el7':
            return 302, {'Location': f'{target}/moved'}, b''
        return 200, {}, DATA

    with rude(script) as (here, server), rude(script) as (there, elsewhere):
        target = (there if other else here).baseurl
        host = here.baseurl.partition('://')[2]
        provider = HttpProvider(f'http://me:secret@{host}/')
        for _ in range(2):
            read_all(provider.open('el7'))
        asked = [headers for _, headers in server.requests]
        assert len(asked) == (1 if other else 3)
        assert all('Authorization' in headers for headers in asked)
        assert len(elsewhere.requests) == (2 if other else 0)
        assert not any(
            'Authorization' in headers for _, headers in elsewhere.requests
        )


# Answers and addresses without sense.

HELLO = b'\r\n\r\nhello'
LONG = b'9' * 5000
SENSELESS = {
    'length': b'404 Not Found\r\nContent-Length: abc' + HELLO,
    'long length': b'404 Not Found\r\nContent-Length: ' + LONG + HELLO,
    'negative length': b'404 Not Found\r\nContent-Length: -5' + HELLO,
    'chunk': b'200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5' + HELLO,
    'chunk of an error': (
        b'404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n-5' + HELLO
    ),
    'long chunk': (
        b'200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + LONG + HELLO
    ),
    'status': LONG + b' OK' + HELLO,
    'redirect': b'302 Found\r\nLocation: http://[x' + HELLO,
    'redirect to a long port': (
        b'302 Found\r\nLocation: http://x:' + LONG + b'/' + HELLO
    ),
    'redirect to no host': b'302 Found\r\nLocation: http://\xff' + HELLO,
}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Give the same answer to every request."""
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(b'HTTP/1.1 ' + answer)

    with socketserver.ThreadingTCPServer(
        ('127.0.0.1', 0), Handler
    ) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f'http://127.0.0.1:{server.server_address[1]}'
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize('answer', SENSELESS.values(), ids=SENSELESS)
def test_an_answer_without_sense_is_one_error(answer: bytes) -> None:
    with answering(answer) as url:
        provider = HttpProvider(url, timeout=5)
        fails(lambda: read_document(f'{url}/x', limit=99, timeout=5))
        fails(lambda: read_all(provider.open('x', start=3, end=9)))
        fails(lambda: read_all(provider.open('x')))


@pytest.mark.parametrize('url', [
    'http://[x/y', 'http://[::1/y', 'http://127.0.0.1:p/y',
    f'http://127.0.0.1:{10**9}/y',
    'http://x y/', 'http:///y', 'file://[x/y',
])
def test_an_address_without_sense_is_one_error(url: str) -> None:
    error = fails(lambda: read_document(url, limit=99, timeout=5))
    assert url in error.message
    assert not error.retryable
    if url.startswith('http'):
        with pytest.raises((SettingsError, TransferError)):
            make_provider('http', {'baseurl': url}, roots=None).open('y')


# Files.


def test_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('IMAGES', str(root))
    provider = FileProvider('$IMAGES')
    info = provider.stat('el7')
    assert info.size == len(DATA)
    assert read_all(provider.open('el7')) == DATA
    for start, end in ((5, None), (5, 50), (len(DATA), None)):
        stream = provider.open(
            'el7', start=start, end=end, validator=info.validator
        )
        assert (stream.start, stream.total) == (start, len(DATA))
        assert read_all(stream) == DATA[start:end]
    with contextlib.closing(
        provider.open('el7', start=len(DATA) + 1)
    ) as beyond:
        assert beyond.start == 0
    (root / 'el7').write_bytes(b'changed')
    stream = provider.open('el7', start=5, validator=info.validator)
    assert stream.start == 0
    assert read_all(stream) == b'changed'


def test_file_that_is_none(root: Path) -> None:
    provider = FileProvider(str(root))
    os.mkfifo(root / 'fifo')
    assert fails(lambda: provider.open('el8')).status == 404
    assert fails(lambda: provider.stat('el7/below')).status == 404
    for name in ('fifo', 'sub'):
        assert 'regular' in fails(lambda: provider.open(name)).reason


def test_file_cut_while_read(root: Path) -> None:
    stream = FileProvider(str(root)).open('el7')
    os.truncate(root / 'el7', 10)
    stream.read(10)
    assert fails(lambda: stream.read(10)).retryable
    stream.abort()
    assert 'stopped' in fails(lambda: stream.read(10)).reason
    stream.close()


@pytest.mark.parametrize('form', ['{}', 'file://{}', 'file://localhost{}'])
def test_document_in_a_file(root: Path, form: str) -> None:
    location = form.format(root / 'el7.metadata')
    document = read_document(location, limit=100)
    assert document.body == b'{"distro": "el7"}'
    again = read_document(location, limit=100, validator=document.validator)
    assert again.body is None
    assert 'too large' in fails(
        lambda: read_document(location, limit=5)
    ).reason


@pytest.mark.parametrize('location', ['ftp://x/y', 'file://host/y'])
def test_document_elsewhere(location: str) -> None:
    fails(lambda: read_document(location, limit=5))


# Finding a provider by its type.

FINDER = '''
import json, sys
from lago_layered_provider.core.errors import SettingsError
from lago_layered_provider.providers import make_provider
assert not {'requests', 'stevedore'} & set(sys.modules)
try:
    args = json.loads(sys.argv[2])
    print(make_provider(sys.argv[1], args, roots=None).locate('a b'))
except SettingsError as error:
    print(error)
'''


@pytest.fixture
def find(tmp_path: Path) -> Callable[[str, Dict[str, Any]], str]:
    """Return what comes of a type with a third package installed."""
    (tmp_path / 'dummy.py').write_text(
        'class Dummy:\n'
        '    def __init__(self, shelf):\n'
        '        self.shelf = shelf\n'
        '    def locate(self, path):\n'
        '        return f"{self.shelf}/{path}"\n'
    )
    info = tmp_path / 'dummy_types-1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Name: dummy-types\nVersion: 1\n')
    (info / 'entry_points.txt').write_text(
        '[lago.plugins.template_provider]\n'
        'dummy = dummy:Dummy\n'
        'web = lago_layered_provider.providers.http:HttpProvider\n'
        'broken = no_such_module:Thing\n'
        'twice = dummy:Dummy\n'
    )
    other = tmp_path / 'other_types-1.dist-info'
    other.mkdir()
    (other / 'METADATA').write_text('Name: other-types\nVersion: 1\n')
    (other / 'entry_points.txt').write_text(
        '[lago.plugins.template_provider]\ntwice = other:Dummy\n'
    )
    (tmp_path / 'other.py').write_text('from dummy import Dummy\n')

    def run(type_name: str, args: Dict[str, Any]) -> str:
        package = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, '-c', FINDER, type_name, json.dumps(args)],
            env={
                **os.environ,
                'PYTHONPATH': f'{tmp_path}:{package}',
                'XDG_CACHE_HOME': str(tmp_path / 'cache'),
            },
            stdout=subprocess.PIPE, check=True, text=True, timeout=60,
        )
        return done.stdout

    return run


@pytest.mark.parametrize('type_name, args, parts', [
    ('dummy', {'shelf': 'top'}, ['top/a b\n']),
    ('web', {'baseurl': 'http://x/y'}, ['http://x/y/a%20b\n']),
    ('web', {'baseurl': 'http://x/', 'timeout': 3}, ['http://x/a%20b\n']),
    ('web', {'base': 'x'}, ['type web', "base='x'"]),
    ('web', {'baseurl': 3}, ['baseurl=3', 'is no http or https URL']),
    ('web', {'baseurl': 'http://x', 'timeout': 'y'}, ["timeout='y'"]),
    ('gluster', {}, ["'gluster'", 'installed are:', 'dummy', 'web']),
    ('broken', {}, ["'broken' cannot be loaded", 'no_such_module']),
    ('twice', {}, ['dummy:Dummy, other:Dummy']),
])
def test_types(
    find: Callable[[str, Dict[str, Any]], str],
    type_name: str, args: Dict[str, Any], parts: List[str],
) -> None:
    found = find(type_name, args)
    for part in parts:
        assert part in found


def test_types_in_this_process() -> None:
    with pytest.raises(SettingsError, match='gluster'):
        make_provider('gluster', {}, roots=None)


# Files of the real compressors, through a provider, cut and resumed.

BLOCKS = '--block-size=65536'


def decode_with_breaks(
    provider: Provider, path: str, kind: str, length: int
) -> bytes:
    """Decode a file, with a fresh decoder about every `length` bytes."""
    out, place = b'', Checkpoint(0, 0)
    while True:
        stream = provider.open(path, start=place.consumed)
        decoder = make_decoder(
            kind, consumed=place.consumed, preamble=place.preamble
        )
        fed, made = 0, b''
        while fed < length:
            data = stream.read(10007)
            if not data:
                stream.close()
                decoder.finish()
                return out + made
            fed += len(data)
            made += b''.join(decoder.feed(data))
        stream.close()
        if decoder.checkpoint.consumed == place.consumed:
            # The unit is longer than that.
            length *= 2
        place = decoder.checkpoint
        out += made[:place.produced]


@pytest.mark.parametrize('command, kind, units', [
    (['xz', '-T2', '-0', BLOCKS], 'xz', 10),
    (['xz', '-T2', '-0', '-C', 'sha256', BLOCKS], 'xz', 10),
    (['xz', '-T2', '-Cnone', '--x86', '--lzma2', BLOCKS], 'xz', 10),
    (['xz', '-T1', '-0'], 'xz', 1),
    (['zstd', '-3'], 'zst', 1),
    (['zstd', '-3', '--long=27'], 'zst', 1),
    (['pzstd', '-3', '-p', '2'], 'zst', 1),
    (['gzip', '-1'], 'gz', 1),
])
@pytest.mark.parametrize('copies', [1, 2])
def test_real_compressors(
    command: List[str], kind: str, units: int, copies: int, tmp_path: Path
) -> None:
    """Also of files one behind the other."""
    need(command[0])
    packed = subprocess.run(
        [*command, '-c'], input=DATA + bytes(1 << 20) + DATA,
        stdout=subprocess.PIPE, check=True,
    ).stdout
    (tmp_path / 'packed').write_bytes(packed * copies)
    plain = (DATA + bytes(1 << 20) + DATA) * copies
    provider = FileProvider(str(tmp_path))
    for length in (50000, 1 << 30):
        assert plain == decode_with_breaks(provider, 'packed', kind, length)
    decoder = make_decoder(kind)
    places = set()
    for at in range(0, len(packed), 1000):
        list(decoder.feed(packed[at:at + 1000]))
        places.add(decoder.checkpoint.produced)
    assert len(places) > units
    if kind == 'xz' and copies == 1:
        index = xz_index.parse_index_tail(packed, len(packed))
        assert isinstance(index, xz_index.XzIndex)
        assert index.uncompressed_size == len(plain)
