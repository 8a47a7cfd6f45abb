"""A key of gpg of a test's own, and the keyring that trusts it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Dict, Optional, Type

from .commands import require, run

USER = 'admin@example.com'


class Signing:
    """A context manager; the key is that of `USER`.

    Args:
        root: where the keyring is written.
    """

    def __init__(self, root: Path) -> None:
        self.keyring = root / 'keyring.gpg'
        self._home = ''

    def __enter__(self) -> Signing:
        require('gpg', 'gpgv', 'gpgconf')
        # The path of its agent's socket must be short.
        self._home = tempfile.mkdtemp(prefix='gpg-', dir='/tmp')
        self._gpg('--quick-gen-key', USER, 'ed25519', 'sign')
        self._gpg('--output', str(self.keyring), '--export')
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        run('gpgconf', '--homedir', self._home, '--kill', 'all')
        shutil.rmtree(self._home, ignore_errors=True)

    def _gpg(self, *arguments: str) -> None:
        run('gpg', '--homedir', self._home, '--batch', '--quiet',
            '--passphrase', '', *arguments)

    @property
    def environment(self) -> Dict[str, str]:
        """Return what an admin has set, who has the key."""
        return {'GNUPGHOME': self._home}

    @property
    def demanding(self) -> Dict[str, str]:
        """Return what a client has set that wants signatures."""
        return {'LAGO__TEMPLATE_REPO__KEYRING': str(self.keyring)}
