"""Images received over one connection, whose answers may be wrong.

The sources are in memory, the store is a real one.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, List, Optional, Tuple

import pytest

from lago_layered_provider.core.errors import SizeMismatch
from lago_layered_provider.providers.mirrored import Mirrored
from lago_layered_provider.store import Store
from lago_layered_provider.transfer import retries
from lago_layered_provider.transfer.connections import Connections
from lago_layered_provider.transfer.ports import Provider
from lago_layered_provider.transfer.shared import BlockRoom, Shared
from lago_layered_provider.transfer.streaming import Streaming
from tests.unit.test_block_receiver import (
    NAME, Odd, Origin, Stream, Told, fixture_store, make_file, staged_bytes,
)

__all__ = ['fixture_store']

KINDS = ['xz', 'one xz', 'gz', 'zst', None]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, 'FIRST_PAUSE_SECONDS', 0.001)


class WithoutRanges(Origin):
    """A source that sends each file from its beginning."""

    def open(
        self, path: str, *, start: int = 0, end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> Stream:
        return super().open(path)


def parts() -> List[bytes]:
    rng = random.Random(5)
    return [rng.randbytes(100_000) for _ in range(4)]


def receive(
    store: Store, kind: Optional[str], provider: Provider, told: Told,
    **changes: Any
) -> int:
    """Receive an image; return the size of its file.

    Args:
        changes: what its index says else.
    """
    file = make_file(kind, parts())
    image = replace(file.image, **changes)
    shared = Shared(1, 30, told, BlockRoom(4))
    connections = Connections(1, [])
    try:
        with store.stage(NAME, identity='it') as stage:
            assert stage is not None
            Streaming(
                NAME, image, provider, shared, connections
            ).receive(stage)
    finally:
        connections.close()
        shared.pool.close()
    assert staged_bytes(store) == file.content
    return len(file.data)


@pytest.mark.parametrize('kind', KINDS)
def test_without_ranges_what_is_here_stays(
    kind: Optional[str], store: Store
) -> None:
    """A digest decides: bytes that come once more are read over."""
    told = Told()
    origin = WithoutRanges(make_file(kind, parts()).data, [150_000, 250_000])
    size = receive(store, kind, Mirrored([origin], told.note), told)
    assert origin.sent == 150_000 + 250_000 + size
    assert told.begun == [(size, 0)]
    assert told.advanced == size
    assert [
        note for note in told.notes if 'cannot be continued at byte' in note
    ] == [
        f'{NAME}: it cannot be continued at byte {at}; what came before '
        f'comes again' for at in (150_000, 250_000)
    ]


@pytest.mark.parametrize('kind', KINDS)
def test_without_a_digest_it_is_received_anew_and_told(
    kind: Optional[str], store: Store
) -> None:
    told = Told()
    origin = WithoutRanges(make_file(kind, parts()).data, [150_000])
    source = Mirrored([origin], told.note)
    source.keep_apart(make_file(kind, parts()).image.file)
    size = receive(store, kind, source, told)
    assert told.begun == [(size, 0), (size, 0)]
    assert told.advanced == 150_000 + size
    assert any('comes again' in note for note in told.notes)


def make_odd(wrong: Tuple[int, ...], cuts: List[Optional[int]]) -> Odd:
    origin = Odd(make_file('xz', parts()).data, cuts)
    origin.wrong, origin.more = {*wrong}, 1
    return origin


def test_one_answer_of_another_size_does_not_take_away_what_is_here(
    store: Store
) -> None:
    told = Told()
    origin = make_odd((2, 3), [150_000])
    size = receive(store, 'xz', Mirrored([origin], told.note), told)
    assert origin.sent == told.advanced == size
    assert sum('bytes now' in note for note in told.notes) == 2


@pytest.mark.parametrize('wrong, cuts, asked', [
    # With nothing at hand the first answer decides.
    ((1,), [], 1),
    ((2, 3, 4, 5), [150_000], 5),
])
def test_another_size_means_another_file(
    wrong: Tuple[int, ...], cuts: List[Optional[int]], asked: int,
    store: Store,
) -> None:
    told = Told()
    origin = make_odd(wrong, cuts)
    with pytest.raises(SizeMismatch):
        receive(store, 'xz', Mirrored([origin], told.note), told)
    assert len(origin.opened) == asked


@pytest.mark.parametrize('size', [1000, 399_999, 400_001])
@pytest.mark.parametrize('kind', KINDS)
def test_an_image_is_as_large_as_announced(
    kind: Optional[str], size: int, store: Store
) -> None:
    """Also without a digest; and no more than that is ever written."""
    told = Told()
    origin = Origin(make_file(kind, parts()).data)
    with pytest.raises(SizeMismatch, match=f'expected {size} bytes'):
        receive(
            store, kind, Mirrored([origin], told.note), told, size=size,
            digests=(),
        )
    assert len(staged_bytes(store)) <= size
