"""Make real qcow2 images that stand on each other, and read them as a guest.

The content is pseudo-random from a seed, so that two runs give the same
guest bytes, and compresses about as well as an installed system does.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import random
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from .commands import run
from .kept import copy, keep, version_of

MIB = 1024 * 1024
CLUSTER = 64 * 1024
READ_SIZE = 4 * MIB
BACKING_FORMAT = 0xe2792aca

#: The file of a forest that tells what guests see of its images.
DIGESTS = 'guest_sha256.json'

#: Bytes of a skewed alphabet: about 4 bits each, like program text.
_SKEWED = bytes(
    b'eeeettaaooiinnsshhrrddllccuummwwffggyyppbbvvkkjjxxqqzz  \n\n00112345'[
        i * i // 1024
    ]
    for i in range(256)
)


@dataclass(frozen=True)
class ImageSpec:
    """What to build: MiB of new content, over a base or not.

    Attributes:
        mib: MiB of content that this image itself holds.
        base: name of the image it stands on.
        virtual_mib: size of the disk; default: the base's, or twice the
            content plus 16 MiB.
    """

    mib: int
    base: Optional[str] = None
    virtual_mib: Optional[int] = None


@dataclass(frozen=True)
class DiskImage:
    """A disk image that was built, with the truth about its guest's bytes."""

    name: str
    path: Path
    base: Optional[str]
    virtual_size: int
    guest_sha256: str


def content(size: int, seed: str) -> bytes:
    """Return pseudo-random bytes of which xz leaves about half.

    A quarter is incompressible, a third is skewed bytes, the rest repeats
    pieces of what came before.
    """
    rng = random.Random(seed)
    pool = rng.getrandbits(8 * CLUSTER * 4).to_bytes(CLUSTER * 4, 'little')
    pieces: List[bytes] = []
    length = 0
    while length < size:
        kind = rng.random()
        if kind < 0.25:
            piece = rng.getrandbits(8 * CLUSTER).to_bytes(CLUSTER, 'little')
        elif kind < 0.60:
            raw = rng.getrandbits(8 * CLUSTER).to_bytes(CLUSTER, 'little')
            piece = raw.translate(_SKEWED)
        else:
            starts = [rng.randrange(len(pool) - 1024) for _ in range(128)]
            piece = b''.join(pool[i:i + 512] for i in starts)
        pieces.append(piece)
        length += len(piece)
    return b''.join(pieces)[:size]


def make_forest(
    directory: Path,
    specs: Mapping[str, ImageSpec],
    *,
    seed: str = 'lab',
) -> Dict[str, DiskImage]:
    """Build images that stand on each other, bases before their layers.

    Args:
        directory: where ``NAME.qcow2`` go; made when missing.
        specs: the images; a base must stand before what stands on it.

    Returns:
        The images by name, in the order of ``specs``.
    """
    recipe = (
        'forest', sorted(specs.items()), list(specs), seed, _source(),
        version_of('qemu-img'),
    )
    kept = keep(recipe, lambda made: _build_forest(made, specs, seed))
    directory.mkdir(parents=True, exist_ok=True)
    digests = json.loads((kept / DIGESTS).read_text())
    forest: Dict[str, DiskImage] = {}
    for name, spec in specs.items():
        path = copy(kept / f'{name}.qcow2', directory / f'{name}.qcow2')
        forest[name] = DiskImage(
            name, path, spec.base, virtual_size(path), digests[name]
        )
    return forest


def _build_forest(
    directory: Path, specs: Mapping[str, ImageSpec], seed: str
) -> None:
    sizes: Dict[str, int] = {}
    digests: Dict[str, str] = {}
    for name, spec in specs.items():
        size = (spec.virtual_mib or spec.mib * 2 + 16) * MIB
        if spec.base and not spec.virtual_mib:
            size = sizes[spec.base]
        sizes[name] = size
        path = directory / f'{name}.qcow2'
        create(path, size, directory / f'{spec.base}.qcow2'
               if spec.base else None)
        write_content(path, spec.mib, size, f'{seed}/{name}')
        digests[name] = guest_digest(path)
    (directory / DIGESTS).write_text(json.dumps(digests))


@functools.lru_cache(maxsize=None)
def _source() -> str:
    """Return the code that makes the images."""
    return inspect.getsource(sys.modules[__name__])


def make_chain(
    directory: Path, *mib: int, seed: str = 'lab'
) -> List[DiskImage]:
    """Build one chain, base first: ``layer0``, ``layer1``, ...

    Args:
        mib: MiB of new content, layer by layer.
    """
    specs = {
        f'layer{i}': ImageSpec(size, f'layer{i - 1}' if i else None)
        for i, size in enumerate(mib)
    }
    return list(make_forest(directory, specs, seed=seed).values())


def create(path: Path, size: int, base: Optional[Path] = None) -> None:
    """Create an empty qcow2, its backing file named relative to it."""
    path.unlink(missing_ok=True)
    backing = ['-b', f'./{base.name}', '-F', 'qcow2'] if base else []
    run('qemu-img', 'create', '-q', '-f', 'qcow2', *backing, path, size)


def write_content(path: Path, mib: int, size: int, seed: str) -> None:
    """Write seeded content at scattered places of a disk of ``size`` bytes.

    An image over a base changes some of the base's clusters and adds others.
    """
    rng = random.Random(seed)
    piece = max(CLUSTER, mib * MIB // 16 // CLUSTER * CLUSTER)
    slots = rng.sample(range(size // piece), mib * MIB // piece)
    write_at(path, {
        slot * piece: content(piece, f'{seed}/{slot}') for slot in slots
    })


def write_at(path: Path, extents: Mapping[int, bytes]) -> None:
    """Write bytes into a disk at the guest's offsets, without mounting it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        commands = []
        for number, (offset, data) in enumerate(extents.items()):
            pattern = Path(scratch, f'{number}')
            pattern.write_bytes(data)
            commands += ['-c', f'write -q -s {pattern} {offset} {len(data)}']
        if commands:
            run('qemu-io', '-f', 'qcow2', '-t', 'unsafe', *commands, path)


def drop_backing_format(path: Path) -> None:
    """Remove the backing file's format from a qcow2 header.

    Old qemu-img recorded none, and today's refuses to: it is an extension of
    the header, see https://www.qemu.org/docs/master/interop/qcow2.html
    """
    with open(path, 'r+b') as stream:
        head = stream.read(CLUSTER)
        name_at, = struct.unpack_from('>Q', head, 8)
        place, = struct.unpack_from('>I', head, 100)
        start, kept = place, b''
        while True:
            kind, length = struct.unpack_from('>II', head, place)
            end = place + 8 + (length + 7) // 8 * 8
            if kind == 0:
                break
            if kind != BACKING_FORMAT:
                kept += head[place:end]
            place = end
        stream.seek(start)
        stream.write(kept.ljust(name_at - start, b'\0'))


def virtual_size(image: Path) -> int:
    """Return the bytes that a guest sees, as the header of a qcow2 says."""
    with open(image, 'rb') as stream:
        size, = struct.unpack_from('>Q', stream.read(32), 24)
    return int(size)


def flatten(disk: Path, destination: Path, *, form: str = 'qcow2') -> Path:
    """Write the whole of a chain into one file without a backing file."""
    run('qemu-img', 'convert', '-O', form, disk, destination)
    return destination


def guest_digest(disk: Path) -> str:
    """Return the sha256 of all bytes that a guest sees on a disk."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=disk.parent) as scratch:
        raw = flatten(disk, Path(scratch, 'raw'), form='raw')
        with open(raw, 'rb') as stream:
            for block in iter(lambda: stream.read(READ_SIZE), b''):
                digest.update(block)
    return digest.hexdigest()


def backing_chain(disk: Path) -> List[Dict[str, object]]:
    """Return ``qemu-img info --backing-chain``, the disk itself first."""
    out = run('qemu-img', 'info', '--backing-chain', '--output=json', disk)
    chain: List[Dict[str, object]] = json.loads(out)
    return chain
