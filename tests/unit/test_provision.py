"""From wanted templates to a filled store, from a repository of files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Type

import pytest

from lago_layered_provider.core import errors
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.environments.provision import provision
from lago_layered_provider.report.display import Display
from lago_layered_provider.repositories.sources import Sources
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Reserve, Settings
from lago_layered_provider.store import Store, Usage
from lago_layered_provider.tools import qemu_img
from lago_layered_provider.tools.locks import ignore_holder

NAME = 'lab:a:v1'


@pytest.fixture(autouse=True)
def without_qemu_img(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw images have no tables to check."""
    monkeypatch.setattr(qemu_img, 'require', lambda: None)


class Acting(Store):
    """A store where something else happens between the plan and the end."""

    def __init__(
        self, root: str, *,
        after_plan: Callable[[], None] = lambda: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(root)
        self.after_plan = after_plan
        self.meanwhile = meanwhile
        self.staged: List[str] = []

    def prepare(self) -> None:
        super().prepare()
        self.after_plan()

    @contextlib.contextmanager
    def stage(self, name: str, **options: Any) -> Iterator[Any]:
        self.staged.append(name)
        self.meanwhile()
        with super().stage(name, **options) as stage:
            yield stage

    def commit(self, name: str, **options: Any) -> Any:
        self.meanwhile()
        return super().commit(name, **options)


class Lab:
    """A repository of raw images in files, and a store."""

    def __init__(self, root: Path) -> None:
        self.root = root / 'repo'
        self.root.mkdir()
        self.store_root = str(root / 'store')
        self.said: List[str] = []

    def publish(self, **files: bytes) -> None:
        """Publish a:v1 as one file; those of before are gone."""
        for path in self.root.iterdir():
            path.unlink()
        for handle, content in files.items():
            (self.root / handle).write_bytes(content)
            self.list(handle, content)

    def list(self, handle: str, content: bytes) -> None:
        """Write the index."""
        (self.root / 'repo.metadata').write_text(json.dumps({
            'name': 'lab', 'timestamp': 1,
            'sources': {'here': {'type': 'file', 'args': {'root': '.'}}},
            'templates': {'a': {'versions': {'v1': {
                'source': 'here', 'handle': handle, 'timestamp': 1,
                'base': None, 'format': 'raw', 'compression': None,
                'size': len(content), 'virtual_size': len(content),
                'sha256': hashlib.sha256(content).hexdigest(),
                'metadata': {},
            }}}},
        }))

    def provide(self, store: Store, **settings: Any) -> None:
        """Bring a into a store."""
        sources = Sources(
            [ByPath(str(self.root / 'repo.metadata'))], Settings(**{
                'lock_timeout': 0, 'patience': 0, 'progress': 'none',
                'reserve': Reserve(0), **settings,
            }), self.said.append, store,
        )
        provision([Wanted('a')], store, sources, Display(io.StringIO()))

    def content(self) -> bytes:
        """Return the image in the store."""
        return Path(self.store_root, NAME).read_bytes()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.publish(one=b'1' * 4096)
    return lab


def test_no_prune_comes_between(lab: Lab) -> None:
    """Neither while it is fetched, nor when all is there already."""
    usage, seen = Usage(lab.store_root), []

    def prune() -> None:
        with pytest.raises(errors.LockTimeout) as caught:
            with usage.alone('pruning', 0, ignore_holder):
                pass
        seen.append(caught.value)

    lab.provide(Acting(lab.store_root, after_plan=prune, meanwhile=prune))
    assert len(seen) == 3 and lab.content() == b'1' * 4096
    with usage.alone('pruning', 0, ignore_holder):
        with pytest.raises(errors.LockTimeout, match='pruning'):
            lab.provide(Store(lab.store_root))


def test_others_know_what_a_transfer_still_needs(lab: Lab) -> None:
    needs: List[int] = []

    def look() -> None:
        needs.append(Store(lab.store_root).room({}).reserved)

    lab.provide(Acting(lab.store_root, meanwhile=look))
    look()
    assert needs == [4096, 0, 0]


def test_what_an_earlier_run_has_left_counts_once(lab: Lab) -> None:
    content = b'1' * 4096 + b'2' * 8192
    lab.publish(one=content)
    store = Store(lab.store_root)
    store.prepare()
    index = ByPath(str(lab.root / 'repo.metadata')).read(
        Settings(), pytest.fail
    )
    identity = index.image('a', 'v1').identity
    with store.stage(NAME, identity=identity) as stage:
        assert stage is not None
        stage.reset()
        stage.write(content[:4096])
        stage.checkpoint(4096, 4096, None)
    left = store.partial(NAME, identity=identity)
    assert left is not None
    needs: List[int] = []

    def look() -> None:
        needs.append(Store(lab.store_root).room({}).reserved)

    lab.provide(Acting(lab.store_root, meanwhile=look))
    assert needs == [len(content) - left.disk, 0]
    assert lab.content() == content


@pytest.mark.parametrize('others', [4096, 1 << 60])
def test_another_transfer_may_take_the_room_after_the_plan(
    others: int, lab: Lab
) -> None:
    with contextlib.ExitStack() as other:
        def reserve() -> None:
            needs: Mapping[str, int] = {'lab:other:v1': others}
            other.enter_context(Store(lab.store_root).reserve(needs))
            if others > 4096:
                # Which has nothing to do with it: there is no new plan.
                lab.list('two', b'2' * 4096)

        store = Acting(lab.store_root, after_plan=reserve)
        if others > 4096:
            with pytest.raises(errors.NotEnoughSpace):
                lab.provide(store)
            assert store.staged == [] and lab.said == []
        else:
            lab.provide(store)
            assert store.staged == [NAME]


def take_away(lab: Lab) -> None:
    (lab.root / 'one').unlink(missing_ok=True)


def damage(lab: Lab) -> None:
    (lab.root / 'one').write_bytes(b'x' * 4096)


@pytest.mark.parametrize('change', [take_away, damage])
def test_what_is_published_anew_after_the_plan_gets_a_new_plan(
    change: Callable[[Lab], None], lab: Lab
) -> None:
    def publish() -> None:
        change(lab)
        (lab.root / 'two').write_bytes(b'2' * 8192)
        lab.list('two', b'2' * 8192)

    store = Acting(lab.store_root, after_plan=publish)
    lab.provide(store)
    assert lab.content() == b'2' * 8192
    assert store.staged == [NAME, NAME]
    assert ['so there is a new plan' in text for text in lab.said] == [True]


@pytest.mark.parametrize('change, error', [
    (take_away, errors.TransferError), (damage, errors.DigestMismatch),
])
def test_there_is_no_new_plan_for_the_same_image(
    change: Callable[[Lab], None], error: Type[errors.LayeredError], lab: Lab
) -> None:
    store = Acting(lab.store_root, after_plan=lambda: change(lab))
    with pytest.raises(error):
        lab.provide(store)
    assert store.staged == [NAME]
    assert lab.said == []


def test_without_a_network_only_files_are_fetched(lab: Lab) -> None:
    index = lab.root / 'repo.metadata'
    document = json.loads(index.read_text())
    document['sources']['here'] = {
        'type': 'http', 'args': {'baseurl': 'http://127.0.0.1:9/'},
    }
    index.write_text(json.dumps(document))
    store = Acting(lab.store_root)
    with pytest.raises(errors.Offline, match=NAME):
        lab.provide(store, offline=True)
    assert store.staged == []
    lab.publish(one=b'1' * 4096)
    lab.provide(store, offline=True)
    assert lab.content() == b'1' * 4096
