"""Start the product's commands: as a user does, or by a fork.

Most of the time of a short command is the start of Python and the import of
Lago. Within `forking` a process that has done both (`fork_server.py`) forks
for each command. What it starts is a child of this process like any other,
with the same input, output, environment, directory and exit status.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import (
    Any, Dict, FrozenSet, Iterator, List, Mapping, Sequence, Tuple,
)

ROOT = Path(__file__).parents[2]

#: Holds what makes a process count its steps (`steps.py`).
DYING = Path(__file__).parent / 'dying'

PR_SET_CHILD_SUBREAPER = 36

#: Variables that Python and its libraries read once, when they start.
READ_AT_START = ('PYTHON', 'LC_', 'LANG', 'TZ', '_ARGCOMPLETE')

#: Directories in PYTHONPATH that a fork can do without.
KNOWN_PATHS = frozenset({'', str(DYING)})

#: What makes the difference between two servers.
Key = FrozenSet[Tuple[str, str]]


class ForkServer:
    """A process that has the product imported, and forks for each command.

    Args:
        environment: in which it starts; the commands get others.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(
                    'fork_server.py'
                )), str(theirs.fileno())],
                cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._socket.close()
        self._process.wait()

    def fork(self, order: Mapping[str, Any], files: List[int]) -> int:
        """Start a command; return the number of its process.

        Args:
            order: its words, directory and environment.
            files: its standard input, output and error.
        """
        # A long environment does not fit into one message.
        reading, writing = os.pipe()
        with open(reading, 'rb') as _, open(writing, 'w') as out:
            socket.send_fds(self._socket, [b'.'], [*files, reading])
            json.dump(order, out)
            out.close()
            answer = self._socket.recv(64)
        if not answer:
            raise RuntimeError('the server that forks has ended')
        return int(answer)


class _Servers:
    """The running servers; none: commands are started as a user does."""

    def __init__(self) -> None:
        self.wanted = False
        self.lock = threading.Lock()
        self.running: Dict[Key, ForkServer] = {}

    def close(self) -> None:
        for server in self.running.values():
            server.close()
        self.running.clear()


_servers = _Servers()


@contextlib.contextmanager
def forking(wanted: bool = True) -> Iterator[None]:
    """Fork for the commands that are started within; or do not."""
    before, _servers.wanted = _servers.wanted, wanted
    try:
        yield
    finally:
        _servers.wanted = before
        if not before:
            _servers.close()


def fork_is_wanted() -> bool:
    """Tell whether commands are forked now."""
    return _servers.wanted


def start(
    command: List[str], arguments: Sequence[str], options: Mapping[str, Any]
) -> subprocess.Popen[str]:
    """Start a command of the product.

    Args:
        command: the words before its arguments; what else they start with
            than `lago` or Python is executed.
        options: of `subprocess.Popen`, with `cwd` and `env`.
    """
    is_plain = (
        len(command) == 1 or command[:2] == [sys.executable, '-m']
    ) and 'preexec_fn' not in options
    path = options['env'].get('PYTHONPATH', '')
    kind = _Forked if (
        _servers.wanted and is_plain and path in KNOWN_PATHS
    ) else subprocess.Popen
    return kind([*command, *arguments], **options)


def _find_server(environment: Mapping[str, str]) -> ForkServer:
    first = {
        name: value for name, value in environment.items()
        if name.startswith(READ_AT_START)
    }
    key = frozenset(first.items())
    if key not in _servers.running:
        _servers.running[key] = ForkServer({
            'PATH': environment['PATH'], 'HOME': '/dev/null', **first,
        })
    return _servers.running[key]


class _Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is forked where another is executed."""

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env,
        startupinfo, creationflags, shell, p2cread, p2cwrite, c2pread,
        c2pwrite, errread, errwrite, *rest,
    ) -> None:
        ends = (p2cread, c2pwrite, errwrite)
        mask = os.umask(0)
        os.umask(mask)
        with _servers.lock:
            # The server's child starts the command and ends, which makes us
            # its parent.
            _adopt(True)
            try:
                self.pid = _find_server(env).fork(
                    {
                        'program': Path(args[0]).name, 'words': args,
                        'cwd': str(cwd), 'env': env, 'umask': mask,
                    },
                    [end if end >= 0 else own for own, end in enumerate(ends)],
                )
            finally:
                _adopt(False)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        )


def _adopt(wanted: bool) -> None:
    """Become the parent of what loses its own, or no longer."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
