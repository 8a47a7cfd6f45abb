"""The options of the commands that make, check and grow repositories.

They are commands of `lago template-repo`, and of
``python -m lago_layered_provider`` on machines without Lago.
"""

from __future__ import annotations

import argparse
from typing import Any, Callable

COMPRESSIONS = ('zst', 'xz', 'gz', 'none')

#: Adds a subcommand: `parser.add_command`.
Add = Callable[..., argparse.ArgumentParser]


def add_commands(commands: Any, add: Add) -> None:
    """Add the commands for those who publish images."""
    _add_create(commands, add)
    _add_build(commands, add)
    _add_lint(commands, add)
    _add_layers(commands, add)
    _add_mirror(commands, add)
    _add_index(commands, add)


def _add_create(commands: Any, add: Add) -> None:
    command = add(
        commands, 'create', 'Publish the images of a directory',
        'lago template-repo create /srv/images --name office --base-url '
        'http://templates.example.com/', repositories=False, store=False,
    )
    command.add_argument(
        'directory', metavar='DIR',
        help='with qcow2 and raw images; the repository is made in it',
    )
    _add_publication(command)
    command.add_argument(
        '--base', metavar='IMAGE=BASE', action='append',
        help=(
            'what an image stands on, where its header does not say it; may '
            'be given several times'
        ),
    )
    command.add_argument(
        '--in-place', action='store_true',
        help=(
            'write the name of its base into each image itself; with '
            '--compress none the images are published as they lie there'
        ),
    )


def _add_publication(command: argparse.ArgumentParser) -> None:
    """Add what says how images are published."""
    command.add_argument(
        '--name', metavar='NAME',
        help='of the repository; needed the first time',
    )
    command.add_argument(
        '--base-url', metavar='URL',
        help=(
            'where the directory is served; without it images are looked '
            'for beside the index'
        ),
    )
    command.add_argument(
        '--mirror', metavar='URL', action='append',
        help=(
            'another place that serves the directory; may be given several '
            'times'
        ),
    )
    command.add_argument(
        '--version', metavar='VERSION',
        help=(
            'of new images; without it that of their metadata, or the date '
            'of the file'
        ),
    )
    command.add_argument(
        '--compress', choices=COMPRESSIONS, default='zst',
        help='of new images; a Lago without this plugin reads xz only',
    )
    _add_key(command)
    command.add_argument(
        '--valid-for', metavar='DAYS', type=float,
        help=(
            'with --sign: clients refuse the index after so many days; run '
            'it again before'
        ),
    )


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--sign', metavar='KEY',
        help='sign the index with this key of gpg',
    )


def _add_build(commands: Any, add: Add) -> None:
    command = add(
        commands, 'build', 'Build images from specs of lago-images',
        'lago template-repo build specs /srv/images --name office',
        repositories=False, store=False,
    )
    command.add_argument(
        'specs', metavar='SPEC_DIR', help='the directory of the specs',
    )
    command.add_argument(
        'directory', metavar='DIR',
        help='where images are kept and published',
    )
    _add_publication(command)


def _add_lint(commands: Any, add: Add) -> None:
    command = add(
        commands, 'lint', 'Find what is wrong with a repository',
        'lago template-repo lint /srv/images', repositories=False,
        store=False,
    )
    command.add_argument(
        'location', metavar='DIR_OR_URL', help='of the repository or index',
    )
    command.add_argument(
        '--deep', action='store_true',
        help='read every image to its end, and compare size and digests',
    )


def _add_layers(commands: Any, add: Add) -> None:
    command = add(
        commands, 'add-layer', 'Make a layer of a full image',
        'lago template-repo add-layer el7-base.qcow2 /tmp/el7-nfs.qcow2',
    )
    command.add_argument(
        'base', metavar='BASE',
        help='a file, or a template of a repository',
    )
    command.add_argument(
        'image', metavar='IMAGE',
        help='a file that was made from the base; it stays as it is',
    )
    command.add_argument(
        '--output', metavar='FILE',
        help='the layer; without it beside the base, named as the image',
    )
    command = add(
        commands, 'flatten', 'Make one image without a base of a chain',
        'lago template-repo flatten el7-nfs:v2',
    )
    command.add_argument('template', metavar='TEMPLATE[:VERSION]')
    command.add_argument(
        '--output', metavar='FILE',
        help='NAME-VERSION.qcow2 of this directory if none is named',
    )


def _add_mirror(commands: Any, add: Add) -> None:
    command = add(
        commands, 'mirror', 'Copy a repository, or a part of it',
        'lago template-repo mirror http://templates.example.com/'
        'repo.metadata /srv/mirror el7-nfs', repositories=False, store=False,
    )
    command.add_argument('url', metavar='URL', help='of the index')
    command.add_argument('directory', metavar='DIR', help='of the copy')
    command.add_argument(
        'templates', metavar='TEMPLATE[:VERSION]', nargs='*',
        help='these and what they stand on; all if none is named',
    )
    _add_key(command)


def _add_index(commands: Any, add: Add) -> None:
    command = add(
        commands, 'index', 'Write the index of another tool',
        'lago template-repo index /srv/images --virt-builder',
        repositories=False, store=False,
    )
    command.add_argument(
        'directory', metavar='DIR', help='of the repository',
    )
    command.add_argument(
        '--virt-builder', action='store_true', required=True,
        help='for virt-builder, which sees the images without a base',
    )
