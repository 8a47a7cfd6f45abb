"""Join two TUN devices by a line with latency; for kernels without netem.

    delay.py NEAR FAR MILLISECONDS

Run in a process of its own, as root. It makes the two devices, prints a
line, and then hands each packet of the one to the other after the time
given. With the headers of virtio the kernel hands over what it would give to
a network card that cuts packets itself, up to 64 KiB: so the packets on the
line are those of an MTU of 1500, and windows grow as they would there, while
there is little to do here.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from typing import Deque, Dict, List, Tuple

#: See linux/if_tun.h.
TUNSETIFF = 0x400454ca
TUNSETOFFLOAD = 0x400454d0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02

#: The largest packet of IP, and the header of virtio.
PACKET_BYTES = (1 << 16) + 64
TICK_SECONDS = 0.001


def open_device(name: str) -> int:
    """Make a TUN device, which lives as long as its file descriptor."""
    device = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
    request = struct.pack('16sH22x', name.encode(), flags)
    fcntl.ioctl(device, TUNSETIFF, request)
    fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return device


def relay(devices: List[int], seconds: float) -> None:
    """Carry packets both ways, for ever."""
    held: Deque[Tuple[float, int, bytearray, int]] = collections.deque()
    # Used again and again: fresh memory would cost more than the copying.
    free: List[bytearray] = []
    other: Dict[int, int] = dict(zip(devices, devices[::-1]))
    while True:
        if held:
            # To be woken by each packet would take twice the time.
            time.sleep(TICK_SECONDS)
        else:
            select.select(devices, [], [])
        due = time.monotonic() + seconds - TICK_SECONDS / 2
        for device in devices:
            # A device that is not up yet, or not any more, reports errors,
            # as does one that has no packet.
            with contextlib.suppress(OSError):
                while True:
                    if not free:
                        free.append(bytearray(PACKET_BYTES))
                    length = os.readv(device, free[-1:])
                    held.append((due, other[device], free.pop(), length))
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, device, packet, length = held.popleft()
            with contextlib.suppress(OSError):
                os.write(device, memoryview(packet)[:length])
            free.append(packet)


def main(near: str, far: str, milliseconds: str) -> None:
    devices = [open_device(near), open_device(far)]
    # A line does not wait for a processor.
    with contextlib.suppress(OSError):
        os.nice(-20)
    print('ready', flush=True)
    relay(devices, float(milliseconds) / 1000)


if __name__ == '__main__':
    main(*sys.argv[1:])
