"""Commands of the verb, from their options to what they print and return."""

from __future__ import annotations

import argparse

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest

from lago_layered_provider.commands import (
    Context, FAILED_STATUS, MODULES, NO_ROOM_STATUS, find_command,
    parser as cli, planning,
)
from lago_layered_provider.commands.holding import find_image
from lago_layered_provider.commands.publishing import read_options
from lago_layered_provider.core import errors
from lago_layered_provider.environments import environment
from lago_layered_provider.environments.init_document import load_init_file
from lago_layered_provider.repositories.template_repository import (
    TemplateRepository,
)
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import read_settings
from lago_layered_provider.store import Store


class World:
    """A repository, a store and an init file in a directory.

    Attributes:
        warned: what people were told.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = read_settings({})
        self.store = Store(str(root / 'store'))
        self.warned: List[str] = []
        self.templates: Dict[str, Any] = {}
        self.publish('base')
        self.publish('nfs', base='base:v1')

    def publish(
        self, template: str, version: str = 'v1', *,
        base: Optional[str] = None, size: int = 2**20,
    ) -> None:
        """List an image in the index; no command here looks at its file."""
        versions = self.templates.setdefault(template, {'versions': {}})
        versions['versions'][version] = {
            'source': 'here', 'handle': f'{template}-{version}.qcow2',
            'timestamp': 1500000000 + len(versions['versions']),
            'base': base, 'format': 'qcow2', 'compression': None,
            'size': size, 'virtual_size': size,
            'sha256': f'{len(template) + 256 * len(version):064x}',
            'metadata': {},
        }
        self.index.write_text(json.dumps({
            'name': 'lab', 'templates': self.templates,
            'sources': {
                'here': {'type': 'file', 'args': {'root': str(self.root)}}
            },
        }))

    @property
    def index(self) -> Path:
        return self.root / 'repo.metadata'

    def write_init_file(self, name: str, template: str) -> Path:
        path = self.root / name
        path.write_text(json.dumps({'domains': {'vm0': {'disks': [
            {'type': 'template', 'template_name': template}
        ]}}}))
        return path

    def repository(self, where: Sequence[str]) -> TemplateRepository:
        return TemplateRepository(
            [ByPath(each) for each in where], lambda: self.settings,
            self.warned.append,
        )

    def context(
        self, *words: str,
        format_data: Optional[Callable[[Any], str]] = None,
    ) -> Context:
        """Return what `lago template-repo` with these words gives."""
        parser = argparse.ArgumentParser()
        cli.populate_parser(parser)
        args = parser.parse_args(words)
        repository = self.repository(
            getattr(args, 'repo', None) or [str(self.index)]
        )

        def read(path: str) -> environment.Environment:
            try:
                with open(path) as stream:
                    loaded = load_init_file(stream, path, self.warned.append)
            except OSError as error:
                raise errors.IndexFaults(path, [str(error)]) from None
            return environment.read_environment(
                loaded, repository, None, str(self.root / 'repos'), path
            )

        return Context(
            args=args, open_repository=lambda: repository, store=self.store,
            settings=self.settings, read_environment=read,
            repos_directory=str(self.root / 'repos'),
            format_data=format_data,
            warn=self.warned.append,
        )

    def run(self, *words: str) -> int:
        context = self.context(*words)
        return find_command(context.args.template_repo_command)(context)

    def ask(self, *words: str) -> Any:
        """Run a command, and return its answer for programs."""
        found: List[Any] = []

        def keep(data: Any) -> str:
            found.append(data)
            return ''

        context = self.context(*words, format_data=keep)
        find_command(context.args.template_repo_command)(context)
        return found[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ('NO_COLOR', 'FORCE_COLOR', 'COLUMNS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def names(plan: Any) -> List[str]:
    return [layer['name'] for layer in plan['layers']]


# Which init file a command reads.

def test_the_init_file_of_this_directory(world: World) -> None:
    world.write_init_file('LagoInitFile', 'base')
    assert names(world.ask('plan')) == ['lab:base:v1']
    assert world.ask('lock')['lock'] == 'LagoInitFile.lock'
    [row] = world.ask('outdated')['templates']
    assert row['wanted'] == 'base'


def test_the_init_file_of_an_option(world: World) -> None:
    world.write_init_file('LagoInitFile', 'base')
    world.write_init_file('Other', 'nfs')
    assert names(world.ask('plan', '--init-file', 'Other')) == [
        'lab:base:v1', 'lab:nfs:v1'
    ]
    assert world.ask('lock', '--init-file', 'Other')['lock'] == 'Other.lock'
    assert not os.path.exists('LagoInitFile.lock')
    [row] = world.ask('outdated', '--init-file', 'Other')['templates']
    assert row['wanted'] == 'nfs'
    assert names(world.ask('plan', '--init-file', 'Other', '--locked')) == [
        'lab:base:v1', 'lab:nfs:v1'
    ]
    pulled = world.context('pull', '--init-file', 'Other')
    wanted = planning.find_wanted(pulled, pulled.args.wanted)[1]
    assert [each.template for each in wanted] == ['nfs']


@pytest.mark.parametrize('command', ['plan', 'pull', 'lock', 'outdated'])
def test_one_init_file_is_read_not_two(world: World, command: str) -> None:
    world.write_init_file('LagoInitFile', 'base')
    world.write_init_file('Other', 'nfs')
    with pytest.raises(errors.SettingsError, match=(
        "'LagoInitFile' and 'Other' are two init files; name one."
    )):
        world.run(command, '--init-file', 'Other', 'LagoInitFile')
    # Said twice it is still one.
    assert world.context(command, '--init-file', 'Other').find_init_file(
        'Other'
    ) == 'Other'


def test_templates_of_the_repositories_of_an_init_file(world: World) -> None:
    world.write_init_file('Other', 'nfs')
    assert names(world.ask('plan', '--init-file', 'Other', 'base')) == [
        'lab:base:v1'
    ]


# Every command.

def test_each_command_has_a_function_and_options() -> None:
    parser = argparse.ArgumentParser()
    cli.populate_parser(parser)
    [commands] = [
        action for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    assert set(commands.choices) == set(MODULES)
    for name, each in commands.choices.items():
        assert callable(find_command(name))
        assert each.description and each.epilog
        # What it shows as an example can be parsed.
        words = each.epilog.partition('lago template-repo ')[2].split()
        assert parser.parse_args(words).template_repo_command == name


def options_of(*words: str) -> Dict[str, Any]:
    parser = argparse.ArgumentParser()
    cli.populate_parser(parser)
    return vars(parser.parse_args(words))


@pytest.mark.parametrize('words, expected', [
    (['list'], {'pattern': None, 'tree': False, 'repo': None,
                'init_file': None, 'template_store': None}),
    (['pull', 'a', 'b', '--locked'], {
        'wanted': ['a', 'b'], 'locked': True, 'all': False}),
    (['store', '--workdir', 'a', '--workdir', 'b'], {'workdir': ['a', 'b']}),
    (['verify'], {'images': [], 'repair': False}),
    (['prune', '--keep', '2', '--older-than', '1.5'], {
        'dry_run': False, 'keep': 2, 'older_than': 1.5, 'until_free': None}),
    (['lock'], {'init_file_to_lock': None, 'update': False}),
    (['list', '--repo', 'a', '--repo', 'b'], {'repo': ['a', 'b']}),
])
def test_options(words: List[str], expected: Dict[str, Any]) -> None:
    found = options_of(*words)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize('words', [
    [], ['unknown'], ['show'], ['why'], ['prune', '--keep', 'x'],
    ['prune', '--repo', 'a'], ['add', '--template-store', 'a'], ['hold'],
    ['store', '--init-file', 'a'],
])
def test_what_no_command_takes(
    words: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        options_of(*words)
    assert end.value.code == 2
    assert 'usage:' in capsys.readouterr().err


# plan, pull, list, show: what the repositories have.

def test_a_plan_that_does_not_fit_has_a_status_of_its_own(
    world: World, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.publish('huge', size=2**60)
    assert world.run('plan', 'base') == 0
    assert world.run('plan', 'huge') == NO_ROOM_STATUS
    out = capsys.readouterr().out
    assert 'lab:huge:v1' in out and 'short' in out
    assert 'not enough room' in caplog.text
    assert not os.path.exists(world.store.root)


@pytest.mark.parametrize('words, message', [
    (['pull', '--all', 'base'], 'Say --all alone'),
    (['pull', '--all', '--locked'], 'Say --all alone'),
    (['pull', 'base', '--locked'], 'Templates have no lock'),
    (['plan', 'base', '--locked'], 'Templates have no lock'),
    (['plan', 'none'], 'none'),
    (['plan', 'no name'], "'no name'"),
    (['show', '../base'], "'../base'"),
    (['plan', './LagoInitFile'], './LagoInitFile'),
    (['plan'], 'LagoInitFile'),
    (['outdated'], 'LagoInitFile'),
])
def test_what_cannot_be_meant(
    world: World, words: List[str], message: str
) -> None:
    with pytest.raises(errors.LayeredError) as caught:
        world.run(*words)
    assert message in str(caught.value)


def test_all_templates_are_the_newest_of_each(world: World) -> None:
    world.publish('base', 'v2')
    for number in range(planning.SHOWN_FAULTS + 2):
        world.publish(f'faulty{number}')
        version = world.templates[f'faulty{number}']['versions']['v1']
        version['size'] = 'many'
    world.publish('last')
    context = world.context('pull', '--all')
    wanted = planning._all_wanted(context)
    assert sorted(each.template for each in wanted) == ['base', 'last', 'nfs']
    assert {each.version for each in wanted} == {None}
    [warning] = world.warned
    assert warning.startswith('left out, as their entries are faulty:')
    assert warning.count('\n  - ') == planning.SHOWN_FAULTS
    assert warning.endswith('\n  and 2 more')


def test_a_list_and_its_tree(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.publish('base', 'v2')
    world.publish('orphan', base='gone:v1')
    assert [
        (row['template'], row['version'], row['base'], row['to_fetch'])
        for row in world.ask('list', 'a')['templates']
    ] == [('base', 'v1', None, 2**20), ('base', 'v2', None, 2**20),
          ('orphan', 'v1', 'gone:v1', 2**20)]
    assert world.run('list', '--tree') == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split('  ')[0] for line in lines if ':' in line]
    assert '├── base:v1' not in shown
    assert 'base:v1' in shown and '└── nfs:v1' in shown
    rows = world.ask('list', '--tree')['templates']
    stands = {row['template']: row['stands_on'] for row in rows
              if row['version'] == 'v1'}
    assert stands == {'base': None, 'nfs': 'lab/base:v1', 'orphan': None}
    assert [row['template'] for row in rows if row['problem']] == ['orphan']


def test_show_says_what_it_knows_of_a_broken_chain(
    world: World, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.publish('orphan', base='gone:v1')
    assert world.run('show', 'orphan') == FAILED_STATUS
    assert 'lab/orphan:v1' in capsys.readouterr().out
    assert caplog.text.count('gone:v1') == 1
    found = world.ask('show', 'nfs')
    assert found['chain'] == ['lab/base:v1', 'lab/nfs:v1']
    assert found['url'] == str(world.root / 'nfs-v1.qcow2')
    assert found['stored'] is None and found['problems'] == []


# lock and outdated.

def test_a_lock_stays_until_it_is_updated(world: World) -> None:
    world.write_init_file('LagoInitFile', 'nfs')
    [row] = world.ask('lock')['templates']
    assert (row['change'], row['locked']) == ('added', 'lab/nfs:v1')
    world.publish('nfs', 'v2', base='base:v1')
    [row] = world.ask('lock')['templates']
    assert (row['change'], row['locked']) == ('kept', 'lab/nfs:v1')
    [row] = world.ask('outdated')['templates']
    assert (row['newest'], row['outdated']) == ('lab/nfs:v2', True)
    [row] = world.ask('lock', '--update')['templates']
    assert (row['before'], row['locked']) == ('lab/nfs:v1', 'lab/nfs:v2')
    [row] = world.ask('outdated')['templates']
    assert (row['state'], row['outdated']) == ('current', False)
    world.write_init_file('LagoInitFile', 'base')
    rows = world.ask('lock')['templates']
    assert [(row['wanted'], row['change']) for row in rows] == [
        ('base', 'added'), ('nfs', 'dropped')
    ]


def test_what_a_repository_has_no_more_is_outdated(world: World) -> None:
    world.write_init_file('LagoInitFile', 'nfs')
    world.run('lock')
    del world.templates['nfs']
    world.publish('other')
    [row] = world.ask('outdated')['templates']
    assert (row['state'], row['outdated']) == ('not in the repositories', True)
    assert world.warned


# The store.

IMAGES = ['lab:el7:v1', 'lab:el7-nfs:v1', 'lab:el7-nfs:v2', 'other:el7:v1']


@pytest.mark.parametrize('word, name', [
    ('lab:el7:v1', 'lab:el7:v1'), ('lab/el7:v1', 'lab:el7:v1'),
    ('el7-nfs:v2', 'lab:el7-nfs:v2'), ('lab/el7', 'lab:el7:v1'),
    ('other', 'other:el7:v1'),
])
def test_the_image_that_somebody_means(word: str, name: str) -> None:
    assert find_image(word, IMAGES) == name


@pytest.mark.parametrize('word, message', [
    ('el7', 'can be any of lab:el7:v1, other:el7:v1'),
    ('el7:v1', 'can be any of'), ('el7-nfs', 'can be any of'),
    ('nfs', 'is not in the store'), ('el7-nf', 'is not in the store'),
    ('', 'is not in the store'),
])
def test_an_image_that_nobody_can_tell(word: str, message: str) -> None:
    with pytest.raises(errors.TemplateNotFound) as caught:
        find_image(word, IMAGES)
    assert message in caught.value.message


@pytest.mark.parametrize('words, option', [
    (['--keep', '-1'], '--keep'), (['--older-than', '-1'], '--older-than'),
    (['--older-than', 'nan'], '--older-than'),
    (['--until-free', 'much'], '--until-free'),
])
def test_a_prune_that_has_no_sense(
    world: World, words: List[str], option: str
) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        world.run('prune', '--dry-run', *words)
    assert caught.value.message.startswith(f'{option}: ')


def test_an_empty_store(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run('store') == world.run('store', '--tree') == 0
    assert world.run('verify') == world.run('prune', '--dry-run') == 0
    assert '0 images' in capsys.readouterr().out
    for command in ('why', 'hold', 'release'):
        with pytest.raises(errors.TemplateNotFound):
            world.run(command, 'base')
    assert not os.path.exists(world.store.root)


# create.

def publish_options(*words: str) -> Any:
    return argparse.Namespace(**options_of('create', *words, '.'))


@pytest.mark.parametrize('words, faults', [
    (['--base', 'a'], ['--base a: expected IMAGE=BASE']),
    (['--base', '=a', '--base', 'a='], [
        '--base =a: expected IMAGE=BASE', '--base a=: expected IMAGE=BASE',
    ]),
    (['--valid-for', '9'], [
        '--valid-for: only a signed index expires; --sign']),
    (['--sign', 'k', '--valid-for', '0'], [
        '--valid-for: expected days, up to 36500']),
    (['--sign', 'k', '--valid-for', 'nan'], [
        '--valid-for: expected days, up to 36500']),
])
def test_options_of_create_that_cannot_be_read(
    words: List[str], faults: List[str]
) -> None:
    with pytest.raises(errors.PublishError) as caught:
        read_options(publish_options(*words))
    assert list(caught.value.faults) == faults


def test_options_of_create() -> None:
    found = read_options(publish_options(
        '--base', 'a=b:v1', '--base', 'c=d=e', '--compress', 'none',
        '--sign', 'k', '--valid-for', '30', '--mirror', 'm',
    ))
    assert found.bases == {'a': 'b:v1', 'c': 'd=e'}
    assert found.compression is None
    assert (found.key, found.valid_days, found.mirrors) == ('k', 30, ('m',))
    assert read_options(publish_options()).mirrors is None
