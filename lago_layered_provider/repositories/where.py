"""Where repositories are, and in which order they are searched.

A repository is a path or URL of an index, or a name below `template_repos`.
Nothing is read before somebody calls `read`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import (
    Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union,
)

from ..core import errors
from ..core.initfile import REPOSITORIES, RepositoryEntry
from ..index import source_places
from ..index.catalog import Unread
from ..index.document import Index, is_remote
from ..index.source_places import local_path
from ..settings import Settings
from ..store import Store
from ..tools import files
from .reading import Warn, read_index, try_again

__all__ = [
    'ByName', 'ByPath', 'Repository', 'Warn', 'expand', 'find_entries',
    'find_json', 'search_order', 'try_again',
]


@dataclass(frozen=True)
class ByPath:
    """The repository with the index at a path or URL."""

    path: str

    @property
    def location(self) -> str:
        """Where it is, as it may be shown; all others know it by that."""
        return source_places.hide_secrets(self.path)

    @property
    def portable(self) -> str:
        """The path as it means the same elsewhere, in a file of anybody."""
        if is_remote(self.path):
            # Passwords belong to the user and not into a file.
            return source_places.without_user(self.path)
        return self.path if '://' in self.path else os.path.abspath(self.path)

    @property
    def place(self) -> Unread:
        """What a catalog knows of it before it is read."""
        return Unread(self.location)

    def read(
        self, settings: Settings, warn: Warn, store: Optional[Store] = None,
        keep: bool = True, fresh: bool = False,
    ) -> Index:
        """Return the index.

        A kept one is used when the server says that it has not changed, and,
        with a warning, when the server cannot be reached.

        Args:
            store: where an index is kept for a day without a network.
            keep: keep what is read; without it the store is not changed.
            fresh: no cache on the way may answer.

        Raises:
            TransferError, IndexFaults, Offline: there is none to use.
            SignatureRefused: a keyring is set, and it is not signed well.
        """
        found = read_index(
            self.path, settings, warn, store, keep, fresh
        )
        return found if is_remote(self.location) else _trace(found)


@dataclass(frozen=True)
class ByName:
    """The repository of a name below a directory.

    As for Lago, any file there that ends in .json may be an index.
    """

    name: str
    directory: str

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        return f'{self.name} in {self.directory}'

    @property
    def place(self) -> Unread:
        """What a catalog knows of it before it is read."""
        return Unread(self.location, self.name)

    def read(
        self, settings: Settings, warn: Warn, store: Optional[Store] = None,
        keep: bool = True, fresh: bool = False,
    ) -> Index:
        """Return the index; the arguments are those of `ByPath.read`.

        Raises:
            TemplateNotFound: no index there has that name.
            SignatureRefused: a keyring is set, and it is not signed well.
        """
        known = []
        for path, found in self._indexes(settings, warn):
            if found.name == self.name:
                if settings.keyring:
                    found = ByPath(path).read(settings, warn)
                return found
            known.append(found.name)
        raise errors.TemplateNotFound(
            f'Repository {self.name!r} is not in {self.directory}; there '
            f'are: ' + (', '.join(sorted(known)) or 'none'),
            hint='Add it there, or name an index by --template-repo-path.',
        )

    def is_there(self, settings: Settings) -> bool:
        """Tell whether an index there has that name."""
        return any(
            found.name == self.name
            for _, found in self._indexes(settings, lambda _: None)
        )

    def _indexes(
        self, settings: Settings, warn: Warn
    ) -> Iterator[Tuple[str, Index]]:
        # Other JSON files need no signature, and may be no index at all.
        unchecked = replace(settings, keyring=None)
        for path in find_json(self.directory):
            try:
                found = ByPath(path).read(unchecked, warn)
            except (errors.TransferError, errors.IndexFaults):
                continue
            yield path, found


def _trace(found: Index) -> Index:
    """Return an index in a file of this machine, with where it came from."""
    path = local_path(found.location)
    if path is None:
        path = os.path.expanduser(os.path.expandvars(found.location))
    return replace(found, origin=_find_origin(path), clone=_find_clone(path))


def _find_origin(path: str) -> str:
    """Return the URL or path that an index was added from, '' for others."""
    name, ending = os.path.splitext(path)
    if ending != '.json':
        return ''
    try:
        with files.open_text(f'{name}.url') as stream:
            origin = stream.readline().strip()
    except (OSError, UnicodeError):
        return ''
    # Shortcuts of other programs have that ending, too.
    return origin if '://' in origin or os.path.isabs(origin) else ''


def _find_clone(path: str) -> str:
    """Return the git repository that an index was added with, '' for none.
    """
    above = os.path.dirname(os.path.realpath(path))
    while above != os.path.dirname(above):
        if os.path.lexists(mark_of(above)):
            return above
        above = os.path.dirname(above)
    return ''


def mark_of(clone: str) -> str:
    """Return the file that says where a clone is from."""
    return os.path.join(clone, '.git', 'lago-url')


def find_json(directory: str) -> List[str]:
    """Return the files below a directory that may be indexes, as for Lago.
    """
    return [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(directory))
        for name in sorted(names)
        if name.endswith('.json')
    ]


Repository = Union[ByPath, ByName]


def expand(path: str, directory: str) -> str:
    """Return a path or URL of an init file as everybody understands it.

    Variables and ~ are expanded; a relative path is one from `directory`.

    Raises:
        ValueError: a variable is not set.
    """
    found = os.path.expandvars(path)
    unset = re.search(r'\$(\w+|\{[^}]*\})', found)
    if unset:
        raise ValueError(f'the variable {unset.group()} is not set')
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', found):
        return found
    return os.path.normpath(os.path.join(directory, os.path.expanduser(found)))


def find_entries(
    entries: Sequence[RepositoryEntry],
    directory: str,
    repos_directory: str,
    document: str,
) -> Dict[str, Repository]:
    """Return the repositories of an init file, by what it calls them.

    Args:
        directory: where the init file is.
        repos_directory: where repositories are found by their name.
        document: the init file's name, for messages.

    Raises:
        IndexFaults: a path cannot be expanded; all of them.
    """
    found: Dict[str, Repository] = {}
    faults = []
    for number, entry in enumerate(entries, 1):
        if entry.name is not None:
            found[entry.name] = ByName(entry.name, repos_directory)
        elif entry.path is not None:
            try:
                found[entry.path] = ByPath(expand(entry.path, directory))
            except ValueError as error:
                faults.append(f'{REPOSITORIES}, entry {number}: {error}')
    if faults:
        raise errors.IndexFaults(document, faults)
    return found


def search_order(
    given: Iterable[Repository],
    entries: Iterable[Repository],
    default: Optional[Repository],
) -> Tuple[Repository, ...]:
    """Return the repositories of an environment, first come first searched.

    Args:
        given: on the command line, or the default where nobody gave one.
        entries: of the init file.
        default: the one that Lago is configured to use.
    """
    first = [each for each in given if each != default]
    last = [] if default is None else [default]
    found: Dict[Unread, Repository] = {}
    for each in (*first, *entries, *last):
        # Who says it again, without a password, does not take that away.
        found.setdefault(each.place, each)
    return tuple(found.values())
