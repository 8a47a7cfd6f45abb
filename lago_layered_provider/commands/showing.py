"""`show`: all that is known of one image.

Look-ups are made as for a transfer. Where they fail, what the index and the
store say is shown all the same, and what failed.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..core import errors, plan
from ..core.model import Chain, Image, Stored, Unknown, show
from ..core.plan import Plan
from ..core.wanted import Wanted, parse_wanted
from ..environments import provision
from ..index import resolve
from ..index.forest import short_base
from ..report import console, image as report_image
from ..repositories.sources import Sources
from ..store import Inventory, Store
from .context import Context, FAILED_STATUS
from .listing import find_stored

LOGGER = logging.getLogger(__name__)

Document = Dict[str, Any]


def run_show(context: Context) -> int:
    """Print what is known of an image, its chain, and what stands on it."""
    sources = context.repository.sources(context.store, keep=False)
    found = sources.find(_parse(context.args.template))
    wanted = Wanted(found.ref.template, found.ref.version, found.location)
    problems: List[errors.LayeredError] = []
    chain: Optional[Chain] = None
    try:
        chain = _complete(wanted, sources)
    except errors.LayeredError as error:
        problems.append(error)
    # Before the plan: it does not care what a present image stands on.
    image = sources.find(wanted)
    planned = None
    try:
        planned = provision.plan_for([wanted], context.store, sources)
    except errors.LayeredError as error:
        if error.message not in [each.message for each in problems]:
            problems.append(error)
    document = {
        **_describe(image, sources),
        **_describe_stored(image, planned, context.store, problems),
        'chain': None if chain is None else [
            f'{each.ref.repository}/{each.ref.short}' for each in chain
        ],
        'plan': None if planned is None else plan.plan_document(planned),
        'problems': [error.message for error in problems],
    }
    context.show(document, lambda: report_image.print_image(
        document, planned, console.make_console(sys.stdout)
    ))
    if planned is not None:
        # An image that is present needs no server.
        for problem in problems:
            context.warn(problem.message)
        return 0
    for problem in problems:
        LOGGER.error('%s', problem)
    return FAILED_STATUS


def _parse(word: str) -> Wanted:
    try:
        return parse_wanted(word)
    except ValueError as error:
        raise errors.TemplateNotFound(f'{show(word)}: {error}') from None


def _complete(wanted: Wanted, sources: Sources) -> Chain:
    """Return the chain of an image, asking for all that the indexes lack.

    Raises:
        LayeredError: there is no chain, or who knows it cannot be asked.
    """
    while True:
        found = resolve.resolve(sources.catalog, [wanted])
        if found.needed:
            sources.read(found.needed)
        elif found.unknown:
            sources.look_up(found.unknown)
        else:
            break
    sources.look_up(found.chains[0])
    return found.chains[0]


def _describe(image: Image, sources: Sources) -> Document:
    """Return what the repository says of an image."""
    unknown = isinstance(image.compression, Unknown)
    return {
        'repository': image.ref.repository,
        'template': image.ref.template,
        'version': image.ref.version,
        'timestamp': image.timestamp,
        'base': None if image.base is None else short_base(image),
        'index': image.location,
        'source': image.source,
        'handle': image.handle,
        'url': _locate(image, sources),
        'format': image.format,
        'compression': '?' if unknown else image.compression,
        'compressed_size': image.compressed_size,
        'size': image.size,
        'virtual_size': image.virtual_size,
        'digests': {each.algorithm: each.value for each in image.digests},
        'metadata': dict(image.metadata or {}),
    }


def _locate(image: Image, sources: Sources) -> Optional[str]:
    """Return the URL of the image's file, None where nobody can tell."""
    unknown = isinstance(image.compression, Unknown)
    try:
        provider = sources.provider(image)
    except errors.LayeredError:
        return None  # the plan has said why
    return provider.locate(image.handle if unknown else image.file)


def _describe_stored(
    image: Image, planned: Optional[Plan], store: Store,
    problems: List[errors.LayeredError],
) -> Document:
    """Return what the store has of an image, and what stands on it."""
    here = None
    try:
        here = _find_stored(image, planned, store)
    except errors.LayeredError as error:
        problems.append(error)
    if here is None:
        return {'stored': None, 'above': []}
    above = _find_above(here.name, Inventory(store.root).images()[0])
    return {
        'stored': {
            'name': here.name,
            'path': store.path(here.name),
            'format': here.format,
            'size': here.size,
            'disk': here.disk,
            'virtual_size': here.virtual_size,
            'backing': here.backing,
            'digests': {each.algorithm: each.value for each in here.digests},
        },
        'above': [
            {'name': name, 'backing': backing} for name, backing in above
        ],
    }


def _find_stored(
    image: Image, planned: Optional[Plan], store: Store
) -> Optional[Stored]:
    """Return the file; the plan also knows copies of another name."""
    if planned is None:
        return find_stored(store, image)
    layer = planned.layer(planned.tops[0])
    missing = layer in planned.missing
    return None if missing else store.find(layer.name)


def _find_above(
    name: str, images: Mapping[str, Stored]
) -> List[Tuple[str, str]]:
    """Return the images that stand on one, and what each has right below.
    """
    found: List[Tuple[str, str]] = []
    below = [name]
    while below:
        rows = sorted(
            (one.name, one.backing) for one in images.values()
            if one.backing in below and one.backing is not None
            and one.name != name
        )
        found += [row for row in rows if row not in found]
        below = [row[0] for row in rows if row[0] not in below]
    return found
