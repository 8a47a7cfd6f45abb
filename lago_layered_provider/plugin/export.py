"""The hook into `lago export`; what it then does is in `export_disks`.

Every `lago` command pays for this import, so that it only wraps two methods
of `lago.virt.VirtEnv`, which Lago imports anyway. `lago.export` itself comes
with libvirt's VM provider, much later.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, Callable

import lago.utils
import lago.virt

Function = Callable[..., Any]

#: Set on what we have put in place of Lago's, so that it is done once.
MARK = '_lago_layered_provider_export'


def install() -> None:
    """Let `lago export` use our handlers; a second call changes nothing."""
    env = lago.virt.VirtEnv
    for name, around in (
        ('export_vms', _export_with_ours),
        ('generate_init', _write_whole_init_file),
    ):
        function = getattr(env, name)
        if not hasattr(function, MARK):
            wrapped = around(function)
            setattr(wrapped, MARK, True)
            setattr(env, name, wrapped)


def _export_with_ours(export_vms: Function) -> Function:
    """Export disks our way, and turn our errors into Lago's."""
    @functools.wraps(export_vms)
    def wrapper(env: Any, *args: Any, **kwargs: Any) -> Any:
        import inspect

        import lago.export

        from . import export_disks
        from .messages import as_lago_errors, warn

        lago.export.HANDLERS.update(export_disks.HANDLERS)
        call = inspect.signature(export_vms).bind(env, *args, **kwargs)
        if not call.arguments.get('collect_only'):
            export_disks.warn_of_size(warn)
        directory = call.arguments['dst_dir']
        was_there = os.path.isdir(directory)
        try:
            return as_lago_errors(export_vms)(env, *args, **kwargs)
        except BaseException as error:
            if not was_there:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)  # fails unless it is empty
            if not isinstance(error, OSError):
                raise
            raise lago.utils.LagoException(
                f'Cannot export: {error}'
            ) from error

    return wrapper


def _write_whole_init_file(generate_init: Function) -> Function:
    """Write the init file beside its place, so that no half of one stays."""
    @functools.wraps(generate_init)
    def wrapper(env: Any, dst: str, *args: Any, **kwargs: Any) -> None:
        staged = f'{dst}.export'
        try:
            generate_init(env, staged, *args, **kwargs)
            os.replace(staged, dst)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise

    return wrapper
