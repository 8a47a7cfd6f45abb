"""Measure, keep, show."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn

import lago_layered_provider
from lago_layered_provider.publishing.packing import DIGESTS
from tests.lab import LagoSandbox, have
from tests.lab.environments import lago_command

from . import plot, publishing, results, scale
from .figures import Figures, describe_machine
from .images import get_chain
from .lines import LINES, Opened, Unavailable, open_line
from .starts import compare_starts
from .transfers import Transfers, fetch
from .ways import Order

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / '.cache' / 'bench'
TOOLS = (
    'aria2c', 'bash', 'curl', 'ip', 'mkfs.ext4', 'nginx', 'qemu-img',
    'qemu-io', 'ssh-keygen', 'tc', 'xz', 'zstd',
)

ROUNDS = 5
STARTS = 10
#: MiB of files in all; ten thirteenths of it, 1.5 GB, are in the base.
SIZE = 1950
PARTS = ('starts', 'index', 'long_chain', 'many', 'large')


def tell(text: str) -> None:
    """Say how far it is, to whoever waits."""
    print(text, file=sys.stderr, flush=True)


class Comparison:
    """One run of the benchmark.

    Attributes:
        document: all that was measured so far.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._chain = get_chain(CACHE, arguments.size, tell)
        self._work = CACHE / 'work'
        shutil.rmtree(self._work, ignore_errors=True)
        self._box = LagoSandbox(
            self._work, {name: name for name in self._chain.names}
        )
        self._lines: Dict[str, Opened] = {}
        self.document: Dict[str, Any] = {
            'machine': describe_machine(),
            'loads': [round(os.getloadavg()[0], 1)] * 2,
            'announced': list(DIGESTS),
            'files_bytes': self._chain.files_bytes,
            'image_bytes': self._chain.sizes,
            'published_bytes': self._chain.packed,
            'left_out': {},
        }

    def run(self, keep: Callable[[Dict[str, Any]], None]) -> None:
        """Measure all of it.

        Args:
            keep: is called with the document whenever there is more in it.
        """
        try:
            with contextlib.ExitStack() as stack:
                self._open_lines(stack)
                self._chain.warm()
                # What pip does when it installs a package, as it did Lago.
                compileall.compile_dir(
                    Path(lago_layered_provider.__file__).parent, quiet=1
                )
                self._run_rounds(keep)
                self._run_parts(keep)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _open_lines(self, stack: contextlib.ExitStack) -> None:
        for line in LINES:
            if line.name not in self._arguments.lines:
                continue
            try:
                self._lines[line.name] = stack.enter_context(
                    open_line(line, self._chain.root)
                )
            except Unavailable as error:
                tell(f'LEFT OUT, line "{line.name}": {error}')
                self.document['left_out'][line.name] = str(error)

    def _run_rounds(self, keep: Callable[[Dict[str, Any]], None]) -> None:
        transfers = Transfers(self._chain, self._box, tell)
        rounds = self._arguments.rounds
        for number in range(rounds):
            began = time.monotonic()
            tell(f'Round {number + 1} of {rounds}')
            transfers.run_round(number, self._lines)
            tell(f'  took {time.monotonic() - began:.0f} s')
            self.document['transfers'] = transfers.to_json()
            self.document['loads'][1] = round(os.getloadavg()[0], 1)
            keep(self.document)

    def _run_parts(self, keep: Callable[[Dict[str, Any]], None]) -> None:
        server = self._lines['unlimited'].server
        parts: Dict[str, Callable[[], Dict[str, Any]]] = {
            'starts': self._compare_starts,
            'index': lambda: scale.plan_in_large_index(self._work / 'index'),
            'long_chain': lambda: scale.plan_long_chain(self._work / 'long'),
            'many': lambda: scale.pull_by_many(
                self._chain, server, self._box),
            'large': lambda: scale.pull_large(CACHE, self._box),
        }
        for name in self._arguments.parts:
            began = time.monotonic()
            tell(f'Part: {name}')
            self.document[name] = parts[name]()
            tell(f'  took {time.monotonic() - began:.0f} s')
            keep(self.document)

    def _compare_starts(self) -> Dict[str, Any]:
        server = self._lines['unlimited'].server
        self._chain.point_to(server.url)
        order = Order(
            self._chain, self._chain.names, server.url, self._box, 'zst'
        )
        fetch('ours-zst', order)
        self._box.repo = order.index
        self._box.write()
        found = compare_starts(self._box, self._arguments.starts)
        return {
            verb: {
                side: [cost.to_json() for cost in costs]
                for side, costs in sides.items()
            } for verb, sides in vars(found).items()
        }


def main() -> None:
    """Measure and write the results."""
    arguments = _parse_arguments()
    # Namespaces and servers are cleaned up then as after Ctrl-C.
    signal.signal(signal.SIGTERM, _stop)
    place = HERE / 'results' / arguments.name
    if arguments.show:
        _show(json.loads(place.with_suffix('.json').read_text()), place)
        return
    lago_command()
    missing = [tool for tool in TOOLS if not have(tool)]
    if missing:
        sys.exit(f'Not installed: {", ".join(missing)}; see "make setup".')
    if arguments.publishing:
        publishing.main(CACHE, arguments, HERE / 'results', tell)
        return
    comparison = Comparison(arguments)
    try:
        comparison.run(lambda document: _write(document, place))
    except RuntimeError as error:
        sys.exit(f'The benchmark cannot go on: {error}')
    except KeyboardInterrupt:
        sys.exit('Stopped; the rounds that ended are in the JSON.')
    _show(comparison.document, place)


def _write(document: Dict[str, Any], place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    place.with_suffix('.json').write_text(
        json.dumps(document, indent=1) + '\n'
    )


def _show(document: Dict[str, Any], place: Path) -> None:
    figures = Figures(document)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        results.show(figures)
    print(shown.getvalue(), end='')
    place.with_suffix('.txt').write_text(shown.getvalue())
    plot.draw(figures, place.with_suffix('.png'))


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS=...', description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    lines = tuple(line.name for line in LINES)
    parser.add_argument('--size', type=int, default=SIZE, metavar='MIB',
                        help='of the files in the three images together')
    parser.add_argument('--rounds', type=int, default=ROUNDS,
                        help='in which each way fetches once')
    parser.add_argument('--starts', type=int, default=STARTS,
                        help='of each kind and side')
    parser.add_argument('--lines', nargs='+', choices=lines, default=lines,
                        help='over which it is fetched; always unlimited')
    parser.add_argument('--parts', nargs='*', choices=PARTS, default=PARTS,
                        help='what is measured beside transfers')
    parser.add_argument('--publishing', action='store_true',
                        help='measure how images are packed instead')
    parser.add_argument('--show', action='store_true',
                        help='measure nothing: show, and draw, the last run')
    parser.add_argument('--name', default='latest',
                        help='of the files in benchmarks/results')
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error('at least one round')
    arguments.lines = {'unlimited', *arguments.lines}
    return arguments
