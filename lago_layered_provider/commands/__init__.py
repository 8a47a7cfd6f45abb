"""The commands of `lago template-repo`, one module for those of a kind.

Each is a function from a `Context` to an exit status. None of them knows
Lago or argparse's parser: `parser` has the options, `plugin.context` what
Lago's configuration says.
"""

from __future__ import annotations

import importlib
from typing import Callable, Dict

from .context import Context, FAILED_STATUS, NO_ROOM_STATUS

__all__ = ['FAILED_STATUS', 'NO_ROOM_STATUS', 'Context', 'find_command']

#: The module of each command; the function in it is called `run_COMMAND`.
MODULES: Dict[str, str] = {
    'list': 'listing',
    'show': 'showing',
    'plan': 'planning',
    'pull': 'planning',
    'store': 'inventory',
    'why': 'inventory',
    'hold': 'holding',
    'release': 'holding',
    'verify': 'verifying',
    'prune': 'pruning',
    'lock': 'pinning',
    'outdated': 'pinning',
    'add': 'repositories',
    'remove': 'repositories',
    'update': 'repositories',
    'create': 'publishing',
    'index': 'virt_indexing',
    'build': 'building',
    'lint': 'linting',
    'add-layer': 'layering',
    'flatten': 'layering',
    'mirror': 'mirroring',
}


def find_command(name: str) -> Callable[[Context], int]:
    """Return the function that runs a command."""
    module = importlib.import_module(f'{__name__}.{MODULES[name]}')
    function = name.replace('-', '_')
    found: Callable[[Context], int] = getattr(module, f'run_{function}')
    return found
