"""Fetch images with this package, as `lago init` does.

    fetch_layered.py INDEX STORE TEMPLATE...

Run in a process of its own. What `lago init` calls for the disks of an
environment is called here: Lago's names, with our parts in their place.
"""

from __future__ import annotations

import sys
from typing import List

import lago.templates

from lago_layered_provider import lago_plugin  # noqa: F401  the hooks
from lago_layered_provider.core.wanted import Wanted


def main(index: str, store_path: str, names: List[str]) -> None:
    repository = lago.templates.TemplateRepository.from_url(index)
    store = lago.templates.TemplateStore(store_path)
    store.provide([Wanted(name) for name in names], repository)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
