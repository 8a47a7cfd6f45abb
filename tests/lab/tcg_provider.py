"""A VM provider for Lago: its own one, for machines without KVM.

A plugin of its own in a test's environment; the tests never import it. What
differs from Lago's provider: the type of the domain, no CPU of the host, no
vhost-net; and a serial port whose output is kept in a file.
"""

from __future__ import annotations

import os
from typing import Any
from xml.etree import ElementTree

from lago.providers.libvirt.vm import LocalLibvirtVMProvider


class TcgProvider(LocalLibvirtVMProvider):
    """Starts domains that QEMU emulates."""

    def _libvirt_xml(self) -> bytes:
        # Like Lago's, it returns bytes.
        domain: Any = ElementTree.fromstring(super()._libvirt_xml())
        domain.set('type', 'qemu')
        domain.remove(domain.find('cpu'))
        devices = domain.find('devices')
        for interface in devices.findall('interface'):
            interface.remove(interface.find('driver'))
        serial = ElementTree.SubElement(devices, 'serial', type='pty')
        console = os.path.join(
            self.vm.virt_env.prefix.paths.logs(), f'{self.vm.name()}.console'
        )
        ElementTree.SubElement(serial, 'log', file=console, append='on')
        return ElementTree.tostring(domain)
