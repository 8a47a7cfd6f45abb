"""`mirror`: copy a repository, or a part of it."""

from __future__ import annotations

import os
import sys

from ..core.sizes import size_text
from ..publishing.layout import INDEX
from ..publishing.mirroring import Copy, mirror
from ..report import console
from ..report.choose import make_progress
from ..report.progress import Words
from .context import Context
from .planning import parse_word

#: What the progress says here.
WORDS = Words('fetching', 'copied')


def run_mirror(context: Context) -> int:
    """Copy templates into a directory that can be served as it is."""
    args = context.args
    progress = make_progress(
        context.settings.progress, console.make_console(sys.stderr), WORDS
    )
    with progress:
        done = mirror(
            find_index(args.url), args.directory,
            [parse_word(word) for word in args.templates], args.sign,
            context.settings, progress=progress, warn=context.warn,
        )
    context.show({
        'index': done.index,
        'copied': [
            {'image': image.ref.short, 'file': image.file,
             'compressed_size': image.compressed_size}
            for image in done.new
        ],
        'present': done.present,
    }, lambda: _print(done))
    return 0


def find_index(location: str) -> str:
    """Return where the index of a repository is, if a directory is named."""
    if location.endswith('/') or os.path.isdir(location):
        return f'{location.rstrip("/")}/{INDEX}'
    return location


def _print(done: Copy) -> None:
    count = len(done.new)
    console.make_console(sys.stdout).print(
        f'{count} image{"s" * (count != 1)} copied '
        f'({size_text(done.fetched)}), {done.present} here before; '
        f'{done.index}'
    )
