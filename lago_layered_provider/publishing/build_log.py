"""Keep what the tools printed, and say of a failure what matters."""

from __future__ import annotations

import os
from typing import Optional

from ..core import errors
from . import build_state

#: Of what a tool said before it failed; the log has all of it.
SHOWN_LINES = 6

#: Where the tools of libguestfs ask for reports to their own makers.
REPORT_REQUEST = 'If reporting bugs'


class BuildLog:
    """The log of one image; it replaces that of an earlier build.

    Nobody else may read it: tools print passwords that they have chosen.
    """

    def __init__(self, directory: str, name: str) -> None:
        logs = os.path.join(directory, build_state.LOGS)
        os.makedirs(logs, mode=0o700, exist_ok=True)
        self.path = os.path.join(logs, f'{name}.log')
        self._flags = os.O_TRUNC

    def write(self, title: str, text: Optional[str]) -> None:
        """Add what a tool has printed."""
        fd = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            | self._flags, 0o600,
        )
        self._flags = 0
        with open(fd, 'w', encoding='utf-8', errors='replace') as stream:
            stream.write(f'== {title}\n{text or ""}\n')


def describe_failure(name: str, error: Exception, log: BuildLog) -> str:
    """Return what is said of an image that could not be built."""
    if not isinstance(error, errors.ToolError) or error.status is None:
        return f'{name}: {error}'
    log.write(
        ' '.join(error.command),
        f'{error.stderr}\nfailed with status {error.status}',
    )
    said = error.stderr.split(REPORT_REQUEST)[0].rstrip().splitlines()
    shown = ''.join(f'\n{line}' for line in said[-SHOWN_LINES:])
    return (
        f'{name}: {error.command[0]} failed with status {error.status}:'
        f'{shown}\nall of it: {log.path}'
    )
