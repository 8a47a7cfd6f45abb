"""`add`, `remove` and `update`: the repositories below `template_repos`."""

from __future__ import annotations

import collections
import logging
import os
import sys
from dataclasses import asdict, replace
from typing import Any, Dict, List

from ..core import errors
from ..index.document import is_remote
from ..index.source_places import hide_secrets
from ..report import console, tables
from ..repositories.added import AddedRepositories
from ..repositories.added_files import Added, Known, ReposDirectory, parse
from ..repositories.reading import Fetched, fetch_index
from .context import Context, FAILED_STATUS

LOGGER = logging.getLogger(__name__)


def run_add(context: Context) -> int:
    """Add a repository, and say what is known now."""
    repositories = _open(context)
    done = repositories.add(context.args.url, context.args.name)
    known = repositories.directory.known()
    context.show(
        {'added': _document(done), 'repositories': _documents(known)},
        lambda: _print_added(done, known, context.repos_directory),
    )
    _warn_of_doubles(context, known)
    return 0


def run_remove(context: Context) -> int:
    """Remove a repository that was added."""
    repositories = _open(context)
    done = repositories.remove(context.args.name)
    known = repositories.directory.known()
    context.show(
        {'removed': _document(done), 'repositories': _documents(known)},
        lambda: print(f'Removed {done.name}, from {hide_secrets(done.url)}'),
    )
    return 0


def run_update(context: Context) -> int:
    """Bring some or all added repositories up to date."""
    repositories = _open(context)
    directory = repositories.directory
    names = context.args.names or [each.name for each in directory.added()]
    states: Dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            changed = repositories.update(name)
            states[name] = 'updated' if changed else 'unchanged'
        except errors.LayeredError as error:
            LOGGER.error('%s: not updated; the old state stays:\n%s',
                         name, hide_secrets(str(error)))
            states[name] = 'failed'
    known = directory.known()
    context.show(
        {'states': states, 'repositories': _documents(known)},
        lambda: _print_states(states, directory.path),
    )
    _warn_of_doubles(context, known)
    return FAILED_STATUS if 'failed' in states.values() else 0


def _open(context: Context) -> AddedRepositories:
    settings = context.settings

    def read(url: str) -> Fetched:
        if settings.offline and is_remote(url):
            raise errors.Offline(f'{url} is not asked (offline)')
        if settings.keyring:
            # What is no index is left to git, and needs no signature here.
            found = fetch_index(url, replace(settings, keyring=None))
            parse(found.body or b'', url)
        return fetch_index(url, settings)

    directory = ReposDirectory(context.repos_directory)
    return AddedRepositories(directory, read, settings.timeout)


def _document(added: Added) -> Dict[str, Any]:
    return {**asdict(added), 'url': hide_secrets(added.url)}


def _documents(known: List[Known]) -> List[Dict[str, Any]]:
    return [asdict(each) for each in known]


def _print_added(done: Added, known: List[Known], directory: str) -> None:
    path = os.path.join(directory, done.name)
    if done.kind == 'index':
        path = f'{path}.json'
    print(f'Added {done.name}: {path}\n')
    tables.print_table(
        ['NAME', 'TEMPLATES', 'ADDED AS', 'FILE'],
        [
            (one.name, str(one.templates), one.added or '-',
             os.path.relpath(one.path, directory))
            for one in known
        ],
        console.make_console(sys.stdout), right=['TEMPLATES'],
    )
    name = next((one.name for one in known if one.added == done.name), 'NAME')
    print(
        f'\nUse one by its name:\n'
        f'  lago init --template-repo-name {name}\n'
        f'or in the init file:\n'
        f'  template-repo: [{{name: {name}}}]'
    )


def _print_states(states: Dict[str, str], directory: str) -> None:
    if not states:
        print(f'No repository was added to {directory}.')
    for name, state in states.items():
        print(f'{name}: {state}')


def _warn_of_doubles(context: Context, known: List[Known]) -> None:
    """Say which repositories cannot be told apart by their names."""
    places = collections.defaultdict(list)
    for one in known:
        places[one.name].append(one.path)
    for name, paths in places.items():
        if len(paths) > 1:
            context.warn(
                f'{len(paths)} repositories are named {name}: '
                f'{", ".join(paths)}; only one of them is found by that name'
            )
