"""The plan as people see it, on a terminal or in a log.

All of it goes to one stream, stderr under `lago init`; rich decides about
colours, and we keep to 80 columns where it does not know the width, as in a
CI log.
"""

from __future__ import annotations

import os
from typing import (
    IO, Any, Dict, Iterable, Optional, Sequence, Set, Tuple, Union, cast,
)

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from rich.tree import Tree

from ..core.model import visible
from ..core.plan import Layer, Plan, State
from ..core.sizes import size_text
from .messages import MESSAGE_COLUMNS, fold
from .screen import Standard

LOG_COLUMNS = 80

#: rich would cut off what is longer; a terminal folds it.
WIDEST_COLUMNS = 10**5

#: What the columns of sizes and states take.
STATE_COLUMNS = 35

#: A tree may be that wide before its sizes leave their columns.
TREE_COLUMNS = 46

#: A plan with more layers lists only those that are concerned.
LISTED_LAYERS = 50

STATES = {
    State.PRESENT: ('present', 'green'),
    State.PARTIAL: ('partly here', 'yellow'),
    State.MISSING: ('missing', 'cyan'),
}


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


def print_plan(plan: Plan, console: Screen) -> None:
    """Print the layers as a tree, and what they need in all."""
    layers = _listed(plan)
    if layers:
        _print_layers(layers, console)
    hidden = len(plan.layers) - len(layers)
    if hidden and layers:
        console.print(f'({hidden} more are present)')
    console.print(_summary(plan))


def _listed(plan: Plan) -> Sequence[Layer]:
    """Return the layers to show, base before layer.

    Of very many these are the missing ones and what they stand on.
    """
    if len(plan.layers) <= LISTED_LAYERS:
        return plan.layers
    concerned: Set[Optional[str]] = set()
    for layer in reversed(plan.layers):
        if layer.name in concerned or layer.state is not State.PRESENT:
            concerned |= {layer.name, layer.base}
    return [layer for layer in plan.layers if layer.name in concerned]


def _print_layers(layers: Sequence[Layer], console: Screen) -> None:
    widths: Dict[Optional[str], int] = {}
    depths: Dict[Optional[str], int] = {None: -1}
    for layer in layers:
        depths[layer.name] = depths[layer.base] + 1
        widths[layer.name] = len(layer.name) + 4 * depths[layer.name]
    width = min(max(widths.values()), TREE_COLUMNS)
    # A narrow terminal has no room for the columns beside the names.
    below = console.is_terminal and console.width < (
        max(widths.values()) + STATE_COLUMNS
    )
    if below:
        console.print('LAYER\nFETCH, KEEP, STATE')
    else:
        columns = _columns('FETCH', 'KEEP', 'STATE')
        console.print(f'{"LAYER":<{width}}{columns}')
    forest = Tree('', guide_style='dim', hide_root=True)
    nodes: Dict[Optional[str], Tree] = {}
    for layer in layers:
        fetch, keep = _layer_sizes(layer)
        text = Text(layer.name + (
            f'\n{fetch}, {keep}, ' if below else
            ' ' * (width - widths[layer.name]) + _columns(fetch, keep, '')
        ))
        text.append(*STATES[layer.state])
        nodes[layer.name] = nodes.get(layer.base, forest).add(text)
    print_tree(forest, console)


def print_tree(tree: Tree, console: Screen) -> None:
    """Print a tree; a long name may leave the line, but is not cut off."""
    wide = make_console(console.file, WIDEST_COLUMNS)
    wide.print(tree, no_wrap=True)


def _columns(fetch: str, keep: str, state: str) -> str:
    return f'  {fetch:>9}  {keep:>9}  {state}'


def _layer_sizes(layer: Layer) -> Tuple[str, str]:
    """Return what is fetched and kept of a layer, as text."""
    if layer.state is State.PRESENT:
        return '-', '-'
    most = '' if layer.exact or layer.keep is None else '≤'
    return size_text(layer.fetch), most + size_text(layer.keep)


def _summary(plan: Plan) -> str:
    count = f'{len(plan.layers)} layer{"s" * (len(plan.layers) != 1)}'
    if not plan.missing:
        return f'\n{count}, all present: nothing to fetch.\n'
    states = [layer.state for layer in plan.layers]
    found = ', '.join(
        f'{states.count(state)} {word}'
        for state, (word, _) in STATES.items() if state in states
    )
    fetch, keep = (_certainty(plan, what) for what in ('fetch', 'keep'))
    left = size_text(plan.room_left)
    if plan.room_left < 0:
        left = f'none, {size_text(-plan.room_left)} short'
    return (
        f'\n{count}: {found}\n'
        f'  to fetch   {fetch}{size_text(plan.to_fetch)}\n'
        f'  to keep    {keep}{size_text(plan.to_keep)}\n'
        f'  room left  {left}\n'
    )


def _certainty(plan: Plan, what: str) -> str:
    """Say how far a sum can be trusted, where not all sizes are known."""
    if any(getattr(layer, what) is None for layer in plan.missing):
        return 'at least '
    return '' if plan.exact or what == 'fetch' else 'at most '
