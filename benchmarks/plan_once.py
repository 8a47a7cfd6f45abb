"""Plan, or pull, in this process, and say what that took.

    plan_once.py plan|pull INDEX STORE TEMPLATE TIMES

Interpreter and imports are left out of the seconds, and are part of the
memory. The last line on stderr is JSON.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time

# What both need in the end, some of it at the first use only.
from lago_layered_provider.core.wanted import parse_wanted
from lago_layered_provider.environments import provision
from lago_layered_provider.providers import http  # noqa: F401
from lago_layered_provider.report import plan as report_plan  # noqa: F401
from lago_layered_provider.report.display import Display
from lago_layered_provider.repositories.template_repository import (
    TemplateRepository,
)
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store

if __name__ == '__main__':
    # Started as a script: the rest is found from the root.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks.processes import peak_of  # noqa: E402


def work(what: str, index: str, root: str, template: str) -> float:
    """Return the seconds of one time, from nothing but names on."""
    wanted = [parse_wanted(template)]
    began = time.perf_counter()
    store = Store(root)
    repository = TemplateRepository(
        [ByPath(index)], lambda: Settings(progress='none'), print
    )
    sources = repository.sources(store)
    if what == 'plan':
        plan = provision.plan_for(wanted, store, sources)
    else:
        plan = provision.provision(
            wanted, store, sources, Display(io.StringIO())
        )
        # What is there was not fetched in these seconds.
        assert not plan.missing
    seconds = time.perf_counter() - began
    assert plan.tops, plan
    return seconds


def main(
    what: str, index: str, root: str, template: str, times: str
) -> None:
    before = peak_of(os.getpid())
    seconds = [
        round(work(what, index, root, template), 4) for _ in range(int(times))
    ]
    print(json.dumps({
        'seconds': seconds, 'imports_bytes': before,
        'peak_bytes': peak_of(os.getpid()),
    }), file=sys.stderr)


if __name__ == '__main__':
    main(*sys.argv[1:])
