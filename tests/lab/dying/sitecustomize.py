"""Kill this process before a given step that changes a file system.

Python imports this module at its start when its directory is in PYTHONPATH.
The steps are those that Python itself announces (sys.addaudithook): files
opened to be written, renamed, removed, linked, their modes and sizes changed;
directories made and removed; programs started. `LAB_STEPS` names a file in
which each step is noted; `LAB_KILL_AT` is the number of the step, from 1 on,
before which the whole process group dies by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, Tuple

CHANGES = frozenset({
    'os.rename', 'os.remove', 'os.link', 'os.symlink', 'os.mkdir',
    'os.rmdir', 'os.truncate', 'os.chmod', 'subprocess.Popen',
})
NOT_FILES = ('/dev/', '/proc/')


def _watch(log: int, kill_at: int) -> None:
    """Count the steps of this process, and die before one of them."""
    lock = threading.Lock()
    count = 0

    def note(event: str, arguments: Tuple[Any, ...]) -> None:
        nonlocal count
        if event == 'open':
            path, _, flags = arguments
            # What is open already is opened anew, by its number.
            if isinstance(path, int) or not flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            ):
                return
        elif event not in CHANGES:
            return
        place = str(arguments[0])
        if place.startswith(NOT_FILES) or '__pycache__' in place:
            return
        with lock:
            count += 1
            os.write(log, f'{event} {place}\n'.encode())
            if count == kill_at:
                os.killpg(os.getpgrp(), signal.SIGKILL)

    sys.addaudithook(note)


# Its children are other processes, with steps of their own.
_log, _kill_at = os.environ.pop('LAB_STEPS', ''), os.environ.pop(
    'LAB_KILL_AT', '0'
)
if _log:
    _watch(
        os.open(_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), int(_kill_at)
    )
