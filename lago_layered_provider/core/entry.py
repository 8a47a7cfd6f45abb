"""Read one version's entry of an index, and what sidecars add to it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    Mapping,
    Optional,
    TypeVar,
    Union,
)

from . import model
from .model import UNKNOWN, Base, Digest, Image, ImageRef, Unknown

#: The end of the year 9999, in seconds since 1970.
MAX_TIMESTAMP = 253402300799

T = TypeVar('T')


def parse_base(value: object) -> Union[Base, None, Unknown]:
    """Read the value of `base`, in any of its dialects.

    Raises:
        ValueError: it is none of them.
    """
    if value is None or value in ('', 'None'):
        return None
    if not isinstance(value, str):
        raise ValueError(f'base {model.show(value)} is not a name')
    if value.startswith(('libguestfs:', 'simple:')):
        return None
    if value.startswith('layer:'):
        name = strip_suffix(value.rsplit('/', 1)[-1])
        if name.startswith('layer:'):
            name = name[len('layer:'):]
        if not name:
            raise ValueError(f'base {model.show(value)} names no file')
        return model.BaseFile(name)
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


def _read_size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f'{model.show(value)} is not a number of bytes')
    return value


def _read_size_text(value: object) -> int:
    return _read_size(int(value) if isinstance(value, str) else value)


def _read_digest(algorithm: str, value: object) -> Digest:
    if not isinstance(value, str):
        raise ValueError(f'{model.show(value)} is not a {algorithm}')
    return Digest(algorithm, value.strip().lower())


def _read_timestamp(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= MAX_TIMESTAMP
    ):
        raise ValueError(f'{model.show(value)} is not a number of seconds')
    return value


def _read_mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{model.show(value)} is not an object')
    return value


def _or_null(read: Callable[[object], T]) -> Callable[[object], Optional[T]]:
    return lambda value: None if value is None else read(value)


def _one_of(*allowed: Optional[str]) -> Callable[[object], Optional[str]]:
    def read(value: object) -> Optional[str]:
        if value is None or isinstance(value, str):
            if value in allowed:
                return value
        names = ', '.join(str(name or 'null') for name in allowed)
        raise ValueError(f'{model.show(value)} is none of {names}')

    return read


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


def read_entry(
    entry: object, ref: ImageRef, sources: Mapping[str, Any]
) -> Image:
    """Read one version's entry.

    Raises:
        ValueError: with all that is wrong, as its arguments.
    """
    if not isinstance(entry, dict):
        raise ValueError('is not an object')
    faults = list(source_faults(sources, entry.get('source')))
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


def read_age(entry: object) -> float:
    """Return the timestamp of an entry that may be faulty, to sort by."""
    try:
        return _read_timestamp(entry['timestamp'])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return -1


def source_faults(sources: Mapping[str, Any], name: object) -> Iterator[str]:
    """Yield what is wrong with the source of that name."""
    if not isinstance(name, str) or name not in sources:
        known = ', '.join(sorted(map(str, sources))) or 'none'
        yield f'source {model.show(name)} is not defined; defined are: {known}'
        return
    spec = sources[name]
    if not isinstance(spec, dict) or not isinstance(spec.get('type'), str):
        yield f'source {model.show(name)} has no "type"'
    elif not isinstance(spec.get('args', {}), dict):
        yield f'source {model.show(name)}: "args" is not an object'


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
        image.ref.template,
        strip_suffix(image.handle.rsplit('/', 1)[-1]),
    ) and base.version in (None, image.ref.version):
        return UNKNOWN
    return base


def _first(old: Optional[T], new: Optional[T]) -> Optional[T]:
    return new if old is None else old
