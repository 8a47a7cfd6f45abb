"""Where things are in the directory of a repository::

    DIR/
      NAME.qcow2, ...                the admin's own images, "originals"
      repo.metadata                  the index; .asc beside it is its signature
      published/
        TEMPLATE/VERSION.qcow2.zst   an image as it is served; never changed
        TEMPLATE/VERSION.qcow2.metadata, .hash     for a plain Lago
        TEMPLATE/.VERSION.qcow2.zst.part           while it is written
        .originals.json              which original is which published image
        .lock                        flock(2) of who changes any of it

Who reads sees the old index or the new one, and every file of either: the
index is replaced in one step, after all its files are there.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Set

import lockfile

from ..core import errors
from ..core.model import FORMATS, Image, SUFFIXES
from ..index.file_names import PUBLISHED, SIDECARS
from ..repositories.directory import published_files
from ..tools import locks
from ..tools.tree import Tree, write_file, write_json
from .scratch import disk_errors

INDEX = 'repo.metadata'
SIGNATURE = f'{INDEX}.asc'

_PART = '.part'
_OURS = re.compile(
    r'[^.].*\.(?:' + '|'.join(FORMATS) + r')(?:'
    + '|'.join(map(re.escape, [*filter(None, SUFFIXES.values()), *SIDECARS]))
    + r')?'
)

HINT = 'Nothing was published; the repository is as it was.'


@dataclass(frozen=True)
class Known:
    """What is known of an original since it was published.

    Attributes:
        identity: of the file, as it was then.
        image: `TEMPLATE:VERSION`.
    """

    identity: str
    image: str


class Place:
    """The directory of a repository."""

    def __init__(self, directory: str) -> None:
        self.root = os.path.abspath(directory)
        # Of its own, as an admin may have linked it to a larger disk.
        self._published = Tree(self.path(PUBLISHED))

    def path(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.root, name)

    @property
    def index(self) -> str:
        """The path of the index."""
        return self.path(INDEX)

    @contextlib.contextmanager
    def alone(
        self, timeout: float, waiting: Callable[[str], None]
    ) -> Iterator[None]:
        """Keep others from changing the repository, and clear up after kills.

        Raises:
            PublishError: it cannot be written, or another one goes on for
                more than `timeout` seconds.
        """
        with disk_errors(self.root, HINT):
            if not os.path.isdir(self.root):
                raise errors.PublishError(
                    self.root, ['is not a directory'],
                    hint='Name the directory with the images.',
                )
            self._published.make_directory(self._published.root)
            lock = locks.ImageLock(
                self.path(f'{PUBLISHED}/.lock'), what='publishing',
                waiting=waiting,
            )
            try:
                lock.acquire(timeout)
            except lockfile.LockError as error:
                raise errors.PublishError(
                    self.root, [str(error)], hint='Run it again later.'
                ) from None
            try:
                self._clear()
                yield
            finally:
                lock.release()

    def _clear(self) -> None:
        """Remove what killed runs have left, wherever they have written."""
        for tree in (Tree(self.root), self._published):
            for parent, directories, _ in os.walk(tree.root):
                directories[:] = [
                    name for name in directories if not name.startswith('.')
                ]
                tree.sweep(parent)
        self.remove_begun(_PART)

    def remove_begun(self, ending: str) -> None:
        """Remove published files that are not complete, by their ending."""
        for name in published_files(self.root, hidden=True):
            # An image may be called so, too, but is not hidden.
            if re.search(rf'/\.[^/]*{re.escape(ending)}$', name):
                self._published.remove(self.path(name))

    def part(self, name: str) -> str:
        """Return where a file is written before it gets its name."""
        parent, file = os.path.split(self.make_parent(name))
        return os.path.join(parent, f'.{file}{_PART}')

    def make_parent(self, name: str) -> str:
        """Create the directory of a published file; return its path."""
        self._published.make_directory(os.path.dirname(self.path(name)))
        return self.path(name)

    def finish(self, name: str) -> None:
        """Give a file that was written its name."""
        self._published.rename(self.part(name), self.path(name))
        self._published.sync(os.path.dirname(self.path(name)))

    def read_known(self) -> Dict[str, Known]:
        """Return what is known of originals, by their path."""
        found = self._published.read_object(self._state()) or {}
        return {
            path: Known(str(one['identity']), str(one['image']))
            for path, one in found.items()
            if isinstance(one, dict) and {'identity', 'image'} <= set(one)
        }

    def write_known(self, known: Dict[str, Known]) -> None:
        """Remember what originals were published as."""
        self._published.write_json(self._state(), {
            path: vars(one) for path, one in sorted(known.items())
        })

    def write_sidecars(self, image: Image) -> None:
        """Write what a plain Lago, and old clients, look for."""
        sha1 = next(
            digest.value for digest in image.digests
            if digest.algorithm == 'sha1'
        )
        beside = self.path(image.handle)
        metadata: Dict[str, Any] = dict(image.metadata or {})
        # Beside an original it is the admin's own, which says more.
        if image.handle.startswith(f'{PUBLISHED}/') or not os.path.exists(
            f'{beside}.metadata'
        ):
            write_json(f'{beside}.metadata', metadata, sync=True)
        write_file(f'{beside}.hash', sha1.encode(), sync=True)

    def remove_unlisted(self, kept: Set[str]) -> None:
        """Remove published files that no image of the index has.

        Args:
            kept: their names, sidecars included.
        """
        for name in published_files(self.root, hidden=True):
            if name not in kept and _OURS.fullmatch(os.path.basename(name)):
                self._published.remove(self.path(name))
        for parent, _, _ in os.walk(self.path(PUBLISHED), topdown=False):
            if parent != self.path(PUBLISHED):
                with contextlib.suppress(OSError):
                    os.rmdir(parent)  # fails unless it is empty

    def _state(self) -> str:
        return self.path(f'{PUBLISHED}/.originals.json')


def identify(path: str) -> str:
    """Return what changes when a file does."""
    found = os.stat(path)
    return f'{found.st_size}-{found.st_mtime_ns}-{found.st_ino}'
