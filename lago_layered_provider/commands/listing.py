"""`list`: the templates of the repositories."""

from __future__ import annotations

import sys
from typing import Any, Dict, Iterator, List, Optional

from .. import report
from ..core import errors
from ..core.index import Index
from ..core.model import UNKNOWN, Image, Stored
from ..core.names import store_names
from ..store import Store
from .context import Context


def run_list(context: Context) -> int:
    """Print the versions of all templates."""
    pattern = context.args.pattern or ''
    faults: List[str] = []
    sources = context.repository.sources(context.store, keep=False)
    rows = [
        _row(image, find_stored(context.store, image))
        for index in sources.read_all()
        for image in _images(index, pattern, faults)
    ]
    context.show(
        {'templates': rows},
        lambda: report.print_templates(rows, report.make_console(sys.stdout)),
    )
    for fault in faults:
        context.warn(fault)
    return 0


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
        'repository': image.ref.repository,
        'template': image.ref.template,
        'version': image.ref.version,
        'timestamp': image.timestamp,
        'base': '?' if base is UNKNOWN else base and str(base),
        'to_fetch': image.compressed_size or image.size,
        'to_keep': image.size,
        'present': here is not None,
    }


def find_stored(store: Store, image: Image) -> Optional[Stored]:
    """Return an image of an index as it is in the store, None if not."""
    found = [store.find(name) for name in store_names(image)]
    return next((here for here in found if here), None)
