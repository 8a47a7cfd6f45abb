"""Build the chain of images that is fetched, once, and publish it twice.

The content is real files from below /usr, in an order that only their names
decide. So images compress as those of an installed system do, but differ
between machines; their sizes stand in the results.

    system   an ext4 file system (``mkfs.ext4 -d``) with ten thirteenths of
             the files
    tools    stands on it, with other files, each from a block of its own on,
             written behind the file system as a guest would
    app      stands on that, with as much again

Published twice, with the index and the digests of ``create``:

    xz/    compressed as lago-images does (lago.utils.compress, its only
           compressor): ``xz --best --threads=0 --block-size=16777216``;
           with Lago's sidecars beside the images
    zst/   by ``create`` as it is: frames of 16 MiB with a seek table
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from lago_layered_provider.publishing.packing import DIGESTS
from tests.lab import Publisher, guest_digest, run
from tests.lab.images import create, write_at

from .content import MIB, Content

#: To be raised when anything here changes what is built.
RECIPE = 3

#: Name -> parts of all files; each image stands on the one before it.
SHARES = {'system': 20, 'tools': 3, 'app': 3}
VERSION = 'v1'
REPOSITORY = 'bench'

#: Of the file system, above what its files take; and of the disk behind it.
ROOM = 1.25

XZ = ('xz', '--best', '--threads=0', '--block-size=16777216')
#: xz --best packs 2 MB in a second.
COMPRESS_SECONDS = 4 * 3600

KINDS = ('xz', 'zst')


@dataclass
class Chain:
    """The published images.

    Attributes:
        root: of the directories ``xz``, ``zst`` and ``plain``; the last has
            the uncompressed images, beside each other under the names that
            their headers give.
        sizes: name -> bytes of the image, base first.
        packed: compression -> name -> bytes of the published file.
        files: compression -> name -> path of it below `root`.
        guest_sha256: what a guest sees, by name.
        files_bytes: of the files that are in the images.
    """

    root: Path
    sizes: Dict[str, int] = field(default_factory=dict)
    packed: Dict[str, Dict[str, int]] = field(default_factory=dict)
    files: Dict[str, Dict[str, str]] = field(default_factory=dict)
    guest_sha256: Dict[str, str] = field(default_factory=dict)
    files_bytes: Dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> List[str]:
        """Return the names of the images, base first."""
        return list(self.sizes)

    @property
    def plain(self) -> Path:
        """Return the directory of the uncompressed images."""
        return self.root / 'plain'

    def index(self, kind: str) -> Path:
        """Return the path of an index."""
        return self.root / kind / 'repo.metadata'

    def point_to(self, url: str) -> None:
        """Write the server's address into the indexes."""
        for kind in KINDS:
            index = json.loads(self.index(kind).read_text())
            for source in index['sources'].values():
                source['args']['baseurl'] = f'{url}/{kind}/'
            self.index(kind).write_text(json.dumps(index, indent=1))

    def warm(self) -> None:
        """Read all that is served, so that it is in the page cache."""
        for files in self.files.values():
            for path in files.values():
                with open(self.root / path, 'rb') as stream:
                    while stream.read(16 * MIB):
                        pass


def get_chain(cache: Path, mib: int, tell: Callable[[str], None]) -> Chain:
    """Return the chain with that many MiB of files; build it if need be.

    Raises:
        RuntimeError: a tool failed, or there are too few files.
    """
    root = cache / f'chain-{RECIPE}-{mib}'
    facts = root / 'facts.json'
    if not facts.exists():
        tell(f'Building images of {mib} MiB of files; this is done only once.')
        shutil.rmtree(root, ignore_errors=True)
        chain = _build(root, mib * MIB, tell)
        facts.write_text(json.dumps({**asdict(chain), 'root': None}))
    return Chain(**{**json.loads(facts.read_text()), 'root': root})


def _build(root: Path, size: int, tell: Callable[[str], None]) -> Chain:
    built = root / 'built'
    built.mkdir(parents=True)
    chain = Chain(root)
    content = Content()
    shares = {
        name: size * share // sum(SHARES.values())
        for name, share in SHARES.items()
    }
    base: Optional[Path] = None
    end = int(shares['system'] * ROOM)
    for name, share in shares.items():
        path = built / f'{name}.qcow2'
        if base is None:
            disk = end + int(ROOM * (size - share)) // MIB * MIB
            taken = _make_system(path, content, share, end, disk)
        else:
            create(path, disk, base)
            taken = 0
            for piece in content.pieces(share):
                write_at(path, {end + taken: piece})
                taken += len(piece)
            end += taken
        chain.files_bytes[name] = taken
        base = path
    _publish(chain, built, tell)
    _describe(chain)
    shutil.rmtree(built)
    return chain


def _make_system(
    path: Path, content: Content, share: int, end: int, disk: int
) -> int:
    """Write an image with a file system; return the bytes of its files.

    Args:
        end: bytes of the file system, which is at the start of the disk.
    """
    staging = path.with_suffix('.d')
    raw = path.with_suffix('.raw')
    taken = content.copy_files(staging, share)
    run('mkfs.ext4', '-q', '-F', '-m', 0, '-d', staging, raw,
        f'{end // 1024}k')
    os.truncate(raw, disk)
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, path)
    raw.unlink()
    shutil.rmtree(staging)
    return taken


def _publish(
    chain: Chain, built: Path, tell: Callable[[str], None]
) -> None:
    originals = chain.root / 'zst'
    originals.mkdir()
    for name in SHARES:
        os.link(built / f'{name}.qcow2', originals / f'{name}.qcow2')
    tell('Compressing: create, .zst')
    run(sys.executable, '-m', 'lago_layered_provider', 'create', originals,
        '--name', REPOSITORY, '--version', VERSION, '--base-url',
        'http://to-be-set.invalid/', cwd=Path(__file__).parent.parent)
    for name in SHARES:
        (originals / f'{name}.qcow2').unlink()
    repo = Publisher(chain.root / 'xz', REPOSITORY, compression=None)
    base: Optional[str] = None
    for name in SHARES:
        image = repo.add(built / f'{name}.qcow2', name, VERSION, base)
        tell(f'Compressing: {name}, .xz')
        # Like lago-images: the compressor replaces the file.
        run(*XZ, image.file, timeout=COMPRESS_SECONDS)
        image.file = image.file.with_name(f'{image.file.name}.xz')
        image.compression = 'xz'
        image.compressed_size = image.file.stat().st_size
        image.checksums = {kind: image.checksums[kind] for kind in DIGESTS}
        base = name
    repo.write()
    (chain.root / 'xz.uncompressed').rename(chain.plain)


def _describe(chain: Chain) -> None:
    """Note the sizes, and what a guest sees."""
    for kind in KINDS:
        templates = json.loads(chain.index(kind).read_text())['templates']
        for name in SHARES:
            entry: Dict[str, Any] = templates[name]['versions'][VERSION]
            file = f'{kind}/{entry["handle"]}'
            if not file.endswith(f'.{kind}'):
                file += f'.{kind}'
            size = (chain.root / file).stat().st_size
            chain.files.setdefault(kind, {})[name] = file
            chain.packed.setdefault(kind, {})[name] = size
    for name in SHARES:
        image = chain.plain / f'{name}:{VERSION}'
        chain.sizes[name] = image.stat().st_size
        chain.guest_sha256[name] = guest_digest(image)
