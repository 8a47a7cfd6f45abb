"""The import directions and sizes that the design lays down."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Tuple

import pytest

import lago_layered_provider

PACKAGE = 'lago_layered_provider'
ROOT = Path(lago_layered_provider.__file__).parent

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 45
MAX_PARTS = 3  # the package, one of its packages, a module
POOR_NAMES = {'utils', 'util', 'base', 'helpers', 'common', 'misc'}

#: The part of the standard library that touches nothing outside itself.
PURE = frozenset({
    '__future__', 'abc', 'base64', 'binascii', 'bisect', 'collections',
    'contextlib', 'copy', 'dataclasses', 'difflib', 'enum', 'functools',
    'hashlib', 'heapq', 'itertools', 'json', 'math', 'operator', 'posixpath',
    're', 'reprlib', 'string', 'struct', 'textwrap', 'types', 'typing', 'zlib',
})
#: Built-in functions that the core does without.
IMPURE_BUILTINS = {
    'open', 'print', 'input', 'exec', 'eval', '__import__', 'breakpoint',
}

#: The floors of the house, from the ground up. A room imports what is on a
#: floor below its own, and itself; neighbours do not know each other.
FLOORS: Tuple[FrozenSet[str], ...] = tuple(map(frozenset, (
    {'core'},
    {'formats', 'index', 'settings'},
    {'tools'},
    {'store'},
    {'transfer'},
    {'providers'},
    {'repositories'},
    {'environments', 'lint'},
    {'publishing', 'report'},
    {'commands'},
    {'plugin', '__main__'},
    {'lago_plugin'},
    {'sdk'},
)))

#: The rooms that have no effect on anything.
PURE_ROOMS = {'core', 'formats', 'index'}

#: The modules beside the rooms.
MAX_AT_THE_ROOT = 6

#: What reaches a terminal past `screen` and `report.Screen`, and who may.
PAST_THE_SCREEN: Dict[str, FrozenSet[str]] = {
    r'\bConsole\(': frozenset(),
    r'\bScreen\(': frozenset({'report'}),
    r'\.beneath\b': frozenset({'report'}),
    r'\.file\.write\b': frozenset({'report'}),
    r'sys\.(__)?std(out|err)(__)?\.(buffer|write)': frozenset(),
}

#: Who may import what others must not.
ONLY: Dict[str, Tuple[str, ...]] = {
    'lago': ('plugin', 'lago_plugin', 'sdk'),
    'requests': ('providers',),
    'urllib3': ('providers',),
    'http': ('providers',),
    'urllib': ('providers',),
    'socket': ('providers',),
    'subprocess': ('tools',),
    'multiprocessing': (),
    'asyncio': (),
}

#: Calls that open, by the parts that may make them.
OPENING = {
    'open', 'os.open', 'os.fdopen', 'io.open', 'io.FileIO', 'io.open_code',
    'tempfile.mkstemp', 'tempfile.TemporaryFile',
    'tempfile.NamedTemporaryFile', 'os.mkfifo', 'os.truncate',
}
#: Calls that follow links on the way; the store's go through its tree.
BY_PATH = {
    f'os.{name}' for name in (
        'stat', 'lstat', 'unlink', 'remove', 'rename', 'replace', 'listdir',
        'scandir', 'walk', 'mkdir', 'makedirs', 'rmdir', 'chmod', 'chown',
        'access', 'link', 'symlink', 'utime', 'readlink', 'path.exists',
        'path.lexists', 'path.isfile', 'path.isdir', 'path.getsize',
    )
}
PATHLIB = {
    'read_text', 'read_bytes', 'write_text', 'write_bytes', 'touch',
}


def modules() -> List[Path]:
    return sorted(ROOT.rglob('*.py'))


def part_of(module: str) -> str:
    """Return 'core' for 'lago_layered_provider.core.model'."""
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else ''


def name_of(path: Path) -> str:
    parts = (PACKAGE,) + path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts)


def imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield the full names of all modules that a module imports, anywhere."""
    # A package's own module counts like any other inside it.
    package = module.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1]
            start = above if node.level else []
            start = start + (node.module.split('.') if node.module else [])
            yield from ('.'.join(start + [a.name]) for a in node.names)
        elif isinstance(node, ast.Call):
            yield from _imported_by_call(node)


def _imported_by_call(node: ast.Call) -> Iterator[str]:
    function = node.func
    name = getattr(function, 'attr', getattr(function, 'id', ''))
    if name in ('import_module', '__import__') and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def floor_of(part: str) -> int:
    """Return the floor that a part lies on; what is new has to have one."""
    return next(
        number for number, parts in enumerate(FLOORS) if part in parts
    )


def may_import(part: str, name: str) -> bool:
    """Tell whether a part may import a module of this package."""
    other = part_of(name)
    if other == part or other in ('__version__', '__init__', ''):
        return True
    if part == '__init__':
        return False
    return floor_of(other) < floor_of(part)


def import_faults(source: str, module: str) -> List[str]:
    """Return what a module imports and must not."""
    part = part_of(module)
    tree = ast.parse(source)
    faults = []
    for name in imported(tree, module):
        top = name.split('.')[0]
        if top == PACKAGE:
            allowed = may_import(part, name)
        elif part in PURE_ROOMS:
            allowed = top in PURE
        else:
            allowed = top not in ONLY or part in ONLY[top]
        if not allowed:
            faults.append(f'{module} imports {name}')
    if part in PURE_ROOMS:
        faults.extend(
            f'{module}:{node.lineno} calls {node.func.id}'
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_BUILTINS
        )
    return faults


def ways_past_the_screen(source: str, module: str) -> List[str]:
    """Return where a module writes to a terminal by a way of its own."""
    return [
        pattern for pattern, allowed in PAST_THE_SCREEN.items()
        if re.search(rf'(?m)^(?!class ).*{pattern}', source)
        and part_of(module) not in allowed
    ]


def long_functions(source: str) -> List[str]:
    """Return the functions that are too long to be read at once."""
    return [
        f'{node.name} has {node.end_lineno - node.lineno + 1} lines'
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]


def opening_calls(source: str) -> Iterator[str]:
    """Yield what is called or imported in a way that opens files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if node.args and ast.unparse(node.args[0]) == 'os.devnull':
                continue
            yield name
            if name.rpartition('.')[2] in PATHLIB and '.' in name:
                yield 'open'
        elif isinstance(node, ast.Import):
            yield from (f'import {alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f'{node.module}.{alias.name}' for alias in node.names
                if node.module in ('os', 'io', 'tempfile')
            )
            yield f'import {node.module}'


def open_faults(source: str, part: str) -> List[str]:
    """Return what opens a file, or goes to one by its path."""
    forbidden = {*OPENING, 'import fcntl'}
    if part == 'tools':
        return []
    if part == 'store':
        forbidden |= {*BY_PATH, 'import shutil', 'import pathlib'}
    return sorted(forbidden & {*opening_calls(source)})


@pytest.mark.parametrize('path', modules(), ids=name_of)
def test_imports(path: Path) -> None:
    assert not import_faults(path.read_text(), name_of(path))


@pytest.mark.parametrize('path', modules(), ids=name_of)
def test_sizes(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    assert not long_functions(source)


@pytest.mark.parametrize('path', modules(), ids=name_of)
def test_places(path: Path) -> None:
    parts = name_of(path).split('.')
    assert len(parts) <= MAX_PARTS
    assert parts[-1] not in POOR_NAMES
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize('path', modules(), ids=name_of)
def test_the_way_to_a_terminal(path: Path) -> None:
    assert not ways_past_the_screen(path.read_text(), name_of(path))


@pytest.mark.parametrize('line', [
    'console = Console(file=stream)', 'sys.stdout.write(text)',
    'console.file.write(text)', 'print(text, file=stream.beneath)',
])
def test_ways_past_the_screen_are_found(line: str) -> None:
    assert ways_past_the_screen(line, f'{PACKAGE}.commands.x')


def test_all_modules_are_seen() -> None:
    seen = {name_of(path) for path in modules()}
    assert f'{PACKAGE}.core.model' in seen
    assert f'{PACKAGE}.settings' in seen


def test_little_lies_beside_the_rooms() -> None:
    beside = [path for path in ROOT.glob('*.py')]
    assert len(beside) <= MAX_AT_THE_ROOT
    rooms = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert rooms | {path.stem for path in beside} == (
        frozenset().union(*FLOORS) | {'__init__'}
    )


def test_nothing_leads_back() -> None:
    """No module needs, over others, itself; what is lazy counts as well."""
    names = {name_of(path) for path in modules()}
    needs = {
        name_of(path): {
            found if found in names else found.rpartition('.')[0]
            for found in imported(
                ast.parse(path.read_text()), name_of(path)
            )
        } & names for path in modules()
    }
    while needs:
        free = [name for name, others in needs.items() if not others]
        assert free, f'in a circle: {sorted(needs)}'
        for name in free:
            del needs[name]
        for others in needs.values():
            others.difference_update(free)


@pytest.mark.parametrize('module, source', [
    ('core.x', 'import os'),
    ('core.x', 'import threading'),
    ('formats.x', 'from logging import getLogger'),
    ('index.x', 'from time import monotonic'),
    ('core.x', 'import yaml'),
    ('core.x', 'from .. import settings'),
    ('core.x', 'from ..store import layout'),
    ('core.x', 'from ..index import entry'),
    ('core.x', 'def f():\n    from lago import utils'),
    ('core.x', 'def f():\n    return open("x")'),
    ('core.x', 'import importlib'),
    ('core.__init__', 'from ..transfer import ports'),
    ('formats.x', 'from ..index import entry'),
    ('index.x', 'from ..formats import xz'),
    ('tools.x', 'from ..store import layout'),
    ('repositories.x', 'import lago'),
    ('repositories.x', 'import lago.templates'),
    ('commands.x', 'import importlib\nimportlib.import_module("lago.utils")'),
    ('environments.x', 'import lago'),
    ('environments.x', 'from ..report import console'),
    ('environments.x', 'from ..lint import findings'),
    ('lint.x', 'from ..publishing import layout'),
    ('report.x', 'from ..publishing import layout'),
    ('commands.x', 'from ..plugin import context'),
    ('plugin.x', 'from .. import lago_plugin'),
    ('store.x', 'from subprocess import run'),
    ('store.x', 'from ..transfer import ports'),
    ('transfer.x', 'from ..providers import http'),
    ('transfer.x', 'from lago_layered_provider.providers import http'),
    ('transfer.x', 'import requests'),
    ('repositories.x', 'import requests.adapters'),
    ('providers.x', 'from ..repositories import where'),
    ('providers.x', 'from ..repositories.where import ByPath'),
    ('settings', 'from .tools import files'),
    ('__init__', 'from . import settings'),
])
def test_what_must_not_be_imported_is_found(module: str, source: str) -> None:
    assert import_faults(source, f'{PACKAGE}.{module}')


@pytest.mark.parametrize('module, source', [
    ('core.x', 'from __future__ import annotations\nimport json, re'),
    ('core.x', 'from . import model\nfrom .model import Image'),
    ('core.__init__', 'from .model import Image'),
    ('index.x', 'from ..core import model'),
    ('store.x', 'import os\nfrom ..core import model\nfrom . import layout'),
    ('providers.http', 'import requests\nfrom .. import __version__'),
    ('providers.http', 'from ..transfer.ports import FileInfo'),
    ('tools.x', 'import subprocess\nfrom ..core.errors import ToolError'),
    ('commands.x', 'from ..store import layout\nfrom . import context'),
    ('lago_plugin', 'import lago\nfrom .plugin import config'),
    ('plugin.x', 'from lago import utils'),
    ('sdk', 'import lago\nfrom . import lago_plugin'),
])
def test_what_may_be_imported_passes(module: str, source: str) -> None:
    assert not import_faults(source, f'{PACKAGE}.{module}')


def test_a_long_function_is_found() -> None:
    body = '    pass\n' * MAX_FUNCTION_LINES
    assert long_functions(f'class A:\n  def f():\n{body}') == [
        f'f has {MAX_FUNCTION_LINES + 1} lines'
    ]
    assert not long_functions(f'def f():\n{body[9:]}')


def test_the_lists_name_what_there_is() -> None:
    """A misspelt name in a list above would forbid or allow nothing."""
    assert IMPURE_BUILTINS <= set(dir(builtins))
    known = getattr(sys, 'stdlib_module_names', PURE)  # Python 3.10
    assert PURE <= set(known)


@pytest.mark.parametrize('path', modules(), ids=name_of)
def test_only_one_place_opens_files(path: Path) -> None:
    assert not open_faults(path.read_text(), part_of(name_of(path)))


@pytest.mark.parametrize('part, source', [
    ('store', 'import os\nos.open("x", 0)'),
    ('store', 'with open("x") as f: pass'),
    ('store', 'import os\nos.replace("a", "b")'),
    ('store', 'import os\nos.path.exists("a")'),
    ('publishing', 'import fcntl'),
    ('commands', 'from os import fdopen'),
    ('commands', 'Path("x").write_bytes(b"")'),
])
def test_who_else_opens_files_is_found(part: str, source: str) -> None:
    assert open_faults(source, part)
