"""Run qemu-img; the only place that does.

Every image is opened with the format given, never probed, and alone: neither
call follows its backing file. Headers are judged by `core.safety` before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping

from .core.errors import ToolError

TOOL = 'qemu-img'
INSTALL_HINT = 'Install qemu-img (Debian: qemu-utils, Fedora: qemu-img).'

#: A check reads all tables of an image, on a slow disk too.
TIMEOUT_SECONDS = 600

#: Leaked clusters (3) waste room and harm nothing; of a raw image there is
#: nothing to check (63). See qemu-img(1).
CHECK_PASSED = (0, 3, 63)


def require() -> None:
    """Make sure that there is a qemu-img.

    Raises:
        ToolError: there is none in PATH.
    """
    if shutil.which(TOOL) is None:
        raise ToolError([TOOL], stderr='not found', hint=INSTALL_HINT)


def check(path: Path, fmt: str) -> None:
    """Check the tables of an image, without its backing file.

    Raises:
        ToolError: it is damaged, or cannot be checked.
    """
    node: Dict[str, Any] = {
        'driver': fmt,
        'file': {'driver': 'file', 'filename': os.path.abspath(path)},
    }
    if fmt == 'qcow2':
        # The base may not be visible yet; -f has no way to leave it out.
        node['backing'] = None
    _run(['check', '-q', f'json:{json.dumps(node)}'], passed=CHECK_PASSED)


def info(path: Path, fmt: str) -> Mapping[str, Any]:
    """Return what ``qemu-img info --output=json`` says of an image.

    Raises:
        ToolError: qemu refuses it.
    """
    # A relative name with a colon would be a protocol.
    output = _run(
        ['info', '-f', fmt, '--output=json', os.path.abspath(path)]
    )
    result: Dict[str, Any] = json.loads(output)
    return result


def _run(arguments: List[str], passed: Collection[int] = (0,)) -> str:
    command = [TOOL, *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, 'LC_ALL': 'C'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding='utf-8',
            errors='replace',
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(
            command, stderr='not found', hint=INSTALL_HINT
        ) from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            command, stderr=f'no answer within {TIMEOUT_SECONDS} seconds'
        ) from None
    except OSError as error:
        raise ToolError(command, stderr=str(error)) from error
    if done.returncode not in passed:
        raise ToolError(
            command, status=done.returncode, stderr=done.stderr.strip()
        )
    return done.stdout
