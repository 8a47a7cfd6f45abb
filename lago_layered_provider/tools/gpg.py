"""Sign indexes and check their signatures; the only place that runs gpg.

What counts is a signature that is good today by a key in the keyring, for
exactly these bytes. A file may hold several; one good one is enough, so that
`create` can write the new one beside the old one before the index changes.
Each is given to gpgv alone: it stops at the first one that is bad.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Iterator

from ..core.errors import SignatureRefused, ToolError
from ..formats import openpgp
from . import processes
from .files import read_binary
from .tree import write_file

SIGN_TOOL, CHECK_TOOL = 'gpg', 'gpgv'
SIGN_HINT = 'Install gpg (Debian: gpg, Fedora: gnupg2).'
CHECK_HINT = (
    'A keyring is set, so that indexes must be signed. Install gpgv '
    '(Debian: gpgv, Fedora: gnupg2).'
)
KEY_HINT = (
    'gpg --list-secret-keys shows the keys that there are; GNUPGHOME says '
    'where they are.'
)
KEYRING_HINT = (
    'Setting keyring names a file with the public keys of those who may sign '
    'indexes: gpg --export KEY > FILE.'
)

#: Somebody may have to type a passphrase.
SIGN_TIMEOUT_SECONDS = 300
CHECK_TIMEOUT_SECONDS = 60

#: A signature has some hundred bytes.
MAX_SIGNATURE_BYTES = 64 * 2**10
MAX_SIGNATURES = 32


def sign(data: bytes, key: str) -> bytes:
    """Return an armored detached signature, made by the user's own gpg.

    Args:
        key: the key's fingerprint, or a user of it.

    Raises:
        ToolError: gpg is missing, or has no such key.
    """
    with _scratch() as scratch:
        document, signature = (
            os.path.join(scratch, name) for name in ('data', 'signature')
        )
        write_file(document, data)
        try:
            processes.run(
                [SIGN_TOOL, '--batch', '--armor', '--local-user', key,
                 '--output', signature, '--detach-sign', document],
                timeout=SIGN_TIMEOUT_SECONDS, hint=SIGN_HINT,
            )
        except ToolError as error:
            error.hint = error.hint or KEY_HINT
            raise
        return read_binary(signature)


def join(old: bytes, new: bytes) -> bytes:
    """Return one armored file with the signatures of both.

    Raises:
        ValueError: one of them is no detached signature.
    """
    packets = [
        *openpgp.split_signatures(old), *openpgp.split_signatures(new)
    ]
    return openpgp.armor(b''.join(dict.fromkeys(packets)))


def check(data: bytes, signature: bytes, keyring: str) -> float:
    """Return when the bytes were signed, in seconds since 1970.

    Args:
        signature: detached, armored or not; one good one is enough.
        keyring: a file with public keys, armored or not.

    Raises:
        SignatureRefused: they are not signed as they should be; why not.
        ToolError: there is no gpgv.
    """
    try:
        packets = openpgp.split_signatures(signature)
        if len(packets) > MAX_SIGNATURES:
            raise ValueError(f'it holds more than {MAX_SIGNATURES}')
    except ValueError as error:
        raise SignatureRefused(
            f'its signature cannot be used: {error}',
            hint='Tell the admin of the repository.',
        ) from None
    with _scratch() as scratch:
        keys = os.path.join(scratch, 'keys')
        write_file(keys, _read_keyring(keyring))
        document = os.path.join(scratch, 'data')
        write_file(document, data)
        verdict = openpgp.most_telling(
            _check_one(scratch, document, packet, keys)
            for packet in packets
        )
    if verdict.time is None:
        raise SignatureRefused(
            verdict.reason,
            hint=(
                f'Tell the admin of the repository. The keyring is '
                f'{keyring}.'
            ),
        )
    return verdict.time


def _check_one(
    scratch: str, document: str, packet: bytes, keys: str
) -> openpgp.Verdict:
    path = os.path.join(scratch, 'signature')
    write_file(path, packet)
    return openpgp.read_verdict(processes.run(
        [CHECK_TOOL, '--homedir', scratch, '--keyring', keys,
         '--status-fd', '1', path, document],
        timeout=CHECK_TIMEOUT_SECONDS, hint=CHECK_HINT,
        # The status lines say more than the status, which is 0 for an
        # expired key.
        passed=(0, 1, 2),
    ))


def _read_keyring(path: str) -> bytes:
    """Return the keys as gpgv wants them: without armor."""
    try:
        data = read_binary(path)
        if not data:
            raise ValueError('it is empty')
        return openpgp.dearmor(data)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError as error:
        reason = str(error)
    raise SignatureRefused(
        f'it cannot be checked, as the keyring {path} cannot be used: '
        f'{reason}',
        hint=KEYRING_HINT,
    )


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    try:
        with tempfile.TemporaryDirectory(prefix='lago-gpg-') as path:
            yield path
    except OSError as error:
        raise ToolError(
            [SIGN_TOOL],
            stderr=f'temporary file: {error.strerror or error}',
        ) from error
