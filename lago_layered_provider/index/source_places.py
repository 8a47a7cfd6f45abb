"""Where the files of a source are: relative roots, and mirrors.

A root or base URL that is relative means "from the directory of the index":
a copy of the whole repository works from any place, as files and over HTTP.
It never leads out of that directory. Whether an index may use a directory of
this machine is decided where its provider is built (`Index.roots`).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import List, Optional, Tuple

from ..core import errors
from ..core.model import show
from .document import SourceSpec

#: More than that serve nobody, and each one is asked where others fail.
MAX_MIRRORS = 16

#: The source types whose argument of that name may be relative.
ARGUMENTS = {'file': 'root', 'http': 'baseurl'}

_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')
_WEB = re.compile(r'(https?://[^/?#]*)([^?#]*)', re.IGNORECASE)
_USER = re.compile(r'(?<=://)[^/?#\s]*@')
_WEB_USER = re.compile(r'(https?://)[^/?#\s]*@', re.IGNORECASE)
_PASSWORD = re.compile(r'(://[^/?#\s:@]*):[^/?#\s]*@')
_QUERY = re.compile(
    r'(https?://[^\s?#\'"<>]*\?)(?!\.\.\.)([^\s\'"<>]*[^\s\'"<>:;,.)])',
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r'(https?)://(?:[^/?#]*@)?([^/?#]*)([^?#]*)(\?[^#]*)?', re.IGNORECASE
)
_PORTS = {'http': ':80', 'https': ':443'}
_LOCAL = re.compile(r'file://(?:localhost)?(?=/)', re.IGNORECASE)


def find_places(
    spec: SourceSpec, location: str
) -> Tuple[Tuple[SourceSpec, ...], Tuple[str, ...]]:
    """Return the places of a source, best first, and faults of its mirrors.

    Args:
        location: path or URL of the index, where it came from.

    Returns:
        at least one place, without mirrors; a mirror that cannot be used is
        not among them, but named.

    Raises:
        IndexFaults: the source itself leads where it must not.
    """
    try:
        found = [_resolve_source(spec, location)]
    except ValueError as error:
        raise errors.IndexFaults(
            hide_secrets(location), [f'source of type {spec.type}: {error}'],
            hint='Tell the admin of the repository.',
        ) from None
    faults: List[str] = []
    if len(spec.mirrors) > MAX_MIRRORS:
        faults.append(
            f'{len(spec.mirrors)} mirrors; only the first {MAX_MIRRORS} of '
            f'them are used'
        )
    for mirror in spec.mirrors[:MAX_MIRRORS]:
        try:
            place = _resolve_mirror(mirror, location)
        except ValueError as error:
            faults.append(f'mirror {error}')
            continue
        if place not in found:
            found.append(place)
    return tuple(found), tuple(faults)


def hide_secrets(text: str) -> str:
    """Return a text with all addresses in it as they may be shown.

    Users, passwords and queries are left out; a few digits tell one query
    from another one.
    """
    text = _WEB_USER.sub(r'\1', text)
    text = _PASSWORD.sub(r'\1@', text)
    return _QUERY.sub(lambda found: f'{found[1]}...{_mark(found[2])}', text)


def without_user(url: str) -> str:
    """Return a URL that can still be used, by who has a password."""
    return _USER.sub('', url, 1)


def _mark(secret: str) -> str:
    data = secret.encode('utf-8', 'surrogatepass')
    return hashlib.sha256(data).hexdigest()[:4]


def identity_of(location: str) -> str:
    """Return one spelling for all those of a URL, without its user."""
    found = _ADDRESS.match(location)
    if found is None:
        return location
    scheme, host = found[1].lower(), found[2].lower()
    if host.endswith(_PORTS[scheme]):
        host = host[:-len(_PORTS[scheme])]
    path = re.sub('%([0-9A-Fa-f]{2})', _spell, found[3])
    end = '/' if path.endswith('/') else ''
    path = posixpath.normpath(f'/{path.lstrip("/")}').rstrip('/') + end
    return f'{scheme}://{host}{path}{found[4] or ""}'


def _spell(quoted: 're.Match[str]') -> str:
    """Return a quoted character as it is spelled best (RFC 3986, 6.2.2)."""
    char = chr(int(quoted[1], 16))
    plain = re.match('[A-Za-z0-9._~-]', char)
    return char if plain else quoted[0].upper()


def signature_of(location: str) -> str:
    """Return where the signature of an index is."""
    web = _WEB.match(location)
    end = web.end() if web else len(location)
    return f'{location[:end]}.asc{location[end:]}'


def _resolve_source(spec: SourceSpec, location: str) -> SourceSpec:
    value = spec.args.get(ARGUMENTS.get(spec.type, ''))
    if not isinstance(value, str) or not _is_relative(value):
        return SourceSpec(spec.type, spec.args)
    if len(spec.args) > 1:
        # Another kind of provider would not know the other arguments.
        raise ValueError(
            f'{show(value)} is relative, and there are other args'
        )
    return _beside(location, value, quoted=spec.type == 'http')


def _resolve_mirror(mirror: str, location: str) -> SourceSpec:
    scheme = _SCHEME.match(mirror)
    if scheme is None:
        if _is_relative(mirror):
            return _beside(location, mirror, quoted=False)
        return SourceSpec('file', {'root': mirror})
    if scheme[1].lower() in ('http', 'https'):
        return SourceSpec('http', {'baseurl': mirror})
    path = local_path(mirror)
    if path is None:
        raise ValueError(f'{show(mirror)} is no http, https or file URL')
    return SourceSpec('file', {'root': path})


def _is_relative(value: str) -> bool:
    """Tell whether a root is to be taken from where the index is.

    What begins with a slash, or holds a variable, is for the provider.
    """
    return bool(value) and not (
        value.startswith(('/', '~')) or '$' in value or _SCHEME.match(value)
    )


def _beside(location: str, relative: str, *, quoted: bool) -> SourceSpec:
    """Return the place that is relative to an index.

    Args:
        quoted: it is part of a URL, not the name of a directory.
    """
    parts = [part for part in relative.split('/') if part not in ('', '.')]
    names = [_unquote(part) if quoted else part for part in parts]
    if any(
        name == '..' or '/' in name or '\\' in name or not name.isprintable()
        for name in names
    ) or quoted and re.search('[?#]', relative):
        raise ValueError(
            f'{show(relative)} leaves the directory of the index'
        )
    web = _WEB.match(location)
    if web:
        above = web[2].rpartition('/')[0]
        if not quoted:
            parts = [_quote(name) for name in names]
        url = '/'.join([web[1] + above, *parts])
        return SourceSpec('http', {'baseurl': f'{url}/'})
    path = local_path(location)
    directory = posixpath.dirname(location if path is None else path)
    return SourceSpec('file', {
        'root': posixpath.join(directory or '.', *names)
    })


def local_path(url: str) -> Optional[str]:
    """Return the path in a file URL, None for other locations."""
    local = _LOCAL.match(url)
    return _unquote(url[local.end():]) if local else None


def _unquote(text: str) -> str:
    data = re.sub(
        rb'%([0-9A-Fa-f]{2})', lambda found: bytes([int(found[1], 16)]),
        text.encode('utf-8', 'surrogatepass'),
    )
    return data.decode('utf-8', 'surrogateescape')


def _quote(text: str) -> str:
    return ''.join(
        chr(byte) if re.match(rb'[A-Za-z0-9._~@+:=,-]', bytes([byte]))
        else f'%{byte:02X}'
        for byte in text.encode('utf-8', 'surrogateescape')
    )
