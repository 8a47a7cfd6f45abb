"""The lines between client and server, each with an nginx of its own.

The rate of a connection is kept by the kernel, which paces what each socket
sends (SO_MAX_PACING_RATE); nginx' own limit_rate counts anew for each
request, so that whoever asks for short ranges gets far more than that.
Latency and a total need a network namespace with a veth pair: ``netem`` and
``tbf``. Where the kernel has no netem, `delay` holds the packets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from tests.lab import Nginx, run

from .processes import cpu_seconds

#: Of this package, for each server, unless it is told otherwise.
CONNECTIONS = 4

#: A network for measurements (RFC 2544), which nobody has at home; each line
#: has a part of its own.
NETWORK = '198.18.{}.{}'
NAMESPACE = 'lago-bench-{}'
#: Of packets that wait for a device; the kernel's 500 are 10 ms of them.
QUEUE = 20000

SO_MAX_PACING_RATE = 47
SYS_PIDFD_GETFD = 438


class Unavailable(RuntimeError):
    """A line cannot be made here; says why."""


@dataclass(frozen=True)
class Line:
    """What a line carries.

    Attributes:
        connection: bytes per second and connection; 0: as many as there are.
        total: of all connections together.
        latency: seconds there and back.
    """

    name: str
    title: str
    connection: int = 0
    total: int = 0
    latency: float = 0.0

    def seconds(self, size: int) -> float:
        """Return the least time for so many bytes, as we may ask for them."""
        allowed = [rate for rate in (
            self.connection * CONNECTIONS, self.total
        ) if rate]
        return size / min(allowed) if allowed else 0.0


LINES = (
    Line('unlimited', 'unlimited'),
    Line('connection', '20 MB/s per connection', connection=20_000_000),
    Line('latency', '20 MB/s per connection, 50 ms',
         connection=20_000_000, latency=0.05),
    Line('total', '50 MB/s in all', total=50_000_000),
)


@dataclass(frozen=True)
class Opened:
    """A line with its server.

    Attributes:
        relay: the process that delays packets, where the kernel cannot.
    """

    line: Line
    server: Nginx
    relay: Optional[int] = None

    @property
    def relay_cpu(self) -> float:
        """Return the seconds of processor time that delaying took so far."""
        return cpu_seconds(self.relay) if self.relay else 0.0


@contextlib.contextmanager
def open_line(line: Line, root: Path) -> Iterator[Opened]:
    """Serve a directory over a line.

    Raises:
        Unavailable: this machine cannot do that.
    """
    with contextlib.ExitStack() as stack:
        address, relay = '127.0.0.1', None
        prefix: List[str] = []
        if line.total or line.latency:
            if os.geteuid() != 0:
                raise Unavailable('it needs root')
            name = stack.enter_context(_namespace(line))
            address = _addresses(line)[1]
            prefix = ['ip', 'netns', 'exec', name]
            relay = stack.enter_context(_devices(line, name))
        server = stack.enter_context(
            Nginx(root, address=address, prefix_command=prefix)
        )
        if line.connection:
            try:
                pace(server.pid, line.connection)
            except OSError as error:
                raise Unavailable(f'sockets cannot be paced: {error}')
        yield Opened(line, server, relay)


def pace(pid: int, rate: int) -> None:
    """Let each connection that a server accepts send so many bytes a second.

    Accepted sockets inherit it from the one that listens; that one is
    borrowed from the process.

    Raises:
        OSError: the kernel does not let us.
    """
    process = os.pidfd_open(pid)
    call = ctypes.CDLL(None, use_errno=True).syscall
    try:
        for entry in Path(f'/proc/{pid}/fd').iterdir():
            if not os.readlink(entry).startswith('socket:'):
                continue
            borrowed = call(SYS_PIDFD_GETFD, process, int(entry.name), 0)
            if borrowed < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            with socket.socket(fileno=borrowed) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    one.setsockopt(
                        socket.SOL_SOCKET, SO_MAX_PACING_RATE,
                        rate.to_bytes(8, sys.byteorder),
                    )
    finally:
        os.close(process)


@contextlib.contextmanager
def _namespace(line: Line) -> Iterator[str]:
    name = NAMESPACE.format(line.name)
    # One that was left by a benchmark that was killed.
    with contextlib.suppress(RuntimeError):
        run('ip', 'netns', 'del', name)
    try:
        run('ip', 'netns', 'add', name)
    except RuntimeError as error:
        raise Unavailable(f'no network namespace: {error}') from None
    try:
        yield name
    finally:
        run('ip', 'netns', 'del', name)


@contextlib.contextmanager
def _devices(line: Line, name: str) -> Iterator[Optional[int]]:
    """Join the namespace to the world; yield the relay's process, if any."""
    near, far = f'lb{line.name[:8]}0', f'lb{line.name[:8]}1'
    with contextlib.ExitStack() as stack:
        relay: Optional[subprocess.Popen[str]] = None
        try:
            if line.latency and not _has_netem(name):
                relay = stack.enter_context(_relay(near, far, line.latency))
                run('ip', 'link', 'set', far, 'netns', name)
            else:
                run('ip', 'link', 'add', near, 'type', 'veth', 'peer', 'name',
                    far, 'netns', name)
            _configure(line, near, far, name, shaped=relay is None)
        except RuntimeError as error:
            raise Unavailable(str(error)) from None
        yield relay.pid if relay else None


def _configure(
    line: Line, near: str, far: str, name: str, *, shaped: bool
) -> None:
    inside = ('-n', name)
    here, there = _addresses(line)
    run('ip', 'addr', 'add', here, 'peer', there, 'dev', near)
    run('ip', *inside, 'addr', 'add', there, 'peer', here, 'dev', far)
    run('ip', *inside, 'link', 'set', 'lo', 'up')
    run('ip', 'link', 'set', near, 'txqueuelen', QUEUE, 'up')
    run('ip', *inside, 'link', 'set', far, 'txqueuelen', QUEUE, 'up')
    shape = ('tc', *inside, 'qdisc', 'add', 'dev', far, 'root')
    if line.total:
        run(*shape, 'tbf', 'rate', f'{line.total * 8}bit',
            'burst', '1mb', 'latency', '50ms')
    if line.latency and shaped:
        run(*shape, 'netem', 'limit', QUEUE,
            'delay', f'{line.latency * 1000:.0f}ms')


def _addresses(line: Line) -> Tuple[str, str]:
    number = LINES.index(line)
    return NETWORK.format(number, 1), NETWORK.format(number, 2)


def _has_netem(name: str) -> bool:
    try:
        run('tc', '-n', name, 'qdisc', 'add', 'dev', 'lo', 'root', 'netem',
            'delay', '1ms')
    except RuntimeError:
        return False
    run('tc', '-n', name, 'qdisc', 'del', 'dev', 'lo', 'root')
    return True


@contextlib.contextmanager
def _relay(
    near: str, far: str, latency: float
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name('delay.py')), near, far,
         str(latency * 1000 / 2)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8',
    )
    assert process.stdout and process.stderr
    try:
        if not process.stdout.readline():
            raise Unavailable(
                'neither netem nor TUN devices: '
                + process.stderr.read().strip().splitlines()[-1]
            )
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
