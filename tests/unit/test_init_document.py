"""Init files as they are written: what a reader of YAML or JSON loses."""

from __future__ import annotations

import io
import json
import re
from typing import Any, Dict, List, Tuple

import pytest
import yaml
from hypothesis import assume, given

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.environments.init_document import (
    MAX_DEPTH, MAX_LENGTH, load_init_file,
)
from tests.unit.strategies import json_values


def load(text: str) -> Tuple[Any, List[str]]:
    """Return the data, and what was told."""
    told: List[str] = []
    return load_init_file(io.StringIO(text), 'LagoInitFile', told.append), told


def fault(text: str) -> str:
    with pytest.raises(IndexFaults) as caught:
        load(text)
    [found] = caught.value.faults
    assert len(found) < 500
    return found


@pytest.mark.parametrize('text', [
    '7.10', '010', '1_0', '1e3', '1.0e+3', '0x1f', '1:30', 'on', 'No', 'true',
    '2024-01-02', '2024-01-02 03:04:05', '.inf', '9' * 50, '"7.10"', "'7.10'",
    'v1', '!!float 7.10',
])
def test_a_version_is_the_text_as_written(text: str) -> None:
    expected = text.split()[-1] if text[0] == '!' else text.strip('\'"')
    for form in (
        'disks: [{{template_version: {0}, template_name: {0}}}]',
        'disks:\n  - template_version: {0}\n    template_name: {0}\n',
    ):
        found, told = load(form.format(text))
        assert found == {'disks': [
            {'template_version': expected, 'template_name': expected}
        ]}
        assert told == []


@pytest.mark.parametrize('text, expected', [
    ('7.10', '7.10'), ('-1', '-1'), ('1E3', '1E3'), ('"010"', '010'),
    ('null', None), ('true', True),
])
def test_a_version_in_json(text: str, expected: object) -> None:
    found, _ = load('{"a": [{"template_version": %s, "b": %s}]}' % (
        text, text
    ))
    assert found['a'][0] == {
        'template_version': expected, 'b': json.loads(text)
    }


@pytest.mark.parametrize('text', ['', '~', 'null'])
def test_no_version_is_none(text: str) -> None:
    assert load(f'template_version: {text}')[0] == {'template_version': None}


def test_an_alias_of_a_number_is_a_number_elsewhere() -> None:
    found, _ = load('{memory: &x 2048, template_version: *x, more: *x}')
    assert found == {
        'memory': 2048, 'template_version': '2048', 'more': 2048
    }


@given(json_values)
def test_all_else_is_as_lago_loads_it(value: Any) -> None:
    # As text it is equal also with NaN in it.
    text = json.dumps({'domains': value}, sort_keys=True)
    assume(not re.search('[0-9]{300}', text))
    for form in (json.dumps, yaml.safe_dump):
        found = load(form(json.loads(text)))[0]
        assert json.dumps(found, sort_keys=True) == text


def test_merged_and_shared_prototypes() -> None:
    text = '''
    big: &big {memory: 1, disks: []}
    domains:
      a: {based-on: *big}
      b: {<<: *big, memory: 2}
    '''
    found, told = load(text)
    assert found == yaml.safe_load(text)
    assert told == []


def test_no_vm_is_another_one() -> None:
    """Lago writes the name of each into it, and the paths of its disks."""
    found, _ = load('''
    disk: &disk {template_name: a}
    vm: &vm {memory: 1, disks: [*disk, *disk]}
    domains: {a: *vm, b: *vm, c: {<<: *vm}}
    ''')
    for name, vm in found['domains'].items():
        vm['name'] = name
        for number, disk in enumerate(vm['disks']):
            disk['path'] = f'{name}{number}'
    assert {
        vm['name']: [disk['path'] for disk in vm['disks']]
        for vm in found['domains'].values()
    } == {name: [f'{name}0', f'{name}1'] for name in 'abc'}
    assert 'name' not in found['vm'] and 'path' not in found['disk']


DOUBLED = {
    'domains': (
        'domains:\n  a: {}\n  b: {}\n  a: {}\n',
        "/domains: 'a' in lines 2 and 4",
    ),
    'a key of a disk': (
        'x:\n- name: a\n  dev: b\n  name: c\n  name: d\n',
        "/x/0: 'name' in lines 2, 4 and 5",
    ),
    'the whole': ('nets: {}\nnets: {}\n', (
        "the document: 'nets' in lines 1 and 2"
    )),
    'JSON': (
        '{"domains": {\n"a": {"x": "}\\"{"},\n"b": [1, {}],\n"a": 1}}',
        "/domains: 'a' in lines 2 and 4",
    ),
    'JSON in a list': (
        '[1, [2,\n{"a": 1, "b": {"a": 3},\n"\\u0061": 2}]]',
        "/1/1: 'a' in lines 2 and 3",
    ),
}


@pytest.mark.parametrize('text, expected', DOUBLED.values(), ids=DOUBLED)
def test_keys_that_stand_twice(text: str, expected: str) -> None:
    found, [told] = load(text)
    assert found == yaml.safe_load(text)  # the last one
    assert told == (
        f'LagoInitFile: only the last one counts of what stands twice: '
        f'{expected}'
    )


def bomb(form: str, deep: int = 30) -> str:
    """Return aliases of aliases: 9 times as many in each line."""
    lines = [f'a0: &a0 {form.format("x")}']
    for number in range(1, deep):
        inner = ', '.join([f'*a{number - 1}'] * 9)
        lines.append(f'a{number}: &a{number} {form.format(inner)}')
    return '\n'.join(lines)


HOSTILE: Dict[str, Tuple[str, str]] = {
    'aliases of lists': (bomb('[{}]'), 'aliases stand for'),
    'aliases of merges': (
        bomb('{{<<: [{}]}}').replace('[x]', '{}'), 'aliases stand for'
    ),
    'a list in itself': ('a: &a [1, *a]', 'aliases stand for'),
    'a mapping in itself': ('a: &a {b: *a}', 'aliases stand for'),
    'deep YAML': (f'a: {"[" * 5000}{"]" * 5000}', 'nested too deeply'),
    'deep JSON': (f'{"[" * 99999}{"]" * 99999}', 'nested too deeply'),
    'too deep for what follows': (
        f'{"[" * (MAX_DEPTH + 3)}{"]" * (MAX_DEPTH + 3)}',
        'nested too deeply',
    ),
    'a deep block': ('- ' * 3000 + 'x', 'nested too deeply'),
    'deep aliases': ('\n'.join(
        ['a0: &a0 []'] + [f'a{n}: &a{n} [*a{n - 1}]' for n in range(1, 99)]
    ), 'nested too deeply'),
    'a long number': (f'a: 1\nb: {"9" * 5000}', 'line 2: a number of 5000'),
    'a long float': (f'b: {"9" * 5000}.5', 'a number of 5002'),
    'a long number in JSON': ('{"a": %s}' % ('9' * 5000), 'number of 5000'),
    'sixty times sixty': (f'b: 1{":59" * 5000}', 'a number of 15001'),
    'much': (f'#{" " * MAX_LENGTH}', 'more than 1048576 characters'),
    'no date': ('a: 1\nb: 2024-13-45', "'2024-13-45' is no timestamp"),
    'a wrong tag': ('a: !!bool maybe', "'maybe' is no bool"),
    'another wrong tag': ('a: !!timestamp x', "'x' is no timestamp"),
    'an empty number': ('a: !!int ""', "'' is no int"),
    'an object of Python': ('!!python/object:os.system {}', 'python/object'),
    'a list as key': ('? [a]\n: b', 'unhashable'),
    'two documents': ('--- a\n--- b', 'neither JSON nor YAML'),
    'a control character': ('a: \0', 'neither JSON nor YAML'),
    'half a document': ('{"a": [', 'neither JSON nor YAML'),
}


@pytest.mark.parametrize('text, expected', HOSTILE.values(), ids=HOSTILE)
def test_what_was_made_to_harm(text: str, expected: str) -> None:
    assert expected in fault(text)


def test_bytes_that_are_no_text() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b'a: \xff'), encoding='utf-8')
    with pytest.raises(IndexFaults, match='neither JSON nor YAML'):
        load_init_file(stream, 'LagoInitFile', print)


def test_prototypes_by_their_names() -> None:
    host = {'disks': [{'template_version': 7.10}], 'memory': 1}
    found, _ = load(json.dumps({
        'prototypes': {'host': host},
        'domains': {
            'a': {'based-on': 'host'}, 'b': {'based-on': 'gone'},
            'c': {'based-on': {'memory': 2}}, 'd': {}, 'e': None,
        },
    }))
    assert found['domains'] == {
        'a': {'based-on': {**host, 'disks': [{'template_version': '7.1'}]}},
        'b': {'based-on': 'gone'}, 'c': {'based-on': {'memory': 2}},
        'd': {}, 'e': None,
    }
