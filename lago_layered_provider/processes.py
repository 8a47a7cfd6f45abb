"""Run programs; nothing else here starts one."""

from __future__ import annotations

import os
import subprocess
from typing import Collection, Mapping, Optional, Sequence

from .core.errors import ToolError


def run(
    command: Sequence[str],
    *,
    timeout: float,
    hint: str = '',
    passed: Collection[int] = (0,),
    environment: Optional[Mapping[str, str]] = None,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        timeout: seconds after which it is killed.
        hint: what to do when there is no such program.
        passed: the exit statuses of success.
        environment: what it runs in; ours if none is given.

    Raises:
        ToolError: it is missing or failed; with what it said.
    """
    try:
        done = subprocess.run(
            command,
            env={**(environment or os.environ), 'LC_ALL': 'C'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding='utf-8',
            errors='replace',
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(command, stderr='not found', hint=hint) from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            command, stderr=f'no answer within {timeout:g} seconds'
        ) from None
    except OSError as error:
        raise ToolError(command, stderr=str(error)) from error
    if done.returncode not in passed:
        raise ToolError(
            command, status=done.returncode, stderr=done.stderr.strip()
        )
    return done.stdout
