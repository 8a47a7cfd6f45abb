"""Decoding in pieces: the same bytes whatever the splits and restarts."""

from __future__ import annotations

import gzip
import importlib
import lzma
import struct
import sys
import zlib
from typing import Any, List, Optional, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.formats import xz_index
from lago_layered_provider.transfer.decode import (
    Checkpoint, CorruptStream, make_decoder,
)
from lago_layered_provider.transfer.units import PIECE_BYTES, XzBlocks

KINDS = ('gz', 'zst', 'xz', 'xz blocks')


def zstd_module() -> Any:
    new = sys.version_info >= (3, 14)
    return importlib.import_module(
        'compression.zstd' if new else 'backports.zstd'
    )


def integer(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sealed(data: bytes) -> bytes:
    data += bytes(-len(data) % 4)
    return data + struct.pack('<I', zlib.crc32(data))


def xz_in_blocks(
    parts: Sequence[bytes], *, flags: int = 0xC0, lie: int = 0
) -> bytes:
    """Return one xz stream, each part a block that tells its sizes.

    It is what ``xz -T0`` writes; Python's lzma cannot. `lie` is added to the
    last record of the index.
    """
    stream = lzma.compress(b'', check=lzma.CHECK_CRC32)[:12]
    records = b''
    for part in parts:
        data = lzma.compress(
            part, format=lzma.FORMAT_RAW,
            filters=[{'id': lzma.FILTER_LZMA2, 'dict_size': 1 << 16}],
        )
        fields = b''
        if flags & 0x40:
            fields += integer(len(data))
        if flags & 0x80:
            fields += integer(len(part))
        body = bytes([flags]) + fields + bytes((0x21, 1, 8))
        body += bytes(-(len(body) + 1) % 4)
        header = sealed(bytes([(len(body) + 1) // 4]) + body)
        stream += header + data + bytes(-len(data) % 4)
        stream += struct.pack('<I', zlib.crc32(part))
        size = len(part) + (lie if part is parts[-1] else 0)
        records += integer(len(header) + len(data) + 4) + integer(size)
    index = sealed(b'\0' + integer(len(parts)) + records)
    body = struct.pack('<IBB', len(index) // 4 - 1, 0, 1)
    return stream + index + struct.pack('<I', zlib.crc32(body)) + body + b'YZ'


def compress(kind: str, parts: Sequence[bytes]) -> bytes:
    """Return a file of one unit a part (for 'xz': one stream a part)."""
    if kind == 'xz blocks':
        return xz_in_blocks(parts)
    one = {
        'gz': gzip.compress,
        'zst': zstd_module().compress,
        'xz': lzma.compress,
    }[kind]
    return b''.join(map(one, parts))


def name_of(kind: str) -> str:
    return kind.split()[0]


def split(data: bytes, cuts: Sequence[int]) -> List[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(places, places[1:])]


def decode(
    kind: Optional[str], chunks: Sequence[bytes], start: Checkpoint
) -> Tuple[bytes, List[Checkpoint]]:
    """Decode chunks to the end; return the output and all checkpoints."""
    decoder = make_decoder(
        kind, consumed=start.consumed, preamble=start.preamble
    )
    out = b''
    checkpoints = [decoder.checkpoint]
    for chunk in chunks:
        for piece in decoder.feed(chunk):
            assert 0 < len(piece) <= PIECE_BYTES
            out += piece
            assert decoder.checkpoint.produced <= len(out)
        checkpoints.append(decoder.checkpoint)
    decoder.finish()
    assert decoder.finished
    return out, checkpoints


BEGIN = Checkpoint(0, 0)

parts_of_files = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda piece, times: piece * times,
            st.binary(min_size=1, max_size=9), st.integers(1, 20000),
        ),
    ),
    min_size=1, max_size=5,
)
cuts_of_files = st.lists(st.integers(0, 1 << 20), max_size=8)


@given(st.sampled_from(KINDS), parts_of_files, cuts_of_files)
def test_any_split_and_any_restart(
    kind: str, parts: List[bytes], cuts: List[int]
) -> None:
    packed, plain = compress(kind, parts), b''.join(parts)
    out, checkpoints = decode(name_of(kind), split(packed, cuts), BEGIN)
    assert out == plain
    assert checkpoints[-1].consumed == len(packed)
    assert checkpoints[-1].produced == len(plain)
    for checkpoint in checkpoints:
        rest, _ = decode(
            name_of(kind), split(packed[checkpoint.consumed:], cuts),
            checkpoint,
        )
        assert rest == plain[checkpoint.produced:]


@given(st.binary(max_size=3000), cuts_of_files)
def test_plain(data: bytes, cuts: List[int]) -> None:
    out, checkpoints = decode(None, split(data, cuts), BEGIN)
    assert out == data
    assert all(place.consumed == place.produced for place in checkpoints)
    assert checkpoints[-1].consumed == len(data)
    assert decode(None, [data], Checkpoint(7, 0))[1][-1] == Checkpoint(
        7 + len(data), len(data)
    )


@given(st.sampled_from(KINDS), parts_of_files, st.integers(0, 1 << 20))
def test_truncated(kind: str, parts: List[bytes], cut: int) -> None:
    packed = compress(kind, parts)
    cut %= len(packed)
    decoder = make_decoder(name_of(kind))
    out = b''.join(decoder.feed(packed[:cut]))
    assert b''.join(parts).startswith(out)
    # A file cut between two units is a shorter file, and only the index
    # entry knows that it is too short.
    if decoder.checkpoint.consumed == cut and cut and decoder.finished:
        return
    with pytest.raises(CorruptStream, match='too early'):
        decoder.finish()


@given(st.sampled_from(('gz', 'zst', 'xz')), st.binary(max_size=400))
def test_garbage(kind: str, data: bytes) -> None:
    decoder = make_decoder(kind)
    with pytest.raises(CorruptStream):
        list(decoder.feed(data))
        decoder.finish()
        raise CorruptStream('by chance it is a file')


@given(
    st.sampled_from(KINDS), parts_of_files,
    st.integers(0, 1 << 20), st.integers(1, 255),
)
def test_one_damaged_byte(
    kind: str, parts: List[bytes], place: int, change: int
) -> None:
    """It is found, or it was without meaning; nothing else is raised."""
    packed = bytearray(compress(kind, parts))
    packed[place % len(packed)] ^= change
    decoder = make_decoder(name_of(kind))
    try:
        for piece in decoder.feed(bytes(packed)):
            assert len(piece) <= PIECE_BYTES
        decoder.finish()
    except CorruptStream:
        pass


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('after', [
    b'x', b'\n\n\n\n', b'not the next unit', b'\0x' * 9,
])
def test_garbage_after_the_end(kind: str, after: bytes) -> None:
    decoder = make_decoder(name_of(kind))
    with pytest.raises(CorruptStream, match='something else follows there'):
        list(decoder.feed(compress(kind, [b'layer']) + after))
        decoder.finish()


@pytest.mark.parametrize('kind', KINDS)
def test_empty_file_is_truncated(kind: str) -> None:
    with pytest.raises(CorruptStream, match='too early, after 0 bytes'):
        make_decoder(name_of(kind)).finish()


@pytest.mark.parametrize('kind', KINDS)
def test_restart_at_the_end(kind: str) -> None:
    packed = compress(kind, [b'layer'])
    assert decode(name_of(kind), [], Checkpoint(len(packed), 5))[0] == b''


@pytest.mark.parametrize('kind, padding', [
    ('gz', bytes(5)), ('xz', bytes(8)), ('xz blocks', bytes(4)),
])
def test_zeros_between_units(kind: str, padding: bytes) -> None:
    packed = compress(kind, [b'one']) + padding
    for chunks in ([packed * 2], [bytes([byte]) for byte in packed * 2]):
        assert decode(name_of(kind), chunks, BEGIN)[0] == b'oneone'


@pytest.mark.parametrize('padding', [1, 2, 3, 5])
def test_xz_padding_comes_in_fours(padding: int) -> None:
    decoder = make_decoder('xz')
    with pytest.raises(CorruptStream):
        list(decoder.feed(lzma.compress(b'layer') + bytes(padding)))
        decoder.finish()


@pytest.mark.parametrize('kind', KINDS)
def test_bomb_comes_in_pieces(kind: str) -> None:
    """64 MiB of zeros from one small feed, never more than a piece."""
    block = bytes(16 << 20)
    packed = compress(kind, [block] * 4)
    decoder = make_decoder(name_of(kind))
    made = 0
    for piece in decoder.feed(packed):
        assert len(piece) <= PIECE_BYTES
        made += len(piece)
    decoder.finish()
    assert made == 64 << 20


def test_many_tiny_units_in_one_feed() -> None:
    """The time must not grow with the square of their number."""
    packed = zstd_module().compress(b'') * 20000
    assert decode('zst', [packed], BEGIN)[0] == b''


def test_skippable_zstd_frame() -> None:
    skippable = struct.pack('<II', 0x184D2A57, 9) + b'metadata!'
    packed = skippable + compress('zst', [b'layer']) + skippable
    assert decode('zst', split(packed, range(0, 99, 5)), BEGIN)[0] == b'layer'


def test_xz_checkpoint_at_each_block() -> None:
    packed = xz_in_blocks([b'a' * 10, b'b' * 20])
    _, places = decode('xz', [packed[i:i + 1] for i in range(len(packed))],
                       BEGIN)
    assert sorted({place.produced for place in places}) == [0, 10, 30]
    preambles = {place.preamble for place in places}
    assert preambles == {b'', packed[:12]}
    assert packed == xz_in_blocks([b'a' * 10, b'b' * 20])
    assert lzma.decompress(packed) == b'a' * 10 + b'b' * 20


def test_xz_index_of_other_blocks() -> None:
    decoder = make_decoder('xz')
    with pytest.raises(CorruptStream, match='does not match'):
        list(decoder.feed(xz_in_blocks([b'one', b'two'], lie=1)))


@pytest.mark.parametrize('flags', [0x40, 0x80, 0])
def test_xz_blocks_with_half_of_the_sizes(flags: int) -> None:
    packed = xz_in_blocks([b'one', b'two'], flags=flags)
    assert decode('xz', [packed], BEGIN)[0] == b'onetwo'


def test_xz_stream_of_both_kinds_of_blocks_is_refused() -> None:
    sized, bare = xz_in_blocks([b'one']), xz_in_blocks([b'two'], flags=0)
    first = xz_index.parse_index_tail(sized, len(sized))
    assert isinstance(first, xz_index.XzIndex)
    end = first.blocks[0].offset + first.blocks[0].size
    decoder = make_decoder('xz')
    with pytest.raises(CorruptStream, match='with and without'):
        list(decoder.feed(sized[:end] + bare[12:]))


def test_xz_that_wants_too_much_memory() -> None:
    packed = lzma.compress(b'layer', filters=[
        {'id': lzma.FILTER_LZMA2, 'dict_size': 1 << 29},
    ])
    with pytest.raises(CorruptStream, match='a dictionary of 512 MiB'):
        list(make_decoder('xz').feed(packed))


#: A frame with a window of 256 MiB, as ``zstd --long=28`` makes them.
LONG_ZSTD = b'\x28\xb5\x2f\xfd\0\x90\x29\0\0layer'
#: The same with all in one segment of 2 GiB.
ONE_SEGMENT = b'\x28\xb5\x2f\xfd\xe0' + struct.pack('<Q', 2 << 30) + b'\x29'


@pytest.mark.parametrize('kind, packed, words', [
    ('zst', LONG_ZSTD, 'a window of 256 MiB, at most 128 MiB are allowed; '
     'compress it with zstd --long=27'),
    ('zst', ONE_SEGMENT, 'a window of 2.0 GiB'),
    ('xz', lzma.compress(b'layer', filters=[
        {'id': lzma.FILTER_X86},
        {'id': lzma.FILTER_LZMA2, 'dict_size': 3 << 26},
    ]), 'a dictionary of 192 MiB, at most 128 MiB are allowed; compress it '
     'with xz -9'),
])
def test_what_needs_more_than_allowed(
    kind: str, packed: bytes, words: str
) -> None:
    with pytest.raises(CorruptStream, match=words):
        list(make_decoder(kind).feed(packed))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('data, words', [
    (b'<html>Please log in</html>', 'this is an HTML page'),
    (b'BZh91AY&SY' + bytes(99), 'this is compressed by bzip2'),
    (lzma.compress(b'layer', lzma.FORMAT_ALONE), 'this is compressed by lzma'),
    (b'QED\0' + bytes(600), 'this is a qed image'),
])
def test_a_file_of_another_kind(kind: str, data: bytes, words: str) -> None:
    with pytest.raises(CorruptStream, match=words):
        decode(name_of(kind), [data], BEGIN)


def test_damaged_checkpoint() -> None:
    with pytest.raises(CorruptStream, match='checkpoint'):
        make_decoder('xz', consumed=12, preamble=b'x' * 12)


def test_unknown_compression() -> None:
    with pytest.raises(ValueError, match="'bz2'"):
        make_decoder('bz2')


# Blocks of .xz, one after the other by the same decompressor

def decode_block(
    lender: XzBlocks, packed: bytes, record: xz_index.XzIndex, number: int
) -> bytes:
    block = record.blocks[number]
    with lender.unit(packed[:12], block.size, block.makes) as unit:
        return b''.join(unit.feed(packed[block.offset:block.end]))


def test_a_decompressor_takes_blocks_in_any_order() -> None:
    parts = [bytes([number]) * 300 * number for number in range(1, 9)]
    packed = xz_in_blocks(parts)
    index = xz_index.parse_index_tail(packed, len(packed))
    assert isinstance(index, xz_index.XzIndex)
    lender = XzBlocks()
    for number in (3, 0, 7, 7, 1):
        assert decode_block(lender, packed, index, number) == parts[number]
    assert [len(idle) for idle in lender._idle.values()] == [1]


def test_one_that_met_damage_is_not_used_again() -> None:
    parts = [b'a' * 5000, b'b' * 5000]
    packed = xz_in_blocks(parts)
    index = xz_index.parse_index_tail(packed, len(packed))
    assert isinstance(index, xz_index.XzIndex)
    lender = XzBlocks()
    assert decode_block(lender, packed, index, 0) == parts[0]
    middle = index.blocks[1].offset + index.blocks[1].size // 2
    damaged = packed[:middle] + b'\xff' * 8 + packed[middle + 8:]
    with pytest.raises(CorruptStream):
        decode_block(lender, damaged, index, 1)
    assert decode_block(lender, packed, index, 1) == parts[1]
