"""The repairs of `repair` around libvirt's connections and nets.

All but two are for 0.46.0, whose translation mixes bytes and text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from types import SimpleNamespace
from typing import Any, Iterable, Union

from lago import brctl, subnet_lease, utils, virt
from lago.config import config
from lago.providers.libvirt import network
from lago.providers.libvirt import utils as libvirt_utils

from .repair_tools import Repair, StandIn, as_text, mentions


def net_name() -> bool:
    """A hash needs bytes; 0.46.0 gives it a net's name of over 10 letters."""
    if mentions(virt.VirtEnv.prefixed_name, 'encode'):
        return False
    virt.hashlib = StandIn(
        hashlib, sha1=lambda text: hashlib.sha1(text.encode())
    )
    return True


def libvirt_template() -> bool:
    """`resource_string` returns bytes; 0.46.0 takes them for a string."""
    if mentions(libvirt_utils.get_template, 'decode'):
        return False
    libvirt_utils.get_template = as_text(libvirt_utils.get_template)
    return True


def network_xml() -> bool:
    """libvirt wants text; 0.46.0 gives it what lxml returns, bytes."""
    nat = network.NATNetwork
    if mentions(nat._libvirt_xml, 'decode'):
        return False
    nat._libvirt_xml = as_text(nat._libvirt_xml)
    return True


def bridge_names() -> bool:
    """What a command prints is bytes; 0.46.0 looks for a name in it."""
    if mentions(brctl.exists, 'decode'):
        return False

    def run_command(*args: Any, **kwargs: Any) -> Any:
        status = utils.run_command(*args, **kwargs)
        return status._replace(out=status.out.decode())

    brctl.utils = StandIn(utils, run_command=run_command)
    return True


def libvirt_connection() -> bool:
    """0.46.0 shares one connection, which its first owner closes for all.

    "invalid connection pointer" follows. As in master, each owner gets one.
    """
    shared = getattr(libvirt_utils, 'LIBVIRT_CONNECTIONS', None)
    if shared is None:
        return False
    original = libvirt_utils.get_libvirt_connection

    @functools.wraps(original)
    def get_libvirt_connection(name: str) -> Any:
        connection = original(name)
        shared.pop(name, None)
        return connection

    libvirt_utils.get_libvirt_connection = get_libvirt_connection
    return True


def libvirt_reached() -> bool:
    """A daemon that does not answer is told in one message.

    Every command connects; Lago ends with the traceback of the binding.
    """
    original = libvirt_utils.get_libvirt_connection
    if mentions(original, 'LagoException'):
        return False

    @functools.wraps(original)
    def get_libvirt_connection(name: str) -> Any:
        try:
            return original(name)
        except libvirt_utils.libvirt.libvirtError as error:
            raise utils.LagoException(
                f'No connection to libvirt at {config.get("libvirt_url")}: '
                f'{error}\n'
                f'Start its daemon (libvirtd, or virtqemud with '
                f'virtnetworkd), or set libvirt_url in lago.conf.'
            ) from error

    libvirt_utils.get_libvirt_connection = get_libvirt_connection
    # A net that got no connection has none to close.
    network.Network.libvirt_con = None
    return True


def bridge_lease() -> bool:
    """A bridge has no subnet, hence no lease to give back.

    Lago tries to, in master too: "Address None/24 is not a valid ip address".
    So an environment with a bridge could never be destroyed.
    """
    store = subnet_lease.SubnetStore
    original = store.release
    tried: list[Any] = []
    original(SimpleNamespace(
        _create_lock=contextlib.nullcontext, _release=lambda lease: None,
        create_lease_object_from_subnet=tried.append,
    ), ['None'])
    if not tried:
        return False

    @functools.wraps(original)
    def release(self: Any, subnets: Union[str, Iterable[Any]]) -> None:
        if not isinstance(subnets, (str, subnet_lease.IPNetwork)):
            # Prefix.destroy passes the gateways of all nets through str().
            subnets = [each for each in subnets if each != 'None']
        original(self, subnets)

    store.release = release
    return True


REPAIRS: tuple[Repair, ...] = (
    net_name, libvirt_template, network_xml, bridge_names,
    libvirt_connection, libvirt_reached, bridge_lease,
)
