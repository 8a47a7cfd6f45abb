"""``mirror``: a copy of a repository that stands on its own."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

import pytest

from lago_layered_provider.lint.run import lint_repository
from lago_layered_provider.publishing import create, mirroring
from lago_layered_provider.publishing.options import Options
from lago_layered_provider.report.console import make_console
from lago_layered_provider.report.choose import make_progress
from lago_layered_provider.report.progress import Progress
from lago_layered_provider.settings import Settings
from tests.lab import (
    DiskImage, LagoSandbox, Nginx, Publisher, RudeServer, check_disks,
    image_requests, init_well, run,
)
from tests.lab.environments import kill
from tests.lab.records import bytes_sent
from tests.lab.running import until
from tests.lab.signing import USER, Signing
from tests.lab.steps import killed_at_steps, record
from tests.lab.tool import Tool

VMS = {'vm0': 'iscsi', 'vm1': 'other'}
#: Patience that does not keep a test waiting.
HASTE = {
    'LAGO__TEMPLATE_REPO__TIMEOUT': '3', 'LAGO__TEMPLATE_REPO__RETRIES': '1',
    'LAGO__TEMPLATE_REPO__PATIENCE': '1',
}


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path / 'work', HASTE)


@pytest.fixture
def origin(published: Publisher, tmp_path: Path) -> Iterator[RudeServer]:
    """Serve a copy of the forest as it was published."""
    shutil.copytree(published.root, tmp_path / 'origin')
    with RudeServer(tmp_path / 'origin') as server:
        index = published.index()
        index['sources']['lab']['args'] = {'baseurl': server.url}
        write_index(server, index)
        yield server


def write_index(server: RudeServer, index: Dict[str, Any]) -> None:
    (server.root / 'repo.metadata').write_text(json.dumps(index))


def read_index(directory: Path) -> Dict[str, Any]:
    index: Dict[str, Any] = json.loads(
        (directory / 'repo.metadata').read_text()
    )
    return index


def shorts_of(directory: Path) -> Set[str]:
    return {
        f'{template}:{version}'
        for template, one in read_index(directory)['templates'].items()
        for version in one['versions']
    }


def check_mirror(
    forest: Dict[str, DiskImage], tool: Tool, mirror: Path, root: Path,
    vms: Dict[str, str] = VMS,
) -> None:
    """See that a copy is right, and enough for environments."""
    tool.run('lint', mirror, '--deep')
    with Nginx(mirror) as server:
        tool.run('lint', f'{server.url}/', '--deep')
        for number, repo in enumerate([
            mirror / 'repo.metadata', f'{server.url}/repo.metadata',
        ]):
            box = LagoSandbox(root / f'box{number}', vms, repo=str(repo))
            init_well(box)
            check_disks(box, forest)
    left = [path for path in mirror.rglob('.*') if path.is_file()]
    assert {path.name for path in left} <= {'.lock', '.originals.json'}


def test_all_of_a_repository(
    forest: Dict[str, DiskImage], origin: RudeServer, tool: Tool,
    tmp_path: Path,
) -> None:
    copy = tmp_path / 'copy'
    done = tool.data('mirror', f'{origin.url}/repo.metadata', copy)
    assert len(done['copied']) == 4 and done['present'] == 0
    size = sum(one['compressed_size'] for one in done['copied'])
    images = image_requests(origin.requests())
    assert bytes_sent(
        one for one in images if one.path != '/repo.metadata'
    ) == size
    origin.forget()
    # Nothing but the index is asked for again, and whether it is signed.
    done = tool.data('mirror', f'{origin.url}/', copy)
    assert done['copied'] == [] and done['present'] == 4
    assert [one.path for one in origin.requests()] == [
        '/repo.metadata', '/repo.metadata.asc'
    ]
    origin.close()
    check_mirror(forest, tool, copy, tmp_path)


def test_a_part_and_then_more(
    forest: Dict[str, DiskImage], origin: RudeServer, tool: Tool,
    tmp_path: Path,
) -> None:
    copy = tmp_path / 'copy'
    url = f'{origin.url}/repo.metadata'
    tool.run('mirror', url, copy, 'nfs')
    assert shorts_of(copy) == {'base:v1', 'nfs:v1'}
    origin.forget()
    done = tool.run('mirror', url, copy, 'other:v1')
    assert '1 image copied' in done.stdout
    assert '1 here before' in done.stdout
    assert shorts_of(copy) == {'base:v1', 'nfs:v1', 'other:v1'}
    tool.run('lint', copy, '--deep')
    said = tool.fail('mirror', url, copy, 'nfss')
    assert 'nfs' in said
    box = LagoSandbox(tmp_path / 'box', {}, repo=url)
    verb = box.run('template-repo', 'mirror', url, str(copy), 'iscsi')
    assert verb.code == 0, verb.output
    check_mirror(forest, tool, copy, tmp_path)


@pytest.mark.parametrize('dialect', ['images-2015', 'images-head', 'plain'])
@pytest.mark.parametrize('compression', ['xz', 'zst', None])
def test_a_repository_without_bases_becomes_one_with_them(
    forest: Dict[str, DiskImage], tool: Tool, dialect: str,
    compression: Optional[str], tmp_path: Path,
) -> None:
    """Files stay as they are, so headers still name bases by their files."""
    with Nginx(tmp_path / 'www') as server:
        repo = Publisher(
            tmp_path / 'www', base_url=f'{server.url}/', dialect=dialect,
            compression=compression,
        )
        repo.add_forest(forest)
        repo.write()
        copy = tmp_path / 'copy'
        done = tool.run('mirror', f'{server.url}/', copy)
        assert '4 images copied' in done.stdout
    entries = [
        entry for one in read_index(copy)['templates'].values()
        for entry in one['versions'].values()
    ]
    assert all({'base', 'size', 'sha512'} <= set(one) for one in entries)
    check_mirror(forest, tool, copy, tmp_path)


def test_from_a_directory(
    forest: Dict[str, DiskImage], published: Publisher, tool: Tool,
    tmp_path: Path,
) -> None:
    """To a machine without a network, on a disk that is carried there."""
    repo = tmp_path / 'repo'
    shutil.copytree(published.root, repo)
    index = published.index()
    index['sources']['lab'] = {'type': 'file', 'args': {'root': '.'}}
    (repo / 'repo.metadata').write_text(json.dumps(index))
    tool.run('mirror', repo, tmp_path / 'copy')
    shutil.rmtree(repo)
    carried = tmp_path / 'carried'
    (tmp_path / 'copy').rename(carried)
    check_mirror(forest, tool, carried, tmp_path)


def test_cut_and_killed_it_goes_on(
    forest: Dict[str, DiskImage], origin: RudeServer, tool: Tool,
    tmp_path: Path,
) -> None:
    copy = tmp_path / 'copy'
    url = f'{origin.url}/repo.metadata'
    origin.fail('/base-v1*', cut_after=1 << 20, times=1)
    origin.fail('/other-v1*', cut_after=1 << 18, reset=True, times=1)
    tool.run('mirror', url, copy)
    whole = sum(path.stat().st_size for path in copy.rglob('*.xz'))
    sent = bytes_sent(
        one for one in image_requests(origin.requests())
        if one.path != '/repo.metadata'
    )
    # A reset may take away what was sent and not read.
    assert whole <= sent <= whole + (1 << 18) + (1 << 17)

    shutil.rmtree(copy)
    origin.forget()
    origin.heal()
    origin.fail('/base-v1*', rate=1 << 20)
    process = tool.popen('mirror', url, copy)
    until(lambda: any(
        path.stat().st_size > 1 << 20
        for path in copy.rglob('.base*.fetching')
    ), 'more than a MiB is here')
    part, = copy.rglob('.base*.fetching')
    kill(process)
    process.communicate()
    here = part.stat().st_size
    assert not (copy / 'repo.metadata').exists()
    origin.heal()
    began = time.time()
    tool.run('mirror', url, copy)
    again = [
        one for one in image_requests(origin.requests())
        if '/base-v1' in one.path and one.start > began
    ]
    assert [one.range for one in again] == [f'bytes={here}-']
    check_mirror(forest, tool, copy, tmp_path)


def test_wrong_bytes_are_not_published(
    origin: RudeServer, tool: Tool, tmp_path: Path
) -> None:
    copy = tmp_path / 'copy'
    url = f'{origin.url}/repo.metadata'
    tool.run('mirror', url, copy, 'nfs')
    before = (copy / 'repo.metadata').read_bytes()
    origin.fail('/other-v1*', flip_at=70_000)
    said = tool.fail('mirror', url, copy)
    assert 'other' in said
    assert (copy / 'repo.metadata').read_bytes() == before
    tool.run('lint', copy, '--deep')
    origin.heal()
    done = tool.run('mirror', url, copy)
    assert '2 images copied' in done.stdout
    tool.run('lint', copy, '--deep')


def test_what_was_published_again_does_not_replace_a_file(
    forest: Dict[str, DiskImage], origin: RudeServer, published: Publisher,
    tool: Tool, tmp_path: Path,
) -> None:
    """Who reads the copy with the old index finds the old file."""
    copy = tmp_path / 'copy'
    url = f'{origin.url}/repo.metadata'
    tool.run('mirror', url, copy)
    old = {path: path.read_bytes() for path in copy.rglob('*.xz')}
    index = published.index()
    index['sources']['lab']['args'] = {'baseurl': origin.url}
    source = published.images['nfs:v1']
    entry = index['templates']['other']['versions']['v1']
    entry.update({
        key: value for key, value in
        index['templates']['nfs']['versions']['v1'].items()
        if key != 'timestamp'
    })
    write_index(origin, index)
    tool.run('mirror', url, copy)
    listed = read_index(copy)['templates']['other']['versions']['v1']
    assert listed['sha512'] == source.checksums['sha512']
    assert f'{source.checksums["sha512"][:8]}/' in listed['handle']
    for path, data in old.items():
        assert path.read_bytes() == data
    tool.run('lint', copy, '--deep')
    # By the next time nobody has the old index any more.
    tool.run('mirror', url, copy)
    assert [path.name for path in old if not path.exists()] == [
        'other-v1.qcow2.xz'
    ]
    tool.run('lint', copy, '--deep')


@pytest.mark.parametrize('handle, words', [
    ('.originals.json', 'is hidden'),
    ('a/.b/c', 'is hidden'),
    ('../../etc/passwd', 'leaves its source'),
])
def test_handles_that_would_do_harm(
    origin: RudeServer, published: Publisher, tool: Tool, handle: str,
    words: str, tmp_path: Path,
) -> None:
    index = published.index()
    index['sources']['lab']['args'] = {'baseurl': origin.url}
    index['templates']['other']['versions']['v1']['handle'] = handle
    write_index(origin, index)
    copy = tmp_path / 'copy'
    said = tool.fail('mirror', f'{origin.url}/repo.metadata', copy, 'other')
    assert words in said
    assert not (copy / 'repo.metadata').exists()


def test_an_entry_that_is_broken_spoils_no_other(
    origin: RudeServer, published: Publisher, tool: Tool, tmp_path: Path
) -> None:
    index = published.index()
    index['sources']['lab']['args'] = {'baseurl': origin.url}
    index['templates']['nfs']['versions']['v1']['base'] = 'gone:v1'
    write_index(origin, index)
    copy = tmp_path / 'copy'
    done = tool.run('mirror', f'{origin.url}/repo.metadata', copy)
    said = ' '.join(done.stderr.split())
    for left_out in ('nfs:v1 is left out', 'iscsi:v1 is left out', 'gone:v1'):
        assert left_out in said
    assert shorts_of(copy) == {'base:v1', 'other:v1'}


def test_an_admin_adds_layers_to_a_mirror(
    forest: Dict[str, DiskImage], origin: RudeServer, tool: Tool,
    tmp_path: Path,
) -> None:
    """A layer over somebody else's base, in one repository with it."""
    copy = tmp_path / 'copy'
    tool.run('mirror', f'{origin.url}/repo.metadata', copy, 'nfs')
    own = copy / 'own.qcow2'
    shutil.copy(forest['iscsi'].path, own)
    run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b',
        '/somewhere/nfs.qcow2', own)
    done = tool.data('create', copy, '--version', 'v7')
    assert [(one['image'], one['base']) for one in done['published']] == [
        ('own:v7', 'nfs:v1')
    ]
    tool.run('lint', copy, '--deep')
    tool.run('mirror', f'{origin.url}/repo.metadata', copy)
    assert 'own:v7' in shorts_of(copy)
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'own'}, repo=copy / 'repo.metadata'
    )
    init_well(box)
    check_disks(box, {**forest, 'own': forest['iscsi']})


@pytest.mark.quick
def test_a_copy_keeps_the_signature_of_its_origin(
    forest: Dict[str, DiskImage], signing: Signing, tmp_path: Path
) -> None:
    """Who runs a mirror has not the key, and needs none."""
    admin = Tool(tmp_path / 'admin', signing.environment)
    origin = tmp_path / 'origin'
    origin.mkdir()
    for name in ('base', 'other'):
        shutil.copy(forest[name].path, origin)
    sign = ['--sign', USER]
    admin.run('create', origin, '--name', 'lab', '--version', 'v1', *sign)
    tool = Tool(tmp_path / 'work', {**HASTE, **signing.demanding})
    copy = tmp_path / 'copy'
    with Nginx(origin) as server:
        url = f'{server.url}/'
        done = tool.run('mirror', url, copy, 'base')
        assert 'without its signature; sign it with --sign KEY' in ' '.join(
            done.stderr.split()
        )
        assert not (copy / 'repo.metadata.asc').exists()
        done = tool.run('lint', copy, code=2)
        assert 'error signature-missing' in done.stdout
        tool.run('mirror', url, copy)
        for name in ('repo.metadata', 'repo.metadata.asc'):
            assert (copy / name).read_bytes() == (origin / name).read_bytes()
        # More of the origin, with another signature.
        shutil.copy(forest['nfs'].path, origin)
        admin.run('create', origin, '--version', 'v1', *sign)
        said = tool.fail('mirror', url, copy, 'nfs')
        assert '--sign KEY' in said
        tool.run('mirror', url, copy)
    box = LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs', 'vm1': 'other'},
        repo=copy / 'repo.metadata', env=signing.demanding,
    )
    init_well(box)
    check_disks(box, forest)


def test_another_repository_is_not_made_a_mirror(
    origin: RudeServer, tool: Tool, tmp_path: Path
) -> None:
    """What would help is another directory, and no option of `create`."""
    there = tmp_path / 'there'
    there.mkdir()
    (there / 'repo.metadata').write_text(json.dumps(
        {'name': 'other', 'sources': {}, 'templates': {}}
    ))
    said = tool.fail('mirror', f'{origin.url}/repo.metadata', there)
    assert 'it is the repository other' in said
    assert 'cannot become lab' in said and '--name' not in said
    assert not image_requests(origin.requests())


def test_two_at_once(origin: RudeServer, tool: Tool, tmp_path: Path) -> None:
    url = f'{origin.url}/repo.metadata'
    both = [tool.popen('mirror', url, tmp_path / 'copy') for _ in range(2)]
    outputs: List[str] = [
        each.communicate(timeout=60)[0] for each in both
    ]
    assert [each.returncode for each in both] == [0, 0], outputs
    assert sorted(output.split()[0] for output in outputs) == ['0', '4']
    tool.run('lint', tmp_path / 'copy', '--deep')


# A kill at each step

class Changing:
    """A repository that is made anew again and again, and a copy of it."""

    def __init__(self, root: Path) -> None:
        self.root = root / 'origin'
        self.copy = root / 'copy'
        self._count = 0

    def publish(self) -> None:
        """Publish other images; some under the names of those before."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self._count += 1
        for name in ('a', 'b', f'only{self._count}'):
            data = random.Random(f'{name} {self._count}').randbytes(1 << 16)
            (self.root / f'{name}.img').write_bytes(data)
        create.publish(
            str(self.root), Options('lab', version='v1', compression=None),
            lock_timeout=0, progress=quiet(), warn=print,
        )

    def mirror(self) -> None:
        """Bring the copy to its good end, in this process."""
        mirroring.mirror(
            str(self.root / 'repo.metadata'), str(self.copy), [], None,
            Settings(), progress=quiet(), warn=print,
        )

    def check_visible(self) -> None:
        """See that whatever the copy shows is whole."""
        if (self.copy / 'repo.metadata').exists():
            report = lint_repository(
                str(self.copy / 'repo.metadata'), Settings(),
                lambda done, total: None,
            )
            assert not report.failed, report

    def check_files(self) -> None:
        """See that nothing is there but what the index names."""
        names = {'repo.metadata', 'published/.lock'}
        for one in read_index(self.copy)['templates'].values():
            for version in one['versions'].values():
                names |= {
                    version['handle'] + ending
                    for ending in ('', '.metadata', '.hash')
                }
        assert names == {
            str(path.relative_to(self.copy))
            for path in self.copy.rglob('*') if path.is_file()
        }
        assert all(
            any(path.iterdir()) for path in self.copy.rglob('*')
            if path.is_dir()
        )


def quiet() -> Progress:
    return make_progress('none', make_console(io.StringIO()))


@pytest.mark.parametrize('first', [True, False])
def test_killed_at_each_step(
    first: bool, tool: Tool, tmp_path: Path
) -> None:
    """What is shown is whole; the next run leaves nothing over.

    Args:
        first: the first run for that copy, which has the origin's own index
            then; later ones find other images under names that are taken.
    """
    lab = Changing(tmp_path)

    def start(env: Mapping[str, str]) -> subprocess.Popen[str]:
        lab.publish()
        if first:
            shutil.rmtree(lab.copy, ignore_errors=True)
        return tool.popen('mirror', lab.root, lab.copy, env=env)

    steps = record(start, tmp_path / 'steps')
    for step in killed_at_steps(start, tmp_path / 'steps', steps, 10):
        print(step)
        lab.check_visible()
        # Who comes next finds another origin.
        lab.publish()
        lab.mirror()
        lab.check_visible()
        # Files of the index before stay for those that have just read it.
        lab.mirror()
        lab.check_files()
