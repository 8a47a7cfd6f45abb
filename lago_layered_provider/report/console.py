"""Where people see things: a terminal, or a log.

All of it goes to one stream, stderr under `lago init`; rich decides about
colours, and we keep to 80 columns where it does not know the width, as in a
CI log.
"""

from __future__ import annotations

import os
from typing import IO, Any, Iterable, Optional, Union, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ..core.model import visible
from .messages import MESSAGE_COLUMNS, fold
from .screen import Standard

LOG_COLUMNS = 80

#: rich would cut off what is longer; a terminal folds it.
WIDEST_COLUMNS = 10**5


class Screen(Console):
    """A console whose texts hold nothing that a terminal obeys.

    Colours and the movements of the cursor are rich's own.
    """

    def render(
        self, renderable: RenderableType,
        options: Optional[ConsoleOptions] = None,
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; a terminal breaks no line within a word that fits."""
        if self.is_terminal:
            objects = tuple(
                fold(each, columns=self.width - 1) if isinstance(each, str)
                else each for each in objects
            )
        super().print(*objects, **options)

    @property
    def text_columns(self) -> int:
        """How wide folded text may be."""
        return max(1, min(MESSAGE_COLUMNS, self.width - 1))

    def write(self, line: str) -> None:
        """Write a line as it is, however wide; rich takes its time."""
        self.file.write(f'{visible(line)}\n')

    def on_broken_pipe(self) -> None:
        """Raise it: rich would end the process, even from a thread."""
        raise  # noqa: PLE0704


def make_console(
    stream: Union[IO[str], Standard], width: Optional[int] = None
) -> Screen:
    """Return a console that keeps to 80 columns in a log."""
    if width is None and not stream.isatty():
        width = LOG_COLUMNS
    if isinstance(stream, Standard):
        stream = cast(IO[str], stream.beneath)
    # A name such as lab:star:v1 is no picture, and [1] is no markup.
    return Screen(
        file=stream, width=width, highlight=False, soft_wrap=True,
        markup=False, emoji=False,
        # Bold and dim are no colours to rich, but escape sequences are.
        color_system=None if os.environ.get('NO_COLOR') else 'auto',
    )
