"""Write the man page lago-template-repo(1), from the help of the command.

``make man``, or ``python -m docs.man_page FILE``.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any, Dict

from argparse_manpage.manpage import Manpage

from lago_layered_provider import __version__
from lago_layered_provider.commands import parser as cli

NAME = 'lago-template-repo'
SUMMARY = 'layered VM templates: look, fetch, keep in order'

#: argparse shall not fold usages: man does.
HELP_COLUMNS = 10**4

STATUS = '''
.TP
0
All is well.
.TP
2
Something is wrong, and the command has said what.
.TP
3
.B plan
only: the templates would not fit into the store.
'''
FILES = '''
.TP
.I LagoInitFile
An environment; see
.BR plan .
.TP
.I lago.conf
Section [init] has the defaults of
.IR template_repo_path ,
.I template_store
and
.IR template_repos ;
section [template_repo] how images are fetched.
.TP
.I /var/lib/lago/store
The images.
.TP
.I /var/lib/lago/repos
Repositories that are used by their names.
'''


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the verb, without that of Lago around it."""
    parser = argparse.ArgumentParser(
        prog='lago template-repo',
        description=(
            'Shows what the repositories of Lago have, fetches it into the '
            'store, and keeps both in order. The options of lago itself, '
            'such as --out-format json, stand before template-repo.'
        ),
    )
    cli.populate_parser(parser)
    return parser


def commands_of(
    parser: argparse.ArgumentParser
) -> Dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands, by name."""
    found: Dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def make_page() -> str:
    """Return the man page."""
    parser = make_parser()
    commands = commands_of(parser)
    formatter: Any = functools.partial(
        argparse.HelpFormatter, width=HELP_COLUMNS
    )
    for each in (parser, *commands.values()):
        each.formatter_class = formatter
    for each in commands.values():
        each.description = None  # it is the help once more
    parser._positionals.title = 'commands'
    page = Manpage(parser, {
        'project_name': 'lago-layered-provider',
        'version': __version__,
        'description': SUMMARY,
        'manual_title': 'Lago',
    }, format='single-commands-section')
    page.prog = NAME
    examples = [
        str(each.epilog).partition(': ')[2] for each in commands.values()
    ]
    page.add_section('examples', '>', '\n'.join(
        ['.nf', *(line.replace('-', r'\-') for line in examples), '.fi']
    ))
    page.add_section('exit status', '>', STATUS.strip())
    page.add_section('files', '>', FILES.strip())
    return str(page)


def main() -> None:
    """Write the page to the file that is named."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make_page(), encoding='utf-8')
    print(path)


if __name__ == '__main__':
    main()
