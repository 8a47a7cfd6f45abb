"""Lago's TemplateRepository, Template and TemplateVersion.

The same names and methods as in `lago.templates`, on the parts of this
package. What Lago takes for one repository are here all repositories of an
environment, in order of search. Nothing is read before it is needed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Callable, Dict, Optional, Sequence

from ..core import errors
from ..core.model import Image, show
from ..core.wanted import Pins, Wanted, make_image, parse_wanted
from ..settings import Settings
from ..store import Store
from .sources import Sources
from .where import Repository, Warn


class TemplateRepository:
    """The repositories of an environment.

    Args:
        repositories: in order of search, at least one.
        read_settings: called when they are needed; a bad setting is then an
            error of the command and not of loading the plugin.
        warn: told what people should know.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        read_settings: Callable[[], Settings],
        warn: Warn,
    ) -> None:
        self.repositories = tuple(repositories)
        self._read_settings = read_settings
        self.warn = warn
        self._sources: Optional[Sources] = None
        self._only: Optional[str] = None
        self._pins: Pins = ()

    def sources(
        self, store: Optional[Store] = None, keep: bool = True
    ) -> Sources:
        """Return what can be asked; the same object each time.

        Args:
            store, keep: as for `Sources`; those of the first call count.

        Raises:
            SettingsError: a setting cannot be used.
        """
        if self._sources is None:
            self._sources = Sources(
                self.repositories, self._read_settings(), self.warn, store,
                keep,
            )
        return self._sources

    def searched_in(
        self, repositories: Sequence[Repository]
    ) -> TemplateRepository:
        """Return the same for other repositories."""
        return TemplateRepository(
            repositories, self._read_settings, self.warn
        )

    def only(
        self, repository: Optional[str], pins: Pins = ()
    ) -> TemplateRepository:
        """Return a view where templates are of one repository.

        Args:
            repository: its name or its location; None for any.
            pins: of a locked template; then no index is asked for it.
        """
        self.sources()  # which both share
        view = copy.copy(self)
        view._only = repository
        view._pins = pins
        return view

    @property
    def path(self) -> str:
        """Where the repository is that is searched first."""
        return self.repositories[0].location

    @property
    def name(self) -> str:
        """The own name of the repository that is searched first."""
        return self.sources().first().name

    def get_by_name(self, name: str) -> Template:
        """Return a template, by `name` or `repository/name:version`.

        Raises:
            TemplateNotFound: there is none of that name.
        """
        try:
            wanted = parse_wanted(name)
        except ValueError as error:
            raise errors.TemplateNotFound(f'{show(name)}: {error}') from None
        if self._only is not None:
            wanted = replace(wanted, repository=self._only)
        wanted = replace(wanted, pins=self._pins)
        if not wanted.pins:
            self.sources().find(wanted)
        return Template(wanted, self)


class Template:
    """A named image line of a repository."""

    def __init__(
        self, wanted: Wanted, repository: TemplateRepository
    ) -> None:
        self.name = wanted.template
        self._wanted = wanted
        self._repository = repository

    def get_version(self, ver_name: Optional[str] = None) -> TemplateVersion:
        """Return a version, the newest if no name is given."""
        wanted = self._wanted
        if wanted.pins:
            image = make_image(wanted.pins[-1])
            return TemplateVersion(image, self._repository, wanted.pins)
        if ver_name is not None:
            wanted = replace(wanted, version=str(ver_name))
        image = self._repository.sources().find(wanted)
        return TemplateVersion(image, self._repository)

    def get_latest_version(self) -> TemplateVersion:
        """Return the version with the newest timestamp."""
        return self.get_version()


class TemplateVersion:
    """One image of a template; `pins` are its chain where it is locked."""

    def __init__(
        self, image: Image, repository: TemplateRepository, pins: Pins = ()
    ) -> None:
        self.pins = pins
        self.name = str(image.ref)
        self.image = image
        self.repository = repository

    def timestamp(self) -> float:
        """Return the time of publication, in seconds since 1970."""
        return self.image.timestamp

    def get_hash(self) -> str:
        """Return the sha1 of the uncompressed image."""
        for digest in self.image.digests:
            if digest.algorithm == 'sha1':
                return digest.value
        return str(self._provider().get_hash(self.image.handle))

    def get_metadata(self) -> Dict[str, Any]:
        """Return what Lago wants to know of a template: distro, arch ..."""
        if self.image.metadata is not None:
            return dict(self.image.metadata)
        return dict(self._provider().get_metadata(self.image.handle))

    def download(self, destination: str) -> None:
        """Write the uncompressed image, without its base, to a file."""
        self._provider().download_image(self.image.handle, destination)

    def _provider(self) -> Any:
        return self.repository.sources().provider(self.image)
