"""Look-ups in a source that is in memory: what is asked, what comes of it."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import struct
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import IndexFaults, TransferError
from lago_layered_provider.core.model import (
    Base, BaseDigest, BaseFile, BaseName, Digest, Image, ImageRef,
)
from lago_layered_provider.index.backing_names import Accepted, parse_backing
from lago_layered_provider.providers import ranges as lookup_read
from lago_layered_provider.repositories.lookup import Lookups, is_complete
from lago_layered_provider.transfer.ports import FileInfo

KIB = 1024
SHA1, SHA512 = 40 * 'a', 128 * 'c'


class MemoryStream(io.BytesIO):
    """The bytes of a file from some offset on."""

    def __init__(self, data: bytes, start: int, total: int) -> None:
        super().__init__(data)
        self.start = start
        self.total: Optional[int] = total
        self.validator: Optional[str] = None

    def abort(self) -> None:
        """Nobody waits."""

    def read(self, size: Optional[int] = -1) -> bytes:
        return super().read(size)


class MemoryProvider:
    """A source: files by their paths; it keeps what was asked of it.

    Args:
        ranges: it can begin in the middle of a file.
    """

    def __init__(self, files: Dict[str, bytes], ranges: bool = True) -> None:
        self.files = files
        self.ranges = ranges
        self.asked: List[str] = []
        self.given = 0

    def locate(self, path: str) -> str:
        return f'memory:{path}'

    def _get(self, path: str, how: str) -> bytes:
        self.asked.append(f'{how} {path}')
        if path not in self.files:
            raise TransferError(self.locate(path), 'not there', status=404)
        return self.files[path]

    def stat(self, path: str) -> FileInfo:
        return FileInfo(len(self._get(path, 'stat')), None)

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> MemoryStream:
        data = self._get(path, 'tail' if start else 'head' if end else 'get')
        if not self.ranges:
            start = 0
        part = data[start:end]
        self.given += len(part)
        return MemoryStream(part, start, len(data))


def image_of(handle: str = 'top', **fields: Any) -> Image:
    return Image(
        ref=ImageRef('lab', handle.split('.')[0].replace('/', '-'), 'v1'),
        source='web', handle=handle, timestamp=1, **fields,
    )


def disk(backing: str = '', size: int = 600 * KIB) -> bytes:
    """Return a qcow2 header and bytes of which little is compressible."""
    name = backing.encode()
    head = struct.pack(
        '>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3, 256 if name else 0, len(name),
        16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1, 0, 0, 0, 0, 0, 4, 104,
    ).ljust(256, b'\0') + name
    head = head.ljust(64 * KIB, b'\0')
    numbers = [(number * number * 2654435761) & 0xffffffff
               for number in range((size - len(head)) // 4)]
    return head + struct.pack(f'<{len(numbers)}I', *numbers)


def pack_xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def metadata(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


PACK: Dict[Optional[str], Callable[[bytes], bytes]] = {
    'xz': pack_xz, 'gz': gzip.compress, None: bytes,
}


@pytest.mark.parametrize('compression, suffix, forms', [
    ('xz', '.xz', 1), (None, '', 2), ('gz', '.gz', 4),
])
def test_header_only(
    compression: Optional[str], suffix: str, forms: int
) -> None:
    content = disk('./el7:v1')
    packed = PACK[compression](content)
    provider = MemoryProvider({
        f'top{suffix}': packed, f'next{suffix}': packed,
    })
    lookups = Lookups(provider)
    found = lookups.look_up(image_of())
    sidecars = [
        f'get top{form}{suffix}'
        for suffix in ('.metadata', '.hash') for form in ('', '.xz')
    ]
    tails = [f'tail top{suffix}'] if compression == 'xz' else []
    heads = ['head top.xz', 'head top', 'head top.zst', 'head top.gz']
    assert provider.asked == sidecars + heads[:forms] + tails
    assert provider.given < 200 * KIB
    assert found.base == BaseName('el7', 'v1')
    assert (found.format, found.virtual_size) == ('qcow2', 1 << 20)
    assert found.compression == compression
    if compression:
        assert found.compressed_size == len(packed)
    exact = compression != 'gz'
    assert found.size == (len(content) if exact else None)
    assert (found.max_size is None) is exact
    if found.max_size is not None:
        assert found.max_size > 1 << 20
    # What is unknown stays so: nothing is asked again.
    provider.asked.clear()
    assert lookups.look_up(found) == found == lookups.look_up(image_of())
    assert not provider.asked
    # The next image is asked for in the form that this one has.
    lookups.look_up(image_of('next'))
    assert len(provider.asked) == 5 + len(tails)


XZ_BYTES = len(pack_xz(disk('el7')))

SIDECAR: Dict[str, Any] = {
    'base': 'el7', 'size': str(700 * KIB), 'sha1': SHA1,
}


@pytest.mark.parametrize('fields, files, asked', [
    ({}, {'.metadata': SIDECAR}, ['get .metadata', 'stat .xz']),
    ({}, {'.xz.metadata': SIDECAR},
     ['get .metadata', 'get .xz.metadata', 'stat .xz']),
    # The hash only when it is needed, first in the form of the metadata.
    ({}, {'.metadata': {**SIDECAR, 'sha1': ''}, '.hash': SHA1},
     ['get .metadata', 'get .hash', 'stat .xz']),
    ({}, {'.xz.metadata': {**SIDECAR, 'sha1': ''}, '.xz.hash': SHA1},
     ['get .metadata', 'get .xz.metadata', 'get .xz.hash', 'stat .xz']),
    ({}, {'.metadata': {**SIDECAR, 'sha1': ''}, '.xz.hash': SHA1},
     ['get .metadata', 'get .hash', 'get .xz.hash', 'stat .xz']),
    ({}, {'.hash': SHA1}, [
        'get .metadata', 'get .xz.metadata', 'get .hash', 'head .xz',
        'tail .xz',
    ]),
    ({'metadata': {}, 'base': None, 'size': 7}, {},
     ['get .hash', 'get .xz.hash', 'stat .xz']),
    ({'metadata': {}, 'base': None, 'size': 7, 'compression': None}, {},
     ['get .hash']),
    ({'metadata': {}, 'base': None, 'compression': 'xz',
      'compressed_size': XZ_BYTES, 'digests': (Digest('sha1', SHA1),)}, {},
     ['head .xz', 'tail .xz']),
    # A base that is no answer, as `lago export` writes it.
    ({}, {'.metadata': {**SIDECAR, 'base': 'top'}},
     ['get .metadata', 'head .xz']),
    ({}, {'.metadata': {**SIDECAR, 'base': 'None'}},
     ['get .metadata', 'head .xz']),
    # The size is not known: the header gives a bound in the same request.
    ({}, {'.metadata': {**SIDECAR, 'size': 'large'}},
     ['get .metadata', 'head .xz', 'tail .xz']),
    ({'metadata': {}}, {}, [
        'get .metadata', 'get .xz.metadata', 'get .hash', 'get .xz.hash',
        'head .xz', 'tail .xz',
    ]),
])
def test_only_what_is_missing_is_asked(
    fields: Dict[str, Any], files: Dict[str, Any], asked: List[str]
) -> None:
    provider = MemoryProvider({
        'top.xz': pack_xz(disk('el7')), 'top': disk('el7'),
        **{f'top{suffix}': said.encode() if said == SHA1
           else metadata(**said) for suffix, said in files.items()},
    })
    found = Lookups(provider).look_up(image_of(**fields))
    assert bool(found.digests) == any(SHA1 in str(each) for each in (
        fields, *files.values()
    ))
    assert [one.replace('top', '') for one in provider.asked] == asked


def test_form_of_sidecars_is_remembered() -> None:
    names = ['a', 'b', 'c']
    provider = MemoryProvider({
        **{f'{name}.xz.metadata': metadata(**SIDECAR) for name in names[:2]},
        'c.metadata': metadata(**SIDECAR),
        **{f'{name}.xz': pack_xz(disk()) for name in names},
    })
    lookups = Lookups(provider)
    for name in names:
        found = lookups.look_up(image_of(name))
        assert is_complete(found)
    assert [one for one in provider.asked if 'metadata' in one] == [
        'get a.metadata', 'get a.xz.metadata', 'get b.xz.metadata',
        'get c.xz.metadata', 'get c.metadata',
    ]


def test_source_without_ranges_is_asked_for_one_end() -> None:
    names = ['a', 'b', 'c']
    provider = MemoryProvider(
        {f'{name}.xz': pack_xz(disk()) for name in names},
        ranges=False,
    )
    lookups = Lookups(provider)
    for name in names:
        found = lookups.look_up(image_of(name))
        assert found.size is None
        assert found.max_size is not None
    assert [one for one in provider.asked if 'tail' in one] == ['tail a.xz']


@pytest.mark.parametrize('ranges', [True, False])
@pytest.mark.parametrize('name_at', [200 * KIB, 2047 * KIB])
def test_header_that_needs_more(name_at: int, ranges: bool) -> None:
    head = bytearray(disk('x', size=4096 * KIB))
    struct.pack_into('>QII', head, 8, name_at, 8, 21)
    head[name_at:name_at + 8] = b'./el7:v9'
    provider = MemoryProvider({'top': bytes(head)}, ranges)
    found = Lookups(provider).look_up(image_of(compression=None))
    assert found.base == BaseName('el7', 'v9')
    assert not ranges or provider.given <= 4096 * KIB


@pytest.mark.parametrize('content, message', [
    (b'this is not an xz file', 'this is a text that begins with'),
    (b'\0' * 99, 'not the beginning of an xz'),
    (pack_xz(b'<html>' * 99), 'it is an HTML page, expected qcow2 or raw'),
    (pack_xz(disk()[:5000]), 'cut off'),
    (pack_xz(struct.pack('>4sI', b'QFI\xfb', 9).ljust(600)), 'version'),
    (pack_xz(disk('/etc/passwd')), 'not in its directory'),
    (pack_xz(disk('../el7')), 'not in its directory'),
    (pack_xz(disk('nbd:localhost:10809')), 'is not a name'),
    (pack_xz(disk('json:{}')), 'is not a name'),
    (pack_xz(disk('layer:el7')), 'names no image'),
    (pack_xz(disk('None')), 'names no image'),
])
def test_header_that_must_tell_the_base_and_cannot(
    content: bytes, message: str
) -> None:
    provider = MemoryProvider({'top.xz': content})
    with pytest.raises(IndexFaults, match=message) as caught:
        Lookups(provider).look_up(image_of())
    assert 'memory:top.xz' in str(caught.value)
    assert 'refused' in caught.value.hint
    # With a base known it is not the header that decides.
    found = Lookups(provider).look_up(image_of(base=BaseName('el7')))
    assert found.base == BaseName('el7')


@pytest.mark.parametrize('content', [b'\xebc\x90', bytes(700 * KIB)])
def test_raw_image(content: bytes) -> None:
    for files in ({'top': content}, {'top.gz': gzip.compress(content)}):
        found = Lookups(MemoryProvider(files)).look_up(image_of())
        assert (found.base, found.format) == (None, 'raw')
        assert found.max_size is None
        assert found.size == len(content)


def test_large_result_of_a_small_file_is_not_counted() -> None:
    content = disk()[:64 * KIB] + bytes(65 << 20)
    provider = MemoryProvider({'top.gz': gzip.compress(content, 1)})
    assert len(provider.files['top.gz']) < 400 * KIB
    found = Lookups(provider).look_up(image_of())
    assert found.size is None and found.max_size is not None


def test_missing_image_and_failures() -> None:
    with pytest.raises(TransferError, match='tried top.xz, top, top.zst'):
        Lookups(MemoryProvider({})).look_up(image_of())
    with pytest.raises(TransferError, match='memory:top.gz: not there'):
        Lookups(MemoryProvider({})).look_up(image_of(compression='gz'))
    for suffix, data, message in (
        ('.metadata', b'[]', 'not a JSON object'),
        ('.metadata', b'{', 'memory:top.metadata'),
        ('.metadata', b' ' * (2**20 + 1), 'more than'),
        ('.hash', b'xyz', 'hexadecimal'),
    ):
        files = {'top.metadata': b'{}', 'top.xz': pack_xz(disk())}
        provider = MemoryProvider({**files, f'top{suffix}': data})
        with pytest.raises(IndexFaults, match=message):
            Lookups(provider).look_up(image_of())


class Dripping(MemoryStream):
    """A file that comes until somebody gives up."""

    def __init__(self) -> None:
        super().__init__(b'', 0, 10**6)
        self.aborted = threading.Event()

    def abort(self) -> None:
        self.aborted.set()

    def read(self, size: Optional[int] = -1) -> bytes:
        if self.aborted.wait(0.01):
            raise TransferError('memory:x', 'the transfer was stopped')
        return b' '


def test_a_look_up_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_read, 'READ_SECONDS', 0.2)
    provider = MemoryProvider({'top': b''})
    monkeypatch.setattr(provider, 'open', lambda *_, **__: Dripping())
    with pytest.raises(TransferError, match='bytes within 0.2 s'):
        Lookups(provider).look_up(image_of())
    with pytest.raises(TransferError, match='bytes within 0.2 s'):
        lookup_read.read_range(provider, 'top', 0, 10**6)


def test_several_threads() -> None:
    names = [f'image{number}' for number in range(16)]
    packed = gzip.compress(disk('el7'))
    provider = MemoryProvider({f'{name}.gz': packed for name in names})
    lookups = Lookups(provider)
    found: Dict[str, Image] = {}
    threads = [
        threading.Thread(target=lambda name: found.update(
            {name: lookups.look_up(image_of(name))}
        ), args=(name,))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {image.file for image in found.values()} == set(provider.files)


@pytest.mark.parametrize('name, base', [
    ('./el7:v1', BaseName('el7', 'v1')),
    ('el7:v1', BaseName('el7', 'v1')),
    ('el7', BaseName('el7')),
    ('el7-v1.qcow2', BaseFile('el7-v1.qcow2')),
    ('./el7.img', BaseFile('el7.img')),
    ('el7.qcow2.xz', BaseFile('el7.qcow2')),
    (f'lago::{SHA512}::el7', BaseDigest(Digest('sha512', SHA512), 'el7')),
    (f'{SHA512.upper()}:el7', BaseDigest(Digest('sha512', SHA512), 'el7')),
])
def test_names_in_headers(name: str, base: Base) -> None:
    assert parse_backing(name) == base


@given(st.text(max_size=30), st.sampled_from(['', './', '/', 'a:', '../']))
def test_any_name_in_a_header(text: str, prefix: str) -> None:
    try:
        base = parse_backing(prefix + text)
    except ValueError:
        return
    assert isinstance(base, (BaseName, BaseFile))
    assert '/' not in str(base)


REF = ImageRef('lab', 'el7', 'v1')
KNOWN = (Digest('sha1', SHA1), Digest('sha512', SHA512))
OTHER = 128 * 'd'

NAMES: List[Tuple[str, bool, bool]] = [
    # Accepted with a sha512 known of the base, and without.
    ('el7', True, True), ('./el7:v1', True, True), ('el7:v1', True, True),
    ('el7-v1.qcow2', True, True), ('el7-v1.qcow2.xz', True, True),
    ('/srv/repo/el7/el7-v1.qcow2', True, True),
    ('/srv/lago/store/lab:el7:v1', True, True),
    ('./repo/el7-v1.qcow2.gz', True, True), ('repo/el7', True, True),
    (f'lago::{SHA512}::el7', True, True),
    (f'{SHA512}:el7', True, True), (f'./{SHA512}:el7', True, True),
    (f'{SHA512}:other', True, False),
    (f'{OTHER}:el7', False, True), (f'lago::{OTHER}::el7', False, True),
    (f'lago::{OTHER}::other', False, False),
    ('/srv/repo/other', False, False), ('/el7/', False, False),
    ('/srv/../el7', False, False), ('../el7', False, False),
    ('nbd:unix/el7', False, False), ('nbd://host/el7', False, False),
    ('json:{"a": "/el7"}', False, False), ('json:/el7', False, False),
    ('fat:/srv/el7', False, False), ('/srv/\n/el7', False, False),
    ('', False, False), ('el7:v2', False, False),
]


@pytest.mark.parametrize('name, known, unknown', NAMES)
def test_accepted_names_of_a_base(
    name: str, known: bool, unknown: bool
) -> None:
    handle = 'dir/el7-v1.qcow2.xz'
    assert (name in Accepted(REF, handle, KNOWN)) is known
    assert (name in Accepted(REF, handle)) is unknown
    assert all('/' not in each.strip('./') for each in Accepted(REF, handle))
