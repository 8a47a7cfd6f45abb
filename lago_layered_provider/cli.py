"""The verb `lago template-repo`: templates from the command line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

import lago.utils
from lago.config import config
from lago.plugins.output import DefaultOutFormatPlugin

from . import provision, repository
from .core import errors, initfile, plan, planning
from .core.model import UNKNOWN, Image, Stored
from .core.catalog import Catalog, Wanted
from .store import Store

LOGGER = logging.getLogger(__name__)

#: Exit status of `plan` when the templates would not fit into the store.
NO_ROOM_STATUS = 3


def populate_parser(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options to the verb's parser."""
    commands = parser.add_subparsers(
        dest='template_repo_command', metavar='COMMAND', required=True,
    )
    _add(
        commands, 'list', run_list,
        'List the templates of the repository',
        'lago template-repo list el7',
    ).add_argument(
        'pattern', metavar='PATTERN', nargs='?',
        help='only templates with this text in their name',
    )
    _add(
        commands, 'plan', run_plan,
        'Show what lago init would fetch, without doing it',
        'lago template-repo plan el7-nfs:v2',
    ).add_argument(
        'wanted', metavar='LagoInitFile | TEMPLATE', nargs='*',
        help=(
            'an init file, or templates as NAME or NAME:VERSION; '
            'LagoInitFile of this directory if there is none'
        ),
    )


def _add(
    commands: Any, name: str, run_command: Any, text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f'{text}.', epilog=f'Example: {example}',
    )
    parser.set_defaults(template_repo_run=run_command)
    parser.add_argument(
        '--repo', metavar='PATH_OR_URL',
        help='index of the repository, instead of that of lago init',
    )
    parser.add_argument(
        '--template-store', metavar='DIR',
        help='store, instead of that of lago init',
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Run the subcommand that was asked for.

    Raises:
        LayeredError: with a message for people.
    """
    args.template_repo_run(args)


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
        from . import report

        report.print_templates(rows, report.make_console(sys.stdout))
    from . import lago_plugin

    for fault in faults:
        lago_plugin.warn(fault)


def _images(
    found: Any, pattern: str, faults: List[str]
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
    sources = provision.Sources(catalog, repo.settings)
    found = provision.plan_for(wanted, catalog, store, sources)
    if _is_data(args):
        print(args.out_format.format(plan.plan_document(found)))
    else:
        from . import report

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
    except ValueError as error:
        raise errors.IndexFaults(path, [str(error)]) from None


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
    from . import lago_plugin

    section = config.get_section('init', {})
    name = section.get('template_repo_name')
    path = args.repo or section.get('template_repo_path')
    repo = (
        lago_plugin.TemplateRepository(path) if path
        else lago_plugin.find_repo_by_name(name)
    )
    return repo, Store(args.template_store or section['template_store'])


def _is_data(args: argparse.Namespace) -> bool:
    return not isinstance(args.out_format, DefaultOutFormatPlugin)
