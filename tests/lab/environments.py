"""A Lago environment of its own: init file, configuration, store, leases.

The real ``lago`` beside the running Python is started in it, cut off from
the user's home, configuration and terminal. libvirt is its own in-process
test driver, so that no daemon is needed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from .commands import SYSTEM_PATH, unavailable
from .starting import start

LIBVIRT_TEST_DRIVER = 'test:///default'
LAGO_SECONDS = 300

#: A template's name, or the keys of a disk (template_version ...), or a list
#: of disks.
Disks = Union[str, Mapping[str, Any], List[Mapping[str, Any]]]


@dataclass(frozen=True)
class Finished:
    """What a command left: exit status and everything it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Return stdout and stderr; Lago logs to the one or the other."""
        return self.stdout + self.stderr


class LagoSandbox:
    """One directory with everything that ``lago init`` reads and writes.

    A test that needs more in the LagoInitFile (prototypes, nets, repositories)
    changes ``init_data`` and calls ``write`` again.

    Args:
        root: made when missing; ``lago`` runs in it.
        vms: VM name -> template, disk keys, or a list of disks.
        repo: path or URL of the index; Lago's configured default here.
        store: of templates; default: ``store`` in ``root``.
        config: sections of lago.conf -> key -> value, over the lab's own.
        env: additional environment variables.
    """

    def __init__(
        self,
        root: Path,
        vms: Mapping[str, Disks],
        *,
        repo: Union[str, Path] = '',
        store: Optional[Path] = None,
        config: Optional[Mapping[str, Mapping[str, Any]]] = None,
        env: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.root = root.resolve()
        self.store = (store or self.root / 'store').resolve()
        self.repo = str(repo)
        self.config = {key: dict(value) for key, value in (
            config or {}).items()}
        self.extra_env = dict(env or {})
        #: Words before the command, such as those of nsenter.
        self.prefix_command: List[str] = []
        self.init_data = init_data(vms)
        self.write()

    @property
    def init_file(self) -> Path:
        """Return the path of the LagoInitFile (JSON is YAML)."""
        return self.root / 'LagoInitFile'

    @property
    def workdir(self) -> Path:
        """Return Lago's working directory."""
        return self.root / '.lago'

    def write(self) -> None:
        """Write LagoInitFile and lago.conf; again after changing them."""
        for name in ('home', 'config/lago', 'leases', 'tmp'):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.init_file.write_text(json.dumps(self.init_data, indent=2))
        sections: Dict[str, Dict[str, Any]] = {
            'lago': {
                'libvirt_url': LIBVIRT_TEST_DRIVER,
                'lease_dir': self.root / 'leases',
            },
            'init': {
                'template_repo_path': self.repo,
                'template_store': self.store,
                'template_repos': self.root / 'repos',
            },
        }
        for name, keys in self.config.items():
            sections.setdefault(name, {}).update(keys)
        lines: List[str] = []
        for name, keys in sections.items():
            lines += [f'[{name}]', *(f'{k} = {v}' for k, v in keys.items())]
        conf = self.root / 'config/lago/lago.conf'
        conf.write_text('\n'.join(lines) + '\n')

    def environment(self) -> Dict[str, str]:
        """Return the environment that ``lago`` runs in."""
        beside = Path(sys.executable).parent
        path = os.environ.get('PATH', os.defpath)
        kept = {
            key: value for key, value in os.environ.items()
            if not key.startswith(('LAGO', 'XDG_', 'LC_', 'PYTEST'))
            and not key.lower().endswith('_proxy')
        }
        return {
            **kept,
            'PATH': f'{beside}:{path}:{SYSTEM_PATH}',
            'HOME': str(self.root / 'home'),
            'XDG_CONFIG_HOME': str(self.root / 'config'),
            'XDG_CONFIG_DIRS': str(self.root / 'config'),
            'TMPDIR': str(self.root / 'tmp'),
            'LAGO_LIBVIRT_URL': LIBVIRT_TEST_DRIVER,
            'LC_ALL': 'C',
            'TERM': 'dumb',
            'COLUMNS': '80',
            'PYTHONUNBUFFERED': '1',
            **self.extra_env,
        }

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``lago`` in a session of its own, without a terminal.

        Args:
            options: of ``subprocess.Popen``, over the lab's own.
        """
        command = [*self.prefix_command, str(lago_command())]
        given: Dict[str, Any] = {
            'cwd': self.root,
            'env': self.environment(),
            'stdin': subprocess.DEVNULL,
            'stdout': subprocess.PIPE,
            'stderr': subprocess.PIPE,
            'start_new_session': True,
            'encoding': 'utf-8',
            'errors': 'replace',
            **options,
        }
        return start(command, arguments, given)

    def run(self, *arguments: str, timeout: float = LAGO_SECONDS) -> Finished:
        """Run ``lago`` to its end; its children die with it on a timeout."""
        process = self.popen(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            stdout, stderr = process.communicate()
            raise RuntimeError(
                f'lago {" ".join(arguments)}: still running after '
                f'{timeout} s\n{stdout}\n{stderr}'
            ) from None
        return Finished(process.returncode, stdout, stderr)

    def init(self, *arguments: str, **options: Any) -> Finished:
        """Run ``lago init --skip-bootstrap``."""
        return self.run('init', '--skip-bootstrap', *arguments, **options)

    def disk(self, vm: str, name: str = 'root') -> Path:
        """Return the path of a VM's disk in the current prefix."""
        return self.workdir / 'default' / 'images' / f'{vm}_{name}.qcow2'

    def stored(self) -> List[str]:
        """Return the names of the images in the store, sorted."""
        if not self.store.is_dir():
            return []
        return sorted(
            path.name for path in self.store.iterdir()
            if path.is_file() and not path.name.startswith('.')
            and path.suffix not in ('.lock', '.hash', '.metadata', '.tmp')
        )


def lago_command() -> Path:
    """Return the ``lago`` installed beside the running Python."""
    command = Path(sys.executable).parent / 'lago'
    if not command.exists():
        unavailable('no lago beside this Python; run "make lago"')
    return command


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process of ``popen`` and all of its children with SIGKILL."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def init_data(vms: Mapping[str, Disks], net: str = 'net0') -> Dict[str, Any]:
    """Return a LagoInitFile's data: VMs on one nat net, not bootstrapped."""
    domains: Dict[str, Any] = {}
    for name, disks in vms.items():
        if isinstance(disks, str):
            disks = {'template_name': disks}
        listed = [disks] if isinstance(disks, Mapping) else disks
        domains[name] = {
            'memory': 256,
            'vcpu': 1,
            'bootstrap': False,
            'nics': [{'net': net}],
            'disks': [
                {
                    'template_name': '',
                    'type': 'template',
                    'name': 'root' if number == 0 else f'disk{number}',
                    'dev': f'vd{"abcdefgh"[number]}',
                    'format': 'qcow2',
                    **keys,
                }
                for number, keys in enumerate(listed)
            ],
        }
    return {
        'domains': domains,
        'nets': {net: {'type': 'nat', 'dhcp': {'start': 100, 'end': 254},
                       'management': True}},
    }
