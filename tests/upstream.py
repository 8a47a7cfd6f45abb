"""Run Lago's own tests with the plugin: ``make upstream LAGO_GIT=DIR``.

DIR is a work tree of Lago's git repository; it is copied, and its code runs
in the place of the installed Lago. The unit tests run as they are. The bats
files run in namespaces with a libvirt of their own. What is taken from
elsewhere there: the VM is the tiny Linux of our tests; virt-sysprep and
virt-sparsify, which it does not need, and rpm do nothing; so does a Python
module guestfs where none is installed, as Lago greets every command with that.
What cannot run is named, and counted.

Without a DIR it is the source distribution that is looked at.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Tuple
from xml.etree import ElementTree

from .lab import LagoSandbox, Publisher, have, run
from .lab.commands import MissingTool
from .lab.environments import kill
from .lab.guest import INIT, GuestLinux, with_libraries
from .lab.libvirt import URL, Libvirt

CACHE = Path(__file__).resolve().parent.parent / '.cache'
LAGO_VERSION = '0.46.0'
PLUGIN = 'lago_layered_provider.lago_plugin'
UNIT_SECONDS = 600
BATS_SECONDS = 600

#: Tests that need more of it than a version.
OF_GUESTFS = ('test_guestfs_tools.py', 'collect: collect from stopped vm')
NO_GUESTFS = 'no Python module guestfs (Debian: python3-guestfs)'
FROM_NETWORK = 'it fetches images of templates.ovirt.org'
EXPECTED = 'its authors expect it to fail'

GUESTFS = """\
class GuestFS:
    def __init__(self, **options):
        pass

    def version(self):
        return {'major': 1, 'minor': 48}

    def close(self):
        pass
"""

#: Who asks for it over ssh gets an answer before.
POWEROFF = """\
#!/bin/sh
(sleep 1; exec /bin/poweroff -f) </dev/null >/dev/null 2>&1 &
"""

#: Some tests write there.
PRIVATE_ETC = """\
mkdir -p /run/etc
cp -a /etc/. /run/etc
mount --bind /run/etc /etc
mkdir -p /etc/sudoers.d
exec "$@"
"""


@dataclass
class Result:
    """What became of the tests of a file or a directory.

    Attributes:
        left_out: the reason of each test that did not run.
    """

    name: str
    passed: int = 0
    failed: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)


class Guest(GuestLinux):
    """The VM that the bats files expect: files stay, and scp is there."""

    def _entries(self) -> List[Tuple[str, int, bytes]]:
        place = 'ip link set lo up\n'
        changed = {'init': (0o755, INIT.replace(place, f'''{place}\
hostname cirros
for each in root var/log; do
    mkdir -p /$each /mnt/kept/$each
    mount --bind /mnt/kept/$each /$each
done
''').encode()), 'sbin/poweroff': (
            0o755, POWEROFF.encode()
        )}
        for path in with_libraries('scp'):
            changed[str(path).lstrip('/')] = 0o755, path.read_bytes()
        kept = [
            entry for entry in super()._entries() if entry[0] not in changed
        ]
        there = {name for name, _, _ in kept}
        parents = {
            str(parent) for name in changed for parent in Path(name).parents
        } - {'.'} - there
        return [
            *kept, *((name, 0o40755, b'') for name in sorted(parents)),
            *((name, 0o100000 | mode, data)
              for name, (mode, data) in changed.items()),
        ]


def has_guestfs() -> bool:
    """Tell whether the Python module is installed."""
    return importlib.util.find_spec('guestfs') is not None


def run_unit_tests(tree: Path, scratch: Path) -> Result:
    """Run Lago's unit tests, the plugin loaded before."""
    result = Result('tests/unit')
    tests = tree / 'tests' / 'unit'
    report = scratch / 'unit.xml'
    options: List[str] = []
    if not has_guestfs():
        for path in tests.rglob(OF_GUESTFS[0]):
            options += ['--ignore', str(path)]
            result.left_out += [NO_GUESTFS] * len(
                re.findall(r'^\s*def test_', path.read_text(), re.MULTILINE)
            )
    done = subprocess.run(
        [sys.executable, '-B', '-m', 'pytest', '-q', '-p', PLUGIN,
         '-p', 'no:cacheprovider', '-c', os.devnull, '--rootdir', str(tests),
         '--junit-xml', str(report), *options, str(tests)],
        cwd=tests, timeout=UNIT_SECONDS, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding='utf-8', errors='replace',
        env={**os.environ, 'PYTHONPATH': str(tree),
             'HOME': str(scratch / 'home')},
    )
    if not report.exists():
        print(done.stdout)
        result.failed.append('they cannot be run')
        return result
    for case in ElementTree.parse(report).iter('testcase'):
        skipped = case.find('skipped')
        if skipped is not None:
            expected = skipped.get('type') == 'pytest.xfail'
            result.left_out.append(
                EXPECTED if expected else skipped.get('message', '')
            )
        elif case.find('failure') is None and case.find('error') is None:
            result.passed += 1
        else:
            result.failed.append(
                f'{case.get("classname")}::{case.get("name")}'
            )
    if result.failed:
        print(done.stdout)
    return result


def run_bats(tree: Path, scratch: Path) -> List[Result]:
    """Run the bats files, each in the same libvirt as the others."""
    files = sorted(tree.glob('tests/functional/*.bats'))
    try:
        if not have('bats'):
            raise MissingTool('not installed: bats')
        with Libvirt() as libvirt:
            box = libvirt.sandbox(
                scratch / 'box', {}, _prepare(tree, scratch)
            )
            stand_ins = _make_stand_ins(scratch)
            return [
                _run_bats_file(path, tree, stand_ins, box) for path in files
            ]
    except MissingTool as error:
        return [
            Result(path.name, left_out=[str(error)] * len(
                re.findall('^@test ', path.read_text(), re.MULTILINE)
            )) for path in files
        ]


def _make_stand_ins(scratch: Path) -> Path:
    """Return a directory with what does nothing, for PATH and PYTHONPATH."""
    directory = scratch / 'stand-ins'
    directory.mkdir()
    for name in ('virt-sysprep', 'virt-sparsify', 'rpm'):
        (directory / name).write_text('#!/bin/sh\nexit 0\n')
        (directory / name).chmod(0o755)
    if not has_guestfs():
        (directory / 'guestfs.py').write_text(GUESTFS)
    return directory


def _prepare(tree: Path, scratch: Path) -> Path:
    """Put the VM into the fixtures; return an index for the others."""
    fixtures = tree / 'tests' / 'functional' / 'fixtures'
    guest = Guest(CACHE / 'tiny').base(scratch / 'guest.qcow2', 'guest')
    data = guest.read_bytes()
    with gzip.open(fixtures / 'minimal_vm.qcow2.gz', 'wb', 1) as stream:
        stream.write(data)
    for path in fixtures.rglob('*.hash'):
        path.write_text(hashlib.sha1(data).hexdigest())
    for path in fixtures.rglob('suite*'):
        # It is larger than the VM that Lago's authors had.
        path.write_text(re.sub(
            r'(memory"?: *)64\b', r'\g<1>256', path.read_text()
        ))
    for path in fixtures.rglob('id_rsa'):
        path.chmod(0o600)
    listed = json.loads((fixtures / 'snapshot/1host_1disk_list').read_text())
    [[disk]] = [
        disks for snapshots in listed.values() for disks in snapshots.values()
    ]
    repo = Publisher(scratch / 'www', source='file', compression=None)
    repo.add(guest, disk['template_name'], metadata=disk['metadata'])
    repo.write()
    return repo.index_path


def _run_bats_file(
    path: Path, tree: Path, stand_ins: Path, box: LagoSandbox
) -> Result:
    if not has_guestfs():
        path.write_text(re.sub(
            rf'^(@test "{OF_GUESTFS[1]}.*)$',
            rf'\1\n    skip "{NO_GUESTFS}"', path.read_text(), flags=re.M,
        ))
    environment = box.environment()
    printed = _run_to_its_end(
        [*box.prefix_command, 'unshare', '--mount', 'sh', '-ec', PRIVATE_ETC,
         'sh', 'bats', '--tap', str(path)], {
            **environment,
            'PATH': f'{stand_ins}:{environment["PATH"]}',
            'PYTHONPATH': f'{tree}:{stand_ins}:{environment["PYTHONPATH"]}',
            'LIBVIRT_DEFAULT_URI': URL,
        },
    )
    result = Result(path.name)
    for word, name, reason in re.findall(
        r'^(ok|not ok) \d+ (.*?)(?: # skip ?(.*))?$', printed, re.M
    ):
        if word != 'ok':
            result.failed.append(name)
        elif reason or name.endswith('# skip'):
            result.left_out.append(reason)
        else:
            result.passed += 1
    tests = len(re.findall('^@test ', path.read_text(), re.MULTILINE))
    ran = result.passed + len(result.failed) + len(result.left_out)
    if ran != tests:
        result.failed.append(f'{tests - ran} tests did not come to their end')
    if result.failed:
        print(printed)
    return result


def _run_to_its_end(command: List[str], env: Mapping[str, str]) -> str:
    """Return what a command prints, within its time."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding='utf-8', errors='replace',
        env=env, start_new_session=True,
    ) as process:
        timer = threading.Timer(BATS_SECONDS, kill, [process])
        timer.start()
        try:
            return process.communicate()[0]
        finally:
            timer.cancel()
            kill(process)


def count_sdk_tests(tree: Path) -> Result:
    """Say why the tests of the SDK do not run."""
    return Result('tests/functional-sdk', left_out=[FROM_NETWORK] * sum(
        len(re.findall('^def test_', path.read_text(), re.MULTILINE))
        for path in tree.glob('tests/functional-sdk/test_*.py')
    ))


def get_source_distribution(scratch: Path) -> Path:
    """Download and unpack what the package registry has of Lago."""
    run(sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
        '--no-binary', 'lago', '--no-build-isolation', '--dest', scratch,
        f'lago=={LAGO_VERSION}')
    run('tar', '-C', scratch, '-xf', scratch / f'lago-{LAGO_VERSION}.tar.gz')
    return scratch / f'lago-{LAGO_VERSION}'


def show(results: List[Result]) -> None:
    """Print what passed, what failed, and why others did not run."""
    for result in results:
        print(f'{result.name:<22} {result.passed:>4} passed '
              f'{len(result.failed):>4} failed '
              f'{len(result.left_out):>4} not run')
        for name in result.failed:
            print(f'  failed: {name}')
        reasons: Dict[str, int] = {}
        for reason in result.left_out:
            reasons[reason] = reasons.get(reason, 0) + 1
        for reason, count in reasons.items():
            print(f'  {count} not run: {reason}')


def main(arguments: List[str]) -> int:
    """Run what there is; return the exit status."""
    if arguments and not Path(arguments[0], 'lago', 'cmd.py').is_file():
        print(f'{arguments[0]} is no copy of Lago', file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix='upstream-') as name:
        scratch = Path(name)
        (scratch / 'home').mkdir()
        if arguments:
            tree = scratch / 'lago'
            shutil.copytree(
                arguments[0], tree, symlinks=True,
                ignore=shutil.ignore_patterns('.git'),
            )
        else:
            tree = get_source_distribution(scratch)
        if not (tree / 'tests').is_dir():
            print(f'Lago {LAGO_VERSION} on the package registry has no tests; '
                  'name a copy of its git repository: make upstream '
                  'LAGO_GIT=DIR')
            return 0
        results = [
            run_unit_tests(tree, scratch), *run_bats(tree, scratch),
            count_sdk_tests(tree),
        ]
        show(results)
    return 1 if any(result.failed for result in results) else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
