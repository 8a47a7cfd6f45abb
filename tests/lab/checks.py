"""What holds for every environment that ``lago init`` made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Tuple

from .environments import Finished, LagoSandbox
from .images import DiskImage, backing_chain, guest_digest


def init_well(box: LagoSandbox, *arguments: str) -> Finished:
    """Run ``lago init`` and insist on success."""
    done = box.init(*arguments)
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    return done


def check_disks(
    box: LagoSandbox, forest: Mapping[str, DiskImage], **images: str
) -> None:
    """Insist that guests see the bytes of the original images.

    Args:
        images: VM -> name of the image in the forest.
    """
    for vm, image in images.items():
        digest = guest_digest(box.disk(vm))
        assert digest == forest[image].guest_sha256, f'{vm} on {image}'


def links_of(disk: Path) -> List[Tuple[Any, Any]]:
    """Return name and format of each file below a disk, as recorded.

    The format is what the header above says of its backing file, not what
    qemu finds there; None where it says nothing.
    """
    chain = backing_chain(disk)
    assert 'backing-filename' not in chain[-1]
    return [
        (
            Path(str(below['filename'])).name,
            above.get('backing-filename-format'),
        )
        for above, below in zip(chain, chain[1:])
    ]
