"""Lago's other doors: its SDK, its options, `--offline` and `--plan`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from tests.lab import (
    DiskImage, Finished, LagoSandbox, Nginx, Publisher, check_disks,
    init_well, links_of,
)
from tests.lab.world import message_of

pytestmark = pytest.mark.real_start

#: What Lago uses when nobody has configured anything.
LAGO_PATH = 'http://templates.ovirt.org/repo/repo.metadata'

Forest = Dict[str, DiskImage]
State = Dict[str, Tuple[int, int]]


def publish_files(
    root: Path, name: str, forest: Forest, *templates: str
) -> Path:
    """Publish images in a directory; return the index' path."""
    repo = Publisher(root, name, source='file', compression='gz')
    for template in templates:
        repo.add(forest[template].path, template, base=forest[template].base)
    return repo.write()


def state_of(directory: Path) -> State:
    """Return all files below a directory, with their size and time."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_size, path.lstat().st_mtime_ns
        )
        for path in sorted(directory.rglob('*'))
    }


# The SDK

BEGIN = '''
import gc
frozen = gc.get_freeze_count()
'''

SCRIPTS = {
    'drop-in': 'from lago_layered_provider import sdk',
    'the original': '''
from lago import sdk
import lago_layered_provider.lago_plugin
''',
}

WORK = '''
import json, sys
first = sdk.init('LagoInitFile', workdir='one', template_repo_path=sys.argv[1],
                 template_repo_name='nowhere', skip_bootstrap=True)
assert sorted(first.get_vms()) == ['vm0']
# What was said for one is not said for the next.
second = sdk.init('LagoInitFile', workdir='two', skip_bootstrap=True)
# Nobody but this process knows how long its objects live.
assert gc.get_freeze_count() == frozen
again = sdk.load_env('two')
assert sorted(again.get_vms()) == ['vm0']
assert isinstance(first, sdk.SDK)
try:
    sdk.init('Missing', workdir='three', skip_bootstrap=True)
except sdk.cmd.LagoUserException:
    pass
first.destroy()
'''


@pytest.mark.parametrize('how', SCRIPTS)
def test_sdk(how: str, forest: Forest, tmp_path: Path) -> None:
    default = publish_files(tmp_path / 'one', 'default', forest, 'base')
    given = publish_files(tmp_path / 'two', 'given', forest, 'base', 'nfs')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'base'}, repo=default)
    done = run_python(box, BEGIN + SCRIPTS[how] + WORK, str(given))
    assert done.code == 0, done.output
    assert not (box.root / 'one').exists()
    disk = box.root / 'two' / 'default' / 'images' / 'vm0_root.qcow2'
    # The same bytes are there already, from the first.
    assert links_of(disk)[0][0] == 'given:base:v1'
    saved = json.loads(
        (box.root / 'two' / 'default' / 'metadata').read_text()
    )
    assert saved['template-repo'] == [{'path': str(default)}]


@pytest.mark.quick
def test_command_leaves_alone_what_is_loaded(tmp_path: Path) -> None:
    """It would be looked through for garbage, although the process ends."""
    done = run_python(LagoSandbox(tmp_path / 'box', {}), BEGIN + '''
import atexit, sys
from lago import cmd
# The first one that is registered is the last one called.
atexit.register(lambda: print(gc.get_freeze_count()))
sys.argv = ['lago', '--version']
try:
    cmd.main()
except SystemExit:
    pass
print(frozen, gc.get_freeze_count())
later = [[] for _ in range(1000)]
''')
    assert done.code == 0, done.output
    before, after, at_end = map(int, done.stdout.split()[-3:])
    assert after > before + 10000
    assert at_end >= after + 1000


def test_sdk_errors_are_lagos(forest: Forest, tmp_path: Path) -> None:
    index = publish_files(tmp_path / 'www', 'lab', forest, 'base')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'bsae'}, repo=index)
    done = run_python(box, '''
from lago_layered_provider import sdk
from lago.utils import LagoUserException
try:
    sdk.init('LagoInitFile', skip_bootstrap=True)
except LagoUserException as error:
    assert 'Nearest: base' in str(error), error
else:
    raise AssertionError('no error')
''')
    assert done.code == 0, done.output


def run_python(box: LagoSandbox, script: str, *arguments: str) -> Finished:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, *arguments],
        cwd=box.root, env=box.environment(), capture_output=True,
        encoding='utf-8', timeout=120,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


# What Lago's options and its configuration mean

@pytest.mark.parametrize('how', [
    'path', 'name', 'configured name', 'environment', 'repos',
    'path and name', 'path and known name', 'unknown name',
    'configured name and path of Lago',
])
def test_options_mean_what_they_meant(
    how: str, forest: Forest, tmp_path: Path
) -> None:
    default = publish_files(tmp_path / 'one', 'default', forest, 'base')
    given = publish_files(tmp_path / 'two', 'given', forest, 'base', 'nfs')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'nfs'}, repo=default)
    repos = box.root / 'repos'
    options: List[str] = []
    if how.startswith('path'):
        options = ['--template-repo-path', '../two/repo.metadata']
        if how != 'path':
            name = 'nowhere' if how == 'path and name' else 'default'
            options += ['--template-repo-name', name]
    elif how == 'unknown name':
        box.repo = str(given)
        box.write()
        options = ['--template-repo-name', 'nowhere']
    elif how == 'environment':
        box.extra_env['LAGO__INIT__TEMPLATE_REPO_PATH'] = str(given)
    elif how.startswith('configured name'):
        box.repo = LAGO_PATH if how.endswith('Lago') else ''
        box.config['init'] = {'template_repo_name': 'given'}
        box.write()
    else:
        options = ['--template-repo-name', 'given']
        if how == 'repos':
            repos = box.root / 'others'
            options += ['--template-repos', 'others']
    repos.mkdir()
    if how == 'path and known name':
        shutil.copyfile(default, repos / 'given.json')
    elif how != 'unknown name':
        shutil.copyfile(given, repos / 'given.json')
    done = init_well(box, '--template-store', 'my store', *options)
    warned = "'nowhere' is not in" in ' '.join(done.output.split())
    assert warned == (how == 'unknown name')
    assert links_of(box.disk('vm0'))[0][0] == 'given:nfs:v1'
    assert (box.root / 'my store' / 'given:nfs:v1').exists()
    assert not box.store.exists()
    check_disks(box, forest, vm0='nfs')


# Offline

@pytest.fixture
def online(forest: Forest, tmp_path: Path, server: Nginx) -> LagoSandbox:
    """Return an environment on a server, not made yet."""
    repo = Publisher(server.root, base_url=f'{server.url}/', compression='gz')
    repo.add_forest(forest)
    repo.write()
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )


@pytest.mark.parametrize('how', ['option', 'lago.conf', 'environment'])
def test_offline_asks_nobody(
    how: str, online: LagoSandbox, server: Nginx, forest: Forest
) -> None:
    init_well(online)
    shutil.rmtree(online.workdir)
    server.forget()
    options = ['--offline'] if how == 'option' else []
    if how == 'lago.conf':
        online.config['template_repo'] = {'offline': 'yes'}
        online.write()
    elif how == 'environment':
        online.extra_env['LAGO__TEMPLATE_REPO__OFFLINE'] = '1'
    done = init_well(online, *options)
    assert 'nothing to fetch' in done.output
    check_disks(online, forest, vm0='nfs')
    disks = online.init_data['domains']['vm0']['disks']
    disks[0]['template_name'] = 'iscsi'
    online.write()
    shutil.rmtree(online.workdir)
    done = online.init(*options)
    assert done.code == 2
    message = message_of(done)
    assert 'lab:iscsi:v1' in message and 'offline' in message
    assert 'lab:nfs:v1' not in message
    plan = online.run('init', '--plan', *options)
    assert plan.code == 2
    assert 'missing' in plan.stdout and 'lab:iscsi:v1' in plan.stderr
    assert server.requests() == []


def test_offline_without_a_kept_index(
    online: LagoSandbox, server: Nginx
) -> None:
    done = online.init('--offline')
    assert done.code == 2
    message = ' '.join(message_of(done).split())
    assert f'{server.url}/repo.metadata is not asked' in message
    assert server.requests() == []


def test_offline_files_are_no_servers(forest: Forest, tmp_path: Path) -> None:
    index = publish_files(tmp_path / 'www', 'lab', forest, 'base', 'nfs')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'nfs'}, repo=index)
    init_well(box, '--offline')
    check_disks(box, forest, vm0='nfs')


def test_offline_look_ups(
    forest: Forest, tmp_path: Path, server: Nginx
) -> None:
    repo = Publisher(
        server.root, base_url=f'{server.url}/', dialect='images-2015'
    )
    repo.add_forest(forest)
    repo.write()
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{server.url}/repo.metadata'
    )
    init_well(box)
    shutil.rmtree(box.workdir)
    server.forget()
    init_well(box, '--offline')
    shutil.rmtree(box.workdir)
    done = box.init('--offline', *write_init_file(box, 'iscsi'))
    assert done.code == 2
    assert 'lab:iscsi:latest' in message_of(done)
    assert server.requests() == []


def write_init_file(box: LagoSandbox, template: str) -> List[str]:
    disks = box.init_data['domains']['vm0']['disks']
    disks[0]['template_name'] = template
    box.write()
    return []


# The plan alone

def test_plan_changes_nothing(
    online: LagoSandbox, server: Nginx
) -> None:
    before = state_of(online.root)
    done = online.run('init', '--plan')
    assert done.code == 0, done.output
    assert '2 layers: 2 missing' in done.stdout
    assert 'lab:nfs:v1' in done.stdout
    data = online.run('--out-format', 'json', 'init', '--plan')
    planned = json.loads(data.stdout)
    assert [one['name'] for one in planned['layers']] == [
        'lab:base:v1', 'lab:nfs:v1'
    ]
    assert without_home(state_of(online.root)) == without_home(before)
    assert {one.path for one in server.requests()} == {'/repo.metadata'}
    # Nor where there is something already.
    init_well(online)
    before = state_of(online.root)
    done = online.run('init', '--plan')
    assert done.code == 0
    assert '2 layers, all present' in done.stdout
    assert without_home(state_of(online.root)) == without_home(before)


def without_home(state: State) -> State:
    """Leave out what stevedore keeps of the entry points it found."""
    return {
        path: value for path, value in state.items()
        if not path.startswith('home')
    }


def test_plan_that_does_not_fit(online: LagoSandbox) -> None:
    online.extra_env['LAGO__TEMPLATE_REPO__RESERVE'] = '9999T'
    done = online.run('init', '--plan')
    assert done.code == 3
    assert 'short' in done.output


@pytest.mark.parametrize('option', ['--plan', '--offline'])
def test_help(option: str, online: LagoSandbox) -> None:
    done = online.run('init', '--help')
    assert done.code == 0
    assert option in done.stdout


def test_plan_of_a_faulty_init_file(online: LagoSandbox) -> None:
    online.init_file.write_text('{')
    done = online.run('init', '--plan')
    assert done.code == 2
    assert 'Traceback' not in done.output
    assert 'LagoInitFile' in done.stderr


def data_of(box: LagoSandbox, *arguments: str) -> Any:
    done = box.run('--out-format', 'json', *arguments)
    assert done.code == 0, done.output
    return json.loads(done.stdout)


def test_the_verb_takes_the_init_files_repositories(
    forest: Forest, tmp_path: Path
) -> None:
    """So do all its commands that name no others, with an init file here."""
    index = publish_files(tmp_path / 'www', 'mine', forest, 'base', 'nfs')
    box = LagoSandbox(tmp_path / 'box', {'vm0': 'mine/nfs:v1'})
    box.init_data['template-repo'] = [{'path': str(index)}]
    box.write()
    for arguments in (
        ['template-repo', 'plan'], ['init', '--plan'],
        ['template-repo', 'plan', 'nfs'],
    ):
        planned = data_of(box, *arguments)
        assert planned['wanted'] == ['mine:nfs:v1']
    # What a disk says does not matter to them.
    del box.init_data['domains']['vm0']['disks'][0]['template_name']
    box.write()
    listed = data_of(box, 'template-repo', 'list')['templates']
    assert [one['template'] for one in listed] == ['base', 'nfs']
    assert data_of(box, 'template-repo', 'show', 'nfs')['index'] == str(index)
    other = publish_files(tmp_path / 'two', 'other', forest, 'base')
    listed = data_of(box, 'template-repo', 'list', '--repo', str(other))
    assert [one['repository'] for one in listed['templates']] == ['other']


def test_the_verb_looks_where_a_configured_name_says(
    forest: Forest, tmp_path: Path
) -> None:
    index = publish_files(tmp_path / 'www', 'mine', forest, 'base')
    box = LagoSandbox(
        tmp_path / 'box', {}, repo=LAGO_PATH,
        config={'init': {'template_repo_name': 'mine'}},
    )
    (box.root / 'repos').mkdir()
    shutil.copyfile(index, box.root / 'repos/mine.json')
    assert data_of(box, 'template-repo', 'plan', 'base')['wanted'] == [
        'mine:base:v1'
    ]


def test_an_environment_without_templates_needs_no_store(
    tmp_path: Path
) -> None:
    box = LagoSandbox(
        tmp_path / 'box',
        {'vm0': {'type': 'empty', 'size': '1M', 'template_name': None}},
        store=Path('/proc/no/such/store'),
    )
    disk = box.init_data['domains']['vm0']['disks'][0]
    del disk['template_name']
    box.write()
    init_well(box)
    assert box.disk('vm0').exists()


def test_an_init_file_that_is_no_text(online: LagoSandbox) -> None:
    online.init_file.write_bytes(b'\xff\xfe\x00domains')
    for arguments in (['init', '--plan'], ['init'], ['template-repo', 'lock']):
        done = online.run(*arguments)
        assert done.code == 2, done.output
        assert 'Traceback' not in done.output
    assert not (online.workdir / 'default').exists()
