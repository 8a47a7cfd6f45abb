"""The repositories that people have added below `template_repos`.

Lago finds a repository by its name in any .json file there; so does
`where.ByName`. What was added lies beside what others put there::

    DIRECTORY/
      NAME.json             an index, as its server has it
      NAME.json.asc         its signature, where there is a keyring
      NAME.url              where it is from
      NAME/                 a clone of a git repository, with indexes in it
      NAME/.git/lago-url    where it is from
      .changing-*/          of a command that runs, or was killed

Who changes any of it holds a flock(2) on the directory itself. What has no
such URL was not added here, and is never touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Iterator, List, Optional

from ..core import errors, model
from ..index import document
from ..index.document import Index
from ..tools import files
from ..tools.tree import Tree, write_file
from .where import find_json, mark_of

GIT, INDEX = 'git', 'index'
CHANGING = '.changing-'
NOT_WRITABLE_HINT = (
    'See the rights of the directory, or choose another one: template_repos '
    'in section [init] of lago.conf.'
)


@dataclass(frozen=True)
class Added:
    """A repository that was added; `kind` is GIT or INDEX."""

    name: str
    kind: str
    url: str


@dataclass(frozen=True)
class Known:
    """An index that is found by its own name.

    `added` is the name under which it was added, None if it was not.
    """

    name: str
    path: str
    templates: int
    added: Optional[str]


class ReposDirectory:
    """One directory of repositories.

    Every method may raise RepositoryError for a directory that cannot be
    read or written.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def file(self, name: str) -> str:
        """Return the path of an entry."""
        return os.path.join(self.path, name)

    def added(self) -> List[Added]:
        """Return what was added, by name."""
        found = []
        with disk_errors(self.path):
            for entry in sorted(_list(self.path)):
                name, ending = os.path.splitext(entry)
                mark = mark_of(self.file(entry))
                if not model.NAME_PATTERN.fullmatch(entry):
                    continue
                path = self.file(entry)
                if ending == '.url' and os.path.isfile(path):
                    url = _read_line(path)
                    found.append(Added(name, INDEX, url))
                elif os.path.isfile(mark):
                    found.append(Added(entry, GIT, _read_line(mark)))
        return found

    def known(self) -> List[Known]:
        """Return all indexes that have a name, in the order of the names."""
        added = {(each.kind, each.name) for each in self.added()}
        found = []
        for path in find_json(self.path):
            below = os.path.relpath(path, self.path)
            name, slash, _ = below.partition(os.sep)
            if not slash:
                name = name[:-len('.json')]
            one = read_index(path)
            if one is None or name.startswith(CHANGING):
                continue
            known = (GIT if slash else INDEX, name) in added
            found.append(Known(
                one.name, path, len(one.templates()), name if known else None
            ))
        return sorted(found, key=lambda one: (one.name, one.path))

    def replace(self, name: str, body: bytes) -> None:
        """Write a file in one step."""
        write_file(self.file(name), body, sync=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """Give a directory in the same file system, and remove it."""
        path = tempfile.mkdtemp(prefix=CHANGING, dir=self.path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self, *, create: bool = False) -> Iterator[None]:
        """Lock the directory, and clear away what kills left behind."""
        with disk_errors(self.path):
            if create:
                os.makedirs(self.path, exist_ok=True)
            lock = files.claim_directory(self.path, follow=True)
            if lock is None:
                raise errors.RepositoryError(
                    f'{self.path}: another command is changing it',
                    hint='Run it again later.',
                )
            try:
                Tree(self.path).sweep(self.path)
                for entry in os.listdir(self.path):
                    if entry.startswith(CHANGING):
                        shutil.rmtree(self.file(entry), ignore_errors=True)
                yield
            finally:
                os.close(lock)


@contextlib.contextmanager
def disk_errors(directory: str) -> Iterator[None]:
    """Turn what the system says of files into an error for people."""
    try:
        yield
    except OSError as error:
        raise errors.RepositoryError(
            f'{error.filename or directory}: {error.strerror or error}',
            hint=NOT_WRITABLE_HINT,
        ) from error


def parse(body: bytes, url: str) -> Index:
    """Read an index that has templates.

    Raises:
        IndexFaults: it is none; any JSON object with a name would else do.
    """
    found = document.parse_index(body, url)
    if not found.templates():
        raise errors.IndexFaults(url, ['there are no "templates" in it'])
    return found


def read_index(path: str) -> Optional[Index]:
    """Return the index in a file, None if it is not one."""
    try:
        return parse(read_bytes(path), path)
    except (OSError, errors.IndexFaults):
        return None


def read_bytes(path: str) -> bytes:
    """Return what is in a file that may be an index; none is empty."""
    try:
        with files.open_binary(path) as stream:
            return stream.read(document.MAX_INDEX_BYTES + 1)
    except FileNotFoundError:
        return b''


def _list(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _read_line(path: str) -> str:
    with files.open_text(path, on_error='replace') as stream:
        return stream.readline().strip()
