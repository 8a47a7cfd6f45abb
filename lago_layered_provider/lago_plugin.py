"""The plugin: puts our parts in the place of Lago's.

Lago loads it as the plugin of the verb `template-repo`, before it runs any
verb; `import lago_layered_provider.lago_plugin` does the same for users of
`lago.sdk`. What is replaced are names that Lago looks up when it uses them:
`install` has the list of them.

The way of a `lago init`: `TemplateRepository.from_url` and `TemplateStore`
only remember where things are. Then `Prefix` prepares the images of all
domains: first `plugin.init` brings the chains of all of them into the
store, then Lago makes the disks, one by one, and finds everything there.

Every `lago` command pays for this import, also those that have nothing to do
with templates: what is needed only sometimes is imported where it is used.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
from typing import Any, Callable

import lago.cmd
import lago.prefix
import lago.templates
import lago.virt
from lago.plugins.cli import CLIPlugin

from .plugin import export, hooks, repair
from .plugin.config import (
    NO_REPOSITORY, Options, TemplateRepository, find_repo_by_name,
    make_template_store,
)

#: Set on what we have put in place of Lago's, so that it is done once.
MARK = '_lago_layered_provider'

#: Set by a shell that wants to know how a command line can go on.
COMPLETING = '_ARGCOMPLETE'

Function = Callable[..., Any]


def _remember_options(do_init: Function) -> Function:
    @functools.wraps(do_init)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        Options.template_repos = kwargs.get('template_repos')
        Options.template_repo_name = kwargs.get('template_repo_name')
        Options.offline = bool(kwargs.get('offline'))
        Options.locked = kwargs.get('locked')
        if not (
            kwargs.get('template_repo_path') or Options.template_repo_name
        ):
            # The init file may name its own; that comes to light later.
            kwargs['template_repo_path'] = NO_REPOSITORY
        hooks.require_keys()
        return do_init(*args, **kwargs)

    return wrapper


def _or_only_plan(do_run: Function) -> Function:
    """Let `lago init --plan` print the plan, and stop."""
    @functools.wraps(do_run)
    def wrapper(args: Any) -> Any:
        if not args.plan:
            return do_run(args)
        from .plugin import context

        Options.template_repos = args.template_repos
        Options.template_repo_name = args.template_repo_name
        Options.offline = args.offline
        return context.run_init_plan(args)

    return wrapper


def _wrap(owner: Any, name: str, around: Callable[[Function], Any]) -> None:
    """Replace a function by a wrapper around it, once."""
    function = getattr(owner, name)
    if not hasattr(function, MARK):
        wrapped = around(function)
        setattr(wrapped, MARK, True)
        setattr(owner, name, wrapped)


def install() -> None:
    """Put our parts in place of Lago's; a second call changes nothing."""
    repair.repair()
    export.install()
    lago.templates.TemplateRepository = TemplateRepository
    lago.templates.TemplateStore = make_template_store
    lago.templates.find_repo_by_name = find_repo_by_name
    prefix = lago.prefix.Prefix
    _wrap(lago.utils, 'load_virt_stream', hooks.load_init_file)
    _wrap(prefix, '_prepare_domains_images', hooks.provide_templates)
    _wrap(prefix, '_handle_lago_template', hooks.stand_on_template)
    _wrap(prefix, 'resolve_parent', hooks.resolve_once)
    _wrap(prefix, 'virt_conf_from_stream', hooks.leave_no_half_prefix)
    _wrap(prefix, '_create_virt_env', hooks.notice_move)
    _wrap(lago.virt.VirtEnv, 'get_env_spec', hooks.with_repositories)
    do_init = lago.cmd.do_init
    if not hasattr(do_init, MARK):
        setattr(do_init, MARK, True)
        do_init.add_argument(
            '--offline', action='store_true',
            help='Ask no server for anything; use what is in the store',
        )
        do_init.add_argument(
            '--plan', action='store_true',
            help='Show what would be fetched, and stop',
        )
        do_init.add_argument(
            '--locked', action='store_true',
            help='Use exactly the images of LagoInitFile.lock, or fail',
        )
    _wrap(do_init, '_do_run', _remember_options)
    _wrap(do_init, 'do_run', lambda do_run: hooks.in_session(
        _or_only_plan(do_run)
    ))
    around = hooks.guard_parser
    if COMPLETING in os.environ:
        from .plugin import completion

        around = completion.answer_shells
    _wrap(lago.cmd, 'create_parser', around)


install()


class TemplateRepoVerb(CLIPlugin):
    """The verb `template-repo`; its commands are in `commands`."""

    init_args = {
        'help': 'List, fetch, check and remove templates',
    }

    def populate_parser(self, parser: Any) -> None:
        """Add the subcommands and their options."""
        from .commands import parser as commands_parser

        commands_parser.populate_parser(parser)
        # What is loaded stays until this command ends. Else it is looked
        # through again and again, and a last time at the end: a quarter of
        # the time of a short command.
        gc.freeze()
        atexit.register(gc.freeze)

    def do_run(self, args: Any) -> None:
        """Run the subcommand that was asked for."""
        from .plugin import context

        hooks.in_session(context.run)(args)
