"""Lago's TemplateRepository, Template, TemplateVersion and TemplateStore.

The same names, methods and files as in `lago.templates`, on the parts of
this package: a `lago init` that looks a template up and downloads it gets a
chain. Nothing is read from a repository before it is needed.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

from . import provision, sources
from .core import errors
from .core.index import Index
from .core.model import Image
from .core.catalog import Catalog, Wanted
from .settings import Settings
from .store import Store

Warn = Callable[[str], None]


class TemplateRepository:
    """A repository by the path or URL of its index.

    Args:
        read_settings: called when they are needed; a bad setting is then an
            error of the command and not of loading the plugin.
        warn: told what people should know.
    """

    def __init__(
        self, path: str, read_settings: Callable[[], Settings], warn: Warn
    ) -> None:
        self.path = path
        self._read_settings = read_settings
        self._warn = warn
        self._index: Optional[Index] = None

    @property
    def settings(self) -> Settings:
        """How to work.

        Raises:
            SettingsError: one of them cannot be used.
        """
        return self._read_settings()

    def load(self, store: Optional[Store] = None) -> Index:
        """Return the index; it is read once.

        Args:
            store: where an index is kept for a day without a network.

        Raises:
            TransferError, IndexFaults: it cannot be read.
        """
        if self._index is None:
            self._index = self._read(store)
        return self._index

    def _read(self, store: Optional[Store]) -> Index:
        return sources.load_index(
            self.path, store, self.settings, self._warn
        )

    @property
    def name(self) -> str:
        """The repository's own name."""
        return self.load().name

    def get_by_name(self, name: str) -> Template:
        """Return a template.

        Raises:
            TemplateNotFound: there is none of that name.
        """
        Catalog([self.load()]).find(Wanted(name))
        return Template(name, self)


class NamedRepository(TemplateRepository):
    """The repository of a name below a directory, found when it is needed.

    As for Lago, any file there that ends in .json may be an index.
    """

    def __init__(
        self, name: str, directory: str,
        read_settings: Callable[[], Settings], warn: Warn,
    ) -> None:
        super().__init__(directory, read_settings, warn)
        self._wanted = name

    def _read(self, store: Optional[Store]) -> Index:
        known = []
        for path in _find_json(self.path):
            try:
                found = sources.load_index(
                    path, None, self.settings, self._warn
                )
            except (errors.TransferError, errors.IndexFaults):
                continue  # Lago's directory may hold other JSON files
            if found.name == self._wanted:
                return found
            known.append(found.name)
        raise errors.TemplateNotFound(
            f'Repository {self._wanted!r} is not in {self.path}; there are: '
            + (', '.join(sorted(known)) or 'none'),
            hint='Add it there, or name an index by --template-repo-path.',
        )


class Template:
    """A named image line of a repository."""

    def __init__(self, name: str, repository: TemplateRepository) -> None:
        self.name = name
        self.repository = repository

    def get_version(self, ver_name: Optional[str] = None) -> TemplateVersion:
        """Return a version, the newest if no name is given."""
        wanted = Wanted(
            self.name, None if ver_name is None else str(ver_name)
        )
        image = Catalog([self.repository.load()]).find(wanted)
        return TemplateVersion(image, self.repository)

    def get_latest_version(self) -> TemplateVersion:
        """Return the version with the newest timestamp."""
        return self.get_version()


class TemplateVersion:
    """One image of a template."""

    def __init__(self, image: Image, repository: TemplateRepository) -> None:
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
        catalog = Catalog([self.repository.load()])
        settings = self.repository.settings
        return sources.Sources(catalog, settings).provider(self.image)


class TemplateStore:
    """Lago's store: where the images of all environments stand."""

    def __init__(self, path: str) -> None:
        self.store = Store(path)
        self._names: Dict[str, str] = {}

    def provide(
        self, wanted: Sequence[Wanted], repository: TemplateRepository
    ) -> None:
        """Bring the chains of all these templates into the store."""
        catalog = Catalog([repository.load(self.store)])
        plan = provision.provision(
            wanted, catalog, self.store, repository.settings, sys.stderr
        )
        for each, name in zip(wanted, plan.tops):
            self._names[str(catalog.find(each).ref)] = name

    def __contains__(self, temp_ver: TemplateVersion) -> bool:
        return self.store.find(self._name(temp_ver)) is not None

    def get_path(self, temp_ver: TemplateVersion) -> str:
        """Return the path of an image that is in the store."""
        if temp_ver not in self:
            raise RuntimeError(f'Template: {temp_ver.name} not present')
        return self.store.path(self._name(temp_ver))

    def download(
        self, temp_ver: TemplateVersion, store_metadata: bool = True
    ) -> None:
        """Bring the chain of an image into the store."""
        ref = temp_ver.image.ref
        self.provide(
            [Wanted(ref.template, ref.version, ref.repository)],
            temp_ver.repository,
        )

    def get_stored_metadata(self, temp_ver: TemplateVersion) -> Dict[str, Any]:
        """Return the metadata that was stored with an image."""
        return self.store.read_metadata(self._name(temp_ver))

    def get_stored_hash(self, temp_ver: TemplateVersion) -> str:
        """Return the sha1 of an image as it was published."""
        stored = self.store.find(self._name(temp_ver))
        for digest in stored.digests if stored else ():
            if digest.algorithm == 'sha1':
                return digest.value
        raise RuntimeError(f'Template: {temp_ver.name} has no hash')

    def get_format(self, path: str) -> str:
        """Return the format of an image by its path in this store."""
        stored = self.store.find(os.path.basename(path))
        if stored is None:
            raise RuntimeError(f'{path} not present')
        return stored.format

    def _name(self, temp_ver: TemplateVersion) -> str:
        return self._names.get(temp_ver.name, temp_ver.name)


def _find_json(directory: str) -> List[str]:
    return [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(directory))
        for name in sorted(names)
        if name.endswith('.json')
    ]
