"""What a LagoInitFile asks for: the wanted templates of all its disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Tuple

from . import errors
from .catalog import Wanted


@dataclass(frozen=True)
class TemplateDisk:
    """A disk that stands on a template."""

    domain: str
    disk: str
    wanted: Wanted


def template_disks(
    data: object, document: str = 'LagoInitFile'
) -> Tuple[TemplateDisk, ...]:
    """Return the template disks of all domains, prototypes applied.

    Args:
        data: the init file as loaded from YAML or JSON.
        document: its name, for messages.

    Raises:
        IndexFaults: it is not the form of a LagoInitFile; all faults.
    """
    faults: List[str] = []
    disks = [
        TemplateDisk(domain, str(disk.get('name')), _wanted(disk))
        for domain, disk in _all_disks(data, faults)
        if disk.get('type') == 'template'
        and disk.get('template_type', 'lago') == 'lago'
        and _check(disk, f'domain {domain}, disk {disk.get("name")}', faults)
    ]
    if faults:
        raise errors.IndexFaults(document, faults)
    return tuple(disks)


def _all_disks(
    data: object, faults: List[str]
) -> List[Tuple[str, Mapping[str, Any]]]:
    domains = data.get('domains') if isinstance(data, Mapping) else None
    if not isinstance(domains, Mapping):
        faults.append('has no "domains" with the VMs')
        return []
    found: List[Tuple[str, Mapping[str, Any]]] = []
    for name, spec in domains.items():
        if not isinstance(spec, Mapping):
            faults.append(f'domain {name} is not a mapping')
            continue
        prototype = spec.get('based-on', {})
        if not isinstance(prototype, Mapping):
            faults.append(
                f'domain {name}: based-on is {prototype!r}; expected is the '
                f'prototype itself, in YAML an alias such as *{prototype}'
            )
            continue
        # As Lago does it: a key of the domain replaces the whole value.
        disks = {**prototype, **spec}.get('disks', [])
        if not isinstance(disks, list) or not all(
            isinstance(disk, Mapping) for disk in disks
        ):
            faults.append(f'domain {name}: "disks" is not a list of disks')
            continue
        found.extend((str(name), disk) for disk in disks)
    return found


def _wanted(disk: Mapping[str, Any]) -> Wanted:
    version = disk.get('template_version')
    # YAML reads an unquoted version such as 7.2 as a number.
    return Wanted(
        template=disk['template_name'],
        version=None if version is None else str(version),
    )


def _check(disk: Mapping[str, Any], where: str, faults: List[str]) -> bool:
    if isinstance(disk.get('template_name'), str):
        return True
    faults.append(f'{where}: template_name is missing or not a name')
    return False
