"""What the judgement of a repository looks like."""

from __future__ import annotations

import textwrap
import threading
from typing import Dict, List, Optional

from rich.text import Text

from ..lint.findings import Finding, Level
from ..lint.run import Report
from .console import Screen
from .verify import Watch

STYLES = {
    Level.ERROR: 'red', Level.WARNING: 'yellow', Level.NOTE: 'cyan',
}
INDENT = '  '


def print_report(found: Report, console: Screen) -> None:
    """Print the findings, grouped by image, and how many there are."""
    groups: Dict[Optional[str], List[Finding]] = {None: []}
    for finding in found.findings:
        groups.setdefault(finding.image, []).append(finding)
    title = found.location
    if found.name is not None:
        title = f'repository {found.name}, {title}'
    for image, findings in groups.items():
        if findings:
            console.print(title if image is None else image)
        for finding in findings:
            _print_finding(finding, console)
    console.print(summary(found))


def _print_finding(finding: Finding, console: Screen) -> None:
    word = finding.level.value
    start = f'{INDENT}{word} {finding.code}: '
    # Somebody else's text comes in; it stays in its lines and columns.
    text = ' '.join(
        ''.join(
            each if each.isprintable() else ' ' for each in finding.message
        ).split()
    )
    lines = textwrap.wrap(
        start.strip() + ' ' + text, console.text_columns,
        initial_indent=INDENT, subsequent_indent=INDENT * 3,
        break_on_hyphens=False, break_long_words=False,
    )
    first = Text(lines[0])
    first.stylize(STYLES[finding.level], len(INDENT), len(INDENT + word))
    console.print(first)
    for line in lines[1:]:
        console.print(line)


def summary(found: Report) -> str:
    """Return how many findings of each level there are, in one line."""
    levels = [finding.level for finding in found.findings]
    counts = [
        f'{levels.count(level)} {level.value}'
        f'{"s" * (levels.count(level) != 1)}'
        for level in Level if level in levels
    ]
    images = f'{found.images} image{"s" * (found.images != 1)}'
    return f'{images}: {", ".join(counts) or "nothing is wrong"}'


class Reading:
    """Shows how far the images are read; nothing before there is a total.

    Args:
        kind: of the setting `progress`.
    """

    def __init__(self, kind: str, console: Screen) -> None:
        self._kind = kind
        self._console = console
        self._watch: Optional[Watch] = None
        self._total = 0
        self._lock = threading.Lock()

    def __call__(self, count: int, total: int) -> None:
        with self._lock:
            watch = self._watch
            if watch is None or total != self._total:
                self.close()
                watch = Watch(self._kind, total, self._console)
                self._watch, self._total = watch, total
        watch.advance(count)

    def close(self) -> None:
        """Take the display away."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
