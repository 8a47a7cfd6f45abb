"""Run command line tools, and say which of them a test needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn, Optional, Union

#: Where Debian keeps tools that a normal user's PATH may lack.
SYSTEM_PATH = '/usr/local/sbin:/usr/sbin:/sbin'

Argument = Union[str, Path, int]


class MissingTool(RuntimeError):
    """A tool that CI promised is not there."""


def find(tool: str) -> Optional[str]:
    """Return the path of a tool, looking in the system's sbin as well."""
    path = os.environ.get('PATH', os.defpath)
    return shutil.which(tool, path=f'{path}:{SYSTEM_PATH}')


def have(*tools: str) -> bool:
    """Tell whether all the tools are installed."""
    return all(find(tool) for tool in tools)


def require(*tools: str) -> None:
    """Skip the running test when a tool is missing; fail when CI is set.

    Args:
        tools: names of programs, or absolute paths of files.
    """
    missing = [tool for tool in tools if not find(tool)]
    if missing:
        unavailable(f'not installed: {", ".join(missing)}')


def unavailable(reason: str) -> NoReturn:
    """Skip the running test.

    Raises:
        MissingTool: CI is set, or no test is running.
    """
    in_ci = os.environ.get('CI', '').lower() in ('1', 'true', 'yes')
    if in_ci or 'PYTEST_CURRENT_TEST' not in os.environ:
        raise MissingTool(reason)
    import pytest
    pytest.skip(reason)


def run(
    *command: Argument,
    cwd: Optional[Path] = None,
    timeout: float = 600,
    stdin: Optional[str] = None,
) -> str:
    """Run a tool to its end and return what it printed.

    Raises:
        RuntimeError: it failed; with the command and its stderr.
    """
    argv = [str(word) for word in command]
    argv[0] = find(argv[0]) or argv[0]
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, 'LC_ALL': 'C'},
        input='' if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=timeout,
        encoding='utf-8',
        errors='replace',
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f'{" ".join(argv)}: exit status {done.returncode}\n{done.stderr}'
        )
    return done.stdout
