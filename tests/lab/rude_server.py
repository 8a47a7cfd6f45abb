"""The server that fails on demand; without faults it behaves like nginx.

A fault is given for paths and for the first, second, n-th matching request;
what it does not touch stays correct.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Optional, Type

from .ledger import Ledger
from .response import PAUSE_SECONDS
from .rude_handler import Listener


class RudeServer(Ledger):
    """Serve a directory, with faults; a context manager like ``Nginx``.

    Args:
        root: the directory served.
        port: 0 takes a free one; a server that comes back keeps its own.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        super().__init__(root)
        self.port = port
        self._listener: Optional[Listener] = None

    @property
    def url(self) -> str:
        """Return the address of the served directory, without a slash."""
        return f'http://127.0.0.1:{self.port}'

    def start(self) -> None:
        """Start answering."""
        self.stopping.clear()
        self._listener = Listener(self, self.port)
        self.port = self._listener.server_address[1]
        threading.Thread(
            target=self._listener.serve_forever, args=(PAUSE_SECONDS,),
            name='rude-server', daemon=True,
        ).start()

    def stop(self) -> None:
        """Vanish: cut every connection and refuse new ones."""
        if self._listener is None:
            return
        self.stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.cut_all()
        self._listener = None

    def close(self) -> None:
        """Stop; the same name as ``Nginx.close``."""
        self.stop()

    def __enter__(self) -> RudeServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()
