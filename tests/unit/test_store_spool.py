"""What waits for its decoder, and where the disk has no room for it."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pytest

from lago_layered_provider.store import Store
from lago_layered_provider.store.layout import Layout
from lago_layered_provider.store.spool import Spool

NAME = 'repo:image:v1'


class Disk:
    """A disk on which `spare` bytes are not needed; a step is of 10 bytes."""

    def __init__(self, root: Path) -> None:
        Store(str(root)).prepare()
        self.paths = Layout(str(root))
        self.spare = 1000
        self.asked = 0

    def tell(self) -> int:
        self.asked += 1
        return self.spare

    def spool(self, keep_free: int = 100) -> Spool:
        spool = Spool(self.paths, NAME, self.tell, keep_free)
        spool.begin(0)
        return spool

    def files(self) -> List[str]:
        return sorted(
            path.name for path in Path(self.paths.partial).iterdir()
        )


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(
        'lago_layered_provider.store.spool.SPOOL_BYTES', 10
    )
    return Disk(tmp_path)


def kept(spool: Spool) -> bytes:
    return b''.join(spool.chunks())


def test_what_a_plan_counts_is_always_kept(disk: Disk) -> None:
    disk.spare = 0
    spool = disk.spool()
    spool.append(b'123456')
    spool.append(b'789')
    assert kept(spool) == b'123456789'
    assert not disk.asked


@pytest.mark.parametrize('spare, is_kept', [
    (110, True), (109, False), (0, False), (-9, False), (-10, True),
])
def test_more_is_kept_where_images_have_room(
    disk: Disk, spare: int, is_kept: bool
) -> None:
    """Down to where they have none even without it."""
    spool = disk.spool()
    spool.append(b'123456789')
    disk.spare = spare
    spool.append(b'0')
    assert disk.asked == 1
    assert kept(spool) == (b'1234567890' if is_kept else b'')
    assert disk.files() == ([f'{NAME}.0.spool'] if is_kept else [])
    assert spool.end == 10


def test_given_up_until_a_checkpoint_without_gap(disk: Disk) -> None:
    spool = disk.spool()
    disk.spare = 50
    spool.append(b'0123456789')
    disk.spare = 1000
    spool.append(b'ab')
    # A decoder can begin at 11 by now; byte 11 is lost.
    spool.branch(11)
    spool.open(11)
    spool.append(b'c')
    assert (kept(spool), spool.end, disk.files()) == (b'', 13, [])
    spool.open(13)
    spool.append(b'd')
    assert (kept(spool), spool.end) == (b'd', 14)


def test_given_up_until_it_begins_anew(disk: Disk) -> None:
    spool = disk.spool()
    disk.spare = 50
    spool.append(b'0123456789')
    spool.begin(0)
    assert spool.end == 0
    spool.append(b'01')
    assert kept(spool) == b'01'


def test_asked_once_for_each_step(disk: Disk) -> None:
    spool = disk.spool()
    for number in range(95):
        spool.append(bytes([number]))
    assert kept(spool) == bytes(range(95))
    assert disk.asked == 9


def test_without_a_disk_to_ask_all_is_kept(disk: Disk) -> None:
    spool = Spool(disk.paths, NAME)
    spool.begin(0)
    spool.append(bytes(1000))
    assert len(kept(spool)) == 1000
