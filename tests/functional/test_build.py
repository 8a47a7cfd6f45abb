"""``build``: images from specs, with stand-ins for the tools and for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Mapping

import pytest

from tests.lab import Nginx, require, run
from tests.lab.builder import make_source, read_file
from tests.lab.environments import kill
from tests.lab.guestfs import guestfs_environment
from tests.lab.images import CLUSTER, MIB
from tests.lab.publish import checksums
from tests.lab.running import until
from tests.lab.stand_ins import install
from tests.lab.steps import killed_at_steps, record
from tests.lab.tool import Tool

BASE = '#base=libguestfs:tiny\n#distro=debian\npattern 1 0\n'
SPECS = {
    'base': BASE,
    'nfs': '#base=base\n#distro=debian\npattern 2 64k\n',
    'iscsi': '#base=layer:nfs\n#distro=debian\npattern 3 128k\n',
    'other': '#base=base\n#name=el7-other\n#version=v7\npattern 4 192k\n',
}
FILES = ['base.qcow2', 'el7-other.qcow2', 'iscsi.qcow2', 'nfs.qcow2']


class Workshop(Tool):
    """A directory of specs, one for the images, stand-ins for the tools."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        require('qemu-img', 'qemu-io')
        tools = install(self.root / 'tools')
        self.log = self.root / 'log'
        self.extra_env['PATH'] = f'{tools}:{os.environ["PATH"]}'
        self.extra_env['STAND_IN_LOG'] = str(self.log)
        self.specs = self.root / 'specs'
        self.specs.mkdir()
        self.out = self.root / 'out'

    def write(self, specs: Dict[str, str]) -> None:
        """Write specs."""
        for name, text in specs.items():
            (self.specs / name).write_text(text)

    def words(self) -> List[str]:
        """Return the command line."""
        return ['build', 'specs', 'out', '--name', 'lab',
                '--compress', 'none']

    def build(self) -> str:
        """Build; return what was said on the way."""
        return self.run(*self.words()).stderr

    def fails(self) -> str:
        """Build, and return why that failed."""
        return self.fail(*self.words())

    def used(self) -> List[str]:
        """Return the tools that were used since the last time."""
        lines = self.log.read_text().splitlines() if (
            self.log.exists()) else []
        self.log.unlink(missing_ok=True)
        return lines

    def images(self) -> List[str]:
        """Return the image files in the directory."""
        return sorted(path.name for path in self.out.glob('*.qcow2'))

    def seen(self) -> Dict[str, str]:
        """Return a digest of every file of the directory, without logs."""
        return {
            str(path.relative_to(self.out)): checksums(path)['sha1']
            for path in self.out.rglob('*')
            if path.is_file() and path.suffix not in ('.log', '.lock')
        } if self.out.exists() else {}

    def index(self) -> Dict[str, Any]:
        """Return the templates of the repository."""
        document = json.loads((self.out / 'repo.metadata').read_text())
        templates: Dict[str, Any] = document['templates']
        return templates

    def bytes_of(self, name: str) -> List[int]:
        """Return the first byte of each cluster that the guest sees."""
        raw = self.root / 'seen.raw'
        run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw',
            self.out / name, raw)
        data = raw.read_bytes()
        assert len(data) == 8 * MIB
        return list(data[:4 * CLUSTER:CLUSTER])


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path / 'shop')
    made.write(SPECS)
    return made


def header_of(path: Path) -> Dict[str, Any]:
    said: Dict[str, Any] = json.loads(run(
        'qemu-img', 'info', '-f', 'qcow2', '--output=json', path
    ))
    return said


def no_scratch(out: Path) -> None:
    assert list(out.glob('.build-????????')) == []


def test_a_chain_is_built_and_published(shop: Workshop) -> None:
    said = shop.build()
    assert shop.images() == FILES
    assert shop.bytes_of('iscsi.qcow2') == [1, 2, 3, 0]
    assert shop.bytes_of('el7-other.qcow2') == [1, 0, 0, 4]
    assert 'backing-filename' not in header_of(shop.out / 'base.qcow2')
    for name, base in (('nfs', 'base'), ('iscsi', 'nfs'),
                       ('el7-other', 'base')):
        header = header_of(shop.out / f'{name}.qcow2')
        assert header['backing-filename'] == f'./{base}.qcow2'
        assert header['backing-filename-format'] == 'qcow2'
        metadata = json.loads(
            (shop.out / f'{name}.qcow2.metadata').read_text()
        )
        assert metadata['base'] == base
    used = shop.used()
    assert used.index('virt-sparsify base.qcow2') < used.index(
        'virt-customize nfs.qcow2'
    )
    assert [line for line in used if 'base.qcow2' in line] == [
        'virt-builder base.qcow2', 'virt-sysprep base.qcow2',
        'virt-sparsify base.qcow2',
    ]
    assert 'to build: base, nfs, iscsi, el7-other' in said
    assert 'nfs: virt-customize, ' in said
    index = shop.index()
    assert sorted(index) == ['base', 'el7-other', 'iscsi', 'nfs']
    nfs, = index['nfs']['versions'].values()
    base_version, = index['base']['versions']
    assert nfs['base'] == f'base:{base_version}'
    assert index['el7-other']['versions']['v7']['metadata']['id'] == 'other'
    no_scratch(shop.out)
    log = shop.out / '.build-logs' / 'nfs.log'
    assert 'virt-customize says hello' in log.read_text()
    assert f'what the tools printed: {shop.out}/.build-logs' in said
    assert log.stat().st_mode & 0o077 == 0


def test_only_what_has_changed_is_built(shop: Workshop) -> None:
    shop.build()
    shop.used()
    before = shop.seen()
    said = shop.build()
    assert shop.used() == [] and shop.seen() == before
    assert 'nothing to build' in said
    # A layer alone; then a base, and with it all that stands on it.
    shop.write({'iscsi': SPECS['iscsi'] + 'pattern 5 192k\n'})
    shop.build()
    assert {line.split()[1] for line in shop.used()} == {'iscsi.qcow2'}
    assert shop.bytes_of('iscsi.qcow2') == [1, 2, 3, 5]
    shop.write({'nfs': SPECS['nfs'].replace('pattern 2', 'pattern 9')})
    shop.build()
    assert {line.split()[1] for line in shop.used()} == {
        'nfs.qcow2', 'iscsi.qcow2',
    }
    assert shop.bytes_of('iscsi.qcow2') == [1, 9, 3, 5]
    # A new spec on an old base; and an image that somebody has removed.
    shop.write({'new': '#base=iscsi\npattern 7 0\n'})
    (shop.out / 'el7-other.qcow2').unlink()
    shop.write({'other': SPECS['other'].replace('v7', 'v8')})
    shop.build()
    assert {line.split()[1] for line in shop.used()} == {
        'new.qcow2', 'el7-other.qcow2',
    }
    assert shop.bytes_of('new.qcow2') == [7, 9, 3, 5]
    assert len(shop.index()['iscsi']['versions']) == 3


def test_all_faults_before_anything_is_built(shop: Workshop) -> None:
    shop.write({
        'baseless': 'install vim\n', 'a name': '#base=base\n',
        'docker': '#base=docker:x\n', 'lost': '#base=bse\n',
        'egg': '#base=layer:hen\n', 'hen': '#base=layer:egg\n',
        'twin': '#base=base\n#name=nfs\n#version=v1\n',
        'ready': '#base=simple:/nowhere/x.qcow2\n',
        '.hidden': 'x', 'nfs~': 'x',
    })
    (shop.specs / 'latin').write_bytes(b'#base=base\n#name=F\xe9\n')
    (shop.root / 'tools' / 'virt-sysprep').unlink()
    shop.extra_env['PATH'] = without(shop, 'virt-sysprep')
    message = shop.fails()
    for word in (
        'Nothing was built from specs', 'baseless: it has no line',
        "'a name' is not a name", "unknown kind 'docker'",
        "lost: its base 'bse' is neither a spec nor an image",
        'egg -> hen -> egg', 'nfs and twin would both be called nfs',
        'ready: its base /nowhere/x.qcow2 is missing', 'latin: it is no text',
        'virt-sysprep is not installed', 'libguestfs-tools',
    ):
        assert word in message
    assert not shop.out.exists() and shop.used() == []


def without(shop: Workshop, tool: str) -> str:
    """Return a PATH with all programs but one."""
    links = shop.root / 'links'
    links.mkdir()
    for directory in shop.extra_env['PATH'].split(':'):
        for path in Path(directory).glob('*'):
            if path.name != tool and not os.path.lexists(links / path.name):
                (links / path.name).symlink_to(path)
    # Tool adds the system's directories for the administrator's tools.
    return str(links)


def test_a_name_is_asked_for_before(shop: Workshop) -> None:
    message = shop.fail('build', 'specs', 'out')
    assert '--name NAME' in message and shop.used() == []


def test_a_published_version_is_not_built_again(shop: Workshop) -> None:
    shop.build()
    shop.used()
    before = shop.seen()
    shop.write({'base': BASE + 'pattern 9 0\n'})
    message = shop.fails()
    assert 'other: it, or what it stands on, has changed, but' in message
    assert 'el7-other:v7 is published' in message
    assert 'give it a new #version' in message
    assert 'nfs' not in message
    assert shop.used() == [] and shop.seen() == before
    shop.write({'other': SPECS['other'].replace('v7', 'v8')})
    shop.build()
    assert sorted(shop.index()['el7-other']['versions']) == ['v7', 'v8']
    assert shop.bytes_of('el7-other.qcow2') == [9, 0, 0, 4]


def test_what_fails_leaves_all_as_it_was(shop: Workshop) -> None:
    shop.build()
    before = shop.seen()
    shop.write({
        'nfs': SPECS['nfs'] + 'fail No such package: nfs-utils\n',
        'other': SPECS['other'].replace('v7', 'v8') + 'sleep 0.5\n',
        'third': '#base=libguestfs:nope\n',
    })
    message = shop.fails()
    assert f'{shop.out}: nothing was published' in message
    assert (
        'nfs: virt-customize failed with status 1: No such package: nfs-utils '
        f'all of it: {shop.out}/.build-logs/nfs.log'
    ) in message
    assert 'third: virt-builder failed with status 1' in message
    assert 'cannot find os-version nope' in message
    assert 'If reporting bugs' not in message
    assert 'iscsi: not built, since its base failed' in message
    assert shop.seen() == before
    no_scratch(shop.out)
    log = (shop.out / '.build-logs' / 'nfs.log').read_text()
    assert 'No such package' in log and 'failed with status 1' in log
    # The others were built to their end, so that all failures are known.
    assert 'virt-sparsify el7-other.qcow2' in shop.used()
    shop.write({'nfs': SPECS['nfs'] + 'pattern 6 64k\n'})
    shop.write({'other': SPECS['other'].replace('v7', 'v8')})
    (shop.specs / 'third').unlink()
    shop.build()
    assert shop.bytes_of('iscsi.qcow2') == [1, 6, 3, 0]


def test_layers_are_built_side_by_side(shop: Workshop) -> None:
    for name in ('nfs', 'other'):
        shop.write({name: SPECS[name] + 'sleep 2\n'})
    for jobs, expected in (('2', True), ('1', False)):
        shutil.rmtree(shop.out, ignore_errors=True)
        shop.extra_env['LAGO__TEMPLATE_REPO__JOBS'] = jobs
        shop.build()
        used = shop.used()
        second = max(used.index('virt-customize nfs.qcow2'),
                     used.index('virt-customize el7-other.qcow2'))
        first = min(used.index('virt-sysprep nfs.qcow2'),
                    used.index('virt-sysprep el7-other.qcow2'))
        assert (second < first) is expected


def test_ready_images(shop: Workshop) -> None:
    """Of a path or a URL, compressed or raw; also as a base."""
    require('xz', 'gzip')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', 'ready.qcow2', '8M',
        cwd=shop.root)
    run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 64k', 'ready.qcow2',
        cwd=shop.root)
    run('qemu-img', 'convert', '-O', 'raw', 'ready.qcow2', 'ready.img',
        cwd=shop.root)
    for name, tool in (('ready.qcow2', 'xz'), ('ready.img', 'gzip')):
        run(tool, '-k', shop.root / name)
    (shop.root / 'away').mkdir()
    (shop.root / 'ready.img.gz').rename(shop.root / 'away' / 'far.gz')
    for path in shop.specs.iterdir():
        path.unlink()
    shop.write({
        'one': '#base=simple:../ready.qcow2.xz\npattern 2 64k\n',
        'two': f'#base=simple:"{shop.root}/ready.img"\n#meta_data_only=1\n',
        'three': '#base=layer:../away/far.gz\npattern 3 128k\n',
    })
    shop.build()
    assert shop.images() == ['far.qcow2', 'one.qcow2', 'three.qcow2',
                             'two.qcow2']
    assert shop.bytes_of('one.qcow2') == [7, 2, 0, 0]
    assert shop.bytes_of('two.qcow2') == [7, 0, 0, 0]
    assert shop.bytes_of('three.qcow2') == [7, 0, 3, 0]
    assert header_of(shop.out / 'three.qcow2')['backing-filename'] == (
        './far.qcow2'
    )
    assert sorted({line.split()[1] for line in shop.used()}) == [
        'one.qcow2', 'three.qcow2',
    ]
    assert 'nothing to build' in shop.build()
    # An image that stands on another file is not ready.
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b',
        shop.root / 'ready.qcow2', shop.root / 'layer.qcow2')
    shop.write({'four': '#base=simple:../layer.qcow2\n#meta_data_only=1\n'})
    before = shop.seen()
    assert f'it stands on {shop.root}/ready.qcow2' in shop.fails()
    assert shop.seen() == before


def test_a_ready_image_of_a_server(shop: Workshop, server: Nginx) -> None:
    require('xz')
    server.root.mkdir(exist_ok=True)
    image = server.root / 'ready 1.qcow2'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', image, '8M')
    run('xz', image)
    for path in shop.specs.iterdir():
        path.unlink()
    url = f'{server.url}/ready 1.qcow2.xz'
    shop.write({
        'net': f'#base=simple:{url}\n#meta_data_only=1\n',
        'gone': f'#base=simple:{server.url}/gone\n#meta_data_only=1\n',
    })
    message = shop.fails()
    assert f'gone: {server.url}/gone: ' in message and '404' in message
    assert shop.images() == []
    (shop.specs / 'gone').unlink()
    shop.build()
    assert shop.bytes_of('net.qcow2') == [0, 0, 0, 0]


def test_what_a_killed_build_leaves(shop: Workshop) -> None:
    """What was complete is moved to its place, anything else goes."""
    shop.build()
    shop.used()
    before = shop.seen()
    left = shop.out / '.build-0123abcd'
    (left / 'out').mkdir(parents=True)
    (left / 'out' / 'nfs.qcow2').write_text('half an image')
    assert 'nothing to build' in shop.build()
    assert shop.seen() == before
    no_scratch(shop.out)
    # Killed while it moved its images, the first ones that there were.
    (left / 'out').mkdir(parents=True)
    for name in ('nfs.qcow2', 'nfs.qcow2.metadata', '.build.json'):
        (shop.out / name).rename(left / 'out' / name)
    (left / 'complete').touch()
    assert 'nothing to build' in shop.build()
    assert shop.seen() == before
    assert shop.used() == []
    no_scratch(shop.out)


def test_images_of_somebody_else(shop: Workshop) -> None:
    """They may be bases, and are never replaced or left without theirs."""
    shop.out.mkdir()
    own = shop.out / 'own.qcow2'
    run('qemu-img', 'create', '-q', '-f', 'qcow2', own, '8M')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 64k', own)
    shop.write({'mine': '#base=own\npattern 2 64k\n'})
    shutil.copy(own, shop.out / 'nfs.qcow2')
    before = shop.seen()
    assert 'nfs.qcow2 is there already, and no build has made it' in (
        shop.fails()
    )
    assert shop.seen() == before
    (shop.out / 'nfs.qcow2').unlink()
    shop.build()
    assert shop.bytes_of('mine.qcow2') == [7, 2, 0, 0]
    shop.used()
    # Their layer on an image of ours keeps that as it is.
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b',
        './base.qcow2', shop.out / 'theirs.qcow2')
    shop.build()
    assert shop.used() == []
    before = shop.seen()
    shop.write({'base': BASE + 'pattern 9 0\n'})
    assert 'theirs.qcow2 stands on base.qcow2' in shop.fails()
    assert shop.seen() == before
    (shop.out / 'theirs.qcow2').unlink()
    shop.write({'other': SPECS['other'].replace('v7', 'v8')})
    # Another image of the same name is another base.
    run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 8 192k 64k', own)
    shop.build()
    assert shop.bytes_of('mine.qcow2') == [7, 2, 0, 8]
    assert shop.bytes_of('iscsi.qcow2') == [9, 2, 3, 0]


def test_killed_at_each_step(shop: Workshop, tmp_path: Path) -> None:
    """Either nothing of a build is seen, or all of it, in the end."""
    # A version that is published would have to be another one each time.
    (shop.specs / 'other').unlink()
    shop.write({'el7-other': SPECS['other'].replace('#version=v7\n', '')})
    shop.build()
    byte = 11

    def start(env: Mapping[str, str]) -> subprocess.Popen[str]:
        nonlocal byte
        byte += 1
        shop.write({'base': BASE + f'pattern {byte} 0\n'})
        return shop.popen(*shop.words(), env=env)

    steps = record(start, tmp_path / 'steps')
    for step in killed_at_steps(start, tmp_path / 'steps', steps, 10):
        print(step)
        shop.build()
        for name in FILES:
            assert shop.bytes_of(name)[0] == byte
        no_scratch(shop.out)


@pytest.mark.quick
def test_one_build_at_a_time(shop: Workshop) -> None:
    shop.write({'nfs': SPECS['nfs'] + 'sleep 30\n'})
    process = shop.popen(*shop.words())
    try:
        until(lambda: shop.log.exists() and 'nfs' in shop.log.read_text(),
              'it builds')
        assert 'another build works there' in shop.fails()
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert process.returncode == 130, stderr
        assert 'Traceback' not in stderr
    finally:
        kill(process)
    assert shop.images() == []
    no_scratch(shop.out)


@pytest.mark.slow
@pytest.mark.vm
def test_the_real_tools(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """A template of virt-builder, and two layers with files in them."""
    require('virt-builder', 'virt-customize', 'virt-sysprep',
            'virt-sparsify', 'debugfs')
    tool = Tool(tmp_path / 'work', {
        **guestfs_environment(pytestconfig.rootpath / '.cache' / 'tiny'),
        **make_source(tmp_path / 'builder'),
    })
    specs = tool.root / 'specs'
    specs.mkdir()
    (specs / 'el7-base').write_text(
        '#base=libguestfs:tiny\n#name=lab Tiny 7\n#distro=debian\n'
        '#root-partition=/dev/sda\n'
        'root-password password:123456\n'
        'write /etc/motd:hello \\\nthere\n'
        'run-command echo ran > /etc/ran\n'
    )
    (specs / 'el7-nfs').write_text(
        '#base=el7-base\n#name=lab Tiny 7\n#distro=debian\n'
        'mkdir /srv/nfs\nwrite /etc/exports:/srv/nfs\n'
    )
    (specs / 'iscsi').write_text(
        '#base=layer:el7-base\n#name=el7-iscsi\n#version=v1\n'
        'run-command cat /etc/motd > /etc/copy\n'
    )
    words = ['build', 'specs', 'out', '--name', 'lab']
    tool.run(*words)
    out = tool.root / 'out'
    assert 'hello' in read_file(out / 'el7-base.qcow2', '/etc/motd')
    assert read_file(out / 'el7-nfs.qcow2', '/etc/ran') == 'ran\n'
    assert read_file(out / 'el7-nfs.qcow2', '/etc/exports') == '/srv/nfs'
    assert 'hello' in read_file(out / 'el7-iscsi.qcow2', '/etc/copy')
    for name in ('el7-nfs', 'el7-iscsi'):
        header = header_of(out / f'{name}.qcow2')
        assert header['backing-filename'] == './el7-base.qcow2'
        assert (out / f'{name}.qcow2').stat().st_size < (
            out / 'el7-base.qcow2'
        ).stat().st_size
    index = json.loads((out / 'repo.metadata').read_text())['templates']
    base, = index['el7-base']['versions']
    assert index['el7-iscsi']['versions']['v1']['base'] == f'el7-base:{base}'
    assert 'nothing to build' in tool.run(*words).stderr
