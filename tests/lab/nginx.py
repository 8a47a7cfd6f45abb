"""The well-behaved server: a real nginx with a configuration of its own.

Range, strong ETags, If-Range and a log that a test can read. It listens on
127.0.0.1 only, if nobody says otherwise, needs no root and leaves the
system's nginx alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Dict, List, Optional, Sequence, Type

from .commands import find, require
from .records import Request

START_SECONDS = 10.0
SENTINEL = '/.lab-sentinel'

# One process: with a master, workers of root become a user who cannot read
# a test's directory. lingering_close off: log when the last byte is sent.
CONFIG = """\
daemon off;
master_process off;
pid {state}/pid;
error_log {state}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format lab escape=json '{{"method":"$request_method",'
        '"path":"$uri","status":$status,"range":"$http_range",'
        '"if_range":"$http_if_range","sent":$body_bytes_sent,'
        '"if_none_match":"$http_if_none_match","end":$msec,'
        '"seconds":$request_time,"user_agent":"$http_user_agent"}}';
    access_log {state}/access.log lab;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    default_type application/octet-stream;
    etag on;
    gzip off;
    sendfile on;
    lingering_close off;
    server {{
        listen {address}:{port};
        root {root};
        limit_rate {limit_rate};
        location = {sentinel} {{ access_log off; return 204; }}
    }}
}}
"""


class Nginx:
    """Serve a directory from ``start`` to ``stop``, or as a context manager.

    Args:
        root: the directory served.
        limit_rate: bytes per second for each connection; 0: no limit.
        port: 0 takes a free one; a server that comes back keeps its own.
        address: to listen on.
        prefix_command: words before nginx, such as those of ip netns exec;
            they end in an exec.
    """

    def __init__(
        self, root: Path, *, limit_rate: int = 0, port: int = 0,
        address: str = '127.0.0.1', prefix_command: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.limit_rate = limit_rate
        self.port = port
        self.address = address
        self.prefix_command = list(prefix_command)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._state: Optional[Path] = None

    @property
    def url(self) -> str:
        """Return the address of the served directory, without a slash."""
        return f'http://{self.address}:{self.port}'

    @property
    def pid(self) -> int:
        """Return the id of the process that runs.

        Raises:
            RuntimeError: there is none.
        """
        if self._process is None:
            raise RuntimeError('nginx was not started')
        return self._process.pid

    def __enter__(self) -> Nginx:
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        require('nginx')
        if self._state is None:
            self._state = Path(tempfile.mkdtemp(prefix='lab-nginx-'))
        tries = 1 if self.port else 5
        for attempt in range(tries):
            # Another process may take the port before nginx does.
            self.port = self.port if tries == 1 else free_port()
            self._launch(self._state)
            if self._answers():
                return
            self.stop()
        log = (self._state / 'error.log').read_text()
        raise RuntimeError(f'nginx does not start:\n{log}')

    def _launch(self, state: Path) -> None:
        config = state / 'nginx.conf'
        config.write_text(CONFIG.format(
            state=state, port=self.port, root=self.root.resolve(),
            address=self.address, limit_rate=self.limit_rate,
            sentinel=SENTINEL,
        ))
        with open(state / 'stderr', 'ab') as stderr:
            self._process = subprocess.Popen(
                [*self.prefix_command, find('nginx') or '', '-p', str(state),
                 '-c', str(config), '-e', str(state / 'error.log')],
                stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
            )

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + SENTINEL, timeout=5).close()
                # Not another server that was given the same port?
                return self._process.poll() is None
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """Stop abruptly, cutting open connections; the log stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop, and remove the log and the rest of the state."""
        self.stop()
        if self._state is not None:
            shutil.rmtree(self._state, ignore_errors=True)
            self._state = None

    def requests(self) -> List[Request]:
        """Return the requests answered so far, in the order they ended.

        A request whose last byte a client has read is always among them.
        """
        if self._state is None:
            return []
        if self._process is not None:
            # nginx logs before it looks at another connection, so once this
            # is answered, everything that ended before it is logged.
            urllib.request.urlopen(self.url + SENTINEL, timeout=30).close()
        log = self._state / 'access.log'
        if not log.exists():
            return []
        return [_request(line) for line in log.read_text().splitlines()]

    def forget(self) -> None:
        """Begin a new log."""
        self.requests()
        if self._state is not None:
            os.truncate(self._state / 'access.log', 0)


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


def _request(line: str) -> Request:
    fields: Dict[str, object] = json.loads(line)
    end = float(str(fields.pop('end')))
    # In milliseconds, as it was: what begins at the end of another request
    # does not begin before it.
    start = round(end - float(str(fields.pop('seconds'))), 3)
    return Request(start=start, end=end, **fields)  # type: ignore[arg-type]
