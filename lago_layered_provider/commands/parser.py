"""The verb `lago template-repo`: its options, and the way to its commands.

Every `lago` command pays for this import; what the commands do, and what
that takes, is in `commands`.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict

from . import parser_publishing

WANTED: Dict[str, Any] = {
    'metavar': 'LagoInitFile | TEMPLATE',
    'help': (
        'an init file, or templates as NAME, NAME:VERSION or '
        'REPOSITORY/NAME:VERSION; without any, the init file of --init-file, '
        'or LagoInitFile of this directory'
    ),
}
LOCKED: Dict[str, Any] = {
    'action': 'store_true',
    'help': 'exactly the images of the init file\'s lock, or fail',
}
INIT_FILE: Dict[str, Any] = {
    'metavar': 'LagoInitFile', 'nargs': '?',
    'help': (
        'that of --init-file if none is named, or LagoInitFile of this '
        'directory'
    ),
}


def populate_parser(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their options to the verb's parser."""
    commands = parser.add_subparsers(
        dest='template_repo_command', metavar='COMMAND', required=True,
    )
    _add_looks(commands)
    _add_transfers(commands)
    _add_store(commands)
    _add_removals(commands)
    _add_locks(commands)
    _add_repositories(commands)
    parser_publishing.add_commands(commands, add_command)


def _add_looks(commands: Any) -> None:
    """Add what only looks at repositories."""
    command = add_command(
        commands, 'list', 'List the templates of the repositories',
        'lago template-repo list el7',
    )
    command.add_argument(
        'pattern', metavar='PATTERN', nargs='?',
        help='only templates with this text in their name',
    )
    command.add_argument(
        '--tree', action='store_true',
        help='draw which image stands on which',
    )
    command = add_command(
        commands, 'show', 'Show all that is known of one image',
        'lago template-repo show el7-nfs:v2',
    )
    command.add_argument(
        'template', metavar='TEMPLATE[:VERSION]',
        help='the newest version if none is named',
    )


def _add_transfers(commands: Any) -> None:
    """Add the plan, and the transfer alone."""
    command = add_command(
        commands, 'plan', 'Show what lago init would fetch, without doing it',
        'lago template-repo plan el7-nfs:v2',
    )
    command.add_argument('wanted', nargs='*', **WANTED)
    command.add_argument('--locked', **LOCKED)
    command = add_command(
        commands, 'pull', 'Fetch templates into the store, ahead of lago init',
        'lago template-repo pull el7-nfs:v2',
    )
    command.add_argument('wanted', nargs='*', **WANTED)
    command.add_argument('--locked', **LOCKED)
    command.add_argument(
        '--all', action='store_true',
        help='the newest version of every template',
    )


def _add_store(commands: Any) -> None:
    """Add what looks at the store, and mends it."""
    command = add_command(
        commands, 'store', 'Show what the store holds, and who uses it',
        'lago template-repo store --tree', repositories=False,
    )
    command.add_argument(
        '--tree', action='store_true',
        help='draw which image stands on which',
    )
    _add_workdir(command)
    command = add_command(
        commands, 'why', 'Show who needs an image of the store',
        'lago template-repo why el7-base:v1', repositories=False,
    )
    command.add_argument('image', metavar='IMAGE')
    _add_workdir(command)
    command = add_command(
        commands, 'verify', 'Check that the images of the store are intact',
        'lago template-repo verify el7-nfs:v2',
    )
    command.add_argument(
        'images', metavar='IMAGE', nargs='*',
        help='these and what they stand on; all of the store if none is named',
    )
    command.add_argument(
        '--repair', action='store_true',
        help='fetch what is damaged again, and nothing else',
    )


def _add_removals(commands: Any) -> None:
    """Add what frees room, and what keeps from it."""
    command = add_command(
        commands, 'prune', 'Remove the images that nobody needs',
        'lago template-repo prune --dry-run', repositories=False,
    )
    command.add_argument(
        '--dry-run', action='store_true', help='only show what would go',
    )
    command.add_argument(
        '--keep', metavar='N', type=int,
        help='keep the N newest versions of each template',
    )
    command.add_argument(
        '--older-than', metavar='DAYS', type=float,
        help='only what came into the store so many days ago',
    )
    command.add_argument(
        '--until-free', metavar='SIZE',
        help='stop when so much is free, as 20G; the oldest go first',
    )
    _add_workdir(command)
    command = add_command(
        commands, 'hold', 'Keep an image although nothing uses it',
        'lago template-repo hold el7-base:v1', repositories=False,
    )
    command.add_argument('image', metavar='IMAGE')
    command = add_command(
        commands, 'release', 'Undo a hold',
        'lago template-repo release el7-base:v1', repositories=False,
    )
    command.add_argument('image', metavar='IMAGE')


def _add_locks(commands: Any) -> None:
    """Add what writes and compares a LagoInitFile.lock."""
    command = add_command(
        commands, 'lock',
        'Write down the exact images of an environment, for init --locked',
        'lago template-repo lock',
    )
    command.add_argument('init_file_to_lock', **INIT_FILE)
    command.add_argument(
        '--update', action='store_true',
        help='take newer versions where there are any',
    )
    command = add_command(
        commands, 'outdated',
        'Show which locked templates have newer versions',
        'lago template-repo outdated',
    )
    command.add_argument('init_file_to_lock', **INIT_FILE)


def _add_repositories(commands: Any) -> None:
    """Add what changes the repositories below template_repos."""
    command = add_command(
        commands, 'add', 'Add a repository, to be used by its name',
        'lago template-repo add http://templates.example.com/repo.metadata',
        repositories=False, store=False,
    )
    command.add_argument(
        'url', metavar='URL', help='of an index, or of a git repository',
    )
    command.add_argument(
        'name', metavar='NAME', nargs='?',
        help=(
            'of its file or directory; without it the own name of an index, '
            'or the end of the URL of a git repository'
        ),
    )
    command = add_command(
        commands, 'remove', 'Remove a repository that was added',
        'lago template-repo remove office', repositories=False, store=False,
    )
    command.add_argument('name', metavar='NAME')
    command = add_command(
        commands, 'update', 'Bring added repositories up to date',
        'lago template-repo update', repositories=False, store=False,
    )
    command.add_argument(
        'names', metavar='NAME', nargs='*', help='all if none is named',
    )


def _add_workdir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--workdir', metavar='DIR', action='append',
        help=(
            'look here, too, for environments that use the store; may be '
            'given several times'
        ),
    )


def add_command(
    commands: Any, name: str, text: str, example: str, *,
    repositories: bool = True, store: bool = True,
) -> argparse.ArgumentParser:
    """Add a subcommand with the options that it shares with others."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f'{text}.', epilog=f'Example: {example}',
    )
    if repositories:
        parser.add_argument(
            '--repo', metavar='PATH_OR_URL', action='append',
            help=(
                'index of a repository, instead of those of lago init; may '
                'be given several times'
            ),
        )
        parser.add_argument(
            '--init-file', metavar='FILE',
            help='take the repositories that an init file names',
        )
    if store:
        parser.add_argument(
            '--template-store', metavar='DIR',
            help='store, instead of that of lago init',
        )
    return parser
