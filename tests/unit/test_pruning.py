"""What may leave a store: any forest, any users, any wishes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.commands import Context, pruning
from lago_layered_provider.core import errors
from lago_layered_provider.core.model import Stored
from lago_layered_provider.core.sizes import parse_size
from lago_layered_provider.settings import Settings
from lago_layered_provider.store import Inventory, Store, Usage
from lago_layered_provider.store.prune_rules import Wishes, choose_removals
from lago_layered_provider.store.usage_notes import (
    Needs, UsageNote, Use, find_needs, parse_note, with_bases,
)
from lago_layered_provider.tools.locks import ImageLock, ignore_holder
from tests.unit.strategies import json_values
from tests.unit.test_store import (
    BASE, BASE_BYTES, CHILD, LAYER, LAYER_BYTES, make_qcow2, put, put_staged,
    tree,
)

MIB = 2**20


def image(
    name: str, base: Optional[str] = None, time: float = 0,
    recorded: bool = True,
) -> Stored:
    return Stored(
        f'lab:{name}', 'qcow2', MIB, MIB, MIB, (),
        base and f'lab:{base}', time, time, recorded,
    )


def note(*images: str) -> UsageNote:
    uses = tuple(Use('vm', 'root', f'lab:{name}') for name in images)
    return UsageNote('/env', 'u1', uses)


def left(
    images: List[Stored], *used: str, held: str = '', free: int = 0,
    wishes: Wishes = Wishes(),
) -> Set[str]:
    """Return what stays of some images."""
    by_name = {each.name: each for each in images}
    holds = {f'lab:{held}': ''} if held else {}
    needs = find_needs(images, [note(*used)], holds)
    gone = choose_removals(by_name, needs, wishes, free)
    return {
        name[len('lab:'):] for name in by_name
        if name not in {each.name for each in gone}
    }


CHAIN = [
    image('a:v1', time=1), image('b:v1', 'a:v1', 2), image('c:v1', 'b:v1', 3),
    image('d:v1', 'a:v1', 4),
]


def test_a_chain() -> None:
    assert left(CHAIN) == set()
    assert left(CHAIN, 'b:v1') == {'a:v1', 'b:v1'}
    assert left(CHAIN, 'd:v1', held='c:v1') == {
        'a:v1', 'b:v1', 'c:v1', 'd:v1'
    }


def test_wishes() -> None:
    assert left(CHAIN, wishes=Wishes(before=2.5)) == {
        'a:v1', 'b:v1', 'c:v1', 'd:v1'
    }
    assert left(CHAIN, wishes=Wishes(before=3)) == {'a:v1', 'd:v1'}
    # The oldest that nothing stands on goes first.
    assert left(CHAIN, free=MIB, wishes=Wishes(until_free=2 * MIB)) == {
        'a:v1', 'b:v1', 'd:v1'
    }
    assert len(left(CHAIN, wishes=Wishes(until_free=0))) == 4
    versions = [image(f'x:v{number}', time=number) for number in range(4)]
    assert left(versions, wishes=Wishes(keep=2)) == {'x:v2', 'x:v3'}


def test_what_others_have_put_there_stays() -> None:
    images = [image('a:v1', recorded=False), image('b:v1', 'a:v1')]
    assert left(images) == {'a:v1'}
    assert left(images, wishes=Wishes(foreign=True)) == set()


def test_a_missing_base_and_a_circle_are_no_obstacle() -> None:
    images = [
        image('a:v1', 'gone:v1'), image('b:v1', 'c:v1'),
        image('c:v1', 'b:v1'),
    ]
    # A circle has no top; only a person can tell what it is.
    assert left(images) == {'b:v1', 'c:v1'}
    assert left(images, 'a:v1', 'b:v1') == {'a:v1', 'b:v1', 'c:v1'}


@st.composite
def stores(draw: st.DrawFn) -> Dict[str, Stored]:
    count = draw(st.integers(0, 12))
    found: Dict[str, Stored] = {}
    for number in range(count):
        base = None
        if found:
            base = draw(st.sampled_from([None, *found]))
        one = image(f't{number}:v1', base and base[len('lab:'):],
                    draw(st.integers(0, 5)))
        found[one.name] = one
    return found


@given(stores(), st.data())
def test_nothing_needed_goes_and_all_else_does(
    images: Dict[str, Stored], data: st.DataObject
) -> None:
    names = sorted(images)
    pick = st.lists(st.sampled_from(names)) if names else st.just([])
    used, held = data.draw(pick), data.draw(pick)
    needs = Needs(
        environments={
            name: ((note(), Use('vm', 'root', name)),) for name in used
        },
        images=find_needs(images.values(), [], {}).images,
        holds=dict.fromkeys(held, ''),
    )
    gone = [
        each.name
        for each in choose_removals(images, needs, Wishes(), 0)
    ]
    assert set(gone) == set(images) - set(with_bases(used + held, images))
    # Never an image before what stands on it.
    for at, name in enumerate(gone):
        assert images[name].backing not in gone[:at]


@given(stores(), st.integers(0, 5), st.integers(0, 12))
def test_wishes_only_keep_more(
    images: Dict[str, Stored], keep: int, megabytes: int
) -> None:
    needs = find_needs(images.values(), [], {})
    all_gone = {
        each.name for each in choose_removals(images, needs, Wishes(), 0)
    }
    wishes = Wishes(keep=keep, until_free=megabytes * MIB)
    some = choose_removals(images, needs, wishes, 0)
    assert {each.name for each in some} <= all_gone
    assert len(some) <= megabytes


@given(json_values)
def test_any_note(value: object) -> None:
    found = parse_note(value)
    assert found is None or parse_note(found.to_json()) == found


def test_a_note_comes_back() -> None:
    one = UsageNote('/env', 'u1', (Use('vm', 'root', 'lab:a:v1'),), '/', 7.5)
    assert parse_note(one.to_json()) == one


@pytest.mark.parametrize('text, size', [
    ('64M', 64 * MIB), ('2G', 2**31), ('1.5 GiB', 3 * 2**29), ('7', 7),
    ('7 B', 7), ('1kB', None), ('much', None), ('', None), ('-1', None),
    ('9' * 40, None),
])
def test_sizes(text: str, size: Optional[int]) -> None:
    if size is None:
        with pytest.raises(ValueError, match='64M'):
            parse_size(text)
    else:
        assert parse_size(text) == size


# The command, on a real store

@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a layer on a base."""
    store = Store(str(tmp_path / 'store'))
    store.prepare()
    put(store, BASE, BASE_BYTES)
    put(store, LAYER, LAYER_BYTES, BASE)
    return store


def held(store: Store, name: str) -> ImageLock:
    """Return the lock of an image, as another process holds it."""
    return ImageLock(f'{store.path(name)}.lock', what='a test')


def prune(
    store: Store, capsys: pytest.CaptureFixture[str], *,
    warn: Callable[[str], None] = pytest.fail, **options: Any
) -> List[str]:
    """Prune a store; return the names of what it says it has removed."""
    arguments = {
        'dry_run': False, 'keep': None, 'older_than': None,
        'until_free': None, 'workdir': None, **options,
    }
    assert pruning.run_prune(Context(
        args=argparse.Namespace(**arguments),
        settings=Settings(lock_timeout=0), store=store,
        open_repository=lambda: pytest.fail('not asked'),
        read_environment=lambda path: pytest.fail('not read'),
        repos_directory='', format_data=json.dumps, warn=warn,
    )) == 0
    return [
        one['name'] for one in json.loads(capsys.readouterr().out)['removed']
    ]


@pytest.mark.parametrize('remove', ['remove', 'remove_unfinished'])
def test_what_somebody_has_locked_is_not_removed(
    remove: str, store: Store
) -> None:
    put_staged(store, CHILD, BASE_BYTES)
    name = LAYER if remove == 'remove' else CHILD
    lock = held(store, name)
    lock.acquire(0)
    before = tree(store)
    with pytest.raises(errors.StoreError, match='is locked by .*, a test,'):
        getattr(Inventory(store.root), remove)(name)
    assert tree(store) == before
    lock.release()
    getattr(Inventory(store.root), remove)(name)
    assert not [path for path in tree(store) if name in path]


@pytest.mark.parametrize('locked, gone', [
    (CHILD, [LAYER, BASE]), (LAYER, [CHILD]), (BASE, [LAYER, CHILD]),
])
def test_a_locked_image_stays_with_what_it_stands_on(
    locked: str, gone: List[str], store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(store, CHILD, BASE_BYTES)
    said: List[str] = []
    with held(store, locked):
        assert prune(store, capsys, warn=said.append) == gone
    assert [locked in text for text in said] == [True]
    assert sorted({*store.names(), *gone}) == [BASE, CHILD, LAYER]


@pytest.mark.parametrize('dry_run', [True, False])
def test_what_is_being_fetched_is_not_touched(
    dry_run: bool, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Usage(store.root).hold(LAYER, 'a test')
    for name in (CHILD, 'repo:left:v1'):
        put_staged(store, name, BASE_BYTES)
    with held(store, CHILD):
        assert prune(store, capsys, dry_run=dry_run) == ['repo:left:v1']
    assert store.partial(CHILD)
    assert bool(store.partial('repo:left:v1')) is dry_run


def make_environment(root: Path, backing: str) -> Path:
    """Make the directory of an environment with one disk."""
    (root / 'images').mkdir(parents=True)
    (root / 'uuid').write_text('here')
    (root / 'images' / 'vm0_root.qcow2').write_bytes(
        make_qcow2(backing, 'qcow2')
    )
    return root


def test_a_dry_run_changes_nothing(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although it looks for environments, and finds that one is gone."""
    usage = Usage(store.root)
    usage.note(UsageNote(str(tmp_path / 'gone'), 'gone', ()))
    environment = make_environment(tmp_path / 'environment', store.path(BASE))
    options: Dict[str, Any] = {'workdir': [str(tmp_path / 'environment')]}
    before = tree(store)
    # Neither does it wait for those who use the store.
    with usage.using(0, ignore_holder):
        assert prune(store, capsys, dry_run=True, **options) == [LAYER]
        with pytest.raises(errors.LockTimeout, match='in use by'):
            prune(store, capsys, **options)
    assert tree(store) == before
    assert prune(store, capsys, **options) == [LAYER]
    assert [note.prefix for note in usage.notes()] == [str(environment)]
    assert prune(store, capsys) == []
