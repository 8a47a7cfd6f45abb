"""Keep what the tools printed, and say of a failure what matters."""

from __future__ import annotations

import os
from typing import List, Optional

from ..core import errors
from ..tools import tree
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
        self._begun = False

    def write(self, title: str, text: Optional[str]) -> None:
        """Add what a tool has printed."""
        with tree.open_output(
            self.path, keep=self._begun, mode=0o600
        ) as stream:
            stream.write(
                f'== {title}\n{text or ""}\n'.encode('utf-8', 'replace')
            )
        self._begun = True


def _what_matters(said: List[str]) -> List[str]:
    """Return the lines with the reason of a failure.

    Behind it libguestfs tells at length how to report a bug.
    """
    for number, line in enumerate(said):
        if ': error: ' in line:
            return said[number:number + SHOWN_LINES]
    return said[-SHOWN_LINES:]


def describe_failure(name: str, error: Exception, log: BuildLog) -> str:
    """Return what is said of an image that could not be built."""
    if not isinstance(error, errors.ToolError) or error.status is None:
        return f'{name}: {error}'
    log.write(
        ' '.join(error.command),
        f'{error.stderr}\nfailed with status {error.status}',
    )
    said = error.stderr.split(REPORT_REQUEST)[0].rstrip().splitlines()
    shown = ''.join(f'\n{line}' for line in _what_matters(said))
    return (
        f'{name}: {error.command[0]} failed with status {error.status}:'
        f'{shown}\nall of it: {log.path}'
    )
