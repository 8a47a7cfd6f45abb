"""Fetch the chain into an empty store, by all ways, over all lines."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Set

from tests.lab import LagoSandbox
from tests.lab.images import guest_digest

from . import ways
from .images import VERSION, Chain
from .lines import Opened
from .processes import Cost, measure
from .ways import Order

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """What is compared: some ways, over one line.

    Attributes:
        ways: in the order of the first round; the next round begins with
            the next of them.
        short: the title, for the head of a column.
        layers: how many images of the chain.
    """

    name: str
    line: str
    title: str
    short: str
    ways: Sequence[str]
    layers: int = 3


_LIMITED = ('lago-xz', 'curl-xz', 'aria2-xz', 'ours-xz', 'ours-zst')
CASES = (
    Case('unlimited', 'unlimited', 'unlimited', 'unlimited', (
        'lago-xz', 'curl-xz', 'aria2-xz', 'ours-xz', 'floor-xz', 'ours-zst',
        'curl-zst',
    )),
    Case('base', 'unlimited', 'base only, unlimited', 'base only', (
        'lago-xz', 'ours-xz', 'floor-xz',
    ), layers=1),
    Case('connection', 'connection', '20 MB/s per connection', '20 MB/s',
         _LIMITED),
    Case('latency', 'latency', '20 MB/s per connection, 50 ms',
         'and 50 ms', _LIMITED),
    Case('total', 'total', '50 MB/s in all', '50 in all', _LIMITED),
)


class Transfers:
    """All that is measured of transfers.

    Attributes:
        costs: case -> way -> a cost for each round.
        relay: case -> way -> seconds of processor time for delaying packets.
        phases: Lago's own seconds in the first case, for each round.
        disk: way -> image -> bytes that it takes on the disk.
    """

    def __init__(self, chain: Chain, box: LagoSandbox, tell: Tell) -> None:
        self.costs: Dict[str, Dict[str, List[Cost]]] = {}
        self.relay: Dict[str, Dict[str, List[float]]] = {}
        self.phases: List[Dict[str, float]] = []
        self.disk: Dict[str, Dict[str, int]] = {}
        self._chain = chain
        self._box = box
        self._tell = tell
        self._checked: Set[str] = set()

    def run_round(self, number: int, lines: Dict[str, Opened]) -> None:
        """Fetch once by all ways over the lines that there are.

        Raises:
            RuntimeError: a way failed, or did not bring the guest's bytes.
        """
        for case in CASES:
            if case.line in lines:
                self._chain.point_to(lines[case.line].server.url)
                first = number % len(case.ways)
                for way in [*case.ways[first:], *case.ways[:first]]:
                    self._run(case, way, lines[case.line])

    def to_json(self) -> Dict[str, Any]:
        """Return every single run."""
        return {
            'runs': {
                case: {
                    way: [cost.to_json() for cost in costs]
                    for way, costs in ways.items()
                } for case, ways in self.costs.items()
            },
            'relay_cpu_s': self.relay,
            'lago_phases_s': self.phases,
            'disk_bytes': self.disk,
        }

    def _run(self, case: Case, way: str, opened: Opened) -> None:
        names = self._chain.names[:case.layers]
        kind = way.partition('-')[2]
        order = Order(self._chain, names, opened.server.url, self._box, kind)
        relayed = opened.relay_cpu
        cost = fetch(way, order)
        relayed = opened.relay_cpu - relayed
        self.costs.setdefault(case.name, {}).setdefault(way, []).append(cost)
        if opened.relay:
            self.relay.setdefault(case.name, {}).setdefault(way, []).append(
                round(relayed, 2)
            )
        if way == 'lago-xz' and case is CASES[0]:
            self.phases.append(_phases(cost))
        if not way.startswith('floor') and way not in self._checked:
            self._check(way, order)
            self._checked.add(way)
        self._tell(
            f'  {case.name:<11}{way:<9}{cost.wall:7.1f} s{cost.cpu:7.1f} s '
            f'CPU{cost.peak / 1e6:6.0f} MB, with children '
            f'{cost.tree / 1e6:.0f} MB'
            + (f'; delaying: {relayed:.1f} s CPU' if opened.relay else '')
        )

    def _check(self, way: str, order: Order) -> None:
        """Compare what a guest sees of the last image with the truth."""
        image = order.image(way)
        if guest_digest(image) != self._chain.guest_sha256[order.names[-1]]:
            raise RuntimeError(f'{way}: {image} is not the image published')
        if way in ('ours-xz', 'lago-xz'):
            prefix = order.image(way).name.partition(order.names[-1])[0]
            self.disk[way] = {
                name: (
                    self._box.store / f'{prefix}{name}:{VERSION}'
                ).stat().st_blocks * 512
                for name in order.names
            }


def fetch(way: str, order: Order) -> Cost:
    """Fetch into an empty store.

    Raises:
        RuntimeError: it failed.
    """
    store = order.box.store
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    return measure(
        ways.command(way, order), env=ways.environment(order), cwd=store
    )


def _phases(cost: Cost) -> Dict[str, float]:
    """Return Lago's phases; the rest of its time is its start."""
    found = json.loads(cost.stderr.splitlines()[-1])
    download = found['received'] - found['unpacked']
    return {
        'download': round(download, 3),
        'xz': round(found['unpacked'], 3),
        'sha1': round(found['hashed'], 3),
        'convert': round(
            found['all'] - found['received'] - found['hashed'], 3
        ),
    }
