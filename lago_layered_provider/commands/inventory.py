"""`store` and `why`: what there is, and who needs it."""

from __future__ import annotations

import sys
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from ..core.model import Stored
from ..environments import survey as prefixes
from ..report import console as report, store
from ..store.usage_notes import Needs, UsageNote, Use, find_needs, with_bases
from .context import Context
from .holding import find_image

Images = Mapping[str, Stored]


def run_store(context: Context) -> int:
    """Print what the store holds, and who uses it."""
    root = context.store.root
    inventory, usage, survey = prefixes.collect(
        root, context.args.workdir or ()
    )
    images, faults = inventory.images()
    needs = find_needs(images.values(), survey.notes, usage.holds())
    locked = inventory.locked()
    unfinished = inventory.unfinished()
    rows = [
        _row(image, images, needs, locked) for image in images.values()
    ]

    def show() -> None:
        store.print_store(
            root, rows, unfinished, survey, report.make_console(sys.stdout),
            tree=context.args.tree,
        )

    context.show({
        'directory': root,
        'images': rows,
        'unfinished': [
            {'name': one.name, 'fetched': one.fetched, 'on_disk': one.disk,
             'holder': one.holder}
            for one in unfinished
        ],
        'environments': [note.to_json() for note in survey.notes],
        'gone': [note.to_json() for note in survey.gone],
    }, show)
    for fault in (*faults, *survey.doubts):
        context.warn(fault)
    return 0


def _row(
    image: Stored, images: Images, needs: Needs, locked: Mapping[str, str]
) -> Dict[str, Any]:
    chain = [
        images[name] for name in with_bases([image.name], images)
        if name in images
    ]
    return {
        'name': image.name,
        'base': image.backing,
        'format': image.format,
        'size': image.size,
        'on_disk': image.disk,
        'chain_on_disk': sum(each.disk for each in chain),
        'virtual_size': image.virtual_size,
        'time': image.time,
        'digests': [str(digest) for digest in image.digests],
        'environments': [
            {'prefix': note.prefix, 'vm': use.vm, 'disk': use.disk}
            for note, use in needs.environments.get(image.name, ())
        ],
        'images': list(needs.images.get(image.name, ())),
        'held': needs.holds.get(image.name),
        'locked': locked.get(image.name),
    }


def run_why(context: Context) -> int:
    """Print who needs an image."""
    inventory, usage, survey = prefixes.collect(
        context.store.root, context.args.workdir or ()
    )
    images, faults = inventory.images()
    name = find_image(context.args.image, images)
    needs = find_needs(images.values(), survey.notes, usage.holds())
    paths = list(_paths_to(name, needs))

    def show() -> None:
        console = report.make_console(sys.stdout)
        for path in paths:
            console.print(_reason_text(name, path))
        if not paths:
            console.print(f'Nobody needs {name}.')

    context.show({'image': name, 'needed_by': [
        {'images': list(above), **_reason_data(reason)}
        for above, reason in paths
    ]}, show)
    for fault in (*faults, *survey.doubts):
        context.warn(fault)
    return 0


#: A hold as its text, or a disk of an environment; None: no one.
Reason = Any
Path = Tuple[Tuple[str, ...], Reason]


def _paths_to(name: str, needs: Needs) -> Iterable[Path]:
    """Yield who needs an image: the images above it, and who is on top."""
    waiting: List[Tuple[str, ...]] = [(name,)]
    while waiting:
        path = waiting.pop(0)
        for use in needs.environments.get(path[-1], ()):
            yield path[1:], use
        if path[-1] in needs.holds:
            yield path[1:], needs.holds[path[-1]]
        above = needs.images.get(path[-1], ())
        if not above and not needs.reasons(path[-1]) and len(path) > 1:
            yield path[1:], None
        waiting += [(*path, each) for each in above if each not in path]


def _reason_text(name: str, path: Path) -> str:
    above, reason = path
    way = ' <- '.join((name, *above))
    if reason is None:
        return f'{way}: an image that nobody uses'
    if isinstance(reason, str):
        return f'{way}: held{f" ({reason})" if reason else ""}'
    note, use = reason
    return f'{way}: VM {use.vm or "?"}, disk {use.disk}, of {note.prefix}'


def _reason_data(reason: Reason) -> Dict[str, Any]:
    if reason is None:
        return {}
    if isinstance(reason, str):
        return {'held': reason}
    note: UsageNote = reason[0]
    use: Use = reason[1]
    return {'prefix': note.prefix, 'vm': use.vm, 'disk': use.disk}
