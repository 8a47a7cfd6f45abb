"""Start `lago` with and without this package.

Both sides run the same interpreter on a directory of links to everything
that is installed (``python -S``, PYTHONPATH). The two directories differ in
one thing: in one of them the package's .dist-info is missing, and with it
the entry points, so that Lago knows of no plugin.

lago --help   with the package, and without
lago init     with everything present: with the package, and without; as
              today's qemu refuses what a plain Lago asks of it,
              ``plugin.repair`` is applied by hand there, which is what the
              plugin does as well. Same store, index, server, init file.

`ssh-keygen` is a stand-in that copies a key, since the search for primes
takes between 0.1 and 2 seconds, by chance. There is no bootstrap.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List

import lago_layered_provider
from tests.lab import LagoSandbox, run

from .processes import Cost, measure

PACKAGE = 'lago_layered_provider'
START = Path(__file__).parent / 'start_lago.py'
SIDES = ('with', 'without')

#: Copies the key to the path after -f.
KEYGEN = """\
#!/bin/sh
while [ "$1" != -f ]; do shift; done
cp {key} "$2" && cp {key}.pub "$2.pub"
"""


@dataclass
class Starts:
    """What every run took, by side."""

    help: Dict[str, List[Cost]] = field(default_factory=dict)
    init: Dict[str, List[Cost]] = field(default_factory=dict)


def compare_starts(box: LagoSandbox, rounds: int) -> Starts:
    """Run `lago --help` and `lago init` by turns; a first turn is dropped.

    Args:
        box: its store holds all that its init file wants.
    """
    environments = _environments(box)
    found = Starts()
    for number in range(-1, rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            env = environments[side]
            helped = _run(box, env, 'as-it-is', '--help')
            shutil.rmtree(box.workdir, ignore_errors=True)
            repair = 'repaired' if side == 'without' else 'as-it-is'
            init = _run(box, env, repair, 'init', '--skip-bootstrap')
            if number >= 0:
                found.help.setdefault(side, []).append(helped)
                found.init.setdefault(side, []).append(init)
    return found


def _run(
    box: LagoSandbox, env: Dict[str, str], *arguments: str
) -> Cost:
    command = [sys.executable, '-S', str(START), *arguments]
    return measure(command, env=env, cwd=box.root)


def _environments(box: LagoSandbox) -> Dict[str, Dict[str, str]]:
    tools = box.root / 'tools'
    _make_keygen(tools)
    environments = {}
    for side in SIDES:
        site = box.root / f'site-{side}'
        _link_site(site, with_plugin=side == 'with')
        environment = box.environment()
        environment['PYTHONPATH'] = str(site)
        environment['PATH'] = f'{tools}:{environment["PATH"]}'
        environments[side] = environment
    return environments


def _make_keygen(tools: Path) -> None:
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir()
    key = tools / 'key'
    run('ssh-keygen', '-q', '-t', 'rsa', '-m', 'PEM', '-N', '', '-f', key)
    script = tools / 'ssh-keygen'
    script.write_text(KEYGEN.format(key=key))
    script.chmod(0o755)


def _link_site(site: Path, *, with_plugin: bool) -> None:
    """Make a directory that looks like site-packages."""
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    found = {
        entry.name: entry
        for key in ('purelib', 'platlib')
        for entry in Path(sysconfig.get_path(key)).iterdir()
    }
    found[PACKAGE] = Path(lago_layered_provider.__file__).parent
    for name, entry in found.items():
        ours = name.startswith(f'{PACKAGE}-') and name.endswith('.dist-info')
        # The loader of an editable installation is no part of a user's.
        if name.startswith('__editable__') or ours and not with_plugin:
            continue
        os.symlink(entry, site / name)
