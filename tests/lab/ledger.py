"""Which requests fail, and what a server answered: shared by its threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, List, Optional, Protocol, Set

from .faults import Fault, Rule
from .records import Request

SETTLE_SECONDS = 5.0


class Answering(Protocol):
    """An answer in the making."""

    #: Nothing but its end is left to do.
    finishing: bool


class Ledger:
    """The rules of a rude server and the record of its requests.

    Args:
        root: the directory served.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._rules: List[Rule] = []
        self._requests: List[Request] = []
        self._since = 0.0
        self._active: Set[Answering] = set()

    def fail(
        self,
        pattern: str,
        fault: Optional[Fault] = None,
        *,
        skip: int = 0,
        times: Optional[int] = None,
        method: str = 'GET',
        **what: Any,
    ) -> Rule:
        """Make requests fail; the first rule that applies is taken.

        Args:
            pattern: path on the server, ``*`` and ``?`` as in a shell.
            skip: so many matching requests are answered properly first.
            times: so many requests fail then; None: all of them.
            method: GET, HEAD or ``*`` for both.
            what: the fields of a ``Fault``, instead of one.
        """
        rule = Rule(pattern, fault or Fault(**what), skip, times, method)
        with self._changed:
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget all faults."""
        with self._changed:
            self._rules.clear()

    def fault_for(self, method: str, path: str) -> Fault:
        """Return the fault for a request, counting it."""
        with self._changed:
            for rule in self._rules:
                if rule.applies(method, path):
                    return rule.fault
        return Fault()

    def begin(self, handler: Answering) -> int:
        """Take down that a request is being answered.

        Returns:
            how many others are, not counting what is as good as sent.
        """
        with self._changed:
            others = sum(not one.finishing for one in self._active)
            self._active.add(handler)
        return others

    def record(self, handler: Answering, request: Request) -> None:
        """Take down an answered request."""
        with self._changed:
            self._active.discard(handler)
            if request.start >= self._since:
                self._requests.append(request)
            self._changed.notify_all()

    def requests(self) -> List[Request]:
        """Return the requests answered so far, in the order they ended.

        A request whose last byte a client has read is always among them.
        """
        def settled() -> bool:
            return not any(handler.finishing for handler in self._active)

        with self._changed:
            self._changed.wait_for(settled, SETTLE_SECONDS)
            return sorted(self._requests, key=lambda one: one.end)

    def settled_requests(self) -> List[Request]:
        """Return all requests, once no answer is in the making.

        For clients that are gone: an answer ends when a write to them fails.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._active, SETTLE_SECONDS)
            return list(self._requests)

    def forget(self) -> None:
        """Begin a new record, of the requests that begin from now on."""
        with self._changed:
            self._since = time.time()
            self._requests.clear()
