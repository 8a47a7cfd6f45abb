"""The one place that opens files: no links, nothing that hangs, rights."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.publishing.layout import Place
from lago_layered_provider.publishing.scratch import disk_errors
from lago_layered_provider.tools import files, locks
from lago_layered_provider.tools.tree import Tree, open_output, write_file

PRECIOUS = b'precious'


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / 'root' / 'deep').mkdir(parents=True)
    return Tree(str(tmp_path / 'root'))


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file and a directory of somebody; both are as before at the end."""
    own = tmp_path / 'own'
    own.mkdir()
    (own / 'file').write_bytes(PRECIOUS)
    (own / 'file').chmod(0o600)
    yield own
    assert [path.name for path in own.iterdir()] == ['file']
    assert (own / 'file').read_bytes() == PRECIOUS
    assert stat.S_IMODE((own / 'file').stat().st_mode) == 0o600


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # a long path is none for a socket
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


KINDS: Dict[str, Callable[[Path], Any]] = {
    'a link': lambda path: path.symlink_to('nothing'),
    'a FIFO': lambda path: os.mkfifo(path),
    'a directory': lambda path: path.mkdir(),
    'a socket': make_socket,
}

#: What is done with a file below a tree.
OPENED: Dict[str, Callable[[Tree, str], Any]] = {
    'read': Tree.read,
    'read_object': Tree.read_object,
    'open_binary': Tree.open_binary,
    'open to write': lambda tree, path: tree.open(path, os.O_RDWR),
    'open or create': lambda tree, path: tree.open(
        path, os.O_RDWR | os.O_CREAT),
    'lock': lambda tree, path: locks.ImageLock(path, tree=tree).acquire(0),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('action', OPENED)
def test_only_regular_files_are_opened(
    tree: Tree, kind: str, action: str
) -> None:
    path = Path(tree.root, 'file')
    KINDS[kind](path)
    with pytest.raises(OSError) as caught:
        OPENED[action](tree, str(path))
    assert f'it is {kind}, expected a regular file' in str(caught.value)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize('kind', [*KINDS][1:])
@pytest.mark.parametrize('read', [
    files.open_binary, files.open_text, files.read_binary,
])
def test_what_a_user_names_is_a_regular_file(
    tmp_path: Path, kind: str, read: Callable[[str], Any]
) -> None:
    KINDS[kind](tmp_path / 'it')
    (tmp_path / 'link').symlink_to('it')
    for name in 'it', 'link':
        with pytest.raises(OSError, match=f'it is {kind}, expected'):
            read(str(tmp_path / name))
    (tmp_path / 'file').write_bytes(PRECIOUS)
    (tmp_path / 'good').symlink_to('file')
    assert read(str(tmp_path / 'good'))


#: What changes something below a tree.
CHANGES: Dict[str, Callable[[Tree, str], Any]] = {
    'write': lambda tree, path: tree.write(path, b'new'),
    'create': Tree.create,
    'open': lambda tree, path: tree.open(path, os.O_RDWR | os.O_CREAT),
    'remove': Tree.remove,
    'rename': lambda tree, path: tree.rename(f'{tree.root}/other', path),
    'lock': lambda tree, path: locks.ImageLock(path, tree=tree).acquire(0),
    'sweep': lambda tree, path: tree.sweep(os.path.dirname(path)),
    'make_directory': lambda tree, path: tree.make_directory(f'{path}.d'),
}


@pytest.mark.parametrize('action', CHANGES)
@pytest.mark.parametrize('below', ['', '/deeper'])
def test_no_link_is_followed_on_the_way(
    tree: Tree, victim: Path, action: str, below: str
) -> None:
    Path(tree.root, 'other').write_bytes(b'other')
    (Path(tree.root, 'deep')).rmdir()
    Path(tree.root, 'deep').symlink_to(
        victim.parent if below else victim
    )
    way = f'{tree.root}/deep' + ('/own' if below else '')
    with pytest.raises(OSError, match='it is a link, expected a directory'):
        CHANGES[action](tree, f'{way}/file')


@pytest.mark.parametrize('action', ['write', 'remove', 'rename'])
def test_a_link_itself_is_replaced(
    tree: Tree, victim: Path, action: str
) -> None:
    Path(tree.root, 'other').write_bytes(b'new')
    path = Path(tree.root, 'deep', 'file')
    path.symlink_to(victim / 'file')
    CHANGES[action](tree, str(path))
    assert not path.is_symlink()


@pytest.mark.parametrize('target', ['file', 'missing'])
def test_output_never_goes_where_a_link_leads(
    tmp_path: Path, victim: Path, target: str
) -> None:
    path = tmp_path / 'part'
    path.symlink_to(victim / target)
    with pytest.raises(OSError, match='it is a link'):
        open_output(str(path), keep=True)
    with open_output(str(path)) as stream:
        stream.write(b'new')
    assert path.read_bytes() == b'new' and not path.is_symlink()
    with open_output(str(path), keep=True) as stream:
        stream.write(b', more')
    assert path.read_bytes() == b'new, more'


def test_published_files_never_go_where_a_link_leads(
    tmp_path: Path, victim: Path
) -> None:
    """`published` itself may be one, no directory below it."""
    (tmp_path / 'large').mkdir()
    (tmp_path / 'published').symlink_to('large')
    place = Place(str(tmp_path))
    with place.alone(0, print):
        part = place.part('published/good/v1.qcow2')
        with open_output(part) as stream:
            stream.write(b'new')
        place.finish('published/good/v1.qcow2')
        (tmp_path / 'large' / 'bad').symlink_to(victim)
        with pytest.raises(errors.PublishError, match='it is a link'):
            with disk_errors(place.root):
                place.part('published/bad/file')
    assert (tmp_path / 'large/good/v1.qcow2').read_bytes() == b'new'


def test_the_root_may_be_a_link(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to(tree.root)
    linked = Tree(str(tmp_path / 'link'))
    linked.write(f'{linked.root}/deep/file', b'new')
    assert linked.list(f'{linked.root}/deep') == ['file']
    assert tree.read(f'{tree.root}/deep/file') == b'new'


@pytest.mark.parametrize('path', [
    '/etc/passwd', '{root}/../own/file', '{root}x/file', '{root}//x/y',
])
def test_paths_outside_are_refused(tree: Tree, path: str) -> None:
    with pytest.raises(ValueError, match='not below'):
        tree.read(path.format(root=tree.root))


def test_relative_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file('here', b'new')
    with locks.ImageLock('lock'):
        assert locks.is_held('lock')
    assert (tmp_path / 'here').read_bytes() == b'new'


# Temporary files.

def test_temporary_names_cannot_be_foreseen(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: List[str] = []
    replace = os.replace

    def note(old: str, new: str, **directories: int) -> None:
        names.append(old)
        replace(old, new, **directories)

    monkeypatch.setattr(os, 'replace', note)
    for _ in range(2):
        tree.write(f'{tree.root}/file', b'new')
    assert all(re.fullmatch(r'\.[0-9a-f]{16}\.tmp', name) for name in names)
    assert len(set(names)) == 2
    assert sorted(os.listdir(tree.root)) == ['deep', 'file']


def test_temporary_file_of_a_kill_is_swept_and_a_used_one_stays(
    tree: Tree
) -> None:
    dead, fd = tree.create_claimed(tree.root, '.tmp')
    os.close(fd)
    used, fd = tree.create_claimed(tree.root, '.tmp')
    Path(tree.root, 'repo:a:v1.tmp').touch()  # Lago's
    tree.sweep(tree.root)
    assert not os.path.exists(dead)
    assert sorted(os.listdir(tree.root)) == sorted(
        [os.path.basename(used), 'deep', 'repo:a:v1.tmp'])
    os.close(fd)


def test_full_disk_leaves_the_old_file_and_no_other(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f'{tree.root}/file'
    tree.write(path, b'old')
    with monkeypatch.context() as patch:
        patch.setattr(os, 'pwrite', fail_with(errno.ENOSPC))
        with pytest.raises(OSError):
            tree.write(path, b'new')
    assert tree.read(path) == b'old'
    assert sorted(os.listdir(tree.root)) == ['deep', 'file']


def test_forty_threads_that_write_and_sweep(tree: Tree) -> None:
    path = f'{tree.root}/file'
    failures: List[BaseException] = []

    def run(number: int) -> None:
        try:
            for _ in range(5):
                tree.write(path, b'%d' % number * 100)
                tree.sweep(tree.root)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(number,)) for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(os.listdir(tree.root)) == ['deep', 'file']


# What is wrong, in words.

def fail_with(number: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))
    return fail


@pytest.mark.parametrize('number', [
    errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS,
])
def test_file_system_without_locks(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = f'{tree.root}/lock'
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, 'flock', fail_with(number))
        with pytest.raises(errors.StoreError) as caught:
            with files.disk_errors(tree.root):
                locks.ImageLock(path, tree=tree).acquire(0)
        # A small file needs no lock: only a sweep looks at it.
        tree.write(f'{tree.root}/file', b'new')
        tree.sweep(tree.root)
    assert 'its file system has no locks' in caught.value.message
    assert path in caught.value.message
    assert 'store on a local disk' in caught.value.hint


def test_file_system_without_colons() -> None:
    """As vfat answers when an image is created."""
    with pytest.raises(errors.StoreError) as caught:
        with files.disk_errors('/store'):
            raise OSError(
                errno.EINVAL, 'Invalid argument', '/store/repo:a:v1.lock'
            )
    assert 'may not allow colons in names' in caught.value.message
    assert 'another store' in caught.value.hint


def test_root_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to('/nowhere/store')
    for name in 'link', 'link/deeper':
        tree = Tree(str(tmp_path / name))
        with pytest.raises(OSError) as caught:
            tree.make_directory(tree.root)
        assert 'it is a link to /nowhere/store, where nothing is' in str(
            caught.value)
        assert caught.value.filename == str(tmp_path / 'link')


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    tree = Tree(str(tmp_path / 'file'))
    with pytest.raises(OSError, match='it is a file, expected a directory'):
        tree.make_directory(tree.root)


FULL = [
    OSError(errno.ENOSPC, 'No space left on device'),
    OSError(errno.EDQUOT, 'Disk quota exceeded'),
]


@pytest.mark.parametrize('error', FULL)
def test_full_disk_is_an_error_of_its_own(error: OSError) -> None:
    with pytest.raises(errors.StoreFull, match='no room left'):
        with files.disk_errors('/'):
            raise error


@pytest.mark.parametrize('number', [errno.EACCES, errno.EPERM, errno.EROFS])
def test_who_only_reads_does_not_hear_of_writing(number: int) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(errors.StoreNotWritable):
        with files.disk_errors('/'):
            raise error
    with pytest.raises(errors.StoreError) as caught:
        with files.disk_errors('/', reading=True):
            raise error
    assert type(caught.value) is errors.StoreError


@pytest.mark.parametrize('error', [*FULL, *(
    errors.ToolError(['qemu-img'], status=1, stderr=f'a: {error.strerror}\n')
    for error in FULL
)])
def test_a_full_disk_while_publishing(error: Exception) -> None:
    with pytest.raises(errors.PublishError, match='no room left.*bytes free'):
        with disk_errors('/'):
            raise error


def test_other_errors_of_a_tool_are_not_of_the_disk() -> None:
    error = errors.ToolError(['qemu-img'], status=1, stderr='no space')
    with pytest.raises(errors.ToolError):
        with disk_errors('/'):
            raise error


# Rights of a group.

@pytest.mark.parametrize('umask', [0o022, 0o077, 0o002])
def test_new_files_have_the_rights_of_the_roots_group(
    tree: Tree, umask: int
) -> None:
    os.chmod(tree.root, 0o2775)
    before = os.umask(umask)
    try:
        tree.make_directory(f'{tree.root}/made')
        tree.write(f'{tree.root}/made/file', b'')
        os.close(tree.create(f'{tree.root}/private', mode=0o600))
    finally:
        os.umask(before)
    made, file, private = (
        os.stat(os.path.join(tree.root, name)).st_mode
        for name in ('made', 'made/file', 'private')
    )
    assert made & 0o2770 == 0o2770
    assert file & 0o670 == 0o660
    assert private & 0o777 == 0o600


def test_a_root_without_rights_for_its_group_gives_none(tree: Tree) -> None:
    os.chmod(tree.root, 0o755)
    before = os.umask(0o022)
    try:
        tree.write(f'{tree.root}/file', b'')
    finally:
        os.umask(before)
    assert os.stat(f'{tree.root}/file').st_mode & 0o777 == 0o644
