"""Our errors and warnings, as Lago shows them to people."""

from __future__ import annotations

import functools
import logging
from typing import Any, Callable

import lago.log_utils
import lago.utils

from ..core import errors
from ..index.source_places import hide_secrets
from ..report.messages import fold

LOGGER = logging.getLogger(__name__)

Function = Callable[..., Any]


def as_lago_errors(function: Function) -> Function:
    """Turn our errors into Lago's: one message, exit status 2."""
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (errors.ResolveError, errors.IndexFaults) as error:
            raise lago.utils.LagoUserException(_show(error)) from error
        except errors.LayeredError as error:
            raise lago.utils.LagoException(_show(error)) from error
        except MemoryError as error:
            raise lago.utils.LagoException(
                _show(errors.NotEnoughMemory())
            ) from error

    return wrapper


def _show(error: errors.LayeredError) -> str:
    return fold(hide_secrets(str(error)))


def warn(text: str) -> None:
    """Log a warning so that people see it: Lago shows errors only."""
    # Its mark for such a message does not reach over the end of a line.
    line = ' '.join(hide_secrets(text).split())
    LOGGER.warning(lago.log_utils.log_always(line))
