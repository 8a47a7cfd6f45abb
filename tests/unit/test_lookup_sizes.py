"""Parsers that see what anybody may have put on a server."""

from __future__ import annotations

import struct
from typing import List, Optional, Tuple, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import magics
from lago_layered_provider.formats import qcow2, qcow2_peek, zstd
from lago_layered_provider.formats.block import Block, Needed
from lago_layered_provider.formats.xz import BadXz
from lago_layered_provider.formats.xz_index import XzIndex, parse_index_tail

KIB = 1024

Frames = List[Tuple[int, int]]


def seek_table(frames: Frames, *, checksums: bool = False) -> bytes:
    """Return a seek table; each frame is its compressed size and its size."""
    entries = b''.join(
        struct.pack('<II', *frame) + (bytes(4) if checksums else b'')
        for frame in frames
    )
    footer = struct.pack(
        '<IBI', len(frames), 0x80 if checksums else 0, 0x8F92EAB1
    )
    content = entries + footer
    return struct.pack('<II', 0x184D2A5E, len(content)) + content


NUMBERS = st.integers(0, 2**32 - 1)
FRAMES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20)


@given(FRAMES, st.booleans(), st.integers(0, 400))
def test_seek_table_is_read_from_any_tail(
    frames: Frames, checksums: bool, have: int
) -> None:
    table = seek_table(frames, checksums=checksums)
    total = sum(size for size, _ in frames) + len(table)
    tail = (bytes(400) + table)[-have:] if have else b''
    tail = tail[-total:]
    found = zstd.parse_seek_table(tail, total)
    if isinstance(found, Needed):
        assert len(tail) < found.bytes_needed <= len(table)
        tail = table[-found.bytes_needed:]
        found = zstd.parse_seek_table(tail, total)
    if isinstance(found, Needed):
        found = zstd.parse_seek_table(table[-found.bytes_needed:], total)
    assert made_by(found) == sum(size for _, size in frames)


def made_by(found: Union[Tuple[Block, ...], Needed, None]) -> int:
    assert isinstance(found, tuple)
    return sum(block.makes for block in found)


def spoil(at: int, value: bytes) -> bytes:
    data = bytearray(seek_table([(100, 1000), (50, 500)]))
    data[at:at + len(value) if at >= 0 else None] = value
    return bytes(data)


@pytest.mark.parametrize('table, total', [
    (seek_table([(100, 1000)]), 0),
    (seek_table([(100, 1000)]), 16),
    (seek_table([(100, 1000)]), 100 + 25 + 1),
    (seek_table([(100, 1000)]), 100 + 25 - 1),
    (spoil(-1, b'\x00'), 150 + 33),
    (spoil(-5, b'\x04\xb1\xea\x92\x8f'), 150 + 33),
    (spoil(0, b'\x51'), 150 + 33),
    (spoil(4, b'\x18'), 150 + 33),
    (spoil(8, b'\x65'), 150 + 33),
    (spoil(-9, b'\xff\xff\xff\xff\x00\xb1\xea\x92\x8f'), 2**40),
])
def test_seek_table_that_does_not_fit_tells_nothing(
    table: bytes, total: int
) -> None:
    assert zstd.parse_seek_table(table, total) is None


@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_any_tail_is_read_or_not(tail: bytes, total: int) -> None:
    for data in (tail, tail + struct.pack('<IBI', 3, 0, 0x8F92EAB1)):
        found = zstd.parse_seek_table(data, total)
        assert found is None or isinstance(found, (tuple, Needed))
        if isinstance(found, Needed):
            assert len(data) < found.bytes_needed <= total
    parsed: Union[XzIndex, Needed, None] = None
    try:
        parsed = parse_index_tail(tail + b'YZ', total)
    except BadXz:
        pass
    if isinstance(parsed, Needed):
        assert len(tail) + 2 < parsed.bytes_needed <= total


@pytest.mark.parametrize('head, size', [
    # Descriptor (RFC 8878, 3.1.1.1.1), window, dictionary, size.
    (b'\x20\x07', 7),
    (b'\x00\x58', None),
    (b'\x40\x58\x00\x00', 256),
    (b'\x60\xff\xff', 65535 + 256),
    (b'\xa0\x00\x00\x01\x00', 65536),
    (b'\xe0' + bytes(7) + b'\x01', 2**56),
    (b'\x21\xaa\x07', 7),
    (b'\x22\xaa\xaa\x07', 7),
    (b'\x23\xaa\xaa\xaa\xaa\x07', 7),
    (b'\x80\x58\x01\x00\x00', None),
    (b'\x60\xff', None),
    (b'', None),
])
def test_content_size(head: bytes, size: Optional[int]) -> None:
    magic = b'\x28\xb5\x2f\xfd'
    assert zstd.parse_content_size(magic + head) == size
    assert zstd.parse_content_size(b'\x50\x2a\x4d\x18' + head) is None


@given(st.binary(max_size=40))
def test_any_frame_header_is_read_or_not(head: bytes) -> None:
    for data in (head, magics.ZSTD_FRAME + head):
        size = zstd.parse_content_size(data)
        assert size is None or 0 <= size < 2**64


def header(**fields: int) -> bytes:
    """Return the first bytes of a version 3 image of 1 MiB."""
    values = {
        'name_at': 0, 'name_size': 0, 'cluster_bits': 16, 'snapshots': 0,
        'incompatible': 0, 'order': 4, **fields,
    }
    return struct.pack(
        '>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3, values['name_at'],
        values['name_size'], values['cluster_bits'], 1 << 20, 0, 1, 3 << 16,
        1 << 16, 1, values['snapshots'], 0, values['incompatible'], 0, 0,
        values['order'], 104,
    ).ljust(qcow2_peek.FIRST_BYTES, b'\0')


@pytest.mark.parametrize('fields, length', [
    ({}, 64 * KIB),
    ({'cluster_bits': 9}, 512),
    ({'cluster_bits': 21}, 64 * KIB),
    ({'cluster_bits': 21, 'name_at': 512, 'name_size': 20}, 64 * KIB),
    ({'cluster_bits': 21, 'name_at': 2**20, 'name_size': 20}, 2**20 + 20),
    ({'cluster_bits': 21, 'name_at': 2**63, 'name_size': 20}, 2**21),
])
def test_peek_length(fields: dict[str, int], length: int) -> None:
    assert qcow2_peek.peek_length(header(**fields)) == length


def test_peek_of_what_is_no_qcow2() -> None:
    assert qcow2_peek.peek_length(b'raw') == 3
    for data in (b'', b'raw', b'QFI\xfb', header(cluster_bits=22)):
        with pytest.raises(qcow2.BadHeader):
            qcow2_peek.peek_header(data)


@pytest.mark.parametrize('fields, known', [
    ({}, True), ({'order': 6}, True), ({'order': 2**32 - 1}, True),
    ({'cluster_bits': 9}, True), ({'snapshots': 1}, False),
    ({'incompatible': 4}, False),
])
def test_bound_is_above_the_disk(fields: dict[str, int], known: bool) -> None:
    head = header(**fields).ljust(64 * KIB, b'\0')
    bound = qcow2_peek.largest_file(qcow2_peek.peek_header(head))
    assert (bound is not None) is known
    assert bound is None or bound > 1 << 20


@given(st.binary(max_size=600), st.integers(9, 21))
def test_any_header_is_read_or_refused(data: bytes, bits: int) -> None:
    spoiled = header(cluster_bits=bits)[:24] + data
    spoiled = spoiled.ljust(64 * KIB, b'\0')
    try:
        found = qcow2_peek.peek_header(spoiled)
    except qcow2.BadHeader:
        return
    bound = qcow2_peek.largest_file(found)
    assert bound is None or bound >= found.virtual_size
