"""``python -m lago_layered_provider``: publish images without Lago.

The commands are those of `lago template-repo`; what Lago's configuration says
there comes from the environment here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from .commands import (
    Context, FAILED_STATUS, find_command, parser as cli, parser_publishing,
)
from .core import errors
from .index.source_places import hide_secrets
from .report import screen
from .report.messages import fold
from .repositories.template_repository import TemplateRepository
from .repositories.where import ByPath
from .settings import Settings, read_settings
from .store import Store

DEFAULT_STORE = '/var/lib/lago/store'
DEFAULT_REPOS = '/var/lib/lago/repos'


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m lago_layered_provider',
        description=(
            'Makes, checks and grows repositories of layered templates, on '
            'machines with Lago or without.'
        ),
    )
    parser.add_argument(
        '--out-format', choices=('default', 'json', 'yaml'),
        default='default', help='of the answer',
    )
    commands = parser.add_subparsers(
        dest='template_repo_command', metavar='COMMAND', required=True,
    )
    parser_publishing.add_commands(commands, cli.add_command)
    return parser


def make_context(args: argparse.Namespace) -> Context:
    """Return what a command is given."""
    settings = _read_settings()
    where = getattr(args, 'repo', None) or [
        path for path in [os.environ.get('LAGO__INIT__TEMPLATE_REPO_PATH')]
        if path
    ]
    return Context(
        args=args,
        open_repository=lambda: TemplateRepository(
            [ByPath(each) for each in where], lambda: settings, warn
        ),
        store=Store(
            getattr(args, 'template_store', None)
            or os.environ.get('LAGO__INIT__TEMPLATE_STORE', DEFAULT_STORE)
        ),
        settings=settings,
        read_environment=_refuse_init_file,
        repos_directory=DEFAULT_REPOS,
        format_data=_FORMATS[args.out_format],
        warn=warn,
    )


def warn(text: str) -> None:
    """Tell people what they should know."""
    print(fold(hide_secrets(text), 'Warning: '), file=sys.stderr)


def _read_settings() -> Settings:
    return read_settings({
        each.name: os.environ.get(
            f'LAGO__TEMPLATE_REPO__{each.name.upper()}'
        ) for each in fields(Settings)
    })


def _refuse_init_file(path: str) -> NoReturn:
    raise errors.SettingsError(
        f'{path}: only Lago reads init files.',
        hint='Name the repository with --repo.',
    )


def _format_yaml(data: Any) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False))


_FORMATS: Dict[str, Optional[Callable[[Any], str]]] = {
    'default': None,
    'json': lambda data: json.dumps(data, indent=4),
    'yaml': _format_yaml,
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a command; return its exit status."""
    screen.catch_signals()
    try:
        with screen.session():
            return _run(arguments)
    except errors.LayeredError as error:
        print(fold(hide_secrets(str(error)), 'Error: '), file=sys.stderr)
        return FAILED_STATUS
    except MemoryError:
        print(fold(str(errors.NotEnoughMemory()), 'Error: '), file=sys.stderr)
        return FAILED_STATUS


def _run(arguments: Optional[Sequence[str]]) -> int:
    args = make_parser().parse_args(arguments)
    if getattr(args, 'init_file', None):
        _refuse_init_file(args.init_file)
    return find_command(args.template_repo_command)(make_context(args))


if __name__ == '__main__':
    sys.exit(main())
