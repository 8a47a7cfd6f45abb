"""What a repair puts in the place of a damaged image, and what it must not."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping

import pytest

from lago_layered_provider.core.model import Digest
from lago_layered_provider.environments.repair import Repair
from lago_layered_provider.repositories.origins import agree
from lago_layered_provider.repositories.sources import Sources
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Reserve, Settings
from lago_layered_provider.store import Auditor, Store
from lago_layered_provider.store.audit_rules import judge
from lago_layered_provider.tools import openers, qemu_img
from tests.unit.test_engine import Ends
from tests.unit.test_store import (
    BASE, BASE_BYTES, LAYER, LAYER_BYTES, make_record, put,
)

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


DAMAGED = bytes(len(BASE_BYTES))


class Damaged:
    """A store with a damaged image, and the repository it came from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(str(root / 'store'))
        self.store.prepare()
        self.image = Path(self.store.path(BASE))
        self.progress = Ends()
        with self.store.stage(BASE, identity='it') as stage:
            assert stage is not None
            stage.reset()
            stage.write(BASE_BYTES)
            stage.mark_verified(replace(
                make_record(BASE_BYTES), digests=(digest('sha512'),)
            ))
        self.store.commit(BASE, base=None, metadata={})
        self.image.chmod(0o644)
        self.image.write_bytes(DAMAGED)
        self.publish(BASE_BYTES, sha512=digest('sha512').value)

    def publish(
        self, content: bytes, fmt: str = 'qcow2', **said: str
    ) -> None:
        """Publish an image under the names of all that are in the store."""
        (self.root / 'other').write_bytes(content)
        entry: Dict[str, Any] = {
            'source': 'here', 'handle': 'other', 'timestamp': 1,
            'base': None, 'format': fmt, 'compression': None,
            'size': len(content), 'metadata': {}, **said,
        }
        (self.root / 'index').write_text(json.dumps({
            'name': 'repo',
            'sources': {'here': {'type': 'file', 'args': {'root': '.'}}},
            'templates': {
                name: {'versions': {'v1': entry}}
                for name in ('base', 'layer')
            },
        }))

    def repair(self, name: str = BASE) -> List[str]:
        """Look at an image, and repair it; return the problems."""
        finding = Auditor(self.store.root).examine(name, lambda count: None)
        assert finding.faults
        problems: List[str] = []
        Repair(
            judge([finding]), self.store.root, Sources(
                [ByPath(str(self.root / 'index'))],
                Settings(reserve=Reserve(0), lock_timeout=0), pytest.fail,
            ), problems.append,
        ).run([name], self.progress)
        return problems


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Damaged:
    monkeypatch.setattr(qemu_img, 'require', lambda: None)
    monkeypatch.setattr(qemu_img, 'check', lambda path, fmt: None)
    return Damaged(tmp_path)


@pytest.mark.parametrize('said', [
    {}, {'sha1': digest('sha1', OTHER).value},
    {'sha512': digest('sha512', OTHER).value},
], ids=['no digest', 'another kind', 'another digest'])
def test_an_image_that_may_be_another_one_is_not_swapped_in(
    said: Dict[str, str], damaged: Damaged
) -> None:
    damaged.publish(OTHER, 'raw', **said)
    [problem] = damaged.repair()
    assert f'{BASE} cannot be had any more' in problem
    assert damaged.image.read_bytes() == DAMAGED
    assert damaged.progress.begun == []


def test_what_would_not_stand_on_its_base_any_more_is_not_begun(
    damaged: Damaged
) -> None:
    put(damaged.store, LAYER, LAYER_BYTES, put(
        damaged.store, 'repo:below:v1', BASE_BYTES
    ).name)
    layer = Path(damaged.store.path(LAYER))
    layer.chmod(0o644)
    layer.write_bytes(bytes(len(LAYER_BYTES)))
    damaged.publish(LAYER_BYTES, sha1=digest('sha1', LAYER_BYTES).value)
    [problem] = damaged.repair(LAYER)
    assert 'it stands on repo:below:v1, and now on none' in problem
    assert layer.read_bytes() == bytes(len(LAYER_BYTES))
    assert damaged.progress.begun == []


@pytest.mark.parametrize('looks', range(4))
def test_an_image_that_somebody_has_open_is_left_as_it_is(
    looks: int, damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since before the transfer, its begin, its end; or not at all."""
    left = looks

    def find(path: str) -> List[str]:
        nonlocal left
        left -= 1
        return ['qemu'] if left < 0 else []

    monkeypatch.setattr(openers, 'find_openers', find)
    problems = damaged.repair()
    if looks == 3:
        assert problems == [] and damaged.image.read_bytes() == BASE_BYTES
        assert left == 0
    else:
        [problem] = problems
        assert 'qemu has it open' in problem
        assert damaged.image.read_bytes() == DAMAGED
    assert len(damaged.progress.begun) == (looks > 1)


@pytest.mark.parametrize('looks', range(1, 3))
def test_what_somebody_else_has_repaired_meanwhile_stays(
    looks: int, damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its copy is begun, or before that takes its place."""
    mine = damaged.root / 'mine'
    mine.write_bytes(BASE_BYTES)
    state = os.stat(mine)
    left = looks

    def find(path: str) -> List[str]:
        nonlocal left
        left -= 1
        if left == 0:
            mine.rename(path)
        return []

    monkeypatch.setattr(openers, 'find_openers', find)
    assert damaged.repair() == []
    assert os.path.samestat(os.stat(damaged.image), state)
    assert len(damaged.progress.begun) == looks - 1


def test_a_repair_that_does_not_fit_begins_nothing(damaged: Damaged) -> None:
    needs: Mapping[str, int] = {'repo:other:v1': 1 << 60}
    with damaged.store.reserve(needs):
        [problem] = damaged.repair()
    assert 'not enough room' in problem
    assert damaged.image.read_bytes() == DAMAGED
    assert damaged.progress.begun == []
