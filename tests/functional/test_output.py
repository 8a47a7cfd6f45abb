"""What commands write where: text only, and an end as callers expect."""

from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.lab import DiskImage, Finished, LagoSandbox, Publisher
from tests.lab.environments import lago_command
from tests.lab.faults import Fault
from tests.lab.rude_server import RudeServer
from tests.lab.running import until
from tests.lab.terminal import CTRL_C, Terminal
from tests.lab.tool import Tool

Forest = Dict[str, DiskImage]

#: Sets the title of a terminal, and clears it.
HOSTILE = '\x1b]0;title\x07\x9b2J'

#: What a terminal obeys.
OBEYED = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]')


class Hostile(socketserver.StreamRequestHandler):
    """Answers with a phrase of its own."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(
            f'HTTP/1.1 499 gone{HOSTILE}\r\nContent-Length: 0\r\n'
            'Connection: close\r\n\r\n'.encode('latin-1')
        )


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the phrase."""
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()


@pytest.fixture
def box(forest: Forest, tmp_path: Path) -> LagoSandbox:
    """Return an environment whose index says more than it should."""
    repo = Publisher(tmp_path / 'www', source='file')
    repo.add(forest['base'].path, 'base', metadata={
        'distro': f'debian{HOSTILE}', 'arch': '\u202ex86_64',
    })
    path = repo.write()
    index = json.loads(path.read_text())
    versions = index['templates']['base']['versions']
    versions['v2'] = {**versions['v1'], 'handle': f'a{HOSTILE}'}
    versions['v3'] = {**versions['v1'], 'base': f'none{HOSTILE}'}
    versions[f'v{HOSTILE}'] = versions['v1']
    index['templates'][f'odd{HOSTILE}'] = {'versions': {}}
    path.write_text(json.dumps(index))
    return LagoSandbox(tmp_path / 'box', {'vm0': 'base'}, repo=path)


def check_text(done: Finished) -> None:
    assert not OBEYED.search(done.output), repr(done.output)
    assert 'Traceback' not in done.output, done.output


@pytest.mark.parametrize('words, code', [
    (['list'], 0),
    (['list', '--tree'], 0),
    (['show', 'base:v1'], 0),
    (['show', 'base:v2'], 2),
    (['plan', 'base:v3'], 2),
    (['pull', f'base{HOSTILE}'], 2),
    (['why', f'base{HOSTILE}'], 2),
    (['hold', f'base{HOSTILE}'], 2),
    (['verify', f'base{HOSTILE}'], 2),
    (['show', 'base', f'--of{HOSTILE}'], 2),
    ([f'nothing{HOSTILE}'], 2),
    (['list', '--repo', f'/nowhere/{HOSTILE}'], 2),
])
def test_nothing_but_text(
    words: List[str], code: int, box: LagoSandbox
) -> None:
    done = box.run('template-repo', *words)
    assert done.code == code, done.output
    check_text(done)


def test_phrases_of_servers(box: LagoSandbox, address: str) -> None:
    for arguments in (
        ['template-repo', 'list', '--repo', f'{address}/repo.metadata'],
        ['init', '--skip-bootstrap', '--template-repo-path',
         f'{address}/repo.metadata'],
    ):
        done = box.run(*arguments)
        assert done.code == 2, done.output
        assert '499' in done.stderr
        check_text(done)


def test_other_formats(box: LagoSandbox) -> None:
    done = box.run('--out-format', 'json', 'template-repo', 'show', 'base:v1')
    check_text(done)
    assert json.loads(done.stdout)['metadata']['distro'] == f'debian{HOSTILE}'
    done = box.run('-f', 'yaml', 'template-repo', 'show', 'base:v1')
    check_text(done)


def shell(box: LagoSandbox, line: str) -> Finished:
    """Run a line of bash; $LAGO is ours, and tells its status at the end."""
    done = subprocess.run(
        ['bash', '-c', line], cwd=box.root, capture_output=True, timeout=300,
        env={**box.environment(), 'LAGO': f'{lago_command()} template-repo'},
        encoding='utf-8', check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize('line', [
    '$LAGO list | true; exit ${PIPESTATUS[0]}',
    '${LAGO/template-repo/-f json template-repo} list | true; '
    'exit ${PIPESTATUS[0]}',
    '$LAGO --help | true; exit ${PIPESTATUS[0]}',
    '$LAGO plan 2>&1 base:v1 | true; exit ${PIPESTATUS[0]}',
])
def test_a_pipe_that_nobody_reads(line: str, box: LagoSandbox) -> None:
    done = shell(box, line)
    if done.code == 0:
        # Who reads was slow to go: nothing was closed, warnings follow.
        assert done.stdout == ''
        for warning in done.stderr.splitlines():
            assert warning.startswith(f'{box.repo}: base:'), done.output
        return
    assert done.code == 128 + signal.SIGPIPE, done.output
    assert done.output == ''


def test_a_pipe_whose_reader_goes(box: LagoSandbox) -> None:
    path = Path(box.repo)
    index = json.loads(path.read_text())
    versions = index['templates']['base']['versions']
    # More than a pipe holds: the end is only written to one who reads.
    for number in range(4000):
        versions[f'v1.{number}'] = versions['v1']
    path.write_text(json.dumps(index))
    done = shell(box, '$LAGO list | head -c 1 > one; exit ${PIPESTATUS[0]}')
    assert done.code == 128 + signal.SIGPIPE, done.output
    assert done.output == ''
    assert (box.root / 'one').stat().st_size == 1


@pytest.mark.quick
def test_a_pipe_that_is_closed_before(box: LagoSandbox) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = box.popen('template-repo', 'list', stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=300)[1] == ''
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize('line', [
    '$LAGO list > /dev/full',
    '${LAGO/template-repo/-f json template-repo} list > /dev/full',
    'python -m lago_layered_provider lint $REPO > /dev/full',
])
def test_a_full_device(line: str, box: LagoSandbox) -> None:
    box.extra_env['REPO'] = str(Path(box.repo).parent)
    done = shell(box, line)
    assert done.code == 2, done.output
    assert re.fullmatch(
        r'(?:.*: )?Cannot write to standard output: No space left on '
        r'device\n', done.stderr,
    ), done.stderr


def test_closed_streams(box: LagoSandbox) -> None:
    assert shell(box, '$LAGO list >&- 2>&-').code == 0


@pytest.mark.parametrize('line', [
    '$LAGO plan base:v1 --template-store store',
    '$LAGO pull base:v1 --template-store store',
    '$LAGO pull',
    '$LAGO create images --name lab',
    'python -m lago_layered_provider create images --name lab',
    'lago init --skip-bootstrap',
])
def test_a_directory_that_was_removed(line: str, box: LagoSandbox) -> None:
    done = shell(box, f'mkdir gone; cd gone; rmdir ../gone; {line}')
    assert done.code == 2, done.output
    check_text(done)
    assert len(done.stderr.splitlines()) <= 4, done.stderr


@pytest.mark.real_start
@pytest.mark.parametrize('number', [
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP
])
def test_signals_without_lago(
    number: signal.Signals, forest: Forest, tmp_path: Path
) -> None:
    repo = Publisher(tmp_path / 'www', compression='gz')
    repo.add(forest['base'].path, 'base')
    with RudeServer(repo.root) as server:
        repo.base_url = f'{server.url}/'
        repo.write()
        path = repo.images['base:v1'].url_path
        server.fail(path, Fault(stall_after=200_000))
        process = Tool(tmp_path / 'work').popen(
            'mirror', f'{server.url}/repo.metadata', 'copy'
        )
        copy = tmp_path / 'work' / 'copy'
        until(
            lambda: any(
                each.stat().st_size for each in copy.rglob('*.gz*')
            ), 'it fetches',
        )
        process.send_signal(number)
        out, error = process.communicate(timeout=300)
    assert process.returncode == 128 + number, error
    by = '' if number == signal.SIGINT else f' by {number.name}'
    assert error.splitlines()[-1] == (
        f'Stopped{by}; what was fetched is kept.'
    )
    assert 'Traceback' not in error and out == ''


@pytest.mark.parametrize('words', [
    ['list', '--repo', '{url}/repo.metadata'],
    ['lint', '{url}'],
    ['add', '{url}/repo.metadata'],
])
def test_ctrl_c_while_a_server_says_nothing(
    words: List[str], box: LagoSandbox
) -> None:
    with RudeServer(Path(box.repo).parent) as server:
        server.fail('*', Fault(delay=300))
        with Terminal(
            [str(lago_command()), 'template-repo', *(
                word.format(url=server.url) for word in words
            )],
            cwd=box.root, environment=box.environment(),
        ) as terminal:
            terminal.until(lambda: server._active, 'it asks')
            terminal.press(CTRL_C)
            assert terminal.wait() == 130, terminal.text
        assert terminal.text.endswith('Stopped; what was fetched is kept.')
        assert 'Traceback' not in terminal.text
