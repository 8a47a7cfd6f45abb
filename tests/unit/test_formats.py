"""What a file is, by its bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.formats.detect import (
    FIRST_BYTES, name_kind, tell_format,
)

BOOT_SECTOR = b'\xeb\x63\x90'.ljust(510, b'\0') + b'\x55\xaa'
QCOW2 = b'QFI\xfb\0\0\0\3'


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('disk.qcow2'))
    return made.getvalue()


@pytest.mark.parametrize('first, fmt', [
    (QCOW2, 'qcow2'),
    (BOOT_SECTOR, 'raw'),
    (bytes(FIRST_BYTES), 'raw'),
    (b'\xff' * FIRST_BYTES, 'raw'),
])
def test_images(first: bytes, fmt: str) -> None:
    assert tell_format(first) == fmt
    assert tell_format(first, declared=fmt, size=1 << 20) == fmt


@pytest.mark.parametrize('first, word', [
    (b'', 'empty'),
    (lzma.compress(bytes(512)), 'xz'),
    (lzma.compress(bytes(512), lzma.FORMAT_ALONE), 'lzma'),
    (gzip.compress(bytes(512), mtime=0), 'gzip'),
    (bz2.compress(bytes(512)), 'bzip2'),
    (b'\x28\xb5\x2f\xfd rest', 'zstd'),
    (b'\x50\x2a\x4d\x18\x04\0\0\0', 'zstd'),
    (b'\x04\x22\x4d\x18\x64\x40\xa7', 'lz4'),
    (b'LZIP\1', 'lzip'),
    (b'7z\xbc\xaf\x27\x1c\0\4', '7z'),
    (tar(), 'tar'),
    (b'KDMV' + bytes(508), 'vmdk'),
    (b'<<< VDI >>>'.ljust(64, b'\0') + b'\x7f\x10\xda\xbe', 'vdi'),
    (b'vhdxfile' + bytes(8), 'vhdx'),
    (b'conectix' + bytes(8), 'vhd'),
    (b'QED\0' + bytes(8), 'qed'),
    (b'LUKS\xba\xbe\0\1', 'encrypted'),
    (b'<html>404 not found</html>\n', 'HTML'),
    (b'\xef\xbb\xbf\r\n <!DOCTYPE  html>\xe9', 'HTML'),
    (b'{"error": "not found"}', 'a text that begins with \'{"error"'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'version https'),
    ('ä'.encode() * FIRST_BYTES, 'a text'),
])
def test_other_files(first: bytes, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        tell_format(first[:FIRST_BYTES])
    if first:
        # Cut within a character, too.
        with pytest.raises(ValueError, match=word):
            tell_format(first[:FIRST_BYTES - 1], declared='raw')


@pytest.mark.parametrize('first, facts, words', [
    # Where it says both, somebody would be given the wrong one.
    (QCOW2, {'declared': 'raw'}, 'it is a qcow2 image, expected raw'),
    (BOOT_SECTOR, {'declared': 'qcow2'}, 'it is no qcow2 image'),
    (b'KDMV', {'declared': 'qcow2'}, 'it is a vmdk image, expected qcow2'),
    (BOOT_SECTOR, {'size': 1000001}, '1000001 bytes are not whole sectors'),
    (BOOT_SECTOR, {'last': b'conectix'.ljust(512, b'\0')}, 'a vhd image'),
])
def test_contradictions(
    first: bytes, facts: Dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tell_format(first, **facts)


def test_a_text_of_whole_sectors_may_be_a_disk() -> None:
    text = b'somebody keeps text on a disk without a file system. ' * 99
    assert tell_format(text[:FIRST_BYTES], size=4096) == 'raw'
    with pytest.raises(ValueError, match='a text that begins with'):
        tell_format(text[:FIRST_BYTES], size=4097)


def test_a_qcow2_may_have_any_size() -> None:
    assert tell_format(QCOW2, size=196623, last=b'conectix') == 'qcow2'


@given(st.binary(min_size=1, max_size=FIRST_BYTES))
def test_any_bytes(data: bytes) -> None:
    try:
        assert tell_format(data) in ('raw', 'qcow2')
    except ValueError as error:
        assert 'expected' in str(error)
        assert str(name_kind(data)) in str(error)
