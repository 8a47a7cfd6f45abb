"""A new ``lago init`` in the directory of one that was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator

import pytest

from lago_layered_provider.plugin.repair_prefix import MARKER
from tests.lab import (
    DiskImage, LagoSandbox, Publisher, RudeServer, guest_digest,
)
from tests.lab.running import RunningLago


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[RudeServer]:
    """A server that never sends the end of an image."""
    (tmp_path / 'www').mkdir()
    with RudeServer(tmp_path / 'www') as server:
        server.fail('/*.zst', stall_after=100_000)
        yield server


@pytest.fixture
def box(
    tmp_path: Path, slow: RudeServer, forest: Dict[str, DiskImage]
) -> LagoSandbox:
    repo = Publisher(
        tmp_path / 'www', base_url=slow.url, compression='zst'
    )
    repo.add_forest(forest)
    repo.write()
    return LagoSandbox(
        tmp_path / 'box', {'vm0': 'nfs'}, repo=f'{slow.url}/repo.metadata'
    )


@pytest.mark.parametrize('moment', ['uuid', 'id_rsa', 'initialized', 'logs'])
def test_it_begins_anew(
    box: LagoSandbox, slow: RudeServer, forest: Dict[str, DiskImage],
    moment: str,
) -> None:
    prefix = box.workdir / 'default'
    with RunningLago(box) as killed:
        killed.until((prefix / moment).exists, f'{moment} is there')
        if moment == 'uuid':
            killed.until((prefix / MARKER).exists, 'the marker is there')
    assert not (prefix / 'virt' / 'env').exists()

    slow.heal()
    done = box.init()
    assert done.code == 0, done.output
    assert 'never finished' in ' '.join(done.output.split())
    assert guest_digest(box.disk('vm0')) == forest['nfs'].guest_sha256
    assert box.run('status').code == 0
    assert not (prefix / MARKER).exists()


def test_one_that_runs_is_left_alone(
    box: LagoSandbox, slow: RudeServer, forest: Dict[str, DiskImage]
) -> None:
    with RunningLago(box) as running:
        running.until(
            lambda: 'fetching' in running.output, 'it fetches an image'
        )
        second = box.init()
        assert second.code == 2, second.output
        assert f'process {running.pid}' in ' '.join(second.output.split())
        assert 'Traceback' not in second.output
        assert not running.ended
        assert (box.workdir / 'default' / 'uuid').exists()


@pytest.mark.quick
def test_a_finished_one_is_left_alone(
    box: LagoSandbox, slow: RudeServer
) -> None:
    slow.heal()
    assert box.init().code == 0
    disk = box.disk('vm0').stat().st_ino
    # As if it had been killed before it could remove its mark.
    (box.workdir / 'default' / MARKER).touch()
    again = box.init()
    assert again.code == 2
    assert 'already exists' in again.output
    assert box.disk('vm0').stat().st_ino == disk
