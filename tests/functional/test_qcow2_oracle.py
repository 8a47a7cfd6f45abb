"""The real qemu-img as the oracle for what we read, write and refuse."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

import pytest

from lago_layered_provider.core.errors import ToolError
from lago_layered_provider.core.model import ImageRef
from lago_layered_provider.formats.qcow2 import (
    BadHeader, Qcow2Header, head_length, parse_header,
)
from lago_layered_provider.formats.qcow2_rebase import rebase_header
from lago_layered_provider.formats.qcow2_safety import find_dangers
from lago_layered_provider.index.backing_names import accepted_backings
from lago_layered_provider.tools import processes, qemu_img

MIB = 1 << 20
BASE = accepted_backings(ImageRef('lab', 'base', 'v1'), 'base.qcow2')
STORED = './lab:a-template-with-a-long-name:v1'

#: Options of `qemu-img create`, the image's own ones.
KINDS = {
    'default': '',
    'version 2': 'compat=0.10',
    'version 2, 512 bytes': 'compat=0.10,cluster_size=512',
    '512 bytes': 'cluster_size=512',
    '4 KiB': 'cluster_size=4096',
    '2 MiB': 'cluster_size=2097152',
    'zstd': 'compression_type=zstd',
    'extended L2': 'extended_l2=on,cluster_size=128k',
    'lazy refcounts': 'lazy_refcounts=on',
    'one bit refcounts': 'refcount_bits=1',
    'wide refcounts': 'refcount_bits=64',
    'preallocated': 'preallocation=metadata',
}


@pytest.fixture(scope='module', autouse=True)
def _tools() -> None:
    missing = [tool for tool in ('qemu-img', 'qemu-io')
               if shutil.which(tool) is None]
    if missing and os.environ.get('CI') == 'true':
        pytest.fail(f'not installed: {missing}')
    if missing:
        pytest.skip(f'not installed: {missing}')


def run(*command: str, cwd: Optional[Path] = None) -> None:
    """Run a tool to its end."""
    subprocess.run(
        command, cwd=cwd, check=True, timeout=60,
        env={**os.environ, 'LC_ALL': 'C'}, stdout=subprocess.DEVNULL,
    )


def create(path: Path, options: str = '', *more: str) -> Path:
    """Create an image of 8 MiB with some content."""
    chosen = ['-o', options] if options else []
    run('qemu-img', 'create', '-q', '-f', 'qcow2', *chosen, *more,
        str(path), '8M')
    return path


def fill(path: Path) -> None:
    """Write some of the guest's bytes."""
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 70k',
        '-c', 'write -P 8 5M 300k', str(path))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return create(tmp_path / 'base.qcow2')


def create_layer(base: Path, options: str, fmt: str = 'qcow2') -> Path:
    return create(
        base.with_name('layer'), options, '-b', './base.qcow2', '-F', fmt
    )


def read_head(path: Path) -> bytes:
    """Read the first cluster, as a user of the parser does."""
    with open(path, 'rb') as stream:
        first = stream.read(104)
        return first + stream.read(head_length(first) - len(first))


def write_head(path: Path, head: bytes) -> None:
    with open(path, 'r+b') as stream:
        stream.write(head)


def dangers_of(path: Path, *, layer: bool = True) -> List[str]:
    """Judge a file as the store does."""
    try:
        header = parse_header(read_head(path))
    except BadHeader as error:
        return [str(error)]
    return find_dangers(
        header,
        expected_backing=BASE if layer else None,
        file_size=path.stat().st_size,
    )


def compare(header: Qcow2Header, told: Mapping[str, Any]) -> None:
    """Compare what we read with what ``qemu-img info`` says."""
    data = told['format-specific']['data']
    assert told['format'] == 'qcow2'
    assert data['compat'] == ('0.10' if header.version == 2 else '1.1')
    assert told['cluster-size'] == header.cluster_size
    assert told['virtual-size'] == header.virtual_size // 512 * 512
    assert told.get('backing-filename') == header.backing_file
    if header.backing_file is not None:
        assert told.get('backing-filename-format') == header.backing_format
    assert told['dirty-flag'] == header.dirty
    assert data.get('corrupt', False) == header.corrupt
    assert data['refcount-bits'] == 1 << header.refcount_order
    assert ('data-file' in data) == header.data_file
    assert told.get('encrypted', False) == header.encrypted
    assert data.get('extended-l2', False) == bool(header.incompatible & 16)
    assert data.get('lazy-refcounts', False) == bool(header.compatible & 1)
    assert data.get('compression-type', 'zlib') == (
        'zstd' if header.compression_type else 'zlib'
    )
    assert len(told.get('snapshots', [])) == header.snapshots


@pytest.mark.parametrize('kind', KINDS)
def test_reads_what_qemu_reads(base: Path, kind: str) -> None:
    bottom = create(base.with_name('bottom'), KINDS[kind])
    fill(bottom)
    if kind != 'one bit refcounts':
        run('qemu-img', 'snapshot', '-c', 'one', str(bottom))
    options = [option for option in KINDS[kind].split(',')
               if not option.startswith('preallocation')]
    layer = create_layer(base, ','.join(options))
    fill(layer)
    for path in (bottom, layer):
        compare(parse_header(read_head(path)), qemu_img.info(path, 'qcow2'))
        assert dangers_of(path, layer=path == layer) == []
        qemu_img.check(str(path), 'qcow2')
    assert dangers_of(bottom) and dangers_of(layer, layer=False)


def test_reads_a_raw_backing_format(base: Path) -> None:
    layer = create_layer(base, '', 'raw')
    compare(parse_header(read_head(layer)), qemu_img.info(layer, 'qcow2'))
    assert dangers_of(layer) == []


def test_refuses_an_external_data_file(tmp_path: Path) -> None:
    for raw in ('on', 'off'):
        path = create(
            tmp_path / raw, f'data_file={tmp_path}/data,data_file_raw={raw}'
        )
        compare(parse_header(read_head(path)), qemu_img.info(path, 'qcow2'))
        [danger] = dangers_of(path, layer=False)
        assert 'external data file' in danger


def create_encrypted(path: Path, method: str) -> Path:
    """Create an encrypted image.

    qemu measures how fast the machine derives LUKS keys and now and then
    gives up, on a busy one: "Unable to get accurate CPU usage".
    """
    options = f'encrypt.format={method},encrypt.key-secret=key'
    for attempt in range(9, -1, -1):
        try:
            return create(
                path, options, '--object', 'secret,id=key,data=secret'
            )
        except subprocess.CalledProcessError:
            if not attempt:
                raise
    raise AssertionError('unreachable')


@pytest.mark.parametrize('method', ['aes', 'luks'])
def test_refuses_encryption(tmp_path: Path, method: str) -> None:
    path = create_encrypted(tmp_path / 'image', method)
    compare(parse_header(read_head(path)), qemu_img.info(path, 'qcow2'))
    assert dangers_of(path, layer=False) == ['it is encrypted']


def test_bitmaps_stay(base: Path) -> None:
    layer = create_layer(base, '')
    run('qemu-img', 'bitmap', '--add', str(layer), 'seen')
    assert dangers_of(layer) == []
    write_head(layer, rebase_header(read_head(layer), STORED, 'qcow2'))
    [bitmap] = qemu_img.info(
        layer, 'qcow2'
    )['format-specific']['data']['bitmaps']
    assert bitmap['name'] == 'seen'
    qemu_img.check(str(layer), 'qcow2')


def guest_bytes(layer: Path) -> bytes:
    raw = layer.with_name('raw')
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', str(layer),
        str(raw))
    return raw.read_bytes()


@pytest.mark.parametrize('kind', [
    kind for kind in KINDS if kind != 'preallocated'
])
def test_rebase_as_qemu_does(base: Path, kind: str) -> None:
    """Our header and that of ``rebase -u`` mean the same; ours is stable."""
    fill(base)
    layer = create_layer(base, KINDS[kind])
    fill(layer)
    before = guest_bytes(layer)
    tail = layer.read_bytes()[len(read_head(layer)):]
    theirs = layer.with_name('theirs')
    shutil.copy(layer, theirs)
    run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', STORED,
        '-F', 'qcow2', str(theirs))

    rebased = rebase_header(read_head(layer), STORED, 'qcow2')
    write_head(layer, rebased)

    assert layer.read_bytes()[len(rebased):] == tail
    told = qemu_img.info(layer, 'qcow2')
    compare(parse_header(rebased), told)
    assert told['backing-filename'] == STORED
    assert told['backing-filename-format'] == 'qcow2'
    qemu_img.check(str(layer), 'qcow2')
    by_qemu = parse_header(read_head(theirs))
    ours = parse_header(rebased)
    assert ours.backing_file == by_qemu.backing_file
    assert ours.backing_format == by_qemu.backing_format
    same = {'filename', 'full-backing-filename', 'actual-size', 'children'}
    assert {key: value for key, value in told.items() if key not in same} == {
        key: value for key, value in qemu_img.info(theirs, 'qcow2').items()
        if key not in same
    }
    base.rename(layer.parent / STORED)
    assert guest_bytes(layer) == before


def test_gives_a_layer_of_2015_its_format(base: Path) -> None:
    """lago-images wrote a plain relative name and no backing format."""
    layer = create_layer(base, 'compat=0.10')
    head = bytearray(read_head(layer))
    head[72:200] = bytes(128)
    head[200:210] = b'base.qcow2'
    struct.pack_into('>QI', head, 8, 200, 10)
    write_head(layer, bytes(head))
    told = qemu_img.info(layer, 'qcow2')
    assert told['backing-filename'] == 'base.qcow2'
    assert 'backing-filename-format' not in told
    assert dangers_of(layer) == []
    write_head(layer, rebase_header(bytes(head), STORED, 'qcow2'))
    told = qemu_img.info(layer, 'qcow2')
    assert told['backing-filename'] == STORED
    assert told['backing-filename-format'] == 'qcow2'
    qemu_img.check(str(layer), 'qcow2')


def refused_to_look(path: Path) -> Optional[str]:
    """Return why ``qemu-img info`` refuses an image.

    What it and we accept must mean the same to both.
    """
    try:
        told = qemu_img.info(path, 'qcow2')
    except ToolError as error:
        return error.stderr
    if not dangers_of(path):
        compare(parse_header(read_head(path)), told)
    return None


def refused_to_read(path: Path) -> Optional[str]:
    """Return why qemu does not open an image with all that it names.

    `info` follows no backing file and no data file, and needs no key.
    """
    done = subprocess.run(
        ['qemu-io', '-r', '-f', 'qcow2', '-c', 'length', str(path)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding='utf-8', errors='replace',
        timeout=60, check=False,
    )
    return done.stdout if done.returncode else None


def spread(positions: range) -> List[Tuple[int, int]]:
    """Return every bit of some bytes."""
    return [(at, 1 << bit) for at in positions for bit in range(8)]


@pytest.mark.parametrize('options', [
    'compat=0.10', 'cluster_size=512',
    'compression_type=zstd,extended_l2=on,cluster_size=16k',
])
def test_refuses_what_qemu_refuses(base: Path, options: str) -> None:
    """Flip every bit of the header and of the extensions' first bytes."""
    layer = create_layer(base, options)
    run('qemu-img', 'snapshot', '-c', 'one', str(layer))
    original = layer.read_bytes()
    header = parse_header(original)
    places = spread(range(header.header_length))
    start = header.header_length
    for extension in header.extensions:
        places += spread(range(start, start + 8))
        start += len(bytes(extension))
    places += spread(range(start, start + 8))

    def judge(place: Tuple[int, int]) -> Tuple[int, int, Optional[str], bool]:
        at, mask = place
        mutant = layer.with_name(f'{at}-{mask}')
        data = bytearray(original)
        data[at] ^= mask
        mutant.write_bytes(data)
        try:
            ours = bool(dangers_of(mutant))
            theirs = refused_to_look(mutant)
            if not theirs and not ours:
                theirs = refused_to_read(mutant)
        finally:
            mutant.unlink()
        return at, mask, theirs, ours

    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(judge, places))
    assert [verdict for verdict in verdicts
            if verdict[2] is not None and not verdict[3]] == []
    # The oracle has teeth: qemu did refuse many of them.
    assert len([verdict for verdict in verdicts if verdict[2]]) > 100
    # And so have we: what is accepted is harmless, not everything.
    accepted = [verdict for verdict in verdicts if not verdict[3]]
    assert accepted and len(accepted) < len(verdicts) // 2


@pytest.mark.parametrize('at, form, value', [
    (4, '>I', 4), (4, '>I', 1), (8, '>Q', 1 << 20), (16, '>I', 1024),
    (20, '>I', 8), (20, '>I', 22), (24, '>Q', 1 << 62), (32, '>I', 1),
    (32, '>I', 3), (36, '>I', 0), (36, '>I', (4 << 20) + 1),
    (40, '>Q', 65537), (40, '>Q', 1 << 63), (48, '>Q', 12345),
    (48, '>Q', (1 << 64) - 65536), (56, '>I', 0), (56, '>I', 129),
    (60, '>I', 65537), (64, '>Q', 1), (72, '>Q', 4), (72, '>Q', 1 << 5),
    (72, '>Q', 1 << 63), (72, '>Q', 8), (88, '>Q', 2), (96, '>I', 7),
    (100, '>I', 100), (100, '>I', 65544), (104, 'B', 1), (104, 'B', 9),
])
def test_refuses_by_hand(base: Path, at: int, form: str, value: int) -> None:
    layer = create_layer(base, '')
    head = bytearray(read_head(layer))
    struct.pack_into(form, head, at, value)
    write_head(layer, bytes(head))
    assert refused_to_look(layer) or refused_to_read(layer)
    assert dangers_of(layer)


@pytest.mark.quick
def test_check_finds_damage_and_forgives_leaks(base: Path) -> None:
    fill(base)
    qemu_img.check(str(base), 'qcow2')
    with open(base, 'r+b') as stream:
        stream.truncate(base.stat().st_size + 65536 * 3)
    qemu_img.check(str(base), 'qcow2')
    header = parse_header(read_head(base))
    with open(base, 'r+b') as stream:
        stream.seek(header.l1_offset)
        stream.write(struct.pack('>Q', 1 << 63 | 7 << 16 | 512))
    with pytest.raises(ToolError) as caught:
        qemu_img.check(str(base), 'qcow2')
    assert caught.value.status == 2
    assert 'check' in str(caught.value)


def test_check_of_a_layer_whose_base_is_elsewhere(base: Path) -> None:
    layer = create_layer(base, '')
    base.unlink()
    qemu_img.check(str(layer), 'qcow2')


def test_raw_and_strange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / 'nbd:an "image", of:lago'
    raw.write_bytes(bytes(MIB))
    monkeypatch.chdir(tmp_path)
    for path in (raw, Path(raw.name)):
        qemu_img.check(str(path), 'raw')
        assert qemu_img.info(path, 'raw')['virtual-size'] == MIB


def damaged(path: Path, at: int, value: int) -> Path:
    """Overwrite the first entry of the table that a field leads to."""
    with open(path, 'r+b') as stream:
        stream.seek(at)
        stream.seek(struct.unpack('>Q', stream.read(8))[0])
        stream.write(struct.pack('>Q', value))
    return path


@pytest.mark.parametrize('at, value, words', [
    (40, 1 << 63 | 1 << 50, 'ERROR'),  # an L2 table outside of the file
    (40, 1 << 63 | 3 << 16, 'ERROR'),  # the L1 table itself
    (48, 0xffff << 48, 'ERROR refcount block 0 is outside image'),
    (48, 0, 'ERROR cluster 0 refcount=0'),
])
def test_damaged_tables(
    tmp_path: Path, at: int, value: int, words: str
) -> None:
    path = damaged(create(tmp_path / 'x', ''), at, value)
    assert dangers_of(path, layer=False) == []  # the header is fine
    with pytest.raises(ToolError) as caught:
        qemu_img.check(str(path), 'qcow2')
    said = caught.value.stderr
    assert words in said and 'Leaked' not in said and 'json:' not in said
    assert len(said.splitlines()) <= 4


def test_a_check_has_limits(tmp_path: Path) -> None:
    """Small files can demand any memory, and let qemu-img say anything."""
    path = create(tmp_path / 'x', 'cluster_size=512')
    os.truncate(path, 512 << 30)
    with pytest.raises(ToolError, match='Cannot allocate memory'):
        qemu_img.check(str(path), 'qcow2')
    with pytest.raises(ToolError, match='may use 1.0 GiB of memory and 1 se'):
        processes.run_limited(
            ['sh', '-c', 'while :; do echo x; done >&2'],
            processes.Limits(1 << 30, cpu_seconds=1, seconds=600),
        )
    with pytest.raises(ToolError, match='no answer within 0.1 seconds'):
        processes.run_limited(
            ['sleep', '60'], processes.Limits(1 << 30, 1, seconds=0.1)
        )


def test_missing_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu_img.require()
    monkeypatch.setenv('PATH', str(tmp_path))
    for call in (qemu_img.require,
                 lambda: qemu_img.check(str(tmp_path / 'x'), 'raw')):
        with pytest.raises(ToolError, match='Debian: qemu-utils'):
            call()


@pytest.mark.parametrize('version, passes', [
    ('qemu-img version 5.2.0 (Debian 1:5.2+dfsg-11)', False),
    ('qemu-img version 6.0.1', False),
    ('qemu-img version 6.1.0', True),
    ('qemu-img version 10.0.2', True),
    ('a qemu-img of our own', True),
])
def test_old_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str,
    passes: bool,
) -> None:
    tool = tmp_path / 'qemu-img'
    tool.write_text(f'#!/bin/sh\necho asked >> "$0.log"\necho "{version}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    if passes:
        qemu_img.require()
        qemu_img.require()
        assert (tmp_path / 'qemu-img.log').read_text() == 'asked\n'
        return
    with pytest.raises(ToolError) as caught:
        qemu_img.require()
    number = version.split()[2].rpartition('.')[0]
    assert f'it is of version {number}, expected 6.1 or newer' in str(
        caught.value)
    assert str(tool) in caught.value.message
    assert 'Debian: qemu-utils' in caught.value.hint


def test_slow_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / 'qemu-img'
    tool.write_text('#!/bin/sh\nexec sleep 60\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setattr(qemu_img, 'TIMEOUT_SECONDS', 0.2)
    with pytest.raises(ToolError, match='no answer within 0.2 seconds'):
        qemu_img.info(tmp_path / 'x', 'raw')
