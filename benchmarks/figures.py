"""What was measured, as the JSON in results/ has it, and how to ask it."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import Any, Dict, List, Optional, Sequence, Tuple

from tests.lab.commands import run

from .lines import LINES
from .processes import Cost
from .transfers import CASES, Case

MEGABYTE = 10 ** 6


class Figures:
    """Reads the document of a run.

    Args:
        document: JSON's values; `comparison` says what is in it.
    """

    def __init__(self, document: Dict[str, Any]) -> None:
        self.document = document

    def __getitem__(self, key: str) -> Any:
        return self.document.get(key)

    @property
    def cases(self) -> List[Case]:
        """Return what was measured of transfers."""
        return [case for case in CASES if case.name in self._runs]

    @property
    def _runs(self) -> Dict[str, Dict[str, List[Dict[str, float]]]]:
        runs: Dict[str, Dict[str, List[Dict[str, float]]]]
        runs = self.document['transfers']['runs']
        return runs

    def costs(self, case: str, way: str) -> List[Cost]:
        """Return a cost for each round; none where it was left out."""
        return [
            Cost.from_json(one)
            for one in self._runs.get(case, {}).get(way, ())
        ]

    def walls(self, case: str, way: str) -> List[float]:
        """Return the seconds of each round."""
        return [cost.wall for cost in self.costs(case, way)]

    def ratios(self, case: str, way: str, other: str) -> List[float]:
        """Return the seconds of a way by those of another, by round."""
        return [
            one / two for one, two in
            zip(self.walls(case, way), self.walls(case, other))
        ]

    def to_fetch(self, case: Case, kind: str) -> int:
        """Return the bytes of the published files."""
        packed = list(self.document['published_bytes'][kind].values())
        return sum(packed[:case.layers])

    def floors(self, case: Case, kind: str) -> List[float]:
        """Return the least seconds for a case, by round.

        The most of decoding on all cores, in that round, and of the bytes on
        the line; for .zst decoding counts nothing.
        """
        line = next(one for one in LINES if one.name == case.line)
        least = line.seconds(self.to_fetch(case, kind))
        decoded = self.walls(
            'base' if case.layers == 1 else 'unlimited', f'floor-{kind}'
        )
        if kind == 'zst':
            return [least] * len(self.walls(case.name, 'ours-zst'))
        return [max(least, seconds) for seconds in decoded]

    def over_floor(self, case: Case, way: str) -> List[float]:
        """Return the seconds of a way by the least ones, by round."""
        kind = way.partition('-')[2]
        return [
            wall / floor for wall, floor in
            zip(self.walls(case.name, way), self.floors(case, kind)) if floor
        ]

    def peaks(self) -> Dict[str, int]:
        """Return the peak memory of our own process, by what it pulled."""
        found = {}
        for case in self.cases:
            for way in case.ways:
                costs = self.costs(case.name, way)
                if way.startswith('ours') and costs:
                    found[f'{case.name}, {way[5:]}'] = max(
                        cost.peak for cost in costs
                    )
        large = self.document.get('large') or {}
        for kind in ('xz', 'zst'):
            if kind in large:
                found[f'8 GiB, {kind}'] = large[kind]['peak_bytes']
        return found


def middle(values: Sequence[float]) -> Optional[float]:
    """Return the median, None of nothing."""
    return median(values) if values else None


def spread(values: Sequence[float], digits: int) -> Tuple[str, str]:
    """Return the median, and the least and the most."""
    if not values:
        return '', ''
    return (
        f'{median(values):.{digits}f}',
        f'{min(values):.{digits}f}-{max(values):.{digits}f}',
    )


def describe_machine() -> Dict[str, Any]:
    """Return what explains the figures; nothing names the machine."""
    congestion = '/proc/sys/net/ipv4/tcp_congestion_control'
    with open(congestion) as stream:
        found = stream.read().strip()
    return {
        'cpus': len(os.sched_getaffinity(0)),
        'architecture': platform.machine(),
        'python': platform.python_version(),
        'xz': run('xz', '--version').split('\n')[0].split()[-1],
        'qemu-img': run('qemu-img', '--version').split()[2],
        'tcp': found,
    }
