"""Compressed clusters against plain ones: `python -m benchmarks.compressed`.

One image of real files, published in several ways. What is in the store
then, how long it takes to get there, and how fast a guest reads it: all of
the disk in order, and pieces of 4 KiB far from each other, each through an
empty disk on top, as a VM of Lago has it. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from tests.lab import LagoSandbox, Nginx, Publisher, run
from tests.lab.environments import lago_command
from tests.lab.report import say, show_table

from .content import MIB, Content
from .processes import Cost, measure

ROUNDS = 3
CONTENT_MIB = 512

#: Of xz and zstd.
LEVEL = 3

#: Bytes per second of a connection on the slow line.
SLOW_RATE = 20_000_000

READ_BYTES = 1 * MIB
SMALL_READ_BYTES = 4096
#: Not a multiple of a cluster, and so far that none is read twice in a row.
STRIDE = 17 * MIB + SMALL_READ_BYTES
SMALL_READS = 20_000


@dataclass(frozen=True)
class Way:
    """A way to publish: how clusters and how the file are compressed."""

    title: str
    clusters: Optional[str]
    packing: Optional[str]


WAYS = {
    'plain-xz': Way('plain clusters, file as .xz', None, 'xz'),
    'plain-zst': Way('plain clusters, file as .zst', None, 'zst-large-frames'),
    'zlib': Way('zlib clusters, file as it is', 'zlib', None),
    'zstd': Way('zstd clusters, file as it is', 'zstd', None),
    'zstd-zst': Way('zstd clusters, file as .zst', 'zstd', 'zst-large-frames'),
}


@dataclass
class Figures:
    """What was measured of one way, round by round."""

    fetch_bytes: int = 0
    disk_bytes: int = 0
    fetch: List[Cost] = field(default_factory=list)
    slow_fetch: List[Cost] = field(default_factory=list)
    read: List[Cost] = field(default_factory=list)
    small_read: List[Cost] = field(default_factory=list)

    def to_json(self) -> Dict[str, Any]:
        """Return all of it as JSON's values."""
        return {
            key: [each.to_json() for each in value]
            if isinstance(value, list) else value
            for key, value in vars(self).items()
        }


def main(words: Optional[Sequence[str]] = None) -> Dict[str, Figures]:
    """Measure, print a table, return the figures by way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=ROUNDS)
    parser.add_argument('--mib', type=int, default=CONTENT_MIB)
    parser.add_argument('--directory', type=Path, default=None)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=args.directory) as scratch:
        found = compare(Path(scratch), args.mib * MIB, args.rounds)
    show(found, args.mib * MIB, args.rounds)
    return found


def compare(root: Path, size: int, rounds: int) -> Dict[str, Figures]:
    """Publish an image in all ways; fetch and read it, round by round."""
    repo, virtual = _publish(root, size)
    found = {name: Figures() for name in WAYS}
    for name in WAYS:
        found[name].fetch_bytes = repo.images[f'{name}:v1'].compressed_size
    for number in range(rounds):
        for name, figures in found.items():
            say(f'round {number + 1}: {WAYS[name].title}')
            figures.slow_fetch.append(_fetch(root, name, SLOW_RATE))
            figures.fetch.append(_fetch(root, name, 0))
            stored = root / 'box/store' / f'lab:{name}:v1'
            figures.disk_bytes = stored.stat().st_blocks * 512
            figures.read.append(_read(
                stored, READ_BYTES, virtual // READ_BYTES, READ_BYTES
            ))
            figures.small_read.append(_read(
                stored, SMALL_READ_BYTES, SMALL_READS, STRIDE
            ))
    return found


def _publish(root: Path, size: int) -> Tuple[Publisher, int]:
    """Return a repository with the same image in all ways, and its size."""
    raw = root / 'raw'
    with open(raw, 'wb') as stream:
        for piece in Content().pieces(size):
            stream.write(piece)
    virtual = raw.stat().st_size // MIB * MIB
    os.truncate(raw, virtual)
    repo = Publisher(root / 'www', level=LEVEL)
    made: Dict[Optional[str], Path] = {}
    for name, way in WAYS.items():
        say(f'publishing: {way.title}')
        if way.clusters not in made:
            made[way.clusters] = root / f'{way.clusters}.qcow2'
            run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', *(
                ('-c', '-o', f'compression_type={way.clusters}')
                if way.clusters else ()
            ), raw, made[way.clusters])
        repo.add(made[way.clusters], name, compression=way.packing)
    for path in (raw, *made.values()):
        path.unlink()
    repo.write('.')
    return repo, virtual


def _fetch(root: Path, name: str, rate: int) -> Cost:
    """Pull one image into an empty store."""
    store = root / 'box/store'
    shutil.rmtree(store, ignore_errors=True)
    with Nginx(root / 'www', limit_rate=rate) as server:
        box = LagoSandbox(
            root / 'box', {}, repo=f'{server.url}/repo.metadata'
        )
        return measure(
            [str(lago_command()), 'template-repo', 'pull', name],
            env=box.environment(), cwd=box.root,
        )


def _read(image: Path, size: int, count: int, stride: int) -> Cost:
    """Read pieces of a disk on top of an image, one after the other."""
    disk = image.with_name('disk.qcow2')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', f'./{image.name}',
        '-F', 'qcow2', disk)
    try:
        return measure(
            ['qemu-img', 'bench', '-q', '-f', 'qcow2', '-d', '1', '-c',
             str(count), '-s', str(size), '-S', str(stride), str(disk)],
            env=os.environ, cwd=disk.parent,
        )
    finally:
        disk.unlink()


def show(found: Mapping[str, Figures], size: int, rounds: int) -> None:
    """Print the table."""
    say('', f'{size / MIB:.0f} MiB of files; medians of {rounds} rounds. '
        f'Reading is per second of processor time.', '')
    show_table(
        ('', 'fetch MiB', 'disk MiB', 'CPU s', f's at {SLOW_RATE / 1e6:.0f} '
         'MB/s', 'read MiB/s', '4 KiB reads/s'),
        [
            (
                WAYS[name].title,
                f'{each.fetch_bytes / MIB:.0f}',
                f'{each.disk_bytes / MIB:.0f}',
                f'{_cpu(each.fetch):.1f}',
                f'{median(cost.wall for cost in each.slow_fetch):.1f}',
                f'{size / MIB / _cpu(each.read):.0f}',
                f'{SMALL_READS / _cpu(each.small_read):.0f}',
            ) for name, each in found.items()
        ],
    )


def _cpu(costs: Sequence[Cost]) -> float:
    """Return processor seconds: qemu-img reads with one request at a time.
    """
    return median(cost.cpu for cost in costs)


if __name__ == '__main__':
    main()
