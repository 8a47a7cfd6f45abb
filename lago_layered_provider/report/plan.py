"""The plan as people see it."""

from __future__ import annotations

from typing import Dict, Optional, Sequence, Set, Tuple

from rich.text import Text
from rich.tree import Tree

from ..core.plan import Layer, Plan, State
from ..core.sizes import size_text
from .console import Screen, WIDEST_COLUMNS, make_console

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
