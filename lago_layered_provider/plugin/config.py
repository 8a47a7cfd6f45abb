"""What Lago was told of repositories, and our classes for it.

`lago_plugin.install` puts these in the place of Lago's. Every `lago` command
pays for this import: what is needed only sometimes is imported where it is
used.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Optional

from lago.config import config

from .messages import warn

if TYPE_CHECKING:
    from ..environments import template_store
    from ..repositories import template_repository
    from ..settings import Settings

SECTION = 'template_repo'

#: What Lago is given as the path of a repository when none is configured.
NO_REPOSITORY = 'no repository'


def read_lago_settings() -> Settings:
    """Return the settings of lago.conf and of the environment."""
    from ..settings import read_settings

    settings = read_settings(config.get_section(SECTION, {}))
    if Options.offline:
        return replace(settings, offline=True)
    return settings


class TemplateRepository:
    """Stands for Lago's class of that name, which has one constructor."""

    @staticmethod
    def from_url(path: str) -> template_repository.TemplateRepository:
        """Return the repository with the index at a path or URL, unread."""
        return make_repository(path)


def make_repository(path: str) -> template_repository.TemplateRepository:
    """Return the repository with the index at a path or URL, unread."""
    from ..repositories import template_repository, where

    return template_repository.TemplateRepository(
        [] if path == NO_REPOSITORY else [where.ByPath(path)],
        read_lago_settings, warn,
    )


def make_template_store(path: str) -> template_store.TemplateStore:
    """Stand for Lago's class `TemplateStore`."""
    from ..environments import template_store
    from ..report.display import Display

    return template_store.TemplateStore(path, Display(sys.stderr))


def find_repo_by_name(
    name: str, repo_dir: Optional[str] = None
) -> template_repository.TemplateRepository:
    """Return the repository of that name below `template_repos`, unread."""
    from ..repositories import template_repository, where

    found = where.ByName(name, repo_dir or find_repos_directory())
    return template_repository.TemplateRepository(
        [found], read_lago_settings, warn
    )


class Options:
    """Options of the running `lago init` that Lago takes and then forgets."""

    template_repos: Optional[str] = None
    template_repo_name: Optional[str] = None
    offline: bool = False
    locked: object = None


def find_repos_directory() -> str:
    """Return where repositories are found by their name."""
    return str(
        Options.template_repos
        or config.get('template_repos')
        or config.get_section('init', {}).get('template_repos')
    )
