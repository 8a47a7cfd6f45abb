"""What is here under another name is not fetched: real inits."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, check_disks, flatten,
    image_requests, init_well, links_of,
)
from tests.lab.publish import KEEP

Forest = Dict[str, DiskImage]

#: What each image is called in a repository: name in the forest -> there.
Names = Dict[str, str]

#: A Lago without our part, as Lago 0.46 is; mended for today's Python only.
FILL_STORE = '''
import sys
from lago_layered_provider.plugin import repair
repair.repair()
from lago import templates
assert templates.TemplateStore.__module__ == 'lago.templates'
repo = templates.TemplateRepository.from_url(sys.argv[1])
store = templates.TemplateStore(sys.argv[2])
store.download(repo.get_by_name(sys.argv[3]).get_latest_version())
'''


class Site:
    """A repository with a server of its own."""

    def __init__(self, repo: Publisher, server: Nginx) -> None:
        self.repo = repo
        self.server = server
        self.index = f'{server.url}/repo.metadata'

    def fetched(self) -> List[str]:
        """Return the images that were asked for since the last time."""
        paths = [one.path for one in image_requests(self.server.requests())]
        self.server.forget()
        return sorted(set(paths))


@contextmanager
def site(
    root: Path, name: str, forest: Forest, names: Names, **keys: Any
) -> Iterator[Site]:
    """Serve images of the forest under names of one's own."""
    repo = Publisher(root / name, name, **{'compression': 'gz', **keys})
    for original, called in names.items():
        base = forest[original].base
        repo.add(
            forest[original].path, called, base=base and names[base],
            metadata={'distro': name},
            # Its own file name is what a header can name everywhere.
            handle=f'{original}.qcow2', backing=base and KEEP,
        )
    with Nginx(repo.root) as server:
        repo.write(f'{server.url}/')
        yield Site(repo, server)


def environment(
    root: Path, store: Path, index: str, **vms: str
) -> LagoSandbox:
    return LagoSandbox(root, vms, repo=index, store=store)


def rows(box: LagoSandbox, *command: str) -> Any:
    done = box.run('--out-format', 'json', 'template-repo', *command)
    assert done.code == 0, done.output
    return json.loads(done.stdout)


def check_sound(box: LagoSandbox) -> None:
    """Insist that what looks after a store finds nothing wrong."""
    done = box.run('template-repo', 'verify')
    assert done.code == 0, done.output
    before = box.stored()
    done = box.run('template-repo', 'prune', '--workdir', str(box.root))
    assert done.code == 0, done.output
    assert box.stored() == before, done.output


def test_a_bottom_image_of_another_repository(
    forest: Forest, tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    with site(tmp_path, 'one', forest, {'base': 'base'}) as one, site(
        tmp_path, 'two', forest, {'base': 'el7', 'nfs': 'share'}
    ) as two:
        init_well(environment(tmp_path / 'a', store, one.index, vm='base'))
        box = environment(
            tmp_path / 'b', store, two.index, vm='share', vm2='el7'
        )
        init_well(box)
        assert two.fetched() == ['/nfs.qcow2.gz']
        assert box.stored() == ['one:base:v1', 'two:share:v1']
        assert links_of(box.disk('vm')) == [
            ('two:share:v1', 'qcow2'), ('one:base:v1', 'qcow2')
        ]
        check_disks(box, forest, vm='nfs', vm2='base')
        present = {
            row['template']: row['present']
            for row in rows(box, 'list')['templates']
        }
        assert present == {'el7': True, 'share': True}
        # What the other environment stands on goes when nobody needs it.
        check_sound(box)


def test_layers_on_bases_that_serve_under_other_names(
    forest: Forest, tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    with site(
        tmp_path, 'one', forest, {'base': 'base', 'nfs': 'nfs'}
    ) as one, site(
        tmp_path, 'two', forest,
        {'base': 'el7', 'nfs': 'share', 'iscsi': 'target', 'other': 'more'},
    ) as two:
        init_well(environment(tmp_path / 'a', store, one.index, vm='nfs'))
        box = environment(
            tmp_path / 'b', store, two.index,
            vm='target', vm2='more', vm3='share',
        )
        init_well(box)
        assert two.fetched() == ['/iscsi.qcow2.gz', '/other.qcow2.gz']
        assert [name for name, _ in links_of(box.disk('vm'))] == [
            'two:target:v1', 'one:nfs:v1', 'one:base:v1'
        ]
        check_disks(box, forest, vm='iscsi', vm2='other', vm3='nfs')
        assert all(row['present'] for row in rows(box, 'list')['templates'])
        check_sound(box)
        # And back again: the first one stands on what the second has left.
        init_well(environment(tmp_path / 'c', store, one.index, vm='nfs'))
        assert len(one.fetched()) == 2  # of the first time


def test_a_flat_image_of_a_plain_lago_under_another_name(
    forest: Forest, tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    old = Publisher(
        tmp_path / 'old', 'old', dialect='plain', source='file',
        compression=None,
    )
    old.add(forest['base'].path, 'centos', metadata={'distro': 'old'})
    old.write()
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', FILL_STORE, old.index_path,
         store, 'centos'], check=True, timeout=60,
    )
    before = (store / 'old:centos:v1').read_bytes()
    assert not before.startswith(b'QFI')
    with site(
        tmp_path, 'new', forest, {'base': 'el7', 'nfs': 'share'}
    ) as new:
        box = environment(
            tmp_path / 'box', store, new.index, vm='share', vm2='el7'
        )
        init_well(box)
        assert new.fetched() == ['/nfs.qcow2.gz']
        assert links_of(box.disk('vm')) == [
            ('new:share:v1', 'qcow2'), ('old:centos:v1', 'raw')
        ]
        assert links_of(box.disk('vm2')) == [('old:centos:v1', 'raw')]
        check_disks(box, forest, vm='nfs', vm2='base')
        assert (store / 'old:centos:v1').read_bytes() == before
        assert all(row['present'] for row in rows(box, 'list')['templates'])
        done = box.run('template-repo', 'prune', '--workdir', str(box.root))
        assert done.code == 0, done.output
        assert box.stored() == ['new:share:v1', 'old:centos:v1']


def test_a_flat_image_with_another_digest_does_not_serve(
    forest: Forest, tmp_path: Path
) -> None:
    store = tmp_path / 'store'
    store.mkdir()
    flatten(forest['base'].path, store / 'old:el7:v1', form='raw')
    (store / 'old:el7:v1.hash').write_text('0' * 40)
    (store / 'old:el7:v1.metadata').write_text('{}')
    with site(tmp_path, 'new', forest, {'base': 'el7'}) as new:
        box = environment(tmp_path / 'box', store, new.index, vm='el7')
        init_well(box)
        assert new.fetched() == ['/base.qcow2.gz']
        check_disks(box, forest, vm='base')


@pytest.mark.quick
def test_published_again_under_its_name(
    forest: Forest, tmp_path: Path
) -> None:
    """The newer one has a name with a digest; it serves others, too."""
    store = tmp_path / 'store'
    names: Names = {'base': 'el7'}
    with site(tmp_path / 'first', 'one', forest, names) as first:
        init_well(environment(tmp_path / 'a', store, first.index, vm='el7'))
    flat = DiskImage(
        'other', flatten(forest['other'].path, tmp_path / 'flat.qcow2'),
        None, forest['other'].virtual_size, forest['other'].guest_sha256,
    )
    changed = {'base': flat}
    with site(tmp_path / 'second', 'one', changed, names) as second, site(
        tmp_path, 'two', changed, {'base': 'system'}
    ) as two:
        box = environment(tmp_path / 'b', store, second.index, vm='el7')
        init_well(box)
        [new] = set(box.stored()) - {'one:el7:v1'}
        assert new.startswith('one:el7:v1+')
        box = environment(tmp_path / 'c', store, two.index, vm='system')
        init_well(box)
        assert two.fetched() == []
        assert links_of(box.disk('vm')) == [(new, 'qcow2')]
        check_disks(box, {'other': flat}, vm='other')
        # The first one is asked for again, by its old index.
        with site(tmp_path / 'third', 'one', forest, names) as third:
            init_well(
                environment(tmp_path / 'd', store, third.index, vm='el7')
            )
            assert third.fetched() == []


def test_two_copies_of_a_base(forest: Forest, tmp_path: Path) -> None:
    """A layer stands on one copy; the other one has the name in the index.
    """
    store = tmp_path / 'store'
    with site(
        tmp_path, 'one', forest, {'base': 'base', 'nfs': 'nfs'}
    ) as one, site(
        tmp_path, 'two', forest, {'base': 'el7', 'nfs': 'share'}
    ) as two:
        init_well(environment(tmp_path / 'a', store, one.index, vm='nfs'))
        # As two that ran at the same time leave them.
        for path in store.rglob('one:base:v1*'):
            copy = path.with_name(path.name.replace('one:base', 'two:el7'))
            copy.write_bytes(path.read_bytes())
            copy.chmod(path.stat().st_mode)
        box = environment(tmp_path / 'b', store, two.index, vm='share')
        init_well(box)
        assert two.fetched() == []
        check_disks(box, forest, vm='nfs')
        done = box.run('template-repo', 'prune', '--workdir', str(tmp_path))
        assert done.code == 0, done.output
        # Nothing stands on the copy.
        assert box.stored() == ['one:base:v1', 'one:nfs:v1']
        check_disks(box, forest, vm='nfs')
