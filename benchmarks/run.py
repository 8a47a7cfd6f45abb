"""Measure this package against Lago's own provider and store: `make bench`.

    images.py           a chain of three, built once, published twice
    transfers.py        it is fetched into an empty store, round by round
    fetch_plain.py        by Lago, in a process of its own
    fetch_layered.py      by this package, in a process of its own
    starts.py           lago init and lago --help with and without us
    start_lago.py         the process for that
    processes.py        seconds, CPU seconds, memory of a process
    results.py          tables, goals, JSON
    publishing.py       how fast `create` packs
    comparison.py       all of it in order

What is equal for both: interpreter, server (nginx on loopback), files in the
page cache, file system of the store, what is imported of Lago. What is not:
Lago leaves its images to the kernel to be written when it likes; this
package's seconds contain the fsync of every image.

In a round each way fetches once, and a ratio is one of a round; tables give
medians, and the least and the most. Lago on .xz is what all is compared
with: it knows no other compression.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == '__main__':
    # Started as a script: the tests' lab is found from the root.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.comparison import main
    main()
