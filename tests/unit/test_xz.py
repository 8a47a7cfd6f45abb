"""The frame of .xz files, against liblzma as the oracle."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.formats import xz, xz_index
from lago_layered_provider.formats.block import Needed


def integer(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def index_of(records: List[Tuple[int, int]]) -> bytes:
    data = b'\0' + integer(len(records)) + b''.join(
        integer(unpadded) + integer(size) for unpadded, size in records
    )
    data += bytes(-len(data) % 4)
    return data + struct.pack('<I', zlib.crc32(data))


def footer_of(index: bytes, check: int = 4) -> bytes:
    body = struct.pack('<IBB', max(len(index) // 4 - 1, 0), 0, check)
    return struct.pack('<I', zlib.crc32(body)) + body + b'YZ'


def block_header(*sizes: int) -> bytes:
    data = b'\0' + bytes([0xC0 if sizes else 0])
    data += b''.join(map(integer, sizes)) + bytes((0x21, 1, 22))
    data += bytes(-len(data) % 4)
    data = bytes([len(data) // 4]) + data[1:]
    return data + struct.pack('<I', zlib.crc32(data))


@pytest.mark.parametrize('check, size', [
    (lzma.CHECK_NONE, 0),
    (lzma.CHECK_CRC32, 4),
    (lzma.CHECK_CRC64, 8),
    (lzma.CHECK_SHA256, 32),
    (15, 64),
])
def test_check_size(check: int, size: int) -> None:
    assert xz.check_size(check) == size


@pytest.mark.parametrize('check', [
    lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256,
])
def test_stream_of_liblzma(check: int) -> None:
    data = lzma.compress(b'layer' * 1000, check=check)
    assert xz.parse_stream_header(data[:12]) == check
    header = xz.parse_block_header(
        data[12:12 + xz.block_header_size(data[12])]
    )
    assert header.total(check) is None
    found = xz_index.parse_index_tail(data, len(data))
    assert isinstance(found, xz_index.XzIndex)
    assert found.uncompressed_size == 5000
    (block,) = found.blocks
    index_size = xz.parse_stream_footer(data[-12:])[1]
    assert block.offset + block.size + index_size + 12 == len(data)


def test_sizes_of_a_block_header() -> None:
    header = xz.parse_block_header(block_header(1001, 5000))
    assert (header.compressed_size, header.uncompressed_size) == (1001, 5000)
    assert header.unpadded_size(4) == header.size + 1001 + 8
    assert header.total(4) == header.size + 1004 + 8


@pytest.mark.parametrize('data', [
    b'',
    b'\0',
    block_header(1001, 5000)[:-1],
    block_header(1001, 5000)[:-1] + b'\0',
    block_header(0, 5000),
])
def test_bad_block_header(data: bytes) -> None:
    with pytest.raises(xz.BadXz):
        xz.parse_block_header(data)


def test_tail_is_asked_for_until_it_is_enough() -> None:
    data = lzma.compress(b'layer' * 1000) + bytes(8)
    tail = b''
    asked = []
    found = xz_index.parse_index_tail(tail, len(data))
    while isinstance(found, Needed):
        assert len(tail) < found.bytes_needed <= len(data)
        asked.append(found.bytes_needed)
        tail = data[-found.bytes_needed:]
        found = xz_index.parse_index_tail(tail, len(data))
    assert isinstance(found, xz_index.XzIndex)
    assert found.uncompressed_size == 5000
    assert len(asked) <= 3


def test_several_streams_are_unknown() -> None:
    data = lzma.compress(b'a' * 100) * 2
    assert xz_index.parse_index_tail(data[-40:], len(data)) is None


def test_tail_of_something_else() -> None:
    for data in (b'', b'no xz', bytes(64), b'x' * 200, bytes(15)):
        with pytest.raises(xz.BadXz):
            found = xz_index.parse_index_tail(data[-30:], len(data))
            while isinstance(found, Needed):
                found = xz_index.parse_index_tail(
                    data[-found.bytes_needed:], len(data)
                )


def test_index_above_the_limit() -> None:
    huge = b'\0' + integer(1 << 60)
    with pytest.raises(xz.BadXz, match='above'):
        xz_index.parse_index(huge)


def test_index_speaks_of_more_than_there_is() -> None:
    index = index_of([(1 << 40, 5)])
    tail = index + footer_of(index)
    with pytest.raises(xz.BadXz, match='more than the file holds'):
        xz_index.parse_index_tail(tail, len(tail))


@given(st.lists(st.tuples(
    st.integers(5, (1 << 62) - 1), st.integers(0, (1 << 63) - 1)
), max_size=20), st.binary(max_size=20))
def test_index_round_trip_and_few_tries(
    records: List[Tuple[int, int]], after: bytes
) -> None:
    data = index_of(records)
    have, tries = 1, 0
    found = xz_index.parse_index(data[:have])
    while isinstance(found, Needed):
        assert have < found.bytes_needed <= len(data)
        have, tries = found.bytes_needed, tries + 1
        found = xz_index.parse_index(data[:have])
    assert xz_index.parse_index(data + after) == found
    assert found.size == len(data)
    assert [
        (record.unpadded_size, record.uncompressed_size)
        for record in found.records
    ] == records
    assert tries < 60


@given(st.binary(max_size=200), st.integers(0, 300))
def test_arbitrary_bytes(data: bytes, size: int) -> None:
    for parse in (
        xz.parse_stream_header, xz.parse_stream_footer,
        xz.parse_block_header, xz_index.parse_index,
    ):
        try:
            parse(data)
        except xz.BadXz:
            pass
    try:
        found = xz_index.parse_index_tail(data, size)
    except xz.BadXz:
        return
    if isinstance(found, Needed):
        assert len(data) < found.bytes_needed <= size


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_honest_checksums_over_arbitrary_bytes(
    header: bytes, index: bytes
) -> None:
    """Checksums alone must not make the rest believed."""
    data = bytes([len(header) // 4]) + header[:len(header) & ~3]
    data = data[:len(data) - 1] if len(data) % 4 else data
    for text, parse in (
        (data + struct.pack('<I', zlib.crc32(data)), xz.parse_block_header),
        (b'\0' + index + struct.pack('<I', zlib.crc32(b'\0' + index)),
         xz_index.parse_index),
        (footer_of(index), xz.parse_stream_footer),
    ):
        try:
            parse(text)
        except xz.BadXz:
            pass
    tail = b'\0' + index + bytes(3 - len(index) % 4)
    tail += struct.pack('<I', zlib.crc32(tail))
    try:
        xz_index.parse_index_tail(tail + footer_of(tail), 1000)
    except xz.BadXz:
        pass


def test_a_file_of_zeros_is_not_read_bit_by_bit() -> None:
    with pytest.raises(xz.BadXz, match='zeros at the end'):
        xz_index.parse_index_tail(bytes(1 << 16), 1 << 30)
