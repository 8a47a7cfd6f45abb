"""The verb `lago template-repo`: its options, and the way to its commands.

Every `lago` command pays for this import; what the commands do, and what
that takes, is in `cli_commands`.
"""

from __future__ import annotations

import argparse
from typing import Any


def populate_parser(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options to the verb's parser."""
    commands = parser.add_subparsers(
        dest='template_repo_command', metavar='COMMAND', required=True,
    )
    _add(
        commands, 'list',
        'List the templates of the repository',
        'lago template-repo list el7',
    ).add_argument(
        'pattern', metavar='PATTERN', nargs='?',
        help='only templates with this text in their name',
    )
    _add(
        commands, 'plan',
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
    commands: Any, name: str, text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f'{text}.', epilog=f'Example: {example}',
    )
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
    from . import cli_commands

    cli_commands.COMMANDS[args.template_repo_command](args)
