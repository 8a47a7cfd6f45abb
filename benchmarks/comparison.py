"""Measure, show, keep."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

from tests.lab import LagoSandbox, Nginx, have
from tests.lab.environments import lago_command

from . import publishing
from .images import get_chain
from .results import Results, describe_machine
from .starts import compare_starts
from .transfers import compare_transfers, fill_store

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / '.cache' / 'bench'
TOOLS = ('nginx', 'qemu-img', 'qemu-io', 'ssh-keygen', 'xz', 'zstd')

ROUNDS = 5
STARTS = 10


def tell(text: str) -> None:
    """Say how far it is, to whoever waits."""
    print(text, file=sys.stderr, flush=True)


def measure_all(arguments: argparse.Namespace) -> Results:
    """Build what is missing, then measure."""
    chain = get_chain(CACHE, arguments.size, tell)
    before = os.getloadavg()[0]
    work = CACHE / 'work'
    shutil.rmtree(work, ignore_errors=True)
    with Nginx(chain.root) as server:
        chain.point_to(server.url)
        box = LagoSandbox(
            work, {name: name for name in chain.names},
            repo=f'{server.url}/zst/repo.metadata',
        )
        transfers = compare_transfers(
            chain, server.url, box, arguments.rounds, tell
        )
        fill_store(chain, server.url, box)
        tell(f'starting lago, {arguments.starts} times each')
        starts = compare_starts(box, arguments.starts)
    shutil.rmtree(work)
    return Results(chain, transfers, starts, (before, os.getloadavg()[0]))


def main() -> None:
    """Measure and write the results."""
    arguments = _parse_arguments()
    lago_command()
    missing = [tool for tool in TOOLS if not have(tool)]
    if missing:
        sys.exit(f'Not installed: {", ".join(missing)}; see "make setup".')
    if arguments.publishing:
        measure_publishing(arguments)
        return
    try:
        results = measure_all(arguments)
    except RuntimeError as error:
        sys.exit(f'The benchmark cannot go on: {error}')
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        results.show()
    print(shown.getvalue(), end='')
    place = HERE / 'results' / arguments.name
    place.parent.mkdir(exist_ok=True)
    place.with_suffix('.txt').write_text(shown.getvalue())
    place.with_suffix('.json').write_text(
        json.dumps(results.to_json(), indent=1) + '\n'
    )


def measure_publishing(arguments: argparse.Namespace) -> None:
    """Measure `create` alone."""
    chain = get_chain(CACHE, arguments.size, tell)
    found = publishing.compare_packing(
        chain, CACHE / 'work', arguments.rounds, tell
    )
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        publishing.show_packing(chain, found)
    print(shown.getvalue(), end='')
    place = HERE / 'results' / 'publishing'
    place.with_suffix('.txt').write_text(shown.getvalue())
    place.with_suffix('.json').write_text(json.dumps({
        'machine': describe_machine(), 'image_bytes': chain.sizes,
        'packing': publishing.to_json(found),
    }, indent=1) + '\n')


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS=...', description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--size', type=int, default=1024, metavar='MIB',
                        help='of the three images together')
    parser.add_argument('--rounds', type=int, default=ROUNDS,
                        help='in which each way fetches once')
    parser.add_argument('--starts', type=int, default=STARTS,
                        help='of each kind and side')
    parser.add_argument('--publishing', action='store_true',
                        help='measure how images are packed instead')
    parser.add_argument('--name', default='latest',
                        help='of the files in benchmarks/results')
    return parser.parse_args()
