"""`plan` and `pull`, and what others share of them: what is meant."""

from __future__ import annotations

import logging
import os
import sys
from typing import List, Optional, Tuple

from ..core import errors, plan
from ..core.model import show
from ..core.wanted import Wanted, parse_wanted
from ..environments import lock_file, provision
from ..report import console
from ..report.display import Display
from ..report.plan import print_plan
from ..repositories.template_repository import TemplateRepository
from ..settings import read_flag
from .context import Context, INIT_FILE, NO_ROOM_STATUS

#: Faulty entries that are named; there may be as many as there are entries.
SHOWN_FAULTS = 10

LOGGER = logging.getLogger(__name__)


def run_plan(context: Context) -> int:
    """Print what would be fetched."""
    repository, wanted = find_wanted(context, context.args.wanted)
    return _print_plan(context, repository, wanted)


def run_pull(context: Context) -> int:
    """Fetch templates into the store."""
    if context.args.all:
        if context.args.wanted or context.args.locked:
            raise errors.SettingsError(
                'Say --all alone: without names, and without --locked.'
            )
        repository, wanted = context.repository, _all_wanted(context)
    else:
        repository, wanted = find_wanted(context, context.args.wanted)
    sources = repository.sources(context.store)
    done = provision.provision(
        wanted, context.store, sources, Display(sys.stderr)
    )
    context.show(plan.plan_document(done), lambda: None)
    return 0


def _all_wanted(context: Context) -> List[Wanted]:
    """Return the newest version of every template of all repositories.

    What an index says wrongly is left out, and named.
    """
    sources = context.repository.sources(context.store)
    wanted: List[Wanted] = []
    faults: List[errors.IndexFaults] = []
    for index in sources.read_all():
        for template in index.templates():
            if any(index.newest_first(template, left_out=faults.append)):
                wanted.append(Wanted(template, None, index.location))
    if faults:
        shown = [f'\n  - {fault.message}' for fault in faults[:SHOWN_FAULTS]]
        if len(faults) > SHOWN_FAULTS:
            shown.append(f'\n  and {len(faults) - SHOWN_FAULTS} more')
        sources.warn(
            f'left out, as their entries are faulty:{"".join(shown)}'
        )
    return wanted


def run_init_plan(context: Context) -> int:
    """Print what a `lago init` with these options would fetch."""
    path = context.args.virt_config or os.path.abspath(INIT_FILE)
    found = context.read_environment(path)
    if read_flag('locked', context.args.locked):
        found = lock_file.hold(found, path)
    return _print_plan(context, found.repository, found.wanted(context.store))


def find_wanted(
    context: Context, words: List[str]
) -> Tuple[TemplateRepository, List[Wanted]]:
    """Return the templates that are meant, and where they come from.

    Args:
        words: an init file, or templates, or nothing: the init file of
            `--init-file`, or the one here.

    Raises:
        TemplateNotFound: a word is no name of a template.
        IndexFaults: the init file is faulty.
        NotAsLocked: with `--locked`, the lock does not fit it.
    """
    path = _find_init_file(context, words)
    locked = context.args.locked
    if path is None:
        if locked:
            raise errors.SettingsError(
                'Templates have no lock; name the init file that has one.'
            )
        return context.repository, [parse_word(word) for word in words]
    found = context.read_environment(path)
    if locked:
        found = lock_file.hold(found, path)
    return found.repository, found.wanted(context.store)


def _find_init_file(context: Context, words: List[str]) -> Optional[str]:
    """Return the init file that is meant, None where templates are named."""
    if not words:
        return context.find_init_file()
    path = words[0]
    named = path.startswith(('/', './', '../')) or os.path.isfile(path)
    if len(words) > 1 or not named:
        return None
    return context.find_init_file(path)


def parse_word(word: str) -> Wanted:
    """Read the name of a template.

    Raises:
        TemplateNotFound: it is no name of one.
    """
    try:
        return parse_wanted(word)
    except ValueError as error:
        raise errors.TemplateNotFound(f'{show(word)}: {error}') from None


def _print_plan(
    context: Context, repository: TemplateRepository, wanted: List[Wanted]
) -> int:
    sources = repository.sources(context.store, keep=False)
    found = provision.plan_for(wanted, context.store, sources)
    context.show(
        plan.plan_document(found),
        lambda: print_plan(found, console.make_console(sys.stdout)),
    )
    try:
        found.check_room()
    except errors.NotEnoughSpace as error:
        LOGGER.error('%s', error)
        return NO_ROOM_STATUS
    provision.check_offline(found, sources)
    return 0
