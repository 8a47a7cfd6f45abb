"""LagoInitFiles: which templates their disks ask for."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.core.initfile import template_disks
from tests.unit.strategies import json_values

Found = List[Tuple[str, str, str, Optional[str]]]


def disk(template: str = 'el7', **keys: Any) -> Dict[str, Any]:
    return {
        'type': 'template', 'name': 'root', 'dev': 'vda', 'format': 'qcow2',
        'template_name': template, **keys,
    }


def vm(*disks: Dict[str, Any], **keys: Any) -> Dict[str, Any]:
    return {'memory': 512, 'disks': list(disks), **keys}


PROTOTYPE = vm(disk('el7', template_version='v1'))

FOUND: Dict[str, Tuple[Any, Found]] = {
    'one': (
        {'domains': {'vm0': vm(disk())}},
        [('vm0', 'root', 'el7', None)],
    ),
    'one with a version': (
        {'domains': {'vm0': vm(disk(template_version='v1'))}},
        [('vm0', 'root', 'el7', 'v1')],
    ),
    'a version that YAML reads as a number': (
        {'domains': {'vm0': vm(disk(template_version=7.2))}},
        [('vm0', 'root', 'el7', '7.2')],
    ),
    'no version': (
        {'domains': {'vm0': vm(disk(template_version=None))}},
        [('vm0', 'root', 'el7', None)],
    ),
    'in the order of the file': (
        {'domains': {
            'vm1': vm(disk('b', name='one'), disk('a', name='two')),
            'vm0': vm(disk('a')),
        }},
        [
            ('vm1', 'one', 'b', None), ('vm1', 'two', 'a', None),
            ('vm0', 'root', 'a', None),
        ],
    ),
    'other disks': (
        {'domains': {'vm0': vm(
            {'type': 'empty', 'name': 'data', 'size': '1G'},
            {'type': 'file', 'path': '/x', 'name': 'iso'},
            disk(template_type='qcow2', path='/x.qcow2'),
            disk('el7', template_type='lago'),
        )}},
        [('vm0', 'root', 'el7', None)],
    ),
    'the prototype\'s disks': (
        {'domains': {'vm0': {'based-on': PROTOTYPE}}},
        [('vm0', 'root', 'el7', 'v1')],
    ),
    'the domain\'s disks, not the prototype\'s': (
        {'domains': {'vm0': vm(disk('deb'), **{'based-on': PROTOTYPE})}},
        [('vm0', 'root', 'deb', None)],
    ),
    'no disks, whatever the prototype has': (
        {'domains': {'vm0': {'based-on': PROTOTYPE, 'disks': []}}},
        [],
    ),
    'a domain without disks': ({'domains': {'vm0': {}}}, []),
    'no domains': ({'domains': {}, 'nets': {}}, []),
    'a domain whose name is a number': (
        {'domains': {7: vm(disk())}},
        [('7', 'root', 'el7', None)],
    ),
}

FAULTY: Dict[str, Tuple[Any, List[str]]] = {
    'nothing': (None, ['domains']),
    'a list': ([], ['domains']),
    'a text': ('domains', ['domains']),
    'without domains': ({'nets': {}}, ['domains']),
    'domains in a list': ({'domains': ['vm0']}, ['domains']),
    'domain without a body': ({'domains': {'vm0': None}}, ['domain vm0']),
    'disks in a mapping': (
        {'domains': {'vm0': {'disks': {'root': disk()}}}}, ['domain vm0'],
    ),
    'a disk as text': (
        {'domains': {'vm0': {'disks': ['root']}}}, ['domain vm0'],
    ),
    'no template name': (
        {'domains': {'vm0': vm({'type': 'template', 'name': 'root'})}},
        ['domain vm0, disk root'],
    ),
    'template name is a number': (
        {'domains': {'vm0': vm({**disk(), 'template_name': 7})}},
        ['domain vm0, disk root'],
    ),
    'prototype by name': (
        {'domains': {'vm0': {'based-on': 'big'}}}, ["'big'", '*big'],
    ),
    'all at once': (
        {'domains': {
            'vm0': None,
            'vm1': vm({'type': 'template', 'name': 'root'}),
            'vm2': vm(disk()),
            'vm3': {'disks': 7},
            'vm4': {'based-on': 'big'},
        }},
        ['domain vm0', 'domain vm1', 'domain vm3', 'domain vm4'],
    ),
}


@pytest.mark.parametrize('data, expected', FOUND.values(), ids=FOUND)
def test_found(data: Any, expected: Found) -> None:
    assert [
        (each.domain, each.disk, each.wanted.template, each.wanted.version)
        for each in template_disks(data)
    ] == expected


@pytest.mark.parametrize('data, words', FAULTY.values(), ids=FAULTY)
def test_faulty(data: Any, words: List[str]) -> None:
    with pytest.raises(IndexFaults) as caught:
        template_disks(data, 'env/LagoInitFile')
    assert 'env/LagoInitFile' in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_every_fault_is_named_and_nothing_else() -> None:
    with pytest.raises(IndexFaults) as caught:
        template_disks(FAULTY['all at once'][0])
    assert len(caught.value.faults) == 4
    assert 'vm2' not in str(caught.value)


def test_the_data_is_not_changed() -> None:
    data = {'domains': {'vm0': {'based-on': PROTOTYPE}}}
    before = repr(data)
    template_disks(data)
    assert repr(data) == before


@given(json_values)
def test_any_data(data: Any) -> None:
    for document in (data, {'domains': data}, {'domains': {'vm0': data}}):
        try:
            template_disks(document)
        except IndexFaults as error:
            assert error.faults
