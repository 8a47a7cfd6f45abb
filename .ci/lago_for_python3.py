"""Give the interpreter that runs this file a Lago for Python 3.

Lago 1.0 and newer run on Python 3, but were never published on the package
registry; what is there, 0.46.0, is Python 2. So:

* An installed Lago >= 1.0 is used as it is; only requirements that it needs
  and does not declare are added.
* Otherwise 0.46.0 is downloaded, translated with fissix (the maintained
  lib2to3), mended in the few places that must be right before any plugin is
  imported, and installed.

What a plugin can repair when it is loaded is not done here: see
lago_layered_provider/plugin/repair.py.

A second run changes nothing and is quick. Only the standard library is used,
since this runs before anything is installed.
"""
from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

LAGO_VERSION = '0.46.0'
FIRST_PYTHON3_VERSION = (1, 0)
STEP_TIMEOUT_SECONDS = 1200

# Lago imports pkg_resources when it runs. setuptools 82 dropped it, and from
# 80.9 on it greets every single command with a warning.
SETUPTOOLS = 'setuptools<80.9'

# Needed by Lago and not declared: module -> requirement.
UNDECLARED = {
    'six': 'six',
    'libvirt': 'libvirt-python',
    'pkg_resources': SETUPTOOLS,
}


class RecipeError(Exception):
    """A step of the recipe did not do what it must."""


@dataclass(frozen=True)
class Mend:
    """One textual change of Lago's sources, after the translation.

    Attributes:
        path: the file, relative to the root of the source tree.
        old: the text to be replaced; must occur exactly `count` times.
        reason: what fails without it.
    """

    path: str
    old: str
    new: str
    reason: str
    count: int = 1

    def apply(self, tree: Path) -> None:
        """Change the file, or fail when it is not the text we know.

        Raises:
            RecipeError: the text occurs more or less often than expected.
        """
        path = tree / self.path
        text = path.read_text(encoding='utf-8')
        found = text.count(self.old)
        if found != self.count:
            raise RecipeError(
                f'{self.path}: expected {self.count} times, found {found} '
                f'times: {self.old!r} (wanted because: {self.reason})'
            )
        path.write_text(text.replace(self.old, self.new), encoding='utf-8')


MENDS = (
    Mend(
        'lago/validation.py',
        'import imp\n',
        'import importlib.util\n',
        'Python 3.12 has no module imp: import lago fails',
    ),
    Mend(
        'lago/validation.py',
        '        imp.find_module(module_name)\n        return True\n',
        '        return importlib.util.find_spec(module_name) is not None\n',
        'Python 3.12 has no module imp: import lago fails',
    ),
    Mend(
        'lago/cmd.py',
        "add_subparsers(dest='verb', metavar='VERB')\n",
        "add_subparsers(\n"
        "        dest='verb', metavar='VERB', required=True\n"
        "    )\n",
        'lago without a verb: KeyError instead of the usage',
    ),
    Mend(
        'lago/templates/sysprep-macros.j2',
        '.viewitems()',
        '.items()',
        'fissix does not see templates: lago init with bootstrap fails',
        count=2,
    ),
    Mend(
        'lago/__init__.py',
        '    LOGGER.warning(msg)\n',
        '    LOGGER.debug(msg)\n',
        'advice for Python 2, 15 lines of it, on every single command',
    ),
    Mend(
        'setup.py',
        "setup_requires=['pbr', 'dulwich'],",
        '',
        'pbr is there already, dulwich is only for releases of Lago',
    ),
    Mend(
        'requirements.txt',
        'configparser\nenum34\n',
        'six\n',
        'both are in the standard library, and enum34 breaks it',
    ),
    Mend(
        'requirements.txt',
        '\nsetuptools\n',
        f'\n{SETUPTOOLS}\n',
        'Lago needs pkg_resources',
    ),
)


def run_python(
    *arguments: str, cwd: Path | None = None, path: Path | None = None
) -> str:
    """Run this interpreter again and return what it wrote to stdout.

    Args:
        path: a directory to import from as well.

    Raises:
        RecipeError: with the end of the output, when it failed.
    """
    environment = dict(os.environ, PYTHONWARNINGS='ignore')
    if path is not None:
        environment['PYTHONPATH'] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=STEP_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        tail = '\n'.join((done.stdout + done.stderr).splitlines()[-30:])
        command = ' '.join(['python', *arguments])
        raise RecipeError(f'{command}: status {done.returncode}\n{tail}')
    return done.stdout


def installed_version() -> str | None:
    """Return the version of the Lago that this interpreter finds."""
    try:
        return importlib.metadata.version('lago')
    except importlib.metadata.PackageNotFoundError:
        return None


def runs_on_python3(version: str) -> bool:
    """Tell whether a Lago of this version needs no translation."""
    numbers = re.findall(r'\d+', version)[:2]
    return tuple(map(int, numbers)) >= FIRST_PYTHON3_VERSION


def find_missing() -> list[str]:
    """Return the requirements that Lago needs and nobody installed."""
    program = (
        'import importlib.util, sys\n'
        'for name in sys.argv[1:]:\n'
        '    if importlib.util.find_spec(name) is None:\n'
        '        print(name)\n'
    )
    missing = run_python('-c', program, *UNDECLARED).split()
    return [UNDECLARED[module] for module in missing]


def install(*requirements: str, options: tuple[str, ...] = ()) -> None:
    """Install with pip, quietly."""
    run_python('-m', 'pip', 'install', '--quiet', *options, *requirements)


def download_source(directory: Path) -> Path:
    """Download and unpack Lago's source distribution; return its root."""
    run_python(
        '-m', 'pip', 'download', '--quiet', '--no-deps',
        '--no-binary', 'lago', '--no-build-isolation',
        '--dest', str(directory), f'lago=={LAGO_VERSION}',
    )
    (archive,) = directory.glob('lago-*.tar.gz')
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, 'data_filter'):
            tar.extractall(directory, filter='data')
        else:
            tar.extractall(directory)
    return directory / f'lago-{LAGO_VERSION}'


def translate(tree: Path, scratch: Path) -> None:
    """Make Python 3 of the sources: fissix, then the mends."""
    install('fissix', options=('--target', str(scratch)))
    run_python(
        '-m', 'fissix', '--no-diffs', '-w', '-n', 'lago',
        cwd=tree, path=scratch,
    )
    for mend in MENDS:
        mend.apply(tree)


def build_lago() -> None:
    """Download, translate, mend and install Lago 0.46.0."""
    # pbr and wheel build Lago; without isolation nothing is fetched twice.
    install(SETUPTOOLS, 'pbr', 'wheel')
    with tempfile.TemporaryDirectory(prefix='lago-') as name:
        directory = Path(name)
        tree = download_source(directory)
        translate(tree, directory / 'fissix')
        install(
            str(tree),
            options=('--no-build-isolation', '--no-cache-dir'),
        )


def check_import() -> str:
    """Import Lago in a fresh interpreter; return where it is.

    Raises:
        RecipeError: it cannot be imported.
    """
    return run_python(
        '-c', 'import os, lago.cmd; print(os.path.dirname(lago.__file__))',
    ).strip()


def provide_lago() -> str:
    """Make Lago importable; return its directory."""
    version = installed_version()
    if version is not None and runs_on_python3(version):
        missing = find_missing()
        if missing:
            install(*missing)
        return check_import()
    if version is not None:
        try:
            return check_import()
        except RecipeError:
            # The published 0.46.0, as a plain pip install leaves it.
            run_python('-m', 'pip', 'uninstall', '--quiet', '--yes', 'lago')
    build_lago()
    return check_import()


def main() -> int:
    """Provide Lago and say which and where; return the exit status."""
    argparse.ArgumentParser(
        description='Give this interpreter a Lago for Python 3.'
    ).parse_args()
    try:
        directory = provide_lago()
    except RecipeError as error:
        print(f'lago_for_python3: {error}', file=sys.stderr)
        return 1
    print(f'Lago {installed_version()} in {directory}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
