"""A libvirt of its own: daemons, networks and VMs that nobody else sees.

The system's daemon has fixed places (/run/libvirt, bridges, rules of the
firewall), so there can only be a second one where these are others: in
namespaces. Inside are empty directories for it, a network that leads nowhere
and its own processes; outside nothing changes. All of it, VMs included, ends
with the process that holds the namespaces. ``lago`` has to run inside as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, List, Mapping, Optional, Type

from .commands import SYSTEM_PATH, require, run, unavailable
from .environments import Disks, LagoSandbox

URL = 'qemu:///system'
TOOLS = (
    'libvirtd', 'virtlogd', 'virsh', 'dnsmasq', 'iptables', 'ip',
    'qemu-system-x86_64', 'unshare', 'nsenter', 'mount',
)
POLL_SECONDS = 0.1

#: libvirt wants the user that Debian builds it for, even when it is told to
#: use another one. The package that creates it would start a system's daemon.
#: The last command waits for the end; it is what keeps the namespaces.
INSIDE = """\
set -e
ip link set lo up
for directory in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt \
        /var/log/libvirt; do
    mkdir -p $directory
    mount -t tmpfs none $directory
done
mkdir /run/lock
{ cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/:/bin/false'; } \
    >/run/passwd
{ cat /etc/group; echo 'libvirt-qemu:x:64055:'; } >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
printf '%s' "$QEMU_CONF" >/etc/libvirt/qemu.conf
printf '%s' "$LIBVIRTD_CONF" >/etc/libvirt/libvirtd.conf
virtlogd -d
libvirtd -d
echo here
cat
"""

#: QEMU's usual user may not look into the directories of tests. The control
#: groups are those of the machine, hence not ours.
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
"""

LIBVIRTD_CONF = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""

ENTRY_POINTS = """\
[lago.plugins.vm_provider]
tcg = tcg_provider:TcgProvider
"""


class Libvirt:
    """The daemons, as a context manager."""

    def __init__(self) -> None:
        self._holder: Optional[subprocess.Popen[str]] = None

    def __enter__(self) -> Libvirt:
        require(*TOOLS)
        if os.geteuid() != 0:
            unavailable('a libvirt of its own needs root')
        self._holder = subprocess.Popen(
            ['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child',
             '--mount-proc', 'sh', '-c', INSIDE],
            env={**os.environ, 'LC_ALL': 'C', 'QEMU_CONF': QEMU_CONF,
                 'LIBVIRTD_CONF': LIBVIRTD_CONF,
                 'PATH': f'{os.environ.get("PATH", "")}:{SYSTEM_PATH}'},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, encoding='utf-8',
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _wait_until_ready(self) -> None:
        assert self._holder and self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != 'here\n':
            reason = self._holder.stderr.read().strip()
            unavailable(f'no libvirt in namespaces here: {reason}')
        # The daemon goes into the background when its socket is there.
        self.virsh('uri')

    def close(self) -> None:
        """End all processes inside, and with them the namespaces."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    def enter(self, directory: Path) -> List[str]:
        """Return the words before a command that runs inside."""
        assert self._holder is not None
        holder = self._holder.pid
        children = Path(f'/proc/{holder}/task/{holder}/children').read_text()
        return [
            'nsenter', '--target', children.split()[0], '--mount', '--net',
            '--pid', 'env', f'--chdir={directory}',
        ]

    def run(self, *command: str) -> str:
        """Run a tool inside and return what it printed."""
        return run(*self.enter(Path('/')), *command)

    def virsh(self, *words: str) -> str:
        """Run a command of virsh and return what it printed."""
        return self.run('virsh', '--quiet', '--connect', URL, *words)

    def domains(self) -> List[str]:
        """Return the names of all domains, running or not."""
        return self.virsh('list', '--all', '--name').split()

    def networks(self) -> List[str]:
        """Return the names of all networks, active or not."""
        return self.virsh('net-list', '--all', '--name').split()

    def processes(self) -> List[str]:
        """Return the programs that run inside, sorted."""
        names = self.run('sh', '-c', 'cat /proc/[0-9]*/comm')
        return sorted(names.splitlines())

    def links(self) -> List[str]:
        """Return the interfaces of the network inside, sorted."""
        lines = self.run('cat', '/proc/net/dev').splitlines()[2:]
        return sorted(line.split(':')[0].strip() for line in lines)

    def sandbox(
        self, root: Path, vms: Mapping[str, Disks], repo: Path
    ) -> LagoSandbox:
        """Return an environment inside, whose VMs QEMU emulates."""
        root.mkdir(parents=True)
        plugins = install_provider(root / 'plugins')
        box = LagoSandbox(
            root, vms, repo=repo,
            config={'lago': {'default_vm_provider': 'tcg'}},
            env={'LAGO_LIBVIRT_URL': URL, 'PYTHONPATH': str(plugins)},
        )
        box.prefix_command = self.enter(box.root)
        return box


def install_provider(directory: Path) -> Path:
    """Write the VM provider as an installed package to a directory.

    Returns:
        What Python has to find in its path.
    """
    info = directory / 'tcg_provider-1.0.dist-info'
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name('tcg_provider.py'), directory)
    (info / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: tcg-provider\nVersion: 1.0\n'
    )
    (info / 'entry_points.txt').write_text(ENTRY_POINTS)
    return directory


def wait_until(happened: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not in time.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f'not so after {seconds} s')
        time.sleep(POLL_SECONDS)
