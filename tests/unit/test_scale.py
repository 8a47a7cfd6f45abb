"""Large indexes: read in part, they say what they say read as a whole."""

from __future__ import annotations

import json
from typing import (
    Any, Dict, Iterator, List, Optional, Set, Tuple, Union, cast,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.commands.listing import Serving
from lago_layered_provider.core import errors
from lago_layered_provider.core.model import (
    BaseDigest, BaseFile, Digest, Stored,
)
from lago_layered_provider.core.plan import Room
from lago_layered_provider.core.planning import make_plan
from lago_layered_provider.core.wanted import parse_wanted
from lago_layered_provider.index import document, entries, entry
from lago_layered_provider.index.catalog import Catalog
from lago_layered_provider.index.document import Index, open_index, parse_index
from lago_layered_provider.index.entries import Templates
from lago_layered_provider.index.resolve import resolve
from lago_layered_provider.index.scan import read_table, render_table, scan
from lago_layered_provider.store import Store
from tests.unit.strategies import (
    FAULTS, Forest, digest_of, documents, faulty_forests, forests,
    json_values,
)

LOCATION = 'http://server/repo.metadata'


@pytest.fixture(autouse=True, scope='module')
def all_are_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, 'LARGE_BYTES', 0)
        yield


#: As the writers of the world lay out the same document.
LAYOUTS: Tuple[Dict[str, Any], ...] = (
    {}, {'indent': 1}, {'indent': '\t'}, {'separators': (',', ':')},
    {'ensure_ascii': False}, {'ensure_ascii': False, 'indent': 1},
)
layouts = st.sampled_from(LAYOUTS)


def render(value: Any, layout: Dict[str, Any]) -> bytes:
    return json.dumps(value, **layout).encode('utf-8', 'surrogatepass')


def outcome(action: Any) -> Any:
    """Return what a question gives: an answer or what is wrong."""
    try:
        return action()
    except (errors.LayeredError, KeyError) as error:
        return type(error), str(error)


def all_answers(found: Index) -> Iterator[Any]:
    """Ask an index for everything."""
    yield found.name, found.timestamp, found.sources, found.templates()
    bases: Set[Union[BaseFile, BaseDigest]] = {BaseFile('nothing')}
    for template in (*found.templates(), 'nothing'):
        yield found.versions(template)
        for version in (*found.versions(template), 'nothing'):
            image = outcome(lambda: found.image(template, version))
            yield image
            base = getattr(image, 'base', None)
            if isinstance(base, (BaseFile, BaseDigest)):
                bases.add(base)
        for latest in (None, 0, 10**9):
            yield list(found.newest_first(template, latest))
    yield list(found.entries())
    for base in sorted(bases, key=str):
        yield sorted(found.named(base))


def check_same(data: bytes, table: Optional[bytes] = None) -> None:
    """Insist that nobody can tell a large index from a small one."""
    whole = outcome(lambda: parse_index(data, LOCATION))
    found = outcome(lambda: open_index(data, LOCATION, table))
    assert found == whole
    if isinstance(found, Index):
        assert list(all_answers(found)) == list(all_answers(whole))


@given(forests(), layouts)
def test_any_forest(forest: Forest, layout: Dict[str, Any]) -> None:
    data = render(forest.document, layout)
    found = open_index(data, LOCATION)
    assert isinstance(found.raw_templates, Templates)
    check_same(data)
    check_same(data, found.table())


@given(faulty_forests(), layouts)
def test_faulty_entries(
    case: Tuple[Forest, str, List[str]], layout: Dict[str, Any]
) -> None:
    data = render(case[0].document, layout)
    found = open_index(data, LOCATION)
    assert isinstance(found.raw_templates, Templates)
    check_same(data, found.table())


@given(documents | json_values, layouts)
def test_any_document(value: Any, layout: Dict[str, Any]) -> None:
    data = render(value, layout)
    check_same(data)
    found = scan(data)
    if found:
        check_same(data, render_table(found))


@given(forests(), layouts, st.data())
def test_any_damage(
    forest: Forest, layout: Dict[str, Any], draw: st.DataObject
) -> None:
    data = render(forest.document, layout)
    at = draw.draw(st.integers(0, len(data)))
    cut = draw.draw(st.integers(0, 3))
    new = draw.draw(st.sampled_from([
        b'', b'"', b'\\', b'{', b'}', b',', b':', b'\xff', b'\0', b'[', b' ',
        'ä'.encode(), b'0', b'\\u0041', b'"x":{', b'null',
    ]))
    check_same(data[:at] + new + data[at + cut:])


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    check_same(data)


ENTRY = {'source': 's', 'handle': 'a.qcow2', 'timestamp': 1}


@pytest.mark.parametrize('text', [
    # Of several members of one name the last one counts.
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1}}},'
    ' "templates": {}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1}}},'
    ' "templates": 7}',
    '{"name": "lab", "templates": 7,'
    ' "templates": {"a": {"versions": {"v1": 1}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1}},'
    ' "a": {"versions": {}}}}',
    '{"name": "lab", "templates": {"a": 7, "a": {"versions": {"v1": 1}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1, "v1": 2}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1},'
    ' "versions": {}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v1": 1},'
    ' "versions": 7}}}',
    '{"name": "lab", "templates": {"a": {"versions": 7, "versions": 8}}}',
    '{"name": "one", "name": "lab", "templates": {}}',
    # Escapes, in names and elsewhere.
    r'{"name": "lab", "templates": {"\u0061": {"versions": {"v\t": {}}}}}',
    r'{"n\u0061me": "lab", "templates": {"a": {"versions": {"v": {}}}}}',
    # Not all of it is an object.
    '{"name": "lab"}', '{"name": "lab", "templates": {}}',
    '{"name": "lab", "templates": {"a": {}, "b": [], "c": {"versions": {}},'
    ' "d": {"versions": [1]}, "e": {"versions": {"v": {}}, "more": "ü"},'
    ' "f": "ü"}}',
    # Other encodings, and what is no JSON.
    '\ufeff{"name": "lab"}', '{"name": "lab"} x', '{"name": "lab",}',
    '{"name": "lab", "templates": {"ä": {"versions": {"ö": {"x": "\u20ac"}}}},'
    ' "sources": {"ü": {}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v": NaN}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v": '
    + '[' * 10**5 + '}}}}',
    '{"name": "lab", "templates": {"a": {"versions": {"v": '
    + '9' * 5000 + '}}}}',
])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_unusual_documents(text: str, encoding: str) -> None:
    check_same(text.encode(encoding))


@pytest.mark.parametrize('at', [
    b'"lab"', b'"a"', b'"v1"', b'"a.qcow2"', b'"s"',
])
def test_bytes_that_are_no_text(at: bytes) -> None:
    data = render({
        'name': 'lab', 'sources': {'s': {'type': 'http'}},
        'templates': {'a': {'versions': {'v1': ENTRY}}},
    }, {})
    for bad in b'\xff', b'\xc3', b'\xed\xa0\x80':
        check_same(data.replace(at, at[:-1] + bad + b'"'))


def test_a_file_whose_name_is_written_with_escapes() -> None:
    data = render({'name': 'lab', 'templates': {'t': {'versions': {
        'v1': ENTRY, 'v2': ENTRY,
    }}}}, {}).replace(b'"a.qcow2"', b'"\\u0061.qcow2"', 1)
    assert list(open_index(data, LOCATION).named(BaseFile('a.qcow2'))) == [
        ('t', 'v1'), ('t', 'v2')
    ]


@pytest.mark.parametrize('base', [
    BaseFile('a'), BaseFile('a"'), BaseFile('ä'), BaseFile('b\\c'),
    BaseFile('v'), BaseFile('\ud800'),
    BaseDigest(Digest('sha512', digest_of('a')), 'x'),
    BaseDigest(Digest('sha1', digest_of('a')[:40]), 'x'),
])
@pytest.mark.parametrize('odd', [
    {}, {'handle': 'x/a.qcow2'}, {'handle': r'x\/a'}, {'handle': 'a"'},
    {'handle': 'ä.xz'}, {'sha512': digest_of('a').upper()},
    {'sha512': f' {digest_of("a")}\n'}, {'sha1': digest_of('a')[:40].upper()},
])
@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
def test_what_has_a_file_or_a_digest(
    base: Union[BaseFile, BaseDigest], odd: Dict[str, Any],
    layout: Dict[str, Any],
) -> None:
    versions = {
        'plain': {**ENTRY, 'handle': 'v/a.xz', 'sha512': digest_of('a')},
        'odd': {**ENTRY, **odd},
        'longer': {**ENTRY, 'handle': 'v/aa', 'sha512': digest_of('b')},
        'other': {**ENTRY, 'handle': 'b', 'metadata': {'a': digest_of('a')}},
        'none': 7,
    }
    data = render({'name': 'lab', 'templates': {
        'empty': {'versions': {}}, 't': {'versions': versions},
        'u': {'versions': versions}, 'end': {'versions': {}},
    }}, layout)
    expected = [
        (template, version) for template in 'tu'
        for version, each in versions.items()
        if isinstance(each, dict) and entry.names_file(each, base)
    ]
    assert sorted(open_index(data, LOCATION).named(base)) == sorted(expected)


def test_a_table_of_another_form_is_left_alone() -> None:
    data = b'{"name": "lab", "templates": {"a": {"versions": {"v1": {}}}}}'
    table = open_index(data, LOCATION).table()
    assert table and read_table(table)
    other = table.replace(b'"form": 1', b'"form": 0')
    assert read_table(other) is None
    check_same(data, other)


def test_a_small_index_has_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, 'LARGE_BYTES', 2**20)
    data = b'{"name": "lab", "templates": {"a": {"versions": {"v1": {}}}}}'
    assert open_index(data, LOCATION).table() is None


# A hundred thousand versions.

COUNT = 100_000


@pytest.fixture(scope='module')
def large() -> bytes:
    """An index where all is faulty that nobody wants."""
    faults = [fault[:2] for fault in FAULTS if fault[1] is not None]
    templates: Dict[str, Any] = {}
    for number in range(COUNT):
        key, value = faults[number % len(faults)]
        bad = {**ENTRY, 'timestamp': number, key: value}
        versions = templates.setdefault(f't{number % 1000}', {'versions': {}})
        versions['versions'][f'v{number}'] = bad
    for name, base in (
        ('a', None), ('b', 'a:good'), ('c', 'b'), ('d', 'layer:c-good.xz'),
        ('e', f'{digest_of("d")}:d'),
    ):
        templates.setdefault(name, {'versions': {}})['versions']['good'] = {
            **ENTRY, 'handle': f'{name}-good', 'base': base,
            'sha512': digest_of(name),
        }
    return json.dumps({
        'name': 'lab', 'sources': {'s': {'type': 'http'}},
        'templates': templates,
    }).encode()


@pytest.mark.parametrize('kept', [False, True])
def test_what_nobody_wants_is_not_looked_at(
    large: bytes, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_index(large, LOCATION).table() if kept else None
    read: List[str] = []
    scanned: List[int] = []

    whole = entries.read_row

    def read_row(*given: Any) -> Any:
        found = whole(*given)
        read.append(found['handle'])
        return found

    def scan_and_say(data: bytes) -> Any:
        scanned.append(len(data))
        return scan(data)

    monkeypatch.setattr(entries, 'read_row', read_row)
    monkeypatch.setattr(document, 'scan', scan_and_say)
    catalog = Catalog([open_index(large, LOCATION, table)])
    [chain] = resolve(catalog, [parse_wanted('e')]).chains
    assert [image.ref.short for image in chain] == [
        f'{name}:good' for name in 'abcde'
    ]
    assert set(read) == {f'{name}-good' for name in 'abcde'}
    assert len(read) < 20
    assert scanned == ([] if kept else [len(large)])


def test_a_misspelt_name_among_many(large: bytes) -> None:
    catalog = Catalog([open_index(large, LOCATION)])
    with pytest.raises(errors.TemplateNotFound, match='Nearest: t999'):
        resolve(catalog, [parse_wanted('t9999')])


# Many images.

def make_forest(count: int, depth: int) -> Dict[str, Optional[str]]:
    """Return `count` chains of `depth` layers: image -> base."""
    return {
        f't{chain}-{layer}:v1': f't{chain}-{layer - 1}:v1' if layer else None
        for chain in range(count) for layer in range(depth)
    }


@pytest.mark.parametrize('count, depth', [(500, 1), (500, 3), (1, 32)])
def test_many_images_in_one_plan(count: int, depth: int) -> None:
    templates = {
        name.split(':')[0]: {'versions': {'v1': {
            **ENTRY, 'handle': name.replace(':', '-'), 'base': base,
            'compression': None, 'size': 10, 'sha512': digest_of(name),
        }}} for name, base in make_forest(count, depth).items()
    }
    catalog = Catalog([open_index(json.dumps({
        'name': 'lab', 'sources': {'s': {'type': 'http'}},
        'templates': templates,
    }).encode(), LOCATION)])
    tops = [f't{number}-{depth - 1}:v1' for number in range(count)]
    chains = resolve(catalog, map(parse_wanted, tops)).chains
    plan = make_plan(
        chains, stored={}, partial={}, room=Room('/store', 10**6), blocks=3,
    )
    assert plan.tops == tuple(f'lab:{top}' for top in tops)
    assert len(plan.missing) == count * depth
    assert plan.to_fetch == plan.to_keep == 10 * count * depth
    names = [layer.name for layer in plan.layers]
    assert all(
        layer.base is None or names.index(layer.base) < names.index(name)
        for name, layer in zip(names, plan.layers)
    )


def test_a_list_asks_the_store_for_what_it_has() -> None:
    class Counted:
        asked: List[str] = []

        def names(self) -> List[str]:
            return ['lab:t7-0:v1', 'lab:odd:v1', 'lab:gone:v1']

        def find(self, name: str) -> Optional[Stored]:
            self.asked.append(name)
            if name == 'lab:odd:v1':
                raise errors.StoreError('it is odd')
            if name == 'lab:gone:v1':
                return None
            return Stored(name, 'raw', 10, 10, 10, ())

    templates = {
        name: {'versions': {'v1': {
            **ENTRY, 'handle': name, 'base': None, 'sha512': digest_of(name),
        }}} for name in ['odd', *(f't{number}-0' for number in range(1000))]
    }
    found = open_index(json.dumps({
        'name': 'lab', 'sources': {'s': {'type': 'http'}},
        'templates': templates,
    }).encode(), LOCATION)
    store = Counted()
    faults: List[str] = []
    serving = Serving(cast(Store, store), Catalog([found]), faults)
    present = [
        template for template in found.templates()
        if serving.find(found.image(template, 'v1'))
    ]
    assert present == ['t7-0']
    assert store.asked == store.names()
    assert faults == ['it is odd']
