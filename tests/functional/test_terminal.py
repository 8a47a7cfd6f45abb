"""Every command with progress, on a terminal as a person sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.lab import DiskImage, LagoSandbox, Nginx, Publisher, require
from tests.lab.environments import lago_command
from tests.lab.images import flatten
from tests.lab.stand_ins import install
from tests.lab.terminal import CTRL_C, Terminal

Forest = Dict[str, DiskImage]

#: Bytes per second for a connection, so that there is something to see.
LINE_RATE = 4 << 20

SIZE = r'[\d.,]+/[\d.,?]+ (?:bytes|KiB|MiB)'


@pytest.fixture(scope='module')
def www(
    forest: Forest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """Serve the forest on a slow line."""
    root = tmp_path_factory.mktemp('terminal') / 'www'
    with Nginx(root, limit_rate=LINE_RATE) as server:
        repo = Publisher(root, base_url=f'{server.url}/', compression='gz')
        repo.add_forest(forest)
        repo.write()
        yield server


@pytest.fixture
def box(tmp_path: Path, www: Nginx) -> LagoSandbox:
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'iscsi', 'vm1': 'other'},
        repo=f'{www.url}/repo.metadata',
    )


@pytest.fixture(scope='module')
def full(
    www: Nginx, tmp_path_factory: pytest.TempPathFactory
) -> LagoSandbox:
    """Fill a store; what uses it changes nothing in it."""
    box = LagoSandbox(
        tmp_path_factory.mktemp('full') / 'box', {'vm0': 'iscsi'},
        repo=f'{www.url}/repo.metadata',
    )
    assert box.run('template-repo', 'pull', '--all').code == 0
    return box


@pytest.fixture
def busy() -> Iterator[None]:
    """Keep all processors busy with something else."""
    others = [
        subprocess.Popen([sys.executable, '-c', 'while True: pass'])
        for _ in range(os.cpu_count() or 1)
    ]
    yield
    for other in others:
        other.kill()
        other.wait()


def open_terminal(
    box: LagoSandbox, *arguments: str, columns: int = 80,
    term: str = 'xterm-256color', **environment: str,
) -> Terminal:
    """Run ``lago`` on a terminal."""
    return Terminal(
        [str(lago_command()), *arguments], cwd=box.root,
        environment={**box.environment(), **environment},
        columns=columns, lines=40, term=term,
    )


def watch(
    box: LagoSandbox, *arguments: str, columns: int, code: int = 0,
    **environment: str,
) -> Terminal:
    """Run ``lago`` to its end; look at all screens that a person saw."""
    with open_terminal(
        box, *arguments, columns=columns, **environment
    ) as terminal:
        assert terminal.wait() == code, terminal.text
        assert 'Traceback' not in terminal.text, terminal.text
        assert terminal.is_restored
        for screen in {*terminal.frames, terminal.text}:
            check_edges(screen, columns)
    return terminal


def check_edges(screen: str, columns: int) -> None:
    """Check that the edge cuts no word but those that fit in no line.

    Lago does not care how wide a terminal is.
    """
    lines = screen.split('\n')
    for line, following in zip(lines, lines[1:]):
        if len(line) == columns and not re.match(r' *[@#*~-] ', line):
            head = re.findall(r'\S*$', line)[0]
            tail = re.findall(r'^\S*', following)[0]
            assert not tail or '/' in head or len(head + tail) > columns, (
                f'{head}|{tail}\n{screen}'
            )


def uncut(screen: str, columns: int) -> str:
    """Return a screen with the lines in one piece that its edge cuts."""
    return re.sub(rf'(?m)^(.{{{columns}}})\n', r'\1', screen)


def sizes(terminal: Terminal, name: str) -> List[str]:
    """Return how far a layer was, on all screens with its bar."""
    found = []
    for screen in terminal.frames:
        found += re.findall(rf'(?m)^{name} .*?({SIZE})', screen)
    return found


COLUMNS = pytest.mark.parametrize('columns', [120, 80, 40])


@COLUMNS
def test_pull(columns: int, box: LagoSandbox) -> None:
    terminal = watch(box, 'template-repo', 'pull', columns=columns)
    assert sizes(terminal, 'base:v1')
    said = ' '.join(terminal.text.split())
    for name in ('base', 'nfs', 'iscsi', 'other'):
        assert said.count(f'{name}:v1: in the store') == 1, terminal.text
    # No bar is left behind.
    assert not re.search(SIZE, terminal.text), terminal.text
    assert len(box.stored()) == 4


@COLUMNS
def test_init(columns: int, box: LagoSandbox) -> None:
    terminal = watch(box, 'init', '--skip-bootstrap', columns=columns)
    assert sizes(terminal, 'base:v1')
    said = ' '.join(terminal.text.split())
    assert said.count('base:v1: in the store') == 1, terminal.text
    # This one is of Lago, which does not care for the edge.
    assert re.search(
        r'@ Initialize and populate prefix: Success \(in [\d:]+\)$',
        uncut(terminal.text, columns),
    ), terminal.text
    assert not re.search(SIZE, terminal.text), terminal.text


@COLUMNS
def test_verify(columns: int, full: LagoSandbox) -> None:
    terminal = watch(full, 'template-repo', 'verify', columns=columns)
    said = ' '.join(terminal.text.split())
    assert said.count('intact') == 5, terminal.text
    assert re.search(r'4 images: 4 intact; [\d.]+ MiB read in', said)


@COLUMNS
def test_create(columns: int, box: LagoSandbox, forest: Forest) -> None:
    images = box.root / 'images'
    images.mkdir()
    shutil.copy(forest['base'].path, images / 'base.qcow2')
    terminal = watch(
        box, 'template-repo', 'create', 'images', '--name', 'lab',
        '--version', 'v1', columns=columns,
    )
    said = ' '.join(terminal.text.split())
    assert said.count('base:v1: packed, ') == 1, terminal.text
    assert '1 image published, 0 unchanged;' in said
    assert not re.search(SIZE, terminal.text), terminal.text


@COLUMNS
def test_mirror(columns: int, box: LagoSandbox) -> None:
    terminal = watch(
        box, 'template-repo', 'mirror', box.repo, 'copy', columns=columns
    )
    assert sizes(terminal, 'base:v1')
    said = ' '.join(terminal.text.split())
    assert said.count('base:v1: copied, ') == 1, terminal.text
    assert '4 images copied (' in said
    assert not re.search(SIZE, terminal.text), terminal.text


@COLUMNS
def test_build(columns: int, box: LagoSandbox) -> None:
    require('qemu-img', 'qemu-io')
    tools = install(box.root / 'tools')
    specs = box.root / 'specs'
    specs.mkdir()
    (specs / 'base').write_text(
        '#base=libguestfs:tiny\n#distro=debian\npattern 1 0\n'
    )
    terminal = watch(
        box, 'template-repo', 'build', 'specs', 'out', '--name', 'lab',
        columns=columns, PATH=f'{tools}:{box.environment()["PATH"]}',
        STAND_IN_LOG=str(box.root / 'log'),
    )
    said = ' '.join(terminal.text.split())
    assert 'base: building, from' in said
    assert '1 image published, 0 unchanged;' in said


@COLUMNS
def test_prune(columns: int, full: LagoSandbox, tmp_path: Path) -> None:
    store = tmp_path / 'store'
    shutil.copytree(full.store, store)
    terminal = watch(
        full, 'template-repo', 'prune', '--template-store', str(store),
        columns=columns,
    )
    said = ' '.join(terminal.text.split())
    for name in ('base', 'nfs', 'iscsi', 'other'):
        assert said.count(f'lab:{name}:v1') == 1, terminal.text
    assert not list(store.glob('lab:*:v1'))


@COLUMNS
def test_add_layer_and_flatten(
    columns: int, full: LagoSandbox, forest: Forest, tmp_path: Path
) -> None:
    image = flatten(forest['nfs'].path, tmp_path / 'full.qcow2')
    layer = tmp_path / 'layer.qcow2'
    terminal = watch(
        full, 'template-repo', 'add-layer', 'base', str(image), '--output',
        str(layer), columns=columns,
    )
    assert 'a layer on ./base:v1' in ' '.join(terminal.text.split())
    assert layer.exists()
    flat = tmp_path / 'flat.qcow2'
    terminal = watch(
        full, 'template-repo', 'flatten', 'nfs', '--output', str(flat),
        columns=columns,
    )
    assert 'nfs:v1 without a base' in ' '.join(terminal.text.split())
    assert flat.exists()


@pytest.mark.quick
def test_a_dumb_terminal_has_lines(box: LagoSandbox) -> None:
    with open_terminal(
        box, 'template-repo', 'pull', term='dumb'
    ) as terminal:
        assert terminal.wait() == 0, terminal.text
    assert b'\x1b' not in terminal.raw
    assert 'base:v1: fetching 3.5 MiB\n' in terminal.text
    assert terminal.text.count('base:v1: in the store, ') == 1


def test_no_colours(box: LagoSandbox) -> None:
    box.init_data['domains']['vm0']['disks'][0]['template_version'] = 'v9'
    box.write()
    with open_terminal(
        box, 'init', '--skip-bootstrap', NO_COLOR='1'
    ) as terminal:
        assert terminal.wait() == 2, terminal.text
    assert b'\x1b[' not in terminal.raw
    with open_terminal(box, 'init', '--skip-bootstrap') as terminal:
        assert terminal.wait() == 2, terminal.text
    assert b'\x1b[31m' in terminal.raw


def test_no_colours_and_bars(box: LagoSandbox) -> None:
    with open_terminal(
        box, 'template-repo', 'pull', NO_COLOR='1'
    ) as terminal:
        assert terminal.wait() == 0, terminal.text
    assert sizes(terminal, 'base:v1')
    assert re.search(rb'\x1b\[[\d;]*m', terminal.raw) is None


def test_a_terminal_that_grows_and_shrinks(box: LagoSandbox) -> None:
    with open_terminal(box, 'template-repo', 'pull') as terminal:
        terminal.until(lambda: sizes(terminal, 'base:v1'), 'a bar is there')
        terminal.resize(100, 40)
        terminal.until(
            lambda: re.search(rf'(?m)^base:v1 .{{50,}}{SIZE}', '\n'.join(
                terminal.screen
            )), 'it is wider',
        )
        assert terminal.wait() == 0, terminal.text
        assert terminal.is_restored
    assert terminal.text.count('base:v1: in the store') == 1


@pytest.mark.parametrize('command', ['pull', 'init', 'mirror'])
def test_ctrl_c(command: str, box: LagoSandbox) -> None:
    words = {
        'pull': ['template-repo', 'pull'],
        'init': ['init', '--skip-bootstrap'],
        'mirror': ['template-repo', 'mirror', box.repo, 'copy'],
    }[command]
    with open_terminal(box, *words) as terminal:
        terminal.until(lambda: sizes(terminal, 'base:v1'), 'a bar is there')
        terminal.press(CTRL_C)
        assert terminal.wait() == 130, terminal.text
        assert terminal.is_restored
        last = [line for line in terminal.screen if line][-1]
        assert last == 'Stopped; what was fetched is kept.'
        assert 'Traceback' not in terminal.text
        assert not sizes_now(terminal), terminal.text


def sizes_now(terminal: Terminal) -> List[str]:
    return re.findall(SIZE, '\n'.join(terminal.screen))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_signals(number: signal.Signals, box: LagoSandbox) -> None:
    with open_terminal(box, 'template-repo', 'pull') as terminal:
        terminal.until(lambda: sizes(terminal, 'base:v1'), 'a bar is there')
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number, terminal.text
        assert terminal.is_restored
    said = f'Stopped by {number.name}; what was fetched is kept.'
    assert terminal.text.endswith(said), terminal.text


def test_many_pulls_while_all_processors_are_busy(
    box: LagoSandbox, busy: None
) -> None:
    """The order of what connections bring is another one each time."""
    for _ in range(3):
        shutil.rmtree(box.store, ignore_errors=True)
        with open_terminal(box, 'template-repo', 'pull') as terminal:
            assert terminal.wait() == 0, terminal.text
        assert terminal.text.count(': in the store, ') == 4
        assert 'cannot be shown' not in terminal.text
