"""A drop-in for `lago.sdk`: `from lago_layered_provider import sdk`.

`lago.sdk` loads no plugins; importing this does. What it offers are Lago's
own functions and classes, under the same names.
"""

from __future__ import annotations

from typing import Any

import lago.sdk
from lago.sdk import SDK, add_stream_logger, init, load_env

from . import lago_plugin

__all__ = ['SDK', 'add_stream_logger', 'init', 'load_env']

# Without effect when the plugin is there already.
lago_plugin.install()


def __getattr__(name: str) -> Any:
    return getattr(lago.sdk, name)
