"""Build the chain of images that is fetched, once, and publish it twice.

The content is real: files below /usr, each from a block of its own on as a
file system puts them, in an order that only their names decide. So images
compress as those of an installed system do, but differ between machines;
their sizes stand in the results.

Three images of 5 : 2 : 1, as a system and two layers of additions have it.
They are published with this project's index and with Lago's sidecars:

    xz/    as lago-images does (lago.utils.compress, its only compressor):
           ``xz --best --threads=0 --block-size=16777216``
    zst/   ``zstd -12 -T0``
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

from tests.lab import Publisher, guest_digest, run
from tests.lab.images import create, write_at

MIB = 1 << 20
BLOCK = 4096
PIECE = 16 * MIB

#: To be raised when anything here changes what is built.
RECIPE = 1

SOURCE = Path('/usr')
#: Larger files would be a large part of an image.
LARGEST_FILE = 64 * MIB

#: Name -> eighths of the whole; each stands on the one before it.
SHARES = {'system': 5, 'tools': 2, 'app': 1}

COMPRESSORS: Dict[str, List[str]] = {
    'xz': ['xz', '--best', '--threads=0', '--block-size=16777216'],
    'zst': ['zstd', '-12', '-T0', '--quiet', '--rm'],
}
#: xz --best packs 2 MB in a second.
COMPRESS_SECONDS = 4 * 3600


@dataclass
class Chain:
    """The published images.

    Attributes:
        root: of the directories ``xz``, ``zst`` and ``plain``; the last has
            the uncompressed images, beside each other under the names that
            their headers give.
        sizes: name -> bytes of the image, base first.
        packed: compression -> name -> bytes of the published file.
        guest_sha256: what a guest sees of the last image.
    """

    root: Path
    sizes: Dict[str, int] = field(default_factory=dict)
    packed: Dict[str, Dict[str, int]] = field(default_factory=dict)
    guest_sha256: str = ''

    @property
    def names(self) -> List[str]:
        """Return the names of the images, base first."""
        return list(self.sizes)

    @property
    def plain(self) -> Path:
        """Return the directory of the uncompressed images."""
        return self.root / 'plain'

    def point_to(self, url: str) -> None:
        """Write the server's address into the indexes."""
        for kind in COMPRESSORS:
            path = self.root / kind / 'repo.metadata'
            index = json.loads(path.read_text())
            for source in index['sources'].values():
                source['args']['baseurl'] = f'{url}/{kind}/'
            path.write_text(json.dumps(index, indent=1))

    def warm(self) -> None:
        """Read all that is served, so that it is in the page cache."""
        for kind in COMPRESSORS:
            for path in sorted((self.root / kind).iterdir()):
                with open(path, 'rb') as stream:
                    while stream.read(PIECE):
                        pass


def get_chain(cache: Path, mib: int, tell: Callable[[str], None]) -> Chain:
    """Return the chain with that many MiB in all; build it if need be."""
    root = cache / f'chain-{RECIPE}-{mib}'
    facts = root / 'facts.json'
    if not facts.exists():
        tell(f'Building {mib} MiB of images; this is done only once.')
        shutil.rmtree(root, ignore_errors=True)
        chain = _build(root, mib, tell)
        facts.write_text(json.dumps({**asdict(chain), 'root': None}))
    return Chain(**{**json.loads(facts.read_text()), 'root': root})


def _build(root: Path, mib: int, tell: Callable[[str], None]) -> Chain:
    built = root / 'built'
    built.mkdir(parents=True)
    pieces = _content()
    base: Optional[Path] = None
    offset = 0
    for name, share in SHARES.items():
        path = built / f'{name}.qcow2'
        create(path, 2 * mib * MIB, base)
        end = offset + mib * MIB * share // sum(SHARES.values())
        while offset < end:
            piece = next(pieces)[:end - offset]
            write_at(path, {offset: piece})
            offset += len(piece)
        base = path
    chain = Chain(root)
    for kind in COMPRESSORS:
        tell(f'Compressing them: {kind}')
        _publish(chain, built, kind)
    shutil.rmtree(root / 'zst.uncompressed')
    (root / 'xz.uncompressed').rename(chain.plain)
    assert base is not None
    chain.guest_sha256 = guest_digest(base)
    shutil.rmtree(built)
    return chain


def _publish(chain: Chain, built: Path, kind: str) -> None:
    repo = Publisher(chain.root / kind, 'bench', compression=None)
    base: Optional[str] = None
    packed = chain.packed.setdefault(kind, {})
    for name in SHARES:
        image = repo.add(built / f'{name}.qcow2', name, base=base)
        base = name
        # Like lago-images: the compressor replaces the file.
        run(*COMPRESSORS[kind], image.file, timeout=COMPRESS_SECONDS)
        image.file = image.file.with_name(f'{image.file.name}.{kind}')
        image.compression = kind
        image.compressed_size = image.file.stat().st_size
        chain.sizes[name] = image.size
        packed[name] = image.compressed_size
    repo.write()


def _content() -> Iterator[bytes]:
    """Yield pieces of files, block by block.

    Raises:
        RuntimeError: there is no more below /usr.
    """
    piece = bytearray()
    for path in _files():
        try:
            data = path.read_bytes()
        except OSError:
            continue
        piece += data.ljust(-(-len(data) // BLOCK) * BLOCK, b'\0')
        while len(piece) >= PIECE:
            yield bytes(piece[:PIECE])
            del piece[:PIECE]
    raise RuntimeError(f'{SOURCE} has too little in it; choose a smaller '
                       '--size')


def _files() -> List[Path]:
    found: List[str] = []
    for parent, _, names in os.walk(SOURCE):
        found += (os.path.join(parent, name) for name in names)
    found.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    return [path for path in map(Path, found) if _is_wanted(path)]


def _is_wanted(path: Path) -> bool:
    try:
        return (
            not path.is_symlink() and path.is_file()
            and 0 < path.stat().st_size <= LARGEST_FILE
        )
    except OSError:
        return False
