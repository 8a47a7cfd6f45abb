"""Clone and update git repositories; the only place that runs git.

It asks nobody for a password, and speaks only the protocols of `PROTOCOLS`:
git's `ext::` would run any command that stands in a URL.
"""

from __future__ import annotations

import os
from typing import Dict, List

from . import processes

TOOL = 'git'
INSTALL_HINT = 'Install git.'

PROTOCOLS = 'http:https:ssh:git:file'

#: This only ends what hangs.
TIMEOUT_SECONDS = 3600

#: git gives up when it gets less than this for so long.
SLOW_BYTES_PER_SECOND = 1

#: They would lead git to another repository than the one that is named; see
#: `git rev-parse --local-env-vars`.
LOCAL_VARIABLES = frozenset({
    'GIT_DIR', 'GIT_WORK_TREE', 'GIT_INDEX_FILE', 'GIT_COMMON_DIR',
    'GIT_OBJECT_DIRECTORY', 'GIT_ALTERNATE_OBJECT_DIRECTORIES',
    'GIT_NAMESPACE', 'GIT_PREFIX', 'GIT_CONFIG', 'GIT_CONFIG_PARAMETERS',
    'GIT_CONFIG_COUNT', 'GIT_SHALLOW_FILE', 'GIT_GRAFT_FILE',
})


def clone(url: str, directory: str, *, timeout: float) -> None:
    """Clone a repository into a directory that is not there yet.

    Args:
        timeout: seconds without any byte.

    Raises:
        ToolError: git is missing or failed.
    """
    _run(['clone', '--quiet', '--', url, directory], timeout=timeout)


def pull(directory: str, *, timeout: float) -> None:
    """Bring a clone up to date, if nobody has changed it here.

    Args:
        timeout: seconds without any byte.

    Raises:
        ToolError: git failed, and has changed nothing.
    """
    _run_in(directory, [
        'pull', '--quiet', '--ff-only', '--no-rebase',
        '--no-recurse-submodules',
    ], timeout=timeout)


def head(directory: str) -> str:
    """Return the commit that a clone shows."""
    return _run_in(directory, ['rev-parse', '--verify', 'HEAD']).strip()


def go_back(directory: str, commit: str) -> None:
    """Show an earlier commit again; what was changed here stays."""
    _run_in(directory, ['reset', '--quiet', '--keep', commit, '--'])


def is_changed(directory: str) -> bool:
    """Tell whether somebody has changed files of a clone, or added some."""
    return bool(_run_in(directory, ['status', '--porcelain']).strip())


def _run_in(directory: str, command: List[str], timeout: float = 60) -> str:
    return _run(['-C', directory, *command], timeout=timeout)


def _run(command: List[str], *, timeout: float) -> str:
    return processes.run(
        [TOOL, *command], timeout=TIMEOUT_SECONDS, hint=INSTALL_HINT,
        environment=_environment(timeout),
    )


def _environment(timeout: float) -> Dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items()
        if key not in LOCAL_VARIABLES
    }
    return {
        'GIT_SSH_COMMAND': 'ssh -oBatchMode=yes',
        **kept,
        'GIT_TERMINAL_PROMPT': '0',
        'GIT_ASKPASS': 'true',
        'GIT_ALLOW_PROTOCOL': PROTOCOLS,
        'GIT_HTTP_LOW_SPEED_LIMIT': str(SLOW_BYTES_PER_SECOND),
        'GIT_HTTP_LOW_SPEED_TIME': str(max(1, round(timeout))),
    }
