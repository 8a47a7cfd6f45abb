"""What is packed is unpacked again by clients, and by the tools themselves."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Iterator, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_layered_provider.core import magics
from lago_layered_provider.core.errors import PublishError
from lago_layered_provider.formats import zstd
from lago_layered_provider.formats.xz_index import XzIndex, parse_index_tail
from lago_layered_provider.publishing import packing
from lago_layered_provider.publishing.packing import Packer
from lago_layered_provider.publishing.reading_originals import read_original
from lago_layered_provider.transfer.decode import make_decoder
from tests.lab import require
from tests.lab.images import content

PART = 64 << 10


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts without many bytes."""
    monkeypatch.setattr(packing, 'PART_BYTES', PART)


@pytest.mark.parametrize('data, words', [
    (bytes(PART) + b'conectix'.ljust(512, b'\0'), 'it is a vhd image'),
    (bytes(PART + 1), 'not whole sectors'),
    (b'<html>'.ljust(512), 'it is an HTML page'),
])
def test_what_only_its_end_shows_to_be_no_image(
    data: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / 'disk.img.gz'
    path.write_bytes(gzip.compress(data))
    with pytest.raises(PublishError, match=words):
        b''.join(read_original(str(path), None, None))
    path.write_bytes(gzip.compress(bytes(PART)))
    assert b''.join(read_original(str(path), None, None)) == bytes(PART)


def unpack(data: bytes, compression: Optional[str]) -> bytes:
    decoder = make_decoder(compression)
    pieces = list(decoder.feed(data)) + list(decoder.flush())
    decoder.finish()
    return b''.join(pieces)


def pack(
    chunks: List[bytes], compression: Optional[str], path: Path
) -> Tuple[packing.Packed, bytes, int]:
    told: List[int] = []
    packer = Packer(2)
    try:
        with open(path, 'wb') as output:
            packed = packer.pack(chunks, output, compression, told.append)
    finally:
        packer.close()
    return packed, path.read_bytes(), sum(told)


@pytest.mark.parametrize('compression', ['zst', 'gz', None])
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip(
    compression: Optional[str], data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sizes = data.draw(st.lists(
        st.sampled_from([0, 1, 511, PART - 1, PART, PART + 1, 3 * PART]),
        max_size=5,
    ))
    chunks = [
        content(size, str(number)) if number % 2 else bytes(size)
        for number, size in enumerate(sizes)
    ]
    image = b''.join(chunks)
    path = tmp_path_factory.mktemp('packed') / 'image'
    packed, made, told = pack(chunks, compression, path)
    assert packed.size == told == len(image)
    assert packed.compressed_size == len(made)
    assert {one.algorithm: one.value for one in packed.digests} == {
        name: hashlib.new(name, image).hexdigest()
        for name in ('sha1', 'sha256', 'sha512')
    }
    assert unpack(made, compression) == image
    if compression == 'gz':
        assert gzip.decompress(made) == image
    if compression == 'zst':
        frames = zstd.parse_seek_table(made, len(made))
        assert isinstance(frames, tuple)
        assert sum(frame.makes for frame in frames) == len(image)


def test_parts_of_zst_stand_alone(tmp_path: Path) -> None:
    """A client that goes on in the middle needs nothing from before it."""
    image = content(5 * PART + 1, 'x')
    _, made, _ = pack([image], 'zst', tmp_path / 'image')
    starts = [
        at for at in range(len(made)) if made.startswith(magics.ZSTD_FRAME, at)
    ]
    assert len(starts) == 6
    assert unpack(made[starts[2]:], 'zst') == image[2 * PART:]


def test_xz_has_blocks_that_tell_their_sizes(tmp_path: Path) -> None:
    require('xz')
    image = content(1 << 20, 'x')
    packed, made, told = pack([image], 'xz', tmp_path / 'image')
    assert lzma.decompress(made) == image
    assert unpack(made, 'xz') == image
    assert told == packed.size == len(image)
    found = parse_index_tail(made, len(made))
    assert isinstance(found, XzIndex)
    assert found.uncompressed_size == len(image)
    # Flags of the first block: both sizes are given (xz format, 3.1.2).
    assert made[13] & 0xC0 == 0xC0


def test_several_xz_share_the_processors(tmp_path: Path) -> None:
    """More images than processors, large and small, known sizes or not."""
    require('xz')
    packer = Packer(2)
    images = [
        content(size, str(size)) for size in (3 * PART, PART, 5, 2 * PART, 9)
    ]

    def pack_one(number: int) -> bytes:
        path = tmp_path / f'{number}'
        image = images[number]
        with open(path, 'wb') as output:
            packer.pack(
                [image], output, 'xz', lambda count: None,
                len(image) if number % 2 else None,
            )
        return lzma.decompress(path.read_bytes())

    try:
        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(pack_one, range(5))) == images
    finally:
        packer.close()


def test_zeros_take_no_room(tmp_path: Path) -> None:
    image = content(PART, 'x') + bytes(64 * PART) + content(PART, 'y')
    packed, made, _ = pack([image], None, tmp_path / 'image')
    assert made == image
    assert (tmp_path / 'image').stat().st_blocks * 512 < 16 * PART


@pytest.mark.parametrize('compression', ['zst', 'gz', 'xz', None])
def test_what_cannot_be_read_ends_it(
    compression: Optional[str], tmp_path: Path
) -> None:
    require('xz')

    def broken() -> Iterator[bytes]:
        yield content(3 * PART, 'x')
        raise OSError(5, 'Input/output error')

    packer = Packer(2)
    try:
        with open(tmp_path / 'image', 'wb') as output, pytest.raises(OSError):
            packer.pack(broken(), output, compression, lambda count: None)
    finally:
        packer.close()


@pytest.mark.parametrize('compression', ['zst', 'gz', None])
def test_a_full_disk_ends_it(compression: Optional[str]) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, 'No space left on device')

    packer = Packer(2)
    output: IO[bytes] = Full()
    try:
        with pytest.raises(OSError, match='No space'):
            packer.pack(
                [content(3 * PART, 'x')], output, compression,
                lambda count: None,
            )
    finally:
        packer.close()


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 2)))
def test_a_seek_table_tells_all_frames(frames: List[Tuple[int, int]]) -> None:
    table = zstd.make_seek_table(frames)
    total = sum(size for size, _ in frames) + len(table)
    found = zstd.parse_seek_table(table, total)
    assert isinstance(found, tuple)
    assert sum(block.makes for block in found) == sum(
        size for _, size in frames
    )
    assert zstd.parse_seek_table(table, total + 1) is None
