"""Publish images as a repository directory: compress, sidecars, index.

What it writes is what a publisher writes; how each of the four kinds of
publisher words it stands in ``dialects``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from .commands import find, run
from .dialects import DIALECTS, Published, suffix_of
from .images import DiskImage, drop_backing_format, virtual_size
from .kept import copy, keep, version_of

#: As lago-images compresses, except for the level (its own is -9).
XZ = ('xz', '-T0', '--block-size=16777216')
FIRST_TIMESTAMP = 1500000000

#: For large test images: the same format, four times as fast, 1 % larger.
QUICK = '--lzma2=dict=4KiB,mode=fast,nice=2,mf=hc3,depth=1'

#: The same with the dictionary of -9, which decoding makes room for.
WIDE = '--lzma2=dict=64MiB,mode=fast,nice=273,mf=hc3,depth=1'

COMPRESSORS: Dict[str, List[str]] = {
    'xz': [*XZ],
    'xz-single': ['xz', '-T1'],
    'xz-quick': [*XZ, QUICK],
    'xz-single-quick': ['xz', '-T1', QUICK],
    'xz-wide': [*XZ, WIDE],
    # As pixz and others: the headers of blocks do not tell sizes.
    'xz-blocks': ['xz', '-T1', '--block-size=1MiB', QUICK],
    'zst': ['zstd', '-q', '-T0'],
    'gz': ['gzip', '-n'],
}

#: Files of several frames and a seek table; bytes that a frame makes.
FRAMES = {'zst-frames': 1 << 20, 'zst-large-frames': 16 << 20}

#: A header's backing file, left as the image has it.
KEEP = 'keep'


class Publisher:
    """A repository directory in the making.

    Args:
        root: the directory that a server serves; made when missing.
        name: of the repository.
        base_url: of the source; ``''`` can be set before ``write``.
        dialect: extended, plain, images-2015 or images-head.
        compression: xz, xz-single (one block), zst, gz or None (plain);
            xz-quick, xz-single-quick and xz-wide for large images;
            xz-blocks, zst-frames and zst-large-frames for many parts.
        level: of the compressor; tests need speed more than size.
        source: http (``baseurl``) or file (``root``).
        sidecars: write ``.hash`` and ``.metadata`` beside the images.
    """

    def __init__(
        self,
        root: Path,
        name: str = 'lab',
        base_url: str = '',
        *,
        dialect: str = 'extended',
        compression: Optional[str] = 'xz',
        level: int = 1,
        source: str = 'http',
        sidecars: bool = True,
    ) -> None:
        self.root = root
        self.name = name
        self.base_url = base_url
        self.dialect = DIALECTS[dialect]
        self.compression = compression
        self.level = level
        self.source = source
        self.sidecars = sidecars
        self.images: Dict[str, Published] = {}
        self._edits: List[Callable[[Dict[str, Any]], None]] = []
        self._plain = root.with_name(f'{root.name}.uncompressed')
        root.mkdir(parents=True, exist_ok=True)
        self._plain.mkdir(exist_ok=True)

    @property
    def index_path(self) -> Path:
        """Return where ``write`` puts the index."""
        return self.root / 'repo.metadata'

    def add(
        self,
        path: Path,
        template: str,
        version: str = 'v1',
        base: Optional[str] = None,
        *,
        timestamp: Optional[float] = None,
        metadata: Optional[Mapping[str, Any]] = None,
        handle: Optional[str] = None,
        backing: Optional[str] = None,
        compression: Optional[str] = 'default',
        form: str = 'qcow2',
    ) -> Published:
        """Publish a copy of an image; the index follows with ``write``.

        Args:
            base: ``template`` or ``template:version`` published before.
            backing: what the header shall say instead of the dialect's own
                form; ``KEEP`` leaves what is there.
        """
        if base and ':' not in base:
            base = self._newest(base)
        version = self.dialect.version or version
        handle = handle or self.dialect.handle(template, version)
        if compression == 'default':
            compression = self.compression
        image = self._plain / f'{template}:{version}'
        copy(path, image)
        self._set_backing(image, base, backing)
        made = checksums(image)
        file = self.root / f'{handle}{suffix_of(compression)}'
        packed = compress_once(
            image, made['sha256'], file, compression, self.level
        )
        published = Published(
            template, version, handle, image, file, base,
            compression and compression.split('-')[0],
            FIRST_TIMESTAMP + len(self.images) if timestamp is None
            else timestamp,
            image.stat().st_size, file.stat().st_size,
            virtual_size(image) if form == 'qcow2' else image.stat().st_size,
            form, made, packed or made,
            dict(metadata or {'distro': 'tiny'}),
        )
        self.images[published.name] = published
        return published

    def add_forest(
        self, forest: Mapping[str, DiskImage], version: str = 'v1'
    ) -> List[Published]:
        """Publish images that ``make_forest`` made, under their names."""
        return [
            self.add(disk.path, disk.name, version, disk.base)
            for disk in forest.values()
        ]

    def _newest(self, template: str) -> str:
        """Return the full name of the newest image of a template."""
        versions = [
            image for image in self.images.values()
            if image.template == template
        ]
        return max(versions, key=lambda image: image.timestamp).name

    def _set_backing(
        self, image: Path, base: Optional[str], backing: Optional[str]
    ) -> None:
        """Write into the header what this dialect's publisher writes."""
        if backing == KEEP or not (base or backing):
            return
        form = 'qcow2'
        if base in self.images:
            form = self.images[str(base)].format
        if backing is None:
            backing = self.dialect.backing(*str(base).split(':', 1))
        # -u: only the header is written; the name need not exist there.
        run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', backing,
            '-F', form, image)
        if not self.dialect.backing_format:
            drop_backing_format(image)

    def edit(self, change: Callable[[Dict[str, Any]], None]) -> None:
        """Change (spoil) the index every time before it is written."""
        self._edits.append(change)

    def edit_version(self, name: str, **changes: Any) -> None:
        """Change keys of one ``template:version``; ``...`` removes a key."""
        template, version = name.split(':', 1)

        def change(index: Dict[str, Any]) -> None:
            entry = index['templates'][template]['versions'][version]
            for key, value in changes.items():
                if value is ...:
                    entry.pop(key, None)
                else:
                    entry[key] = value

        self.edit(change)

    def index(self) -> Dict[str, Any]:
        """Return the index as ``write`` would write it."""
        arguments = {'baseurl': self.base_url}
        if self.source == 'file':
            arguments = {'root': str(self.root)}
        index: Dict[str, Any] = {
            'name': self.name,
            'sources': {
                self.name: {'type': self.source, 'args': arguments}
            },
            'templates': {},
        }
        for image in self.images.values():
            versions = index['templates'].setdefault(
                image.template, {'versions': {}}
            )['versions']
            versions[image.version] = {
                'source': self.name,
                'handle': image.handle,
                'timestamp': image.timestamp,
                **self.dialect.entry(image),
            }
        for change in self._edits:
            change(index)
        return index

    def write(self, base_url: Optional[str] = None) -> Path:
        """Write the sidecars, then the index; return the index' path.

        Args:
            base_url: of the server, when it is known only now.
        """
        if base_url is not None:
            self.base_url = base_url
        for image in self.images.values() if self.sidecars else ():
            beside = self.root / image.handle
            sidecar = json.dumps(self.dialect.sidecar(image))
            Path(f'{beside}.metadata').write_text(sidecar)
            Path(f'{beside}.hash').write_text(image.checksums['sha1'])
        new = self.root / '.repo.metadata.new'
        new.write_text(json.dumps(self.index(), indent=1))
        new.replace(self.index_path)
        return self.index_path


def compress_once(
    source: Path, sha256: str, destination: Path, compression: Optional[str],
    level: int,
) -> Optional[Dict[str, str]]:
    """Write a compressed copy of a file, as it was made the first time.

    Returns:
        The checksums of the copy; None where nothing is compressed.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    if compression is None:
        copy(source, destination)
        return None

    def make(made: Path) -> None:
        compress(source, made / 'file', compression, level)
        (made / 'checksums').write_text(json.dumps(checksums(made / 'file')))

    tool = 'zstd' if compression in FRAMES else COMPRESSORS[compression][0]
    kept = keep(
        ('compressed', sha256, compression, level, COMPRESSORS, FRAMES,
         version_of(tool)), make,
    )
    copy(kept / 'file', destination)
    made: Dict[str, str] = json.loads((kept / 'checksums').read_text())
    return made


def compress(
    source: Path, destination: Path, compression: Optional[str], level: int
) -> None:
    """Write a compressed copy of a file."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if compression is None:
        shutil.copyfile(source, destination)
        return
    if compression in FRAMES:
        write_frames(source, destination, FRAMES[compression], level)
        return
    tool, *options = COMPRESSORS[compression]
    # The level goes first: xz forgets filters that stand before it.
    command = [tool, f'-{level}', *options, '-c', str(source)]
    run('sh', '-c', 'out=$1; shift; exec "$@" > "$out"', 'sh',
        destination, *command)


def write_frames(
    source: Path, destination: Path, frame_bytes: int, level: int
) -> None:
    """Write a .zst file in the "Zstandard Seekable Format", 0.1.0.

    See contrib/seekable_format/zstd_seekable_compression_format.md in
    https://github.com/facebook/zstd.
    """
    sizes = []
    with open(source, 'rb') as stream, open(destination, 'wb') as out:
        for data in iter(lambda: stream.read(frame_bytes), b''):
            frame = subprocess.run(
                [find('zstd') or 'zstd', f'-{level}', '-q', '-c'],
                input=data, stdout=subprocess.PIPE, check=True,
            ).stdout
            out.write(frame)
            sizes.append((len(frame), len(data)))
        table = b''.join(struct.pack('<II', *frame) for frame in sizes)
        table += struct.pack('<IBI', len(sizes), 0, 0x8F92EAB1)
        out.write(struct.pack('<II', 0x184D2A5E, len(table)) + table)


def checksums(path: Path) -> Dict[str, str]:
    """Return sha1, sha256 and sha512 of a file, reading it once."""
    hashes = {name: hashlib.new(name) for name in ('sha1', 'sha256', 'sha512')}
    with open(path, 'rb') as stream:
        for block in iter(lambda: stream.read(4 << 20), b''):
            for one in hashes.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in hashes.items()}
