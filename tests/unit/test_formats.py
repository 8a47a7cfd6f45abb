"""What a file is, by its first bytes."""

from __future__ import annotations

import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.formats import FIRST_BYTES, tell_format


@pytest.mark.parametrize('first, fmt', [
    (b'QFI\xfb\0\0\0\3', 'qcow2'),
    (b'\xeb\x63\x90'.ljust(510, b'\0') + b'\x55\xaa', 'raw'),
    (bytes(FIRST_BYTES), 'raw'),
    (b'x', 'raw'),
])
def test_images(first: bytes, fmt: str) -> None:
    assert tell_format(first) == fmt


@pytest.mark.parametrize('first, word', [
    (b'', 'empty'),
    (lzma.compress(bytes(512)), 'xz'),
    (gzip.compress(bytes(512), mtime=0), 'gzip'),
    (b'\x28\xb5\x2f\xfd rest', 'zstd'),
    (b'KDMV' + bytes(508), 'vmdk'),
    (b'<<< VDI >>>'.ljust(64, b'\0') + b'\x7f\x10\xda\xbe', 'vdi'),
    (b'vhdxfile' + bytes(8), 'vhdx'),
    (b'LUKS\xba\xbe\0\1', 'encrypted'),
])
def test_other_files(first: bytes, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        tell_format(first)


@given(st.binary(min_size=1, max_size=FIRST_BYTES))
def test_any_bytes(data: bytes) -> None:
    try:
        assert tell_format(data) in ('raw', 'qcow2')
    except ValueError as error:
        assert 'expected' in str(error)
