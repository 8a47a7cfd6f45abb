"""Send the answers of ``response`` over sockets, as badly as asked for."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator, Optional, Set

from .faults import Fault
from .ledger import Ledger
from .records import Request
from .response import PAUSE_SECONDS, Response, blocks, respond


class CutConnection(Exception):
    """Close the connection instead of going on."""


class Listener(ThreadingHTTPServer):
    """Accept connections on 127.0.0.1, a thread for each."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, ledger: Ledger, port: int) -> None:
        self.ledger = ledger
        self.open_sockets: Set[socket.socket] = set()
        self.doomed: Set[socket.socket] = set()
        super().__init__(('127.0.0.1', port), Handler)

    def cut_all(self) -> None:
        """End all connections, waking the threads that write to them."""
        for one in list(self.open_sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def reset_soon(self, connection: socket.socket) -> None:
        """Close a connection with RST as soon as its handler is done."""
        self.doomed.add(connection)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)
        )

    def shutdown_request(self, request: Any) -> None:
        if request in self.doomed:
            # Not shut down first: that would send FIN before RST.
            self.doomed.discard(request)
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is what tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Answer the requests of one connection."""

    server: Listener
    protocol_version = 'HTTP/1.1'
    server_version = 'rude'
    #: When nothing but the last bytes of an answer was left to send.
    _ended: Optional[float] = None

    @property
    def finishing(self) -> bool:
        """Tell whether nothing but the end of an answer is left to do."""
        return self._ended is not None

    @finishing.setter
    def finishing(self, value: bool) -> None:
        # Before the client can have it all, and so before its next request.
        self._ended = time.time() if value else None

    def setup(self) -> None:
        self.server.open_sockets.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.open_sockets.discard(self.request)
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet; requests are recorded."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        ledger = self.server.ledger
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        fault = ledger.fault_for(self.command, path)
        started = time.time()
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.finishing = False
        others = ledger.begin(self)
        if fault.crowd is not None and others >= fault.crowd:
            fault = Fault(status=503)
        response = respond(ledger.root, path, headers, fault)
        sent = 0
        try:
            self._sit_out(fault.delay)
            self.finishing = self.command == 'HEAD' or not response.length
            self._send_head(response)
            for data in self._body(response, fault):
                self.wfile.write(data)
                sent += len(data)
        except (CutConnection, OSError):
            self.close_connection = True
            if fault.reset:
                self.server.reset_soon(self.request)
        finally:
            ledger.record(self, Request(
                method=self.command, path=path, status=response.status,
                range=headers.get('range', ''),
                if_range=headers.get('if-range', ''),
                if_none_match=headers.get('if-none-match', ''),
                sent=sent, start=started, end=self._ended or time.time(),
                user_agent=headers.get('user-agent', ''),
            ))

    def _send_head(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, response: Response, fault: Fault) -> Iterator[bytes]:
        if self.command == 'HEAD':
            return
        chunked = 'Transfer-Encoding' in response.headers
        for data in self._paced(response, fault):
            yield b'%x\r\n%s\r\n' % (len(data), data) if chunked else data
        if chunked:
            yield b'0\r\n\r\n'
        if fault.extra_length:
            self.close_connection = True

    def _sit_out(self, seconds: float) -> None:
        """Do nothing for some time, until the client gives up."""
        end = time.monotonic() + seconds
        left = seconds
        while left > 0 and not self.server.ledger.stopping.is_set():
            pause = min(left, PAUSE_SECONDS)
            ready, _, _ = select.select([self.connection], [], [], pause)
            if ready and not self.connection.recv(1, socket.MSG_PEEK):
                raise CutConnection
            if ready:
                # The next request already: nobody is going away.
                self.server.ledger.stopping.wait(pause)
            left = end - time.monotonic()

    def _paced(self, response: Response, fault: Fault) -> Iterator[bytes]:
        """Yield the body, stopping and waiting as the fault has it."""
        ledger = self.server.ledger
        began, sent = time.monotonic(), 0
        limits = [fault.cut_after, fault.stall_after]
        limit = min((n for n in limits if n is not None), default=None)
        for data in blocks(response, fault):
            if limit is not None and sent + len(data) >= limit:
                stall = limit == fault.stall_after
                self.finishing = not stall
                yield data[:limit - sent]
                if stall:
                    self._sit_out(math.inf)
                raise CutConnection
            if fault.rate:
                due = began + (sent + len(data)) / fault.rate
                ledger.stopping.wait(max(0.0, due - time.monotonic()))
            if ledger.stopping.is_set():
                raise CutConnection
            sent += len(data)
            self.finishing = sent >= response.length
            yield data
