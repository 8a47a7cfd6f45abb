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

from . import (
    environment, lago_init, lago_messages, lago_plugin, provision, report,
    repository,
)
from .core import errors, plan
from .core.index import Index
from .core.model import UNKNOWN, Image, Stored, show
from .core.names import store_names
from .core.wanted import Wanted, parse_wanted
from .store import Store

LOGGER = logging.getLogger(__name__)

#: Exit status of `plan` when the templates would not fit into the store.
NO_ROOM_STATUS = 3


def run_list(args: argparse.Namespace) -> None:
    """Print the versions of all templates."""
    repo, store = _open(args)
    found = repo.sources(store, keep=False).first()
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
        lago_messages.warn(fault)


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
    found = [store.find(name) for name in store_names(image)]
    return next((here for here in found if here), None)


def run_plan(args: argparse.Namespace) -> None:
    """Print what would be fetched; exit with 3 when it would not fit."""
    repo, store = _open(args)
    path = _find_initfile(args.wanted)
    if path is None:
        wanted = [_parse_wanted(word) for word in args.wanted]
    else:
        found = _read_environment(path, repo)
        repo, wanted = found.repository, found.wanted(store)
    _print_plan(args, wanted, repo, store)


def run_init_plan(args: argparse.Namespace) -> None:
    """Print what a `lago init` with these options would fetch."""
    path = args.virt_config or os.path.abspath('LagoInitFile')
    repo = _repository(args.template_repo_path, args.template_repo_name)
    found = _read_environment(path, repo)
    store = Store(args.template_store)
    _print_plan(args, found.wanted(store), found.repository, store)


def _print_plan(
    args: argparse.Namespace,
    wanted: List[Wanted],
    repo: repository.TemplateRepository,
    store: Store,
) -> None:
    sources = repo.sources(store, keep=False)
    found = provision.plan_for(wanted, store, sources)
    if _is_data(args):
        print(args.out_format.format(plan.plan_document(found)))
    else:
        report.print_plan(found, report.make_console(sys.stdout))
    try:
        found.check_room()
    except errors.NotEnoughSpace as error:
        LOGGER.error('%s', error)
        sys.exit(NO_ROOM_STATUS)
    provision.check_offline(found, sources)


def _find_initfile(words: List[str]) -> Optional[str]:
    """Return the init file that is meant, None where templates are named."""
    if not words:
        return 'LagoInitFile'
    path = words[0]
    named = path.startswith(('/', './', '../')) or os.path.isfile(path)
    return path if len(words) == 1 and named else None


def _read_environment(
    path: str, repo: repository.TemplateRepository
) -> environment.Environment:
    os.environ['LAGO_INITFILE_PATH'] = os.path.dirname(os.path.abspath(path))
    return lago_init.read_environment(_load_initfile(path), repo, path)


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
    try:
        return parse_wanted(word)
    except ValueError as error:
        raise errors.TemplateNotFound(f'{show(word)}: {error}') from None


def _open(
    args: argparse.Namespace
) -> Tuple[repository.TemplateRepository, Store]:
    """Return the repository and the store that `lago init` would use."""
    section = config.get_section('init', {})
    repo = _repository(
        args.repo or section.get('template_repo_path'),
        section.get('template_repo_name'),
    )
    return repo, Store(args.template_store or section['template_store'])


def _repository(
    path: Optional[str], name: Optional[str]
) -> repository.TemplateRepository:
    if path:
        return lago_plugin.TemplateRepository.from_url(path)
    if name:
        return lago_plugin.find_repo_by_name(name)
    return lago_plugin.TemplateRepository.from_url(lago_plugin.NO_REPOSITORY)


def _is_data(args: argparse.Namespace) -> bool:
    return not isinstance(args.out_format, DefaultOutFormatPlugin)


#: By the name of the command.
COMMANDS: Dict[str, Callable[[argparse.Namespace], None]] = {
    'list': run_list,
    'plan': run_plan,
}
