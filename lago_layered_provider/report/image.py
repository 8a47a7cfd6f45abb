"""One image on a sheet of 80 columns, as people see it."""

from __future__ import annotations

import textwrap
from typing import Any, Iterator, List, Mapping, Optional, Tuple


from ..core.plan import Plan
from ..core.sizes import size_text
from .console import Screen
from .plan import print_plan
from .tables import date_text

#: Where the values begin.
VALUE_COLUMN = 14

#: A sha512 takes two lines of this.
DIGEST_COLUMNS = 64

Document = Mapping[str, Any]


def print_image(
    document: Document, plan: Optional[Plan], console: Screen
) -> None:
    """Print what is known of an image.

    Args:
        document: as `show` has it, for programs too.
        plan: for the image and its chain, where there is one.
    """
    title = '{repository}/{template}:{version}'.format(**document)
    console.print(f'{title}\n')
    for name, value in _lines(document):
        console.print(f'{name:<{VALUE_COLUMN}}{value}'.rstrip())
    if document['metadata']:
        console.print('\nMETADATA')
        for name, value in _metadata_lines(document['metadata']):
            console.print(f'{name:<{VALUE_COLUMN}}{value}'.rstrip())
    if plan is not None:
        console.print()
        print_plan(plan, console)
    if document['above']:
        if plan is None:
            console.print()
        console.print('STANDING ON IT IN THE STORE')
        for row in document['above']:
            console.print(row['name'])


def _lines(document: Document) -> Iterator[Tuple[str, str]]:
    yield 'date', date_text(document['timestamp'])
    yield 'base', document['base'] or 'none'
    yield 'index', document['index']
    yield 'file', document['url'] or '?'
    compression = document['compression']
    yield 'format', ', '.join([
        document['format'] or 'unknown',
        {'?': 'compression unknown', None: 'not compressed'}.get(
            compression, f'compressed as .{compression}'
        ),
    ])
    fetch = document['compressed_size']
    if fetch is None and compression is None:
        fetch = document['size']
    yield 'to fetch', _exact(fetch)
    yield 'file size', _exact(document['size'])
    yield 'virtual size', _exact(document['virtual_size'])
    yield from _stored_lines(document['stored'])
    for algorithm, value in document['digests'].items():
        for line in textwrap.wrap(value, DIGEST_COLUMNS):
            yield algorithm, line
            algorithm = ''


def _stored_lines(
    stored: Optional[Document]
) -> Iterator[Tuple[str, str]]:
    if stored is None:
        yield 'in the store', 'no'
        return
    yield 'in the store', stored['name']
    yield 'on disk', _exact(stored['disk'])


def _exact(size: Optional[int]) -> str:
    """Return bytes at a glance and exactly."""
    if size is None:
        return size_text(size)
    return f'{size_text(size)} ({size} bytes)'


def _metadata_lines(
    metadata: Mapping[str, Any]
) -> Iterator[Tuple[str, str]]:
    """Yield all of a template's metadata; what is long is folded."""
    for name, value in sorted(metadata.items()):
        label = ' '.join(str(name).split())
        lines: List[str] = textwrap.wrap(str(value), DIGEST_COLUMNS) or ['']
        if len(label) >= VALUE_COLUMN:
            yield label, ''
            label = ''
        for line in lines:
            yield label, line
            label = ''
