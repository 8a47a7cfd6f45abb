"""From Lago's options and configuration to what a command is given."""

from __future__ import annotations

import argparse
import functools
import os
from typing import Any, Optional, Sequence

import lago.utils
import yaml
from lago.config import config
from lago.plugins.output import DefaultOutFormatPlugin

from . import lago_init, lago_messages, lago_plugin
from .commands import Context
from .core import errors
from .environment import Environment
from .repositories import ByPath
from .repository import TemplateRepository
from .store import Store


def make_context(args: argparse.Namespace) -> Context:
    """Return the context of a command of the verb."""
    section = config.get_section('init', {})
    repository = _open_repository(
        section.get('template_repo_path'), section.get('template_repo_name'),
        getattr(args, 'repo', None),
    )
    init_file = getattr(args, 'init_file', None)
    if init_file is not None:
        repository = _read_environment(repository, init_file).repository
    given = getattr(args, 'template_store', None)
    store = given or section['template_store']
    return _make_context(args, repository, store)


def make_init_context(args: argparse.Namespace) -> Context:
    """Return the context of `lago init`."""
    repository = _open_repository(
        args.template_repo_path, args.template_repo_name
    )
    return _make_context(args, repository, args.template_store)


def _make_context(
    args: argparse.Namespace, repository: TemplateRepository, store: str
) -> Context:
    for_people = isinstance(args.out_format, DefaultOutFormatPlugin)
    return Context(
        args=args,
        repository=repository,
        store=Store(store),
        settings=lago_plugin.read_lago_settings(),
        read_environment=functools.partial(_read_environment, repository),
        repos_directory=lago_plugin.find_repos_directory(),
        format_data=None if for_people else args.out_format.format,
        warn=lago_messages.warn,
    )


def _open_repository(
    path: Optional[str], name: Optional[str],
    given: Optional[Sequence[str]] = None,
) -> TemplateRepository:
    """Return what `lago init` would begin with, or what was given."""
    if not given and name and not path:
        return lago_plugin.find_repo_by_name(name)
    repository = lago_plugin.TemplateRepository.from_url(
        path or lago_plugin.NO_REPOSITORY
    )
    if given:
        return repository.searched_in([ByPath(each) for each in given])
    return repository


def _read_environment(
    repository: TemplateRepository, path: str
) -> Environment:
    os.environ['LAGO_INITFILE_PATH'] = os.path.dirname(os.path.abspath(path))
    return lago_init.read_environment(_load(path), repository, path)


def _load(path: str) -> Any:
    try:
        with open(path, encoding='utf-8') as stream:
            return lago.utils.load_virt_stream(stream)
    except OSError as error:
        raise errors.IndexFaults(
            path, [f'cannot be read: {error.strerror}'],
            hint='Name an init file or templates.',
        ) from None
    except (ValueError, yaml.YAMLError) as error:
        raise errors.IndexFaults(
            path, [f'is neither JSON nor YAML: {error}']
        ) from None
