"""What `create`, `mirror` and `build` do in a directory of images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.core.index import parse_index
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.publishing import build_state, create, mirroring
from lago_layered_provider.publishing.options import Options
from lago_layered_provider.publishing.place import INDEX, Place
from lago_layered_provider.settings import Settings
from lago_layered_provider.tools import files
from lago_layered_provider.tools.locks import ignore_holder
from tests.unit.test_store import Killed

TEMPORARY = '.0123456789abcdef.tmp'


def names_below(root: Path) -> Set[str]:
    """Return all files below a directory."""
    return {
        str(path.relative_to(root)) for path in root.rglob('*')
        if path.is_file()
    }


def test_what_killed_runs_have_left_goes_from_everywhere(
    tmp_path: Path
) -> None:
    """They may have had other images, in other directories."""
    kept = {
        'a.tmp', 'x.part', 'published/a/.v1.qcow2.fetching',
        'published/a/.v.tmp', f'.build-01234567/{TEMPORARY}',
        f'running/{TEMPORARY}',
    }
    gone = {
        TEMPORARY, f'deep/er/{TEMPORARY}', f'published/{TEMPORARY}',
        f'published/a/b/{TEMPORARY}', 'published/a/.v1.qcow2.zst.part',
    }
    for name in kept | gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with open(tmp_path / 'running' / TEMPORARY) as running:
        assert files.claim(running.fileno(), running.name)
        with Place(str(tmp_path)).alone(0, ignore_holder):
            assert names_below(tmp_path) == kept | {'published/.lock'}


def test_an_admin_has_linked_published_to_a_larger_disk(
    tmp_path: Path
) -> None:
    larger = tmp_path / 'larger'
    (larger / 'a').mkdir(parents=True)
    (larger / 'a' / TEMPORARY).touch()
    (tmp_path / 'images').mkdir()
    os.symlink(larger, tmp_path / 'images' / 'published')
    with Place(str(tmp_path / 'images')).alone(0, ignore_holder):
        assert names_below(larger) == {'.lock'}


# A build becomes visible

IMAGES = ('a.qcow2', 'a.qcow2.metadata', 'z.qcow2', 'z.qcow2.metadata')


def make_build(directory: Path) -> Path:
    """Make the scratch directory of a build that is not complete."""
    scratch = directory / '.build-01234567'
    (scratch / 'out').mkdir(parents=True)
    for name in (build_state.STATE_FILE, *IMAGES):
        (scratch / 'out' / name).touch()
    return scratch


def test_an_image_is_noted_as_built_when_all_of_them_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a kill ends the moves, the next run goes on with them."""
    replace = os.replace
    for count in range(len(IMAGES) + 1):
        directory = tmp_path / str(count)
        scratch = make_build(directory)
        left = iter(range(count))

        def move(old: str, new: str, **directories: Any) -> None:
            if new.startswith(str(directory)) and next(left, None) is None:
                raise Killed
            replace(old, new, **directories)

        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', move)
            with pytest.raises(Killed):
                build_state.complete(str(scratch))
        here = {path.name for path in directory.iterdir()} - {scratch.name}
        assert len(here) == count and here <= set(IMAGES)
        build_state.move_complete(str(scratch))
        assert {path.name for path in directory.iterdir()} == {
            scratch.name, build_state.STATE_FILE, *IMAGES,
        }


def test_a_build_that_is_not_complete_is_not_shown(tmp_path: Path) -> None:
    scratch = make_build(tmp_path)
    build_state.move_complete(str(scratch))
    assert os.listdir(tmp_path) == [scratch.name]


# An image is published

class Told:
    """Is told what happens, and does something at the begin or later."""

    def __init__(
        self, action: Callable[[str], None] = lambda moment: None
    ) -> None:
        self.action = action
        self.advanced = 0
        self.notes: List[str] = []

    def begin(self, name: str, total: Optional[int], done: int) -> None:
        self.action('begin')

    def advance(self, name: str, count: int) -> None:
        self.advanced += count
        self.action('advance')

    def wait(self, name: str, reason: str) -> None:
        raise AssertionError('nobody else is here')

    def end(self, name: str, outcome: str) -> None:
        """Need not be known here."""

    def note(self, text: str) -> None:
        self.notes.append(text)


def publish(root: Path, told: Optional[Told] = None, **options: Any) -> None:
    create.publish(
        str(root), Options(**{
            'name': 'lab', 'version': 'v1', 'compression': None, **options,
        }), lock_timeout=0, progress=told or Told(), warn=print,
    )


@pytest.mark.parametrize('moment', ['begin', 'advance'])
@pytest.mark.parametrize('compression', [None, 'gz'])
def test_what_changes_while_it_is_read_is_not_published(
    compression: Optional[str], moment: str, tmp_path: Path
) -> None:
    """Or between the look into its head and the reading of it."""
    original = tmp_path / 'a.img'
    original.write_bytes(bytes(512))

    def write(now: str) -> None:
        if now == moment:
            original.write_bytes(b'x' * 1024)

    with pytest.raises(errors.PublishError, match='changed while it was read'):
        publish(tmp_path, Told(write), compression=compression)
    assert not (tmp_path / INDEX).exists()
    publish(tmp_path, compression=compression)
    assert shorts_of(tmp_path) == {'a:v1': 1024}


def shorts_of(root: Path) -> Dict[str, Optional[int]]:
    """Return the images of an index, and their sizes."""
    found = parse_index((root / INDEX).read_bytes(), 'here')
    images = [
        found.image(template, version)
        for template, version, _ in found.entries()
    ]
    return {image.ref.short: image.size for image in images}


# A repository is copied

CONTENT = {'a': b'a' * 4096, 'b': b'b' * 8192}


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Publish two images."""
    root = tmp_path / 'origin'
    root.mkdir()
    for name, content in CONTENT.items():
        (root / f'{name}.img').write_bytes(content)
    publish(root)
    return root


def copy(
    origin: Path, told: Optional[Told] = None, wanted: str = ''
) -> Told:
    """Mirror all images, or one of them."""
    told = told or Told()
    mirroring.mirror(
        str(origin / INDEX), str(origin.parent / 'copy'),
        [Wanted(wanted)] if wanted else [], None,
        Settings(lock_timeout=0, patience=0), progress=told, warn=print,
    )
    return told


def copied(origin: Path) -> Dict[str, bytes]:
    """Return the images of the copy, and see that nothing else is there."""
    root = origin.parent / 'copy'
    index = parse_index((root / INDEX).read_bytes(), 'here')
    images = {
        template: root / index.image(template, version).file
        for template, version, _ in index.entries()
    }
    assert names_below(root) == {INDEX, 'published/.lock', *(
        f'{path.relative_to(root)}{ending}'
        for path in images.values() for ending in ('', '.metadata', '.hash')
    )}
    return {name: path.read_bytes() for name, path in images.items()}


def part_of(origin: Path, name: str) -> Path:
    """Return where the copy of an image is fetched to."""
    part = origin.parent / f'copy/published/{name}/.v1.raw.fetching'
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


@pytest.mark.parametrize('left', [
    b'x' * 4096, b'x' * 100, b'a' * 100 + b'x' * 100,
])
def test_wrong_bytes_of_a_run_that_was_killed_are_fetched_anew(
    left: bytes, origin: Path
) -> None:
    """A power cut may have damaged them."""
    part_of(origin, 'a').write_bytes(left)
    told = copy(origin)
    assert ['fetching it anew' in note for note in told.notes] == [True]
    assert copied(origin) == CONTENT


@pytest.mark.parametrize('name', ['.v1.raw.fetching', 'v1.raw'])
@pytest.mark.parametrize('count', [1000, 4096])
def test_what_a_run_that_was_killed_has_fetched_counts(
    name: str, count: int, origin: Path
) -> None:
    part_of(origin, 'a').with_name(name).write_bytes(CONTENT['a'][:count])
    told = copy(origin)
    assert told.advanced == 4096 + 8192 - count and told.notes == []
    assert copied(origin) == CONTENT


def test_wrong_bytes_of_the_origin_are_fetched_once(origin: Path) -> None:
    (origin / 'published/a/v1.raw').write_bytes(b'x' * 4096)
    told = Told()
    with pytest.raises(errors.DigestMismatch):
        copy(origin, told)
    assert told.advanced <= 4096 + 8192
    assert not (origin.parent / 'copy' / INDEX).exists()
    assert not part_of(origin, 'a').exists()


@pytest.mark.parametrize('room, fits', [(11287, False), (11288, True)])
def test_there_must_be_room_for_what_is_not_here_yet(
    room: int, fits: bool, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_of(origin, 'a').write_bytes(CONTENT['a'][:1000])
    monkeypatch.setattr(mirroring, 'measure', lambda path: (room, 1 << 40))
    told = Told()
    if not fits:
        with pytest.raises(errors.NotEnoughSpace, match='1 B too little'):
            copy(origin, told)
        assert told.advanced == 0
    else:
        copy(origin, told)
        assert copied(origin) == CONTENT


@pytest.mark.parametrize('left', [
    'published/gone/v1.raw', 'published/gone/v1.raw.metadata',
    'published/gone/v1.raw.hash', 'published/gone/.v1.raw.fetching',
    'published/a/0123abcd/.v1.raw.fetching',
])
@pytest.mark.parametrize('verbatim', [True, False])
def test_what_a_killed_run_has_left_of_what_the_origin_has_no_more_goes(
    verbatim: bool, left: str, origin: Path
) -> None:
    if not verbatim:
        # The copy has an image of its own.
        (origin.parent / 'copy').mkdir()
        (origin.parent / 'copy' / 'c.img').write_bytes(b'c' * 512)
        publish(origin.parent / 'copy')
    path = origin.parent / 'copy' / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'left')
    copy(origin)
    assert not path.exists()
    assert not (origin.parent / 'copy/published/gone').exists()
    assert not (origin.parent / 'copy/published/a/0123abcd').exists()
    known = dict(CONTENT) if verbatim else {**CONTENT, 'c': b'c' * 512}
    assert shorts_of(origin.parent / 'copy') == {
        f'{name}:v1': len(content) for name, content in known.items()
    }


def test_a_part_of_the_origin_leaves_what_is_begun_of_others(
    origin: Path
) -> None:
    begun = part_of(origin, 'a')
    begun.write_bytes(CONTENT['a'][:100])
    copy(origin, wanted='b')
    assert begun.read_bytes() == CONTENT['a'][:100]
    assert copy(origin).advanced == 4096 - 100
    assert copied(origin) == CONTENT
