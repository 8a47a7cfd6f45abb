"""Where repositories are, in which order they are searched, how one is read.

A repository is a path or URL of an index, or a name below `template_repos`.
Nothing is read before somebody calls `read`.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from .core import errors, index
from .core.catalog import Unread
from .core.index import Index
from .core.initfile import REPOSITORIES, RepositoryEntry
from .providers import Document
from .settings import Settings
from .store import KeptIndex, Store

#: Seconds to wait for a server whose index we have kept.
KEPT_TIMEOUT_SECONDS = 10

INDEX_HINT = (
    'Check the address of the index: template-repo in the init file, '
    '--template-repo-path, or template_repo_path in lago.conf.'
)
OFFLINE_HINT = 'Run it once without --offline; then it is kept.'

T = TypeVar('T')
Warn = Callable[[str], None]


@dataclass(frozen=True)
class ByPath:
    """The repository with the index at a path or URL."""

    location: str

    @property
    def place(self) -> Unread:
        """What a catalog knows of it before it is read."""
        return Unread(self.location)

    def read(
        self, settings: Settings, warn: Warn, store: Optional[Store] = None,
        keep: bool = True,
    ) -> Index:
        """Return the index.

        A kept one is used when the server says that it has not changed, and,
        with a warning, when the server cannot be reached.

        Args:
            store: where an index is kept for a day without a network.
            keep: keep what is read; without it the store is not changed.

        Raises:
            TransferError, IndexFaults, Offline: there is none to use.
        """
        kept = store.kept_index(self.location) if store else None
        if settings.offline and is_remote(self.location):
            if kept is None:
                raise errors.Offline(
                    f'{self.location} is not asked (--offline), and no index '
                    f'of it was kept.', hint=OFFLINE_HINT,
                )
            return index.parse_index(kept.body, self.location)
        try:
            document = _read_document(self.location, kept, settings)
        except errors.TransferError as error:
            if kept is None or _is_answer(error):
                raise
            warn(
                f'{error.message}; using the index kept from the last time'
            )
            return index.parse_index(kept.body, self.location)
        if document.body is None and kept is not None:
            return index.parse_index(kept.body, self.location)
        body = document.body or b''
        found = index.parse_index(body, self.location)
        if store and keep:
            store.keep_index(self.location, body, document.validator)
        return found


def _is_answer(error: errors.TransferError) -> bool:
    """Tell whether a server says no, instead of being away.

    An answer such as 404 says more than what was kept; a name that is not
    known is what a laptop without a network gets.
    """
    if error.status is None or error.status >= 500:
        return False
    if not error.retryable:
        error.hint = INDEX_HINT
    return True


def _read_document(
    location: str, kept: Optional[KeptIndex], settings: Settings
) -> Document:
    """Read an index unless it is as it was kept."""
    from .providers import read_document

    if kept is None:
        return try_again(lambda: read_document(
            location, limit=index.MAX_INDEX_BYTES, timeout=settings.timeout
        ), settings.retries)
    # Nobody should wait long for a server that can be done without.
    return read_document(
        location,
        validator=kept.validator,
        limit=index.MAX_INDEX_BYTES,
        timeout=min(settings.timeout, KEPT_TIMEOUT_SECONDS),
    )


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
        keep: bool = True,
    ) -> Index:
        """Return the index; the arguments are those of `ByPath.read`.

        Raises:
            TemplateNotFound: no index there has that name.
        """
        known = []
        for path in find_json(self.directory):
            try:
                found = ByPath(path).read(settings, warn)
            except (errors.TransferError, errors.IndexFaults):
                continue  # Lago's directory may hold other JSON files
            if found.name == self.name:
                return found
            known.append(found.name)
        raise errors.TemplateNotFound(
            f'Repository {self.name!r} is not in {self.directory}; there '
            f'are: ' + (', '.join(sorted(known)) or 'none'),
            hint='Add it there, or name an index by --template-repo-path.',
        )


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


def is_remote(location: str) -> bool:
    """Tell whether a server has to be asked for what is there."""
    scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', location)
    return scheme is not None and scheme.group(1).lower() != 'file'


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
    return tuple(dict.fromkeys([*first, *entries, *last]))


def try_again(action: Callable[[], T], retries: int) -> T:
    """Run a small request again while that can help."""
    for failures in range(retries):
        try:
            return action()
        except errors.TransferError as error:
            if not error.retryable:
                raise
        time.sleep(min(0.2 * 2 ** failures, 5))
    return action()
