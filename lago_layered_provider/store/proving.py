"""Prove that an image in the store is, byte for byte, what was published.

The store rewrites the first cluster of a layer and keeps the published one.
So two things are proven: the kept cluster and the rest of the file have the
published digest, and the cluster that is there is made of the kept one.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Callable, Iterator, List, Optional, Tuple

from ..core import model
from ..formats import qcow2, qcow2_rebase
from . import layout
from .audit_rules import Fault, Part
from .record import Record, parse_record

READ_BYTES = 2**20

#: Told how many more bytes were read.
Advance = Callable[[int], None]

#: Enough to tell how long the first cluster is.
_FIRST_BYTES = 104

#: Digits of a digest that people see.
_DIGITS = 16


def prove(
    paths: layout.Layout, name: str, record: Record, advance: Advance
) -> Tuple[List[Fault], bool]:
    """Return what is wrong with an image's bytes, and whether it is proven.

    Without a digest in the record neither can be said of them.

    Raises:
        OSError: there is no right to read it.
    """
    path = paths.image(name)
    found = paths.tree.stat(path, follow=True)
    size = found.st_size if found else 0
    if size != record.size:
        advance(size)
        return [Fault(Part.IMAGE, (
            f'its file has {size} bytes, expected {record.size}'
        ))], False
    with paths.tree.open_binary(path, follow=True) as stream:
        try:
            return _prove(paths, name, record, stream, advance)
        except OSError as error:
            return [Fault(Part.IMAGE, (
                f'it cannot be read: {error.strerror}'
            ))], False


def _prove(
    paths: layout.Layout,
    name: str,
    record: Record,
    stream: BinaryIO,
    advance: Advance,
) -> Tuple[List[Fault], bool]:
    faults = []
    head = b''
    if record.backing is not None:
        kept = paths.tree.read(paths.head(name))
        made = _rebased(paths, kept, record.backing)
        if kept is None or not made:
            advance(record.size)
            return [Fault(
                Part.HEAD,
                'its first cluster as published is missing or damaged',
            )], False
        head = kept
        now = stream.read(len(head))
        if now not in made:
            faults.append(Fault(Part.IMAGE, _compare(now, record.backing)))
        advance(len(now))
    expected = _checked(record)
    if expected is None:
        return faults, False
    found = _digest(stream, head, expected.algorithm, advance)
    if found != expected.value:
        faults += _explain(stream, record)
        faults.append(Fault(Part.IMAGE, (
            f'{expected.algorithm} {found[:_DIGITS]}..., expected '
            f'{expected.value[:_DIGITS]}...'
        )))
    elif not faults:
        faults += _check_record(stream, head, record)
    return faults, not any(fault.part is Part.IMAGE for fault in faults)


def _rebased(
    paths: layout.Layout, head: Optional[bytes], backing: str
) -> List[bytes]:
    """Return what a published first cluster may be in the store.

    Only the base can say which of the formats is right; without its record
    both are.
    """
    try:
        if head is None or len(head) != qcow2.head_length(head):
            return []
        base = parse_record(paths.tree.read_object(paths.record(backing)))
        formats = (base.format,) if base else model.FORMATS
        return [
            qcow2_rebase.rebase_header(head, f'./{backing}', each)
            for each in formats
        ]
    except qcow2.BadHeader:
        return []


def _compare(first: bytes, backing: str) -> str:
    """Say what is wrong with a layer's first cluster."""
    try:
        named = qcow2.parse_header(first).backing_file
    except qcow2.BadHeader as error:
        return f'its header is damaged: {error}'
    if named == f'./{backing}':
        return 'its first cluster is not what was made of the published one'
    return (
        f'its header names {model.show(named)} as backing file, expected '
        f'./{backing}'
    )


def _explain(stream: BinaryIO, record: Record) -> Iterator[Fault]:
    """Say it when it is the header of a bottom image that has changed."""
    if record.backing is not None or record.format != 'qcow2':
        return
    try:
        header = _read_header(stream)
    except qcow2.BadHeader as error:
        yield Fault(Part.IMAGE, f'its header is damaged: {error}')
        return
    if header.backing_file is not None:
        yield Fault(Part.IMAGE, (
            f'its header names {model.show(header.backing_file)} as backing '
            f'file, expected none'
        ))


def _check_record(
    stream: BinaryIO, head: bytes, record: Record
) -> Iterator[Fault]:
    """Check the record against bytes that are proven."""
    stream.seek(0)
    is_qcow2 = qcow2.is_qcow2(head or stream.read(len(qcow2.MAGIC)))
    if record.format == 'raw' and not is_qcow2:
        size = record.size
    elif record.format == 'qcow2' and is_qcow2:
        size = (
            qcow2.parse_header(head) if head else _read_header(stream)
        ).virtual_size
    else:
        yield Fault(Part.RECORD, f'its record calls it {record.format}')
        return
    if size != record.virtual_size:
        yield Fault(Part.RECORD, (
            f'its record says {record.virtual_size} bytes of virtual size, '
            f'its header {size}'
        ))


def _read_header(stream: BinaryIO) -> qcow2.Qcow2Header:
    stream.seek(0)
    length = qcow2.head_length(stream.read(_FIRST_BYTES))
    stream.seek(0)
    return qcow2.parse_header(stream.read(length))


def _checked(record: Record) -> Optional[model.Digest]:
    known = {digest.algorithm: digest for digest in record.digests}
    for algorithm in model.CHECKED:
        if algorithm in known:
            return known[algorithm]
    return None


def _digest(
    stream: BinaryIO, head: bytes, algorithm: str, advance: Advance
) -> str:
    """Return the digest of `head` and what follows it in the file."""
    digest = hashlib.new(algorithm, head)
    # One buffer for all of the file; hashlib lets other threads run.
    buffer = memoryview(bytearray(READ_BYTES))
    stream.seek(len(head))
    while True:
        count = stream.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            return digest.hexdigest()
        digest.update(buffer[:count])
        advance(count)
