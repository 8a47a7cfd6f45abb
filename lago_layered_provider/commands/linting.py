"""`lint`: all that is wrong with a repository."""

from __future__ import annotations

import sys
from typing import Any, Dict

from ..lint.documents import find_index
from ..lint.run import Report, lint_repository
from ..report import console as report, lint
from .context import Context, FAILED_STATUS


def run_lint(context: Context) -> int:
    """Print what is wrong; errors, not warnings, give a failed status."""
    location = find_index(context.args.location)
    console = report.make_console(sys.stderr)
    advance = None
    if context.args.deep:
        advance = lint.Reading(context.settings.progress, console)
    try:
        found = lint_repository(location, context.settings, advance)
    finally:
        if advance is not None:
            advance.close()
    context.show(_document(found), lambda: lint.print_report(
        found, report.make_console(sys.stdout)
    ))
    return FAILED_STATUS if found.failed else 0


def _document(found: Report) -> Dict[str, Any]:
    return {
        'location': found.location,
        'name': found.name,
        'images': found.images,
        'findings': [
            {
                'level': finding.level.value,
                'code': finding.code,
                'image': finding.image,
                'message': finding.message,
            }
            for finding in found.findings
        ],
    }
