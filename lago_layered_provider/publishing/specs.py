"""Read specs of images, as lago-images has them, and bring them in order.

A spec is a text: lines ``#key=value``, then commands of virt-builder, which
are not looked at here. The key `base` says what the image is made of::

    libguestfs:NAME      a template of virt-builder
    simple:PATH_OR_URL   a ready image, maybe compressed
    layer:PATH_OR_URL    it becomes a layer on that image: another spec's,
                         or one that is in the directory already
    NAME                 the same, as lago-images had it in 2015
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, field
from typing import (
    Any, Collection, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple,
)

from ..core.errors import IndexFaults
from ..core.model import NAME_PATTERN, check_name, show
from ..index.entry import strip_suffix
from .original import ENDINGS, strip_endings

BUILDER, READY, LAYER = 'libguestfs', 'simple', 'layer'
KINDS = (BUILDER, READY, LAYER)

#: As lago-images: the image is published as it is.
UNTOUCHED_KEY = 'meta_data_only'

_KEY = re.compile(r'#([^\s=]+)\s*=\s*(.*?)\s*')
#: What people call a base, and not `C:\` or `host:port`.
_KIND = re.compile(r'([A-Za-z][A-Za-z0-9_-]*):(.*)', re.DOTALL)


@dataclass(frozen=True)
class Spec:
    """What an image is made of.

    Attributes:
        id: the name of the file.
        name: of the template, and of the image's file without its ending.
        kind: one of `KINDS`.
        base: what follows the kind.
        keys: all of them, as they stand there.
        commands: whether there are any.
        digest: tells this text from any other.
    """

    id: str
    name: str
    kind: str
    base: str
    keys: Mapping[str, str] = field(default_factory=dict)
    commands: bool = True
    digest: str = ''

    @property
    def untouched(self) -> bool:
        """Whether the image is taken as it is."""
        return self.kind == READY and bool(self.keys.get(UNTOUCHED_KEY))

    @property
    def file(self) -> str:
        """The name of the image's file."""
        return f'{self.name}.qcow2'


@dataclass(frozen=True)
class Job:
    """An image to build.

    Attributes:
        parent: name of the other spec that its base is, None for no such.
        base_file: the file of the directory that its base is.
    """

    spec: Spec
    parent: Optional[str] = None
    base_file: Optional[str] = None


def parse_spec(name: str, data: bytes) -> Spec:
    """Read a spec.

    Args:
        name: of its file; images without `name` and `version` are called so.

    Raises:
        IndexFaults: with all that is wrong with it.
    """
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        raise IndexFaults(name, [f'it is no text: {error}']) from None
    keys, commands = read_keys(text)
    faults: List[str] = []
    called = keys.get('name')
    if not (_is_name(called) and _is_name(keys.get('version'))):
        called = name
    try:
        check_name(called, 'template')
        if keys.get('version') is not None:
            check_name(keys['version'], 'version')
    except ValueError as error:
        faults.append(str(error))
    kind, base = LAYER, ''
    try:
        kind, base = _parse_base(keys.get('base'))
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise IndexFaults(name, faults)
    return Spec(
        id=name, name=str(called), kind=kind, base=base, keys=keys,
        commands=commands, digest=hashlib.sha256(data).hexdigest(),
    )


def read_keys(text: str) -> Tuple[Dict[str, str], bool]:
    """Return the keys before the first command, and whether there is one.

    What looks like a key further below belongs to a command, such as the
    text of a file that it writes.
    """
    keys: Dict[str, str] = {}
    for line in text.splitlines():
        found = _KEY.fullmatch(line)
        if found:
            keys[found[1]] = found[2]
        elif line.strip() and not line.startswith('#'):
            return keys, True
    return keys, False


def _parse_base(value: Optional[str]) -> Tuple[str, str]:
    if not value:
        raise ValueError('it has no line "#base=..."')
    found = _KIND.fullmatch(value)
    if found is None:
        return LAYER, _unquote(value)
    if found[1] not in KINDS:
        raise ValueError(
            f'base {show(value)}: unknown kind {show(found[1])}, expected '
            f'{", ".join(KINDS)} or the name of another spec'
        )
    base = _unquote(found[2])
    if not base or base.startswith('-') or not base.isprintable():
        raise ValueError(f'base {show(value)} names nothing')
    return found[1], base


def _unquote(text: str) -> str:
    """lago-images' own README has quotes around what follows the kind."""
    return text.strip().strip('"\'').strip()


def arrange(
    specs: Sequence[Spec], present: Collection[str]
) -> Tuple[List[Job], List[str]]:
    """Bring specs in order, a base before its layers.

    A layer on a path or URL that is no spec's and not in the directory gets
    its base from there: that becomes a job too.

    Args:
        present: names of the image files that are in the directory.

    Returns:
        the jobs, and all faults; with faults the jobs are not complete.
    """
    faults = list(_find_doubles(specs))
    jobs: Dict[str, Job] = {}
    for spec in specs:
        try:
            for job in _make_jobs(spec, specs, present):
                jobs.setdefault(job.spec.name, job)
        except ValueError as error:
            faults.append(f'{spec.id}: {error}')
    order: Dict[str, Job] = {}
    for name in jobs:
        path = _descend(name, jobs, order)
        if path:
            faults.append(
                'the bases go round in a circle: ' + ' -> '.join(path)
            )
    return list(order.values()), list(dict.fromkeys(faults))


def _find_doubles(specs: Sequence[Spec]) -> Iterator[str]:
    names: Dict[str, List[str]] = {}
    for spec in specs:
        names.setdefault(spec.name, []).append(spec.id)
    for name, ids in names.items():
        if len(ids) > 1:
            yield f'{" and ".join(ids)} would both be called {name}'


def _make_jobs(
    spec: Spec, specs: Sequence[Spec], present: Collection[str]
) -> List[Job]:
    """Return the job of a spec, after that of a base which must be fetched.

    Raises:
        ValueError: its base is missing, or not clear.
    """
    if spec.kind != LAYER:
        return [Job(spec)]
    file = strip_suffix(spec.base.split('?', 1)[0].rsplit('/', 1)[-1])
    stem = strip_endings(file)
    # The name as it stands there goes first: a spec may be called el7.xz.
    for word in dict.fromkeys([spec.base, file, stem]):
        found = [one for one in specs if word in (one.id, one.name)]
        if len(found) > 1:
            raise ValueError(
                f'base {show(spec.base)} may be the spec '
                + ' or '.join(one.id for one in found)
            )
        if found:
            return [Job(spec, parent=found[0].name)]
    for name in (file, *(stem + ending for ending in ENDINGS)):
        if name in present:
            return [Job(spec, base_file=name)]
    if '/' not in spec.base:
        known = [word for one in specs for word in (one.id, one.name)]
        known += map(strip_endings, present)
        raise ValueError(
            f'its base {show(spec.base)} is neither a spec nor an image of '
            f'the directory' + _suggest(stem, known)
        )
    ready = Spec(
        id=file, name=check_name(stem, 'base'), kind=READY, base=spec.base,
        keys={'base': f'{READY}:{spec.base}', UNTOUCHED_KEY: 'yes'},
        commands=False, digest=hashlib.sha256(spec.base.encode()).hexdigest(),
    )
    return [Job(ready), Job(spec, parent=ready.name)]


def _suggest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)))
    return f'; there is {", ".join(near)}' if near else ''


def _descend(
    name: str, jobs: Mapping[str, Job], order: Dict[str, Job]
) -> List[str]:
    """Add a job after those it needs; return the circle if it is on one."""
    above: List[str] = []
    while name not in order:
        if name in above:
            circle = above[above.index(name):]
            # The same circle from any of its images is the same fault.
            first = circle.index(min(circle))
            circle = circle[first:] + circle[:first]
            return [*circle, circle[0]]
        above.append(name)
        parent = jobs[name].parent if name in jobs else None
        if parent is None or parent not in jobs:
            break
        name = parent
    for each in reversed(above):
        order[each] = jobs[each]
    return []


def make_metadata(job: Job) -> Dict[str, Any]:
    """Return what is written down beside an image, as lago-images does."""
    metadata: Dict[str, Any] = {**job.spec.keys, 'id': job.spec.id}
    if _is_name(job.spec.keys.get('version')):
        metadata['name'] = job.spec.name
    if job.parent is not None:
        metadata['base'] = job.parent
    elif job.base_file is not None:
        metadata['base'] = strip_endings(job.base_file)
    return metadata


def _is_name(value: Optional[str]) -> bool:
    return value is not None and bool(NAME_PATTERN.fullmatch(value))
