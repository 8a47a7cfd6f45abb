"""The ways to fetch images, each as one command.

ours-*    ``lago template-repo pull``, as a user types it
lago-xz   Lago's own provider and store (`fetch_plain`)
curl-*    one image after the other through a pipe; .xz with its sha1
aria2-xz  all images at once, four connections each; then xz -T0, one after
          the other; no digest
floor-xz  all images decoded on all cores and dropped (``xz -T0 -dc``, which
          does that from 5.4 on): no server, no digest, no disk
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Sequence

from tests.lab import LagoSandbox
from tests.lab.commands import find
from tests.lab.environments import lago_command

from .images import REPOSITORY, VERSION, Chain

HERE = Path(__file__).parent

TITLES = {
    'lago-xz': 'Lago, .xz',
    'curl-xz': 'curl | xz | tee',
    'aria2-xz': 'aria2c, xz -T0',
    'ours-xz': 'ours, .xz',
    'ours-zst': 'ours, .zst',
    'curl-zst': 'curl | zstd -d',
}

#: Both leave each image under the name that the header above gives.
CURL_XZ = '''
while [ $# -gt 0 ]; do
    curl -sf "$2" | xz -dc | tee >(sha1sum > "$1.sum") > "$1"
    shift 2
done
'''
CURL_ZST = '''
while [ $# -gt 0 ]; do
    curl -sf "$2" | zstd -qdc > "$1"
    shift 2
done
'''
ARIA2_XZ = '''
urls=()
for ((i = 2; i <= $#; i += 2)); do
    urls+=("${!i}")
done
aria2c --quiet -x4 -s4 -Z "${urls[@]}"
while [ $# -gt 0 ]; do
    xz -T0 -dk "${2##*/}"
    file=${2##*/}
    mv "${file%.xz}" "$1"
    shift 2
done
'''


@dataclass(frozen=True)
class Order:
    """What is to be fetched, and where it goes.

    Attributes:
        names: of images, base first.
        url: of the server's root.
        kind: how the images are compressed.
    """

    chain: Chain
    names: Sequence[str]
    url: str
    box: LagoSandbox
    kind: str

    @property
    def index(self) -> str:
        """Return the URL of the index."""
        return f'{self.url}/{self.kind}/repo.metadata'

    def image(self, way: str) -> Path:
        """Return the path of the last image, after it was fetched."""
        prefix = '' if way.startswith(('curl', 'aria2')) else f'{REPOSITORY}:'
        return self.box.store / f'{prefix}{self.names[-1]}:{VERSION}'


def command(way: str, order: Order) -> List[str]:
    """Return the command of a way; it is to run in the store."""
    return _COMMANDS[way.partition('-')[0]](order)


def environment(order: Order) -> Dict[str, str]:
    """Return the environment of all ways."""
    given = order.box.environment()
    # For a reader at a pipe; it costs Lago a write for each percent.
    del given['PYTHONUNBUFFERED']
    return given


def _ours(order: Order) -> List[str]:
    return [
        str(lago_command()), 'template-repo', 'pull', '--repo', order.index,
        '--template-store', str(order.box.store), order.names[-1],
    ]


def _lago(order: Order) -> List[str]:
    return [
        sys.executable, str(HERE / 'fetch_plain.py'), order.index,
        str(order.box.store), str(order.chain.plain), *order.names,
    ]


def _script(text: str) -> Callable[[Order], List[str]]:
    def make(order: Order) -> List[str]:
        words: List[str] = []
        for name in order.names:
            file = order.chain.files[order.kind][name]
            words += [f'{name}:{VERSION}', f'{order.url}/{file}']
        bash = find('bash') or ''
        return [bash, '-e', '-o', 'pipefail', '-c', text, 'bash', *words]

    return make


def _floor(order: Order) -> List[str]:
    files = order.chain.files[order.kind]
    # To /dev/null, as is all that is measured.
    return [find('xz') or '', '-T0', '-dc', *(
        str(order.chain.root / files[name]) for name in order.names
    )]


def _curl(order: Order) -> List[str]:
    return _script(CURL_XZ if order.kind == 'xz' else CURL_ZST)(order)


_COMMANDS: Dict[str, Callable[[Order], List[str]]] = {
    'ours': _ours,
    'lago': _lago,
    'curl': _curl,
    'aria2': _script(ARIA2_XZ),
    'floor': _floor,
}
