"""What a command is given."""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..core import errors
from ..core.model import show
from ..environments.environment import Environment
from ..repositories.template_repository import TemplateRepository
from ..settings import Settings
from ..store import Store

#: The init file that is meant where none is named.
INIT_FILE = 'LagoInitFile'

#: Exit status: something is wrong, and the command has said what.
FAILED_STATUS = 2

#: Exit status of `plan` when the templates would not fit into the store.
NO_ROOM_STATUS = 3


@dataclass(frozen=True)
class Context:
    """The arguments of a command, and what they mean here.

    Attributes:
        open_repository: returns those of `lago init`, or of `--repo` or
            `--init-file`.
        read_environment: reads an init file by its path.
        repos_directory: where repositories are found by their name.
        format_data: what prints data for programs; None: print for people.
        warn: told what people should know.
    """

    args: argparse.Namespace
    open_repository: Callable[[], TemplateRepository]
    store: Store
    settings: Settings
    read_environment: Callable[[str], Environment]
    repos_directory: str
    format_data: Optional[Callable[[Any], str]]
    warn: Callable[[str], None]

    @functools.cached_property
    def repository(self) -> TemplateRepository:
        """Where templates come from; found when a command asks for it."""
        return self.open_repository()

    def find_init_file(self, named: Optional[str] = None) -> str:
        """Return the path of the init file that a command reads.

        Args:
            named: beside the command; that of `--init-file` counts as well.

        Raises:
            SettingsError: both are named, and differ.
        """
        given: Optional[str] = getattr(self.args, 'init_file', None)
        if named and given and named != given:
            raise errors.SettingsError(
                f'{show(named)} and {show(given)} are two init files; '
                f'name one.'
            )
        return named or given or INIT_FILE

    def show(self, data: Any, print_for_people: Callable[[], None]) -> None:
        """Print the answer, for programs where `--out-format` says so."""
        if self.format_data is None:
            print_for_people()
        else:
            print(self.format_data(data))
