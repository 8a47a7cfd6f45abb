"""Measure this package against Lago's own and others: `make bench`.

    images.py           a chain of three, built once, published twice
    content.py            the files that it is made of
    lines.py            an nginx behind each kind of line
    delay.py              the process that holds packets, if need be
    ways.py             the ways to fetch, as commands
    fetch_plain.py        Lago's own
    transfers.py        all ways over all lines, round by round
    processes.py          seconds, CPU seconds, memory of a process
    starts.py           lago init and lago --help with and without us
    start_lago.py         the process for that
    scale.py            large index, long chain, many processes, large image
    plan_once.py          the process for the first two
    figures.py          what was measured, and how to ask it
    goals.py              what is wanted of it
    results.py            tables
    plot.py               a picture
    publishing.py       how fast `create` packs
    comparison.py       all of it in order

docs/benchmark.rst says what is equal for all of them, and what is not.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == '__main__':
    # Started as a script: the tests' lab is found from the root.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.comparison import main
    main()
