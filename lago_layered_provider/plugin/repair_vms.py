"""The repairs of `repair` that only an environment's VMs need.

Importing this imports libvirt's VM provider, jinja2 and paramiko; so it is
left to `repair`, which does it when Lago is about to do the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import sys
import tempfile
from types import SimpleNamespace
from typing import Any, BinaryIO, Callable, Optional

from lago import service, ssh, sysprep, utils, virt
from lago.plugins import vm as vm_plugin
from lago.providers.libvirt import cpu, vm

from .repair_tools import Repair, StandIn, as_text, mentions

SSH_POLL_SECONDS = 0.1
SSH_CHUNK_BYTES = 32 * 1024

#: Marks "the stream of this process", as None means "no stream".
_OURS = object()


def domain_xml() -> bool:
    """libvirt wants text; 0.46.0 gives it what lxml returns, bytes.

    `_libvirt_xml` itself goes on returning bytes, as it does in master: a
    provider derived from this one may rely on it.
    """
    provider = vm.LocalLibvirtVMProvider
    if mentions(provider.start, 'decode'):
        return False
    original = provider._createXML

    @functools.wraps(original)
    def create_xml(self: Any, dom_xml: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(dom_xml, bytes):
            dom_xml = dom_xml.decode()
        return original(self, dom_xml, *args, **kwargs)

    provider._createXML = create_xml
    return True


def snapshot_xml() -> bool:
    """The same for a snapshot, whose XML goes from lxml into libvirt."""
    if mentions(vm.LocalLibvirtVMProvider._create_live_snapshot, 'decode'):
        return False
    lxml_tree = vm.ET

    def tostring(element: Any, **options: Any) -> Any:
        written = lxml_tree.tostring(element, **options)
        is_snapshot = element.tag == 'domainsnapshot'
        return written.decode() if is_snapshot else written

    vm.ET = StandIn(lxml_tree, tostring=tostring)
    return True


def snapshots_of_all() -> bool:
    """A snapshot is made, or reverted to, by all VMs or by none.

    Lago has none of stopped VMs, and says so in a traceback, when those that
    run have got theirs.
    """
    local = vm.LocalLibvirtVMProvider
    if not mentions(
        local._create_dead_snapshot, 'Dead snapshots are not implemented yet'
    ):
        return False
    env = virt.VirtEnv
    create, revert = env.create_snapshots, env.revert_snapshots

    def names_of(self: Any, lacks: Callable[[Any], bool]) -> str:
        return ', '.join(sorted(
            each.name() for each in self.get_vms().values()
            if isinstance(each.provider, local) and lacks(each)
        ))

    @functools.wraps(create)
    def create_snapshots(self: Any, name: str) -> None:
        stopped = names_of(self, lambda each: not each.provider.alive())
        if stopped:
            raise utils.LagoUserException(
                f'No snapshot {name} was made, as not all VMs run: '
                f'{stopped}\nStart them with: lago start'
            )
        create(self, name)

    @functools.wraps(revert)
    def revert_snapshots(self: Any, name: str) -> None:
        without = names_of(
            self, lambda each: name not in each._spec['snapshots']
        )
        if without:
            raise utils.LagoUserException(
                f'Nothing was reverted, as not all VMs have a snapshot '
                f'{name}: {without}\nSee: lago snapshot --list'
            )
        revert(self, name)

    env.create_snapshots = create_snapshots
    env.revert_snapshots = revert_snapshots
    return True


def no_connection() -> bool:
    """A VM that got no connection to libvirt has none to close."""
    provider = vm.LocalLibvirtVMProvider
    if hasattr(provider, 'libvirt_con'):
        return False
    provider.libvirt_con = None
    return True


def vm_address() -> bool:
    """An address is text; 0.46.0 encodes it."""
    fake = SimpleNamespace(
        name=lambda: 'vm',
        mgmt_net=SimpleNamespace(resolve=lambda name: '192.0.2.1'),
    )
    if vm_plugin.VMPlugin.ip(fake) == '192.0.2.1':
        return False
    vm_plugin.VMPlugin.ip = as_text(vm_plugin.VMPlugin.ip)
    return True


def vcpu_number() -> bool:
    """0.46.0 compares the number of virtual CPUs, a string, with 1."""
    original = cpu.CPU.generate_host_passthrough
    if mentions(original, 'int'):
        return False

    @functools.wraps(original)
    def generate(self: Any, vcpu_num: Any) -> Any:
        return original(self, int(vcpu_num))

    cpu.CPU.generate_host_passthrough = generate
    return True


def sysprep_file() -> bool:
    """The commands for virt-sysprep are text; 0.46.0's file is binary."""
    if mentions(sysprep._render_template, 'w'):
        return False
    sysprep.tempfile = StandIn(
        tempfile,
        NamedTemporaryFile=functools.partial(
            tempfile.NamedTemporaryFile, mode='w'
        ),
    )
    return True


def ssh_retry() -> bool:
    """0.46.0 calls `sys.exc_clear`, which Python 3 has no need of.

    It does so after each failed attempt to reach a VM that still boots.
    """
    if (
        not mentions(ssh.wait_for_ssh, 'exc_clear')
        or mentions(ssh.wait_for_ssh, 'PY2')
    ):
        return False
    ssh.sys = StandIn(sys, exc_clear=lambda: None)
    return True


def ssh_streams() -> bool:
    """What comes over ssh is bytes, and so is what the streams take.

    0.46.0 takes it for text. Master decodes each piece by itself, which
    fails when a piece ends within a character.
    """
    original = ssh.drain_ssh_channel
    if mentions(original, 'buffer'):
        return False
    # What reads the result in 0.46.0 wants text, in master bytes.
    wants_bytes = mentions(service.SystemdService.state, 'decode')

    @functools.wraps(original)
    def drain_ssh_channel(
        chan: Any, stdin: Any = None, stdout: Any = _OURS, stderr: Any = _OURS
    ) -> tuple[int, Any, Any]:
        stdout = sys.stdout if stdout is _OURS else stdout
        stderr = sys.stderr if stderr is _OURS else stderr
        out, err = _Drain(chan, stdin, stdout, stderr).run()
        if wants_bytes:
            return chan.exit_status, out, err
        return (
            chan.exit_status,
            out.decode('utf-8', 'replace'), err.decode('utf-8', 'replace')
        )

    ssh.drain_ssh_channel = drain_ssh_channel
    return True


class _Drain:
    """Copies between an ssh channel and streams until the channel closes."""

    def __init__(
        self, chan: Any, stdin: Any, stdout: Any, stderr: Any
    ) -> None:
        self.chan = chan
        self.stdin = stdin
        self.unsent = b''
        self.terminal = stdout
        self.terminal_size: Optional[os.terminal_size] = None
        self.stdout = _binary(stdout)
        self.stderr = _binary(stderr)
        self.out = bytearray()
        self.err = bytearray()

    def run(self) -> tuple[bytes, bytes]:
        self.chan.settimeout(0)
        closed = False
        while not closed:
            # Asked before reading: what came before the end is read too.
            closed = self.chan.closed
            self._resize_terminal()
            self._send(wait=not closed)
            while self.chan.recv_ready():
                piece = self.chan.recv(SSH_CHUNK_BYTES)
                _copy(piece, self.out, self.stdout)
            while self.chan.recv_stderr_ready():
                piece = self.chan.recv_stderr(SSH_CHUNK_BYTES)
                _copy(piece, self.err, self.stderr)
        return bytes(self.out), bytes(self.err)

    def _send(self, wait: bool) -> None:
        """Wait for something to do, and send what was typed."""
        sources = [self.chan] if wait else []
        if wait and self.stdin is not None and not self.unsent:
            sources.append(self.stdin)
        ready, _, _ = select.select(
            sources, [], [], SSH_POLL_SECONDS if wait else 0
        )
        if self.stdin is not None and self.stdin in ready:
            self.unsent = os.read(self.stdin.fileno(), SSH_CHUNK_BYTES)
            if not self.unsent:
                self.stdin = None
                self.chan.shutdown_write()
        if self.unsent and self.chan.send_ready():
            try:
                self.unsent = self.unsent[self.chan.send(self.unsent):]
            except OSError:  # The command ended without reading it.
                self.stdin, self.unsent = None, b''

    def _resize_terminal(self) -> None:
        if self.terminal is None or not self.terminal.isatty():
            return
        size = os.get_terminal_size(self.terminal.fileno())
        if size != self.terminal_size:
            self.terminal_size = size
            # The channel may close at any time.
            with contextlib.suppress(ssh.paramiko.SSHException):
                self.chan.resize_pty(width=size.columns, height=size.lines)


def _binary(stream: Any) -> Optional[BinaryIO]:
    """Get what takes bytes on their way to a text stream."""
    if stream is None:
        return None
    stream.flush()  # Text that waits there comes first.
    binary: BinaryIO = getattr(stream, 'buffer', stream)
    return binary


def _copy(piece: bytes, kept: bytearray, stream: Optional[BinaryIO]) -> None:
    kept += piece
    if stream is not None:
        stream.write(piece)
        stream.flush()


REPAIRS: tuple[Repair, ...] = (
    domain_xml, snapshot_xml, snapshots_of_all, no_connection, vm_address,
    vcpu_number, sysprep_file, ssh_retry, ssh_streams,
)
