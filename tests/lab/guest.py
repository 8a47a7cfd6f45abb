"""The tiny Linux as a guest that Lago can work with.

It goes on running after it has printed its layers: it gets an address by
DHCP, root can log in over ssh, and it answers what QEMU's guest agent is
asked for a snapshot. The partition is mounted at /mnt and can be written.

All that is a second initramfs behind the first one of the image: the kernel
unpacks both, and of two files with one name the second one stays.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import tempfile
from pathlib import Path
from typing import Dict, List, Tuple

from .commands import find, require, run
from .fat_disk import partition
from .images import flatten
from .kernel import cpio, get_kernel
from .tiny_linux import SYSLINUX_CFG, TinyLinux

#: In the order in which they can be loaded, after those of ``kernel``.
MODULES = ('failover', 'net_failover', 'virtio_net', 'virtio_console')

#: Of a boot, on the console, before it can be reached.
LAST_WORDS = 'tiny linux: end'

INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /etc/dropbear /root
mount -t devpts devpts /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in /modules/*.ko; do insmod $module; done
tries=0
while [ ! -b /dev/vda1 ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
mount -t vfat -o sync /dev/vda1 /mnt
echo
echo "tiny linux: booted from a disk with these layers, base first"
for file in /mnt/layers/*.txt; do
    echo "layer: $(cat $file)"
done
ip link set lo up
ip link set eth0 up
udhcpc -q -t 100 -T 1 -i eth0 -s /sbin/have-lease
/sbin/agent &
echo "{LAST_WORDS}"
dropbear -R -P /dropbear.pid
while :; do sleep 3600; done
"""

HAVE_LEASE = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev $interface
echo "tiny linux: address $ip"
"""

#: What libvirt asks before and after a snapshot. FAT cannot be frozen; it is
#: mounted so that nothing waits to be written.
AGENT = """\
#!/bin/sh
port=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name)
port=${port%/name}
exec 3<>/dev/${port##*/}
while :; do
    read -r asked <&3 || { sleep 0.1; continue; }
    case $asked in
    *guest-sync*)
        answer=$(echo "$asked" | sed 's/.*"id" *: *\\([0-9]*\\).*/\\1/') ;;
    *guest-shutdown*reboot*) reboot -f ;;
    *guest-shutdown*) poweroff -f ;;
    *) answer=1 ;;
    esac
    echo "tiny linux: asked $asked" >/dev/console
    echo "{\\"return\\": $answer}" >&3
done
"""

#: Lago takes it for granted.
BASH = '#!/bin/sh\nexec sh "$@"\n'

#: How Lago finds out that an agent runs.
SERVICE = """\
#!/bin/sh
[ "$1 $2" = 'qemu-guest-agent status' ]
"""

#: The password is Lago's default, 123456.
PASSWORD = '$5$lagolab$G9oYQhnVLcqBKDfzfQq3VI0MqPBGStf8tQdAIEfwBY5'
PASSWD = f'root:{PASSWORD}:0:0:root:/root:/bin/sh\n'

#: File -> mode and content.
FILES: Dict[str, Tuple[int, str]] = {
    'init': (0o755, INIT),
    'bin/bash': (0o755, BASH),
    'sbin/have-lease': (0o755, HAVE_LEASE),
    'sbin/agent': (0o755, AGENT),
    'sbin/service': (0o755, SERVICE),
    'etc/passwd': (0o644, PASSWD),
}


class GuestLinux(TinyLinux):
    """Makes images as ``TinyLinux`` does, of a guest that goes on running."""

    def base(self, path: Path, marker: str, *, payload_mib: int = 0) -> Path:
        """Write the bootable image with its first marker to ``path``."""
        require('dropbear', 'ldd')
        super().base(path, marker, payload_mib=payload_mib)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            raw = flatten(path, Path(scratch, 'raw'), form='raw')
            second = Path(scratch, 'guest.gz')
            with gzip.GzipFile(second, 'wb', 6, mtime=0) as stream:
                for piece in cpio(self._entries()):
                    stream.write(piece)
            config = Path(scratch, 'syslinux.cfg')
            config.write_text(SYSLINUX_CFG.replace(
                'initrd=initrd.gz', 'initrd=initrd.gz,guest.gz'
            ))
            run('mcopy', '-o', '-i', partition(raw), second, config, '::')
            run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, path)
        return path

    def _entries(self) -> List[Tuple[str, int, bytes]]:
        files = {
            name: (mode, text.encode()) for name, (mode, text) in FILES.items()
        }
        for path in with_libraries('dropbear'):
            files[str(path).lstrip('/')] = (0o755, path.read_bytes())
        modules = get_kernel(self.cache).modules
        for number, name in enumerate(MODULES, 50):
            for path in modules.rglob(f'{name}.ko*'):
                files[f'modules/{number}-{name}.ko'] = 0o644, unpacked(path)
        directories = {
            str(parent) for name in files for parent in Path(name).parents
        } - {'.'}
        return [
            *((name, stat.S_IFDIR | 0o755, b'')
              for name in sorted(directories)),
            *((name, stat.S_IFREG | mode, data)
              for name, (mode, data) in files.items()),
        ]


def unpacked(module: Path) -> bytes:
    """Return the bytes of a kernel's module, which may be compressed."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == '.xz' else data


def with_libraries(tool: str) -> List[Path]:
    """Return a program's file and those of its libraries and its loader."""
    program = find(tool) or tool
    libraries = re.findall(r'(/\S+) \(0x', run('ldd', program))
    return [Path(program), *map(Path, libraries)]
