"""From indexes and wanted templates to chains.

Where an index says nothing of an image's base, or where the next repository
has to be read first, no chain can be told yet: `resolve` then names what to
look up, and is asked again with what was found. So the decisions stay here,
and the requests elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Tuple

from ..core import errors
from ..core.model import Chain, Image, UNKNOWN, Unknown
from ..core.wanted import Wanted
from .catalog import Catalog, IndexNeeded

MAX_CHAIN_DEPTH = 32


@dataclass(frozen=True)
class Resolution:
    """The chains, as wanted; or what must be looked up first.

    Attributes:
        unknown: the images whose base nobody knows.
        needed: says which index has to be read, and what for.
    """

    chains: Tuple[Chain, ...] = ()
    unknown: Tuple[Image, ...] = ()
    needed: Optional[IndexNeeded] = None


def resolve(catalog: Catalog, wanted: Iterable[Wanted]) -> Resolution:
    """Tell the chain of each wanted template.

    Returns:
        as many chains as were wanted, in the same order; or none, and what
        has to be looked up before they can be told.

    Raises:
        ResolveError: a template or a base is missing, or the bases go round
            in a circle.
        IndexFaults: an entry that is needed is faulty.
    """
    unknown: Dict[object, Image] = {}
    chains = []
    try:
        for each in wanted:
            images = _descend(catalog, catalog.find(each))
            if images[0].base is UNKNOWN:
                unknown[images[0].key] = images[0]
            chains.append(Chain(tuple(images)))
    except IndexNeeded as needed:
        return Resolution(needed=needed)
    if unknown:
        return Resolution(unknown=tuple(unknown.values()))
    return Resolution(chains=tuple(chains))


def _descend(catalog: Catalog, top: Image) -> List[Image]:
    images = [top]
    while True:
        path = [image.ref.short for image in reversed(images)]
        try:
            base = catalog.base_of(images[0])
        except errors.ResolveError as error:
            if len(images) > 1 and not isinstance(error, errors.ChainCycle):
                error.message += f'\nIt is needed by {" -> ".join(path)}.'
            raise
        if base is None or isinstance(base, Unknown):
            return images
        if any(image.key == base.key for image in images):
            raise errors.ChainCycle(path + [base.ref.short])
        images.insert(0, base)
        if len(images) > MAX_CHAIN_DEPTH:
            raise errors.ChainTooDeep(
                f'{top.ref.short} stands on more than '
                f'{MAX_CHAIN_DEPTH - 1} images: {" -> ".join(path[:5])} ...',
                hint='The index is wrong, or the chain must be flattened.',
            )
