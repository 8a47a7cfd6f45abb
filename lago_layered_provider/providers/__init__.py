"""Sources of images and documents: NETWORK and FILES.

One class a source type (`http`, `file`, and what other packages install),
each found by its name among the entry points of `NAMESPACE`. What they must
offer is `transfer.ports.Provider`.

Importing this package is cheap, since every lago command may do it: the
classes, and with them requests and stevedore, are loaded on first use.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import (
    Any, Callable, Iterable, List, Mapping, Optional, Sequence, Tuple, cast,
)
from urllib.parse import unquote

from ..core.errors import SettingsError, TransferError
from ..transfer.ports import Provider

NAMESPACE = 'lago.plugins.template_provider'

LOCAL_HINT = (
    'Tell the admin of the repository. If this machine has its images, name '
    'their directory as local_roots in section [template_repo] of lago.conf.'
)


@dataclass(frozen=True)
class Document:
    """A small file as a whole; `body` is None when it has not changed.

    `validator` names this state of the document, for the next time.
    """

    body: Optional[bytes]
    validator: Optional[str]


def make_provider(
    type_name: str, args: Mapping[str, Any], *, timeout: float = 30,
    roots: Optional[Sequence[str]],
) -> Provider:
    """Build the provider of a source as its index describes it.

    Args:
        type_name: the `type` of the source.
        args: its `args`; they become keyword arguments, as in Lago.
        timeout: set as the provider's attribute of that name; seconds.
        roots: the directories of this machine that it may use; None: any.

    Raises:
        SettingsError: no such type is installed, or it does not take these
            arguments, or would use another directory.
    """
    provider_class = _find_class(type_name)
    try:
        provider = provider_class(**args)
    except (TypeError, ValueError) as error:
        given = ', '.join(f'{key}={value!r}' for key, value in args.items())
        raise SettingsError(
            f'A source of type {type_name} cannot be built with the args '
            f'{given or "(none)"}: {error}',
            hint='The index is wrong; tell the admin of the repository.',
        ) from error
    setattr(provider, 'timeout', timeout)
    if roots is not None:
        _confine(provider, type_name, roots)
    return provider


def _confine(
    provider: Provider, type_name: str, roots: Sequence[str]
) -> None:
    """Let a provider use only these directories of this machine.

    Raises:
        SettingsError: it does not, or does not say that it uses none.
    """
    if getattr(provider, 'remote', False):
        return
    confine = getattr(provider, 'confine', None)
    try:
        if confine is None:
            raise ValueError(
                f'providers of type {type_name} do not say that they use '
                f'nothing of this machine'
            )
        confine(roots)
    except ValueError as error:
        raise SettingsError(
            f'refused: {error}; an index that came over the network may '
            f'use only the network'
            + (f' and {", ".join(roots)}' if roots else ''),
            hint=LOCAL_HINT,
        ) from None


def open_places(
    places: Iterable[Tuple[str, Mapping[str, Any]]], *, timeout: float,
    roots: Optional[Sequence[str]],
) -> Tuple[List[Provider], List[str]]:
    """Build the providers of a source's places, each given by type and args.

    Returns:
        at least one, best first, and why each of the others was left out.

    Raises:
        SettingsError: none can be built; as `make_provider` of the first.
    """
    found: List[Provider] = []
    failures: List[SettingsError] = []
    for type_name, args in places:
        try:
            found.append(make_provider(
                type_name, args, timeout=timeout, roots=roots
            ))
        except SettingsError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return found, [error.message for error in failures]


@functools.lru_cache(maxsize=None)
def _find_class(type_name: str) -> Callable[..., Provider]:
    from stevedore import NamedExtensionManager

    failures: List[BaseException] = []
    manager: Any = NamedExtensionManager(
        NAMESPACE,
        [type_name],
        on_load_failure_callback=lambda _manager, _entry, error: (
            failures.append(error)
        ),
        # The message of our own error says it.
        on_missing_entrypoints_callback=lambda _names: None,
    )
    # The same distribution may be found twice, as installed and as the
    # working directory: only different targets are a conflict.
    found = {ext.entry_point.value: ext.plugin for ext in manager.extensions}
    if len(found) == 1:
        return cast(Callable[..., Provider], found.popitem()[1])
    if found:
        raise SettingsError(
            f'Several packages offer the source type {type_name!r}: '
            + ', '.join(sorted(found)),
            hint='Uninstall all of them but one.',
        )
    if failures:
        raise SettingsError(
            f'The source type {type_name!r} cannot be loaded: '
            f'{failures[0]}',
        ) from failures[0]
    raise SettingsError(
        f'Unknown source type {type_name!r}; installed are: '
        + (', '.join(_list_types()) or 'none'),
        hint='Another package may offer it, or the index is wrong.',
    )


def _list_types() -> List[str]:
    from stevedore import ExtensionManager

    manager: Any = ExtensionManager(
        NAMESPACE, on_load_failure_callback=lambda *_: None
    )
    return sorted(set(manager.names()))


def read_document(
    location: str,
    *,
    limit: int,
    validator: Optional[str] = None,
    timeout: float = 30,
    fresh: bool = False,
) -> Document:
    """Read a document from a URL (http, https, file) or a path.

    Args:
        location: the URL, or a path where variables and ~ are expanded.
        limit: the largest acceptable size in bytes.
        validator: of the `Document` at hand: unchanged -> no body.
        timeout: for the server to connect, and between bytes; seconds.
        fresh: no cache on the way may answer.

    Raises:
        TransferError: it cannot be had, or is too large.
    """
    scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', location)
    name = scheme.group(1).lower() if scheme else ''
    if name in ('http', 'https'):
        from .http import fetch_document

        return fetch_document(
            location, validator=validator, limit=limit, timeout=timeout,
            fresh=fresh,
        )
    from .file import read_file_document

    if name == 'file':
        host, slash, path = location.partition('://')[2].partition('/')
        if host not in ('', 'localhost'):
            raise TransferError(location, 'it is on another host')
        path = re.split('[?#]', slash + path)[0]
        return read_file_document(
            unquote(path), validator=validator, limit=limit
        )
    if name:
        raise TransferError(location, f'{name} URLs are not supported')
    return read_file_document(
        location, validator=validator, limit=limit, expand=True
    )
