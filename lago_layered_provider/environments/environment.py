"""An environment: its init file, its repositories, what its disks stand on.

It opens the init file for the places of its faults, and the heads of local
files; nothing is fetched or changed before `Environment.provide`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..core import errors
from ..core.initfile import (
    InitFile, REPOSITORIES, RepositoryEntry, TemplateDisk, read_initfile,
    read_repositories, read_wanted,
)
from ..core.wanted import Pins, Wanted
from ..repositories.template_repository import TemplateRepository
from ..repositories.where import ByName, Repository, find_entries, search_order
from ..store import Store
from . import local_layers, provision
from .local_layers import Parent
from .places import Lines
from .template_store import TemplateStore


ORDER_HINT = (
    f'Name one in the init file as "{REPOSITORIES}", with '
    f'--template-repo-path, or as template_repo_path in section [init] of '
    f'lago.conf.'
)


@dataclass(frozen=True)
class Environment:
    """What one init file asks for.

    Attributes:
        repository: where its templates come from, in order of search.
        parents: templates that files of its own stand on, here or not.
        layers: files of its own that disks stand on.
        packed: those of them that have to be decompressed.
        locations: what the file calls a repository -> where that is.
        pins: the chains that its lock has of its templates; empty where it
            is not held to a lock.
    """

    repository: TemplateRepository
    disks: Tuple[TemplateDisk, ...]
    parents: Tuple[Parent, ...]
    layers: Tuple[str, ...]
    packed: Tuple[str, ...]
    locations: Mapping[str, str]
    pins: Mapping[Wanted, Pins] = field(default_factory=dict)

    def wanted(self, store: Store) -> List[Wanted]:
        """Return the templates of all disks, and what its own files lack."""
        lacking = self._lacking(store)
        return [
            *(self._pinned(disk.wanted) for disk in self.disks),
            *(self._pinned(parent.wanted) for parent in lacking),
        ]

    def all_wanted(self) -> List[Wanted]:
        """Return the templates of all disks and files, each one once."""
        return list(dict.fromkeys([
            *(disk.wanted for disk in self.disks),
            *(parent.wanted for parent in self.parents),
        ]))

    def _pinned(self, wanted: Wanted) -> Wanted:
        return replace(wanted, pins=self.pins.get(wanted, ()))

    def provide(self, target: TemplateStore) -> None:
        """Bring all that the disks stand on to where qemu finds it.

        Raises:
            LayeredError: what was fetched so far is kept.
        """
        store = target.store
        lacking = self._lacking(store)
        wanted = self.wanted(store)
        names = target.provide(wanted, self.repository) if wanted else ()
        targets: Dict[str, str] = {}
        for parent in self.parents:
            if parent in lacking:
                name = names[len(self.disks) + lacking.index(parent)]
            elif parent.is_here:
                continue
            else:
                name = str(_find_copy(parent, store))
            other = targets.setdefault(parent.link, name)
            if other != name:
                raise _ambiguous(parent, other, name)
        for link, name in targets.items():
            _link(link, name, store)
        for path in self.packed:
            local_layers.unpack(path)

    def _lacking(self, store: Store) -> List[Parent]:
        """The templates that its own files stand on and the store lacks.

        An export says the digest of its base: what has it is the base, also
        when another image has its name in the repository by now.
        """
        return [
            parent for parent in self.parents
            # The base alone does not tell the chain that a lock has.
            if self.pins or (
                not parent.is_here and _find_copy(parent, store) is None
            )
        ]

    def is_pinned_to(self, repository: Repository) -> bool:
        """Tell whether locked images are of a repository, asked or not."""
        return any(
            pin.location == repository.location
            or pin.ref.repository == repository.place.name
            for chain in self.pins.values() for pin in chain
        )

    def saved_repositories(self) -> List[Dict[str, str]]:
        """Return entries of an init file that starts it elsewhere.

        The configured default is named if something was found there:
        elsewhere it may be another one.
        """
        sources = self.repository.sources()
        named = set(self.locations.values())
        entries = []
        for each in self.repository.repositories:
            if each.location not in named and not (
                sources.was_read(each) or self.is_pinned_to(each)
            ):
                continue
            if isinstance(each, ByName):
                entries.append({'name': each.name})
            else:
                # What its author wrote is no secret to who reads it.
                entries.append({'path': (
                    each.path if each.path in self.locations
                    else each.portable
                )})
        return entries

    def wanted_by(self, disk: Mapping[str, Any]) -> Wanted:
        """Return the template that a disk of the file names."""
        return self._pinned(_located(
            read_wanted(disk, disk.get(REPOSITORIES)), self.locations
        ))


def _ambiguous(
    parent: Parent, one: str, other: str
) -> errors.LocalLayerError:
    return errors.LocalLayerError(
        f'{parent.file} and another disk beside it both stand on '
        f'{os.path.basename(parent.link)}, which is {one} for the one and '
        f'{other} for the other.',
        hint=(
            'Put them into different directories, and their new places into '
            'the init file.'
        ),
    )


def _link(link: str, name: str, store: Store) -> None:
    """Put links to a template and to all that it stands on beside a file."""
    directory = os.path.dirname(link)
    layer: Optional[str] = name
    while layer is not None:
        local_layers.make_link(link, store.path(layer))
        stored = store.find(layer)
        layer = stored.backing if stored else None
        link = os.path.join(directory, layer or '')


def _find_copy(parent: Parent, store: Store) -> Optional[str]:
    if parent.wanted.digest is None:
        return None
    return provision.find_copy(parent.wanted.digest, store)


def read_environment(
    data: object,
    given: TemplateRepository,
    default: Optional[Repository],
    repos_directory: str,
    path: Optional[str] = None,
) -> Environment:
    """Read what was loaded from an init file.

    Args:
        given: what the command line says, or the default.
        default: the repository that Lago is configured to use.
        repos_directory: where repositories are found by their name.
        path: of the init file, None where there is none.

    Raises:
        IndexFaults: the file is faulty; all its faults with their places.
        LocalLayerError: a file of a disk cannot be used.
    """
    document = path or 'LagoInitFile'
    found = read_initfile(data, document, Lines(path).find)
    for text in found.warnings:
        given.warn(f'{document}: {text}')
    entries = _find_entries(found.repositories, document, repos_directory)
    order = search_order(given.repositories, entries.values(), default)
    if not order and (found.disks or found.layers):
        raise errors.SettingsError(
            f'{document}: no template repository is known', hint=ORDER_HINT
        )
    locations = {key: each.location for key, each in entries.items()}
    files = _files(found, locations)
    parents = (
        local_layers.find_parent(file, name) for file, name in files.items()
    )
    return Environment(
        repository=given.searched_in(order),
        disks=tuple(_locate_disk(disk, locations) for disk in found.disks),
        parents=tuple(dict.fromkeys(filter(None, parents))),
        layers=tuple(files),
        packed=tuple(filter(local_layers.is_packed, files)),
        locations=locations,
    )


def find_repositories(
    data: object,
    given: TemplateRepository,
    default: Optional[Repository],
    repos_directory: str,
    path: str,
) -> TemplateRepository:
    """Return where the templates of a loaded init file are looked for.

    The arguments are those of `read_environment`. What the file says of
    disks does not matter.

    Raises:
        IndexFaults: what it says of repositories is faulty.
    """
    entries = _find_entries(
        read_repositories(data, path, Lines(path).find), path, repos_directory
    )
    return given.searched_in(
        search_order(given.repositories, entries.values(), default)
    )


def _find_entries(
    entries: Sequence[RepositoryEntry], document: str, repos_directory: str
) -> Dict[str, Repository]:
    return find_entries(
        entries, os.path.dirname(os.path.abspath(document)), repos_directory,
        document,
    )


def _files(
    found: InitFile, locations: Mapping[str, str]
) -> Dict[str, Optional[str]]:
    """Return the files that disks stand on, and of which repository."""
    return {
        os.path.abspath(os.path.expandvars(layer.path)):
        locations.get(layer.repository or '', layer.repository)
        for layer in found.layers
    }


def _locate_disk(
    disk: TemplateDisk, locations: Mapping[str, str]
) -> TemplateDisk:
    return replace(disk, wanted=_located(disk.wanted, locations))


def _located(wanted: Wanted, locations: Mapping[str, str]) -> Wanted:
    name = wanted.repository
    if name is None:
        return wanted
    return replace(wanted, repository=locations.get(name, name))
