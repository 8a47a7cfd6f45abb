"""Fetch the chain into an empty store, by Lago and by this package."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List

from tests.lab import LagoSandbox, guest_digest

from .images import Chain
from .processes import Cost, measure

HERE = Path(__file__).parent

#: What is compared, in the order of the first round; the next round begins
#: with the next of them.
WAYS = ('lago-xz', 'ours-xz', 'ours-zst')


@dataclass
class Transfers:
    """What the rounds took.

    Attributes:
        costs: way -> a cost for each round.
        phases: Lago's own, in seconds, for each round.
    """

    costs: Dict[str, List[Cost]] = field(default_factory=dict)
    phases: List[Dict[str, float]] = field(default_factory=list)

    def ratios(self, way: str) -> List[float]:
        """Return how many times as fast as Lago a way was, by round."""
        return [
            lago.wall / cost.wall
            for lago, cost in zip(self.costs['lago-xz'], self.costs[way])
        ]

    def ratios_unconverted(self, way: str) -> List[float]:
        """Return the same for a Lago whose conversion takes no time."""
        return [
            (lago.wall - phases['convert']) / cost.wall
            for lago, phases, cost in zip(
                self.costs['lago-xz'], self.phases, self.costs[way]
            )
        ]

    def to_json(self) -> Dict[str, Any]:
        """Return every single run."""
        return {
            'runs': {
                way: [cost.to_json() for cost in costs]
                for way, costs in self.costs.items()
            },
            'lago_phases_s': self.phases,
        }


def compare_transfers(
    chain: Chain,
    url: str,
    box: LagoSandbox,
    rounds: int,
    tell: Callable[[str], None],
) -> Transfers:
    """Fetch by all ways, round by round; keep the last store of ours.

    Raises:
        RuntimeError: a way failed, or did not bring the guest's bytes.
    """
    done = Transfers({way: [] for way in WAYS})
    chain.warm()
    for number in range(rounds):
        first = number % len(WAYS)
        for way in WAYS[first:] + WAYS[:first]:
            cost = _fetch(way, chain, url, box)
            done.costs[way].append(cost)
            if way == 'lago-xz':
                done.phases.append(_phases(cost))
            if number == 0:
                _check(way, chain, box.store)
            tell(f'round {number + 1} of {rounds}: {way:<9}'
                 f'{cost.wall:7.1f} s{cost.cpu:7.1f} s CPU'
                 f'{cost.peak / 1e6:7.0f} MB')
    return done


def fill_store(chain: Chain, url: str, box: LagoSandbox) -> None:
    """Bring the chain into the store of a sandbox by this package."""
    _fetch('ours-zst', chain, url, box)


def _fetch(way: str, chain: Chain, url: str, box: LagoSandbox) -> Cost:
    who, kind = way.split('-')
    shutil.rmtree(box.store, ignore_errors=True)
    box.store.mkdir()
    given = [f'{url}/{kind}/repo.metadata', str(box.store)]
    if who == 'lago':
        command = [str(HERE / 'fetch_plain.py'), *given, str(chain.plain)]
    else:
        command = [str(HERE / 'fetch_layered.py'), *given]
    environment = box.environment()
    # For a reader at a pipe; it costs Lago a write for each percent.
    del environment['PYTHONUNBUFFERED']
    return measure(
        [sys.executable, *command, *chain.names],
        env=environment, cwd=box.root,
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


def _check(way: str, chain: Chain, store: Path) -> None:
    """Compare what a guest sees of the last image with the truth."""
    top = store / f'bench:{chain.names[-1]}:v1'
    if guest_digest(top) != chain.guest_sha256:
        raise RuntimeError(f'{way}: {top.name} is not the image published')
