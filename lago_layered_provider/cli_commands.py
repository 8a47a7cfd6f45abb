"""What the commands of `lago template-repo` do."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import lago.utils
import yaml
from lago.config import config
from lago.plugins.output import DefaultOutFormatPlugin

from . import lago_plugin, provision, report, repository
from .core import errors, initfile, plan, planning
from .core.catalog import Catalog, Wanted
from .core.index import Index
from .core.model import UNKNOWN, Image, Stored
from .sources import Sources
from .store import Store

LOGGER = logging.getLogger(__name__)

#: Exit status of `plan` when the templates would not fit into the store.
NO_ROOM_STATUS = 3


def run_list(args: argparse.Namespace) -> None:
    """Print the versions of all templates."""
    repo, store = _open(args)
    found = repo.load(store)
    faults: List[str] = []
    rows = [
        _row(image, _find(store, image))
        for image in _images(found, args.pattern or '', faults)
    ]
    if _is_data(args):
        print(args.out_format.format({'templates': rows}))
    else:
        report.print_templates(rows, report.make_console(sys.stdout))
    for fault in faults:
        lago_plugin.warn(fault)


def _images(
    found: Index, pattern: str, faults: List[str]
) -> Iterator[Image]:
    for template in sorted(found.templates()):
        if pattern not in template:
            continue
        for version in found.versions(template):
            try:
                yield found.image(template, version)
            except errors.IndexFaults as error:
                faults.append(error.message)


def _row(image: Image, here: Optional[Stored]) -> Dict[str, Any]:
    base = image.base
    return {
        'template': image.ref.template,
        'version': image.ref.version,
        'timestamp': image.timestamp,
        'base': '?' if base is UNKNOWN else base and str(base),
        'to_fetch': image.compressed_size or image.size,
        'to_keep': image.size,
        'present': here is not None,
    }


def _find(store: Store, image: Image) -> Optional[Stored]:
    found = [store.find(name) for name in planning.store_names(image)]
    return next((here for here in found if here), None)


def run_plan(args: argparse.Namespace) -> None:
    """Print what would be fetched; exit with 3 when it would not fit."""
    repo, store = _open(args)
    wanted = _read_wanted(args.wanted)
    catalog = Catalog([repo.load(store)])
    sources = Sources(catalog, repo.settings)
    found = provision.plan_for(wanted, catalog, store, sources)
    if _is_data(args):
        print(args.out_format.format(plan.plan_document(found)))
    else:
        report.print_plan(found, report.make_console(sys.stdout))
    try:
        found.check_room()
    except errors.NotEnoughSpace as error:
        LOGGER.error('%s', error)
        sys.exit(NO_ROOM_STATUS)


def _read_wanted(words: List[str]) -> List[Wanted]:
    path = words[0] if words else 'LagoInitFile'
    named = path.startswith(('/', './', '../')) or os.path.isfile(path)
    if len(words) <= 1 and (not words or named):
        return [
            disk.wanted
            for disk in initfile.template_disks(_load_initfile(path), path)
        ]
    return [_parse_wanted(word) for word in words]


def _load_initfile(path: str) -> Any:
    try:
        with open(path) as stream:
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


def _parse_wanted(word: str) -> Wanted:
    repo, slash, name = word.rpartition('/')
    template, colon, version = name.partition(':')
    return Wanted(
        template, version if colon else None, repo if slash else None
    )


def _open(
    args: argparse.Namespace
) -> Tuple[repository.TemplateRepository, Store]:
    """Return the repository and the store that `lago init` would use."""
    section = config.get_section('init', {})
    name = section.get('template_repo_name')
    path = args.repo or section.get('template_repo_path')
    repo = (
        lago_plugin.TemplateRepository.from_url(path) if path
        else lago_plugin.find_repo_by_name(name)
    )
    return repo, Store(args.template_store or section['template_store'])


def _is_data(args: argparse.Namespace) -> bool:
    return not isinstance(args.out_format, DefaultOutFormatPlugin)


#: By the name of the command.
COMMANDS: Dict[str, Callable[[argparse.Namespace], None]] = {
    'list': run_list,
    'plan': run_plan,
}
