"""`create`: publish the images of a directory."""

from __future__ import annotations

import sys
from typing import Any, Dict, Tuple

from ..core import errors
from ..core.model import Image
from ..core.sizes import size_text
from ..publishing.create import Publication, publish
from ..publishing.options import Options
from ..report import console as report, tables
from ..report.choose import make_progress
from ..report.progress import Words
from .context import Context

#: What the progress says here.
WORDS = Words('packing', 'packed')


def run_create(context: Context) -> int:
    """Publish the images of a directory."""
    return publish_directory(context, context.args.directory)


def publish_directory(context: Context, directory: str) -> int:
    """Publish a directory as the options say, and report it.

    Raises:
        PublishError: with all that is in the way.
    """
    console = report.make_console(sys.stderr)
    progress = make_progress(
        context.settings.progress, console, WORDS
    )
    with progress:
        done = publish(
            directory, read_options(context.args),
            lock_timeout=context.settings.lock_timeout,
            progress=progress, warn=context.warn,
        )
    context.show(_document(done), lambda: _print(done))
    return 0


def read_options(args: Any) -> Options:
    """Return what the options of `create` and `build` mean.

    Raises:
        PublishError: one cannot be read.
    """
    bases: Dict[str, str] = {}
    faults = []
    for text in getattr(args, 'base', None) or ():
        image, equals, base = text.partition('=')
        if not (image and equals and base):
            faults.append(f'--base {text}: expected IMAGE=BASE')
        bases[image] = base
    if args.valid_for is not None:
        if args.sign is None:
            faults.append('--valid-for: only a signed index expires; --sign')
        if not 0 < args.valid_for < 36500:
            faults.append('--valid-for: expected days, up to 36500')
    if faults:
        raise errors.PublishError('Options cannot be read', faults)
    return Options(
        name=args.name,
        base_url=args.base_url,
        mirrors=None if args.mirror is None else tuple(args.mirror),
        version=args.version,
        compression=None if args.compress == 'none' else args.compress,
        key=args.sign,
        valid_days=args.valid_for,
        bases=bases,
        in_place=getattr(args, 'in_place', False),
    )


def _print(done: Publication) -> None:
    console = report.make_console(sys.stdout)
    if done.new:
        tables.print_table(
            ['IMAGE', 'BASE', 'SIZE', 'TO FETCH', 'FROM'],
            [_row(image, path) for image, path in done.new],
            console, right=('SIZE', 'TO FETCH'),
        )
        console.print()
    for short in done.dropped:
        console.print(f'{short} was dropped: its published file is gone')
    count = len(done.new)
    console.print(
        f'{count} image{"s" * (count != 1)} published, {done.unchanged} '
        f'unchanged; {done.index}'
    )


def _row(image: Image, path: str) -> Tuple[str, ...]:
    return (
        image.ref.short, str(image.base or '-'), size_text(image.size),
        size_text(image.compressed_size), path,
    )


def _document(done: Publication) -> Dict[str, Any]:
    return {
        'index': done.index,
        'published': [
            {
                'image': image.ref.short,
                'original': path,
                'base': None if image.base is None else str(image.base),
                'file': image.file,
                'size': image.size,
                'compressed_size': image.compressed_size,
            }
            for image, path in done.new
        ],
        'unchanged': done.unchanged,
        'dropped': list(done.dropped),
    }
