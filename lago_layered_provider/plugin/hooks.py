"""Wrappers around functions of Lago; `lago_plugin.install` puts them there.

Each is thin, and cheap to import; what it takes to do the work is imported
when it is done.
"""

from __future__ import annotations

import functools
import shutil
from typing import Any, Callable

from ..core import errors
from ..report import screen
from ..report.messages import fold
from .messages import as_lago_errors, warn
from .prefix_notes import INIT_FILE, NOTED, TASKS

#: Lago's exit status for its errors.
FAILED_STATUS = 2

Function = Callable[..., Any]


def in_session(do_run: Function) -> Function:
    """Run a verb in a `screen.session`.

    Only the command line; in `lago.sdk` the streams, and an interrupt, are
    the caller's.
    """
    @functools.wraps(do_run)
    @as_lago_errors
    def wrapper(*args: Any) -> Any:
        with screen.session():
            return do_run(*args)

    return wrapper


def guard_parser(create_parser: Function) -> Function:
    """Let the messages of argparse pass a `screen.session` as well."""
    @functools.wraps(create_parser)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        parser = create_parser(*args, **kwargs)
        parse_args = parser.parse_args

        def parse(*args: Any, **kwargs: Any) -> Any:
            try:
                with screen.session():
                    return parse_args(*args, **kwargs)
            except errors.LayeredError as error:
                parser.exit(FAILED_STATUS, f'lago: {fold(str(error))}\n')

        parser.parse_args = parse
        return parser

    return wrapper


@as_lago_errors
def require_keys() -> None:
    """Look for what makes an environment's ssh keys, the first that it needs.
    """
    from . import init

    init.require(init.KEYGEN)


def provide_templates(prepare: Function) -> Function:
    """Bring all templates into the store before Lago makes any disk."""
    @functools.wraps(prepare)
    @as_lago_errors
    def wrapper(
        prefix: Any, conf: Any, template_repo: Any, template_store: Any
    ) -> Any:
        from . import init

        return init.prepare_images(
            prepare, prefix, conf, template_repo, template_store
        )

    return wrapper


def stand_on_template(handle_template: Function) -> Function:
    """Tell Lago which repository is meant, and qemu the base's format."""
    @functools.wraps(handle_template)
    @as_lago_errors
    def wrapper(
        prefix: Any, disk_path: str, template_spec: Any, template_store: Any,
        template_repo: Any,
    ) -> Any:
        from . import init

        return init.stand_on_template(
            handle_template, prefix, disk_path, template_spec,
            template_store, template_repo,
        )

    return wrapper


def resolve_once(resolve_parent: Function) -> Function:
    """Leave alone what stands on its parents already."""
    @functools.wraps(resolve_parent)
    def wrapper(prefix: Any, disk_path: str, *args: Any, **kwargs: Any) -> Any:
        from . import init

        if init.has_parent(prefix, disk_path):
            return None
        return resolve_parent(prefix, disk_path, *args, **kwargs)

    return wrapper


def with_repositories(get_env_spec: Function) -> Function:
    """Let an exported init file name the repositories of its templates."""
    @functools.wraps(get_env_spec)
    def wrapper(env: Any, *args: Any, **kwargs: Any) -> Any:
        from ..core import initfile

        spec = get_env_spec(env, *args, **kwargs)
        entries = env.prefix.metadata.get(initfile.REPOSITORIES)
        if entries:
            spec[initfile.REPOSITORIES] = entries
        return spec

    return wrapper


def notice_move(from_prefix: Function) -> Function:
    """Tell the store where an environment is that was moved."""
    @functools.wraps(from_prefix)
    def wrapper(prefix: Any, *args: Any, **kwargs: Any) -> Any:
        noted = prefix.metadata.get(NOTED) or {}
        path = prefix.paths.prefix_path()
        if noted and noted.get('prefix') != path:
            from . import init

            init.note_move(prefix, noted['store'])
        return from_prefix(prefix, *args, **kwargs)

    return wrapper


def load_init_file(load_virt_stream: Function) -> Function:
    """Load an init file in the place of Lago."""
    @functools.wraps(load_virt_stream)
    @as_lago_errors
    def wrapper(virt_fd: Any) -> Any:
        from ..environments import init_document

        name = getattr(virt_fd, 'name', None)
        return init_document.load_init_file(
            virt_fd, name if isinstance(name, str) else 'LagoInitFile', warn
        )

    return wrapper


def leave_no_half_prefix(virt_conf_from_stream: Function) -> Function:
    """Remove the prefix that a failed init leaves: the next one trips on it.

    Lago does so itself from some point on, but not when it cannot read the
    init file.
    """
    @functools.wraps(virt_conf_from_stream)
    def wrapper(prefix: Any, conf_fd: Any, *args: Any, **kwargs: Any) -> Any:
        # The faults of the file and its relative paths need its place.
        setattr(prefix, INIT_FILE, getattr(conf_fd, 'name', None))
        # What they need is looked for before anything is fetched.
        setattr(prefix, TASKS, tuple(
            kwargs.get(name, True) for name in ('do_bootstrap', 'do_build')
        ))
        try:
            return virt_conf_from_stream(prefix, conf_fd, *args, **kwargs)
        except BaseException:
            _remove_prefix(prefix)
            raise

    return wrapper


def _remove_prefix(prefix: Any) -> None:
    shutil.rmtree(prefix.paths.prefix_path(), ignore_errors=True)
