"""A ``lago`` that runs while a test looks on, signals it or kills it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Type

from .environments import LagoSandbox, kill

#: How long a test waits for something that must happen.
PATIENCE_SECONDS = 90.0
POLL_SECONDS = 0.002


def until(
    condition: Callable[[], object],
    what: str,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: it does not, for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f'not within {seconds} s: {what}')
        time.sleep(POLL_SECONDS)


class RunningLago:
    """A ``lago init --skip-bootstrap`` in the making; killed at the end.

    Args:
        box: where it runs.
        arguments: more of them.
    """

    def __init__(self, box: LagoSandbox, *arguments: str) -> None:
        self._log = box.root / f'output-{time.monotonic_ns()}'
        with open(self._log, 'wb') as log:
            self.process = box.popen(
                'init', '--skip-bootstrap', *arguments,
                stdout=log, stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid

    def __enter__(self) -> RunningLago:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """Return what it has printed so far, without colours."""
        text = self._log.read_text(errors='replace')
        return re.sub('\x1b\\[[0-9;?]*[A-Za-z]', '', text)

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self.process.poll() is not None

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition while it runs.

        Raises:
            RuntimeError: it ended before, or it took too long.
        """
        until(lambda: self.ended or condition(), f'{what}\n{self.output}')
        if self.ended and not condition():
            raise RuntimeError(f'lago ended before: {what}\n{self.output}')

    def says(self, text: str) -> None:
        """Wait until it has printed a text (a regular expression)."""
        self.until(
            lambda: re.search(text, self.output), f'it prints {text!r}'
        )

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group."""
        if group:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill it and its children with SIGKILL; return its exit status."""
        kill(self.process)
        return self.process.wait()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; return its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f'lago still runs after {seconds} s:\n{self.output}'
            ) from None

    @property
    def log(self) -> Path:
        """Return the file with its output."""
        return self._log
