"""Read an index: from where it is, or as it was kept.

With a keyring an index counts only with a good signature (`gpg`) beside it,
and never an older one after a newer one. The signature is checked before
anything else is done with the bytes, and again whenever a kept index is used.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Callable, Optional, TypeVar

from ..core import errors
from ..index import document, source_places
from ..index.document import Index, is_remote
from ..providers import Document
from ..settings import Settings
from ..store import KeptIndex, Store

#: Seconds to wait for a server whose index we have kept.
KEPT_TIMEOUT_SECONDS = 10

#: How long a small request is made again, whatever pauses a server wishes.
PATIENCE_SECONDS = 120

#: As `gpg.MAX_SIGNATURE_BYTES`; who has no keyring does not load that.
MAX_SIGNATURE_BYTES = 64 * 2**10

INDEX_HINT = (
    'Check the address of the index: template-repo in the init file, '
    '--template-repo-path, or template_repo_path in lago.conf.'
)
OFFLINE_HINT = 'Run it once without --offline; then it is kept.'
UNSIGNED_HINT = (
    'A keyring is set in lago.conf, so that indexes must be signed. Tell the '
    'admin of the repository.'
)

DAY_SECONDS = 86400

T = TypeVar('T')
Warn = Callable[[str], None]

#: Told of a failure, and what comes next.
Tell = Callable[[errors.TransferError, str], None]


@dataclass(frozen=True)
class Fetched:
    """An index as its server has it.

    `body` is None where it is as it was kept; `signature` is one that was
    checked, None without a keyring.
    """

    body: Optional[bytes]
    signature: Optional[bytes] = None
    validator: Optional[str] = None


def read_index(
    location: str,
    settings: Settings,
    warn: Warn,
    store: Optional[Store] = None,
    keep: bool = True,
    fresh: bool = False,
) -> Index:
    """Return an index; `repositories.ByPath.read` says more."""
    kept = None
    if store:
        kept = store.kept_index(
            _absolute(location), signed=bool(settings.keyring)
        )
    if settings.offline and is_remote(location):
        if kept is None:
            raise errors.Offline(
                f'{source_places.hide_secrets(location)} is not asked '
                f'(--offline), and no index of it was kept.',
                hint=OFFLINE_HINT,
            )
        check_signature(location, kept.body, kept.signature, settings)
        return _open(location, kept.body, settings, kept.table)
    kept = _without_bad(kept, location, settings)
    usable = _without_expired(kept, location, settings)
    try:
        fetched = fetch_index(location, settings, usable, warn, fresh)
    except errors.TransferError as error:
        if usable is None or _is_answer(error):
            raise
        warn(f'{error.message}; using the index kept from the last time')
        return _open(location, usable.body, settings, usable.table)
    if fetched.body is None and usable is not None:
        return _open(location, usable.body, settings, usable.table)
    body = fetched.body or b''
    found = _open(location, body, settings)
    if kept and fetched.signature:
        refuse_older(found, kept.body, kept.path, kept.table)
    if store and keep:
        store.keep_index(
            _absolute(location), body, fetched.validator, fetched.signature,
            found.table(),
        )
    return found


def _absolute(location: str) -> str:
    """Return a location that means the same in another directory."""
    if '://' in location:
        return location
    return os.path.abspath(os.path.expanduser(os.path.expandvars(location)))


def _open(
    location: str, body: bytes, settings: Settings,
    table: Optional[bytes] = None,
) -> Index:
    """Return the index in some bytes, which were checked.

    Raises:
        IndexFaults: it cannot be used.
        SignatureRefused: it counts no longer.
    """
    shown = source_places.hide_secrets(location)
    found = document.open_index(body, shown, table)
    refuse_expired(found, settings)
    return found if shown == location else replace(found, origin=location)


def fetch_index(
    location: str, settings: Settings, kept: Optional[KeptIndex] = None,
    warn: Optional[Warn] = None, fresh: bool = False,
) -> Fetched:
    """Read an index, unless it is as it was kept; with a keyring, check it.

    An index and its signature are two files: both are read once more where
    they do not belong together, since they may just have been replaced, or
    one of them came out of a cache.

    Args:
        warn: told of each pause between two tries.
        fresh: not as it was kept, nor out of a cache on the way.

    Raises:
        TransferError: it cannot be had.
        SignatureRefused: it is not signed as the keyring demands.
    """
    def tell(error: errors.TransferError, pause: str) -> None:
        if warn:
            warn(f'{error.message}; {pause}')

    server = _Server(location, settings, kept, tell)
    found = server.read_index(fresh)
    if not settings.keyring or found.body is None:
        return Fetched(found.body, None, found.validator)
    try:
        signature = server.read_signature(fresh)
        check_signature(location, found.body, signature, settings)
    except errors.SignatureRefused:
        found = server.read_index(fresh=True)
        signature = server.read_signature(fresh=True)
        check_signature(location, found.body or b'', signature, settings)
    return Fetched(found.body, signature, found.validator)


def check_signature(
    location: str, body: bytes, signature: Optional[bytes],
    settings: Settings,
) -> None:
    """Check an index where there is a keyring.

    Raises:
        SignatureRefused: it is not signed as the keyring demands.
    """
    if not settings.keyring:
        return
    location = source_places.hide_secrets(location)
    if signature is None:
        raise errors.SignatureRefused(
            f'{location}: refused: it is not signed; there is no '
            f'{source_places.signature_of(location)}', hint=UNSIGNED_HINT,
        )
    from ..tools import gpg

    try:
        gpg.check(body, signature, settings.keyring)
    except errors.SignatureRefused as error:
        raise errors.SignatureRefused(
            f'{location}: refused: {error.message}', hint=error.hint
        ) from None


def refuse_expired(found: Index, settings: Settings) -> None:
    """Refuse an index that counts no longer, where signatures are demanded.

    Who can serve an old one, or keeps clients from the new one, would keep
    its holes open for ever.

    Raises:
        SignatureRefused: it has expired; since when.
    """
    until = found.expires
    if until is None and settings.max_index_age is not None:
        until = (found.timestamp or 0) + settings.max_index_age * DAY_SECONDS
    if not settings.keyring or until is None or time.time() <= until:
        return
    raise errors.SignatureRefused(
        f'{found.location}: refused: it has expired:\n'
        f'  it counted until {_show_time(until)}',
        hint=(
            'Tell the admin of the repository, who has to sign it anew. If '
            'the clock of this machine is wrong, set it.'
        ),
    )


def refuse_older(
    found: Index, kept_body: bytes, path: str,
    table: Optional[bytes] = None,
) -> None:
    """Refuse an index that was published before the one that is kept.

    An old one has a good signature too; who can serve it would keep its
    holes open.

    Args:
        path: where the other one is kept.
        table: what was kept with it.

    Raises:
        SignatureRefused: it is older; with both times.
    """
    try:
        kept = document.open_index(kept_body, path, table).timestamp
    except errors.IndexFaults:
        return  # damaged or removed: it tells nothing
    now = found.timestamp
    if kept is None or now is not None and now >= kept:
        return
    raise errors.SignatureRefused(
        f'{found.location}: refused: it is older than the one that was read '
        f'before:\n  expected a "timestamp" from {_show_time(kept)} on\n'
        f'  found {"none" if now is None else _show_time(now)}',
        hint=(
            f'Tell the admin of the repository. If it was set back on '
            f'purpose, remove {path}.'
        ),
    )


def try_again(
    action: Callable[[], T], retries: int, tell: Optional[Tell] = None
) -> T:
    """Run a small request again while that can help.

    It is often the first one of a command: an address where nobody is, is
    not asked as often as a server that was there.

    Args:
        tell: called before each pause.
    """
    from ..transfer.retries import Retries

    tries = Retries(PATIENCE_SECONDS, 0, lambda: False, limit=retries)
    while True:
        try:
            return action()
        except errors.TransferError as error:
            seconds = tries.next_pause(error, 0, time.monotonic())
            if tell:
                tell(error, tries.describe(seconds))
        time.sleep(seconds)


def _without_bad(
    kept: Optional[KeptIndex], location: str, settings: Settings
) -> Optional[KeptIndex]:
    """Return a kept index if it would be accepted today."""
    if kept is None:
        return None
    try:
        check_signature(location, kept.body, kept.signature, settings)
    except errors.SignatureRefused:
        return None
    return kept


def _without_expired(
    kept: Optional[KeptIndex], location: str, settings: Settings
) -> Optional[KeptIndex]:
    """Return a kept index if it still counts."""
    if kept is None or not settings.keyring:
        return kept
    try:
        _open(location, kept.body, settings, kept.table)
    except (errors.SignatureRefused, errors.IndexFaults):
        return None
    return kept


def _is_answer(error: errors.TransferError) -> bool:
    """Tell whether a server says no, instead of being away.

    An answer such as 404 says more than what was kept; a name that is not
    known is what a laptop without a network gets.
    """
    if error.status is None or error.status >= 500 or error.retryable:
        return False
    error.hint = INDEX_HINT
    return True


class _Server:
    """Where an index is, and its signature beside it.

    Args:
        kept: what can be used if nobody answers.
        tell: called before each pause between two tries.
    """

    def __init__(
        self, location: str, settings: Settings, kept: Optional[KeptIndex],
        tell: Optional[Tell],
    ) -> None:
        self._location = location
        self._settings = settings
        self._kept = kept
        self._tell = tell

    def read_index(self, fresh: bool = False) -> Document:
        """Return the index.

        Args:
            fresh: not as it was kept, nor out of a cache on the way.
        """
        kept = None if fresh else self._kept
        return self._read(
            self._location, document.MAX_INDEX_BYTES, fresh,
            kept.validator if kept else None,
        )

    def read_signature(self, fresh: bool = False) -> Optional[bytes]:
        """Return what is beside the index, None where nothing is."""
        try:
            return self._read(
                source_places.signature_of(self._location),
                MAX_SIGNATURE_BYTES, fresh,
            ).body
        except errors.TransferError as error:
            if error.status == 404:
                return None
            raise

    def _read(
        self, location: str, limit: int, fresh: bool,
        validator: Optional[str] = None,
    ) -> Document:
        from ..providers import read_document

        settings = self._settings
        if fresh or self._kept is None:
            return try_again(lambda: read_document(
                location, limit=limit, timeout=settings.timeout, fresh=fresh
            ), settings.retries, self._tell)
        # Nobody should wait long for a server that can be done without.
        return read_document(
            location,
            validator=validator,
            limit=limit,
            timeout=min(settings.timeout, KEPT_TIMEOUT_SECONDS),
        )


def _show_time(seconds: float) -> str:
    return time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(seconds))
