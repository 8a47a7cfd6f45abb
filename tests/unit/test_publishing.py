"""What `create`, `mirror` and `build` do in a directory of images."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.index.document import parse_index
from lago_layered_provider.lint import read_content, run, verbatim
from lago_layered_provider.publishing import (
    build_state, create, fetching, mirroring, scratch,
)
from lago_layered_provider.publishing.layout import INDEX, Place
from lago_layered_provider.publishing.options import Options
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.tools import files
from lago_layered_provider.tools.locks import ignore_holder
from tests.unit.test_store import Killed, make_qcow2

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


def test_what_an_admin_has_written_beside_an_original_stays(
    tmp_path: Path
) -> None:
    (tmp_path / 'a.img').write_bytes(bytes(512))
    (tmp_path / 'a.img.metadata').write_text('{"distro": "el7", "my": 1}')
    publish(tmp_path, in_place=True)
    assert (tmp_path / 'a.img.metadata').read_text() == (
        '{"distro": "el7", "my": 1}'
    )
    assert (tmp_path / 'a.img.hash').exists()


def test_a_new_original_of_the_same_size_is_a_new_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / 'a.img'
    original.write_bytes(bytes(512))
    publish(tmp_path)
    index = (tmp_path / INDEX).read_bytes()
    # One that was only copied is not; then the index keeps its bytes.
    later = time.time() + 1000
    monkeypatch.setattr(time, 'time', lambda: later)
    original.unlink()
    original.write_bytes(bytes(512))
    publish(tmp_path, version='v2')
    assert (tmp_path / INDEX).read_bytes() == index
    original.write_bytes(b'x' * 512)
    publish(tmp_path, version='v2')
    assert shorts_of(tmp_path) == {'a:v1': 512, 'a:v2': 512}


def test_a_later_index_is_never_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock says: clients refuse an older one."""
    monkeypatch.setattr(time, 'time', lambda: 5000.5)
    (tmp_path / 'a.img').write_bytes(bytes(512))
    publish(tmp_path)
    monkeypatch.setattr(time, 'time', lambda: 4000.5)
    (tmp_path / 'b.img').write_bytes(bytes(512))
    publish(tmp_path)
    found = parse_index((tmp_path / INDEX).read_bytes(), 'here')
    assert found.timestamp == 5000
    assert shorts_of(tmp_path) == {'a:v1': 512, 'b:v1': 512}


def test_the_directory_of_a_running_process_is_left_alone(
    tmp_path: Path
) -> None:
    with scratch.scratch_directory(str(tmp_path), 'work') as first:
        Path(first, 'file').touch()
        with scratch.scratch_directory(str(tmp_path), 'work') as second:
            assert scratch.find_others(second) == [first]
            assert os.listdir(first) == ['file']
    killed = tmp_path / '.work-01234567'
    killed.mkdir()
    with scratch.scratch_directory(str(tmp_path), 'work') as third:
        assert os.listdir(tmp_path) == [os.path.basename(third)]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    made, target = tmp_path / 'made', tmp_path / 'target'
    made.write_bytes(b'new')
    target.write_bytes(b'old')
    with pytest.raises(errors.PublishError, match='it is there already'):
        scratch.show_file(str(made), str(target))
    assert target.read_bytes() == b'old'
    target.unlink()
    scratch.show_file(str(made), str(target))
    assert target.read_bytes() == b'new'


def test_a_ready_image_stands_on_nothing(tmp_path: Path) -> None:
    """Its base would be a file of whoever builds."""
    (tmp_path / 'base').write_bytes(make_qcow2())
    (tmp_path / 'ready').write_bytes(
        make_qcow2(str(tmp_path / 'base'), 'qcow2')
    )
    with pytest.raises(errors.PublishError, match='it stands on'):
        fetching.fetch_ready(
            str(tmp_path / 'ready'), str(tmp_path / 'out'), 1
        )
    assert not (tmp_path / 'out').exists()
    fetching.fetch_ready(str(tmp_path / 'base'), str(tmp_path / 'out'), 1)
    assert (tmp_path / 'out').read_bytes() == make_qcow2()


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


def test_more_than_was_announced_is_not_copied(origin: Path) -> None:
    told = Told()
    with open(origin / 'published/a/v1.raw', 'ab') as stream:
        stream.truncate(64 << 20)
    with pytest.raises(errors.LayeredError):
        copy(origin, told)
    assert told.advanced < 4 << 20
    (origin / 'published/a/v1.raw').write_bytes(CONTENT['a'])
    copy(origin)
    assert copied(origin) == CONTENT


def test_an_index_that_has_changed_since_it_was_read_is_not_kept(
    origin: Path
) -> None:
    path = origin / INDEX
    found = ByPath(str(path)).read(Settings(), print)
    assert verbatim.read_verbatim(found, Settings()) == (
        path.read_bytes(), None
    )
    (origin / 'c.img').write_bytes(bytes(512))
    publish(origin)
    assert verbatim.read_verbatim(found, Settings()) is None


def test_lint_tells_what_it_could_not_read(
    origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lint() -> List[str]:
        found = run.lint_repository(
            str(origin / INDEX), Settings(retries=0), lambda done, total: None
        )
        assert found.failed is bool(found.findings)
        return [f'{one.image}: {one.message}' for one in found.findings]

    def fail(image: Any, *_: Any) -> Any:
        if image.ref.template == 'b':
            raise errors.TransferError('memory', 'it broke')
        return read(image, *_)

    assert lint() == []
    read = read_content.read_content
    monkeypatch.setattr(run, 'read_content', fail)
    [said] = lint()
    assert said.startswith('b:v1: ') and 'it broke' in said
