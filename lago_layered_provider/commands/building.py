"""`build`: images from specs of lago-images, and then the repository."""

from __future__ import annotations

import sys

from .. import report
from ..publishing.building import build
from .context import Context
from .publishing import publish_directory


def run_build(context: Context) -> int:
    """Build the images of a directory of specs, and publish them."""
    args = context.args
    build(
        args.specs, args.directory, report.make_console(sys.stderr).print,
        jobs=context.settings.jobs, timeout=context.settings.timeout,
    )
    return publish_directory(context, args.directory)
