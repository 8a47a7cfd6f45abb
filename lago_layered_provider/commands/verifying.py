"""`verify`: are the images of the store what was published, and repairs."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Sequence

from ..report import console as report, verify
from ..report.choose import make_progress
from ..store import Auditor, Usage
from ..store.audit_rules import State, Verdict, judge, select_names
from ..tools import threads
from .context import Context, FAILED_STATUS

#: Names in the one line that says what is damaged.
SHOWN_NAMES = 3


def run_verify(context: Context) -> int:
    """Check images, and repair them where that is asked for."""
    auditor = Auditor(context.store.root)
    names = _with_bases(
        auditor, select_names(context.args.images, auditor.names())
    )
    verdicts = _audit(context, auditor, names)
    document: Dict[str, Any] = {
        'directory': context.store.root, 'images': _rows(verdicts),
    }
    damaged = _damaged(verdicts)
    repair = context.args.repair and bool(damaged)
    if repair:
        problems = _repair(context, verdicts, damaged)
        names = _with_bases(auditor, names)
        verdicts = _audit(context, auditor, names, verdicts)
        document['after_repair'] = _rows(verdicts)
        document['problems'] = problems
        for problem in problems:
            context.warn(problem)
        damaged = _damaged(verdicts)
    context.show(document, lambda: None)
    if not damaged:
        return 0
    context.warn(_one_line(damaged, repair))
    return FAILED_STATUS


def _with_bases(auditor: Auditor, names: Sequence[str]) -> List[str]:
    """Add what images stand on, whether it is there or not."""
    found = dict.fromkeys(names)
    waiting = list(names)
    while waiting:
        base = auditor.base(waiting.pop())
        if base is not None and base not in found:
            found[base] = None
            waiting.append(base)
    return sorted(found)


def _audit(
    context: Context,
    auditor: Auditor,
    names: Sequence[str],
    before: Sequence[Verdict] = (),
) -> List[Verdict]:
    """Read the images side by side, and print what they are.

    Args:
        before: of a repair; what was not damaged then is not read again.
    """
    console = report.make_console(sys.stderr)
    known = [
        verdict.finding for verdict in before
        if verdict.state is not State.DAMAGED
    ]
    todo = set(names) - {finding.name for finding in known}
    total = sum(map(auditor.size, todo))
    kind = context.settings.progress
    with verify.Watch(kind, total, console) as watch:
        # The largest first: then no thread is left alone with it at the end.
        found = threads.run_all(
            lambda name: auditor.examine(name, watch.advance),
            sorted(todo, key=auditor.size, reverse=True),
            os.cpu_count() or 1,
        )
    verdicts = judge([*known, *found])
    verdicts.sort(key=lambda verdict: verdict.name)
    if context.format_data is None:
        console = report.make_console(sys.stdout)
        if before:
            console.print('\nAfter the repair:')
        verify.print_verdicts(verdicts, console)
        console.print('\n' + verify.summary(
            verdicts, watch.count, watch.seconds
        ))
    return verdicts


def _repair(
    context: Context, verdicts: Sequence[Verdict], damaged: Sequence[str]
) -> List[str]:
    """Repair images; return what cannot be repaired, and why."""
    from ..environments.repair import Repair

    problems: List[str] = []
    sources = context.repository.sources(context.store)
    console = report.make_console(sys.stderr)
    progress = make_progress(
        sources.settings.progress, console
    )
    context.store.prepare()
    # No prune may take away what is being fetched.
    with Usage(context.store.root).using(
        sources.settings.lock_timeout,
        lambda holder: context.warn(f'waiting for {holder}'),
    ), progress:
        Repair(
            verdicts, context.store.root, sources, problems.append
        ).run(damaged, progress)
    return problems


def _damaged(verdicts: Sequence[Verdict]) -> List[str]:
    return [
        verdict.name for verdict in verdicts
        if verdict.state is State.DAMAGED
    ]


def _rows(verdicts: Sequence[Verdict]) -> List[Dict[str, Any]]:
    return [
        {
            'name': verdict.name,
            'state': verdict.state.value,
            'reasons': list(verdict.reasons),
            'damaged_parts': sorted({
                fault.part.value for fault in verdict.finding.faults
            }),
            'base': verdict.finding.backing,
            'size': verdict.finding.size,
        }
        for verdict in verdicts
    ]


def _one_line(damaged: Sequence[str], repaired: bool) -> str:
    count = len(damaged)
    names = ', '.join(damaged[:SHOWN_NAMES])
    more = f' and {count - SHOWN_NAMES} more' if count > SHOWN_NAMES else ''
    advice = '' if repaired else (
        '; mend with: lago template-repo verify --repair'
    )
    return (
        f'{count} image{"s are" if count > 1 else " is"} '
        f'{"still " if repaired else ""}damaged: {names}{more}{advice}'
    )
