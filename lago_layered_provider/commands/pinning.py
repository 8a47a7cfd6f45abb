"""`lock` and `outdated`: the lock of an environment, written and compared."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..core import errors, lock_document
from ..core.lock_document import Lock, Wish
from ..core.wanted import Pins, Wanted
from ..environments import lock_file
from ..environments.environment import Environment
from ..report import console as report, tables
from .context import Context

Row = Dict[str, Any]

CURRENT = 'current'

#: What a row says of a template, and the column of the table.
COLUMNS = {
    'wanted': 'TEMPLATE', 'locked': 'LOCKED', 'newest': 'NEWEST',
    'state': 'STATE',
}


def run_lock(context: Context) -> int:
    """Write the lock of an init file; what it has already stays."""
    path = context.find_init_file(context.args.init_file_to_lock)
    found = context.read_environment(path)
    old = lock_file.read_lock(path)
    before: Lock = old or {}
    wishes = lock_file.find_wishes(found)
    after = {
        wish: before[wish] for wish in wishes
        if wish in before and not context.args.update
    }
    after.update(_find_all(context, found, {
        wish: wanted for wish, wanted in wishes.items() if wish not in after
    }))
    if after != old:
        lock_file.write_lock(path, after)
    rows = _changes(before, after)
    written = lock_file.lock_path(path)
    context.show(
        {'lock': written, 'templates': rows},
        lambda: _print_changes(written, rows),
    )
    return 0


def _find_all(
    context: Context, found: Environment, wishes: Mapping[Wish, Wanted]
) -> Lock:
    """Return what is to be locked now.

    Raises:
        LayeredError: a template is not there or has no digest; all of them.
    """
    sources = found.repository.sources(context.store, keep=False)
    chains: Dict[Wish, Pins] = {}
    failures: List[errors.LayeredError] = []
    for wish, wanted in wishes.items():
        try:
            chains[wish] = lock_file.find_newest(
                found, wanted, context.store, sources
            )
        except (errors.ResolveError, errors.IndexFaults) as error:
            failures.append(error)
    errors.raise_all(failures)
    return chains


def _changes(before: Lock, after: Lock) -> List[Row]:
    rows = []
    for wish in sorted({*before, *after}):
        old, new = before.get(wish), after.get(wish)
        if old is None:
            change = 'added'
        elif new is None:
            change = 'dropped'
        else:
            change = lock_document.find_change(old, new) or 'kept'
        rows.append({
            **_row(wish), 'change': change,
            'before': old and str(old[-1]), 'locked': new and str(new[-1]),
        })
    return rows


def _row(wish: Wish) -> Row:
    return {'wanted': wish.template, 'digest': wish.digest or None}


def _print_changes(path: str, rows: Sequence[Row]) -> None:
    console = report.make_console(sys.stdout)
    changed = [row for row in rows if row['change'] != 'kept']
    for row in changed:
        name = lock_document.describe_wish(
            Wish(row['wanted'], row['digest'] or '')
        )
        what = row['locked'] or 'no disk wants it any more'
        if row['before'] and row['locked'] != row['before'] and row['locked']:
            what = f'{row["before"]} -> {row["locked"]}'
        console.print(f'{name}: {row["change"]}: {what}')
    locked = len([row for row in rows if row['locked']])
    console.print(
        f'{path}: {locked} template{"s" * (locked != 1)} locked, '
        f'{len(changed) or "none"} changed'
    )


def run_outdated(context: Context) -> int:
    """Print which locked templates are another image by now."""
    path = context.find_init_file(context.args.init_file_to_lock)
    found = context.read_environment(path)
    lock = lock_file.read_lock(path)
    if lock is None:
        raise errors.IndexFaults(
            lock_file.lock_path(path), ['there is no such file'],
            hint=lock_file.MAKE_HINT,
        )
    wishes = lock_file.find_wishes(found)
    rows = []
    for wish in sorted({*lock, *wishes}):
        locked = lock.get(wish)
        newest, state, outdated = _compare(
            context, found, wishes.get(wish), locked
        )
        rows.append({
            **_row(wish), 'locked': locked and str(locked[-1]),
            'newest': newest or None, 'state': state, 'outdated': outdated,
        })
    context.show({'templates': rows}, lambda: _print_outdated(rows))
    return 0


def _compare(
    context: Context,
    found: Environment,
    wanted: Optional[Wanted],
    locked: Optional[Pins],
) -> Tuple[str, str, bool]:
    """Return the newest image, what to say, and whether to lock anew."""
    if wanted is None:
        return '', 'no disk wants it any more', False
    if wanted.digest is not None and locked:
        # An exported disk stands on this image, and on nothing newer.
        return str(locked[-1]), CURRENT, False
    sources = found.repository.sources(context.store, keep=False)
    try:
        newest = lock_file.resolve_now(wanted, sources)
    except errors.ResolveError as error:
        # What is locked may still be in the store.
        context.warn(error.message)
        return '', 'not in the repositories', True
    ref = newest.top.ref
    change: Optional[str] = 'not locked'
    if locked:
        change = lock_document.find_change(locked, newest)
    return f'{ref.repository}/{ref.short}', change or CURRENT, bool(change)


def _print_outdated(rows: Sequence[Row]) -> None:
    tables.print_table(
        list(COLUMNS.values()),
        [tuple(row[key] or '-' for key in COLUMNS) for row in rows],
        report.make_console(sys.stdout), whole=('STATE',),
    )
