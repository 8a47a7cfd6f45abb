"""What a check of the store concludes, and what it sees of others."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import List

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.store import Auditor
from lago_layered_provider.store.audit_rules import (
    Fault, Finding, Part, State, judge, select_names,
)
from lago_layered_provider.tools.openers import find_openers

BASE, LAYER, TOP = 'lab:base:v1', 'lab:layer:v1', 'lab:top:v1'
NAMES = [
    'lab:base:v1', 'lab:base:v2', 'lab:base:v1+0a1b2c3d', 'lab:base-x:v1',
    'office:base:v1', 'lab:odd:v1+xx',
]


def chain(*faults: Part) -> List[Finding]:
    """Return three images; the bottom one has faults."""
    return [
        Finding(TOP, backing=LAYER, proven=True),
        Finding(LAYER, backing=BASE, proven=True),
        Finding(BASE, proven=not faults, faults=tuple(
            Fault(part, part.value) for part in faults
        )),
    ]


def states(findings: List[Finding]) -> List[str]:
    return [verdict.state.value for verdict in judge(findings)]


@pytest.mark.parametrize('part, above', [
    (Part.IMAGE, 'on-damaged'), (Part.HEAD, 'on-damaged'),
    (Part.RECORD, 'on-damaged'), (Part.METADATA, 'intact'),
    (Part.HASH, 'intact'),
])
def test_what_stands_on_a_damaged_image(part: Part, above: str) -> None:
    assert states(chain(part)) == [above, above, 'damaged']


def test_the_nearest_damaged_image_is_named() -> None:
    top, layer, base = chain(Part.IMAGE)
    damaged = Finding(LAYER, backing=BASE, faults=base.faults)
    verdicts = judge([top, damaged, base])
    assert [verdict.state for verdict in verdicts] == [
        State.ON_DAMAGED, State.DAMAGED, State.DAMAGED]
    assert LAYER in verdicts[0].reasons[0]


def test_a_gone_image_is_missed_only_by_what_stands_on_it() -> None:
    gone = Finding(BASE, gone=True)
    assert states([gone]) == ['skipped']
    assert states([*chain()[:2], gone]) == [
        'on-damaged', 'on-damaged', 'damaged']


def test_what_is_being_fetched_is_no_damage() -> None:
    assert states([*chain()[:2], Finding(BASE, skipped='busy')]) == [
        'intact', 'intact', 'skipped']


def test_unproven_is_not_damaged() -> None:
    assert states([*chain()[:2], Finding(BASE)]) == [
        'intact', 'intact', 'unproven']


def test_images_that_stand_on_each_other() -> None:
    assert states([
        Finding(BASE, backing=TOP, proven=True),
        Finding(TOP, backing=BASE, proven=True),
    ]) == ['intact', 'intact']


@pytest.mark.parametrize('word, found', [
    ('base', [0, 1, 2, 4]), ('base:v1', [0, 2, 4]), ('lab:base:v1', [0]),
    ('lab/base:v1', [0]), ('lab/base', [0, 1, 2]), ('odd:v1+xx', [5]),
    ('base:v1+0a1b2c3d', [2]), ('base-x', [3]),
])
def test_names(word: str, found: List[int]) -> None:
    assert select_names([word], NAMES) == [NAMES[each] for each in found]
    assert select_names([], NAMES) == NAMES


@pytest.mark.parametrize('word', ['', ':', 'v1', 'odd:v1', 'lab', 'base:'])
def test_no_names(word: str) -> None:
    with pytest.raises(errors.TemplateNotFound):
        select_names([word], NAMES)


@pytest.mark.parametrize('word, near', [
    ('bse', 'base'), ('base:v7', 'base:v1'), ('lab:base-x:v2', 'lab:base-x'),
])
def test_nearest_name_in_the_same_form(word: str, near: str) -> None:
    with pytest.raises(errors.TemplateNotFound, match=f'Nearest: .*{near}'):
        select_names([word], NAMES)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    auditor = Auditor(str(tmp_path / 'nowhere'))
    assert auditor.names() == []
    assert auditor.examine(BASE, lambda count: None).gone


def test_who_has_an_image_open(tmp_path: Path) -> None:
    path = tmp_path / 'image'
    assert find_openers(str(path)) == []
    path.write_bytes(bytes(4096))
    assert find_openers(str(path)) == []
    with open(path, 'r+b') as stream:
        # Our own does not count.
        assert find_openers(str(path)) == []
        lock = struct.pack('@hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0)
        fcntl.fcntl(stream, fcntl.F_OFD_SETLK, lock)
        # As of a process that we may not look into.
        assert find_openers(str(path)) == ['a qemu of another user']
    assert find_openers(str(path)) == []
