"""The demo's repository: four bootable images, built and published once.

The same images without layers are made as well, to compare with: flattened
and compressed for real, their sizes noted, and removed again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Tuple

from .images import flatten, guest_digest
from .publish import Publisher, compress
from .tiny_linux import TinyLinux, make_layers

#: Image -> its base.
BASES: Dict[str, Optional[str]] = {
    'tiny-base': None,
    'tiny-web': 'tiny-base',
    'tiny-shop': 'tiny-web',
    'tiny-db': 'tiny-base',
}
DISK_MIB = 256
DATA_MIB = 32
COMPRESSION = 'zst'
LEVEL = 3

DOMAIN = """\
  {vm}:
    memory: 256
    bootstrap: false
    nics:
      - net: lan
    disks:
      - template_name: {template}
        type: template
        name: root
        dev: vda
        format: qcow2
"""
NETS = """\
nets:
  lan:
    type: nat
    management: true
    dhcp: {start: 100, end: 254}
"""

#: Bytes that an image takes, and those of the compressed file.
Sizes = Tuple[int, int]


@dataclass
class Showcase:
    """The published images and the truth about them.

    Attributes:
        www: the directory to serve.
        layers: sizes of what is published.
        flat: sizes of the same images without layers.
        digests: sha256 of the guest's bytes.
    """

    www: Path
    layers: Dict[str, Sizes] = field(default_factory=dict)
    flat: Dict[str, Sizes] = field(default_factory=dict)
    digests: Dict[str, str] = field(default_factory=dict)

    @property
    def index_path(self) -> Path:
        """Return the path of the index."""
        return self.www / 'repo.metadata'

    def point_to(self, url: str) -> None:
        """Write the address of the server into the index."""
        index = json.loads(self.index_path.read_text())
        for source in index['sources'].values():
            source['args']['baseurl'] = f'{url}/'
        self.index_path.write_text(json.dumps(index, indent=1))


def get_showcase(
    directory: Path, cache: Path, tell: Callable[[str], None]
) -> Showcase:
    """Return the images in a directory; build them if they are not there.

    Args:
        cache: of the tiny Linux.
        tell: is told when something takes time.
    """
    recipe = inspect.getsource(sys.modules[__name__])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    facts = directory / f'facts-{key}.json'
    if not facts.exists():
        tell('Building four bootable disks; this is done only once.')
        shutil.rmtree(directory, ignore_errors=True)
        showcase = _build(directory, TinyLinux(cache, disk_mib=DISK_MIB))
        known = {**asdict(showcase), 'www': None}
        facts.write_text(json.dumps(known))
    return Showcase(**{
        **json.loads(facts.read_text()), 'www': directory / 'www'
    })


def _build(directory: Path, linux: TinyLinux) -> Showcase:
    disks = make_layers(
        linux, directory / 'built', BASES, payload_mib=DATA_MIB
    )
    repo = Publisher(
        directory / 'www', 'demo', compression=COMPRESSION, level=LEVEL
    )
    showcase = Showcase(repo.root)
    for name, base in BASES.items():
        image = repo.add(disks[name], name, base=base, metadata={
            'distro': 'tiny', 'root-partition': '/dev/vda1',
        })
        showcase.layers[name] = image.size, image.compressed_size
        showcase.digests[name] = guest_digest(disks[name])
        showcase.flat[name] = _flat_sizes(disks[name])
    repo.write()
    for published in repo.images.values():
        published.image.unlink()
    shutil.rmtree(directory / 'built')
    return showcase


def _flat_sizes(disk: Path) -> Sizes:
    """Measure what a publisher without layers would offer."""
    flat = flatten(disk, disk.with_suffix('.flat'))
    packed = disk.with_suffix('.packed')
    compress(flat, packed, COMPRESSION, LEVEL)
    sizes = flat.stat().st_blocks * 512, packed.stat().st_size
    flat.unlink()
    packed.unlink()
    return sizes


def init_file_domain(vm: str, template: str) -> str:
    """Return a VM of a LagoInitFile, as a user writes it."""
    return DOMAIN.format(vm=vm, template=template)


def init_file(vms: Mapping[str, str]) -> str:
    """Return a LagoInitFile for VM -> template."""
    domains = [init_file_domain(vm, template) for vm, template in vms.items()]
    return 'domains:\n' + ''.join(domains) + NETS
