"""Our errors and warnings, as Lago shows them to people."""

from __future__ import annotations

import functools
import logging
from typing import Any, Callable

import lago.log_utils
import lago.utils

from .core import errors

LOGGER = logging.getLogger(__name__)

MESSAGE_COLUMNS = 79

Function = Callable[..., Any]


def as_lago_errors(function: Function) -> Function:
    """Turn our errors into Lago's: one message, exit status 2."""
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (errors.ResolveError, errors.IndexFaults) as error:
            raise lago.utils.LagoUserException(_fold(str(error))) from error
        except errors.LayeredError as error:
            raise lago.utils.LagoException(_fold(str(error))) from error

    return wrapper


def _fold(text: str) -> str:
    """Break lines at 79 columns, where words allow; indents stay."""
    import textwrap

    folded = []
    for line in text.splitlines():
        indent = ' ' * (len(line) - len(line.lstrip(' -')))
        folded += textwrap.wrap(
            line, MESSAGE_COLUMNS, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )
    return '\n'.join(folded)


def warn(text: str) -> None:
    """Log a warning so that people see it: Lago shows errors only."""
    # Its mark for such a message does not reach over the end of a line.
    line = ' '.join(text.split())
    LOGGER.warning(lago.log_utils.log_always(line))
