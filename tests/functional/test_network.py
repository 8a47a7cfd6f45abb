"""A real ``lago init`` over a network that misbehaves.

The guest's bytes decide: whatever happens on the way, they are right in the
end, or nothing is visible and one message says why.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.lab import (
    DiskImage, Fault, Finished, LagoSandbox, Nginx, Published, Publisher,
    Request, RudeServer, check_disks,
)
from tests.lab.running import RunningLago, until
from tests.lab.stores import check_visible, kept_bytes, leftovers

#: Bytes that came and that a broken or stalled read has not handed on.
UNREAD_BYTES = 2**18

#: A connection that got so far is no failure in a row.
PROGRESS_BYTES = 2**20 + UNREAD_BYTES

#: A cut in the middle of the base; its file has some 3.5 MB.
CUT = 1_500_000


class Site:
    """A base and a layer on a rude server, and an environment on the layer.

    Args:
        settings: of section ``template_repo``.
    """

    def __init__(
        self,
        tmp_path: Path,
        server: RudeServer,
        forest: Dict[str, DiskImage],
        compression: Optional[str] = 'zst',
        **settings: Any,
    ) -> None:
        self.server = server
        self.forest = forest
        self.repo = Publisher(server.root, compression=compression)
        self.repo.add_forest({n: forest[n] for n in ('base', 'nfs')})
        self.repo.write(server.url)
        self.box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'},
            repo=f'{server.url}/repo.metadata',
            config={'template_repo': {'progress': 'line', **settings}},
        )

    @property
    def base(self) -> Published:
        return self.repo.images['base:v1']

    @property
    def path(self) -> str:
        """Return the path of the base on the server."""
        return f'/{self.base.file.name}'

    def fail(self, fault: Optional[Fault] = None, **what: Any) -> None:
        """Make requests for the base fail."""
        self.server.fail(self.path, fault, **what)

    def requests(self) -> List[Request]:
        """Return the requests for the base, in order."""
        return sorted(
            (
                one for one in self.server.settled_requests()
                if one.path == self.path and one.method == 'GET'
            ),
            key=lambda one: one.start,
        )

    def init(self) -> Finished:
        """Run ``lago init``; it must end well, with the right bytes."""
        done = self.box.init()
        assert done.code == 0, done.output
        self.check_made(done.output)
        return done

    def check_made(self, output: str) -> None:
        """Check what a successful ``lago init`` leaves."""
        assert 'Traceback' not in output
        # An ERROR record makes Lago mark the whole task as failed.
        assert 'ERROR' not in output
        assert len(check_visible(self.box.store, self.repo)) == 2
        assert leftovers(self.box.store) == []
        check_disks(self.box, self.forest, vm0='nfs')


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(
    tmp_path: Path, forest: Dict[str, DiskImage]
) -> Iterator[MakeSite]:
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        def make(**options: Any) -> Site:
            return Site(tmp_path, server, forest, **options)

        yield make


def ranges(requests: List[Request]) -> List[int]:
    """Return where each request wanted to begin."""
    found = [re.match(r'bytes=(\d+)-', one.range) for one in requests]
    return [int(match[1]) if match else 0 for match in found]


# The connection

@pytest.mark.parametrize('compression', ['xz-quick', 'zst', None])
def test_cut_again_and_again(
    compression: Optional[str], make_site: MakeSite
) -> None:
    """With little patience: what counts is that it gets on."""
    site = make_site(compression=compression, patience=0.1)
    rng = random.Random(os.environ.get('LAB_SEED', '1'))
    cuts = [rng.randrange(PROGRESS_BYTES, 1_600_000) for _ in range(2)]
    for cut in cuts:
        site.fail(times=1, cut_after=cut)
    site.init()
    requests = site.requests()
    assert [one.status for one in requests] == [200, 206, 206]
    again = sum(one.sent for one in requests) - site.base.compressed_size
    print(f'fetched again after {len(cuts)} cuts: {again} bytes')
    assert 0 <= again <= len(cuts) * UNREAD_BYTES


def test_reset_again_and_again(make_site: MakeSite) -> None:
    """A reset may take with it all that the client has not read."""
    site = make_site()
    for _ in range(3):
        site.fail(times=1, cut_after=700_000, reset=True, rate=2_000_000)
    site.init()
    requests = site.requests()
    assert len(requests) == 4
    begins = ranges(requests)
    assert begins == sorted(begins)
    assert begins[-1] > 0


def test_without_a_digest_going_on_says_what_state_of_the_file_it_means(
    make_site: MakeSite
) -> None:
    site = make_site()
    no_digests = dict.fromkeys(('sha1', 'sha256', 'sha512'), ...)
    site.repo.edit_version('base:v1', **no_digests)
    site.repo.write()
    site.server.fail('/*.hash', status=404)
    site.fail(times=1, cut_after=CUT, etag='"one"')
    site.fail(etag='"one"')
    site.init()
    first, second = site.requests()
    assert (first.range, first.if_range) == ('', '')
    assert second.if_range == '"one"'
    assert second.status == 206
    assert CUT - UNREAD_BYTES <= ranges([second])[0] <= CUT


def test_stall_longer_than_timeout(make_site: MakeSite) -> None:
    site = make_site(timeout=2)
    site.fail(times=1, stall_after=CUT)
    done = site.init()
    assert 'trying again in' in done.output
    _, second = site.requests()
    assert second.status == 206
    assert CUT - UNREAD_BYTES <= ranges([second])[0] <= CUT


def test_slow_is_not_stalled(make_site: MakeSite) -> None:
    """Longer in all than `timeout`, which is about silence."""
    site = make_site(timeout=2)
    site.fail(rate=900_000, delay=0.5)
    done = site.init()
    request, = site.requests()
    assert request.end - request.start > 3
    assert 'trying again' not in done.output


def test_server_is_restarted(
    tmp_path: Path, forest: Dict[str, DiskImage]
) -> None:
    (tmp_path / 'www').mkdir()
    with Nginx(tmp_path / 'www', limit_rate=800_000) as server:
        repo = Publisher(server.root, compression='zst')
        repo.add_forest({n: forest[n] for n in ('base', 'nfs')})
        repo.write(server.url)
        base = repo.images['base:v1']
        box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'},
            repo=f'{server.url}/repo.metadata',
            config={'template_repo': {'progress': 'line'}},
        )
        with RunningLago(box) as lago:
            lago.until(
                lambda: kept_bytes(box.store, repo, base) > UNREAD_BYTES,
                'the base is on its way',
            )
            server.stop()
            kept = kept_bytes(box.store, repo, base)
            lago.says('base:v1: .*trying again in')
            server.start()
            assert lago.wait() == 0, lago.output
        requests = [
            one for one in server.requests()
            if one.path == f'/{base.file.name}' and one.status == 206
        ]
        # What the first nginx sent it took into its grave.
        assert len(requests) == 1
        assert ranges(requests)[0] >= kept > 0
        assert requests[0].sent == base.compressed_size - ranges(requests)[0]
    check_disks(box, forest, vm0='nfs')


# Answers that pass

@pytest.mark.parametrize(('status', 'pause'), [
    (503, '2'), (429, '2'), (500, None), (502, None), (408, None),
])
def test_status_that_passes(
    status: int, pause: Optional[str], make_site: MakeSite
) -> None:
    site = make_site()
    site.fail(times=1, cut_after=CUT)
    site.fail(times=1, status=status, retry_after=pause)
    done = site.init()
    assert f'HTTP {status}' in done.output
    cut, refused, last = site.requests()
    assert [cut.status, refused.status, last.status] == [200, status, 206]
    if pause:
        assert last.start - refused.end >= float(pause)


def test_index_that_fails_once(make_site: MakeSite) -> None:
    site = make_site()
    site.server.fail('/repo.metadata', times=1, status=503)
    site.init()


@pytest.mark.quick
def test_redirect(make_site: MakeSite, tmp_path: Path) -> None:
    """To another server, that is cut, and asked for the rest itself."""
    site = make_site()
    with RudeServer(tmp_path / 'www') as mirror:
        site.fail(redirect=f'{mirror.url}{site.path}')
        mirror.fail('*', times=1, cut_after=CUT)
        site.init()
        assert [one.status for one in site.requests()] == [302]
        assert [one.status for one in mirror.requests()] == [200, 206]


# Resuming when it cannot be

def test_server_without_range(make_site: MakeSite) -> None:
    site = make_site()
    site.fail(times=1, cut_after=CUT)
    site.fail(ignore_range=True)
    site.init()
    assert [one.status for one in site.requests()] == [200, 200]


def test_range_not_satisfiable(make_site: MakeSite) -> None:
    site = make_site()
    site.fail(times=1, cut_after=CUT)
    site.fail(times=1, status=416)
    site.init()
    assert [one.status for one in site.requests()] == [200, 416, 200]


def test_other_range_than_wanted(make_site: MakeSite) -> None:
    site = make_site()
    site.fail(times=1, cut_after=CUT)
    site.fail(times=1, shift=1000)
    site.init()
    assert site.requests()[-1].status == 200


@pytest.mark.parametrize('ignore_if_range', [False, True])
@pytest.mark.parametrize('compression', ['zst', None])
def test_file_changes_between_two_connections(
    compression: Optional[str], ignore_if_range: bool, make_site: MakeSite
) -> None:
    """The first bytes are of another file, of the same length.

    What came of the one that is compressed is the same in both.
    """
    site = make_site(compression=compression)
    file = site.base.file
    right = file.read_bytes()
    # Still the same format, so that only the mixture would be wrong.
    wrong = bytearray(right)
    wrong[1_000_000:1_000_100] = os.urandom(100)
    file.write_bytes(wrong)
    site.fail(times=1, cut_after=CUT if compression is None else 900_000,
              etag='"old"')
    site.fail(status=503, retry_after='0')
    with RunningLago(site.box) as lago:
        lago.until(
            lambda: len(site.server.requests()) >= 4 and any(
                one.status == 503 for one in site.server.requests()
            ), 'the first connection was cut',
        )
        file.write_bytes(right)
        site.server.heal()
        site.fail(etag='"new"', ignore_if_range=ignore_if_range)
        assert lago.wait() == 0, lago.output
        site.check_made(lago.output)
    requests = [one for one in site.requests() if one.status != 503]
    joined = [one.status for one in requests[:2]]
    assert joined == [200, 206]
    # Only what is wrong as it was joined is fetched anew.
    anew = [(one.status, one.sent) for one in requests[2:]]
    assert anew == ([] if compression else [(200, len(right))])


def test_another_etag_takes_nothing_away(make_site: MakeSite) -> None:
    """Between two runs: the digest decides if it is another file."""
    site = make_site(patience=0)
    site.fail(times=1, cut_after=CUT, etag='"old"')
    assert site.box.init().code == 2
    assert kept_bytes(site.box.store, site.repo, site.base) > 0
    site.fail(etag='"new"')
    site.init()
    first, second = site.requests()
    assert (second.status, second.if_range) == (206, '')
    assert CUT - UNREAD_BYTES <= second.begin <= CUT


# The end of patience

def test_patience_ends_and_the_next_run_goes_on(
    make_site: MakeSite
) -> None:
    site = make_site(patience=1)
    site.fail(times=1, cut_after=CUT)
    site.fail(cut_after=0)
    done = site.box.init()
    assert done.code == 2, done.output
    assert 'Traceback' not in done.output
    assert check_visible(site.box.store, site.repo) == []
    assert not site.box.workdir.exists()
    text = ' '.join(done.output.split())
    assert f'{site.server.url}{site.path}: the connection ended after' in text
    assert re.search(rf'after \d+ of {site.base.compressed_size} bytes', text)
    # One with progress, and what was tried without.
    assert 2 <= len(site.requests()) <= 3
    kept = kept_bytes(site.box.store, site.repo, site.base)
    assert CUT - UNREAD_BYTES <= kept <= CUT
    site.server.heal()
    site.server.forget()
    site.init()
    requests = [one for one in site.server.requests() if one.is_image]
    # The layer was staged already.
    assert [one.path for one in requests] == [site.path]
    assert ranges(requests) == [kept]
    assert requests[0].sent == site.base.compressed_size - kept


def test_server_that_is_gone(make_site: MakeSite) -> None:
    site = make_site(patience=1)
    site.fail(stall_after=CUT)
    with RunningLago(site.box) as lago:
        lago.until(
            lambda: kept_bytes(site.box.store, site.repo, site.base) > 0,
            'the base is on its way',
        )
        site.server.stop()
        assert lago.wait() == 2, lago.output
        output = lago.output
    assert 'Traceback' not in output
    assert re.search('base:v1: .*trying again in', output)
    assert 'connection refused' in output
    site.server.start()
    site.server.heal()
    site.init()


def test_gone_file_is_not_asked_for_again(make_site: MakeSite) -> None:
    site = make_site()
    site.fail(status=404)
    done = site.box.init()
    assert done.code == 2, done.output
    assert f'{site.server.url}{site.path}' in done.output
    assert 'HTTP 404' in done.output
    assert len(site.requests()) == 1
    until(lambda: not site.box.workdir.exists(), 'the workdir is gone')
