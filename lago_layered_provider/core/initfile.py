"""What a LagoInitFile asks for: repositories, and the templates of its disks.

All faults of the file are found at once, each with its place. Nothing is
expanded here: variables and relative paths belong to whoever reads files.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from . import errors, model
from .wanted import Wanted, parse_wanted

#: The way to a value: keys of mappings, numbers of list items from 0.
Way = Tuple[Union[str, int], ...]

REPOSITORIES = 'template-repo'

#: Keys of a disk whose values are texts, whatever they look like.
TEXTS = ('template_name', 'template_version')

#: What Lago knows, and this package.
TOP_KEYS = ('domains', 'nets', 'prototypes', REPOSITORIES)
DISK_KEYS = (
    'type', 'name', 'dev', 'format', 'size', 'path', 'url', 'metadata',
    'build', 'make_a_copy', 'skip-export', 'template_type', REPOSITORIES,
    *TEXTS,
)
#: In a message.
SHOWN_NAMES = 8

DISK_TYPES = ('template', 'empty', 'file')


@dataclass(frozen=True)
class RepositoryEntry:
    """A repository as the file names it, by one of the two."""

    path: Optional[str] = None
    name: Optional[str] = None


@dataclass(frozen=True)
class TemplateDisk:
    """A disk that stands on a template.

    The `repository` that it wants may be an entry's path as the file has it.
    """

    domain: str
    disk: str
    wanted: Wanted


@dataclass(frozen=True)
class LayerDisk:
    """A disk that stands on a qcow2 file, as `lago export` writes them.

    That file may stand on a template; `repository` says of which repository.
    """

    domain: str
    disk: str
    path: str
    repository: Optional[str] = None


@dataclass(frozen=True)
class InitFile:
    """What an init file says about templates."""

    repositories: Tuple[RepositoryEntry, ...]
    disks: Tuple[TemplateDisk, ...]
    layers: Tuple[LayerDisk, ...]
    warnings: Tuple[str, ...] = ()


def read_initfile(
    data: object,
    document: str = 'LagoInitFile',
    find_line: Callable[[Way], Optional[int]] = lambda way: None,
) -> InitFile:
    """Read what was loaded from YAML or JSON; prototypes are applied.

    Args:
        document: its name, for messages.
        find_line: tells the line of a value, for messages.

    Raises:
        IndexFaults: it is not the form of a LagoInitFile; all faults.
    """
    reader = _Reader(find_line)
    reader.judge_keys((), '', data, TOP_KEYS)
    repositories = reader.read_repositories(data)
    disks: List[TemplateDisk] = []
    layers: List[LayerDisk] = []
    for domain, way, disk in reader.all_disks(data):
        found = reader.read_disk(domain, way, disk, repositories)
        if isinstance(found, TemplateDisk):
            disks.append(found)
        elif found:
            layers.append(found)
    if reader.faults:
        raise errors.IndexFaults(document, reader.faults)
    return InitFile(
        repositories, tuple(disks), tuple(layers), tuple(reader.warnings)
    )


def apply_prototypes(data: Any) -> Any:
    """Put prototypes in the place of their names, as the first Lagos did.

    JSON has no other way to say it.
    """
    domains, prototypes = (
        data.get(key) if isinstance(data, dict) else None
        for key in ('domains', 'prototypes')
    )
    if isinstance(domains, dict) and isinstance(prototypes, dict):
        for spec in domains.values():
            name = spec.get('based-on') if isinstance(spec, dict) else None
            if isinstance(name, str) and name in prototypes:
                spec['based-on'] = prototypes[name]
    return data


def read_repositories(
    data: object,
    document: str = 'LagoInitFile',
    find_line: Callable[[Way], Optional[int]] = lambda way: None,
) -> Tuple[RepositoryEntry, ...]:
    """Read only which repositories a file names; see `read_initfile`.

    Raises:
        IndexFaults: these entries are faulty.
    """
    reader = _Reader(find_line)
    found = reader.read_repositories(data)
    if reader.faults:
        raise errors.IndexFaults(document, reader.faults)
    return found


class _Reader:
    """Reads the parts, and keeps what is wrong with them."""

    def __init__(self, find_line: Callable[[Way], Optional[int]]) -> None:
        self.faults: List[str] = []
        self.warnings: List[str] = []
        self._find_line = find_line
        self._judged: Set[int] = set()

    def fault(self, way: Way, text: str) -> None:
        self.faults.append(f'{self._at(way)}{text}')

    def _at(self, way: Way) -> str:
        line = self._find_line(way)
        return '' if line is None else f'line {line}: '

    def judge_keys(
        self, way: Way, where: str, data: object, known: Collection[str]
    ) -> None:
        """Warn of keys that look like one that was meant."""
        for key in data if isinstance(data, Mapping) else ():
            near = () if key in known else nearest(str(key), known)
            if near:
                self.warnings.append(
                    f'{self._at((*way, str(key)))}{where}unknown key '
                    f'{model.show(key)} is ignored; did you mean {near[0]}?'
                )

    def read_repositories(self, data: object) -> Tuple[RepositoryEntry, ...]:
        if not isinstance(data, Mapping) or REPOSITORIES not in data:
            return ()
        value = data[REPOSITORIES]
        if isinstance(value, str):
            return self._read_entry((REPOSITORIES,), REPOSITORIES, value)
        if not isinstance(value, list) or not value:
            self.fault((REPOSITORIES,), (
                f'{REPOSITORIES}: {model.show(value)}; expected is a path or '
                f'URL, or a list with at least one entry'
            ))
            return ()
        found: List[RepositoryEntry] = []
        for number, each in enumerate(value):
            found += self._read_entry(
                (REPOSITORIES, number),
                f'{REPOSITORIES}, entry {number + 1}', each,
            )
        return tuple(found)

    def _read_entry(
        self, way: Way, where: str, value: object
    ) -> Tuple[RepositoryEntry, ...]:
        if isinstance(value, str) and value.strip():
            return (RepositoryEntry(path=value),)
        if not isinstance(value, Mapping):
            self.fault(way, (
                f'{where}: {model.show(value)} is neither a path or URL nor '
                f'a mapping with path or name'
            ))
            return ()
        unknown = [key for key in value if key not in ('path', 'name')]
        for key in unknown:
            self.fault((*way, str(key)), (
                f'{where}: unknown key {model.show(key)}; known are path and '
                f'name'
            ))
        if len(value) - len(unknown) != 1:
            if not unknown or len(value) > len(unknown):
                self.fault(way, f'{where}: expected is either path or name')
            return ()
        key = 'path' if 'path' in value else 'name'
        text = value[key]
        if not isinstance(text, str) or not text.strip():
            self.fault((*way, key), (
                f'{where}: {key} is {model.show(text)}, expected is a text'
            ))
            return ()
        return (RepositoryEntry(**{key: text}),)

    def all_disks(
        self, data: object
    ) -> Iterator[Tuple[str, Way, Mapping[str, Any]]]:
        """Yield the disks of all domains, as Lago will see them."""
        domains = data.get('domains') if isinstance(data, Mapping) else None
        if not isinstance(domains, Mapping):
            self.fault((), 'has no "domains" with the VMs')
            return
        for name, spec in domains.items():
            way: Way = ('domains', name)
            if not isinstance(spec, Mapping):
                self.fault(way, f'domain {name} is not a mapping')
                continue
            prototype = spec.get('based-on', {})
            if not isinstance(prototype, Mapping):
                self.fault((*way, 'based-on'), _unknown_prototype(
                    f'domain {name}', prototype, data
                ))
                continue
            if 'disks' not in spec and 'disks' in prototype:
                way = (*way, 'based-on')
            # As Lago does it: a key of the domain replaces the whole value.
            disks = {**prototype, **spec}.get('disks', [])
            if not isinstance(disks, list) or not all(
                isinstance(disk, Mapping) for disk in disks
            ):
                self.fault((*way, 'disks'), (
                    f'domain {name}: "disks" is not a list of disks'
                ))
                continue
            self._judge_disks(str(name), (*way, 'disks'), disks)
            for number, disk in enumerate(disks):
                yield str(name), (*way, 'disks', number), disk

    def _judge_disks(
        self, domain: str, way: Way, disks: Sequence[Mapping[str, Any]]
    ) -> None:
        """Find what Lago trips on, or never looks at."""
        if id(disks) in self._judged:
            return  # of a prototype that several domains have
        self._judged.add(id(disks))
        seen: Dict[Tuple[object, ...], int] = {}
        for number, disk in enumerate(disks):
            where = f'domain {domain}, disk {disk.get("name", number + 1)}: '
            at = (*way, number)
            self.judge_keys(at, where, disk, DISK_KEYS)
            kind = disk.get('type')
            if kind not in DISK_TYPES:
                near = nearest(str(kind), DISK_TYPES)
                self.fault((*at, 'type') if kind else at, (
                    f'{where}type is {model.show(kind)}, expected is one of '
                    f'{", ".join(DISK_TYPES)}'
                    + (f'; did you mean {near[0]}?' if near else '')
                ))
            for key, value in (
                # The name of its file; one of type `file` has its own.
                ('name', (disk.get('name'), disk.get('format'))),
                ('dev', disk.get('dev')),
            ):
                if disk.get(key) is None or key == 'name' and kind == 'file':
                    continue
                first = seen.setdefault((key, str(value)), number)
                if first != number:
                    self.fault((*at, key), (
                        f'{where}{key} {model.show(disk[key])} is that of '
                        f'disk {first + 1} of this domain, too'
                    ))

    def read_disk(
        self,
        domain: str,
        way: Way,
        disk: Mapping[str, Any],
        repositories: Sequence[RepositoryEntry],
    ) -> Union[TemplateDisk, LayerDisk, None]:
        """Return what the disk stands on, None for nothing of ours."""
        if disk.get('type') != 'template':
            return None
        name = str(disk.get('name'))
        kind = disk.get('template_type', 'lago')
        try:
            repository = _read_repository(disk, repositories)
            if kind == 'lago':
                wanted = read_wanted(disk, repository)
                return TemplateDisk(domain, name, wanted)
            if kind == 'qcow2':
                return LayerDisk(domain, name, _read_path(disk), repository)
            raise ValueError(
                f'template_type is {model.show(kind)}, expected is lago or '
                f'qcow2'
            )
        except ValueError as error:
            self.fault(way, f'domain {domain}, disk {name}: {error}')
        return None


def read_wanted(
    disk: Mapping[str, Any], repository: Optional[str] = None
) -> Wanted:
    """Return the template that a disk names.

    Args:
        repository: of its `template-repo`, if it has one.

    Raises:
        ValueError: it names none, or two.
    """
    name = disk.get('template_name')
    if not isinstance(name, str):
        raise ValueError('template_name is missing or not a name')
    wanted = parse_wanted(name)
    version = disk.get('template_version')
    if version is not None:
        # YAML reads an unquoted version such as 7.2 as a number.
        if wanted.version not in (None, str(version)):
            raise ValueError(
                f'template_name says version {wanted.version}, '
                f'template_version says {version}'
            )
        wanted = replace(wanted, version=str(version))
    if repository is None:
        return wanted
    if wanted.repository not in (None, repository):
        raise ValueError(
            f'template_name says repository {wanted.repository}, '
            f'{REPOSITORIES} says {repository}'
        )
    return replace(wanted, repository=repository)


def nearest(name: str, known: Collection[str]) -> List[str]:
    """Return the names that may have been meant, the nearest first."""
    return difflib.get_close_matches(name, known, cutoff=0.8)


def _unknown_prototype(where: str, name: object, data: object) -> str:
    known = data.get('prototypes') if isinstance(data, Mapping) else None
    if isinstance(name, str) and isinstance(known, Mapping) and known:
        names = list(map(str, known))
        near = nearest(name, names)
        return (
            f'{where}: based-on is {model.show(name)}; prototypes has '
            + ', '.join(names[:SHOWN_NAMES])
            + (' and more' if len(names) > SHOWN_NAMES else '')
            + (f'; did you mean {near[0]}?' if near else '')
        )
    return (
        f'{where}: based-on is {model.show(name)}; expected is the name of '
        f'one of "prototypes", or in YAML an alias such as *{name}'
    )


def _read_path(disk: Mapping[str, Any]) -> str:
    path = disk.get('path')
    if not isinstance(path, str) or not path:
        raise ValueError('path is missing: the file that the disk stands on')
    return path


def _read_repository(
    disk: Mapping[str, Any], repositories: Sequence[RepositoryEntry]
) -> Optional[str]:
    value = disk.get(REPOSITORIES)
    known = [each.path or each.name for each in repositories]
    if value is None or value in known:
        return value
    # Its own name, which only its index tells.
    if isinstance(value, str) and model.NAME_PATTERN.fullmatch(value):
        return value
    raise ValueError(
        f'{REPOSITORIES} is {model.show(value)}, expected is a repository\'s '
        f'name, or one of those at the beginning of the file: '
        + (', '.join(map(str, known)) or 'there are none')
    )
