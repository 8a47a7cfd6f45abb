"""What must stay quick or small when there is much of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from tests.lab import LagoSandbox, Nginx, Publisher, make_chain, run
from tests.lab.environments import lago_command
from tests.lab.records import Request

from . import ways
from .content import MIB, Content
from .images import Chain
from .processes import measure
from .transfers import fetch
from .ways import Order

HERE = Path(__file__).parent

VERSIONS = 100_000
TEMPLATES = 1000
LAYERS = 30
TIMES = 20
PROCESSES = 16
LARGE_BYTES = 8 << 30
LARGE_DATA = 64 * MIB

Figures = Dict[str, Any]


def plan_in_large_index(root: Path) -> Figures:
    """Plan a chain out of 100,000 versions, the first time and again."""
    shutil.rmtree(root, ignore_errors=True)
    www = root / 'www'
    www.mkdir(parents=True)
    found: Figures = {'versions': VERSIONS}
    with Nginx(www) as server:
        index = www / 'repo.metadata'
        index.write_text(json.dumps(_large_index(server.url)))
        found['index_bytes'] = index.stat().st_size
        template = f't{TEMPLATES // 2}:v{VERSIONS // TEMPLATES - 1}'
        for time_of in ('first', 'kept'):
            found[time_of] = _plan_once(
                'plan', f'{server.url}/repo.metadata', root / 'store',
                template, 1,
            )
            # The second time the server says that nothing has changed.
            statuses = [one.status for one in server.requests()]
            found[time_of]['statuses'] = statuses
            server.forget()
    shutil.rmtree(root)
    return found


def _large_index(url: str) -> Figures:
    """Every version stands on the first of the template before it."""
    versions = range(VERSIONS // TEMPLATES)
    return {
        'name': 'large',
        'sources': {'large': {'type': 'http', 'args': {'baseurl': url}}},
        'templates': {
            f't{template}': {'versions': {
                f'v{version}': _large_entry(template, version)
                for version in versions
            }} for template in range(TEMPLATES)
        },
    }


def _large_entry(template: int, version: int) -> Figures:
    seed = f'{template}/{version}'.encode()
    return {
        'source': 'large',
        'handle': f'published/t{template}/v{version}.qcow2',
        'timestamp': 1500000000 + version,
        'base': f't{template - 1}:v0' if template % 10 else None,
        'compression': 'zst',
        'format': 'qcow2',
        'size': 734003200 + version,
        'compressed_size': 210000000 + version,
        'virtual_size': 6442450944,
        'sha1': hashlib.sha1(seed).hexdigest(),
        'sha512': hashlib.sha512(seed).hexdigest(),
        'metadata': {'distro': 'el7', 'arch': 'x86_64'},
    }


def plan_long_chain(root: Path) -> Figures:
    """Pull a chain of 30 layers that are all present, again and again."""
    shutil.rmtree(root, ignore_errors=True)
    www = root / 'www'
    repo = Publisher(www, 'long', compression='zst')
    base: Optional[str] = None
    for disk in make_chain(root / 'built', *[1] * LAYERS):
        repo.add(disk.path, disk.name, base=base)
        base = disk.name
    with Nginx(www) as server:
        repo.write(server.url)
        index, store = f'{server.url}/repo.metadata', root / 'store'
        assert base is not None
        run(lago_command(), 'template-repo', 'pull', '--repo', index,
            '--template-store', store, base)
        found = _plan_once('pull', index, store, base, TIMES)
    shutil.rmtree(root)
    return {'layers': LAYERS, **found}


def _plan_once(
    what: str, index: str, store: Path, template: str, times: int
) -> Figures:
    cost = measure(
        [sys.executable, str(HERE / 'plan_once.py'), what, index, str(store),
         template, str(times)], env=os.environ, cwd=HERE.parent,
    )
    found: Figures = json.loads(cost.stderr.splitlines()[-1])
    return found


def pull_by_many(chain: Chain, server: Nginx, box: LagoSandbox) -> Figures:
    """Let many processes pull one chain into one empty store at once."""
    order = Order(chain, chain.names, server.url, box, 'xz')
    shutil.rmtree(box.store, ignore_errors=True)
    box.store.mkdir()
    chain.point_to(server.url)
    server.forget()
    os.sync()
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            ways.command('ours-xz', order), env=ways.environment(order),
            cwd=box.store, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) for _ in range(PROCESSES)
    ]
    try:
        ends = _wait_for(processes, began)
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError(f'Some of {PROCESSES} processes failed')
    sizes = {
        f'/{file}': chain.packed['xz'][name]
        for name, file in chain.files['xz'].items()
    }
    requests = [one for one in server.requests() if one.path in sizes]
    return {
        'processes': PROCESSES,
        'ends_s': ends,
        'file_bytes': sum(sizes.values()),
        'sent_bytes': sum(one.sent for one in requests),
        'again_bytes': _sent_again(requests, sizes),
    }


def _wait_for(
    processes: List[subprocess.Popen[bytes]], began: float
) -> List[float]:
    """Return when each of them ended, in order."""
    ends: List[float] = []
    running = processes
    while running:
        ended = [one for one in running if one.poll() is not None]
        ends += [round(time.monotonic() - began, 3)] * len(ended)
        running = [one for one in running if one not in ended]
        time.sleep(0.005)
    return ends


def _sent_again(requests: List[Request], sizes: Dict[str, int]) -> int:
    """Return how many of the bytes had been sent before.

    Args:
        sizes: path -> bytes of the file.
    """
    again = 0
    for path, size in sizes.items():
        end = 0
        for first, last in sorted(
            _range(one, size) for one in requests if one.path == path
        ):
            again += max(0, min(end, last) - first)
            end = max(end, last)
    return again


def _range(request: Request, size: int) -> Tuple[int, int]:
    """Return the bytes that were sent: the first, and the one after."""
    first, _, last = request.range.partition('=')[2].partition('-')
    if request.status != 206:
        start = 0
    else:
        start = int(first) if first else size - int(last)
    return start, start + request.sent


def pull_large(cache: Path, box: LagoSandbox) -> Figures:
    """Pull an image of 8 GiB that is mostly zeros; for its memory."""
    root = cache / 'large-1'
    chain = Chain(root)
    if not (root / 'done').exists():
        shutil.rmtree(root, ignore_errors=True)
        _make_large(root)
        (root / 'done').touch()
    chain.sizes = {'large': LARGE_BYTES}
    found: Figures = {'size': LARGE_BYTES, 'data_bytes': LARGE_DATA}
    with Nginx(root) as server:
        chain.point_to(server.url)
        for kind in ('xz', 'zst'):
            order = Order(chain, ['large'], server.url, box, kind)
            found[kind] = fetch(f'ours-{kind}', order).to_json()
    shutil.rmtree(box.store)
    return found


def _make_large(root: Path) -> None:
    for kind in ('xz', 'zst'):
        directory = root / kind
        directory.mkdir(parents=True)
        image = directory / 'large.img'
        with open(image, 'wb') as stream:
            os.truncate(stream.fileno(), LARGE_BYTES)
            for offset, piece in zip(_places(), Content().pieces(LARGE_DATA)):
                stream.seek(offset)
                stream.write(piece)
        run(sys.executable, '-m', 'lago_layered_provider', 'create',
            directory, '--name', 'bench', '--version', 'v1', '--base-url',
            'http://to-be-set.invalid/', '--compress', kind,
            cwd=HERE.parent, timeout=3600)
        image.unlink()


def _places() -> Iterator[int]:
    """Yield offsets all over the large image, the same each time."""
    rng = random.Random('large')
    places = range(0, LARGE_BYTES - 2 * LARGE_DATA, 4 * LARGE_DATA)
    yield from rng.sample(places, len(places))
