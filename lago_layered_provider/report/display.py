"""The plan and the progress of a transfer on one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, ContextManager, Optional, TextIO

if TYPE_CHECKING:
    from ..core.plan import Plan
    from ..transfer import ports
    from .console import Screen


class Display:
    """Shows what `provision` does; rich is imported when it does.

    That costs more than most `lago` commands do.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._made: Optional[Screen] = None

    @property
    def _console(self) -> Screen:
        from . import console

        if self._made is None:
            self._made = console.make_console(self._stream)
        return self._made

    def show(self, plan: Plan) -> None:
        """Show a plan before it is carried out."""
        from .plan import print_plan

        print_plan(plan, self._console)

    def progress(self, kind: str) -> ContextManager[ports.Progress]:
        """Show how far the transfer is, as the setting `progress` says."""
        from .choose import make_progress

        return make_progress(kind, self._console)
