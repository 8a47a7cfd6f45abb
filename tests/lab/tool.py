"""``python -m lago_layered_provider``: the publishing commands, no Lago."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from .commands import SYSTEM_PATH
from .environments import Finished, kill
from .starting import start

SECONDS = 600


class Tool:
    """Runs it in a directory, cut off from the user's configuration.

    Args:
        root: the working directory; made when missing.
        env: additional environment variables.
    """

    def __init__(
        self, root: Path, env: Optional[Mapping[str, str]] = None
    ) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.extra_env: Dict[str, str] = dict(env or {})
        #: Words before the command, such as those of nsenter.
        self.prefix_command: List[str] = []

    def popen(
        self, *arguments: object, env: Optional[Mapping[str, str]] = None
    ) -> subprocess.Popen[str]:
        """Start it in a session of its own.

        Args:
            env: more environment variables for this run.
        """
        kept = {
            key: value for key, value in os.environ.items()
            if not key.startswith(('LAGO', 'XDG_', 'LC_', 'PYTEST'))
            and not key.lower().endswith('_proxy')
        }
        path = os.environ.get('PATH', os.defpath)
        command = [
            *self.prefix_command, sys.executable, '-m',
            'lago_layered_provider',
        ]
        return start(command, [str(word) for word in arguments], {
            'cwd': self.root,
            'stdin': subprocess.DEVNULL,
            'stdout': subprocess.PIPE,
            'stderr': subprocess.PIPE,
            'start_new_session': True,
            'encoding': 'utf-8',
            'errors': 'replace',
            'env': {
                **kept,
                'PATH': f'{path}:{SYSTEM_PATH}',
                'LAGO__INIT__TEMPLATE_STORE': str(self.root / 'store'),
                'COLUMNS': '80',
                **self.extra_env,
                **(env or {}),
            },
        })

    def run(
        self, *arguments: object, code: Optional[int] = 0
    ) -> Finished:
        """Run it to its end, and see how that was; None for any end."""
        process = self.popen(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        finally:
            kill(process)
        done = Finished(process.returncode, stdout, stderr)
        assert 'Traceback' not in done.output, done.output
        assert code is None or done.code == code, done.output
        return done

    def data(self, *arguments: object) -> Any:
        """Run it, and read its answer as a program does."""
        return json.loads(
            self.run('--out-format', 'json', *arguments).stdout
        )

    def fail(self, *arguments: object) -> str:
        """See it fail with one message; return that in one line."""
        done = self.run(*arguments, code=2)
        assert done.stdout == ''
        error = done.stderr.partition('Error: ')[2]
        assert error, done.stderr
        assert all(len(line) <= 80 or '/' in line
                   for line in error.splitlines()), error
        return ' '.join(error.split())
