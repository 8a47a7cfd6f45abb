"""Read one version's entry of an index."""

from __future__ import annotations

import re
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

from ..core import model
from ..core.model import Base, Digest, Image, ImageRef, UNKNOWN, Unknown

#: The end of the year 9999, in seconds since 1970.
MAX_TIMESTAMP = 253402300799

#: That a file can have.
MAX_BYTES = 2**63 - 1

#: Of the metadata: what is nested deeper cannot be written down again.
MAX_DEPTH = 32

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
    named = split_digest(value)
    if named:
        return model.BaseDigest(*named)
    repository, slash, rest = value.rpartition('/')
    template, colon, version = rest.partition(':')
    return model.BaseName(
        template=model.check_name(template, 'base'),
        version=model.check_name(version, 'version') if colon else None,
        repository=(
            model.check_name(repository, 'repository') if slash else None
        ),
    )


def split_digest(value: str) -> Optional[Tuple[Digest, str]]:
    """Read `lago::SHA512::NAME` or `SHA512:NAME`; None for other forms."""
    found = re.fullmatch(
        r'(?:lago::([0-9A-Fa-f]{128})::|([0-9A-Fa-f]{128}):)(.+)', value
    )
    if not found:
        return None
    return Digest('sha512', (found[1] or found[2]).lower()), found[3]


def strip_suffix(name: str) -> str:
    """Return a file name without the suffix of its compression."""
    for suffix in model.SUFFIXES.values():
        if suffix and name.endswith(suffix):
            return name[:-len(suffix)]
    return name


def read_size(value: object) -> int:
    """Return a number of bytes, above 0; else raise ValueError."""
    if (
        isinstance(value, bool) or not isinstance(value, int)
        or not 0 < value <= MAX_BYTES
    ):
        raise ValueError(f'{model.show(value)} is not a number of bytes')
    return value


def read_digest(algorithm: str, value: object) -> Digest:
    """Return a digest in any case and with spaces; else raise ValueError."""
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
    layer: List[Any] = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            inner for each in layer if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not layer:
            return value
    raise ValueError('is nested too deeply')


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
    'size': _or_null(read_size),
    'compressed_size': _or_null(read_size),
    'virtual_size': _or_null(read_size),
    'metadata': _or_null(_read_mapping),
}
_REQUIRED = ('handle', 'timestamp')


def read_entry(
    entry: object, ref: ImageRef, sources: Mapping[str, Any], location: str
) -> Image:
    """Read one version's entry.

    Args:
        location: of the index.

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
                digests.append(read_digest(algorithm, entry[algorithm]))
            except ValueError as error:
                faults.append(str(error))
    if values.get('format') == 'raw' and values.get('base') not in (
        None, UNKNOWN
    ):
        faults.append('a raw image cannot have a base')
    if faults:
        raise ValueError(*faults)
    return Image(
        ref=ref, source=entry['source'], digests=tuple(digests),
        location=location, **values
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
    elif not _are_texts(spec.get('mirrors', [])):
        yield f'source {model.show(name)}: "mirrors" is not a list of URLs'


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) and each for each in value
    )


def names_file(
    entry: Mapping[str, object], base: Union[model.BaseFile, model.BaseDigest]
) -> bool:
    """Tell whether a base given by file or digest is that entry's image."""
    if isinstance(base, model.BaseDigest):
        digest = entry.get(base.digest.algorithm)
        return str(digest).strip().lower() == base.digest.value
    handle = entry.get('handle')
    return isinstance(handle, str) and (
        strip_suffix(handle.rsplit('/', 1)[-1]) == base.name
    )
