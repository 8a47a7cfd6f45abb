"""Find out what has to be built: specs, images that are there, tools.

All that is in the way is found before anything is built.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import (
    Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple,
)

from ..core import errors
from ..tools import disk_tools, files, qemu_img, tree
from . import build_state, specs
from .build_state import Built
from .layout import INDEX
from .local_images import examine, read_format, read_header
from .original import RAW_ENDINGS, strip_endings
from .specs import Job, Spec

#: A spec is a page of text.
MAX_SPEC_BYTES = 2**20

_URL = re.compile('https?://')


@dataclass(frozen=True)
class BuildPlan:
    """What has to be built.

    Attributes:
        todo: what has to be built, a base before its layers.
        unchanged: names of the images that are there already.
        texts: the specs of `todo` as they were read, by name.
        states: what is noted of the images there, by name.
    """

    spec_directory: str
    directory: str
    todo: Tuple[Job, ...]
    unchanged: Tuple[str, ...]
    texts: Mapping[str, bytes]
    states: Mapping[str, Built]

    def identify(self, job: Job) -> str:
        """Return what tells the present base of a job from any other.

        That of a parent which is to be built is not known yet.
        """
        return _identify(job, self)

    def locate(self, base: str) -> str:
        """Return where the image of a `simple:` base is."""
        return _locate(base, self.spec_directory)


def _locate(base: str, spec_directory: str) -> str:
    if _URL.match(base):
        return base
    return os.path.join(spec_directory, os.path.expanduser(base))


def read_plan(
    spec_directory: str, directory: str, version: Optional[str] = None
) -> BuildPlan:
    """Read the specs, and see what of them is there.

    Args:
        directory: where the images are; it need not exist.
        version: of all that is built; None for that of the spec.

    Raises:
        PublishError: with all that is in the way.
    """
    read, texts, faults = _read_specs(spec_directory)
    present = _find_images(directory)
    jobs, more = specs.arrange(read, list(present))
    faults += more
    plan = BuildPlan(
        os.path.abspath(spec_directory), os.path.abspath(directory), (), (),
        texts, build_state.read_state(directory),
    )
    for job in jobs:
        faults += _check_base(job, plan)
    todo = _find_todo(jobs, plan)
    faults += _check_replaced(todo, plan, present)
    faults += _check_versions(todo, directory, version)
    missing = disk_tools.find_missing(sorted(_tools(todo)))
    faults += [f'{tool} is not installed' for tool in missing]
    if faults:
        raise errors.PublishError(
            f'Nothing was built from {spec_directory}', faults,
            hint=disk_tools.GUESTFS_HINT if missing else '',
        )
    names = {job.spec.name for job in todo}
    return BuildPlan(
        plan.spec_directory, plan.directory, tuple(todo),
        tuple(job.spec.name for job in jobs if job.spec.name not in names),
        texts, plan.states,
    )


def _read_specs(
    directory: str,
) -> Tuple[List[Spec], Dict[str, bytes], List[str]]:
    found: List[Spec] = []
    texts: Dict[str, bytes] = {}
    faults: List[str] = []
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        return [], {}, [f'{directory} cannot be read: {error.strerror}']
    for name in names:
        path = os.path.join(directory, name)
        # Editors leave their own files.
        if name.startswith('.') or name.endswith('~') or os.path.isdir(path):
            continue
        try:
            with files.open_binary(path) as stream:
                data = stream.read(MAX_SPEC_BYTES + 1)
            if len(data) > MAX_SPEC_BYTES:
                raise errors.IndexFaults(name, [
                    f'it is larger than {MAX_SPEC_BYTES} bytes'
                ])
            spec = specs.parse_spec(name, data)
            found.append(spec)
            texts[spec.name] = data
        except OSError as error:
            faults.append(f'{name}: it cannot be read: {error.strerror}')
        except errors.IndexFaults as error:
            faults += [f'{name}: {fault}' for fault in error.faults]
    if not found and not faults:
        faults.append('there is no spec')
    return found, texts, faults


def _find_images(directory: str) -> Dict[str, str]:
    """Return the formats of the image files of the directory itself."""
    found: Dict[str, str] = {}
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    for name in names:
        path = os.path.join(directory, name)
        if name.startswith('.') or not os.path.isfile(path):
            continue
        try:
            fmt = read_format(path)
        except (ValueError, OSError):
            continue
        if fmt == 'qcow2' or name.endswith(RAW_ENDINGS):
            found[name] = fmt
    return found


def _check_base(job: Job, plan: BuildPlan) -> Iterator[str]:
    """Yield what is wrong with a base that is no other spec's."""
    if job.base_file is not None:
        path = os.path.join(plan.directory, job.base_file)
        try:
            examine(path)
        except errors.PublishError as error:
            for fault in error.faults:
                yield f'{job.spec.id}: its base {path}: {fault}'
    elif job.spec.kind == specs.READY:
        path = plan.locate(job.spec.base)
        if not _URL.match(path) and not os.path.isfile(path):
            yield f'{job.spec.id}: its base {path} is missing'


def _find_todo(jobs: List[Job], plan: BuildPlan) -> List[Job]:
    """Return the jobs whose image is missing or made of something else."""
    todo: Dict[str, Job] = {}
    for job in jobs:
        state = plan.states.get(job.spec.name)
        if (
            state is None
            or not os.path.isfile(os.path.join(plan.directory, job.spec.file))
            or job.parent in todo
            or state.spec != job.spec.digest
            or state.base != _identify(job, plan)
        ):
            todo[job.spec.name] = job
    return list(todo.values())


def _identify(job: Job, plan: BuildPlan) -> str:
    if job.parent is not None:
        state = plan.states.get(job.parent)
        return state.id if state else ''
    if job.base_file is not None:
        state = plan.states.get(strip_endings(job.base_file))
        if state is not None:
            return state.id
        return _identify_file(os.path.join(plan.directory, job.base_file))
    if job.spec.kind == specs.READY:
        return _identify_file(plan.locate(job.spec.base))
    # Only its source knows whether a template of virt-builder has changed.
    return ''


def _identify_file(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return ''
    return f'{found.st_size}-{found.st_mtime_ns}'


def _check_replaced(
    todo: List[Job], plan: BuildPlan, present: Mapping[str, str]
) -> Iterator[str]:
    """Yield the images that must not be replaced."""
    replaced = {job.spec.file for job in todo}
    for job in todo:
        if job.spec.file in present and job.spec.name not in plan.states:
            yield (
                f'{job.spec.id}: {job.spec.file} is there already, and no '
                f'build has made it; move it away, or remove the spec'
            )
    for name, fmt in present.items():
        if fmt != 'qcow2' or name in replaced:
            continue
        try:
            base = read_header(os.path.join(plan.directory, name)).backing_file
        except (ValueError, OSError):
            continue
        below = os.path.basename(base or '')
        if below in replaced & set(present):
            yield (
                f'{name} stands on {below}, which would be built again, and '
                f'is of no spec; move it away, and make it again'
            )


def _check_versions(
    todo: List[Job], directory: str, version: Optional[str]
) -> Iterator[str]:
    """Yield the images that could not be published when they are built."""
    document = tree.read_object(os.path.join(directory, INDEX)) or {}
    for job in todo:
        wanted = version or job.spec.keys.get('version')
        known: Any = document.get('templates')
        for key in (job.spec.name, 'versions', wanted):
            known = known.get(key) if isinstance(known, dict) else None
        if wanted is not None and known is not None:
            yield (
                f'{job.spec.id}: it, or what it stands on, has changed, but '
                f'{job.spec.name}:{wanted} is published, and what is '
                f'published stays; give it a new #version'
            )


def _tools(todo: List[Job]) -> Set[str]:
    tools: Set[str] = set()
    for job in todo:
        tools.add(qemu_img.TOOL)
        if job.spec.kind == specs.BUILDER:
            tools.add(disk_tools.BUILDER)
        elif job.spec.commands and not job.spec.untouched:
            tools.add(disk_tools.CUSTOMIZE)
        if not job.spec.untouched:
            tools |= {disk_tools.SYSPREP, disk_tools.SPARSIFY}
    return tools
