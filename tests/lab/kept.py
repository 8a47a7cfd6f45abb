"""Keep what is built for tests from one run to the next.

What was built lies in ``.cache/lab``, under a digest of all that made it: a
change of the recipe, of a tool or of the lab's own code makes another one.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Callable

from .commands import run

ROOT = Path(__file__).parents[2] / '.cache' / 'lab'


def keep(recipe: object, make: Callable[[Path], object]) -> Path:
    """Return the directory that a recipe makes; make it if it is not kept.

    Processes that want the same wait for the one that makes it. What lies in
    the directory must not be changed.

    Args:
        recipe: all that decides on the result; its `repr` counts.
        make: fills an empty directory.
    """
    name = hashlib.sha256(repr(recipe).encode()).hexdigest()[:24]
    ROOT.mkdir(parents=True, exist_ok=True)
    kept = ROOT / name
    if kept.exists():
        return kept
    with open(ROOT / f'.{name[:2]}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=ROOT) as scratch:
                made = Path(scratch, 'made')
                made.mkdir()
                make(made)
                made.rename(kept)
    return kept


def copy(source: Path, destination: Path) -> Path:
    """Copy a file that is kept, for somebody who may change the copy."""
    destination.unlink(missing_ok=True)
    shutil.copyfile(source, destination)
    return destination


@functools.lru_cache(maxsize=None)
def version_of(tool: str) -> str:
    """Return what a tool says of its version."""
    return run(tool, '--version')
