"""What today's Python, PyYAML and qemu need and Lago lacks.

Lago is at its end of life: nothing will be mended there. So its functions
are repaired in memory when our plugin is loaded. Each repair looks at Lago
first and leaves alone what works; none changes what Lago does beyond making
it work. What concerns templates is replaced by `lago_plugin` and not
repaired here. Connections and nets are in `repair_libvirt`, recovery
from a killed init is in `repair_prefix`, the log in `repair_log`;
what only VMs need is in `repair_vms`, because Lago imports that part
late.

Two Lagos are meant: 0.46.0 translated to Python 3, whose text still mixes
bytes and text, and git master, which was written for the Python, PyYAML and
qemu of 2020.
"""

from __future__ import annotations

import collections
import collections.abc
import copy
import functools
import hashlib
import io
import logging
import os
import warnings
from typing import Any, Iterable, Iterator, Optional, Sequence

from lago import utils, virt
from lago.config import config
from lago.plugins import output

from ..tools import files
from . import repair_libvirt, repair_log, repair_prefix
from .repair_tools import Repair, StandIn, mentions

LOGGER = logging.getLogger(__name__)

HASH_CHUNK_BYTES = 1024 * 1024

_applied: list[str] = []
_tried: set[Repair] = set()


def command_status() -> bool:
    """`__bool__` has to return a bool; 0.46.0 returns the exit status."""
    try:
        bool(utils.CommandStatus(1, '', ''))
    except TypeError:
        utils.CommandStatus.__bool__ = lambda self: self.code != 0
        return True
    return False


def yaml_loader() -> bool:
    """`yaml.load` needs a Loader since PyYAML 6.

    An init file holds plain data, so the safe one gives the same result.
    """
    try:
        utils.load_virt_stream(io.StringIO('nets: {}'))
    except TypeError:
        utils.yaml = StandIn(utils.yaml, load=utils.yaml.safe_load)
        return True
    return False


def file_hash() -> bool:
    """A hash is one of bytes; 0.46.0 reads the file as text."""
    if mentions(utils.get_hash, 'rb'):
        return False

    @functools.wraps(utils.get_hash)
    def get_hash(file_path: str, checksum: str = 'sha1') -> str:
        digest = hashlib.new(checksum)
        with files.open_binary(file_path) as stream:
            while chunk := stream.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    utils.get_hash = get_hash
    return True


def abstract_mapping() -> bool:
    """`collections.Mapping` is in `collections.abc` only since Python 3.10.

    Without it the commands status, list and export fail.
    """
    with warnings.catch_warnings():
        # Python 3.9 still has it, and warns.
        warnings.simplefilter('ignore', DeprecationWarning)
        if hasattr(utils.collections, 'Mapping'):
            return False
    complete = StandIn(collections, Mapping=collections.abc.Mapping)
    utils.collections = output.collections = complete
    return True


def flat_lists() -> bool:
    """The format `flat` knows lists only where a key names them.

    So `lago list` fails, and of several values under a key the second one
    has the first one before it.
    """
    plugin = output.FlatOutFormatPlugin
    try:
        if plugin().format([{'a': ['b', 'c']}, 'd']) == 'a: b\na: c\nd':
            return False
    except (AttributeError, IndexError):
        pass

    def format_flat(self: Any, info_dict: Any, delimiter: str = '/') -> str:
        if isinstance(info_dict, collections.abc.Mapping):
            info_dict = info_dict.get('Prefix') or info_dict
        return '\n'.join(
            f'{delimiter.join(way)}: {value}' if way else str(value)
            for way, value in _leaves(info_dict)
        )

    plugin.format = format_flat
    return True


def _leaves(value: Any, way: tuple[str, ...] = ()) -> Iterator[
    tuple[tuple[str, ...], Any]
]:
    """Yield the values of a tree, each with the keys that lead to it."""
    if isinstance(value, collections.abc.Mapping):
        for key in sorted(value):
            yield from _leaves(value[key], (*way, str(key)))
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, way)
    else:
        yield way, value


def version_order() -> bool:
    """`ver_cmp` of 0.46.0 calls `cmp`, which Python 3 does not have."""
    try:
        utils.ver_cmp('1', '2')
    except NameError:
        utils.cmp = lambda one, other: (one > other) - (one < other)
        return True
    return False


def exception_message() -> bool:
    """Exceptions have no `message` in Python 3.

    0.46.0 prints it for each of its errors, and `filter_spec` sets it.
    """
    if not mentions(utils.filter_spec, 'message'):
        return False

    def set_message(self: Exception, message: str) -> None:
        self.args = (message, ) + self.args[1:]

    utils.LagoException.message = property(str, set_message)
    return True


def command_path() -> bool:
    """Commands are sought in $PATH in its order.

    Lago makes a `set` of it, so with two qemu-img chance tells which one.
    """
    if not mentions(utils._run_command, 'set'):
        return False
    # Nothing else in the module asks for a set.
    utils.set = dict.fromkeys
    return True


def backing_format() -> bool:
    """qemu-img >= 6.1 refuses a backing file without its format (-F).

    That concerns every template disk, the layered export and reverting to a
    snapshot. All of them go through `run_command`, so it is mended there,
    once; a command that names the format already stays as it is, which also
    is why there is nothing to look at beforehand.
    """
    original = utils.run_command

    @functools.wraps(original)
    def run_command(command: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        return original(name_backing_format(command), *args, **kwargs)

    utils.run_command = run_command
    return True


def name_backing_format(command: Sequence[str]) -> Sequence[str]:
    """Add `-F FORMAT` to a qemu-img command that has only `-b FILE`."""
    words = list(command)
    if (
        words[:1] != ['qemu-img'] or words[1:2] not in (['create'], ['rebase'])
        or '-b' not in words[:-2] or '-F' in words
    ):
        return command
    option = words.index('-b')
    # Lago leaves $LAGO_PREFIX_PATH and the like to the shell.
    backing, target = map(os.path.expandvars, words[option + 1:option + 3])
    found = _format_of_backing(backing, target) if backing else None
    if found is None:
        return command
    return words[:option] + ['-F', found] + words[option:]


def _format_of_backing(backing: str, target: str) -> Optional[str]:
    """Find the format of the backing file that an image is to get.

    Returns:
        None if there is no such file: qemu-img then says so.
    """
    found = _format_of(os.path.join(os.path.dirname(target), backing))
    if found is None and os.path.exists(target):
        # `lago export` names a base that need not lie beside the layer
        # (rebase -u): it is the present one under another name.
        info = utils.get_qemu_info(target)
        found = info.get('backing-filename-format') or _format_of(
            info.get('full-backing-filename', '')
        )
    return found


def _format_of(path: str) -> Optional[str]:
    """Tell qcow2 from raw; a template is nothing else."""
    # Here, as most commands of Lago touch no image.
    from ..formats.qcow2 import is_qcow2
    try:
        with files.open_binary(path) as stream:
            return 'qcow2' if is_qcow2(stream.read(512)) else 'raw'
    except OSError:
        return None


def configuration_sections() -> bool:
    """`sdk.init` writes its arguments into the configuration's own section.

    So they would be the defaults of the next `sdk.init` in the process.
    """
    if config.get_section('init') is not config.get_section('init'):
        return False
    original = config.get_section

    @functools.wraps(original)
    def get_section(*args: Any) -> Any:
        return copy.copy(original(*args))

    config.get_section = get_section
    return True


def running_vms() -> bool:
    """See to it that `repair_vms` gets its turn.

    A `VirtEnv` is what imports the modules concerned, so they are repaired
    then. All other commands are spared that import.
    """
    original = virt.VirtEnv.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        from . import repair_vms
        apply(repair_vms.REPAIRS)
        original(self, *args, **kwargs)

    virt.VirtEnv.__init__ = init
    return True


REPAIRS: tuple[Repair, ...] = (
    command_status, yaml_loader, file_hash, abstract_mapping, flat_lists,
    version_order, exception_message, command_path, backing_format,
    *repair_libvirt.REPAIRS, *repair_prefix.REPAIRS,
    *repair_log.REPAIRS,
    configuration_sections, running_vms,
)


def repair() -> tuple[str, ...]:
    """Repair the Lago of this process; a second call changes nothing.

    Returns:
        The names of all repairs that this Lago needed so far.
    """
    return apply(REPAIRS)


def apply(repairs: Iterable[Repair]) -> tuple[str, ...]:
    """Apply each of the repairs unless that was tried before."""
    for each in repairs:
        if each in _tried:
            continue
        _tried.add(each)
        try:
            needed = each()
        except Exception:
            # A Lago that is not the one we know may do without it, and an
            # exception here would keep every command of Lago from running.
            LOGGER.warning(
                'Cannot repair %s of this Lago', each.__name__, exc_info=True
            )
            continue
        if needed:
            _applied.append(each.__name__)
    return tuple(_applied)
