"""Run qemu-img; the only place that does.

Every image is opened with the format given, never probed. Those that come
from a repository are opened alone: neither `check` nor `info` follows a
backing file. Their headers are judged by `formats.qcow2_safety`
before. Whoever lets qemu-img follow a chain has looked at all of its headers.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional

from ..core.errors import ToolError
from . import processes

TOOL = 'qemu-img'
INSTALL_HINT = 'Install qemu-img (Debian: qemu-utils, Fedora: qemu-img).'

#: The first version that does all that is asked of it here.
OLDEST = (6, 1)

TIMEOUT_SECONDS = 600

#: A check reads all tables of an image, on a slow disk too: of 2 GB in 10 ms.
#: The memory is that for the clusters of 30 TB.
CHECK_LIMITS = processes.Limits(
    memory=1 << 30, cpu_seconds=60, seconds=TIMEOUT_SECONDS
)

#: A rebase may read and write all of a large disk; this only ends what hangs.
REBASE_TIMEOUT_SECONDS = 6 * 3600

#: Leaked clusters (3) waste room and harm nothing; of a raw image there is
#: nothing to check (63). See qemu-img(1).
CHECK_PASSED = (0, 3, 63)

#: Lines shown of what a check has found; it may find millions.
SHOWN_LINES = 3


def require() -> None:
    """Make sure that there is a qemu-img, and one that is not too old.

    Raises:
        ToolError: there is none in PATH, or its version is below `OLDEST`.
    """
    path = shutil.which(TOOL)
    if path is None:
        raise ToolError([TOOL], stderr='not found', hint=INSTALL_HINT)
    _check_version(path)


@functools.lru_cache(maxsize=None)
def _check_version(path: str) -> None:
    """Raise ToolError for an old qemu-img; it is asked once."""
    said = processes.run(
        [path, '--version'], timeout=TIMEOUT_SECONDS, hint=INSTALL_HINT
    )
    # What does not say its version is for its user to judge.
    found = re.search(r'version (\d+)\.(\d+)', said)
    if found and tuple(map(int, found.groups())) < OLDEST:
        raise ToolError(
            [path],
            stderr=(
                f'it is of {found.group()}, expected '
                f'{".".join(map(str, OLDEST))} or newer'
            ),
            hint=INSTALL_HINT,
        )


def check(path: str, fmt: str) -> None:
    """Check the tables of an image, without its backing file.

    Nobody has to trust the image: only its header must be safe.

    Raises:
        ToolError: it is damaged, or cannot be checked; `stderr` says why.
    """
    node: Dict[str, Any] = {
        'driver': fmt,
        'file': {'driver': 'file', 'filename': os.path.abspath(path)},
    }
    if fmt == 'qcow2':
        # The base may not be visible yet; -f has no way to leave it out.
        node['backing'] = None
    name = f'json:{json.dumps(node)}'
    try:
        processes.run_limited(
            [TOOL, 'check', '-q', name], CHECK_LIMITS,
            hint=INSTALL_HINT, passed=CHECK_PASSED,
        )
    except ToolError as error:
        if error.status is None:
            raise
        raise ToolError(
            [TOOL, 'check', path], status=error.status,
            stderr=_shorten_check(error.stderr.replace(name, path)),
        ) from None


def _shorten_check(said: str) -> str:
    """Return what is worth to be read of the output of a check."""
    lines = [
        line for line in said.splitlines()
        if line and not line.startswith(('Leaked', 'No errors'))
    ]
    shown = lines[:SHOWN_LINES]
    if len(lines) > SHOWN_LINES:
        shown.append('...')
    return '\n'.join(shown)


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


def create_layer(path: str, base: str, base_format: str) -> None:
    """Create an empty qcow2 layer, of the virtual size of its base.

    Raises:
        ToolError: qemu-img failed, or the base cannot be used.
    """
    _run(
        ['create', '-q', '-f', 'qcow2', '-F', base_format,
         '-b', os.path.abspath(base), os.path.abspath(path)],
    )


def keep_difference(path: str, base: str, base_format: str) -> None:
    """Put an empty qcow2 layer on another base, with what differs in it.

    Where the old base has zeros and the new one data, the layer gets
    clusters that are marked as zeros and take no room.

    Raises:
        ToolError: qemu-img failed; the layer cannot be used any more.
    """
    node = {
        'driver': 'qcow2', 'discard': 'unmap', 'detect-zeroes': 'unmap',
        'file': {'driver': 'file', 'filename': os.path.abspath(path)},
    }
    _run(
        ['rebase', '-q', '-F', base_format, '-b', os.path.abspath(base),
         f'json:{json.dumps(node)}'],
        timeout=REBASE_TIMEOUT_SECONDS,
    )


def repack_layer(
    source: str, target: str, base: str, base_format: str
) -> None:
    """Copy a qcow2 layer without what it does not need.

    qemu-img compares sectors when it rebases, and may so fill a cluster with
    zeros piece by piece; here whole clusters of zeros are seen.

    Args:
        base: what the layer stands on.

    Raises:
        ToolError: qemu-img failed.
    """
    _run(
        ['convert', '-q', '-f', 'qcow2', '-O', 'qcow2', '-S', '64k',
         '-B', os.path.abspath(base), '-F', base_format,
         os.path.abspath(source), os.path.abspath(target)],
        timeout=REBASE_TIMEOUT_SECONDS,
    )


def convert(source: str, fmt: str, target: str) -> None:
    """Write all that a guest sees into a qcow2 without a backing file.

    Raises:
        ToolError: qemu-img failed.
    """
    _run(
        ['convert', '-q', '-f', fmt, '-O', 'qcow2',
         os.path.abspath(source), os.path.abspath(target)],
        timeout=REBASE_TIMEOUT_SECONDS,
    )


def find_difference(
    path: str, fmt: str, other: str, other_format: str
) -> Optional[str]:
    """Compare what a guest sees; return the difference, None for none.

    Raises:
        ToolError: one of them cannot be read.
    """
    said = _run(
        ['compare', '-f', fmt, '-F', other_format,
         os.path.abspath(path), os.path.abspath(other)],
        passed=(0, 1), timeout=REBASE_TIMEOUT_SECONDS,
    ).strip()
    return None if said.endswith('Images are identical.') else said


def measure(path: str, fmt: str) -> int:
    """Return the bytes that `convert` would write of an image.

    Raises:
        ToolError: it cannot be read.
    """
    output = _run([
        'measure', '-f', fmt, '-O', 'qcow2', '--output=json',
        os.path.abspath(path),
    ])
    return int(json.loads(output)['required'])


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
