"""What the functional tests share: a small forest of images, a web server."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Dict, Iterator, List

import pytest

from tests.lab import (
    DiskImage, ImageSpec, Nginx, Publisher, make_forest, require, run,
)
from tests.lab.commands import SYSTEM_PATH, find
from tests.lab.kept import keep
from tests.lab.signing import Signing
from tests.lab.starting import forking

# A shell that starts the tests in the background lets them ignore Ctrl-C, and
# nohup a hangup; with them all that they start and send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


#: Gives a key that is kept, to who wants one for a file (`-f`).
SSH_KEYGEN = '''\
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in -f) key=$2;; esac
    shift
done
umask 077
/bin/cp {kept}/key "$key" && /bin/cp {kept}/key.pub "$key.pub"
'''


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Begin with what takes long, so that nobody waits for it at the end."""
    items.sort(key=lambda item: not (
        item.get_closest_marker('vm') or item.get_closest_marker('slow')
    ))


@pytest.fixture(scope='session', autouse=True)
def ready_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let ssh-keygen give a key that was made before.

    Every `lago init` makes one, and the search for primes would take as long
    as all the rest of many a test.
    """
    tools = tmp_path_factory.mktemp('tools')
    with pytest.MonkeyPatch.context() as patch:
        if find('ssh-keygen'):
            kept = keep('an ssh key', lambda made: run(
                'ssh-keygen', '-q', '-t', 'rsa', '-b', 1024, '-m', 'PEM',
                '-N', '', '-f', made / 'key',
            ))
            script = tools / 'ssh-keygen'
            script.write_text(SSH_KEYGEN.format(kept=kept))
            script.chmod(0o755)
            patch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
        yield


@pytest.fixture(scope='session', autouse=True)
def forks() -> Iterator[None]:
    """Let a process fork for commands that has imported what they import."""
    with forking():
        yield


@pytest.fixture(autouse=True)
def real_start(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start commands as a user does where the start is the subject."""
    wanted = request.node.get_closest_marker('real_start') is None
    with forking(wanted) if not wanted else contextlib.nullcontext():
        yield


@pytest.fixture(scope='session')
def forest(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, DiskImage]:
    """Build a base, a chain of three and a second layer on the base."""
    require('qemu-img', 'qemu-io')
    return make_forest(tmp_path_factory.mktemp('forest'), {
        'base': ImageSpec(4),
        'nfs': ImageSpec(1, 'base'),
        'iscsi': ImageSpec(1, 'nfs'),
        'other': ImageSpec(2, 'base'),
    })


@pytest.fixture(scope='session')
def published(
    forest: Dict[str, DiskImage], tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    """Publish the forest; copy its directory, do not change it."""
    require('xz')
    repo = Publisher(tmp_path_factory.mktemp('published') / 'www')
    repo.add_forest(forest)
    repo.write()
    return repo


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nginx]:
    """Serve the directory ``www`` of the test, which a Publisher fills."""
    with Nginx(tmp_path / 'www') as running:
        yield running


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Signing]:
    """Make a key of gpg, and a keyring that trusts it."""
    with Signing(tmp_path) as made:
        yield made


@pytest.fixture(scope='session')
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH with all that is installed, but for virt-sparsify.

    It takes a quarter of a minute here, and is one test's subject.
    """
    tools = tmp_path_factory.mktemp('tools')
    for directory in f'{os.environ["PATH"]}:{SYSTEM_PATH}'.split(':'):
        for tool in Path(directory).glob('*'):
            link = tools / tool.name
            if tool.name != 'virt-sparsify' and not os.path.lexists(link):
                link.symlink_to(tool)
    return str(tools)
