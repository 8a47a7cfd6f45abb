"""What is noted of built images, and how all of them become visible.

::

    DIR/NAME.qcow2, NAME.qcow2.metadata
    DIR/.build.json             what each image was built from
    DIR/.build-logs/NAME.log    what the tools printed
    DIR/.build-12345678/        a running build; see `scratch`
        out/                    what will lie in DIR
        complete                out/ is complete, and may be moved

A build that was killed before `complete` was there leaves nothing else; one
that was killed after it is completed by the next one.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import Dict, Mapping

from ..tools import tree

STATE_FILE = '.build.json'
LOGS = '.build-logs'
WORD = 'build'
OUT = 'out'
COMPLETE = 'complete'

_STRING = re.compile(r'[0-9a-f-]*')


@dataclass(frozen=True)
class Built:
    """What an image was built from.

    Attributes:
        id: of this build of it; another one has other bytes.
        spec: the digest of the spec.
        base: what tells its base from any other.
    """

    id: str
    spec: str
    base: str


def read_state(directory: str) -> Dict[str, Built]:
    """Return what is noted of the images of a directory, by their names.

    What cannot be read is built again.
    """
    data = tree.read_object(os.path.join(directory, STATE_FILE)) or {}
    found: Dict[str, Built] = {}
    for name, entry in data.items():
        if isinstance(entry, dict) and set(entry) == {'id', 'spec', 'base'}:
            if all(
                isinstance(value, str) and _STRING.fullmatch(value)
                for value in entry.values()
            ):
                found[name] = Built(**entry)
    return found


def write_state(directory: str, states: Mapping[str, Built]) -> None:
    """Write down what images were built from."""
    tree.write_json(
        os.path.join(directory, STATE_FILE),
        {name: asdict(state) for name, state in states.items()}, sync=True,
    )


def complete(scratch: str) -> None:
    """Say that all images of a build are there, and move them.

    Their bytes must be on the disk.
    """
    tree.sync_directory(os.path.join(scratch, OUT))
    tree.write_file(os.path.join(scratch, COMPLETE), b'', sync=True)
    tree.sync_directory(scratch)
    move_complete(scratch)


def move_complete(scratch: str) -> None:
    """Move what a build has completed to its place."""
    if not os.path.exists(os.path.join(scratch, COMPLETE)):
        return
    directory = os.path.dirname(scratch)
    out = os.path.join(scratch, OUT)
    # What was noted goes last: until then all of it counts as not built.
    for name in sorted(os.listdir(out), key=lambda one: one == STATE_FILE):
        os.replace(os.path.join(out, name), os.path.join(directory, name))
    tree.sync_directory(directory)
