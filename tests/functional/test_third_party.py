"""Another package adds a type of source; a type nobody has is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.lab import (
    DiskImage, LagoSandbox, Publisher, check_disks, init_well, links_of, run,
)

SETUP_CFG = '''
[metadata]
name = lago-drawer
version = 1.0
[options]
py_modules = lago_drawer
[options.entry_points]
lago.plugins.template_provider =
    drawer = lago_drawer:DrawerProvider
'''

# All that a source must offer; written against the documented protocol only.
MODULE = '''
"""Images in drawers: the first letter of a name is its directory."""
import io
import os
from collections import namedtuple

from lago_layered_provider.core.errors import TransferError

Info = namedtuple('Info', 'size validator')


class Stream:
    validator = None

    def __init__(self, path, start, end):
        self.total = os.path.getsize(path)
        self.start = start
        self._file = open(path, 'rb')
        self._file.seek(start)
        self._left = (self.total if end is None else end) - start

    def read(self, size):
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def abort(self):
        self._left = 0

    def close(self):
        self._file.close()


class DrawerProvider:
    def __init__(self, cupboard):
        self._cupboard = cupboard

    def locate(self, path):
        return 'drawer:' + self._path(path)

    def stat(self, path):
        self._check(path)
        return Info(os.path.getsize(self._path(path)), None)

    def open(self, path, *, start=0, end=None, validator=None):
        self._check(path)
        return Stream(self._path(path), start, end)

    def _path(self, path):
        return os.path.join(self._cupboard, path[0], path)

    def _check(self, path):
        if not os.path.exists(self._path(path)):
            raise TransferError(self.locate(path), 'no such thing',
                                status=404)
'''


def install_drawer(directory: Path) -> Path:
    """Install the package into a directory of its own; return that."""
    source = directory / 'source'
    source.mkdir(parents=True)
    (source / 'setup.py').write_text('import setuptools; setuptools.setup()')
    (source / 'setup.cfg').write_text(SETUP_CFG)
    (source / 'lago_drawer.py').write_text(MODULE)
    site = directory / 'site'
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index',
        '--disable-pip-version-check', '--no-deps', '--no-build-isolation',
        '--target', site, source)
    return site


def fill_drawers(repo: Publisher, cupboard: Path) -> None:
    """Move the published files to where the type ``drawer`` has them."""
    for path in list(repo.root.iterdir()):
        if path != repo.index_path:
            drawer = cupboard / path.name[0]
            drawer.mkdir(parents=True, exist_ok=True)
            path.rename(drawer / path.name)


def publish(
    root: Path, forest: Dict[str, DiskImage], dialect: str
) -> LagoSandbox:
    """Publish in drawers; return an environment of two VMs on it."""
    repo = Publisher(root / 'www', dialect=dialect)
    repo.add_forest(forest)
    repo.edit(lambda index: index['sources']['lab'].update(
        type='drawer', args={'cupboard': str(root / 'cupboard')}
    ))
    repo.write()
    fill_drawers(repo, root / 'cupboard')
    return LagoSandbox(
        root / 'box', {'vm0': 'iscsi', 'vm1': 'other'}, repo=repo.index_path
    )


def test_a_package_adds_a_type_of_source(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    # The dialect with sidecars: everything is asked of the new type.
    box = publish(tmp_path, forest, 'images-head')
    site = install_drawer(tmp_path / 'package')
    others: List[str] = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    box.extra_env['PYTHONPATH'] = os.pathsep.join([str(site), *others])
    init_well(box)
    check_disks(box, forest, vm0='iscsi', vm1='other')
    assert links_of(box.disk('vm0')) == [
        (f'lab:{name}:v1', 'qcow2') for name in ('iscsi', 'nfs', 'base')
    ]


@pytest.mark.quick
def test_an_unknown_type_is_named_with_those_there_are(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    box = publish(tmp_path, forest, 'extended')
    done = box.init()
    assert done.code == 2, done.output
    assert 'Traceback' not in done.output
    message = ' '.join(done.output.split())
    assert "Unknown source type 'drawer'" in message
    assert 'file, http' in message
    assert box.stored() == []
    assert not (box.workdir / 'default').exists()
