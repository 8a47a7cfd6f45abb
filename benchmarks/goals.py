"""What is wanted, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Iterator, List, Optional, Sequence

from .figures import MEGABYTE, Figures, middle, spread
from .transfers import CASES

#: Case -> times as fast as Lago's own, times the least seconds.
XZ_GOALS = {
    'unlimited': (1.85, 1.15),
    'base': (1.70, 1.20),
    'connection': (3.0, 1.15),
    'latency': (3.0, 1.15),
}
ZST_LAGO, ZST_CURL = 6.0, 1.5
PRESENT_SECONDS = 0.1
INDEX_SECONDS, INDEX_BYTES, KEPT_SECONDS = 1.0, 300 * MEGABYTE, 0.2
END_SHARE = 0.10
#: The index at the end of a file may be read by itself before.
AGAIN_SHARE = 0.001
PEAK_BYTES = 250 * MEGABYTE


@dataclass(frozen=True)
class Goal:
    """One row.

    Attributes:
        found: None where it was not measured.
        spread: the least and the most of the rounds.
    """

    what: str
    wanted: str
    found: Optional[str]
    met: bool
    spread: str = ''

    @property
    def verdict(self) -> str:
        """Return one word."""
        if self.found is None:
            return '-'
        return 'met' if self.met else 'MISSED'


def evaluate(figures: Figures) -> List[Goal]:
    """Return all goals."""
    return [
        *_transfers(figures), *_starts(figures), *_index(figures),
        *_many(figures), *_memory(figures),
    ]


def _transfers(figures: Figures) -> Iterator[Goal]:
    for case in CASES:
        if case.name not in XZ_GOALS:
            continue
        lago, floor = XZ_GOALS[case.name]
        what = '.xz, ' + case.title.replace(' per connection', '')
        yield _at_least(
            f'{what}: x Lago', lago,
            figures.ratios(case.name, 'lago-xz', 'ours-xz'),
        )
        yield _at_most(
            f'{what}: x floor', floor,
            figures.over_floor(case, 'ours-xz'),
        )
        if case.name == 'unlimited':
            yield _at_least(
                '.zst, unlimited: x Lago', ZST_LAGO,
                figures.ratios('unlimited', 'lago-xz', 'ours-zst'),
            )
            yield _at_most(
                '.zst, unlimited: x curl | zstd', ZST_CURL,
                figures.ratios('unlimited', 'ours-zst', 'curl-zst'),
            )


def _starts(figures: Figures) -> Iterator[Goal]:
    starts = figures['starts']
    ratio = None
    if starts:
        with_us, without = (
            median(one['wall_s'] for one in starts['init'][side])
            for side in ('with', 'without')
        )
        ratio = [with_us / without]
    yield _at_most(
        'lago init, all present: x without us', 1.0, ratio or []
    )
    chain = figures['long_chain']
    yield _below(
        'plan, checks of 30 layers, s', PRESENT_SECONDS,
        median(chain['seconds']) if chain else None, 3,
    )


def _index(figures: Figures) -> Iterator[Goal]:
    found = figures['index']
    what = '100,000 versions'
    first = found['first']['seconds'][0] if found else None
    kept = found['kept']['seconds'][0] if found else None
    peak = found['first']['peak_bytes'] / MEGABYTE if found else None
    yield _below(f'{what}, first time, s', INDEX_SECONDS, first, 2)
    yield _below(f'{what}, MB', INDEX_BYTES / MEGABYTE, peak, 0)
    yield _below(f'{what}, when kept, s', KEPT_SECONDS, kept, 2)


def _many(figures: Figures) -> Iterator[Goal]:
    found = figures['many']
    again = late = None
    if found:
        again = 100 * found['again_bytes'] / found['file_bytes']
        first, last = min(found['ends_s']), max(found['ends_s'])
        late = 100 * (last - first) / first
    yield _below('16 processes: fetched again, %', 100 * AGAIN_SHARE,
                 again, 2)
    yield _below('16 processes: last after first, %',
                 100 * END_SHARE, late, 1)


def _memory(figures: Figures) -> Iterator[Goal]:
    peaks = figures.peaks()
    most = max(peaks, key=lambda name: peaks[name]) if peaks else None
    yield _below(
        f'memory, MB ({most})' if most else 'memory, MB',
        PEAK_BYTES / MEGABYTE, peaks[most] / MEGABYTE if most else None, 0,
    )


def _at_least(what: str, wanted: float, values: Sequence[float]) -> Goal:
    found = middle(values)
    return Goal(what, f'>= {wanted:.2f}', _text(found, 2),
                found is not None and round(found, 2) >= wanted,
                spread(values, 2)[1])


def _at_most(what: str, wanted: float, values: Sequence[float]) -> Goal:
    found = middle(values)
    return Goal(what, f'<= {wanted:.2f}', _text(found, 2),
                found is not None and round(found, 2) <= wanted,
                spread(values, 2)[1])


def _below(
    what: str, wanted: float, found: Optional[float], digits: int
) -> Goal:
    return Goal(what, f'< {wanted:g}', _text(found, digits),
                found is not None and found < wanted)


def _text(found: Optional[float], digits: int) -> Optional[str]:
    return None if found is None else f'{found:.{digits}f}'
