"""Look at a store from outside: is what is visible right, is it at rest?

What is known here is the store's documented layout and the published files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Iterator, List, Tuple

from .commands import run
from .dialects import Published
from .publish import Publisher


def store_name(repo: Publisher, image: Published) -> str:
    """Return the name of a published image in a store."""
    return f'{repo.name}:{image.name}'


def check_visible(store: Path, repo: Publisher) -> List[str]:
    """Prove that every visible image is whole and as it was published.

    Returns:
        the names (``template:version``) of the visible images.

    Raises:
        AssertionError: one is not, or its base is not visible.
    """
    visible = [
        image for image in repo.images.values()
        if (store / store_name(repo, image)).exists()
    ]
    for image in visible:
        _check_image(store, repo, image)
    return [image.name for image in visible]


def _check_image(store: Path, repo: Publisher, image: Published) -> None:
    name = store_name(repo, image)
    path = store / name
    assert path.stat().st_size == image.size, name
    assert path.stat().st_mode & 0o777 == 0o444, name
    digest = hashlib.sha256()
    for chunk in _published_bytes(store, name, layer=image.base is not None):
        digest.update(chunk)
    assert digest.hexdigest() == image.checksums['sha256'], name
    hash_file = store / f'{name}.hash'
    assert hash_file.read_text().strip() == image.checksums['sha1'], name
    metadata = json.loads((store / f'{name}.metadata').read_text())
    assert metadata == image.metadata, name
    found = json.loads(run(
        'qemu-img', 'info', '-f', image.format, '--output=json', path,
    ))
    if image.base is None:
        assert 'backing-filename' not in found, name
    else:
        base = f'{repo.name}:{image.base}'
        assert found['backing-filename'] == f'./{base}', name
        assert found['backing-filename-format'] == 'qcow2', name
        assert (store / base).exists(), f'{name} is visible before its base'


def _published_bytes(
    store: Path, name: str, *, layer: bool
) -> Iterator[bytes]:
    """Yield an image's bytes, with the first cluster that was published."""
    with open(store / name, 'rb') as stream:
        if layer:
            head = (store / f'.layered/images/{name}.head').read_bytes()
            yield head
            stream.seek(len(head))
        yield from iter(lambda: stream.read(1 << 20), b'')


def kept_bytes(store: Path, repo: Publisher, image: Published) -> int:
    """Return how many bytes of an image's file on the server are here.

    No byte counts twice: a spool may lie where a block is done already.
    """
    name = store_name(repo, image)
    if (store / name).exists():
        return image.compressed_size
    partial = store / '.layered/partial'
    try:
        state = json.loads((partial / f'{name}.json').read_text())
    except FileNotFoundError:
        return 0
    here = count = int(state['consumed'])
    if state['verified']:
        return count
    for offset, size in sorted(
        [(offset, size) for offset, size, _, _ in state['ahead']]
        + spools(store, name)
    ):
        count += max(0, offset + size - max(here, offset))
        here = max(here, offset + size)
    return count


def spools(store: Path, name: str) -> List[Tuple[int, int]]:
    """Return offset and size of what waits to be decoded of an image."""
    found = []
    for path in (store / '.layered/partial').glob(f'{name}.*.spool'):
        with contextlib.suppress(FileNotFoundError):
            found.append((int(path.name.split('.')[-2]), path.stat().st_size))
    return found


def is_staged(store: Path, name: str) -> bool:
    """Tell whether an image is verified and waits to become visible."""
    state = store / f'.layered/partial/{name}.json'
    try:
        return json.loads(state.read_text())['verified'] is not None
    except FileNotFoundError:
        return False


def written_bytes(store: Path) -> int:
    """Return the bytes that all image files of a store take, staged too."""
    total = 0
    for directory in (store, store / '.layered/partial'):
        if directory.is_dir():
            for entry in os.scandir(directory):
                try:
                    total += entry.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def held_locks(store: Path) -> List[str]:
    """Return the locks that somebody holds."""
    held = []
    for path in sorted(store.glob('*.lock')):
        with open(path, 'rb') as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


def leftovers(store: Path) -> List[str]:
    """Return what a store at rest should not hold any more.

    The notes of killed runs that nobody finished stay until a prune.
    """
    state = store / '.layered'
    return sorted(
        str(path.relative_to(store))
        for pattern in ('partial/*', 'reservations/*', '**/*.tmp')
        for path in state.glob(pattern)
        if path.parent.name != 'usage'
    )
