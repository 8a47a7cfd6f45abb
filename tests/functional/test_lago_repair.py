"""What of the installed Lago fails before `repair()`, and works after it.

Each line of `BEHAVIOURS` is tried in a fresh process with Lago as it is
installed, and again after `repair()`. So the tests hold with every Lago:
what fails at first must be named as repaired, what works must not be.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

import lago_layered_provider

ROOT = Path(lago_layered_provider.__file__).parent.parent
LAGO = Path(sys.executable).with_name('lago')

pytest.importorskip('lago')

#: Name of a repair -> an expression that is true when Lago can do it.
BEHAVIOURS = {
    'command_status': '''
        (bool(utils.CommandStatus(3, '', '')), bool(utils.CommandStatus(
            0, '', ''))) == (True, False)
    ''',
    'yaml_loader': '''
        utils.load_virt_stream(io.StringIO('a: [1, {b: c}]'))
        == utils.load_virt_stream(io.StringIO('{"a": [1, {"b": "c"}]}'))
        == {'a': [1, {'b': 'c'}]}
    ''',
    'file_hash': '''
        utils.get_hash(sys.executable, 'sha512') == hashlib.sha512(
            open(sys.executable, 'rb').read()).hexdigest()
    ''',
    'abstract_mapping': '''
        without({'a': {'b': 1, 'c': 2}}, 'a/b') == {'a': {'c': 2}}
        and 'a/b' in output.FlatOutFormatPlugin().format({'a': {'b': 1}})
        and 'b: 1' in output.DefaultOutFormatPlugin().format({'a': {'b': 1}})
    ''',
    'flat_lists': '''
        flat(['one', 'two']) == 'one\\ntwo' and flat({'b': {'c': ['x', 'y']},
            'a': ''}) == 'a: \\nb/c: x\\nb/c: y'
        and flat({'Prefix': {'a': 1}}) == 'a: 1'
    ''',
    'version_order': '''
        utils.ver_cmp('0.9', '0.10') < 0 == utils.ver_cmp('1.0', '1')
        < utils.ver_cmp('0.46.0', '0.36.11')
    ''',
    'exception_message': '''
        'path "a/b/c"' in error(without, {'a': {}}, 'a/b/c')
    ''',
    'command_path': '''
        ':'.join(DIRECTORIES) in str(path_of_commands())
    ''',
    'net_name': '''
        prefixed('a-long-name-of-a-net', 15)
        == '0123-' + hashlib.sha1(b'a-long-name-of-a-net').hexdigest()[:10]
        and prefixed('short', 15) == '0123-short'
        and prefixed('vm') == '01234567-vm'
    ''',
    'libvirt_template': '''
        '<network' in libvirt_utils.get_template('net_nat_template.xml')
    ''',
    'network_xml': '''
        '<name>0123-net</name>' in nat_network()._libvirt_xml()
    ''',
    'bridge_names': '''
        [bridge_exists('br-here'), bridge_exists('br-her')] == [True, False]
    ''',
    'libvirt_connection': '''
        libvirt_utils.get_libvirt_connection('a')
        is not libvirt_utils.get_libvirt_connection('a')
    ''',
    'libvirt_reached': '''
        'No connection to libvirt' in error(connect_to_nobody)
        and network.Network.libvirt_con is None
    ''',
    'no_connection': '''
        vm.LocalLibvirtVMProvider.libvirt_con is None
    ''',
    'second_cleanup': '''
        left_by_cleanups(2) == []
    ''',
    'configuration_sections': '''
        config.get_section('init') is not config.get_section('init')
    ''',
    'bridge_lease': '''
        leases_after_release_of_nets('nat', 'bridge') == []
    ''',
    'snapshot_xml': '''
        isinstance(xml_of_snapshot(), str)
    ''',
    'snapshots_of_all': '''
        'not all VMs run: vm1' in error(snapshot, 'create', 'vm1')
        and 'snapshot one: vm2' in error(snapshot, 'revert', 'vm2')
        and snapshot('create') == snapshot('revert') == ['vm1', 'vm2']
    ''',
    'vm_address': '''
        vm_plugin.VMPlugin.ip(SimpleNamespace(
            name=lambda: 'vm', mgmt_net=SimpleNamespace(
                resolve={'vm': '192.0.2.7'}.get))) == '192.0.2.7'
    ''',
    'vcpu_number': '''
        [len(cpu.CPU({'memory': 512, 'vcpu': n}, None).cpu_xml.xpath(
            'numa/cell')) for n in (None, '1', 4)] == [2, 0, 2]
    ''',
    'sysprep_file': '''
        '/key.pub' in sysprep_commands()
    ''',
    'ssh_retry': '''
        attempts_until_reached() == 2
    ''',
    'ssh_streams': '''
        over_ssh(*PIECES) == b''.join(PIECES).decode()
    ''',
    'log_text': '''
        logged(logging.ERROR, 'a %s', HOSTILE).count(ESCAPED) == 1
        and HOSTILE not in logged(logging.ERROR, HOSTILE)
        and ESCAPED in logged(logging.ERROR, 'a task', error=HOSTILE)
    ''',
    'log_colours': '''
        not set(COLOURS).intersection(
            logged(logging.ERROR, 'one') + logged(logging.WARNING, 'two')
            + logged(logging.INFO, 'end task'))
    ''',
}

#: Runs in the other process; prints what holds before and after, and names.
TRIAL = '''
import hashlib, io, json, logging, os, sys, tempfile, types
import libvirt
from types import SimpleNamespace
from lago import brctl, log_utils, prefix, service, ssh, subnet_lease, sysprep
from lago import utils, virt
from lago.plugins import output, vm as vm_plugin
from lago.providers.libvirt import cpu, network, vm
from lago.config import config
from lago.providers.libvirt import utils as libvirt_utils
import jinja2

# The second character is cut in two, as any piece may be.
PIECES = ('\\u25cf one \\u25cf'.encode()[:-1], b'\\x8f two\\n')


def without(spec, path):
    utils.filter_spec(spec, [path])
    return spec


def error(function, *args):
    try:
        function(*args)
    except utils.LagoException as caught:
        return str(caught)


def flat(value):
    return output.FlatOutFormatPlugin().format(value)


def connect_to_nobody():
    original, libvirt.openAuth = libvirt.openAuth, lambda url, auth: fail()
    try:
        libvirt_utils.get_libvirt_connection('nobody')
    finally:
        libvirt.openAuth = original


def fail():
    raise libvirt.libvirtError('nobody is there')


def left_by_cleanups(count):
    with tempfile.TemporaryDirectory() as directory:
        made = SimpleNamespace(
            stop=lambda: None, paths=prefix.paths.Paths(directory))
        open(made.paths.prefix_lagofile(), 'w').close()
        for _ in range(count):
            prefix.Prefix.cleanup(made)
        return os.listdir(directory)


class SnapshotProvider(vm.LocalLibvirtVMProvider):
    def __init__(self, alive):
        self.libvirt_con, self.is_alive = None, alive

    def alive(self):
        return self.is_alive


def snapshot(verb, *without):
    done = []
    vms = {
        name: SimpleNamespace(
            name=lambda name=name: name,
            provider=SnapshotProvider(name not in without),
            _spec={'snapshots': {} if name in without else {'one': []}},
            create_snapshot=lambda _, name=name: done.append(name),
            revert_snapshot=lambda _, name=name: done.append(name))
        for name in ('vm1', 'vm2')
    }
    env = SimpleNamespace(_vms=vms, get_vms=lambda: vms)
    getattr(virt.VirtEnv, f'{verb}_snapshots')(env, 'one')
    return sorted(done)


DIRECTORIES = [f'/{number}' for number in range(20)]


def path_of_commands():
    path = ':'.join([*DIRECTORIES, os.environ['PATH']])
    return utils.run_command(['printenv', 'PATH'], env={'PATH': path}).out


def prefixed(*args):
    return virt.VirtEnv.prefixed_name(
        SimpleNamespace(uuid='0123456789abcdef'), *args)


class Connection:
    def getLibVersion(self):
        return 9000000

    def close(self):
        pass


def nat_network():
    libvirt_connection = libvirt_utils.get_libvirt_connection
    libvirt_utils.get_libvirt_connection = lambda name: Connection()
    try:
        return network.NATNetwork(
            SimpleNamespace(uuid='', prefixed_name=lambda n, max_length:
                            '0123-' + n),
            dict(name='net', gw='192.168.9.1', management=True, mapping={},
                 dhcp=dict(start=2, end=9), dns_domain_name='lago.local',
                 dns_records={'vm': '192.168.9.2'}), compat='0.46.0')
    finally:
        libvirt_utils.get_libvirt_connection = libvirt_connection


def bridge_exists(name):
    original = utils._run_command
    utils._run_command = lambda **kwargs: utils.CommandStatus(
        0, b'3: br-here: <UP> mtu 1500 qdisc noqueue\\n', b'')
    try:
        return brctl.exists(name)
    finally:
        utils._run_command = original


def leases_after_release_of_nets(*kinds):
    """As a prefix releases its nets; a bridge has no gateway."""
    with tempfile.TemporaryDirectory() as directory:
        uuid = os.path.join(directory, 'uuid')
        with open(uuid, 'w') as stream:
            stream.write('0123')
        store = subnet_lease.SubnetStore(os.path.join(directory, 'leases'))
        gateways = {'nat': store.acquire(uuid).ip + 1, 'bridge': None}
        store.release(str(gateways[kind]) for kind in kinds)
        return [n for n in os.listdir(store.path) if n.endswith('.lease')]


def xml_of_snapshot():
    seen = []
    domain = SimpleNamespace(
        XMLDesc=lambda: '<domain><devices/></domain>',
        snapshotCreateXML=lambda xml, flags: seen.append(xml))
    fake = SimpleNamespace(
        vm=SimpleNamespace(
            name=lambda: 'vm', wait_for_ssh=lambda: None,
            ssh=lambda command: None, _spec={'disks': [], 'snapshots': {}},
            guest_agent=lambda: SimpleNamespace(start=lambda: None)),
        libvirt_con=SimpleNamespace(lookupByName=lambda name: domain),
        _libvirt_name=lambda: 'vm', _reclaim_disks=lambda: None)
    vm.LocalLibvirtVMProvider._create_live_snapshot(fake, 'one')
    return seen[0]


def sysprep_commands():
    path = sysprep._render_template(
        'el7', loader=jinja2.PackageLoader('lago', 'templates'),
        mappings={'eth0': '54:52:c0:a8:09:02'}, root_password='secret',
        public_key='/key.pub', iscsi_name='iqn', hostname='vm')
    with open(path) as commands:
        return commands.read()


def attempts_until_reached():
    attempts = []

    def reach(**kwargs):
        attempts.append(kwargs)
        if len(attempts) == 1:
            raise ssh.LagoSSHTimeoutException('still boots')
        return utils.CommandStatus(0, '', '')

    original, ssh.ssh = ssh.ssh, reach
    try:
        ssh.wait_for_ssh('192.0.2.1')
    finally:
        ssh.ssh = original
    return len(attempts)


class Channel:
    """Ends after its last piece, as a paramiko channel does."""

    def __init__(self, pieces, exit_status):
        self.out, self.err = list(pieces), list(pieces)
        self.exit_status = exit_status

    closed = property(lambda self: not (self.out or self.err))

    def settimeout(self, timeout):
        pass

    def fileno(self):
        return NULL.fileno()

    def recv_ready(self):
        return bool(self.out)

    def recv_stderr_ready(self):
        return bool(self.err)

    def recv(self, size):
        return self.out.pop(0)

    def recv_stderr(self, size):
        return self.err.pop(0)


NULL = open('/dev/null')


def over_ssh(*pieces):
    with tempfile.TemporaryFile('w+', encoding='utf-8') as out, \\
            tempfile.TemporaryFile('w+', encoding='utf-8') as err:
        status, *kept = ssh.drain_ssh_channel(
            Channel(pieces, 7), stdout=out, stderr=err)
        copied = []
        for stream in out, err:
            stream.seek(0)
            copied.append(stream.read())
    kept = [k.decode() if isinstance(k, bytes) else k for k in kept]
    assert status == 7 and copied == kept and kept[0] == kept[1], copied
    return kept[0]


HOSTILE = 'a\\x1b]0;b\\x07\\x9b2J'
ESCAPED = 'a\\\\x1b]0;b\\\\x07\\\\x9b2J'
COLOURS = '\\x1b'


def logged(level, text, *arguments, error=None):
    """What a terminal gets of a record, as `lago` sets up its log."""
    handler = log_utils.TaskHandler(
        task_tree_depth=3, level=logging.INFO, dump_level=logging.ERROR,
        formatter=log_utils.ColorFormatter(fmt='%(msg)s'))
    handler.stream = io.StringIO()
    logger = logging.Logger('log', logging.DEBUG)
    logger.addHandler(handler)
    logger.info('start task')
    try:
        if error:
            raise ValueError(error)
        logger.log(level, text, *arguments)
    except ValueError:
        logger.exception(text)
    return handler.stream.getvalue()


def holds(expression):
    try:
        return bool(eval(expression))
    except Exception as caught:
        return repr(caught)


behaviours = {n: '(%s)' % e for n, e in json.load(sys.stdin).items()}
before = {name: holds(text) for name, text in behaviours.items()}
from lago_layered_provider.plugin import repair, repair_vms
repair.repair()
names = repair.apply(repair_vms.REPAIRS)
after = {name: holds(text) for name, text in behaviours.items()}
print(json.dumps([before, after, names]))
'''


def run_python(
    source: str, stdin: str = '', **environment: str
) -> 'subprocess.CompletedProcess[str]':
    """Run a program that imports Lago, none of whose plugins are loaded."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', source], input=stdin,
        capture_output=True, text=True, timeout=120,
        env=dict(
            os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING='utf-8',
            LAGO_LIBVIRT_URL='test:///default', **environment
        ),
    )


Trial = Tuple[Dict[str, Any], Dict[str, Any], List[str]]


@pytest.fixture(scope='module')
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    ran = run_python(
        TRIAL, json.dumps({
            name: ' '.join(text.split()) for name, text in BEHAVIOURS.items()
        }), TMPDIR=str(tmp_path_factory.mktemp('trial')),
    )
    assert ran.returncode == 0, ran.stderr
    before, after, names = json.loads(ran.stdout.splitlines()[-1])
    return before, after, names


def write_tool(path: Path, script: str) -> None:
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)


@pytest.mark.parametrize('name', BEHAVIOURS)
def test_works_after_the_repair(name: str, trial: Trial) -> None:
    _, after, _ = trial
    assert after[name] is True


@pytest.mark.parametrize('name', BEHAVIOURS)
def test_is_repaired_only_where_it_failed(name: str, trial: Trial) -> None:
    before, _, names = trial
    assert (name in names) == (before[name] is not True), before[name]


def test_all_repairs_are_tried_and_known(trial: Trial) -> None:
    """A repair without a line above would go untested.

    `unfinished_prefix` is tested in test_killed_init.
    """
    always = {'backing_format', 'running_vms', 'unfinished_prefix'}
    assert set(trial[2]) <= set(BEHAVIOURS) | always | {'domain_xml'}
    assert always <= set(trial[2])


def test_a_second_call_changes_nothing() -> None:
    ran = run_python('''
import sys
from lago_layered_provider.plugin import repair, repair_vms

def state():
    return {
        (name, key): id(value)
        for name, module in list(sys.modules.items())
        if name.split('.')[0] == 'lago'
        for key, value in list(vars(module).items()) + [
            (key + '.' + inner, method)
            for key, thing in list(vars(module).items())
            if isinstance(thing, type)
            for inner, method in list(vars(thing).items())
        ]
    }

untouched = state()
first = repair.repair()
first_state = state()
assert first_state != untouched
assert repair.repair() == first
assert state() == first_state
every = repair.apply(repair_vms.REPAIRS)
every_state = state()
assert repair.apply(repair_vms.REPAIRS) == every
assert repair.repair() == every
assert state() == every_state
''')
    assert ran.returncode == 0, ran.stderr


def test_an_unknown_lago_is_left_alone() -> None:
    """A repair that fails must not keep Lago's commands from running."""
    ran = run_python('''
from lago import utils, virt
del utils.get_hash, virt.VirtEnv.prefixed_name
from lago_layered_provider.plugin import repair
names = repair.repair()
assert 'file_hash' not in names and 'net_name' not in names
assert 'backing_format' in names
''')
    assert ran.returncode == 0, ran.stderr
    assert 'Cannot repair file_hash' in ran.stderr


def test_nothing_heavy_is_imported() -> None:
    """Every command of Lago pays for what is imported here."""
    ran = run_python('''
import sys
import lago.cmd
lagos = set(sys.modules)
from lago_layered_provider.plugin import repair
repair.repair()
print(sorted(
    name for name in set(sys.modules) - lagos
    if not name.startswith('lago_layered_provider')
))
''')
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == '[]'


def qemu_img(*args: object) -> str:
    return subprocess.run(
        ['qemu-img', *map(str, args)], check=True, capture_output=True,
        text=True, timeout=60,
    ).stdout


def backing(disk: Path) -> Tuple[str, str]:
    info = json.loads(qemu_img('info', '--output=json', disk))
    return info['backing-filename'], info['backing-filename-format']


@pytest.mark.parametrize('base_format', ['raw', 'qcow2'])
def test_disks_get_the_format_of_their_backing_file(
    base_format: str, tmp_path: Path
) -> None:
    """As `init` creates a disk and `export` renames its base."""
    base, disk = tmp_path / 'r:t:v1', tmp_path / 'disk.qcow2'
    qemu_img('create', '-f', base_format, base, '1M')
    ran = run_python(f'''
from lago import utils
from lago_layered_provider.plugin import repair
repair.repair()
done = utils.run_command(['qemu-img', 'create', '-f', 'qcow2', '-o',
                          'lazy_refcounts=on', '-b', '$D/r:t:v1',
                          '$D/disk.qcow2'])
assert done.code == 0, done
assert utils.get_qemu_info({str(disk)!r})['backing-filename-format'] == (
    {base_format!r})
utils.qemu_rebase({str(disk)!r}, './t:v1', safe=False)
''', D=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert backing(disk) == ('./t:v1', base_format)


def test_a_disk_can_lose_its_backing_file(tmp_path: Path) -> None:
    """As the stand-alone export does."""
    base, disk = tmp_path / 'base', tmp_path / 'disk.qcow2'
    qemu_img('create', '-f', 'raw', base, '1M')
    qemu_img('create', '-f', 'qcow2', '-F', 'raw', '-b', base, disk)
    ran = run_python(f'''
from lago import utils
from lago_layered_provider.plugin import repair
repair.repair()
utils.qemu_rebase({str(disk)!r}, '')
''')
    assert ran.returncode == 0, ran.stderr
    assert 'backing' not in qemu_img('info', disk)


@pytest.mark.parametrize('command', [
    ['qemu-img', 'create', '-f', 'qcow2', '-F', 'raw', '-b', 'base', 'disk'],
    ['qemu-img', 'create', '-f', 'qcow2', 'disk', '1M'],
    ['qemu-img', 'create', '-f', 'qcow2', '-b', 'missing', 'disk'],
    ['qemu-img', 'rebase', '-b', '', 'disk'],
    ['qemu-img', 'rebase', '-b'],
    ['qemu-img', 'commit', '-b', 'base', 'disk'],
    ['cp', '-b', 'base', 'disk'],
    ['qemu-img'],
    [],
])
def test_other_commands_stay_as_they_are(
    command: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lago_layered_provider.plugin import repair
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base').write_bytes(bytes(1024))
    assert repair.name_backing_format(command) == command


class EndedChannel:
    """A command that ended without reading what was typed."""

    exit_status = 4

    def __init__(self, fileno: int) -> None:
        self.fileno = lambda: fileno
        self.asked = 0

    @property
    def closed(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def settimeout(self, timeout: float) -> None:
        pass

    def send_ready(self) -> bool:
        return True

    def send(self, data: bytes) -> int:
        raise OSError('Socket is closed')

    def recv_ready(self) -> bool:
        return False

    recv_stderr_ready = recv_ready


def test_ssh_ends_with_its_command(tmp_path: Path) -> None:
    from lago_layered_provider.plugin import repair_vms
    typed = tmp_path / 'typed'
    typed.write_bytes(bytes(100))
    with open(typed, 'rb') as stdin, open(os.devnull, 'rb') as quiet:
        channel = EndedChannel(quiet.fileno())
        drain = repair_vms._Drain(channel, stdin, None, None)
        assert drain.run() == (b'', b'')


ENTRY_POINTS = '''
[lago.plugins.cli]
layered-repair-test = repair_test_plugin:Verb

[lago.plugins.vm_provider]
repair-test = repair_test_provider:Provider
'''

PLUGIN = '''
from lago.plugins.cli import CLIPlugin
from lago_layered_provider.plugin import repair
repair.repair()


class Verb(CLIPlugin):
    init_args = {'help': 'Show what was repaired'}

    def populate_parser(self, parser):
        pass

    def do_run(self, args):
        print(repair.repair())
'''

#: Lago's own provider, but a domain that libvirt's test driver can run.
PROVIDER = '''
from lxml import etree
from lago.providers.libvirt.vm import LocalLibvirtVMProvider


class Provider(LocalLibvirtVMProvider):
    def _get_qemu_kvm_path(self):
        return '/bin/true'

    def _libvirt_xml(self):
        domain = etree.fromstring(super()._libvirt_xml())
        assert domain.find('cpu/topology').get('sockets') == '2'
        domain.set('type', 'test')
        domain.find('os/type').set('arch', 'i686')
        domain.remove(domain.find('cpu'))
        return etree.tostring(domain)
'''

INIT_FILE = '''
domains:
  vm-one:
    memory: 64
    vm-provider: repair-test
    nics: [{net: the-management-net}]
    disks:
      - {type: empty, name: root, dev: vda, format: qcow2, size: 4M}
nets:
  the-management-net:
    type: nat
    management: true
    dhcp: {start: 100, end: 200}
'''


class Environment:
    """A directory for `lago`, with the repairs loaded as a plugin."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.bin = where / 'bin'
        plugins = where / 'plugins'
        info = plugins / 'repair_test-1.dist-info'
        for directory in (self.bin, info):
            directory.mkdir(parents=True)
        (info / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: repair-test\nVersion: 1\n'
        )
        (info / 'entry_points.txt').write_text(ENTRY_POINTS)
        (plugins / 'repair_test_plugin.py').write_text(PLUGIN)
        (plugins / 'repair_test_provider.py').write_text(PROVIDER)
        (where / 'LagoInitFile').write_text(INIT_FILE)
        (where / 'repo.metadata').write_text(
            '{"name": "empty", "sources": {}, "templates": {}}'
        )
        self.variables = dict(
            os.environ, PYTHONPATH=f'{plugins}:{ROOT}', HOME=str(where),
            PATH=f'{self.bin}:{os.environ["PATH"]}',
            LAGO_LIBVIRT_URL='test:///default',
            LAGO_LEASE_DIR=str(where / 'leases'),
        )

    def lago(
        self, *args: str, status: int = 0
    ) -> 'subprocess.CompletedProcess[str]':
        ran = subprocess.run(
            [str(LAGO), '--ignore-warnings', *args], cwd=self.where,
            capture_output=True, text=True, timeout=120, env=self.variables,
        )
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran

    def init(self, status: int = 0) -> str:
        ran = self.lago(
            'init', '--skip-bootstrap',
            '--template-repo-path', str(self.where / 'repo.metadata'),
            '--template-store', str(self.where / 'store'), status=status,
        )
        return ran.stdout + ran.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_lago_works_with_an_environment(environment: Environment) -> None:
    environment.init()
    found = environment.lago('-f', 'json', 'status').stdout
    vms = json.loads(found[found.index('{'):])['Prefix']['VMs']
    assert vms['vm-one']['status'] == 'down'
    assert 'vm-one' in environment.lago('status').stdout
    assert 'vm-one' in environment.lago('-f', 'yaml', 'status').stdout
    assert 'VMs/vm-one' in environment.lago('-f', 'flat', 'status').stdout
    assert 'default' in environment.lago('list', '.lago').stdout
    environment.lago('destroy', '-y')
    assert not (environment.where / '.lago' / 'default').exists()


def test_lago_starts_a_vm(environment: Environment) -> None:
    """With libvirt's test driver, whose VMs end with the process."""
    environment.init()
    log = environment.lago('-l', 'debug', 'start')
    printed = log.stdout + log.stderr
    assert 'Starting VM vm-one' in printed
    assert 'invalid connection pointer' not in printed


def test_lago_exports(environment: Environment) -> None:
    # It only frees space in the image, and takes libguestfs.
    write_tool(environment.bin / 'virt-sparsify', 'exit 0')
    environment.init()
    environment.lago('export', '-d', 'out')
    disk = environment.where / 'out' / 'vm-one_root.qcow2'
    assert Path(f'{disk}.hash').read_text() == hashlib.sha1(
        disk.read_bytes()
    ).hexdigest()
    assert 'vm-one' in disk.with_name('LagoInitFile').read_text()


@pytest.mark.quick
def test_an_error_of_lago_is_a_message(environment: Environment) -> None:
    environment.init()
    printed = environment.init(status=2)
    assert 'already exists' in printed
    assert 'Traceback' not in printed


def test_vms_are_repaired_when_they_are_needed() -> None:
    ran = run_python('''
import sys
from lago import virt
from lago_layered_provider.plugin import repair
repair.repair()
assert 'lago.ssh' not in sys.modules
try:
    virt.VirtEnv(None, {}, {})
except AttributeError:
    pass  # There is no prefix; what counts comes before.
assert 'ssh_streams' in repair.repair()
''')
    assert ran.returncode == 0, ran.stderr
