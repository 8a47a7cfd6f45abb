"""Measure how fast `create` packs: ``make bench ARGS=--publishing``.

Beside it the compressors alone, with the same level and on the same files:
they read an image once, and make no digest, no index and no other header.
What is packed is on the disk at the end of each (fsync, sync).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List

from lago_layered_provider.publishing import packing
from tests.lab.report import say, show_table

from .content import MIB
from .figures import describe_machine, spread
from .images import Chain, get_chain
from .processes import Cost, measure

#: As `create` has it, for the tool itself.
COMMANDS = {
    'zst': f'zstd -q -f -T0 -{packing.ZSTD_LEVEL} -o "$2" "$1"',
    'xz': f'{" ".join(packing.XZ)} -T0 "$1" > "$2"',
}
TOOLS = {'zst': 'zstd -T0', 'xz': 'xz -T0'}
SCRIPT = '''
for image in "$1"/*; do
    set -- "$1" "$2" "$image" "$2/${image##*/}"
    pack "$3" "$4"
done
sync -f "$2"
'''


@dataclass
class Packed:
    """What it took; `sizes` are bytes of what was made."""

    costs: Dict[str, List[Cost]] = field(default_factory=dict)
    sizes: Dict[str, int] = field(default_factory=dict)


def main(
    cache: Path, arguments: argparse.Namespace, directory: Path,
    tell: Callable[[str], None],
) -> None:
    """Measure `create` alone, and write the results into a directory."""
    chain = get_chain(cache, arguments.size, tell)
    found = compare_packing(chain, cache / 'work', arguments.rounds, tell)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        show_packing(chain, found)
    print(shown.getvalue(), end='')
    place = directory / 'publishing'
    place.with_suffix('.txt').write_text(shown.getvalue())
    place.with_suffix('.json').write_text(json.dumps({
        'machine': describe_machine(), 'image_bytes': chain.sizes,
        'packing': to_json(found),
    }, indent=1) + '\n')


def compare_packing(
    chain: Chain, work: Path, rounds: int, tell: Callable[[str], None]
) -> Packed:
    """Pack all images, in turn by `create` and by the tool."""
    found = Packed()
    for kind, command in COMMANDS.items():
        # xz takes minutes for what zstd does in seconds.
        for number in range(rounds if kind == 'zst' else 1):
            tell(f'packing .{kind}, round {number + 1}')
            for way in ('create', 'tool'):
                shutil.rmtree(work, ignore_errors=True)
                originals = work / 'originals'
                shutil.copytree(chain.plain, originals)
                made = originals / 'published'
                words = [
                    sys.executable, '-m', 'lago_layered_provider', 'create',
                    str(originals), '--name', 'bench', '--compress', kind,
                ]
                if way == 'tool':
                    made = work / 'made'
                    made.mkdir()
                    words = [
                        'sh', '-ec', f'pack() {{ {command}; }}\n{SCRIPT}',
                        'sh', str(originals), str(made),
                    ]
                cost = measure(words, env=os.environ, cwd=Path.cwd())
                found.costs.setdefault(f'{way}-{kind}', []).append(cost)
                found.sizes[f'{way}-{kind}'] = sum(
                    path.stat().st_size for path in made.rglob('*')
                    if path.is_file()
                )
    shutil.rmtree(work)
    return found


def show_packing(chain: Chain, found: Packed) -> None:
    """Print the table."""
    total = sum(chain.sizes.values())
    say('', f'Packing {total / MIB:.0f} MiB of images; a ratio is to the '
        f'tool\'s seconds', '')
    rows = []
    for name, costs in found.costs.items():
        way, _, kind = name.partition('-')
        tool = found.costs[f'tool-{kind}']
        walls = [cost.wall for cost in costs]
        rows.append((
            f'{TOOLS[kind] if way == "tool" else way}, .{kind}',
            *spread(walls, 1),
            f'{median(cost.cpu for cost in costs):.1f}',
            f'{total / MIB / median(walls):.1f}',
            f'{max(cost.tree for cost in costs) / 1e6:.0f}',
            f'{found.sizes[name] / MIB:.0f}',
            f'{median(a.wall / b.wall for a, b in zip(costs, tool)):.2f}',
        ))
    show_table(
        ('', 'wall s', '', 'CPU s', 'MiB/s', 'peak MB', 'MiB', 'ratio'), rows
    )


def to_json(found: Packed) -> Dict[str, Any]:
    """Return all of it as JSON's values."""
    return {
        name: {
            'packed_bytes': found.sizes[name],
            'costs': [cost.to_json() for cost in costs],
        }
        for name, costs in found.costs.items()
    }
