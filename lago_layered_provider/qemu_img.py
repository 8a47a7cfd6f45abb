"""Run qemu-img; the only place that does.

Every image is opened with the format given, never probed. Those that come
from a repository are opened alone: neither `check` nor `info` follows a
backing file. Their headers are judged by `core.safety` before.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional

from . import processes
from .core.errors import ToolError

TOOL = 'qemu-img'
INSTALL_HINT = 'Install qemu-img (Debian: qemu-utils, Fedora: qemu-img).'

#: A check reads all tables of an image, on a slow disk too.
TIMEOUT_SECONDS = 600

#: A rebase may read and write all of a large disk; this only ends what hangs.
REBASE_TIMEOUT_SECONDS = 6 * 3600

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


def rebase(
    path: str, fmt: str, base: Optional[str], base_format: str = ''
) -> None:
    """Put an image on another base; the guest sees the same bytes.

    What the new base lacks is taken from the old chain into the image.

    Args:
        base: the path of the new base, None for none.

    Raises:
        ToolError: qemu-img failed; the image cannot be used any more.
    """
    _rebase(path, fmt, base or '', base_format, [])


def rename_base(path: str, fmt: str, name: str, base_format: str) -> None:
    """Write another name of the same base into an image.

    Raises:
        ToolError: qemu-img failed.
    """
    _rebase(path, fmt, name, base_format, ['-u'])


def _rebase(
    path: str, fmt: str, base: str, base_format: str, options: List[str]
) -> None:
    if base_format:
        options = [*options, '-F', base_format]
    _run(
        ['rebase', '-q', *options, '-f', fmt, '-b', base,
         os.path.abspath(path)],
        timeout=REBASE_TIMEOUT_SECONDS,
    )


def _run(
    arguments: List[str],
    passed: Collection[int] = (0,),
    timeout: Optional[float] = None,
) -> str:
    return processes.run(
        [TOOL, *arguments],
        timeout=TIMEOUT_SECONDS if timeout is None else timeout,
        hint=INSTALL_HINT,
        passed=passed,
    )
