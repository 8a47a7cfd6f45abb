"""What `lago init` does with templates, on Lago's own objects.

`lago_plugin` puts these functions in the place of Lago's; it is imported by
every `lago` command, this module only when templates are wanted.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
)

import lago.log_utils
import lago.plugins
import lago.utils
from lago.config import config
from lago.constants import CONFIG_DEFAULTS

from ..core import errors
from ..core.initfile import REPOSITORIES
from ..core.model import BaseName
from ..environments import environment, survey
from ..environments.template_store import TemplateStore
from ..repositories.template_repository import TemplateRepository
from ..repositories.where import ByName, ByPath, Repository, search_order
from ..settings import read_flag
from ..store import Usage
from ..tools import disk_tools, files, qemu_img
from ..tools.disk_tools import CUSTOMIZE, GUESTFS_HINT, SYSPREP
from . import messages, prefix_notes
from .config import Options, find_repos_directory, read_lago_settings

LOGGER = logging.getLogger(__name__)

#: Set on a prefix: what was read of its init file.
ENVIRONMENT = '_layered_environment'

KEYGEN = 'ssh-keygen'

HINTS = {
    KEYGEN: 'Install it (Debian: openssh-client, Fedora: openssh).',
    CUSTOMIZE: f'{GUESTFS_HINT} Or use --skip-build.',
    SYSPREP: f'{GUESTFS_HINT} Or use --skip-bootstrap.',
}

#: The repository that Lago is configured to use when nobody says anything.
LAGO_PATH = CONFIG_DEFAULTS['init']['template_repo_path']


def read_environment(
    conf: object, given: TemplateRepository, path: Optional[str]
) -> environment.Environment:
    """Read the loaded init file of an environment.

    Args:
        given: what Lago was given as its repository.
        path: of the init file, None where there is none.

    Raises:
        IndexFaults, LocalLayerError: it cannot be used.
    """
    return environment.read_environment(conf, *_find_start(given), path)


def find_repositories(
    conf: object, given: TemplateRepository, path: Optional[str]
) -> TemplateRepository:
    """Return where `lago init` would look for templates.

    Args:
        conf: the loaded init file.
        given: what was named on the command line, or Lago's default.
        path: of the init file, None where there is none.

    Raises:
        IndexFaults: what the file says of repositories is faulty.
    """
    given, default, repos_directory = _find_start(given)
    if path is None:
        return given.searched_in(
            search_order(given.repositories, (), default)
        )
    return environment.find_repositories(
        conf, given, default, repos_directory, path
    )


def _find_start(
    given: TemplateRepository
) -> Tuple[TemplateRepository, Optional[Repository], str]:
    """Return what somebody named, what is configured, and `template_repos`.

    A path wins over a name, as in Lago. But a path is always configured, at
    least Lago's own, and hides no name that is said more plainly: a given one
    comes before a configured path, a configured one before Lago's own path.
    """
    section = config.get_section('init', {})
    directory = find_repos_directory()
    path, name = (
        section.get(key) for key in ('template_repo_path',
                                     'template_repo_name')
    )
    configured = ByPath(path) if path else None
    named = [each for each in given.repositories if each != configured]
    said = Options.template_repo_name
    if said and said != name and not named:
        named += _find_by_name(ByName(said, directory), configured)
    default: Optional[Repository] = configured
    if name and path in (None, '', LAGO_PATH):
        default = ByName(name, directory)
    return given.searched_in(named), default, directory


def _find_by_name(
    by_name: ByName, configured: Optional[ByPath]
) -> List[Repository]:
    """Return the repository of a given name; there need not be one."""
    settings = read_lago_settings()
    if configured is None or by_name.is_there(settings):
        return [by_name]
    messages.warn(
        f'Repository {by_name.name!r} is not in {by_name.directory}; using '
        f'{configured.location}, the configured one.'
    )
    return []


def prepare_images(
    prepare: Callable[..., Any],
    prefix: Any,
    conf: Any,
    template_repo: Any,
    template_store: Any,
) -> Any:
    """Bring all templates into the store, then let Lago make the disks.

    Until the store knows who uses its images, no prune may take them.

    Args:
        prepare: Lago's own method.
    """
    if not isinstance(template_store, TemplateStore):
        return prepare(prefix, conf, template_repo, template_store)
    init_file = getattr(prefix, prefix_notes.INIT_FILE, None)
    found = read_environment(conf, template_repo, init_file)
    check_host(conf, *getattr(prefix, prefix_notes.TASKS, (False, False)))
    if not (found.disks or found.layers):
        # Such an environment needs no store, and there may be none.
        return prepare(prefix, conf, template_repo, template_store)
    if read_flag('locked', Options.locked):
        from ..environments import lock_file

        found = lock_file.hold(found, init_file)
    root = template_store.store.root
    with Usage(root).using(
        read_lago_settings().lock_timeout,
        lambda holder: messages.warn(f'{root}: waiting for {holder}'),
    ):
        provide(prefix, conf, found, template_store)
        conf = prepare(prefix, conf, found.repository, template_store)
        _note_usage(prefix, root, survey.disk_names(conf['domains']))
    return conf


def check_host(conf: Any, do_bootstrap: bool, do_build: bool) -> None:
    """Look for what Lago will need, before anything is fetched.

    Args:
        conf: the loaded init file.
        do_bootstrap: virt-sysprep is to prepare the VMs that allow it.
        do_build: virt-customize is to do what disks name.

    Raises:
        NotReady: something is missing; all of it.
    """
    from lago.providers.libvirt.vm import LocalLibvirtVMProvider

    providers = lago.plugins.load_plugins(
        lago.plugins.PLUGIN_ENTRY_POINTS['vm-provider'], instantiate=False
    )
    checks: Dict[str, Callable[[], None]] = {}
    # Nets need a connection even where no VM does.
    if conf.get('nets'):
        checks['libvirt'] = _connect
    for domain in conf['domains'].values():
        spec = {**(domain.get('based-on') or {}), **domain}
        disks = spec.get('disks') or []
        if disks:
            checks[qemu_img.TOOL] = qemu_img.require
        if do_build and any(disk.get('build') for disk in disks):
            checks[CUSTOMIZE] = functools.partial(require, CUSTOMIZE)
        provider = providers.get(
            spec.get('vm-provider', config.get('default_vm_provider'))
        )
        if provider and issubclass(provider, LocalLibvirtVMProvider):
            checks['libvirt'] = _connect
            if (
                do_bootstrap and spec.get('bootstrap', True) and disks
                and disks[0].get('type') != 'empty'
                and disks[0].get('format') != 'iso'
            ):
                checks[SYSPREP] = functools.partial(require, SYSPREP)
    _check_all(checks.values())


def _check_all(checks: Iterable[Callable[[], None]]) -> None:
    lacking = []
    for check in checks:
        try:
            check()
        except (errors.LayeredError, lago.utils.LagoException) as error:
            lacking.append(str(error))
    if lacking:
        raise errors.NotReady('The environment cannot be made', lacking)


def require(tool: str) -> None:
    """Make sure that a program is installed that `lago init` will run.

    Raises:
        ToolError: it is not.
    """
    if disk_tools.find_missing([tool]):
        raise errors.ToolError([tool], stderr='not found', hint=HINTS[tool])


def _connect() -> None:
    from lago.providers.libvirt import utils as libvirt_utils

    libvirt_utils.get_libvirt_connection('before init').close()


def note_move(prefix: Any, root: str) -> None:
    """Tell the store where a prefix is now; Lago's command goes on anyway."""
    # The command may only want to look, and with fewer rights.
    with contextlib.suppress(OSError, errors.LayeredError):
        _note_usage(prefix, root, {})
        prefix._save_metadata()


def _note_usage(prefix: Any, root: str, names: survey.DiskNames) -> None:
    """Tell the store which of its images the disks of a prefix stand on."""
    path = prefix.paths.prefix_path()
    found = survey.read_note(path, root, names)
    if not found.note.uses:
        return
    prefix.metadata[prefix_notes.NOTED] = {'store': root, 'prefix': path}
    try:
        Usage(root).note(found.note)
    except errors.LayeredError as error:
        messages.warn(
            f'{error.message}; it will not know of this environment, and '
            f'somebody may remove what it stands on.'
        )


def provide(
    prefix: Any,
    conf: Any,
    found: environment.Environment,
    template_store: TemplateStore,
) -> None:
    """Bring all templates into the store; let Lago's objects know of them."""
    with lago.log_utils.LogTask('Fetch templates', logger=LOGGER):
        found.provide(template_store)
    setattr(prefix, ENVIRONMENT, found)
    _name_locations(conf, found.locations)
    _recall_metadata(conf, found.layers)
    prefix.metadata[REPOSITORIES] = found.saved_repositories()


def _name_locations(conf: Any, locations: Mapping[str, str]) -> None:
    """Let disks name their repositories as they will be saved."""
    for disk in _disks(conf):
        if disk.get(REPOSITORIES) in locations:
            disk[REPOSITORIES] = locations[disk[REPOSITORIES]]


def _disks(conf: Any) -> Iterator[Dict[str, Any]]:
    for domain in conf['domains'].values():
        prototype = domain.get('based-on') or {}
        yield from domain.get('disks') or prototype.get('disks') or []


def _recall_metadata(conf: Any, layers: Collection[str]) -> None:
    """Let disks on exported files know what the export wrote beside them.

    Lago leaves it out of the exported init file.
    """
    for disk in _disks(conf):
        path = os.path.abspath(os.path.expandvars(str(disk.get('path', ''))))
        if path in layers and 'metadata' not in disk:
            with contextlib.suppress(OSError, ValueError):
                with files.open_text(f'{path}.metadata') as stream:
                    said = json.load(stream)
                if isinstance(said, dict):
                    disk['metadata'] = said


def stand_on_template(
    handle_template: Any,
    prefix: Any,
    disk_path: str,
    template_spec: Dict[str, Any],
    template_store: Any,
    template_repo: Any,
) -> Tuple[List[str], Any, str]:
    """Let Lago make the command for a disk; tell it repository and format.

    qemu-img refuses to guess the base's format since 6.1, and a guess by the
    first bytes of a raw image is in the hands of whoever wrote into that
    guest.
    """
    if not isinstance(template_store, TemplateStore):
        result: Tuple[List[str], Any, str] = handle_template(
            prefix, disk_path, template_spec, template_store, template_repo
        )
        return result
    found: Optional[environment.Environment] = getattr(
        prefix, ENVIRONMENT, None
    )
    if found:
        wanted = found.wanted_by(template_spec)
        template_repo = template_repo.only(wanted.repository, wanted.pins)
    command, metadata, base = handle_template(
        prefix, disk_path, template_spec, template_store, template_repo
    )
    image = template_repo.get_by_name(
        template_spec['template_name']
    ).get_version(template_spec.get('template_version')).image
    # Not into the spec of the disk, which Lago shows and exports.
    images = prefix.metadata.setdefault(prefix_notes.IMAGES, {})
    images[os.path.basename(disk_path)] = str(BaseName(
        image.ref.template, image.ref.version, image.ref.repository
    ))
    at = command.index('-b')
    form = template_store.get_format(base)
    return [*command[:at], '-F', form, *command[at:]], metadata, base


def has_parent(prefix: Any, disk_path: str) -> bool:
    """Tell whether `provide` has seen to what a file stands on.

    Lago itself would look for the parent of the file alone, and would keep
    a link that leads nowhere.
    """
    found: Optional[environment.Environment] = getattr(
        prefix, ENVIRONMENT, None
    )
    path = os.path.abspath(os.path.expandvars(disk_path))
    return found is not None and path in found.layers
