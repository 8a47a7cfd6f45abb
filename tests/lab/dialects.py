"""What four kinds of publisher write into index, sidecars and headers.

extended     this project's index: everything is in it
plain        Lago's own documentation: source, handle, timestamp; flat images
images-2015  lago-images at 82dadca: one version ``latest``, the base is
             another spec's id in the sidecar and in the header
images-head  lago-images' last state: ``layer:PATH`` in the sidecar, and the
             names of the two sha512 sums swapped

The builder is https://github.com/lago-project/lago-images (bin/build.py then,
lago_images/createrepo.py and images.py later).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Optional


@dataclass
class Published:
    """One published image: the truth about it, for index and assertions.

    Attributes:
        handle: path of the image in its source, without ``.xz`` and so on.
        url_path: path of the file on the server, with the suffix.
        image: the uncompressed file as published (kept outside the repo).
        file: the file in the repository directory.
        base: ``template:version`` of the base, or None.
        checksums: of the uncompressed file: sha1, sha256, sha512.
        compressed_checksums: of the file on the server.
    """

    template: str
    version: str
    handle: str
    image: Path
    file: Path
    base: Optional[str]
    compression: Optional[str]
    timestamp: float
    size: int
    compressed_size: int
    virtual_size: int
    format: str
    checksums: Dict[str, str]
    compressed_checksums: Dict[str, str]
    metadata: Dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return ``template:version``."""
        return f'{self.template}:{self.version}'

    @property
    def url_path(self) -> str:
        """Return the path of the file on the server, with its suffix."""
        return f'/{self.handle}{suffix_of(self.compression)}'


@dataclass(frozen=True)
class Dialect:
    """How one kind of publisher words things.

    Attributes:
        version: the only version there is, or None.
        backing_format: the header records the backing file's format.
        handle: template, version -> handle.
        backing: the base's template and version -> header's backing file.
        entry: the keys of a version beside source, handle and timestamp.
        sidecar: the ``.metadata`` file.
    """

    version: Optional[str]
    backing_format: bool
    handle: Callable[[str, str], str]
    backing: Callable[[str, str], str]
    entry: Callable[[Published], Dict[str, Any]]
    sidecar: Callable[[Published], Dict[str, Any]]


def _extended_entry(image: Published) -> Dict[str, Any]:
    return {
        'base': image.base,
        'format': image.format,
        'compression': image.compression,
        'size': image.size,
        'compressed_size': image.compressed_size,
        'virtual_size': image.virtual_size,
        **image.checksums,
        'metadata': image.metadata,
    }


def _2015_sidecar(image: Published) -> Dict[str, Any]:
    base = image.base.split(':')[0] if image.base else 'libguestfs:centos-7.2'
    return {
        'base': base,
        'name': 'lago CentOS 7',
        'osinfo': 'centos7.2',
        'distro': 'el7',
        'arch': 'x86_64',
        'expand': '/dev/sda3',
        'root-partition': '/dev/sda3',
        **{key: str(value) for key, value in image.metadata.items()},
        'id': image.template,
        'size': image.size,
        'sha1': image.checksums['sha1'],
        'sha512': image.checksums['sha512'],
    }


def _head_sidecar(image: Published) -> Dict[str, Any]:
    base = 'libguestfs:centos-7.5'
    if image.base:
        handle = _head_handle(*image.base.split(':', 1))
        base = f'layer:http://builder.invalid/{handle}.xz'
    return {
        'base': base,
        'name': image.template,
        'osinfo': 'centos7.5',
        'distro': 'el7',
        'version': image.version,
        'arch': 'x86_64',
        'expand': '/dev/sda4',
        'root-partition': '/dev/sda4',
        **{key: str(value) for key, value in image.metadata.items()},
        'id': image.handle,
        'size': image.size,
        'sha1': image.checksums['sha1'],
        'checksum': image.checksums['sha512'],
        'compressed_size': image.compressed_size,
        'compressed_sha1': image.compressed_checksums['sha1'],
        'uncompressed_checksum': image.compressed_checksums['sha512'],
        'timestamp': image.timestamp,
    }


def _head_handle(template: str, version: str) -> str:
    """Return the spec's file name; the first version carries no number."""
    return template if version == 'v1' else f'{template}-{version}'


def suffix_of(compression: Optional[str]) -> str:
    """Return the suffix on the server: ``.xz``, ``.zst``, ``.gz`` or none."""
    return f'.{compression.split("-")[0]}' if compression else ''


def _nothing(_image: Published) -> Dict[str, Any]:
    return {}


DIALECTS: Dict[str, Dialect] = {
    'extended': Dialect(
        version=None,
        backing_format=True,
        handle='{}-{}.qcow2'.format,
        backing='./{}:{}'.format,
        entry=_extended_entry,
        sidecar=lambda image: image.metadata,
    ),
    'plain': Dialect(
        version=None,
        backing_format=True,
        handle='{}-{}.qcow2'.format,
        backing='./{}:{}'.format,
        entry=_nothing,
        sidecar=lambda image: image.metadata,
    ),
    'images-2015': Dialect(
        version='latest',
        backing_format=False,
        handle=lambda template, _version: template,
        backing=lambda template, _version: template,
        entry=_nothing,
        sidecar=_2015_sidecar,
    ),
    'images-head': Dialect(
        version=None,
        backing_format=False,
        handle=_head_handle,
        backing=_head_handle,
        entry=_nothing,
        sidecar=_head_sidecar,
    ),
}
