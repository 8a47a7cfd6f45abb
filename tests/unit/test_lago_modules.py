"""What is put around Lago's functions, on objects that stand for Lago's."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import lago.utils
import pytest
from lago import log_utils

from lago_layered_provider.core import errors, initfile
from lago_layered_provider.plugin import (
    context, hooks, init, messages, prefix_notes, repair_log,
)
from lago_layered_provider.plugin.repair_tools import (
    StandIn, as_text, mentions,
)
from lago_layered_provider.report.screen import Standard


# Errors.

@pytest.mark.parametrize('error, kind', [
    (errors.TemplateNotFound('text'), lago.utils.LagoUserException),
    (errors.IndexFaults('file', ['text']), lago.utils.LagoUserException),
    (errors.StoreError('text'), lago.utils.LagoException),
    (MemoryError(), lago.utils.LagoException),
])
def test_errors_are_lagos(error: Exception, kind: type) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind) as caught:
        messages.as_lago_errors(fail)()
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_no_password_is_told() -> None:
    def fail() -> None:
        raise errors.StoreError('http://me:secret@host/index')

    with pytest.raises(lago.utils.LagoException) as caught:
        messages.as_lago_errors(fail)()
    assert 'host' in str(caught.value) and 'secret' not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        messages.as_lago_errors(lambda: 1 // 0)()


def test_a_warning_is_one_line_that_lago_shows(
    caplog: pytest.LogCaptureFixture
) -> None:
    messages.warn('one\n  two')
    messages.warn('http://me:secret@host/')
    one, other = caplog.records
    assert one.levelno == logging.WARNING
    assert one.getMessage() == log_utils.log_always('one two')
    assert 'secret' not in other.getMessage()


# The command line.

def test_a_verb_runs_in_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    def do_run(*_: Any) -> None:
        assert isinstance(sys.stdout, Standard)
        print('a\x1b[2J')
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        hooks.in_session(do_run)(None)
    assert end.value.code == 130
    shown = capsys.readouterr()
    assert shown.out == 'a\\x1b[2J\n'
    assert shown.err == 'Stopped; what was fetched is kept.\n'


def test_what_argparse_says_is_escaped(
    capsys: pytest.CaptureFixture[str]
) -> None:
    parser = hooks.guard_parser(argparse.ArgumentParser)()
    with pytest.raises(SystemExit) as end:
        parser.parse_args(['--a\x1b[2J'])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert '\\x1b[2J' in error and '\x1b' not in error
    assert not isinstance(sys.stderr, Standard)


# A prefix.

class Prefix:
    """What the wrappers touch of Lago's."""

    def __init__(self, path: Path, **metadata: Any) -> None:
        path.mkdir(exist_ok=True)
        self.metadata: Dict[str, Any] = metadata
        self.paths = SimpleNamespace(prefix_path=lambda: str(path))


@pytest.mark.parametrize('error', [
    ValueError(), KeyboardInterrupt(), SystemExit(143),
])
def test_no_half_prefix_is_left(tmp_path: Path, error: BaseException) -> None:
    prefix = Prefix(tmp_path / 'prefix')

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        hooks.leave_no_half_prefix(fail)(prefix, io.StringIO())
    assert not (tmp_path / 'prefix').exists()


def test_a_whole_prefix_knows_its_init_file(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path / 'prefix')
    path = tmp_path / 'LagoInitFile'
    path.touch()
    with open(path) as stream:
        done = hooks.leave_no_half_prefix(lambda *_, **__: 'done')(
            prefix, stream, do_bootstrap=False
        )
    assert done == 'done' and (tmp_path / 'prefix').is_dir()
    assert getattr(prefix, prefix_notes.INIT_FILE) == str(path)
    assert getattr(prefix, prefix_notes.TASKS) == (False, True)


def test_an_init_file_is_loaded_by_us() -> None:
    def load(_: Any) -> Any:
        raise AssertionError

    wrapped = hooks.load_init_file(load)
    assert wrapped(io.StringIO('{a: {template_version: 1.10}}')) == {
        'a': {'template_version': '1.10'}
    }
    with pytest.raises(lago.utils.LagoUserException, match='LagoInitFile'):
        wrapped(io.StringIO('{'))


@pytest.mark.parametrize('entries', [[], [{'name': 'lab'}]])
def test_an_exported_init_file_names_repositories(
    tmp_path: Path, entries: List[Any]
) -> None:
    prefix = Prefix(tmp_path, **{initfile.REPOSITORIES: entries})
    spec = hooks.with_repositories(lambda _: {'domains': {}})(
        SimpleNamespace(prefix=prefix)
    )
    assert spec.get(initfile.REPOSITORIES, []) == entries


@pytest.mark.parametrize('noted, told', [
    (None, []),
    ({'prefix': 'here', 'store': '/store'}, []),
    ({'prefix': '/elsewhere', 'store': '/store'}, ['/store']),
])
def test_the_store_is_told_of_a_move(
    tmp_path: Path, noted: Any, told: List[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if noted and noted['prefix'] == 'here':
        noted['prefix'] = str(tmp_path)
    moved: List[str] = []
    monkeypatch.setattr(
        init, 'note_move', lambda _, root: moved.append(root)
    )
    prefix = Prefix(tmp_path, **{prefix_notes.NOTED: noted})
    assert hooks.notice_move(lambda *_: 'env')(prefix) == 'env'
    assert moved == told


# Where a command looks.

@pytest.mark.parametrize('words, here, path', [
    ({'repo': ['r'], 'init_file': None}, True, 'given'),
    ({'repo': None, 'init_file': None}, True, 'LagoInitFile'),
    ({'repo': None, 'init_file': None}, False, None),
    ({'repo': None, 'init_file': 'Other'}, True, 'Other'),
    ({'repo': ['r'], 'init_file': 'Other'}, True, 'Other'),
    ({}, True, 'LagoInitFile'),
])
def test_where_repositories_come_from(
    words: Dict[str, Any], here: bool, path: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('Other', *(['LagoInitFile'] if here else [])):
        (tmp_path / name).write_text('{"domains": {}}')
    monkeypatch.setattr(
        init, 'find_repositories', lambda conf, given, path: path
    )
    given: Any = 'given'
    found: Any = context._find_repository(
        argparse.Namespace(**words), given
    )
    assert found == path


def test_an_init_file_that_cannot_be_read() -> None:
    with pytest.raises(errors.IndexFaults, match='cannot be read') as caught:
        context._load('/nowhere/LagoInitFile')
    assert caught.value.hint == 'Name an init file or templates.'


# The log.

def record(text: str, *args: Any) -> logging.LogRecord:
    return logging.LogRecord('a', logging.INFO, 'f', 1, text, args, None)


def test_records_are_escaped_with_their_arguments_and_traces() -> None:
    found = record('%s\x1b[2J', 'b\x9bc')
    try:
        raise ValueError('d\x07e')
    except ValueError:
        found.exc_info = sys.exc_info()
    repair_log._escape(found)
    assert found.getMessage() == 'b\\x9bc\\x1b[2J'
    assert found.exc_text and 'd\\x07e' in found.exc_text
    repair_log._escape(found)
    assert found.getMessage() == 'b\\x9bc\\x1b[2J'


@pytest.mark.parametrize('terminal, env, coloured', [
    (True, {}, True), (False, {}, False), (True, {'NO_COLOR': '1'}, False),
    (True, {'NO_COLOR': ''}, True), (True, {'TERM': 'dumb'}, False),
])
def test_the_log_has_colours_only_where_they_are_wanted(
    terminal: bool, env: Dict[str, str], coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Formatter:
        RED = '\x1b[31m'
        NAME = 'name'

    monkeypatch.setattr(log_utils, 'ColorFormatter', Formatter)
    monkeypatch.setattr(sys, 'stderr', SimpleNamespace(
        isatty=lambda: terminal
    ))
    for name, value in {'NO_COLOR': '', 'TERM': 'xterm', **env}.items():
        monkeypatch.setenv(name, value)
    assert repair_log.log_colours() is not coloured
    assert Formatter.RED == ('\x1b[31m' if coloured else '')
    assert Formatter.NAME == 'name'


# Means of the repairs.

def test_a_stand_in_has_its_own_names_and_those_of_the_real_one() -> None:
    found = StandIn(io, StringIO='mine')
    assert (found.StringIO, found.BytesIO) == ('mine', io.BytesIO)
    assert io.StringIO is not found.StringIO
    with pytest.raises(AttributeError):
        found.nothing


def test_what_the_code_of_a_function_mentions() -> None:
    def function(path: Any) -> Any:
        return path.open(mode='rb').read(size=1)

    assert mentions(function, 'open', 'rb', 'mode')
    assert not mentions(function, 'open', 'write')


@pytest.mark.parametrize('value, expected', [
    (b'a', 'a'), ('a', 'a'), (None, None),
])
def test_bytes_become_text(value: object, expected: object) -> None:
    assert as_text(lambda: value)() == expected
