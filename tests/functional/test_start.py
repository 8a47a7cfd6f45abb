"""Every command once as a user starts it: Python, its imports, the plugin."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.lab import DiskImage, Finished, LagoSandbox, Publisher, flatten
from tests.lab.starting import fork_is_wanted
from tests.lab.tool import Tool

pytestmark = pytest.mark.real_start

#: The commands in an order in which each finds what it needs.
USES = '''
list
show nfs
plan
pull other
store
why nfs
verify
hold other
release other
lock
outdated
prune --dry-run
add {repo} office
update
remove office
'''
PUBLISHES = '''
create images --name lab --version v1
index --virt-builder images
lint images
mirror images/repo.metadata copy
flatten nfs --repo images/repo.metadata --output flat.qcow2
add-layer base.qcow2 full.qcow2 --output layer.qcow2
'''


def words_of(text: str) -> List[List[str]]:
    return [line.split() for line in text.strip().splitlines()]


def test_lago(forest: Dict[str, DiskImage], tmp_path: Path) -> None:
    assert not fork_is_wanted()
    repo = Publisher(tmp_path / 'www', source='file')
    repo.add_forest(forest)
    repo.write()
    box = LagoSandbox(tmp_path, {'vm0': 'nfs'}, repo=repo.index_path)

    def run(*words: str) -> Finished:
        done = box.run(*words)
        assert done.code == 0, done.output
        assert 'Traceback' not in done.output
        return done

    run('init', '--skip-bootstrap')
    run('status')
    for words in words_of(USES):
        run('template-repo', *(
            word.format(repo=repo.index_path) for word in words
        ))
    run('destroy', '-y')
    run('init', '--skip-bootstrap', '--locked', '--offline')


def test_without_lago(
    forest: Dict[str, DiskImage], tmp_path: Path
) -> None:
    tool = Tool(tmp_path)
    images = tmp_path / 'images'
    images.mkdir()
    for disk in forest.values():
        shutil.copy(disk.path, images)
    shutil.copy(forest['base'].path, tmp_path / 'base.qcow2')
    flatten(forest['nfs'].path, tmp_path / 'full.qcow2')
    for words in words_of(PUBLISHES):
        tool.run(*words)
    (tmp_path / 'specs').mkdir()
    assert 'specs' in tool.fail('build', 'specs', 'out', '--name', 'lab')


@pytest.mark.parametrize('command', [
    ['lago', 'template-repo'], [sys.executable, '-m', 'lago_layered_provider'],
])
def test_none_is_forgotten(command: List[str]) -> None:
    """The commands above are all that there are."""
    told = subprocess.run(
        [*command, '--help'], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    names = set(re.findall('^    ([a-z-]+)(?: |$)', told, re.M))
    publishing = {words[0] for words in words_of(PUBLISHES)} | {'build'}
    using = {words[0] for words in words_of(USES)}
    assert names == publishing | (using if command[0] == 'lago' else set())
