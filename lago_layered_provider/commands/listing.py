"""`list`: the templates of the repositories.

It asks for one document a repository, its index, and for nothing else.
"""

from __future__ import annotations

import collections
import sys
from typing import (
    Any, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple,
)

from ..core import errors
from ..core.model import Image, Stored, Unknown
from ..core.sizes import size_text
from ..core.store_names import Names, own_place, store_names
from ..index.catalog import Catalog, IndexNeeded
from ..index.document import Index
from ..index.forest import Forest, Key, grow_forest, short_base
from ..index.resolve import MAX_CHAIN_DEPTH
from ..report import console, tables
from ..report.tables import Node
from ..store import Store
from .context import Context

Row = Dict[str, Any]


def run_list(context: Context) -> int:
    """Print the versions of all templates, as a table or as trees."""
    faults: List[str] = []
    sources = context.repository.sources(context.store, keep=False)
    catalog, unread = sources.read_each()
    indexes = catalog.indexes
    names = repository_names(indexes)
    # One at a time: there may be 100,000, each with its metadata.
    images: Iterable[Image] = (
        image for index in indexes
        for image in _images(index, context.args.pattern or '', faults)
    )
    forest = None
    if context.args.tree:
        forest = grow_forest(list(images), catalog.base_of)
        images = forest.images
    serving = Serving(context.store, catalog, faults)
    rows = {
        image.key: _row(image, serving.find(image) is not None, names)
        for image in images
    }
    several = len(indexes) > 1
    if forest is not None:
        _show_trees(context, forest, rows, several=several)
    else:
        context.show({'templates': list(rows.values())}, lambda: (
            tables.print_templates(
                list(rows.values()), console.make_console(sys.stdout),
                several=several,
            )
        ))
    for fault in dict.fromkeys([*faults, *unread]):
        context.warn(fault)
    return 0


def repository_names(indexes: Tuple[Index, ...]) -> Mapping[str, str]:
    """Return what to call the repositories, by their locations.

    It is their own name, or the location where two have the same.
    """
    names = [index.name for index in indexes]
    return {
        index.location:
            index.name if names.count(index.name) == 1 else index.location
        for index in indexes
    }


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


def _row(image: Image, present: bool, names: Mapping[str, str]) -> Row:
    return {
        'repository': names[image.location],
        'template': image.ref.template,
        'version': image.ref.version,
        'timestamp': image.timestamp,
        'base': None if image.base is None else short_base(image),
        'to_fetch': (
            image.size if image.compression is None else image.compressed_size
        ),
        'to_keep': image.size,
        'present': present,
        'index': image.location,
    }


def find_stored(store: Store, image: Image) -> Optional[Stored]:
    """Return an image of an index as it is in the store, None if not.

    Raises:
        StoreError, UnsafeImage: what is there under its name is faulty.
    """
    found = {name: store.find(name) for name in store_names(image)}
    return own_place(
        image, {name: here for name, here in found.items() if here}
    )[1]


class Serving:
    """The files of the store that serve as images, whatever their names."""

    def __init__(
        self, store: Store, catalog: Catalog, faults: List[str]
    ) -> None:
        self._catalog = catalog
        self._faults = faults
        self._faulty: Dict[str, str] = {}
        self._stored: Dict[str, Stored] = {}
        # An index may have 100,000 images: not each one is asked for.
        for name in store.names():
            try:
                found = store.find(name)
            except errors.LayeredError as error:
                self._faulty[name] = error.message
            else:
                if found is not None:
                    self._stored[name] = found
        self._names = Names(self._stored)

    def find(
        self, image: Image, depth: int = MAX_CHAIN_DEPTH
    ) -> Optional[Stored]:
        """Return the file that serves as an image, None for none."""
        if self._faulty:
            self._faults += [
                self._faulty[name] for name in store_names(image)
                if name in self._faulty
            ]
        own = own_place(image, self._stored)[1]
        if own or not depth or not any(self._names.copies(image)):
            return own
        try:
            base = self._catalog.base_of(image)
        except (errors.LayeredError, IndexNeeded):
            return None
        if base is None:
            return self._names.find(image, None)
        if isinstance(base, Unknown):
            return None
        below = self.find(base, depth - 1)
        return self._names.find(image, below.name) if below else None


def _show_trees(
    context: Context, forest: Forest, rows: Mapping[Key, Row], *,
    several: bool,
) -> None:
    """Print the trees; as data they are rows that name their base."""
    for title, group in forest.groups.items():
        for image in group:
            rows[image.key].update(stands_on=None, problem=title or None)
    for below, group in forest.above.items():
        base = f'{rows[below]["repository"]}/{below[1].short}'
        for image in group:
            rows[image.key].update(stands_on=base, problem=None)
    context.show(
        {'templates': list(rows.values())},
        lambda: tables.print_trees(
            _make_nodes(forest, rows, several=several),
            console.make_console(sys.stdout),
        ),
    )


def _make_nodes(
    forest: Forest, rows: Mapping[Key, Row], *, several: bool
) -> List[Node]:
    """Return the roots; a group that has a title is one, at the end."""
    roots: List[Node] = []
    titled: List[Node] = []
    todo: Deque[Tuple[Image, List[Node]]] = collections.deque()
    for title, group in forest.groups.items():
        siblings = roots
        if title:
            titled.append(Node(title))
            siblings = titled[-1].above
        todo.extend((image, siblings) for image in group)
    while todo:
        image, siblings = todo.popleft()
        row = rows[image.key]
        node = Node(
            label=_name(row, several=several),
            fetch=size_text(row['to_fetch']), keep=size_text(row['to_keep']),
            state=tables.state_text(row['present']),
        )
        siblings.append(node)
        todo.extend(
            (each, node.above) for each in forest.above.get(image.key, ())
        )
    return roots + titled


def _name(row: Row, *, several: bool) -> str:
    """Return the name of an image as `show` and `pull` take it."""
    name = f'{row["template"]}:{row["version"]}'
    return f'{row["repository"]}/{name}' if several else name
