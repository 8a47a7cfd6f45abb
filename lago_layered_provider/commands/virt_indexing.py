"""`index`: the index of another tool beside that of the repository."""

from __future__ import annotations

import os

from ..lint.documents import VIRT_NAME
from ..publishing.virt_index import write_virt_index
from .context import Context


def run_index(context: Context) -> int:
    """Write the index of virt-builder."""
    directory = context.args.directory
    warnings = write_virt_index(directory)
    path = os.path.join(directory, VIRT_NAME)
    context.show(
        {'index': path, 'warnings': warnings},
        lambda: print(f'{path} is written'),
    )
    for warning in warnings:
        context.warn(warning)
    return 0
