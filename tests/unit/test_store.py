"""Laws of the store: visible means complete, base before layer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from lago_layered_provider.core import errors, model
from lago_layered_provider.formats import qcow2
from lago_layered_provider.store import (
    Auditor, Inventory, Record, Replacing, Store, Usage,
)
from lago_layered_provider.store.usage_notes import UsageNote
from lago_layered_provider.tools.locks import ImageLock

BASE = 'repo:base:v1'
CHILD = 'repo:child:v1'
LAYER = 'repo:layer:v1'
METADATA = {'distro': 'el7', 'root-partition': '/dev/sda1'}
CLUSTER = 65536


def make_qcow2(
    backing: Optional[str] = None, backing_format: str = '', body: bytes = b''
) -> bytes:
    """Return a small qcow2 image: header, tables, some bytes."""
    extension = b''
    if backing_format:
        data = backing_format.encode()
        extension = struct.pack('>II', 0xE2792ACA, len(data))
        extension += data + bytes(-len(data) % 8)
    extension += bytes(8)
    name = (backing or '').encode()
    at = 104 + len(extension) if backing else 0
    head = struct.pack(
        '>4sIQIIQIIQQIIQ', b'QFI\xfb', 3, at, len(name), 16, 2**20, 0, 1,
        3 * CLUSTER, CLUSTER, 1, 0, 0,
    ) + struct.pack('>QQQII', 0, 0, 0, 4, 104)
    head = (head + extension + name).ljust(CLUSTER, b'\0')
    return head + bytes(3 * CLUSTER) + body


def make_record(image: bytes, backing: Optional[str] = None) -> Record:
    return Record(
        format='qcow2' if image[:4] == b'QFI\xfb' else 'raw',
        size=len(image),
        virtual_size=2**20,
        digests=tuple(
            model.Digest(name, hashlib.new(name, image).hexdigest())
            for name in ('sha1', 'sha256')
        ),
        backing=backing,
        url='http://server/image.xz',
    )


BASE_BYTES = make_qcow2(body=b'base' * 5000)
LAYER_BYTES = make_qcow2('base', body=b'layer' * 5000)


def put_staged(
    store: Store, name: str, image: bytes, backing: Optional[str] = None
) -> None:
    with store.stage(name, identity='it') as stage:
        assert stage is not None
        if stage.verified is None:
            stage.reset()
            stage.write(image)
            stage.mark_verified(make_record(image, backing))


def put(
    store: Store, name: str, image: bytes, base: Optional[str] = None
) -> model.Stored:
    put_staged(store, name, image, base)
    return store.commit(name, base=base, metadata=METADATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    return store


@pytest.fixture(autouse=True)
def without_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without fsync, which a kill does not need and disks are slow at."""
    monkeypatch.setattr(os, 'fsync', lambda fd: None)


def tree(store: Store) -> Dict[str, Any]:
    """Return all files of a store; its locks apart."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in Path(store.root).rglob('*')
        if path.is_file() and path.suffix != '.lock'
    }


# What becomes visible.

def test_committed_image_is_found_with_what_was_verified(
    store: Store
) -> None:
    stored = put(store, BASE, BASE_BYTES)
    assert stored == store.find(BASE)
    assert (stored.format, stored.size) == ('qcow2', len(BASE_BYTES))
    assert stored.digests == make_record(BASE_BYTES).digests
    assert stored.backing is None
    assert Path(store.path(BASE)).read_bytes() == BASE_BYTES
    assert store.read_metadata(BASE) == METADATA
    sha1 = hashlib.sha1(BASE_BYTES).hexdigest()
    assert Path(store.path(BASE) + '.hash').read_text() == sha1
    assert store.partial(BASE) is None


def test_nothing_is_visible_before_commit(store: Store) -> None:
    put_staged(store, BASE, BASE_BYTES)
    assert store.find(BASE) is None
    assert not os.path.exists(store.path(BASE))


def test_committed_image_is_read_only(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    assert os.stat(store.path(BASE)).st_mode & 0o777 == 0o444


def test_layer_points_to_its_base_in_the_store(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    stored = put(store, LAYER, LAYER_BYTES, BASE)
    assert stored.backing == BASE
    image = Path(store.path(LAYER)).read_bytes()
    header = qcow2.parse_header(image[:CLUSTER])
    assert header.backing_file == f'./{BASE}'
    assert header.backing_format == 'qcow2'
    assert image[CLUSTER:] == LAYER_BYTES[CLUSTER:]


def test_backing_format_is_that_of_the_base(store: Store) -> None:
    Path(store.path(BASE)).write_bytes(b'raw, from a plain Lago')
    put(store, LAYER, LAYER_BYTES, BASE)
    head = Path(store.path(LAYER)).read_bytes()[:CLUSTER]
    assert qcow2.parse_header(head).backing_format == 'raw'


def test_published_digest_of_a_layer_can_be_proven_later(
    store: Store
) -> None:
    put(store, BASE, BASE_BYTES)
    put(store, LAYER, LAYER_BYTES, BASE)
    for name, image in (BASE, BASE_BYTES), (LAYER, LAYER_BYTES):
        assert b''.join(store.read_published(name)) == image


def test_layer_becomes_visible_only_after_its_base(store: Store) -> None:
    put_staged(store, LAYER, LAYER_BYTES, BASE)
    with pytest.raises(errors.StoreError, match='before its base'):
        store.commit(LAYER, base=BASE, metadata=METADATA)
    assert store.find(LAYER) is None
    put(store, BASE, BASE_BYTES)
    assert store.commit(LAYER, base=BASE, metadata=METADATA).backing == BASE


def test_layer_may_stand_on_a_republished_base(store: Store) -> None:
    again = f'{BASE}+0123abcd'
    put(store, again, BASE_BYTES)
    put_staged(store, LAYER, LAYER_BYTES, BASE)
    stored = store.commit(LAYER, base=again, metadata=METADATA)
    assert stored.backing == again


def test_unverified_image_is_not_committed(store: Store) -> None:
    with pytest.raises(errors.StoreError, match='not complete'):
        store.commit(BASE, base=None, metadata=METADATA)
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(BASE_BYTES)
    with pytest.raises(errors.StoreError, match='not complete'):
        store.commit(BASE, base=None, metadata=METADATA)
    assert store.find(BASE) is None


def test_staged_file_that_lost_its_end_is_not_committed(
    store: Store
) -> None:
    put_staged(store, BASE, BASE_BYTES)
    os.truncate(f'{store.root}/.layered/partial/{BASE}', 100)
    with pytest.raises(errors.StoreError, match='not complete'):
        store.commit(BASE, base=None, metadata=METADATA)


def test_base_must_be_what_was_verified(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    put_staged(store, LAYER, LAYER_BYTES, BASE)
    with pytest.raises(errors.StoreError, match='verified on'):
        store.commit(LAYER, base=None, metadata=METADATA)


def test_commit_again_changes_nothing(store: Store) -> None:
    stored = put(store, BASE, BASE_BYTES)
    before = tree(store)
    assert store.commit(BASE, base=None, metadata={'other': 1}) == stored
    assert tree(store) == before


def test_stage_of_a_visible_image_is_none(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    with store.stage(BASE, identity='other') as stage:
        assert stage is None


def test_hash_of_another_file_does_not_stay(store: Store) -> None:
    Path(store.path(BASE) + '.hash').write_text('0' * 40)
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(b'abc')
        stage.mark_verified(Record('raw', 3, 3, ()))
    store.commit(BASE, base=None, metadata=METADATA)
    assert not os.path.exists(store.path(BASE) + '.hash')


# A kill at every step.

class Killed(BaseException):
    """The process is gone."""


class KillSwitch:
    """Kills before or after the n-th call that changes the disk.

    Afterwards every such call fails: a dead process cleans nothing up.
    """

    CALLS = ('replace', 'rename', 'unlink', 'pwrite', 'ftruncate', 'fsync',
             'fchmod')

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        # Twice a call: before it and after it.
        self.left = at
        self.dead = False
        for name in self.CALLS:
            patch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def killing(*args: Any, **kwargs: Any) -> Any:
            self._step()
            result = call(*args, **kwargs)
            self._step()
            return result
        return killing

    def _step(self) -> None:
        if self.dead or self.left == 0:
            self.dead = True
            raise Killed
        self.left -= 1


def finish(store: Store) -> None:
    """Do what a run does: stage what is missing, commit, base first."""
    for name, image, base in (
        (BASE, BASE_BYTES, None), (LAYER, LAYER_BYTES, BASE)
    ):
        with store.stage(name, identity='it') as stage:
            if stage is not None and stage.verified is None:
                stage.reset()
                stage.write(image)
                stage.mark_verified(make_record(image, base))
        store.commit(name, base=base, metadata=METADATA)


def check_visible(store: Store) -> List[str]:
    """Check that whatever is visible is complete; return its names."""
    visible = []
    for name, image in (BASE, BASE_BYTES), (LAYER, LAYER_BYTES):
        if os.path.exists(store.path(name)):
            visible.append(name)
            stored = store.find(name)
            assert stored is not None
            assert stored.digests == make_record(image).digests
            assert b''.join(store.read_published(name)) == image
            assert store.read_metadata(name) == METADATA
            assert os.path.exists(store.path(name) + '.hash')
            assert os.stat(store.path(name)).st_mode & 0o777 == 0o444
            assert stored.backing in (None, *visible)
    return visible


def test_kill_at_every_step_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store(str(tmp_path / 'whole'))
    whole.prepare()
    finish(whole)
    seen = set()
    for at in range(1000):
        store = Store(str(tmp_path / str(at)))
        store.prepare()
        with monkeypatch.context() as patch:
            switch = KillSwitch(patch, at)
            try:
                finish(store)
            except Killed:
                pass
        seen.add(tuple(check_visible(store)))
        again = Store(store.root)
        again.prepare()
        finish(again)
        assert check_visible(again) == [BASE, LAYER]
        assert tree(again) == tree(whole)
        if not switch.dead:
            break
    assert not switch.dead and at > 50
    assert seen == {(), (BASE,), (BASE, LAYER)}


@pytest.mark.parametrize('begun', [False, True])
def test_removal_killed_at_every_step_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """By the next prune or pull; `begun`: of an image not yet visible."""
    seen = set()
    for at in range(100):
        store = Store(str(tmp_path / f'{at}'))
        store.prepare()
        put(store, BASE, BASE_BYTES)
        put_staged(store, LAYER, LAYER_BYTES, BASE)
        inventory = Inventory(store.root)
        if begun:
            # As a commit leaves it that was killed before the rename.
            with monkeypatch.context() as patch:
                patch.setattr(os, 'rename', fail_with(errno.EIO))
                with pytest.raises(errors.StoreError):
                    store.commit(LAYER, base=BASE, metadata=METADATA)
        else:
            store.commit(LAYER, base=BASE, metadata=METADATA)
        with monkeypatch.context() as patch:
            switch = KillSwitch(patch, at)
            try:
                (inventory.remove_unfinished if begun else inventory.remove)(
                    LAYER)
            except Killed:
                pass
        seen.add(bool(store.find(LAYER)))
        Store(store.root).clear()
        if store.find(LAYER):
            assert LAYER in check_visible(store)
        elif not begun or store.partial(LAYER) is None:
            left = tree(store)
            assert not [name for name in left if LAYER in name], left
        assert BASE in check_visible(store)
        if not switch.dead:
            break
    assert not switch.dead and at > 8
    assert seen == ({False} if begun else {True, False})


def test_state_that_an_error_after_the_rename_leaves_is_cleared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_staged(store, BASE, BASE_BYTES)
    fsync = os.fsync

    def fail_at_root(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), os.stat(store.root)):
            raise OSError(errno.EIO, 'Input/output error')
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', fail_at_root)
        with pytest.raises(errors.StoreError):
            store.commit(BASE, base=None, metadata=METADATA)
    assert check_visible(store) == [BASE]
    store.clear()
    assert os.listdir(f'{store.root}/.layered/partial') == []
    assert check_visible(store) == [BASE]


def test_clearing_leaves_what_is_begun(store: Store) -> None:
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(b'some')
        stage.checkpoint(4, 4, None)
        # Locked, and without a state for a moment.
        os.unlink(f'{store.root}/.layered/partial/{BASE}.json')
        store.clear()
        stage.checkpoint(4, 4, None)
    store.clear()
    found = store.partial(BASE)
    assert found is not None and found.fetched == 4
    Store(f'{store.root}/missing').clear()


@pytest.mark.parametrize('visible', [False, True])
def test_clearing_leaves_what_was_begun_since_it_has_looked(
    visible: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has had the lock meanwhile, and even finished it."""
    Path(store.root, '.layered/partial', BASE).write_bytes(b'left')
    acquire = ImageLock.acquire

    def come_second(lock: ImageLock, timeout: Optional[float] = None) -> None:
        monkeypatch.setattr(ImageLock, 'acquire', acquire)
        put_staged(store, BASE, BASE_BYTES)
        if visible:
            store.commit(BASE, base=None, metadata=METADATA)
        acquire(lock, timeout)

    monkeypatch.setattr(ImageLock, 'acquire', come_second)
    store.clear()
    if not visible:
        store.commit(BASE, base=None, metadata=METADATA)
    assert check_visible(store) == [BASE]


def test_header_torn_by_a_kill_is_written_again(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    put_staged(store, LAYER, LAYER_BYTES, BASE)
    staged = f'{store.root}/.layered/partial/{LAYER}'
    with open(staged, 'r+b') as stream:
        stream.write(b'torn' * 20)
    store.commit(LAYER, base=BASE, metadata=METADATA)
    head = Path(store.path(LAYER)).read_bytes()[:CLUSTER]
    assert qcow2.parse_header(head).backing_file == f'./{BASE}'
    assert b''.join(store.read_published(LAYER)) == LAYER_BYTES


def test_all_is_on_the_disk_before_the_name_shows_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, BASE, BASE_BYTES)
    put_staged(store, LAYER, LAYER_BYTES, BASE)
    calls: List[str] = []
    rename = os.rename

    def note_fsync(fd: int) -> None:
        calls.append(os.path.basename(os.readlink(f'/proc/self/fd/{fd}')))

    def note_rename(old: str, new: str, **directories: int) -> None:
        calls.append('shown')
        rename(old, new, **directories)

    monkeypatch.setattr(os, 'fsync', note_fsync)
    monkeypatch.setattr(os, 'rename', note_rename)
    store.commit(LAYER, base=BASE, metadata=METADATA)
    shown = calls.index('shown')
    temporary = [name for name in calls[:shown] if name.endswith('.tmp')]
    assert len(temporary) == 3  # metadata, hash, record
    assert {*calls[:shown]} - {*temporary} == {'images', LAYER}
    assert calls[shown + 1:] == ['store']


def test_sweep_drops_what_another_one_completed(store: Store) -> None:
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(b'some')
        stage.checkpoint(4, 4, None)
    Path(store.path(BASE)).write_bytes(b'raw, from a plain Lago')
    store.prepare()
    assert os.listdir(f'{store.root}/.layered/partial') == []


def test_sweep_drops_the_state_of_a_copy_that_is_in_its_place(
    store: Store,
) -> None:
    with Replacing(store.root, {}).stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.write(b'some')
        stage.checkpoint(4, 4, None)
    # A repair that was killed here has the state still before it.
    os.rename(
        f'{store.root}/.layered/partial/{BASE}+repair', store.path(BASE)
    )
    store.prepare()
    assert os.listdir(f'{store.root}/.layered/partial') == []


# Images of a plain Lago.

def test_raw_image_of_a_plain_lago(store: Store) -> None:
    Path(store.path(BASE)).write_bytes(b'x' * 5000)
    Path(store.path(BASE) + '.hash').write_text('a' * 40)
    stored = store.find(BASE)
    assert stored is not None
    assert (stored.format, stored.virtual_size) == ('raw', 5000)
    assert stored.digests == (model.Digest('sha1', 'a' * 40),)


@pytest.mark.parametrize('text', [
    '', 'no digest', 'a' * 39, 'é' * 40, '<html>404</html>',
])
def test_garbage_in_a_hash_is_ignored(store: Store, text: str) -> None:
    Path(store.path(BASE)).write_bytes(b'x')
    Path(store.path(BASE) + '.hash').write_text(text)
    stored = store.find(BASE)
    assert stored is not None and stored.digests == ()


def test_empty_image_is_raw(store: Store) -> None:
    Path(store.path(BASE)).touch()
    stored = store.find(BASE)
    assert stored is not None
    assert (stored.format, stored.virtual_size) == ('raw', 0)


def test_layer_without_record(store: Store) -> None:
    image = make_qcow2(f'./{BASE}', 'raw')
    Path(store.path(LAYER)).write_bytes(image)
    stored = store.find(LAYER)
    assert stored is not None
    assert (stored.format, stored.backing) == ('qcow2', BASE)
    assert stored.virtual_size == 2**20


@pytest.mark.parametrize('image', [
    make_qcow2('/etc/passwd', 'raw'),
    make_qcow2('../repo:base:v1', 'raw'),
    make_qcow2('nbd:host:10809', 'raw'),
    make_qcow2('repo:base:v1', 'raw'),
    make_qcow2('json:{"driver":"raw"}', 'raw'),
    make_qcow2('./repo:base:v1'),
    make_qcow2('./repo:base:v1', 'vmdk'),
    make_qcow2('./repo:base:v1.lock', 'raw'),
    make_qcow2()[:1000],
    make_qcow2()[:CLUSTER],
    b'QFI\xfb',
])
def test_header_that_leads_elsewhere_is_refused(
    store: Store, image: bytes
) -> None:
    Path(store.path(LAYER)).write_bytes(image)
    with pytest.raises(errors.UnsafeImage):
        store.find(LAYER)


def test_image_that_a_plain_lago_converts_is_not_there_yet(
    store: Store
) -> None:
    with open(store.path(BASE) + '.lock', 'w+') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(store.path(BASE)).write_bytes(b'half')
        assert store.find(BASE) is None
    assert store.find(BASE) is not None


def test_record_of_a_removed_image_is_not_believed(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    os.unlink(store.path(BASE))
    Path(store.path(BASE)).write_bytes(b'raw, from a plain Lago')
    Path(store.path(BASE) + '.hash').write_text('b' * 40)
    stored = store.find(BASE)
    assert stored is not None
    assert stored.format == 'raw'
    assert stored.digests == (model.Digest('sha1', 'b' * 40),)


def test_image_removed_by_hand_can_be_put_again(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    os.unlink(store.path(BASE))
    assert store.find(BASE) is None
    other = make_qcow2(body=b'other')
    assert put(store, BASE, other).size == len(other)


@pytest.mark.parametrize('garbage', ['', '{', '[]', '{"size": true}', 'null'])
def test_damaged_record_is_as_good_as_none(
    store: Store, garbage: str
) -> None:
    put(store, BASE, BASE_BYTES)
    Path(f'{store.root}/.layered/images/{BASE}.json').write_text(garbage)
    stored = store.find(BASE)
    assert stored is not None and stored.format == 'qcow2'
    assert [digest.algorithm for digest in stored.digests] == ['sha1']


def test_directory_in_place_of_an_image(store: Store) -> None:
    os.mkdir(store.path(BASE))
    with pytest.raises(errors.StoreError, match='not a file'):
        store.find(BASE)


@pytest.mark.parametrize('text', [None, '', '[1]', '{"a":', '\xff'])
def test_metadata_missing_or_damaged(
    store: Store, text: Optional[str]
) -> None:
    if text is not None:
        Path(store.path(BASE) + '.metadata').write_text(text)
    with pytest.raises(errors.StoreError) as caught:
        store.read_metadata(BASE)
    assert ('missing' if text is None else 'damaged') in str(caught.value)


def test_finding_reads_no_image(store: Store) -> None:
    names = [f'repo:image{number}:v1' for number in range(30)]
    for name in names:
        put(store, name, BASE_BYTES)
    before = bytes_read()
    for name in names:
        assert store.find(name)
    assert bytes_read() - before < len(names) * 4096 < len(BASE_BYTES)


def bytes_read() -> int:
    """Return what this process has read from files, as Linux counts it."""
    return int(re.findall(
        r'rchar: (\d+)', Path('/proc/self/io').read_text()
    )[0])


# Names.

@pytest.mark.parametrize('name', [
    '', 'name', 'repo:template', 'a:b:c:d', 'repo:template:', ':template:v',
    '../repo:template:v', 'repo:../../x:v1', 'repo:a/b:v1', 'repo:t:v1\n',
    '.layered:a:b', '-r:a:b', 'repo:t:v1.lock', 'repo:t:v1.metadata',
    'repo:t:v1.json', 'repo:t:v1.7.spool', 'repo:t:' + 'v' * 200, 'r:t:v\0',
])
def test_names_that_cannot_be_file_names(store: Store, name: str) -> None:
    actions: List[Callable[[], Any]] = [
        lambda: store.find(name),
        lambda: store.path(name),
        lambda: store.partial(name),
        lambda: store.read_metadata(name),
        lambda: store.stage(name, identity='it').__enter__(),
        lambda: store.commit(name, base=None, metadata={}),
        lambda: store.reserve({name: 1}).__enter__(),
    ]
    for action in actions:
        with pytest.raises(errors.StoreError, match='cannot be kept'):
            action()


def test_constructor_touches_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / 'a' / 'b'))
    assert store.find(BASE) is None
    assert store.partial(BASE) is None
    assert store.kept_index('http://server/repo.metadata') is None
    assert os.listdir(tmp_path) == []


# Disks that fail.

def test_full_disk_keeps_what_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, BASE, BASE_BYTES)
    with store.stage(LAYER, identity='it') as stage:
        assert stage is not None
        stage.write(b'first')
        stage.checkpoint(5, 5, 'etag')
        with monkeypatch.context() as patch:
            patch.setattr(os, 'pwrite', fail_with(errno.ENOSPC))
            with pytest.raises(errors.StoreError) as caught:
                stage.write(b'more')
    assert store.root in str(caught.value)
    assert 'bytes free' in str(caught.value)
    assert 'is kept' in caught.value.hint
    assert store.find(BASE)
    with store.stage(LAYER, identity='it') as stage:
        assert stage is not None
        assert stage.resume().produced == 5
        assert b''.join(stage.replay()) == b'first'


@pytest.mark.parametrize('number', [errno.EROFS, errno.EACCES])
def test_store_that_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, 'mkdir', fail_with(number))
        patch.setattr(os, 'pwrite', fail_with(number))
        with pytest.raises(errors.StoreNotWritable) as caught:
            store.prepare()
        assert store.root in caught.value.message
        assert os.strerror(number) in caught.value.message
        assert caught.value.hint
        store.keep_index('http://server/', b'body', None)
    assert store.kept_index('http://server/') is None


def test_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(errors.StoreError):
        Store(str(tmp_path / 'file')).prepare()
    with pytest.raises(errors.StoreError):
        Store(str(tmp_path / 'file' / 'deep')).prepare()


def test_stage_without_prepared_store(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError):
        with Store(str(tmp_path / 'no')).stage(BASE, identity='it'):
            pass


def test_error_of_the_caller_passes_unchanged(store: Store) -> None:
    with pytest.raises(ConnectionResetError):
        with store.stage(BASE, identity='it'):
            raise ConnectionResetError('the server')


def fail_with(number: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))
    return fail


def test_full_disk_keeps_nobody_from_using_what_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a plain Lago, without a directory of ours."""
    Path(store.path(BASE)).write_bytes(b'raw')
    shutil.rmtree(f'{store.root}/.layered')
    monkeypatch.setattr(os, 'mkdir', fail_with(errno.ENOSPC))
    with Usage(store.root).using(0, lambda holder: None):
        store.clear()
        assert store.find(BASE)
        with pytest.raises(errors.StoreFull, match='no room left'):
            store.prepare()


# Links, FIFOs, other file systems.

def small_files(store: Store) -> Dict[str, Callable[[], Any]]:
    """Return the files of a store, and what reads each of them."""
    state, usage = f'{store.root}/.layered', Usage(store.root)
    inventory = Inventory(store.root)
    return {
        f'{state}/images/{BASE}.json': lambda: store.find(BASE),
        f'{state}/partial/{LAYER}.json': lambda: inventory.unfinished(),
        f'{state}/partial/{LAYER}': lambda: put_staged(store, LAYER, b'x'),
        f'{state}/holds/{BASE}.json': usage.holds,
        f'{state}/usage/abc.json': usage.notes,
        f'{state}/use.lock': lambda: usage.using(0, print).__enter__(),
        f'{store.path(BASE)}.metadata': lambda: store.read_metadata(BASE),
        f'{store.path(LAYER)}.lock': lambda: put_staged(store, LAYER, b'x'),
        f'{store.path(LAYER)}.hash': lambda: store.find(LAYER),
        store.path(LAYER): lambda: store.find(LAYER),
        f'{state}/images/{CHILD}.head':
            lambda: list(store.read_published(CHILD)),
    }


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
@pytest.mark.parametrize('number', range(11))
def test_only_regular_files_are_read(
    store: Store, make: Callable[[str], None], number: int
) -> None:
    put(store, BASE, BASE_BYTES)
    put(store, CHILD, LAYER_BYTES, BASE)
    path, read = [*small_files(store).items()][number]
    if path.endswith('.hash'):
        Path(store.path(LAYER)).write_bytes(b'raw')
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    make(path)
    with pytest.raises(errors.StoreError) as caught:
        read()
    assert path in caught.value.message
    assert re.search('is a (FIFO|directory)|not a file', str(caught.value))
    # What needs none of it goes on.
    images, faults = Inventory(store.root).images()
    assert len(images) + len(faults) >= 2
    auditor = Auditor(store.root)
    for name in auditor.names():
        auditor.base(name)
        for look in (
            lambda name: auditor.examine(name, lambda count: None),
            auditor.describe,
        ):
            with contextlib.suppress(errors.StoreError):
                look(name)
    store.clear()


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_kept_index_that_is_no_file_is_absent(
    store: Store, make: Callable[[str], None]
) -> None:
    store.keep_index('http://server/', b'body', None)
    kept = store.kept_index('http://server/')
    assert kept is not None
    os.unlink(kept.path)
    make(kept.path)
    assert store.kept_index('http://server/') is None
    make(f'{store.root}/.layered/reservations/x.json')
    assert store.room({BASE: 1}).reserved == 0


def test_an_image_may_be_a_link(store: Store, tmp_path: Path) -> None:
    """To a disk with more room, say; it is only read."""
    (tmp_path / 'large').write_bytes(b'raw, from a plain Lago')
    Path(store.path(BASE)).symlink_to(tmp_path / 'large')
    stored = store.find(BASE)
    assert stored is not None and stored.size == 22
    assert b''.join(store.read_published(BASE)) == b'raw, from a plain Lago'
    Inventory(store.root).remove(BASE)
    assert os.listdir(tmp_path) != []
    assert (tmp_path / 'large').read_bytes() == b'raw, from a plain Lago'
    assert not os.path.lexists(store.path(BASE))


@pytest.mark.parametrize('planted', [
    f'{BASE}.lock', f'{LAYER}.lock', '.layered/use.lock',
    f'.layered/partial/{LAYER}', f'.layered/partial/{LAYER}.json',
    f'.layered/partial/{LAYER}.0.spool',
    f'{BASE}.metadata', f'{BASE}.hash', f'.layered/images/{BASE}.json',
    f'.layered/holds/{BASE}.json',
    '.layered', '.layered/partial', '.layered/images', '.layered/usage',
    '.layered/holds', '.layered/reservations', '.layered/indexes',
])
def test_links_in_a_store_change_nothing_elsewhere(
    store: Store, tmp_path: Path, planted: str
) -> None:
    victim = tmp_path / 'victim'
    path = Path(store.root, planted)
    if path.is_dir():
        shutil.rmtree(path)
        victim.mkdir()
        for name in ('a.tmp', '.0123456789abcdef.tmp', f'{BASE}.json',
                     'partial', BASE):
            (victim / name).write_bytes(b'precious')
    else:
        path.unlink(missing_ok=True)
        victim.write_bytes(b'precious')
    before = snapshot(victim)
    path.symlink_to(victim)
    usage, inventory = Usage(store.root), Inventory(store.root)
    actions: List[Callable[[], Any]] = [
        store.prepare, store.clear,
        lambda: put(store, BASE, BASE_BYTES),
        lambda: put(store, LAYER, LAYER_BYTES, BASE),
        lambda: spool(store), lambda: usage.hold(BASE, 'why'),
        lambda: usage.note(UsageNote('/prefix', 'abc', (), '/', 0.0)),
        lambda: store.keep_index('http://server/', b'body', None),
        lambda: store.reserve({BASE: 1}).__enter__(),
        lambda: usage.using(0, print).__enter__(),
        lambda: inventory.remove_unfinished(LAYER),
        lambda: inventory.remove(LAYER), lambda: inventory.remove(BASE),
        lambda: usage.release(BASE),
    ]
    for action in actions:
        with contextlib.suppress(errors.StoreError):
            action()
        assert snapshot(victim) == before


def spool(store: Store) -> None:
    with store.stage(LAYER, identity='other') as stage:
        if stage is not None:
            stage.spool(b'data')


def snapshot(path: Path) -> Any:
    found = path.stat()
    return found.st_mode, found.st_ino, (
        {one.name: snapshot(one) for one in path.iterdir()}
        if path.is_dir() else path.read_bytes()
    )


@pytest.fixture
def elsewhere(store: Store, tmp_path: Path) -> Iterator[Path]:
    """The directory for what is fetched, bound to another place."""
    partial, other = Path(store.root, '.layered/partial'), tmp_path / 'other'
    other.mkdir()
    if subprocess.run(
        ['mount', '--bind', other, partial], stderr=subprocess.DEVNULL
    ).returncode:
        assert os.environ.get('CI') != 'true'
        pytest.skip('no right to mount')
    yield partial
    subprocess.run(['umount', partial], check=True)


def test_a_part_on_another_mount_is_refused_before_the_first_byte(
    store: Store, elsewhere: Path
) -> None:
    """Of the same file system, so that only a rename would tell."""
    for action in (store.prepare, lambda: store.room({BASE: 1})):
        with pytest.raises(errors.StoreError) as caught:
            action()
        assert f'on another file system than {store.root}' in str(
            caught.value)
        assert str(elsewhere) in caught.value.message
        assert 'mount or link the whole store' in caught.value.hint


def test_a_part_on_another_file_system_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As subvolumes are, where the file must be there to be told."""
    stat, device = os.stat, os.stat(store.root).st_dev

    def foreign(path: Any, **kwargs: Any) -> Any:
        found = stat(path, **kwargs)
        if path != 'partial':
            return found
        return os.stat_result([*found[:2], device + 1, *found[3:]])

    monkeypatch.setattr(os, 'stat', foreign)
    with pytest.raises(errors.StoreError, match='another file system'):
        store.room({BASE: 1})


def test_store_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    store = Store(str(tmp_path / 'link'))
    store.prepare()
    put(store, BASE, BASE_BYTES)
    assert check_visible(store) == [BASE]
    assert (tmp_path / 'real' / BASE).is_file()


def test_store_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to('/nowhere/store')
    with pytest.raises(errors.StoreError) as caught:
        Store(str(tmp_path / 'link')).prepare()
    assert 'it is a link to /nowhere/store, where nothing is' in str(
        caught.value)


# Several at once.

def test_forty_threads_fetch_an_image_once(store: Store) -> None:
    fetched: List[int] = []
    found: List[model.Stored] = []
    start = threading.Barrier(40)

    def run(number: int) -> None:
        own = Store(store.root)
        start.wait()
        with own.stage(BASE, identity='it') as stage:
            if stage is not None and stage.verified is None:
                fetched.append(number)
                assert stage.size == 0
                stage.write(BASE_BYTES)
                stage.mark_verified(make_record(BASE_BYTES))
        found.append(own.commit(BASE, base=None, metadata=METADATA))

    threads = [
        threading.Thread(target=run, args=(number,)) for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert len(found) == 40 and len(set(found)) == 1


def test_who_waited_gets_none_once_it_is_visible(store: Store) -> None:
    held, waits = threading.Event(), threading.Event()
    results: List[object] = []

    def wait() -> None:
        held.wait()
        with store.stage(
            BASE, identity='it', waiting=lambda holder: waits.set()
        ) as stage:
            results.append(stage)

    thread = threading.Thread(target=wait)
    thread.start()
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        held.set()
        assert waits.wait(10)
        # As a plain Lago does it, under the lock.
        Path(store.path(BASE)).write_bytes(b'image')
    thread.join()
    assert results == [None]


def test_lock_timeout_says_who(store: Store) -> None:
    told: List[str] = []
    with store.stage(BASE, identity='it', what='fetching http://server/a'):
        with pytest.raises(errors.LockTimeout) as caught:
            with store.stage(
                BASE, identity='it', timeout=0.05, waiting=told.append
            ):
                pass
    assert f'process {os.getpid()} on ' in caught.value.message
    assert 'fetching http://server/a, since ' in caught.value.message
    assert BASE in caught.value.message and '0.05 seconds' in str(
        caught.value
    )
    assert len(told) == 1


def test_waiting_can_be_cancelled(store: Store) -> None:
    cancelled = threading.Event()
    with store.stage(BASE, identity='it'):
        with pytest.raises(errors.Cancelled):
            with store.stage(
                BASE, identity='it', cancelled=cancelled,
                waiting=lambda holder: cancelled.set(),
            ):
                pass


def test_other_images_are_not_locked(store: Store) -> None:
    with store.stage(BASE, identity='it'):
        with store.stage(LAYER, identity='it', timeout=0) as stage:
            assert stage is not None


def test_record_is_json_for_people(store: Store) -> None:
    put(store, BASE, BASE_BYTES)
    path = Path(f'{store.root}/.layered/images/{BASE}.json')
    record = json.loads(path.read_text())
    assert record['url'] == 'http://server/image.xz'
    assert set(record['digests']) == {'sha1', 'sha256'}
