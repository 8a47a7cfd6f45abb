"""``lago template-repo`` store, why, hold, release and prune."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

import pytest

from lago_layered_provider.commands import Context, pruning
from lago_layered_provider.core.model import Digest
from lago_layered_provider.environments import survey
from lago_layered_provider.repositories.template_repository import (
    TemplateRepository,
)
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Store, Usage
from lago_layered_provider.store.record import Record
from tests.lab import (
    DiskImage, Finished, LagoSandbox, Publisher, check_disks, guest_digest,
    init_well, run,
)
from tests.lab.running import until
from tests.lab.stores import leftovers

Forest = Dict[str, DiskImage]


def verb(box: LagoSandbox, *arguments: str) -> Finished:
    """Run ``lago template-repo`` and insist on success."""
    done = box.run('template-repo', *arguments)
    assert done.code == 0, done.output
    assert 'Traceback' not in done.output
    return done


def data(box: LagoSandbox, *arguments: str) -> Any:
    done = box.run('--out-format', 'json', 'template-repo', *arguments)
    assert done.code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope='module')
def repo(
    forest: Forest, tmp_path_factory: pytest.TempPathFactory
) -> Publisher:
    repo = Publisher(
        tmp_path_factory.mktemp('prune') / 'www', source='file',
        compression='gz',
    )
    repo.add_forest(forest)
    repo.write()
    return repo


@pytest.fixture
def box(repo: Publisher, tmp_path: Path) -> LagoSandbox:
    """Return an environment of two VMs; a third image is unused."""
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs', 'vm1': 'other'},
        repo=repo.index_path,
    )
    init_well(box)
    verb(box, 'pull', 'iscsi')
    return box


def test_store_says_who_needs_what(box: LagoSandbox) -> None:
    shown = verb(box, 'store').stdout
    rows = {line.split()[0]: line for line in shown.splitlines() if line}
    assert '2 images' in rows['lab:base:v1']
    assert 'unused' in rows['lab:iscsi:v1']
    assert '1 disk, 1 image' in rows['lab:nfs:v1']
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines()[:-1])
    assert '1 environment' in shown
    tree = verb(box, 'store', '--tree').stdout
    assert '└── lab:iscsi:v1' in tree
    found = data(box, 'store')
    by_name = {one['name']: one for one in found['images']}
    base = by_name['lab:base:v1']
    assert by_name['lab:nfs:v1']['chain_on_disk'] == (
        by_name['lab:nfs:v1']['on_disk'] + base['on_disk']
    )
    use, = by_name['lab:nfs:v1']['environments']
    assert use == {
        'prefix': str(box.workdir / 'default'), 'vm': 'vm0', 'disk': 'root',
    }


def test_why(box: LagoSandbox) -> None:
    shown = ' '.join(verb(box, 'why', 'base').stdout.split())
    prefix = box.workdir / 'default'
    assert (
        f'lab:base:v1 <- lab:nfs:v1: VM vm0, disk root, of {prefix}' in shown
    )
    assert 'lab:iscsi:v1: an image that nobody uses' in shown
    assert 'Nobody needs lab:iscsi:v1' in verb(box, 'why', 'iscsi').stdout
    assert 'Nobody' in verb(box, 'why', 'lab/iscsi:v1').stdout
    verb(box, 'hold', 'iscsi')
    needed = data(box, 'why', 'lab:iscsi:v1')['needed_by']
    assert len(needed) == 1 and needed[0]['held'].startswith('by ')
    done = box.run('template-repo', 'why', 'isci')
    assert done.code == 2
    assert 'Nearest: lab:iscsi:v1' in done.stderr


@pytest.mark.quick
def test_prune_removes_what_nobody_needs(
    box: LagoSandbox, forest: Forest
) -> None:
    dry = verb(box, 'prune', '--dry-run').stdout
    assert 'would remove' in dry and 'lab:iscsi:v1' in dry
    assert 'lab:iscsi:v1' in box.stored()
    verb(box, 'hold', 'iscsi')
    assert '0 removed' in verb(box, 'prune').stdout
    verb(box, 'release', 'iscsi')
    found = data(box, 'prune')
    assert [one['name'] for one in found['removed']] == ['lab:iscsi:v1']
    assert box.stored() == ['lab:base:v1', 'lab:nfs:v1', 'lab:other:v1']
    check_disks(box, forest, vm0='nfs', vm1='other')
    left = [path.name for path in box.store.iterdir()]
    assert not [name for name in left if 'iscsi' in name
                and not name.endswith('.lock')]
    # All that is gone can be fetched again.
    verb(box, 'pull', 'iscsi')
    assert 'lab:iscsi:v1' in box.stored()


def test_moved_and_deleted_environments(box: LagoSandbox) -> None:
    moved = box.workdir.rename(box.root / 'moved')
    verb(box, 'prune')
    assert len(box.stored()) == 3
    found = data(box, 'store')
    assert [note['prefix'] for note in found['environments']] == [
        str(moved / 'default')
    ]
    shutil.rmtree(moved)
    shown = verb(box, 'store').stdout
    assert 'this environment is gone' in ' '.join(shown.split())
    verb(box, 'prune')
    assert box.stored() == []
    assert data(box, 'store')['gone'] == []


def test_moved_far_away_and_used_again(
    box: LagoSandbox, tmp_path: Path
) -> None:
    far = tmp_path / 'far' / 'away'
    far.parent.mkdir()
    box.workdir.rename(far)
    done = box.run('--workdir', str(far), 'status')
    assert done.code == 0, done.output
    verb(box, 'prune')
    assert len(box.stored()) == 3


def test_destroyed_environment(box: LagoSandbox) -> None:
    done = box.run('destroy', '--yes')
    assert done.code == 0, done.output
    verb(box, 'prune')
    assert box.stored() == []


def test_environment_that_cannot_be_read_counts(
    box: LagoSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root can read anything, so the note's file system is taken away."""
    notes = list((box.store / '.layered' / 'usage').iterdir())
    note = json.loads(notes[0].read_text())
    note['mount'] = str(box.root / 'not-mounted')
    notes[0].write_text(json.dumps(note))
    shutil.rmtree(box.workdir)
    done = verb(box, 'prune')
    assert 'is not mounted' in ' '.join(done.stderr.split())
    assert len(box.stored()) == 3


def test_a_disk_that_cannot_be_read_counts(box: LagoSandbox) -> None:
    disk = box.disk('vm0')
    disk.unlink()
    disk.write_bytes(b'QFI\xfb' + bytes(200))
    done = verb(box, 'prune')
    assert 'vm0_root.qcow2' in done.stderr
    assert 'lab:nfs:v1' in box.stored()


def test_environments_that_nobody_noted(box: LagoSandbox) -> None:
    """Made before there were notes, or by a plain Lago."""
    shutil.rmtree(box.store / '.layered' / 'usage')
    dry = verb(box, 'prune', '--dry-run', '--workdir', str(box.root))
    assert 'lab:nfs:v1' not in dry.stdout
    verb(box, 'prune', '--workdir', str(box.workdir))
    assert len(box.stored()) == 3
    # From now on they are known.
    verb(box, 'prune')
    assert len(box.stored()) == 3
    done = box.run('template-repo', 'prune', '--workdir', '/nonexistent')
    assert done.code == 2
    assert '/nonexistent' in done.stderr


def test_images_of_a_plain_lago_stay_unless_asked(box: LagoSandbox) -> None:
    image = box.store / 'lab:plain:v1'
    run('qemu-img', 'create', '-f', 'raw', image, '1M')
    Path(f'{image}.metadata').write_text('{}')
    verb(box, 'prune')
    assert image.exists()
    verb(box, 'prune', '--workdir', str(box.root))
    assert not image.exists()


def test_wishes(box: LagoSandbox) -> None:
    shutil.rmtree(box.workdir)
    assert '0 to remove' in verb(
        box, 'prune', '--dry-run', '--older-than', '1'
    ).stdout
    kept = verb(box, 'prune', '--dry-run', '--keep', '1').stdout
    assert '0 to remove' in kept
    assert '4 to remove' in verb(
        box, 'prune', '--dry-run', '--until-free', '900T'
    ).stdout
    assert '0 to remove' in verb(
        box, 'prune', '--dry-run', '--until-free', '1M'
    ).stdout
    for wrong in (
        ['--keep', '-1'], ['--older-than', '-1'], ['--until-free', 'much'],
        ['--older-than', 'nan'],
    ):
        done = box.run('template-repo', 'prune', *wrong)
        assert done.code == 2
        assert wrong[0] in done.stderr


def test_unfinished_transfers_go(box: LagoSandbox) -> None:
    partial = box.store / '.layered' / 'partial'
    for name in ('lab:half:v1', 'lab:half:v1.json', 'lab:half:v1.0.spool'):
        (partial / name).write_bytes(b'{}' * 5000)
    assert 'lab:half:v1: unfinished' in verb(box, 'store').stdout
    verb(box, 'prune')
    assert list(partial.iterdir()) == []


def test_nothing_happens_without_a_store(tmp_path: Path) -> None:
    box = LagoSandbox(tmp_path / 'box', {})
    for command in (['store'], ['prune', '--dry-run'], ['store', '--tree']):
        assert '0 ' in verb(box, *command).stdout
    assert not box.store.exists()


# Several at once

HOLD = '''
import sys
from lago_layered_provider.store import Usage
with Usage(sys.argv[1]).using(None, print):
    print('using', flush=True)
    sys.stdin.readline()
'''


def test_prune_waits_for_who_uses_the_store(box: LagoSandbox) -> None:
    user = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(box.store)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding='utf-8',
        cwd=Path(__file__).parents[2],
    )
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == 'using\n'
        prune = box.popen('template-repo', 'prune')
        assert prune.stderr is not None
        # Git master begins with an empty line.
        assert any('waiting for' in line for line in prune.stderr)
        assert 'lab:iscsi:v1' in box.stored()
        # Others may go on using it meanwhile.
        other = LagoSandbox(
            box.root / 'other', {'vm0': 'base'}, repo=box.repo,
            store=box.store,
        )
        init_well(other)
        user.communicate('go\n', timeout=120)
    out, err = prune.communicate(timeout=120)
    assert prune.returncode == 0, out + err
    assert 'lab:iscsi:v1' not in box.stored()


def test_two_prunes_and_an_init(
    box: LagoSandbox, forest: Forest
) -> None:
    other = LagoSandbox(
        box.root / 'other', {'vm0': 'iscsi'}, repo=box.repo, store=box.store,
    )
    for _ in range(3):
        shutil.rmtree(other.workdir, ignore_errors=True)
        running = [
            box.popen('template-repo', 'prune'),
            other.popen('init', '--skip-bootstrap'),
            box.popen('template-repo', 'prune'),
        ]
        for process in running:
            output = ''.join(process.communicate(timeout=120))
            assert process.returncode == 0, output
            assert 'Traceback' not in output
        check_disks(other, forest, vm0='iscsi')
        check_disks(box, forest, vm0='nfs', vm1='other')


@pytest.mark.parametrize('moment', range(4))
def test_killed_prune_leaves_whole_chains(
    moment: int, box: LagoSandbox
) -> None:
    shutil.rmtree(box.workdir)
    process = box.popen('template-repo', 'prune')
    until(
        lambda: len(box.stored()) < 4 - moment // 2
        or process.poll() is not None, 'an image is removed',
    )
    process.kill()
    process.communicate()
    for name in box.stored():
        run('qemu-img', 'check', box.store / name)
        guest_digest(box.store / name)
    verb(box, 'prune')
    assert box.stored() == []


# Two hundred rounds

class Player:
    """Plays with a store at random, and knows what must be there."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.root = root
        self.store = Store(str(root / 'store'))
        self.store.prepare()
        self.bases: Dict[str, Optional[str]] = {}
        self.held: Set[str] = set()
        self.disks: Dict[Path, str] = {}
        self.count = 0

    def add_image(self) -> None:
        self.count += 1
        name = f'lab:t{self.count}:v1'
        present = sorted(self.bases)
        base = self.random.choice([None, *present]) if present else None
        path = self.root / 'new.qcow2'
        make = ['qemu-img', 'create', '-q', '-f', 'qcow2']
        if base:
            make += ['-b', self.store.path(base), '-F', 'qcow2']
        run(*make, path, '256K')
        self.write(path)
        if base:
            run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2',
                '-b', './base', path)
        image = path.read_bytes()
        with self.store.stage(name, identity='it') as stage:
            assert stage is not None
            stage.write(image)
            stage.mark_verified(Record(
                'qcow2', len(image), 1 << 18,
                (Digest('sha1', hashlib.sha1(image).hexdigest()),),
                backing=base, time=time.time(),
            ))
        self.store.commit(name, base=base, metadata={})
        path.unlink()
        self.bases[name] = base

    def write(self, path: Path) -> None:
        at = self.random.randrange(4) * 65536
        run('qemu-io', '-f', 'qcow2', '-c',
            f'write -q -P {self.random.randrange(256)} {at} 4096', path)

    def add_environment(self) -> None:
        if not self.bases:
            return
        self.count += 1
        prefix = self.root / f'env{self.count}' / '.lago' / 'default'
        (prefix / 'images').mkdir(parents=True)
        (prefix / 'uuid').write_text(uuid.UUID(
            int=self.random.getrandbits(128)
        ).hex)
        for number in range(self.random.randint(1, 2)):
            disk = prefix / 'images' / f'vm{number}_root.qcow2'
            base = self.random.choice(sorted(self.bases))
            run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2',
                '-b', self.store.path(base), disk)
            self.write(disk)
            self.disks[disk] = guest_digest(disk)
        Usage(self.store.root).note(
            survey.read_note(str(prefix), self.store.root).note
        )

    def remove_environment(self) -> None:
        if self.disks:
            disk = self.random.choice(sorted(self.disks))
            environment = disk.parents[3]
            shutil.rmtree(environment)
            self.disks = {
                path: digest for path, digest in self.disks.items()
                if environment not in path.parents
            }

    def move_environment(self) -> None:
        if self.disks:
            old = self.random.choice(sorted(self.disks)).parents[3]
            self.count += 1
            new = old.rename(self.root / f'env{self.count}')
            self.disks = {
                new / path.relative_to(old) if old in path.parents else path:
                digest for path, digest in self.disks.items()
            }

    def toggle_hold(self) -> None:
        usage = Usage(self.store.root)
        if self.bases:
            name = self.random.choice(sorted(self.bases))
            if name in self.held:
                self.held.remove(name)
                usage.release(name)
            else:
                self.held.add(name)
                usage.hold(name, 'a test')

    def needed(self) -> Set[str]:
        """Return what must stay, as qemu-img sees it."""
        found: Set[str] = set()
        for top in [*self.disks, *map(self.path, self.held)]:
            chain = json.loads(run(
                'qemu-img', 'info', '--backing-chain', '--output=json', top
            ))
            found |= {os.path.basename(link['filename']) for link in chain}
        return found & set(self.bases)

    def path(self, name: str) -> Path:
        return Path(self.store.path(name))

    def prune(self) -> None:
        needed = self.needed()
        arguments = argparse.Namespace(
            dry_run=False, keep=None, older_than=None, until_free=None,
            workdir=None,
        )
        settings = Settings()
        warnings: List[str] = []
        assert pruning.run_prune(Context(
            args=arguments, settings=settings, store=self.store,
            open_repository=lambda: TemplateRepository(
                [], lambda: settings, print
            ),
            read_environment=lambda path: pytest.fail('not read'),
            repos_directory='', format_data=json.dumps,
            warn=warnings.append,
        )) == 0
        assert warnings == []
        visible = {
            path.name for path in Path(self.store.root).glob('lab:*')
            if path.suffix not in ('.lock', '.hash', '.metadata')
        }
        assert visible == needed
        self.bases = {
            name: base for name, base in self.bases.items() if name in needed
        }

    def check(self) -> None:
        for disk, digest in self.disks.items():
            run('qemu-img', 'check', '-q', disk)
            assert guest_digest(disk) == digest


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4))
def test_random_rounds(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, 'fsync', lambda fd: None)  # no power cut here
    player = Player(tmp_path, seed)
    actions = [
        player.add_image, player.add_image, player.add_environment,
        player.remove_environment, player.move_environment,
        player.toggle_hold,
    ]
    for number in range(1, 51):
        for _ in range(player.random.randint(1, 4)):
            player.random.choice(actions)()
        player.prune()
        # What is gone does not come back: it is seen later as well.
        if number % 5 == 0:
            player.check()


def test_garbage_in_the_place_of_an_environment(box: LagoSandbox) -> None:
    """Not its own uuid any more: it is another directory by now."""
    (box.workdir / 'default' / 'uuid').write_bytes(b'\xff\xfe garbage')
    done = verb(box, 'store')
    assert 'this environment is gone' in ' '.join(done.stdout.split())
    # Who says where environments are is believed, whatever their uuid.
    verb(box, 'prune', '--workdir', str(box.root))
    assert len(box.stored()) == 3


def test_a_pull_clears_what_kills_have_left(box: LagoSandbox) -> None:
    """Although there is nothing to fetch."""
    partial = box.store / '.layered/partial'
    # Of a commit, after its rename; of a removal, after its first step.
    (partial / 'lab:nfs:v1.json').write_text('{}')
    (box.store / 'lab:iscsi:v1').rename(partial / 'lab:iscsi:v1')
    verb(box, 'pull', 'nfs')
    assert leftovers(box.store) == []
    assert [path.name for path in box.store.rglob('*iscsi*')] == [
        'lab:iscsi:v1.lock'
    ]
    assert (box.store / 'lab:nfs:v1').exists()
