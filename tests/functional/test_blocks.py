"""Large images, which come block by block over several connections.

Whatever happens on the way: each byte is fetched once, the image is right in
the end, or nothing is visible and one message says why.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.lab import (
    DiskImage, Fault, Finished, ImageSpec, LagoSandbox, Nginx, Published,
    Publisher, Request, RudeServer, check_disks, make_forest, overlap,
    require,
)
from tests.lab.images import MIB, content
from tests.lab.publish import checksums, compress_once
from tests.lab.running import RunningLago
from tests.lab.small_disk import SmallDisk, fill
from tests.lab.stores import (
    check_visible, held_locks, kept_bytes, leftovers,
)

FORMATS = ['xz-quick', 'xz-blocks', 'zst-frames', None]

#: What can only be decoded from its beginning.
IN_ORDER = ['gz', 'zst', 'xz-single-quick']

#: Where it makes no difference what tells of the blocks.
FEW = ['xz-blocks', None]

#: What tells of the blocks, at the end of a file; its beginning, in which
#: there are none.
TAIL_BYTES = 4 << 10
HEAD_BYTES = 12

#: What waits in memory until it is decoded, of files of one block.
WINDOW_BYTES = 12 << 20

#: Bytes that came and that a broken or stalled read has not handed on.
UNREAD_BYTES = 2**18

#: For each connection: slow enough to hit the middle of a transfer.
RATE = 6 * MIB

#: Nobody waits for it in these tests: who does not hang, ends long before.
TIMEOUT_SECONDS = 600

Forest = Dict[str, DiskImage]
Publish = Callable[[Optional[str]], Publisher]


@pytest.fixture(scope='module', name='large')
def fixture_large(tmp_path_factory: pytest.TempPathFactory) -> Forest:
    require('qemu-img', 'qemu-io', 'xz', 'zstd')
    return make_forest(tmp_path_factory.mktemp('blocks'), {
        'base': ImageSpec(26), 'nfs': ImageSpec(14, 'base'),
        'iscsi': ImageSpec(14, 'nfs'), 'fresh': ImageSpec(26),
    })


@pytest.fixture(scope='module')
def publish(
    large: Forest, tmp_path_factory: pytest.TempPathFactory
) -> Publish:
    """Publish the images in a format, once."""
    made: Dict[Optional[str], Publisher] = {}

    def get(compression: Optional[str]) -> Publisher:
        if compression not in made:
            root = tmp_path_factory.mktemp('published') / 'www'
            made[compression] = Publisher(root, compression=compression)
            made[compression].add_forest(large)
            made[compression].write()
        return made[compression]

    return get


class Site:
    """A rude server with the images, and an environment on one of them.

    Args:
        settings: of section ``template_repo``.
    """

    def __init__(
        self,
        tmp_path: Path,
        server: RudeServer,
        repo: Publisher,
        **settings: Any,
    ) -> None:
        self.server = server
        self.repo = repo
        shutil.copytree(
            repo.root, server.root, dirs_exist_ok=True,
            copy_function=shutil.copyfile,
        )
        self.index = copy.deepcopy(repo.index())
        self.index['sources']['lab']['args'] = {'baseurl': server.url}
        self.write_index()
        self.box = self.make_box(tmp_path / 'box', **settings)

    def make_box(
        self, root: Path, store: Optional[Path] = None, **settings: Any
    ) -> LagoSandbox:
        return LagoSandbox(
            root, {'vm0': 'nfs'}, store=store,
            repo=f'{self.server.url}/repo.metadata',
            config={'template_repo': {
                'progress': 'line', 'timeout': TIMEOUT_SECONDS, **settings,
            }},
        )

    def write_index(self) -> None:
        new = self.server.root / 'repo.metadata.new'
        new.write_text(json.dumps(self.index))
        new.replace(self.server.root / 'repo.metadata')

    @property
    def base(self) -> Published:
        return self.repo.images['base:v1']

    @property
    def path(self) -> str:
        """Return the path of the base on the server."""
        return self.base.url_path

    @property
    def file(self) -> Path:
        """Return the served file of the base."""
        return self.server.root / self.path.lstrip('/')

    def serve(self, data: bytes) -> None:
        """Replace the file of the base, as a publisher does."""
        new = self.file.with_name('new')
        new.write_bytes(data)
        new.replace(self.file)

    def fail(self, fault: Optional[Fault] = None, **what: Any) -> None:
        """Make requests for the base fail."""
        self.server.fail(self.path, fault, **what)

    def kept(self) -> int:
        return kept_bytes(self.box.store, self.repo, self.base)

    def pull(self, template: str = 'base') -> Finished:
        """Fetch an image; it must end well, with the right bytes."""
        done = self.box.run('template-repo', 'pull', template)
        self.check(done.code, done.output)
        return done

    def check(self, code: int, output: str) -> None:
        assert code == 0, output
        assert 'Traceback' not in output
        assert 'ERROR' not in output
        assert 'base:v1' in check_visible(self.box.store, self.repo)
        assert leftovers(self.box.store) == []
        assert not held_locks(self.box.store)

    def fail_to_pull(self) -> str:
        """See it fail with one message, and leave nothing to see."""
        done = self.box.run('template-repo', 'pull', 'base')
        assert done.code == 2, done.output
        assert 'Traceback' not in done.output
        assert check_visible(self.box.store, self.repo) == []
        assert not held_locks(self.box.store)
        return ' '.join(done.output.split())

    def requests(self, template: str = 'base') -> List[Request]:
        """Return the requests for an image, in order."""
        return requests_for(
            self.server, self.repo.images[f'{template}:v1']
        )


def requests_for(server: RudeServer, image: Published) -> List[Request]:
    return sorted(
        (
            one for one in server.settled_requests()
            if one.path == image.url_path and one.method == 'GET'
        ),
        key=lambda one: one.start,
    )


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, publish: Publish) -> Iterator[MakeSite]:
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        def make(compression: Optional[str], **settings: Any) -> Site:
            return Site(tmp_path, server, publish(compression), **settings)

        yield make


def asked_to(request: Request) -> int:
    """Return where a request ends."""
    found = re.match(r'bytes=\d+-(\d+)', request.range)
    assert found, request
    return int(found[1]) + 1


def sent(requests: List[Request]) -> int:
    return sum(one.sent for one in requests if one.status in (200, 206))


def at_once(requests: List[Request]) -> int:
    """Return how many were being answered at the same time, at most."""
    return max(
        sum(other.start <= one.start < other.end for other in requests)
        for one in requests
    )


# When nothing fails

@pytest.mark.parametrize('compression', [*FORMATS, *IN_ORDER])
def test_over_several_connections_each_byte_once(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    site.fail(rate=RATE)
    site.pull()
    tail, *requests = site.requests()
    size = site.base.compressed_size
    assert (tail.begin, tail.sent) == (size - TAIL_BYTES, TAIL_BYTES)
    assert {one.status for one in requests} == {206}
    # As many as there may be, or as there are blocks.
    assert at_once(requests) == (2 if compression == 'xz-quick' else 4)
    assert overlap(requests) == 0
    begins = sorted(one.begin for one in requests)
    assert begins[0] in (0, HEAD_BYTES)
    assert size - TAIL_BYTES <= begins[0] + sent(requests) <= size
    # None says which state of the file it means: the digest decides.
    assert not any(one.if_range for one in (tail, *requests))


@pytest.mark.parametrize('limit', [1, 3])
@pytest.mark.parametrize('compression', [*FEW, 'zst'])
def test_never_more_connections_than_allowed(
    compression: Optional[str], limit: int, make_site: MakeSite
) -> None:
    """Three layers, whoever of them wants a connection."""
    site = make_site(compression, connections=limit, jobs=3)
    site.server.fail('/*.qcow2*', rate=4 * RATE)
    site.pull('iscsi')
    requests = [
        one for one in site.server.settled_requests() if one.is_image
    ]
    assert len({one.path for one in requests}) == 3
    assert at_once(requests) == limit
    assert overlap([
        one for one in requests
        if one.path == site.path and one.sent != TAIL_BYTES
    ]) == 0


# Connections that break

@pytest.mark.parametrize('compression', [*FORMATS, *IN_ORDER])
def test_cut_again_and_again(
    compression: Optional[str], make_site: MakeSite
) -> None:
    """With little patience: what counts is that it gets on."""
    site = make_site(compression, patience=0.1)
    site.fail(cut_after=1_500_000)
    site.pull()
    requests = site.requests()
    cut = [one for one in requests if one.sent == 1_500_000]
    # What is left of a block may be shorter, and comes whole.
    assert len(cut) > 3
    assert sent(requests) - site.base.compressed_size <= (
        TAIL_BYTES + len(cut) * UNREAD_BYTES)


@pytest.mark.parametrize('compression', FEW)
def test_reset_again_and_again(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    site.fail(skip=1, times=4, cut_after=900_000, reset=True, rate=RATE)
    site.pull()
    assert len([one for one in site.requests() if one.sent == 900_000]) == 4


@pytest.mark.parametrize('compression', [*FORMATS, *IN_ORDER])
def test_a_stalled_connection_is_replaced(
    compression: Optional[str], make_site: MakeSite
) -> None:
    """The timeout is longer than the test may take."""
    site = make_site(compression)
    site.fail(skip=1, times=1, stall_after=700_000)
    site.pull()
    requests = site.requests()
    stalled, = [one for one in requests if one.sent == 700_000]
    end = stalled.begin + stalled.sent
    assert [
        one for one in requests if one.start > stalled.start
        and end - UNREAD_BYTES <= one.begin <= end
    ]
    assert sent(requests) - site.base.compressed_size <= (
        TAIL_BYTES + UNREAD_BYTES)


@pytest.mark.quick
def test_the_only_connection_stalls(make_site: MakeSite) -> None:
    site = make_site('zst-frames', connections=1, timeout=2)
    site.fail(skip=1, times=1, stall_after=700_000)
    done = site.pull()
    assert 'trying again in' in done.output
    assert sent(site.requests()) - site.base.compressed_size <= (
        TAIL_BYTES + UNREAD_BYTES)


@pytest.mark.parametrize('compression', FEW)
def test_a_slow_connection_gets_help(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    site.fail(skip=1, times=1, rate=50_000)
    site.fail(rate=20 * MIB)
    site.pull()
    requests = site.requests()[1:]
    # What the slow one was asked for is not what it brought.
    slow = min(requests, key=lambda one: one.sent / (one.end - one.start))
    assert asked_to(slow) - slow.begin > 2 * slow.sent
    assert sent(requests) - site.base.compressed_size <= 4 * MIB


# Servers that cannot, or do not, give ranges

def whole(site: Site) -> List[Request]:
    """Return the requests that brought the whole file."""
    return [
        one for one in site.requests()
        if one.status == 200 and one.sent == site.base.compressed_size
    ]


@pytest.mark.parametrize('compression', [*FEW, 'zst'])
def test_server_without_ranges(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    site.fail(ignore_range=True)
    site.pull()
    assert len(whole(site)) == 1
    assert at_once(whole(site)) == 1


def test_server_of_python(
    tmp_path: Path, publish: Publish, large: Forest
) -> None:
    """`python -m http.server` knows neither ranges nor ETags."""
    repo = publish('zst-frames')
    with RudeServer(tmp_path) as unused:
        port = unused.port
    shutil.copytree(repo.root, tmp_path / 'www')
    index = copy.deepcopy(repo.index())
    url = f'http://127.0.0.1:{port}'
    index['sources']['lab']['args'] = {'baseurl': url}
    (tmp_path / 'www/repo.metadata').write_text(json.dumps(index))
    server = subprocess.Popen(
        ['python3', '-m', 'http.server', '--bind', '127.0.0.1', str(port)],
        cwd=tmp_path / 'www', stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{url}/repo.metadata'
        )
        done = box.init()
    finally:
        server.kill()
        server.wait()
    assert done.code == 0, done.output
    check_disks(box, large, vm0='nfs')


@pytest.mark.parametrize('skip', [0, 1, 3])
def test_range_not_satisfiable(skip: int, make_site: MakeSite) -> None:
    site = make_site('zst-frames')
    site.fail(skip=skip, times=1, status=416)
    site.pull()


def test_another_range_than_wanted(make_site: MakeSite) -> None:
    site = make_site(None)
    site.fail(skip=2, times=1, shift=1000)
    site.pull()


@pytest.mark.parametrize('compression', FEW)
def test_etags_that_differ_each_time(
    compression: Optional[str], make_site: MakeSite
) -> None:
    """As those of several servers behind one address do."""
    site = make_site(compression)
    for number in range(100):
        site.fail(times=1, etag=f'"{number}"')
    site.pull()
    # The digest tells whether the answers belong together.
    requests = site.requests()
    assert {one.status for one in requests} == {206}
    assert sent(requests) - site.base.compressed_size <= TAIL_BYTES


@pytest.mark.parametrize('ignore_if_range', [False, True])
@pytest.mark.parametrize('compression', ['zst-frames', 'zst', None])
def test_file_changes_in_the_middle(
    compression: Optional[str], ignore_if_range: bool, make_site: MakeSite
) -> None:
    """The first bytes are of another file, of the same length."""
    site = make_site(compression)
    right = site.file.read_bytes()
    wrong = bytearray(right)
    wrong[1_000_000:1_000_100] = os.urandom(100)
    wrong[9_000_000:9_000_100] = os.urandom(100)
    site.serve(bytes(wrong))
    site.fail(rate=MIB, etag='"old"')
    with RunningLago(site.box) as lago:
        lago.until(lambda: site.kept() > 3 * MIB, 'the base is on its way')
        site.server.stop()
        site.serve(right)
        site.server.heal()
        site.server.forget()
        site.fail(etag='"new"', ignore_if_range=ignore_if_range)
        site.server.start()
        code = lago.wait()
        assert code == 0, lago.output
        assert len(check_visible(site.box.store, site.repo)) == 2
        assert leftovers(site.box.store) == []
    # What was here is joined, and fetched anew where it was wrong: that
    # depends on which blocks were here.
    assert sent(site.requests()) <= 2 * site.base.compressed_size


@pytest.mark.parametrize('compression', FEW)
def test_another_image_is_published_in_the_middle(
    compression: Optional[str], make_site: MakeSite
) -> None:
    """An old index: nothing of the new file; a new one: all of it."""
    site = make_site(compression)
    fresh = site.repo.images['fresh:v1']
    site.fail(rate=MIB)
    with RunningLago(site.box) as lago:
        lago.until(lambda: site.kept() > 2 * MIB, 'the base is on its way')
        site.server.stop()
        site.serve(fresh.file.read_bytes())
        site.server.heal()
        site.server.start()
        assert lago.wait() == 2, lago.output
        said = ' '.join(lago.output.split())
    assert 'Traceback' not in said
    assert 'lab/base:v1' in said or 'lab:base:v1' in said
    assert 'expected' in said
    assert 'base:v1' not in check_visible(site.box.store, site.repo)
    entries = site.index['templates']
    entries['base']['versions']['v1'] = {
        **entries['fresh']['versions']['v1'],
        'handle': site.base.handle,
    }
    site.write_index()
    done = site.box.run('template-repo', 'pull', 'base')
    assert done.code == 0, done.output
    stored = site.box.store / 'lab:base:v1'
    assert checksums(stored) == fresh.checksums


# Files that are wrong

@pytest.mark.parametrize('compression', [*FORMATS, *IN_ORDER])
def test_wrong_bytes_in_one_block(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    site.fail(flip_at=site.base.compressed_size // 2)
    said = site.fail_to_pull()
    assert f'{site.server.url}{site.path}' in said
    assert 'expected' in said
    assert ('sha256' if compression is None else 'damaged data') in said
    assert 'not kept' in said
    assert site.kept() == 0
    site.server.heal()
    site.pull()


def change_makes(file: Path, compression: str, change: int) -> bytes:
    """Return a file whose index lies: of its second and third block."""
    data = file.read_bytes()
    if compression == 'zst-frames':
        count, _, _ = struct.unpack('<IBI', data[-9:])
        table = bytearray(data[-9 - 8 * count:-9])
        for number, by in ((1, change), (2, -change)):
            size, makes = struct.unpack_from('<II', table, 8 * number)
            struct.pack_into('<II', table, 8 * number, size, makes + by)
        return data[:-9 - 8 * count] + bytes(table) + data[-9:]
    index_size = 4 * (struct.unpack('<I', data[-8:-4])[0] + 1)
    index = data[-12 - index_size:-12]
    values = read_numbers(index[1:-4])
    records = values[1:1 + 2 * values[0]]
    records[3] += change
    records[5] -= change
    made = b'\0' + b''.join(map(write_number, [values[0], *records]))
    made += bytes(-len(made) % 4)
    assert len(made) + 4 == index_size
    made += struct.pack('<I', zlib.crc32(made))
    return data[:-12 - index_size] + made + data[-12:]


def read_numbers(data: bytes) -> List[int]:
    """Read the integers of "The .xz File Format", section 1.2."""
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7f) << shift
        shift += 7
        if not byte & 0x80:
            values.append(value)
            value = shift = 0
    return values


def write_number(value: int) -> bytes:
    out = b''
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


@pytest.mark.parametrize('compression, change', [
    ('xz-blocks', 1000), ('xz-blocks', -1000),
    ('zst-frames', 1000), ('zst-frames', -1000),
])
def test_an_index_of_blocks_that_lies(
    compression: str, change: int, make_site: MakeSite
) -> None:
    """Of what two blocks make; the sum is right."""
    site = make_site(compression)
    right = site.file.read_bytes()
    site.serve(change_makes(site.file, compression, change))
    assert site.file.stat().st_size == len(right)
    said = site.fail_to_pull()
    assert 'a block ma' in said
    assert f'{site.server.url}{site.path}' in said
    site.serve(right)
    site.pull()


@pytest.mark.parametrize('compression', FEW)
def test_truncated_file(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression)
    right = site.file.read_bytes()
    site.serve(right[:len(right) * 2 // 3])
    said = site.fail_to_pull()
    assert f'expected {len(right)} bytes' in said
    site.serve(right)
    site.pull()


def test_file_truncated_in_the_middle(make_site: MakeSite) -> None:
    site = make_site(None)
    right = site.file.read_bytes()
    site.fail(rate=MIB)
    with RunningLago(site.box) as lago:
        lago.until(lambda: site.kept() > 3 * MIB, 'the base is on its way')
        site.server.stop()
        site.serve(right[:len(right) * 2 // 3])
        site.server.start()
        assert lago.wait() == 2, lago.output
        assert f'expected {len(right)}' in ' '.join(lago.output.split())
    assert 'base:v1' not in check_visible(site.box.store, site.repo)
    site.serve(right)
    site.server.heal()
    done = site.box.init()
    site.check(done.code, done.output)


# Servers that want few connections

@pytest.mark.parametrize('template', ['base', 'iscsi'])
def test_server_that_allows_two_connections(
    template: str, make_site: MakeSite
) -> None:
    """Nobody is told of a failure: it is none, to use fewer."""
    site = make_site('xz-blocks')
    site.server.fail('/*.qcow2*', crowd=2, rate=2 * RATE)
    done = site.pull(template)
    assert 'trying again' not in done.output
    requests = [
        one for one in site.server.settled_requests()
        if '.qcow2' in one.path and one.method == 'GET'
        and not one.path.endswith(('.metadata', '.hash'))
    ]
    good = [one for one in requests if one.status == 206]
    assert at_once(good) == 2
    assert 1 <= len(requests) - len(good) <= 4


# Mirrors

@pytest.mark.parametrize('compression', FEW)
def test_the_first_place_vanishes_in_the_middle(
    compression: Optional[str], tmp_path: Path, publish: Publish
) -> None:
    for name in 'ab':
        (tmp_path / name).mkdir()
    repo = publish(compression)
    with RudeServer(tmp_path / 'a') as a, RudeServer(tmp_path / 'b') as b:
        shutil.copytree(repo.root, b.root, dirs_exist_ok=True)
        site = Site(tmp_path, a, repo)
        site.index['sources']['lab']['mirrors'] = [b.url]
        site.write_index()
        site.fail(rate=MIB)
        with RunningLago(site.box) as lago:
            lago.until(lambda: site.kept() > 3 * MIB, 'it is on its way')
            a.stop()
            assert lago.wait() == 0, lago.output
            said = ' '.join(lago.output.split())
        assert said.count('going on with http') == 1, said
        assert len(check_visible(site.box.store, repo)) == 2
        assert leftovers(site.box.store) == []
        both = requests_for(a, site.base) + requests_for(b, site.base)
        again = sent(both) - site.base.compressed_size
        assert again <= TAIL_BYTES + 4 * UNREAD_BYTES


@pytest.mark.parametrize('compression', FEW)
def test_places_whose_bytes_do_not_fit_together(
    compression: Optional[str], tmp_path: Path, publish: Publish
) -> None:
    """Blocks of both make no image; it comes from one of them alone."""
    for name in 'ab':
        (tmp_path / name).mkdir()
    repo = publish(compression)
    with RudeServer(tmp_path / 'a') as a, RudeServer(tmp_path / 'b') as b:
        site = Site(tmp_path, a, repo)
        shutil.copytree(a.root, b.root, dirs_exist_ok=True)
        site.index['sources']['lab']['mirrors'] = [b.url]
        site.write_index()
        other = bytearray(site.file.read_bytes())
        for place in range(50_000, len(other) - TAIL_BYTES, 100_000):
            other[place] ^= 0xff
        (b.root / site.path.lstrip('/')).write_bytes(other)
        site.fail(skip=2, times=1, status=500)
        done = site.pull()
        said = ' '.join(done.output.split())
        assert 'fetching it anew' in said
        assert len(whole(site)) == 1
        assert requests_for(b, site.base)


# The end of a run, and the next one

@pytest.mark.parametrize('compression', [*FORMATS, *IN_ORDER])
def test_interrupted_and_continued(
    compression: Optional[str], make_site: MakeSite, large: Forest
) -> None:
    site = make_site(compression)
    site.fail(rate=MIB)
    with RunningLago(site.box) as lago:
        lago.until(lambda: site.kept() > 3 * MIB, 'the base is on its way')
        lago.send(signal.SIGINT, group=True)
        assert lago.wait() == 128 + signal.SIGINT, lago.output
        assert 'Traceback' not in lago.output
    assert not held_locks(site.box.store)
    kept = site.kept()
    first = sent(site.requests())
    # Also what had come of blocks that were not complete.
    waiting = WINDOW_BYTES if compression in IN_ORDER else 0
    assert first - kept <= TAIL_BYTES + 4 * UNREAD_BYTES + waiting
    site.server.heal()
    site.server.forget()
    done = site.box.init()
    site.check(done.code, done.output)
    check_disks(site.box, large, vm0='nfs')
    assert sent(site.requests()) <= (
        site.base.compressed_size - kept + TAIL_BYTES)


@pytest.mark.parametrize('compression', FEW)
def test_full_disk_keeps_what_was_fetched(
    compression: Optional[str], make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site(compression, reserve=0)
    with SmallDisk(tmp_path / 'store', 80) as disk:
        site.box.store = tmp_path / 'store'
        site.box.prefix_command = disk.enter(site.box.root)
        site.box.write()
        site.fail(rate=MIB // 2)
        with RunningLago(site.box) as lago:
            lago.until(
                lambda: kept_bytes(disk.path, site.repo, site.base) > 4 * MIB,
                'the base is on its way',
            )
            fill(disk, leave=MIB)
            assert lago.wait() == 2, lago.output
            said = ' '.join(lago.output.split())
        assert f'{tmp_path / "store"}: no room left' in said
        assert 'What was fetched is kept.' in said
        assert 'Traceback' not in said
        (disk.path / 'another').unlink()
        assert 'base:v1' not in check_visible(disk.path, site.repo)
        kept = kept_bytes(disk.path, site.repo, site.base)
        assert kept > 3 * MIB
        site.server.heal()
        site.server.forget()
        done = site.box.run('template-repo', 'pull', 'base')
        assert done.code == 0, done.output
        assert 'base:v1' in check_visible(disk.path, site.repo)
        assert sent(site.requests()) <= (
            site.base.compressed_size - kept + TAIL_BYTES)


@pytest.mark.parametrize('compression', ['gz', 'zst'])
def test_room_for_the_image_but_not_for_all_that_came(
    compression: str, tmp_path: Path
) -> None:
    """What comes of one large block cannot wait for a later run then."""
    require('qemu-img', 'qemu-io', 'gzip', 'zstd', 'taskset')
    repo = Publisher(tmp_path / 'published', compression=compression)
    repo.add_forest(make_forest(tmp_path / 'images', {
        'base': ImageSpec(110),
    }))
    repo.write()
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server, SmallDisk(
        tmp_path / 'store', 190
    ) as disk:
        site = Site(tmp_path, server, repo, reserve=0, connections=1)
        site.box.store = tmp_path / 'store'
        # With one processor a plan counts 64 MiB for what waits.
        site.box.prefix_command = [
            *disk.enter(site.box.root),
            'taskset', '-c', str(min(os.sched_getaffinity(0))),
        ]
        site.box.write()
        done = site.box.run('template-repo', 'pull', 'base')
        assert done.code == 0, done.output
        assert check_visible(disk.path, repo) == ['base:v1']
        assert overlap(site.requests()[1:]) == 0


def test_two_processes_at_once(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site('xz-blocks', lock_timeout=100)
    other = site.make_box(
        tmp_path / 'other', store=site.box.store, lock_timeout=100
    )
    site.fail(rate=RATE)
    with RunningLago(site.box) as one, RunningLago(other) as two:
        codes = [one.wait(), two.wait()]
    assert codes == [0, 0], one.output + two.output
    assert len(check_visible(site.box.store, site.repo)) == 2
    requests = site.requests()
    assert overlap([r for r in requests if r.sent != TAIL_BYTES]) == 0
    assert sent(requests) <= site.base.compressed_size + 2 * TAIL_BYTES


# Images of any size

HUGE_BYTES = 3 << 28
PEAK_BYTES = 250 * MIB


@pytest.fixture(scope='module', name='huge')
def fixture_huge(
    tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """Serve an image that is mostly zeros, in several formats."""
    require('xz', 'zstd')
    root = tmp_path_factory.mktemp('huge')
    image = root / 'image'
    with open(image, 'wb') as stream:
        for place in range(0, HUGE_BYTES, HUGE_BYTES // 12):
            stream.seek(place + 12345)
            stream.write(content(6 * MIB, f'huge/{place}'))
        stream.truncate(HUGE_BYTES)
    with Nginx(root / 'www') as server:
        repo = Publisher(
            server.root, base_url=server.url, compression=None
        )
        plain = repo.add(image, 'plain', form='raw')
        for name in ('xz-wide', 'zst-large-frames', 'zst'):
            file = server.root / f'{name}.raw.{name[:3].rstrip("-")}'
            compress_once(image, plain.checksums['sha256'], file, name, 1)
            made = replace(
                plain, template=name, handle=f'{name}.raw', file=file,
                compression=file.suffix[1:],
                compressed_size=file.stat().st_size,
            )
            repo.images[made.name] = made
        repo.write()
        image.unlink()
        yield server


#: Runs a command and notes the most memory that it took. Linux counts what
#: the process had that started it, so this is done by a small one.
MEASURE = '''
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], 'w') as peak:
    peak.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['xz-wide', 'zst-large-frames', 'zst', 'plain']
)
def test_memory_does_not_grow_with_the_image(
    name: str, huge: Nginx, tmp_path: Path
) -> None:
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': name}, repo=f'{huge.url}/repo.metadata'
    )
    box.prefix_command = [sys.executable, '-c', MEASURE, f'{tmp_path}/peak']
    done = box.run('template-repo', 'pull', name)
    assert done.code == 0, done.output
    peak = int((tmp_path / 'peak').read_text()) * 1024
    print(f'{name}: {peak >> 20} MiB')
    assert peak < PEAK_BYTES
    stored = os.stat(box.store / f'lab:{name}:v1')
    assert stored.st_size == HUGE_BYTES
    # Zeros take no room on the disk.
    assert stored.st_blocks * 512 < 12 * 7 * MIB
    ranges = {
        one.range for one in huge.requests()
        if re.match(rf'/{name}(-v1)?\.', one.path)
    }
    assert len(ranges) > 4
