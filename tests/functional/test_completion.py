"""What a shell completes, asked for as a shell does."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.lab import DiskImage, LagoSandbox, Nginx, Publisher, require

pytestmark = pytest.mark.real_start

PATIENCE_SECONDS = 20

#: What bash does when somebody presses TAB at the end of the arguments.
BASH = '''
eval "$(register-python-argcomplete lago)"
COMP_WORDS=(lago "$@")
COMP_CWORD=$#
COMP_LINE="lago $*"
COMP_POINT=${#COMP_LINE}
COMP_TYPE=9
$(complete -p lago | sed 's/.*-F \\([^ ]*\\).*/\\1/') lago "${@: -1}"
printf '%s\\n' "${COMPREPLY[@]}"
'''

#: What somebody at a zsh has in a file that it reads when it starts.
ZSH = (
    'PS1=; autoload -Uz compinit; compinit -u -D; '
    'eval "$(register-python-argcomplete lago)"; echo "rea""dy"'
)


@pytest.fixture
def box(tmp_path: Path, forest: Dict[str, DiskImage]) -> LagoSandbox:
    """Return an environment with templates, one of them in the store."""
    repo = Publisher(tmp_path / 'www', source='file', compression='gz')
    for name in ('base', 'nfs'):
        disk = forest[name]
        repo.add(disk.path, disk.name, 'v1', disk.base)
    repo.write()
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'base'}, repo=repo.index_path
    )


def complete(box: LagoSandbox, *words: str) -> List[str]:
    """Return what bash completes the last word to."""
    require('bash')
    done = subprocess.run(
        ['bash', '--norc', '-c', BASH, 'bash', *words], cwd=box.root,
        env=box.environment(), stdin=subprocess.DEVNULL, check=True,
        capture_output=True, encoding='utf-8', timeout=60,
    )
    return sorted(line.strip() for line in done.stdout.split('\n') if line)


def test_commands_and_options(box: LagoSandbox) -> None:
    assert complete(box, 'template-r') == ['template-repo']
    commands = complete(box, 'template-repo', '')
    assert {'list', 'show', 'add', 'prune', 'update'} <= set(commands)
    assert not [one for one in commands if one.startswith('-')]
    assert complete(box, 'template-repo', 'sh') == ['show']
    assert complete(box, 'template-repo', 'list', '--t') == [
        '--template-store', '--tree'
    ]
    # Lago's own verbs have it as well.
    assert '--offline' in complete(box, 'init', '--off')


def test_names(box: LagoSandbox) -> None:
    assert complete(box, 'template-repo', 'show', 'n') == ['nfs', 'nfs:v1']
    assert complete(box, 'template-repo', 'plan', 'nfs', 'b') == [
        'base', 'base:v1'
    ]
    done = box.run('template-repo', 'pull', 'base')
    assert done.code == 0, done.output
    assert complete(box, 'template-repo', 'hold', 'la') == ['lab:base:v1']
    assert complete(box, 'template-repo', 'why', 'b') == ['base:v1']
    done = box.run('template-repo', 'add', str(box.repo))
    assert done.code == 0, done.output
    assert complete(box, 'template-repo', 'remove', '') == ['lab']


def test_no_server_is_asked(box: LagoSandbox, server: Nginx) -> None:
    box.repo = f'{server.url}/repo.metadata'
    # Its images are on a mount, so to say.
    box.config['template_repo'] = {'local_roots': server.root}
    box.write()
    assert complete(box, 'template-repo', 'show', 'n') == []
    assert server.requests() == []
    # Of an index that was kept, the names are known.
    done = box.run('template-repo', 'pull', 'base')
    assert done.code == 0, done.output
    asked = len(server.requests())
    assert complete(box, 'template-repo', 'show', 'n') == ['nfs', 'nfs:v1']
    assert len(server.requests()) == asked


def test_zsh(box: LagoSandbox) -> None:
    require('zsh')
    # It completes only what is typed at a terminal.
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ['zsh', '-f', '-i'], cwd=box.root, stdin=slave, stdout=slave,
        stderr=slave, start_new_session=True,
        env={**box.environment(), 'TERM': 'vt100'},
    )
    os.close(slave)
    try:
        for typed, shown in (
            (f'{ZSH}\n', 'ready\r'),
            ('lago template-repo sh\t', 'show'),
            ('nf\t\t', 'nfs:v1'),
        ):
            os.write(master, typed.encode())
            read_until(master, shown)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read_until(terminal: int, text: str) -> None:
    """Read from a terminal until a text comes.

    Raises:
        AssertionError: it does not come.
    """
    seen = b''
    while text.encode() not in seen:
        ready, _, _ = select.select([terminal], [], [], PATIENCE_SECONDS)
        assert ready, f'no {text!r} in {seen!r}'
        seen += os.read(terminal, 4096)


def test_other_commands_do_not_pay(box: LagoSandbox) -> None:
    code = (
        'import sys, lago_layered_provider.lago_plugin, '
        'lago_layered_provider.commands.parser; '
        'sys.exit(any(name.split(".")[0] in ("argcomplete", "rich") '
        'for name in sys.modules))'
    )
    subprocess.run(
        [sys.executable, '-c', code], env=box.environment(), check=True
    )
