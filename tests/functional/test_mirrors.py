"""A real ``lago init`` on a repository with mirrors, and relative sources.

Two servers have the same files. The guest's bytes decide, and what both
servers have sent: no byte that was received is fetched again.
"""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.lab import (
    DiskImage, Fault, Finished, LagoSandbox, Nginx, Published, Publisher,
    RudeServer, check_disks, init_well, run,
)
from tests.lab.running import RunningLago
from tests.lab.stores import check_visible, kept_bytes, leftovers

#: Bytes that came and that a broken or stalled read has not handed on.
UNREAD_BYTES = 2**18

#: In the middle of the base; its file has some 3.5 MB.
CUT = 1_500_000

#: Slow enough to be hit in the middle.
RATE = 2_000_000

FORMATS = ['xz-quick', 'zst', None]
SETTINGS = {'progress': 'line', 'retries': 1}
GOING_ON = 'going on with http'
ANEW = 'fetching it anew'


class Site:
    """A base and a layer at two places, and an environment on the layer.

    Args:
        settings: of section ``template_repo``.
    """

    def __init__(
        self,
        tmp_path: Path,
        a: RudeServer,
        b: RudeServer,
        forest: Dict[str, DiskImage],
        compression: Optional[str] = 'zst',
        **settings: Any,
    ) -> None:
        self.a, self.b = a, b
        self.forest = forest
        self.repo = Publisher(a.root, compression=compression)
        self.repo.add_forest({n: forest[n] for n in ('base', 'nfs')})
        self.repo.edit(self._add_mirror)
        self.repo.write(a.url)
        shutil.copytree(a.root, b.root, dirs_exist_ok=True)
        self.box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'},
            repo=f'{a.url}/repo.metadata',
            config={'template_repo': {**SETTINGS, **settings}},
        )

    def _add_mirror(self, index: Dict[str, Any]) -> None:
        index['sources']['lab']['mirrors'] = [self.b.url]

    @property
    def base(self) -> Published:
        return self.repo.images['base:v1']

    @property
    def path(self) -> str:
        """Return the path of the base on both servers."""
        return f'/{self.base.file.name}'

    def sent(self, server: RudeServer) -> List[int]:
        """Return what was sent of the base, in order of the requests."""
        requests = sorted(
            server.settled_requests(), key=lambda one: one.start
        )
        return [one.sent for one in requests if one.path == self.path
                and one.status in (200, 206)]

    def sent_again(self) -> int:
        """Return how many bytes of the base were sent more than once."""
        sent = sum(self.sent(self.a)) + sum(self.sent(self.b))
        return sent - self.base.compressed_size

    def init(self) -> Finished:
        """Run ``lago init``; it must end well, with the right bytes."""
        done = self.box.init()
        assert done.code == 0, done.output
        self.check_made(done.output)
        return done

    def check_made(self, output: str) -> None:
        """Check what a successful ``lago init`` leaves."""
        assert 'Traceback' not in output
        assert 'ERROR' not in output
        assert len(check_visible(self.box.store, self.repo)) == 2
        assert leftovers(self.box.store) == []
        check_disks(self.box, self.forest, vm0='nfs')


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(
    tmp_path: Path, forest: Dict[str, DiskImage]
) -> Iterator[MakeSite]:
    for name in 'ab':
        (tmp_path / name).mkdir()
    with RudeServer(tmp_path / 'a') as a, RudeServer(tmp_path / 'b') as b:
        def make(**options: Any) -> Site:
            return Site(tmp_path, a, b, forest, **options)

        yield make


def said(output: str) -> str:
    """Return an output without its line breaks."""
    return ' '.join(output.split())


# In the middle of a file

@pytest.mark.parametrize('compression', FORMATS)
def test_connection_that_breaks(
    compression: Optional[str], make_site: MakeSite
) -> None:
    site = make_site(compression=compression, patience=0)
    site.a.fail(site.path, cut_after=CUT)
    done = site.init()
    assert said(done.output).count(GOING_ON) == 1
    assert site.sent(site.a) == [CUT]
    again = site.sent_again()
    print(f'{compression}: sent again {again} bytes')
    assert 0 <= again <= UNREAD_BYTES
    [request] = [one for one in site.b.requests() if one.path == site.path]
    assert (request.status, request.if_range) == (206, '')


@pytest.mark.quick
def test_server_that_vanishes(make_site: MakeSite) -> None:
    site = make_site(patience=0)
    site.a.fail(site.path, rate=RATE)
    with RunningLago(site.box) as lago:
        lago.until(
            lambda: kept_bytes(site.box.store, site.repo, site.base) > CUT,
            'the base is on its way',
        )
        site.a.stop()
        assert lago.wait() == 0, lago.output
        site.check_made(lago.output)
    again = site.sent_again()
    print(f'sent again {again} bytes')
    assert 0 <= again <= UNREAD_BYTES


def test_nginx_that_is_killed(
    tmp_path: Path, forest: Dict[str, DiskImage]
) -> None:
    """A killed nginx logs nothing: what was kept then is what it sent."""
    repo = Publisher(tmp_path / 'a', compression='zst')
    repo.add_forest({name: forest[name] for name in ('base', 'nfs')})
    base = repo.images['base:v1']
    with Nginx(tmp_path / 'a', limit_rate=RATE) as a, \
            Nginx(tmp_path / 'b') as b:
        repo.edit(lambda index: index['sources']['lab'].update(
            mirrors=[b.url]
        ))
        repo.write(a.url)
        shutil.copytree(a.root, b.root, dirs_exist_ok=True)
        box = LagoSandbox(
            tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{a.url}/repo.metadata',
            config={'template_repo': {**SETTINGS, 'patience': 0}},
        )
        with RunningLago(box) as lago:
            lago.until(lambda: kept_bytes(box.store, repo, base) > CUT,
                       'the base is on its way')
            lago.send(signal.SIGSTOP)
            kept = kept_bytes(box.store, repo, base)
            a.stop()
            lago.send(signal.SIGCONT)
            assert lago.wait() == 0, lago.output
        sent = sum(one.sent for one in b.requests()
                   if one.path == f'/{base.file.name}')
        print(f'kept {kept} of {base.compressed_size}, {sent} by the mirror')
        assert 0 < sent <= base.compressed_size - kept
    assert len(check_visible(box.store, repo)) == 2
    check_disks(box, forest, vm0='nfs')


def test_server_that_falls_silent(make_site: MakeSite) -> None:
    site = make_site(timeout=2)
    site.a.fail(site.path, stall_after=CUT)
    done = site.init()
    assert 'no answer within 2 s' in said(done.output)
    assert 0 <= site.sent_again() <= UNREAD_BYTES


def test_both_break_again_and_again(make_site: MakeSite) -> None:
    """What is left is what a single server would do: try again."""
    site = make_site()
    for server in (site.a, site.b):
        server.fail(site.path, cut_after=1_100_000, times=1)
    done = site.init()
    assert 'trying again in' in said(done.output)
    assert 0 <= site.sent_again() <= 3 * UNREAD_BYTES


def test_mirror_that_cannot_continue(make_site: MakeSite) -> None:
    site = make_site()
    site.a.fail(site.path, cut_after=CUT, times=1)
    site.b.fail('/*', ignore_range=True)
    site.init()
    assert len(site.sent(site.a)) == 2
    assert sum(site.sent(site.a)) - site.base.compressed_size <= UNREAD_BYTES


# From the beginning

FIRST = {
    'missing': Fault(status=404),
    'forbidden': Fault(status=403),
    'out of order': Fault(status=503),
    'silent': Fault(delay=60),
    'another size': Fault(html=True),
}


@pytest.mark.parametrize('fault', FIRST.values(), ids=FIRST)
def test_first_place_that_does_not_give_it(
    fault: Fault, make_site: MakeSite
) -> None:
    site = make_site(timeout=2)
    site.a.fail(site.path, fault)
    site.init()
    assert site.sent(site.b) == [site.base.compressed_size]
    asked = [one for one in site.a.settled_requests()
             if one.path == site.path]
    assert len(asked) == 1


def test_first_place_that_is_away(make_site: MakeSite) -> None:
    """The index is kept, and all images come from the mirror."""
    site = make_site()
    assert site.box.run('template-repo', 'plan', 'nfs').code == 0
    site.box.repo = str(shutil.copy(
        site.repo.index_path, site.box.root / 'index'
    ))
    site.box.write()
    site.a.stop()
    done = site.init()
    assert said(done.output).count(GOING_ON) == 1
    assert site.sent(site.b) == [site.base.compressed_size]


def test_looked_up_at_the_mirror(make_site: MakeSite) -> None:
    """An index without sizes and digests: questions go there as well."""
    site = make_site()
    for name in ('base:v1', 'nfs:v1'):
        site.repo.edit_version(
            name, base=..., size=..., compressed_size=..., sha1=...,
            sha256=..., sha512=..., virtual_size=..., format=...,
            compression=...,
        )
    site.repo.write()
    site.a.fail('/[bn]*', status=503, method='*')
    site.init()
    assert site.sent(site.a) == []


def test_all_places_fail(make_site: MakeSite) -> None:
    site = make_site(patience=0)
    site.a.fail(site.path, status=404)
    site.b.fail(site.path, status=403)
    done = site.box.init()
    print(done.output)
    assert done.code == 2
    assert 'Traceback' not in done.output
    for text in (f'{site.a.url}{site.path}: HTTP 404', 'a mirror failed too',
                 f'{site.b.url}{site.path}: HTTP 403'):
        assert text in said(done.output)
    assert 'base:v1' not in ' '.join(site.box.stored())


# Wrong bytes

def test_wrong_bytes_at_the_first_place(make_site: MakeSite) -> None:
    site = make_site(compression=None)
    site.a.fail(site.path, flip_at=CUT)
    done = site.init()
    assert ANEW in said(done.output)
    assert site.sent(site.b) == [site.base.compressed_size]
    assert len(site.sent(site.a)) == 1


def test_wrong_bytes_at_the_mirror_after_a_change(
    make_site: MakeSite
) -> None:
    """The joined file is wrong, the mirror's own too, the first one's not.
    """
    site = make_site(compression=None)
    site.a.fail(site.path, cut_after=CUT, times=1)
    site.b.fail(site.path, flip_at=CUT + 100_000)
    done = site.init()
    assert said(done.output).count(ANEW) == 2
    whole = site.base.compressed_size
    assert site.sent(site.a) == [CUT, whole]
    assert len(site.sent(site.b)) == 2


def test_wrong_bytes_everywhere(make_site: MakeSite) -> None:
    site = make_site(compression=None)
    for server in (site.a, site.b):
        server.fail(site.path, flip_at=CUT)
    done = site.box.init()
    print(done.output)
    assert done.code == 2
    output = said(done.output)
    assert 'Traceback' not in output
    assert f'from {site.a.url}{site.path}' in output
    # The message that ends it names the place that gave it last.
    assert f'from {site.b.url}{site.path}' in output
    assert [len(site.sent(one)) for one in (site.a, site.b)] == [1, 1]
    assert check_visible(site.box.store, site.repo) == []
    assert leftovers(site.box.store) in ([], [
        '.layered/partial/lab:nfs:v1', '.layered/partial/lab:nfs:v1.json'
    ])


def test_bytes_without_a_digest_are_not_joined(make_site: MakeSite) -> None:
    site = make_site()
    no_digests = dict.fromkeys(('sha1', 'sha256', 'sha512'), ...)
    site.repo.edit_version('base:v1', **no_digests)
    site.repo.write()
    for server in (site.a, site.b):
        server.fail('/*.hash', status=404)
    site.a.fail(site.path, cut_after=CUT, times=1)
    site.a.fail(site.path, status=503)
    site.init()
    assert site.sent(site.b)[-1] == site.base.compressed_size


# The client is killed

@pytest.mark.parametrize('compression', ['zst', 'xz-quick'])
@pytest.mark.parametrize('back', [False, True])
def test_killed_after_the_change(
    back: bool, compression: str, make_site: MakeSite
) -> None:
    site = make_site(compression=compression)
    site.a.fail(site.path, cut_after=CUT)
    rule = site.b.fail(site.path, stall_after=800_000)
    with RunningLago(site.box) as lago:
        lago.until(
            lambda: rule.struck and kept_bytes(
                site.box.store, site.repo, site.base
            ) >= CUT + 500_000, 'the mirror has sent some of it',
        )
        lago.kill()
    kept = kept_bytes(site.box.store, site.repo, site.base)
    for server in (site.a, site.b):
        server.settled_requests()
        server.forget()
        server.heal()
    if not back:
        site.a.stop()
    shutil.rmtree(site.box.workdir, ignore_errors=True)
    done = site.init()
    sent = sum(site.sent(site.a)) + sum(site.sent(site.b))
    print(f'kept {kept} of {site.base.compressed_size}, then sent {sent}')
    assert sent == site.base.compressed_size - kept
    assert len(site.sent(site.a)) == back
    assert bool(back) == (GOING_ON not in said(done.output))


# Relative sources

@pytest.fixture
def copy(tmp_path: Path, forest: Dict[str, DiskImage]) -> Publisher:
    """Publish the forest so that it works wherever it is copied to."""
    repo = Publisher(tmp_path / 'www', compression='zst')
    repo.add_forest({name: forest[name] for name in ('base', 'nfs')})
    repo.edit(lambda index: index['sources'].update(
        lab={'type': 'file', 'args': {'root': '.'}}
    ))
    repo.write()
    return repo


def make_box(root: Path, repo: object) -> LagoSandbox:
    return LagoSandbox(root, {'vm0': 'nfs'}, repo=str(repo), config={
        'template_repo': SETTINGS,
    })


def test_relative_source(
    copy: Publisher, server: Nginx, forest: Dict[str, DiskImage],
    tmp_path: Path,
) -> None:
    for number, repo in enumerate([
        copy.index_path, f'file://{copy.index_path}',
        f'{server.url}/repo.metadata',
    ]):
        box = make_box(tmp_path / f'box{number}', repo)
        init_well(box)
        check_disks(box, forest, vm0='nfs')


def test_relative_mirror(
    copy: Publisher, server: Nginx, forest: Dict[str, DiskImage],
    tmp_path: Path,
) -> None:
    (tmp_path / 'www/more').mkdir()
    run('sh', '-c', 'mv "$0"/*.zst "$0"/more/', tmp_path / 'www')
    copy.edit(lambda index: index['sources']['lab'].update(mirrors=['more']))
    copy.write()
    for number, repo in enumerate([
        copy.index_path, f'{server.url}/repo.metadata'
    ]):
        box = make_box(tmp_path / f'box{number}', repo)
        init_well(box)
        check_disks(box, forest, vm0='nfs')


def test_relative_source_of_an_added_repository(
    copy: Publisher, server: Nginx, forest: Dict[str, DiskImage],
    tmp_path: Path,
) -> None:
    """It is relative to the URL, not to where the index is kept here."""
    box = make_box(tmp_path / 'box', '')
    added = box.run('template-repo', 'add', f'{server.url}/repo.metadata')
    assert added.code == 0, added.output
    box.init_data['template-repo'] = [{'name': 'lab'}]
    box.write()
    init_well(box)
    check_disks(box, forest, vm0='nfs')


def test_source_that_leaves_the_repository(
    copy: Publisher, tmp_path: Path
) -> None:
    copy.edit(lambda index: index['sources']['lab']['args'].update(
        root='../www'
    ))
    copy.write()
    done = make_box(tmp_path / 'box', copy.index_path).init()
    assert done.code == 2
    assert 'Traceback' not in done.output
    assert "'../www' leaves the directory of the index" in said(done.output)


def test_offline_with_a_mirror_on_this_machine(
    copy: Publisher, forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    """No server is asked, and none is needed."""
    copy.edit(lambda index: index['sources'].update(lab={
        'type': 'http', 'args': {'baseurl': 'http://127.0.0.1:9/'},
        'mirrors': ['rsync://nowhere/', str(copy.root)],
    }))
    copy.write()
    box = make_box(tmp_path / 'box', copy.index_path)
    box.extra_env['LAGO__TEMPLATE_REPO__OFFLINE'] = 'yes'
    done = init_well(box)
    assert GOING_ON not in said(done.output)
    assert re.search("mirror 'rsync://nowhere/' .*going on without it",
                     said(done.output))
    check_disks(box, forest, vm0='nfs')
