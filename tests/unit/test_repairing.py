"""What a repair puts in the place of a damaged image, and what it must not."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lago_layered_provider.core.audit import judge
from lago_layered_provider.core.model import Digest
from lago_layered_provider.origins import agree
from lago_layered_provider.repairing import Repair
from lago_layered_provider.repositories import ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.sources import Sources
from lago_layered_provider.store import Auditor, Store
from tests.unit.test_store import BASE, BASE_BYTES, make_record

OTHER = b'another image' * 1000


def digest(algorithm: str, content: bytes = BASE_BYTES) -> Digest:
    return Digest(algorithm, hashlib.new(algorithm, content).hexdigest())


@pytest.mark.parametrize('one, other, same', [
    ([digest('sha1')], [digest('sha1')], True),
    ([digest('sha1')], [digest('sha512'), digest('sha1')], True),
    ([digest('sha1')], [digest('sha1', OTHER)], False),
    ([digest('sha1'), digest('sha512')],
     [digest('sha1'), digest('sha512', OTHER)], False),
    # Nothing speaks against it, and nothing for it.
    ([digest('sha1')], [digest('sha512')], False),
    ([], [digest('sha1')], False), ([digest('sha1')], [], False),
    ([], [], False),
])
def test_digests_that_are_certainly_of_one_image(
    one: List[Digest], other: List[Digest], same: bool
) -> None:
    assert agree(one, other) is same
    assert agree(other, one) is same


@pytest.mark.parametrize('said', [
    {}, {'sha1': digest('sha1', OTHER).value},
    {'sha512': digest('sha512', OTHER).value},
], ids=['no digest', 'another kind', 'another digest'])
def test_an_image_that_may_be_another_one_is_not_swapped_in(
    said: Dict[str, str], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    record = replace(make_record(BASE_BYTES), digests=(digest('sha512'),))
    with store.stage(BASE, identity='it') as stage:
        assert stage is not None
        stage.reset()
        stage.write(BASE_BYTES)
        stage.mark_verified(record)
    store.commit(BASE, base=None, metadata={})
    damaged = bytes(len(BASE_BYTES))
    os.chmod(store.path(BASE), 0o644)
    Path(store.path(BASE)).write_bytes(damaged)
    (tmp_path / 'other').write_bytes(OTHER)
    (tmp_path / 'index').write_text(json.dumps({
        'name': 'repo',
        'sources': {'here': {'type': 'file', 'args': {'root': '.'}}},
        'templates': {'base': {'versions': {'v1': {
            'source': 'here', 'handle': 'other', 'timestamp': 1,
            'base': None, 'format': 'raw', 'compression': None,
            'size': len(OTHER), 'metadata': {}, **said,
        }}}},
    }))
    finding = Auditor(store.root).examine(BASE, lambda count: None)
    assert finding.faults
    problems: List[str] = []
    progress: Any = None  # nothing may be fetched
    Repair(
        judge([finding]), store.root, Sources(
            [ByPath(str(tmp_path / 'index'))], Settings(), pytest.fail
        ), problems.append,
    ).run([BASE], progress)
    [problem] = problems
    assert f'{BASE} cannot be had any more' in problem
    assert Path(store.path(BASE)).read_bytes() == damaged
