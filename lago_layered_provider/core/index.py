"""Read an index (`repo.metadata`); says what an entry means or its faults.

Lago's own format (`name`, `sources`, `templates`) with the keys that this
project adds per version; see docs/index.rst. An entry is looked at only when
somebody asks for it: an index of 100,000 versions costs no more than its
JSON, and a faulty entry disables itself and never its neighbours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
    Union,
)

from . import errors, model
from .model import UNKNOWN, Base, Digest, Image, ImageRef, Unknown

MAX_INDEX_BYTES = 64 * 2**20

#: The end of the year 9999, in seconds since 1970.
MAX_TIMESTAMP = 253402300799

T = TypeVar('T')


@dataclass(frozen=True)
class SourceSpec:
    """How an index describes a source: a provider's type and arguments."""

    type: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Index:
    """The index of one repository.

    Attributes:
        location: path or URL where it was read from, for messages.
        sources, raw_templates: as they stand in the document.
    """

    name: str
    location: str
    sources: Mapping[str, Any] = field(repr=False)
    raw_templates: Mapping[str, Any] = field(repr=False)

    def templates(self) -> Tuple[str, ...]:
        """The names of all templates."""
        return tuple(self.raw_templates)

    def versions(self, template: str) -> Tuple[str, ...]:
        """The names of a template's versions, none if it is not there."""
        entry = self.raw_templates.get(template)
        versions = entry.get('versions') if isinstance(entry, dict) else None
        return tuple(versions) if isinstance(versions, dict) else ()

    def source(self, name: str) -> SourceSpec:
        """Return a source.

        Raises:
            IndexFaults: it is not defined, or not well.
        """
        faults = list(_source_faults(self.sources, name))
        if faults:
            raise errors.IndexFaults(self.location, faults)
        spec = self.sources[name]
        return SourceSpec(type=spec['type'], args=spec.get('args', {}))

    def image(self, template: str, version: str) -> Image:
        """Return what the index says of an image.

        Raises:
            KeyError: there is none of that name.
            IndexFaults: its entry is faulty; all of it is named.
        """
        entry = self.raw_templates[template]
        try:
            if version not in self.versions(template):
                raise KeyError(version)
            ref = ImageRef(self.name, template, version)
            return _read_entry(self, ref, entry['versions'][version])
        except ValueError as error:
            raise errors.IndexFaults(
                f'{self.location}: {template}:{version}', error.args,
                hint='Its neighbours can be used; tell the admin.',
            ) from None

    def images(self, template: str) -> Iterator[Image]:
        """Return all versions of a template that are not faulty."""
        for version in self.versions(template):
            try:
                yield self.image(template, version)
            except errors.IndexFaults:
                continue

    def entries(self) -> Iterator[Tuple[str, str, Mapping[str, Any]]]:
        """Return (template, version, entry as it stands) of all versions."""
        for template in self.raw_templates:
            for version in self.versions(template):
                entry = self.raw_templates[template]['versions'][version]
                if isinstance(entry, dict):
                    yield template, version, entry


def parse_index(data: bytes, location: str) -> Index:
    """Read an index.

    Raises:
        IndexFaults: the document as a whole cannot be used.
    """
    document = parse_json(data, location)
    faults: List[str] = []
    if not isinstance(document, dict):
        raise errors.IndexFaults(location, ['is not a JSON object'])
    try:
        model.check_name(document.get('name'), 'the repository\'s name')
    except ValueError as error:
        faults.append(str(error))
    for key in ('sources', 'templates'):
        if not isinstance(document.get(key, {}), dict):
            faults.append(f'"{key}" is not an object')
    if faults:
        raise errors.IndexFaults(location, faults)
    return Index(
        name=document['name'],
        location=location,
        sources=document.get('sources', {}),
        raw_templates=document.get('templates', {}),
    )


def parse_json(data: bytes, location: str) -> Any:
    """Read a JSON document.

    Raises:
        IndexFaults: it is too large or not JSON; says what it looks like.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise errors.IndexFaults(
            location,
            [f'is {len(data)} bytes; at most {MAX_INDEX_BYTES} are read'],
        )
    try:
        return json.loads(data)
    except RecursionError:
        fault = 'is nested too deeply'
    except ValueError as error:
        fault = f'is not JSON: {error}'
        if data.lstrip()[:1] == b'<':
            fault = 'expected JSON, found an HTML or XML page'
    raise errors.IndexFaults(
        location, [fault],
        hint='Check the address, or tell the admin of the repository.',
    )


def parse_base(value: object) -> Union[Base, None, Unknown]:
    """Read the value of `base`, in any of its dialects.

    Raises:
        ValueError: it is none of them.
    """
    if value is None or value in ('', 'None'):
        return None
    if not isinstance(value, str):
        raise ValueError(f'base {value!r} is not a name')
    if value.startswith(('libguestfs:', 'simple:')):
        return None
    if value.startswith('layer:'):
        name = value[len('layer:'):].rsplit('/', 1)[-1]
        return model.BaseFile(strip_suffix(name))
    digest = re.fullmatch(
        r'(?:lago::([0-9A-Fa-f]{128})::|([0-9A-Fa-f]{128}):)(.+)', value
    )
    if digest:
        text = (digest[1] or digest[2]).lower()
        return model.BaseDigest(Digest('sha512', text), digest[3])
    repository, slash, rest = value.rpartition('/')
    template, colon, version = rest.partition(':')
    return model.BaseName(
        template=model.check_name(template, 'base'),
        version=model.check_name(version, 'version') if colon else None,
        repository=(
            model.check_name(repository, 'repository') if slash else None
        ),
    )


def strip_suffix(name: str) -> str:
    """Return a file name without the suffix of its compression."""
    for suffix in model.SUFFIXES.values():
        if suffix and name.endswith(suffix):
            return name[:-len(suffix)]
    return name


def add_sidecar(image: Image, document: Mapping[str, Any]) -> Image:
    """Fill in what an image's `.metadata` file says and the index does not.

    lago-images writes `base`, `size` and digests there (2015: `sha1`,
    `sha512`; later: `checksum`, the sha512 of the uncompressed file, while
    its `uncompressed_checksum` is that of the compressed one). The file is
    free-form, so that a value of another form is not a fault but left out.
    """
    def take(key: str, read: Callable[[Any], T]) -> Optional[T]:
        try:
            return read(document[key])
        except (KeyError, ValueError):
            return None

    digests: Dict[str, Digest] = {}
    for key, algorithm in (
        ('sha1', 'sha1'), ('sha256', 'sha256'), ('sha512', 'sha512'),
        ('checksum', 'sha512'),
    ):
        digest = take(key, lambda value: _read_digest(algorithm, value))
        if digest:
            digests.setdefault(algorithm, digest)
    for digest in image.digests:
        digests[digest.algorithm] = digest
    return replace(
        image,
        base=_sidecar_base(image, document),
        size=_first(image.size, take('size', _read_size_text)),
        compressed_size=_first(
            image.compressed_size,
            take('compressed_size', _read_size_text),
        ),
        digests=tuple(digests.values()),
        metadata=_first(image.metadata, document),
    )


def _sidecar_base(
    image: Image, document: Mapping[str, Any]
) -> Union[Base, None, Unknown]:
    # `lago export` writes the exported file's own name or 'None' as base,
    # whatever the truth is: that is no answer.
    if image.base is not UNKNOWN or document.get('base') in (None, 'None'):
        return image.base
    try:
        base = parse_base(document['base'])
    except ValueError:
        return UNKNOWN
    if isinstance(base, model.BaseName) and base.template in (
        image.ref.template, image.handle.rsplit('/', 1)[-1]
    ) and base.version in (None, image.ref.version):
        return UNKNOWN
    return base


def _first(old: Optional[T], new: Optional[T]) -> Optional[T]:
    return new if old is None else old


def _read_size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f'{value!r} is not a number of bytes')
    return value


def _read_size_text(value: object) -> int:
    return _read_size(int(value) if isinstance(value, str) else value)


def _read_digest(algorithm: str, value: object) -> Digest:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a {algorithm}')
    return Digest(algorithm, value.strip().lower())


def _read_timestamp(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= MAX_TIMESTAMP
    ):
        raise ValueError(f'{value!r} is not a number of seconds')
    return value


def _read_mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{value!r} is not an object')
    return value


def _or_null(read: Callable[[object], T]) -> Callable[[object], Optional[T]]:
    return lambda value: None if value is None else read(value)


def _one_of(*allowed: Optional[str]) -> Callable[[object], Optional[str]]:
    def read(value: object) -> Optional[str]:
        if value is None or isinstance(value, str):
            if value in allowed:
                return value
        names = ', '.join(str(name or 'null') for name in allowed)
        raise ValueError(f'{value!r} is none of {names}')

    return read


def _source_faults(sources: Mapping[str, Any], name: object) -> Iterator[str]:
    if not isinstance(name, str) or name not in sources:
        known = ', '.join(sorted(map(str, sources))) or 'none'
        yield f'source {name!r} is not defined; defined are: {known}'
        return
    spec = sources[name]
    if not isinstance(spec, dict) or not isinstance(spec.get('type'), str):
        yield f'source {name!r} has no "type"'
    elif not isinstance(spec.get('args', {}), dict):
        yield f'source {name!r}: "args" is not an object'


#: Keys of a version, as fields of an `Image`. A key that is absent and not
#: required leaves the field as it is by default.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    'handle': model.check_handle,
    'timestamp': _read_timestamp,
    'base': parse_base,
    'format': _one_of(*model.FORMATS, None),
    'compression': _one_of(*model.SUFFIXES),
    'size': _or_null(_read_size),
    'compressed_size': _or_null(_read_size),
    'virtual_size': _or_null(_read_size),
    'metadata': _or_null(_read_mapping),
}
_REQUIRED = ('handle', 'timestamp')


def _read_entry(index: Index, ref: ImageRef, entry: object) -> Image:
    """Read one version's entry.

    Raises:
        ValueError: with all that is wrong, as its arguments.
    """
    if not isinstance(entry, dict):
        raise ValueError('is not an object')
    faults = list(_source_faults(index.sources, entry.get('source')))
    faults += [f'{key} is missing' for key in _REQUIRED if key not in entry]
    values: Dict[str, Any] = {}
    for key, read in _READERS.items():
        if key in entry:
            try:
                values[key] = read(entry[key])
            except ValueError as error:
                faults.append(f'{key}: {error}')
    digests = []
    for algorithm in model.DIGEST_LENGTHS:
        if entry.get(algorithm) is not None:
            try:
                digests.append(_read_digest(algorithm, entry[algorithm]))
            except ValueError as error:
                faults.append(str(error))
    if values.get('format') == 'raw' and values.get('base') not in (
        None, UNKNOWN
    ):
        faults.append('a raw image cannot have a base')
    if faults:
        raise ValueError(*faults)
    return Image(
        ref=ref, source=entry['source'], digests=tuple(digests), **values
    )
