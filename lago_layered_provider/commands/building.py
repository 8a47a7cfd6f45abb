"""`build`: images from specs of lago-images, and then the repository."""

from __future__ import annotations

import sys

from ..publishing.building import build
from ..publishing.create import check_options
from ..report import console
from .context import Context
from .publishing import publish_directory, read_options


def run_build(context: Context) -> int:
    """Build the images of a directory of specs, and publish them."""
    args = context.args
    # Nobody wants to hear of it when all has been built, hours later.
    options = read_options(args)
    check_options(args.directory, options)
    build(
        args.specs, args.directory, console.make_console(sys.stderr).print,
        jobs=context.settings.jobs, timeout=context.settings.timeout,
        version=options.version,
    )
    return publish_directory(context, args.directory)
