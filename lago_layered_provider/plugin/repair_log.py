"""What Lago's log may not do to a terminal or a pipe.

Whatever goes to the log, of Lago or of ours, comes by here. Lago puts its
colours around a text only then, so that those are the only ones.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

from lago import log_utils

from ..core.model import visible
from .repair_tools import Repair


def log_text() -> bool:
    """Records of the log are escaped, and do not run into progress bars.

    They hold what servers, indexes and callers have written.
    """
    original = log_utils.TaskHandler.emit

    @functools.wraps(original)
    def emit(self: Any, record: logging.LogRecord) -> None:
        _escape(record)
        stream = self.stream
        if hasattr(sys.stderr, 'rich_proxied_file'):
            # Bars are shown; what goes there is printed above them.
            self.stream = sys.stderr
        try:
            original(self, record)
        finally:
            self.stream = stream

    log_utils.TaskHandler.emit = emit
    return True


def _escape(record: logging.LogRecord) -> None:
    record.msg, record.args = visible(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if record.exc_text:
        record.exc_text = visible(record.exc_text)


def log_colours() -> bool:
    """The log has colours only on a terminal, and not under NO_COLOR."""
    wanted = (
        sys.stderr is not None and sys.stderr.isatty()
        and not os.environ.get('NO_COLOR')
        and os.environ.get('TERM') != 'dumb'
    )
    if wanted:
        return False
    for name, value in vars(log_utils.ColorFormatter).items():
        if isinstance(value, str) and value.startswith('\x1b'):
            setattr(log_utils.ColorFormatter, name, '')
    return True


REPAIRS: tuple[Repair, ...] = (log_text, log_colours)
