"""Add, update and remove repositories below `template_repos`."""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Optional

from ..core import errors
from ..core.model import check_name
from ..tools import git, gpg
from ..tools.tree import write_file
from .added_files import (
    Added, GIT, INDEX, ReposDirectory, parse, read_bytes, read_index,
)
from .reading import Fetched, refuse_older
from .where import find_json, mark_of


class AddedRepositories:
    """The repositories in a directory, as `template-repo` changes them.

    Args:
        read: returns the index at a URL, with the signature that proves it
            where there is a keyring.
        timeout: of git, in seconds without any byte.

    Every method may raise RepositoryError for a name that cannot be one, and
    for a directory that cannot be read or written.
    """

    def __init__(
        self, directory: ReposDirectory, read: Callable[[str], Fetched],
        timeout: float,
    ) -> None:
        self.directory = directory
        self._read = read
        self._timeout = timeout

    def add(self, url: str, name: Optional[str]) -> Added:
        """Add the repository at a URL.

        What can be read as an index is one; all else is git's.

        Args:
            name: of the file or directory; None for that of the index, or
                the last part of a git repository's URL.

        Raises:
            RepositoryError: it is neither, or something of that name exists.
        """
        if name is not None:
            _check(name)
        if url.startswith('-') or not url.isprintable() or not url:
            raise errors.RepositoryError(f'{url!r} is not a URL or a path')
        if os.path.exists(url):
            url = os.path.abspath(url)  # an update runs elsewhere
        with self.directory.alone(create=True):
            if name is not None:
                self._refuse_existing(name)
            try:
                fetched = self._read(url)
                found = parse(fetched.body or b'', url)
            except (errors.TransferError, errors.IndexFaults) as error:
                return self._clone(url, name or _last_part(url), error)
            name = name or found.name
            self._refuse_existing(name)
            # In this order: what a kill leaves is mended by an update.
            self.directory.replace(f'{name}.url', f'{url}\n'.encode())
            self._save(name, fetched)
            return Added(name, INDEX, url)

    def _clone(
        self, url: str, name: str, reason: errors.LayeredError
    ) -> Added:
        _check(name)
        self._refuse_existing(name)
        with self.directory.scratch() as scratch:
            new = os.path.join(scratch, name)
            try:
                git.clone(url, new, timeout=self._timeout)
            except errors.ToolError as error:
                said = ''.join(
                    '\n  - ' + each.message.replace('\n', '\n    ')
                    for each in (reason, error)
                )
                raise errors.RepositoryError(
                    f'{url} is neither an index nor a git repository:{said}',
                    hint=error.hint or 'Check the URL.',
                ) from error
            if not _has_index(new):
                raise errors.RepositoryError(
                    f'{url}: there is no index in that git repository; '
                    f'Lago looks for files named *.json with a "name" and '
                    f'"templates"',
                )
            write_file(mark_of(new), f'{url}\n'.encode())
            os.rename(new, self.directory.file(name))
        return Added(name, GIT, url)

    def remove(self, name: str) -> Added:
        """Remove a repository that was added.

        Raises:
            RepositoryError: there is none of that name, or somebody has
                changed its files.
        """
        self._find(name)  # before, as the directory may not exist
        with self.directory.alone():
            added = self._find(name)
            path = self.directory.file(name)
            if added.kind == GIT:
                if git.is_changed(path):
                    raise errors.RepositoryError(
                        f'{path} is not removed: somebody has changed files '
                        f'there',
                        hint='See git status; or remove it by hand.',
                    )
                with self.directory.scratch() as scratch:
                    os.rename(path, os.path.join(scratch, name))
            else:
                for ending in ('.json', '.json.asc'):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path + ending)
                os.unlink(f'{path}.url')
        return added

    def update(self, name: str) -> bool:
        """Bring a repository up to date; tell whether it has changed.

        Raises:
            LayeredError: it cannot be had; the old state stays.
        """
        self._find(name)  # before, as the directory may not exist
        with self.directory.alone():
            added = self._find(name)
            if added.kind == GIT:
                return self._pull(name)
            fetched = self._read(added.url)
            found = parse(fetched.body or b'', added.url)
            path = self.directory.file(f'{name}.json')
            before, signature = read_bytes(path), read_bytes(f'{path}.asc')
            if fetched.signature and signature:
                refuse_older(found, before, path)
            if before == fetched.body and signature == (
                fetched.signature or b''
            ):
                return False
            self._save(name, fetched)
            return True

    def _save(self, name: str, fetched: Fetched) -> None:
        """Write an index and its signature.

        A signature that fits what is there is there at any moment: first
        both, then the index, then the new one alone.
        """
        path = self.directory.file(f'{name}.json')
        new = fetched.signature
        if new:
            with contextlib.suppress(ValueError):
                new = gpg.join(read_bytes(f'{path}.asc'), new)
            self.directory.replace(f'{name}.json.asc', new)
        self.directory.replace(f'{name}.json', fetched.body or b'')
        if fetched.signature:
            self.directory.replace(f'{name}.json.asc', fetched.signature)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f'{path}.asc')

    def _pull(self, name: str) -> bool:
        path = self.directory.file(name)
        before = git.head(path)
        git.pull(path, timeout=self._timeout)
        after = git.head(path)
        if after != before and not _has_index(path):
            git.go_back(path, before)
            raise errors.RepositoryError(
                f'{path}: there is no index any more in what is new there',
                hint='Tell the admin of the repository.',
            )
        return after != before

    def _find(self, name: str) -> Added:
        _check(name)
        added = self.directory.added()
        for each in added:
            if each.name == name:
                return each
        raise errors.RepositoryError(
            f'{name} was not added to {self.directory.path}; there are: '
            + (', '.join(each.name for each in added) or 'none')
        )

    def _refuse_existing(self, name: str) -> None:
        for entry in (
            name, f'{name}.json', f'{name}.json.asc', f'{name}.url'
        ):
            if os.path.lexists(self.directory.file(entry)):
                raise errors.RepositoryError(
                    f'{self.directory.file(entry)} exists',
                    hint='Give another NAME, or remove it first.',
                )


def _check(name: str) -> None:
    try:
        check_name(name, 'the repository\'s name')
    except ValueError as error:
        raise errors.RepositoryError(str(error)) from None


def _last_part(url: str) -> str:
    """Return what git itself would call a clone."""
    last = url.rstrip('/').replace(':', '/').rpartition('/')[2]
    return last[:-len('.git')] if last.endswith('.git') else last


def _has_index(directory: str) -> bool:
    return any(map(read_index, find_json(directory)))
