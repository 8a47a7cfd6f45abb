"""Hooks into Lago; with `lago_repair` the only module that patches it.

Lago loads it as the plugin of the verb `template-repo`, before it runs any
verb; `import lago_layered_provider.lago_plugin` does the same for users of
`lago.sdk`. What is replaced are names that Lago looks up when it uses them:
the classes of `lago.templates`, and two methods of `lago.prefix.Prefix`.

The way of a `lago init`: `TemplateRepository.from_url` and `TemplateStore`
only remember where things are. Then `Prefix` prepares the images of all
domains: first `_provide_templates` brings the chains of all of them into the
store, then Lago makes the disks, one by one, and finds everything there.

Every `lago` command pays for this import, also those that have nothing to do
with templates: what is needed only sometimes is imported where it is used.
"""

from __future__ import annotations

import functools
import logging
import shutil
import signal
from typing import TYPE_CHECKING, Any, Callable, Optional

import lago.cmd
import lago.log_utils
import lago.prefix
import lago.templates
import lago.utils
import yaml
from lago.config import config
from lago.plugins.cli import CLIPlugin

from . import lago_repair, qemu_img
from .core import errors

if TYPE_CHECKING:
    from . import repository
    from .settings import Settings

LOGGER = logging.getLogger(__name__)
SECTION = 'template_repo'

MESSAGE_COLUMNS = 79

#: Set on what we have put in place of Lago's, so that it is done once.
MARK = '_lago_layered_provider'

Function = Callable[..., Any]


def as_lago_errors(function: Function) -> Function:
    """Turn our errors into Lago's: one message, exit status 2."""
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (errors.ResolveError, errors.IndexFaults) as error:
            raise lago.utils.LagoUserException(_fold(str(error))) from error
        except errors.LayeredError as error:
            raise lago.utils.LagoException(_fold(str(error))) from error

    return wrapper


def _fold(text: str) -> str:
    """Break lines at 79 columns, where words allow; indents stay."""
    import textwrap

    folded = []
    for line in text.splitlines():
        indent = ' ' * (len(line) - len(line.lstrip(' -')))
        folded += textwrap.wrap(
            line, MESSAGE_COLUMNS, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )
    return '\n'.join(folded)


def read_lago_settings() -> Settings:
    """Return the settings of lago.conf and of the environment."""
    from .settings import read_settings

    return read_settings(config.get_section(SECTION, {}))


def warn(text: str) -> None:
    """Log a warning so that people see it: Lago shows errors only."""
    # Its mark for such a message does not reach over the end of a line.
    line = ' '.join(text.split())
    LOGGER.warning(lago.log_utils.log_always(line))


class TemplateRepository:
    """Stands for Lago's class of that name, which has one constructor."""

    @staticmethod
    def from_url(path: str) -> repository.TemplateRepository:
        """Return the repository with the index at a path or URL, unread."""
        from . import repository

        return repository.TemplateRepository(path, read_lago_settings, warn)


def make_template_store(path: str) -> repository.TemplateStore:
    """Stand for Lago's class `TemplateStore`."""
    from . import repository

    return repository.TemplateStore(path)


def find_repo_by_name(
    name: str, repo_dir: Optional[str] = None
) -> repository.TemplateRepository:
    """Return the repository of that name below `template_repos`, unread."""
    from . import repository

    return repository.NamedRepository(
        name,
        repo_dir or _Options.template_repos or _configured_repos(),
        read_lago_settings,
        warn,
    )


class _Options:
    """Options of the running `lago init` that Lago takes and then forgets."""

    template_repos: Optional[str] = None


def _configured_repos() -> str:
    return str(
        config.get('template_repos')
        or config.get_section('init', {}).get('template_repos')
    )


def _remember_options(do_init: Function) -> Function:
    @functools.wraps(do_init)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _Options.template_repos = kwargs.get('template_repos')
        return do_init(*args, **kwargs)

    return wrapper


def _end_by_interrupt(do_run: Function) -> Function:
    """End by Ctrl-C as Lago ends by SIGTERM: a status and no traceback.

    Only the command line; in `lago.sdk` the interrupt is the caller's.
    """
    @functools.wraps(do_run)
    def wrapper(args: Any) -> Any:
        try:
            return do_run(args)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None

    return wrapper


def _provide_templates(prepare: Function) -> Function:
    """Bring all templates into the store before Lago makes any disk."""
    @functools.wraps(prepare)
    @as_lago_errors
    def wrapper(
        prefix: Any, conf: Any, template_repo: Any, template_store: Any
    ) -> Any:
        from . import repository
        from .core import initfile

        disks = initfile.template_disks(conf)
        if disks:
            qemu_img.require()
        if disks and isinstance(template_store, repository.TemplateStore):
            with lago.log_utils.LogTask('Fetch templates', logger=LOGGER):
                template_store.provide(
                    [disk.wanted for disk in disks], template_repo
                )
        return prepare(prefix, conf, template_repo, template_store)

    return wrapper


def _name_format(handle_template: Function) -> Function:
    """Tell qemu the base's format, as the store knows it.

    qemu-img refuses to guess it since 6.1, and a guess by the first bytes of
    a raw image is in the hands of whoever wrote into that guest.
    """
    @functools.wraps(handle_template)
    @as_lago_errors
    def wrapper(
        prefix: Any, disk_path: str, template_spec: Any, template_store: Any,
        template_repo: Any,
    ) -> Any:
        command, metadata, base = handle_template(
            prefix, disk_path, template_spec, template_store, template_repo
        )
        from . import repository

        if isinstance(template_store, repository.TemplateStore):
            at = command.index('-b')
            form = template_store.get_format(base)
            command = [*command[:at], '-F', form, *command[at:]]
        return command, metadata, base

    return wrapper


def _leave_no_half_prefix(virt_conf_from_stream: Function) -> Function:
    """Remove the prefix that a failed init leaves: the next one trips on it.

    Lago does so itself from some point on, but not when it cannot read the
    init file.
    """
    @functools.wraps(virt_conf_from_stream)
    def wrapper(prefix: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return virt_conf_from_stream(prefix, *args, **kwargs)
        except yaml.YAMLError as error:
            _remove_prefix(prefix)
            raise lago.utils.LagoUserException(
                f'The init file is neither JSON nor YAML: {error}'
            ) from error
        except BaseException:
            _remove_prefix(prefix)
            raise

    return wrapper


def _remove_prefix(prefix: Any) -> None:
    shutil.rmtree(prefix.paths.prefix_path(), ignore_errors=True)


def _wrap(owner: Any, name: str, around: Callable[[Function], Any]) -> None:
    """Replace a function by a wrapper around it, once."""
    function = getattr(owner, name)
    if not hasattr(function, MARK):
        wrapped = around(function)
        setattr(wrapped, MARK, True)
        setattr(owner, name, wrapped)


def install() -> None:
    """Put our parts in place of Lago's; a second call changes nothing."""
    lago_repair.repair()
    lago.templates.TemplateRepository = TemplateRepository
    lago.templates.TemplateStore = make_template_store
    lago.templates.find_repo_by_name = find_repo_by_name
    prefix = lago.prefix.Prefix
    _wrap(prefix, '_prepare_domains_images', _provide_templates)
    _wrap(prefix, '_handle_lago_template', _name_format)
    _wrap(prefix, 'virt_conf_from_stream', _leave_no_half_prefix)
    _wrap(lago.cmd.do_init, '_do_run', _remember_options)
    _wrap(lago.cmd.do_init, 'do_run', _end_by_interrupt)


install()


class TemplateRepoVerb(CLIPlugin):
    """The verb `template-repo`; what it does is in `cli`."""

    init_args = {
        'help': 'List and plan the templates of a repository',
    }

    def populate_parser(self, parser: Any) -> None:
        """Add the subcommands and their options."""
        from . import cli

        cli.populate_parser(parser)

    def do_run(self, args: Any) -> None:
        """Run the subcommand that was asked for."""
        from . import cli

        as_lago_errors(cli.run)(args)
