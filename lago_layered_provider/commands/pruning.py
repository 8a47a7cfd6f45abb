"""`prune`: remove what nobody needs."""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, Iterable, List, Set, Tuple

from ..core import errors
from ..core.model import Stored
from ..core.sizes import parse_size, size_text
from ..environments import survey as prefixes
from ..report import console
from ..store import Inventory, Unfinished, Usage
from ..store.prune_rules import DAY_SECONDS, Wishes, choose_removals
from ..store.usage_notes import find_needs, with_bases
from .context import Context


def run_prune(context: Context) -> int:
    """Remove the images that nobody needs, and unfinished ones.

    Raises:
        SettingsError: an option has no sense.
        LockTimeout: somebody uses the store for too long.
    """
    args = context.args
    wishes = _read_wishes(context)
    if args.dry_run:
        return _prune(context, wishes)
    root = context.store.root
    context.store.prepare()
    with Usage(root).alone(
        'pruning the store', context.settings.lock_timeout,
        lambda holder: context.warn(f'{root}: waiting for {holder}'),
    ):
        return _prune(context, wishes)


def _read_wishes(context: Context) -> Wishes:
    args = context.args
    if args.keep is not None and args.keep < 0:
        raise errors.SettingsError('--keep: expected is 0 or more')
    if args.older_than is not None and not args.older_than >= 0:
        raise errors.SettingsError('--older-than: expected is 0 or more days')
    before = until_free = None
    if args.older_than is not None:
        before = time.time() - args.older_than * DAY_SECONDS
    if args.until_free is not None:
        try:
            until_free = parse_size(args.until_free)
        except ValueError as error:
            raise errors.SettingsError(f'--until-free: {error}') from None
    return Wishes(
        keep=args.keep or 0, before=before, until_free=until_free,
        foreign=bool(args.workdir),
    )


def _prune(context: Context, wishes: Wishes) -> int:
    inventory, usage, survey = prefixes.collect(
        context.store.root, context.args.workdir or ()
    )
    images, faults = inventory.images()
    unfinished = [
        one for one in inventory.unfinished() if one.holder is None
    ]
    free = context.store.room({}).free + sum(one.disk for one in unfinished)
    needs = find_needs(images.values(), survey.notes, usage.holds())
    chosen = choose_removals(images, needs, wishes, free)
    for doubt in (*faults, *survey.doubts):
        context.warn(doubt)
    removed: List[Dict[str, Any]] = []
    if not context.args.dry_run:
        for note in survey.notes:
            usage.note(note)  # those of --workdir are known from now on
        for note in survey.gone:
            usage.forget(note)
    stay: Set[str] = set()
    for name, size, remove in _steps(inventory, unfinished, chosen):
        if name in stay:
            continue
        try:
            if not context.args.dry_run:
                remove(name)
        except errors.StoreError as error:
            context.warn(error.message)
            stay.update(with_bases([name], images))
            continue
        removed.append({'name': name, 'on_disk': size})
        if context.format_data is None:
            _say(context, name, size)
    _conclude(context, removed)
    return 0


def _steps(
    inventory: Inventory,
    unfinished: Iterable[Unfinished],
    chosen: Iterable[Stored],
) -> Iterable[Tuple[str, int, Any]]:
    for one in unfinished:
        yield one.name, one.disk, inventory.remove_unfinished
    for image in chosen:
        yield image.name, image.disk, inventory.remove


def _say(context: Context, name: str, size: int) -> None:
    verb = 'would remove' if context.args.dry_run else 'removed'
    console.make_console(sys.stdout).print(
        f'{verb}  {size_text(size):>9}  {name}'
    )


def _conclude(context: Context, removed: List[Dict[str, Any]]) -> None:
    freed = sum(one['on_disk'] for one in removed)
    left = context.store.room({}).free

    def show() -> None:
        verb = 'to remove' if context.args.dry_run else 'removed'
        console.make_console(sys.stdout).print(
            f'{len(removed)} {verb}, {size_text(freed)}; '
            f'{size_text(left)} are free'
        )

    context.show({
        'removed': removed, 'on_disk': freed, 'free': left,
        'dry_run': context.args.dry_run,
    }, show)
