"""LagoInitFiles that name their repositories, one or several."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import yaml

from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, check_disks, flatten,
    image_requests, init_well, links_of, run,
)
from tests.lab.world import message_of

Forest = Dict[str, DiskImage]


@contextlib.contextmanager
def serving(
    root: Path, name: str, forest: Forest, *templates: str, **keys: Any
) -> Iterator[Nginx]:
    """Serve some images of the forest as a repository."""
    with Nginx(root / name) as server:
        publish(server.root, name, forest, *templates,
                base_url=f'{server.url}/', **keys).write()
        yield server


def publish(
    root: Path, name: str, forest: Forest, *templates: str, **keys: Any
) -> Publisher:
    repo = Publisher(root, name, **keys)
    for template in templates:
        repo.add(forest[template].path, template, base=forest[template].base)
    return repo


def index_of(server: Nginx) -> str:
    return f'{server.url}/repo.metadata'


def paths_of(server: Nginx) -> List[str]:
    return [one.path for one in server.requests()]


def box_with(
    root: Path, entries: Any, vms: Dict[str, Any], **keys: Any
) -> LagoSandbox:
    """Return an environment whose init file has these entries."""
    box = LagoSandbox(root, vms, **keys)
    box.init_data['template-repo'] = entries
    box.write()
    return box


# Every form of an entry

@pytest.mark.parametrize('form', ['json', 'yaml'])
@pytest.mark.parametrize('kind', [
    'url', 'url in a list', 'path', 'relative', 'variable', 'home', 'name',
])
def test_every_form_of_an_entry(
    kind: str, form: str, forest: Forest, tmp_path: Path, server: Nginx
) -> None:
    repo = publish(
        server.root, 'mine', forest, 'base', 'nfs',
        base_url=f'{server.url}/', compression='gz',
    )
    index = repo.write()
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'nfs'})
    (box.root / 'repos').mkdir()
    shutil.copyfile(index, box.root / 'repos' / 'mine.json')
    shutil.copyfile(index, box.root / 'home' / 'mine.json')
    box.extra_env['WHERE'] = str(server.root)
    box.init_data['template-repo'] = {
        'url': index_of(server),
        'url in a list': [index_of(server)],
        'path': [{'path': str(index)}],
        'relative': '../www/repo.metadata',
        'variable': ['$WHERE/repo.metadata'],
        'home': [{'path': '~/mine.json'}],
        'name': [{'name': 'mine'}],
    }[kind]
    box.write()
    if form == 'yaml':
        box.init_file.write_text(yaml.safe_dump(box.init_data))
    # The working directory has nothing to do with it.
    (box.root / 'elsewhere').mkdir()
    done = box.popen(
        'init', '--skip-bootstrap', str(box.workdir), str(box.init_file),
        cwd=box.root / 'elsewhere',
    )
    output = ''.join(done.communicate(timeout=60))
    assert done.returncode == 0, output
    check_disks(box, forest, vm0='nfs')
    assert links_of(box.disk('vm0'))[0] == ('mine:nfs:v1', 'qcow2')


@pytest.mark.parametrize('entries, words', [
    ([], ['template-repo', 'at least one entry']),
    (7, ['template-repo: 7']),
    ([{'pth': 'x'}], ["line 4: template-repo, entry 1: unknown key 'pth'"]),
    (['a.json', {'name': 'x', 'path': 'y'}], ['entry 2: expected is either']),
    (['$NOT_SET/repo.json'], ['entry 1', '$NOT_SET is not set']),
    (['missing.json'], ['/box/missing.json', 'no such file']),
    ([{'name': 'nobody'}], ["'nobody'", 'there are: none']),
    (['LagoInitFile'], ['LagoInitFile', 'name']),
])
def test_faulty_entries(
    entries: Any, words: List[str], tmp_path: Path
) -> None:
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'base'})
    box.init_data = {'template-repo': entries, **box.init_data}
    box.write()
    done = box.init()
    assert done.code == 2, done.output
    message = ' '.join(message_of(done).split())
    for word in words:
        assert word.lower() in message.lower()
    assert not (box.workdir / 'default').exists()


# The order of search, and what is asked when

def test_order_of_search(forest: Forest, tmp_path: Path) -> None:
    flat = {'base': forest['base']}
    with serving(tmp_path, 'one', flat, 'base') as one, \
            serving(tmp_path, 'two', forest, 'base', 'other') as two, \
            serving(tmp_path, 'default', forest, 'base', 'nfs') as default:
        box = box_with(
            tmp_path / 'box', [index_of(one), index_of(two)],
            {'vm0': 'base'}, repo=index_of(default),
        )
        init_well(box)
        assert links_of(box.disk('vm0'))[0][0] == 'one:base:v1'
        assert paths_of(two) == paths_of(default) == []

        shutil.rmtree(box.workdir)
        box.init_data['domains']['vm0']['disks'][0]['template_name'] = 'other'
        box.write()
        init_well(box)
        assert links_of(box.disk('vm0'))[0][0] == 'two:other:v1'
        assert paths_of(default) == []

        shutil.rmtree(box.workdir)
        box.init_data['domains']['vm0']['disks'][0]['template_name'] = 'nfs'
        box.write()
        init_well(box)
        assert links_of(box.disk('vm0'))[0][0] == 'default:nfs:v1'
        check_disks(box, forest, vm0='nfs')

        # What somebody says on the command line is searched first.
        shutil.rmtree(box.workdir)
        box.init_data['domains']['vm0']['disks'][0]['template_name'] = 'base'
        box.write()
        init_well(box, '--template-repo-path', index_of(two))
        assert links_of(box.disk('vm0'))[0][0] == 'one:base:v1'
        metadata = json.loads(
            (box.workdir / 'default' / 'metadata').read_text()
        )
        assert metadata['template-repo'] == [
            {'path': index_of(two)}, {'path': index_of(one)}
        ]


def test_disks_name_their_repository(forest: Forest, tmp_path: Path) -> None:
    other = {**forest, 'base': forest['other']}
    with serving(tmp_path, 'one', forest, 'base') as one, \
            Nginx(tmp_path / 'two') as two:
        repo = Publisher(two.root, 'two', base_url=f'{two.url}/')
        flat = flatten(other['base'].path, tmp_path / 'flat.qcow2')
        repo.add(flat, 'base', 'v1')
        repo.add(forest['base'].path, 'base', 'v2')
        repo.write()
        box = box_with(
            tmp_path / 'box', [index_of(one), index_of(two)],
            {
                'vm0': {'template_name': 'base', 'template-repo': 'two',
                        'template_version': 'v1'},
                'vm1': {'template_name': 'base',
                        'template-repo': index_of(two)},
                'vm2': 'two/base:v1',
                'vm3': 'base',
                'vm4': 'base:v2',
            },
        )
        done = box.run('template-repo', 'plan')
        assert done.code == 0, done.output
        assert box.stored() == []
        init_well(box)
    check_disks(
        box, forest, vm0='other', vm1='base', vm2='other', vm3='base',
        vm4='base',
    )
    # The newest of two is what one has; it is kept once.
    assert box.stored() == ['two:base:v1', 'two:base:v2']


def test_a_repository_that_is_not_named_is_an_error(
    forest: Forest, tmp_path: Path
) -> None:
    index = publish(
        tmp_path / 'one', 'one', forest, 'base', source='file'
    ).write()
    for value in ('http://x.example/repo.metadata', 'nobody'):
        box = box_with(
            tmp_path / 'box', [str(index)],
            {'vm0': {'template_name': 'base', 'template-repo': value}},
        )
        done = box.init()
        assert done.code == 2
        message = message_of(done)
        assert value in message
        assert 'one' in message


# Chains over several repositories

@pytest.mark.quick
def test_chain_over_three_servers(forest: Forest, tmp_path: Path) -> None:
    with serving(tmp_path, 'bottom', forest, 'base') as bottom, \
            Nginx(tmp_path / 'middle') as middle, \
            Nginx(tmp_path / 'top') as top:
        for server, name, base in (
            (middle, 'nfs', 'bottom/base:v1'), (top, 'iscsi', 'nfs:v1')
        ):
            repo = Publisher(server.root, server.root.name,
                             base_url=f'{server.url}/')
            repo.add(forest[name].path, name,
                     backing=f'./{forest[name].base}:v1')
            repo.edit_version(f'{name}:v1', base=base)
            repo.write()
        box = box_with(
            tmp_path / 'box', [index_of(top), index_of(middle)],
            {'vm0': 'iscsi'}, repo=index_of(bottom),
        )
        init_well(box)
        assert links_of(box.disk('vm0')) == [
            ('top:iscsi:v1', 'qcow2'), ('middle:nfs:v1', 'qcow2'),
            ('bottom:base:v1', 'qcow2'),
        ]
        check_disks(box, forest, vm0='iscsi')
        for server in (bottom, middle, top):
            assert len(image_requests(server.requests())) == 1


def test_the_same_content_is_fetched_and_kept_once(
    forest: Forest, tmp_path: Path
) -> None:
    with serving(tmp_path, 'one', forest, 'base', 'nfs') as one, \
            serving(tmp_path, 'two', forest, 'base', 'nfs', 'iscsi') as two:
        box = box_with(
            tmp_path / 'box', [index_of(one), index_of(two)],
            {'vm0': 'one/nfs', 'vm1': 'two/nfs', 'vm2': 'iscsi'},
        )
        init_well(box)
        check_disks(box, forest, vm0='nfs', vm1='nfs', vm2='iscsi')
        assert box.stored() == ['one:base:v1', 'one:nfs:v1', 'two:iscsi:v1']
        assert len(image_requests(one.requests())) == 2
        assert len(image_requests(two.requests())) == 1
        # The same from the other one alone, on the same store.
        again = box_with(
            tmp_path / 'again', index_of(two), {'vm0': 'nfs'},
            store=box.store,
        )
        two.forget()
        init_well(again)
        check_disks(again, forest, vm0='nfs')
        assert image_requests(two.requests()) == []


def test_two_repositories_of_the_same_name(
    forest: Forest, tmp_path: Path
) -> None:
    flat = flatten(forest['other'].path, tmp_path / 'flat.qcow2')
    index = {}
    for directory, image in (('one', forest['base'].path), ('two', flat)):
        repo = Publisher(tmp_path / directory, 'lab', source='file')
        repo.add(image, 'base')
        index[directory] = str(repo.write())
    box = box_with(tmp_path / 'box', index['one'], {'vm0': 'base'})
    init_well(box)
    before = (box.store / 'lab:base:v1').read_bytes()
    both = box_with(
        tmp_path / 'both', [index['two'], index['one']],
        {'vm0': 'base',
         'vm1': {'template_name': 'base', 'template-repo': index['one']}},
        store=box.store,
    )
    init_well(both)
    check_disks(both, forest, vm0='other', vm1='base')
    check_disks(box, forest, vm0='base')
    assert len(both.stored()) == 2
    assert (box.store / 'lab:base:v1').read_bytes() == before


def test_an_unreachable_repository_says_what_it_was_needed_for(
    forest: Forest, tmp_path: Path
) -> None:
    index = publish(
        tmp_path / 'one', 'one', forest, 'base', source='file'
    ).write()
    box = box_with(
        tmp_path / 'box', str(index), {'vm0': 'nothing'},
        repo='http://127.0.0.1:9/repo.metadata',
        config={'template_repo': {'retries': 0}},
    )
    done = box.init()
    assert done.code == 2
    message = ' '.join(message_of(done).split())
    assert f"Template 'nothing' is not in repository one ({index})" in message
    assert 'http://127.0.0.1:9/repo.metadata' in message


def test_published_anew_between_index_and_download(
    forest: Forest, tmp_path: Path, server: Nginx
) -> None:
    """The kept index is old, as a proxy's may be; the file is the new one."""
    repo = publish(server.root, 'lab', forest, 'base', 'nfs', 'other',
                   base_url=f'{server.url}/')
    repo.write()
    old = (server.root / 'repo.metadata').read_bytes()
    repo.add(forest['iscsi'].path, 'nfs', base='base',
             timestamp=repo.images['nfs:v1'].timestamp, backing='./base:v1')
    with changed_after_index(server, old, repo):
        box = box_with(
            tmp_path / 'box', index_of(server), {'vm0': 'nfs'},
        )
        done = box.init()
    assert done.code == 0, done.output
    assert 'there is a new plan' in ' '.join(done.output.split())
    run('qemu-img', 'check', box.store / 'lab:nfs:v1')
    kept = (box.store / 'lab:nfs:v1.hash').read_text()
    assert kept == repo.images['nfs:v1'].checksums['sha1']


@contextlib.contextmanager
def changed_after_index(
    server: Nginx, old: bytes, repo: Publisher
) -> Iterator[None]:
    """Serve the old index once, and then the new one."""
    import threading

    new = json.dumps(repo.index()).encode()
    path = server.root / 'repo.metadata'
    path.write_bytes(old)
    stop = threading.Event()

    def replace_when_read() -> None:
        while not stop.wait(0.02):
            if any(one.path == '/repo.metadata' for one in server.requests()):
                path.with_suffix('.new').write_bytes(new)
                path.with_suffix('.new').replace(path)
                return

    thread = threading.Thread(target=replace_when_read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
