"""From Lago's options and configuration to what a command is given."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from typing import Any, Optional, Sequence

from lago.config import config
from lago.plugins.output import DefaultOutFormatPlugin

from ..commands import Context, find_command
from ..commands.context import INIT_FILE
from ..core import errors
from ..environments.environment import Environment
from ..environments.init_document import load_init_file
from ..repositories.template_repository import TemplateRepository
from ..repositories.where import ByPath
from ..store import Store
from ..tools import files
from . import init, messages
from .config import (
    NO_REPOSITORY, find_repos_directory, make_repository, read_lago_settings,
)


def run(args: argparse.Namespace) -> None:
    """Run the subcommand that was asked for.

    Raises:
        LayeredError: with a message for people.
        SystemExit: with a status of its own.
    """
    status = find_command(args.template_repo_command)(make_context(args))
    if status:
        sys.exit(status)


def run_init_plan(args: argparse.Namespace) -> None:
    """Run `lago init --plan`; `args` are those of `lago init`."""
    from ..commands import planning

    status = planning.run_init_plan(make_init_context(args))
    if status:
        sys.exit(status)


def make_context(args: argparse.Namespace) -> Context:
    """Return the context of a command of the verb."""
    given = getattr(args, 'template_store', None)
    store = given or config.get_section('init', {})['template_store']
    repository = _open_repository(getattr(args, 'repo', None) or ())
    return _make_context(args, repository, store)


def make_init_context(args: argparse.Namespace) -> Context:
    """Return the context of `lago init`."""
    path = args.template_repo_path
    repository = _open_repository([path] if path else ())
    return _make_context(args, repository, args.template_store)


def _make_context(
    args: argparse.Namespace, repository: TemplateRepository, store: str
) -> Context:
    for_people = isinstance(args.out_format, DefaultOutFormatPlugin)
    return Context(
        args=args,
        open_repository=functools.partial(_find_repository, args, repository),
        store=Store(store),
        settings=read_lago_settings(),
        read_environment=functools.partial(_read_environment, repository),
        repos_directory=find_repos_directory(),
        format_data=None if for_people else args.out_format.format,
        warn=messages.warn,
    )


def _open_repository(given: Sequence[str]) -> TemplateRepository:
    """Return what the command line names."""
    return make_repository(
        NO_REPOSITORY
    ).searched_in([ByPath(each) for each in given])


def _find_repository(
    args: argparse.Namespace, repository: TemplateRepository
) -> TemplateRepository:
    """Return where `lago init` would look, or what was given instead."""
    path: Optional[str] = getattr(args, 'init_file', None)
    if path is None:
        if getattr(args, 'repo', None):
            return repository
        if os.path.isfile(INIT_FILE):
            path = INIT_FILE
    conf = None if path is None else _load(path)
    return init.find_repositories(conf, repository, path)


def _read_environment(
    repository: TemplateRepository, path: str
) -> Environment:
    return init.read_environment(_load(path), repository, path)


def _load(path: str) -> Any:
    # What the file names may begin with it.
    os.environ['LAGO_INITFILE_PATH'] = os.path.dirname(os.path.abspath(path))
    try:
        with files.open_text(path) as stream:
            return load_init_file(stream, path, messages.warn)
    except OSError as error:
        raise errors.IndexFaults(
            path, [f'cannot be read: {error.strerror}'],
            hint='Name an init file or templates.',
        ) from None
