"""Build images from specs, side by side where their bases allow it.

All of it happens in a scratch directory; see `build_state` for the rest.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from ..core import errors
from ..core.sizes import size_text
from ..tools import disk_tools, qemu_img, tree
from . import build_state, specs
from .build_log import BuildLog, describe_failure
from .build_state import Built
from .fetching import fetch_ready
from .local_images import read_format, used_bytes
from .schedule import run_jobs
from .scratch import disk_errors, find_others, scratch_directory, sync_file
from .spec_files import BuildPlan, read_plan
from .specs import Job

Say = Callable[[str], None]

FAILED_HINT = (
    'The images and the repository there are as they were. What succeeded '
    'is built again next time.'
)


def build(
    spec_directory: str, directory: str, say: Say, *,
    jobs: int, timeout: float, version: Optional[str] = None,
) -> None:
    """Build what is new or has changed among the specs of a directory.

    Args:
        directory: where the images are kept; made when missing.
        say: told what is being done.
        jobs: how many images at the same time.
        timeout: of a server, in seconds.
        version: of all that is built; None for that of the spec.

    Raises:
        PublishError: with all that is in the way, or all that failed.
    """
    with disk_errors(directory):
        # A wrong spec shall not leave a directory behind.
        if not os.path.isdir(directory):
            read_plan(spec_directory, directory, version)
            os.makedirs(directory)
    with scratch_directory(
        os.path.abspath(directory), build_state.WORD,
        finish=build_state.move_complete,
    ) as scratch, disk_errors(directory):
        if find_others(scratch):
            raise errors.PublishError(directory, [
                'another build works there; run it again when that has ended'
            ])
        plan = read_plan(spec_directory, directory, version)
        _announce(plan, say)
        if plan.todo:
            Builder(plan, scratch, say, timeout).run(jobs)


def _announce(plan: BuildPlan, say: Say) -> None:
    if plan.unchanged:
        say(f'unchanged: {", ".join(plan.unchanged)}')
    if plan.todo:
        names = ', '.join(job.spec.name for job in plan.todo)
        say(f'to build: {names}')
    else:
        say('nothing to build')


class Builder:
    """Builds the images of a plan in a scratch directory."""

    def __init__(
        self, plan: BuildPlan, scratch: str, say: Say, timeout: float
    ) -> None:
        self._plan = plan
        self._scratch = scratch
        self._out = os.path.join(scratch, build_state.OUT)
        self._todo = {job.spec.name for job in plan.todo}
        self._say = say
        self._timeout = timeout
        self._failures: Dict[str, str] = {}
        self._lock = threading.Lock()

    def run(self, jobs: int) -> None:
        """Build all of them; move them to their place if none has failed.

        Raises:
            PublishError: with all that failed.
        """
        os.mkdir(self._out)
        skipped = run_jobs(self._plan.todo, self._try, jobs)
        for job in skipped:
            self._failures[job.spec.name] = (
                f'{job.spec.name}: not built, since its base failed'
            )
        if self._failures:
            raise errors.PublishError(
                f'{self._plan.directory}: nothing was published', [
                    self._failures[job.spec.name] for job in self._plan.todo
                    if job.spec.name in self._failures
                ], hint=FAILED_HINT,
            )
        self._finish()
        build_state.complete(self._scratch)
        logs = os.path.join(self._plan.directory, build_state.LOGS)
        self._say(f'what the tools printed: {logs}')

    def _try(self, job: Job) -> bool:
        """Build an image; tell whether that went well."""
        log = BuildLog(self._plan.directory, job.spec.name)
        try:
            self._build(job, log)
            return True
        except (errors.LayeredError, OSError) as error:
            reason = describe_failure(job.spec.name, error, log)
            self._say(f'{job.spec.name}: failed')
            with self._lock:
                self._failures[job.spec.name] = reason
            return False

    def _build(self, job: Job, log: BuildLog) -> None:
        begin = time.monotonic()
        spec = job.spec
        path = os.path.join(self._out, spec.file)
        commands = os.path.join(self._scratch, f'{spec.name}.spec')
        tree.write_file(commands, self._plan.texts.get(spec.name, b''))
        self._say(f'{spec.name}: building, from {self._describe_base(job)}')
        for tool, action in self._steps(job, path, commands):
            started = time.monotonic()
            log.write(tool, action())
            seconds = time.monotonic() - started
            self._say(f'{spec.name}: {tool}, {seconds:.1f} s')
        seconds = time.monotonic() - begin
        self._say(
            f'{spec.name}: built, {size_text(used_bytes(path))} in '
            f'{seconds:.1f} s'
        )

    def _steps(
        self, job: Job, path: str, commands: str
    ) -> List[Tuple[str, Callable[[], Optional[str]]]]:
        """Return what is done, in the order of lago-images."""
        spec = job.spec
        if spec.kind == specs.BUILDER:
            steps: List[Tuple[str, Callable[[], Optional[str]]]] = [(
                disk_tools.BUILDER,
                lambda: disk_tools.build_template(spec.base, commands, path),
            )]
        elif spec.kind == specs.READY:
            place = self._plan.locate(spec.base)
            steps = [(
                'fetch', lambda: fetch_ready(place, path, self._timeout),
            )]
        else:
            base = self._find_base(job)
            steps = [(qemu_img.TOOL, lambda: qemu_img.create_layer(
                path, base, read_format(base)
            ))]
        if spec.untouched:
            return steps
        if spec.commands and spec.kind != specs.BUILDER:
            steps.append((
                disk_tools.CUSTOMIZE,
                lambda: disk_tools.customize(path, commands),
            ))
        return [
            *steps,
            (disk_tools.SYSPREP, lambda: disk_tools.sysprep(path)),
            (disk_tools.SPARSIFY, lambda: disk_tools.sparsify(path, 'qcow2')),
        ]

    def _base_file(self, job: Job) -> Optional[str]:
        """Return the file name of a layer's base."""
        return job.base_file or (job.parent and f'{job.parent}.qcow2')

    def _find_base(self, job: Job) -> str:
        """Return where the base of a layer is now."""
        below = self._out if job.parent in self._todo else (
            self._plan.directory
        )
        return os.path.join(below, self._base_file(job) or '')

    def _describe_base(self, job: Job) -> str:
        if job.spec.kind == specs.BUILDER:
            return f'the template {job.spec.base} of {disk_tools.BUILDER}'
        return self._base_file(job) or self._plan.locate(job.spec.base)

    def _finish(self) -> None:
        """Make everything as it shall lie in the directory."""
        states = dict(self._plan.states)
        for job in self._plan.todo:
            name = job.spec.name
            path = os.path.join(self._out, job.spec.file)
            below = self._base_file(job)
            base = self._plan.identify(job)
            if below is not None:
                qemu_img.rename_base(
                    path, 'qcow2', f'./{below}',
                    read_format(self._find_base(job)),
                )
            if job.parent in self._todo:
                base = states[str(job.parent)].id
            states[name] = Built(secrets.token_hex(16), job.spec.digest, base)
            sync_file(path)
            tree.write_json(
                f'{path}.metadata', specs.make_metadata(job), sync=True
            )
        build_state.write_state(self._out, states)
