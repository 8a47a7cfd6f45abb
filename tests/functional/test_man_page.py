"""The man page of ``lago template-repo``, as ``make man`` builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs.man_page import commands_of, make_parser
from tests.lab import require

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Build the page."""
    path = tmp_path / 'man' / 'lago-template-repo.1'
    subprocess.run(
        [sys.executable, '-m', 'docs.man_page', path], cwd=ROOT, check=True
    )
    return path


@pytest.mark.quick
def test_all_commands_are_in_it(page: Path) -> None:
    text = page.read_text().replace('\\', '')
    assert text.startswith('.TH LAGO-TEMPLATE-REPO "1"')
    assert 'lago-template-repo - layered VM templates' in text
    commands = commands_of(make_parser())
    assert {'list', 'show', 'add', 'prune'} <= set(commands)
    for name, parser in commands.items():
        assert f'.SS fBlago template-repo {name}fR' in text
        assert str(parser.epilog).partition(': ')[2] in text


def test_groff_has_no_complaints(page: Path) -> None:
    require('groff')
    done = subprocess.run(
        ['groff', '-man', '-Tutf8', '-ww', '-P', '-c', page],
        capture_output=True, encoding='utf-8', check=True,
    )
    assert done.stderr == ''
    shown = ' '.join(done.stdout.replace('\b', '').split())
    assert 'lago template-repo add http://templates.example.com' in shown
