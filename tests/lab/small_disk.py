"""A real disk that is small: a tmpfs in a mount namespace.

Processes enter it, and it vanishes with the process that holds it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import List, Optional

from .commands import require, unavailable
from .images import MIB

STEP_BYTES = 4 * MIB


class SmallDisk:
    """A tmpfs in a namespace of its own; a context manager.

    Args:
        directory: where it is mounted, for processes inside only.
    """

    def __init__(self, directory: Path, mib: float) -> None:
        self._directory = directory
        self._size = int(mib * MIB)
        self._holder: Optional[subprocess.Popen[str]] = None

    def __enter__(self) -> SmallDisk:
        require('unshare', 'nsenter', 'mount')
        self._directory.mkdir(parents=True, exist_ok=True)
        # A user namespace is what others than root need.
        user = [] if os.geteuid() == 0 else ['--map-root-user']
        self._holder = subprocess.Popen(
            ['unshare', '--mount', *user, 'sh', '-c',
             'mount -t tmpfs -o size="$0" none "$1" && echo here && cat',
             str(self._size), str(self._directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding='utf-8',
        )
        assert self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != 'here\n':
            reason = self._holder.stderr.read().strip()
            self.close()
            unavailable(f'cannot mount a tmpfs: {reason}')
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the namespace, and with it the disk."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    def enter(self, directory: Path) -> List[str]:
        """Return the words before a command that runs inside."""
        assert self._holder is not None
        user = [] if os.geteuid() == 0 else [
            '--user', '--preserve-credentials',
        ]
        return [
            'nsenter', '--target', str(self._holder.pid), '--mount', *user,
            'env', f'--chdir={directory}',
        ]

    @property
    def path(self) -> Path:
        """Return the disk as seen from outside."""
        assert self._holder is not None
        return Path(f'/proc/{self._holder.pid}/root{self._directory}')

    def mount(self, options: str) -> None:
        """Change the options of the mount."""
        subprocess.run(
            [*self.enter(Path('/')), 'mount', '-o', f'remount,{options}',
             str(self._directory)],
            check=True, stdin=subprocess.DEVNULL,
        )


def fill(disk: SmallDisk, *, leave: int) -> None:
    """Take the room on a disk, as another program may.

    In steps: who is tested may write at the same time.
    """
    taken = 0
    with open(disk.path / 'another', 'wb') as stream:
        while True:
            facts = os.statvfs(disk.path)
            size = min(facts.f_bavail * facts.f_frsize - leave, STEP_BYTES)
            if size <= 0:
                return
            os.posix_fallocate(stream.fileno(), taken, size)
            taken += size
