"""LagoInitFiles: which templates their disks ask for."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.core.initfile import (
    LayerDisk,
    RepositoryEntry,
    Way,
    read_initfile,
)
from lago_layered_provider.core.wanted import Wanted
from tests.unit.strategies import json_values

Found = List[Tuple[str, str, str, Optional[str]]]


def disk(template: str = 'el7', **keys: Any) -> Dict[str, Any]:
    return {
        'type': 'template', 'name': 'root', 'format': 'qcow2',
        'template_name': template, **keys,
    }


def vm(*disks: Dict[str, Any], **keys: Any) -> Dict[str, Any]:
    return {'memory': 512, 'disks': list(disks), **keys}


TYPO = vm(disk(formt='raw'))
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
            disk(template_type='qcow2', path='/x.qcow2', name='own'),
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
    'prototype by another name': (
        {'domains': {'vm0': {'based-on': 'host'}},
         'prototypes': {'hosts': {}, 'engine': {}}},
        ["'host'", 'prototypes has hosts, engine; did you mean hosts?'],
    ),
    'a type that is none': (
        {'domains': {'vm0': vm({**disk(), 'type': 'templat'})}},
        ["domain vm0, disk root: type is 'templat'", 'mean template?'],
    ),
    'no type': (
        {'domains': {'vm0': vm({'name': 'root'})}},
        ['disk root: type is None, expected is one of template, empty'],
    ),
    'two disks of one name': (
        {'domains': {'vm0': vm(disk(), disk(dev='vdb'))}},
        ["disk root: name 'root' is that of disk 1 of this domain, too"],
    ),
    'two disks at one place': (
        {'domains': {'vm0': vm(
            disk(dev='vda'), disk(name='b', dev='vdb'),
            {'type': 'file', 'name': 'c', 'dev': 'vda', 'path': '/x'},
        )}},
        ["disk c: dev 'vda' is that of disk 1 of this domain, too"],
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
        for each in read_initfile(data).disks
    ] == expected


@pytest.mark.parametrize('data, words', FAULTY.values(), ids=FAULTY)
def test_faulty(data: Any, words: List[str]) -> None:
    with pytest.raises(IndexFaults) as caught:
        read_initfile(data, 'env/LagoInitFile')
    assert 'env/LagoInitFile' in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_every_fault_is_named_and_nothing_else() -> None:
    with pytest.raises(IndexFaults) as caught:
        read_initfile(FAULTY['all at once'][0])
    assert len(caught.value.faults) == 4
    assert 'vm2' not in str(caught.value)


def test_the_data_is_not_changed() -> None:
    data = {'domains': {'vm0': {'based-on': PROTOTYPE}}}
    before = repr(data)
    read_initfile(data)
    assert repr(data) == before


URL = 'http://x.example/repo.metadata'

REPOSITORIES: Dict[str, Tuple[Any, List[RepositoryEntry]]] = {
    'a path': ('repo.json', [RepositoryEntry('repo.json')]),
    'a list': ([URL, '~/r.json'], [
        RepositoryEntry(URL), RepositoryEntry('~/r.json'),
    ]),
    'mappings': ([{'path': URL}, {'name': 'office'}], [
        RepositoryEntry(URL), RepositoryEntry(name='office'),
    ]),
}


@pytest.mark.parametrize(
    'value, expected', REPOSITORIES.values(), ids=REPOSITORIES
)
def test_repositories(value: Any, expected: List[RepositoryEntry]) -> None:
    found = read_initfile({'domains': {}, 'template-repo': value})
    assert list(found.repositories) == expected


@pytest.mark.parametrize('value, words', [
    ([], ['template-repo', '[]', 'at least one entry']),
    (None, ['template-repo', 'None']),
    ({}, ['template-repo']),
    ('', ['template-repo', "''"]),
    ([7], ['entry 1', '7']),
    ([URL, ''], ['entry 2']),
    ([{'pth': URL}], ['entry 1', "'pth'", 'path and name']),
    ([{'path': URL, 'name': 'x'}], ['entry 1', 'either path or name']),
    ([{'path': URL, 'branch': 'x'}], ['entry 1', "'branch'"]),
    ([{}], ['entry 1', 'either path or name']),
    ([URL, {'name': 7}], ['entry 2', 'name is 7']),
    ([URL, {'path': None}], ['entry 2', 'path is None']),
])
def test_faulty_repositories(value: Any, words: List[str]) -> None:
    with pytest.raises(IndexFaults) as caught:
        read_initfile({'domains': {}, 'template-repo': value})
    assert len(caught.value.faults) == 1
    for word in words:
        assert word in str(caught.value)


def test_faults_say_their_line() -> None:
    lines: Dict[Way, int] = {('template-repo', 1, 'pth'): 7}
    with pytest.raises(IndexFaults, match='line 7: template-repo, entry 2'):
        read_initfile(
            {'domains': {}, 'template-repo': [URL, {'pth': 'x'}]},
            find_line=lambda way: lines.get(way),
        )


WANTED: Dict[str, Tuple[Dict[str, Any], Wanted]] = {
    'name and version in one': (
        disk('el7:v2'), Wanted('el7', 'v2'),
    ),
    'repository too': (
        disk('office/el7:v2'), Wanted('el7', 'v2', 'office'),
    ),
    'repository and newest': (
        disk('office/el7'), Wanted('el7', None, 'office'),
    ),
    'the same version twice': (
        disk('el7:v2', template_version='v2'), Wanted('el7', 'v2'),
    ),
    'a repository by its name': (
        disk(**{'template-repo': 'office'}), Wanted('el7', None, 'office'),
    ),
    'a repository by its path': (
        disk(**{'template-repo': URL}), Wanted('el7', None, URL),
    ),
    'the same repository twice': (
        disk('office/el7', **{'template-repo': 'office'}),
        Wanted('el7', None, 'office'),
    ),
}


@pytest.mark.parametrize('one, wanted', WANTED.values(), ids=WANTED)
def test_what_a_disk_wants(one: Dict[str, Any], wanted: Wanted) -> None:
    found = read_initfile({
        'domains': {'vm0': vm(one)}, 'template-repo': [URL, 'b.json'],
    })
    assert [each.wanted for each in found.disks] == [wanted]


@pytest.mark.parametrize('one, words', [
    (disk('el7:v1', template_version='v2'), ['v1', 'v2']),
    (disk('a/el7', **{'template-repo': 'b'}), ['repository a', 'says b']),
    (disk(**{'template-repo': 'http://y.example/'}), [URL, 'b.json']),
    ({**disk(), 'template-repo': ['office']}, ["['office']"]),
    (disk('a/b/el7'), ["'a/b'"]),
    (disk('el7:v1:v2'), ["'v1:v2'"]),
    (disk(''), ["''"]),
    (disk(template_type='qcow2'), ['path is missing']),
    (disk(template_type='raw'), ["'raw'", 'lago or qcow2']),
])
def test_what_a_disk_cannot_want(
    one: Dict[str, Any], words: List[str]
) -> None:
    with pytest.raises(IndexFaults) as caught:
        read_initfile({
            'domains': {'vm0': vm(disk(name='other'), one)},
            'template-repo': [URL, 'b.json'],
        })
    assert len(caught.value.faults) == 1
    for word in ['domain vm0, disk root', *words]:
        assert word in str(caught.value)


def test_disks_on_files() -> None:
    one = {'type': 'template', 'template_type': 'qcow2', 'name': 'root',
           'path': '$LAGO_INITFILE_PATH/x.qcow2', 'template-repo': 'office'}
    found = read_initfile({'domains': {'vm0': vm(one, disk(name='other'))}})
    assert found.layers == (
        LayerDisk('vm0', 'root', '$LAGO_INITFILE_PATH/x.qcow2', 'office'),
    )
    assert len(found.disks) == 1


@given(json_values)
def test_any_data(data: Any) -> None:
    for document in (
        data, {'domains': data}, {'domains': {'vm0': data}},
        {'domains': {}, 'template-repo': data},
        {'domains': {}, 'template-repo': [data]},
        {'domains': {'vm0': {'disks': [{'type': 'template', **data}]}}}
        if isinstance(data, dict) else data,
    ):
        try:
            read_initfile(document)
        except IndexFaults as error:
            assert error.faults


WARNED: Dict[str, Tuple[Any, List[str]]] = {
    'nothing': ({'x-mine': 1, 'prototypes': {}, 'nets': {}}, []),
    'repositories': (
        {'template_repo': 'x'},
        ["unknown key 'template_repo' is ignored; did you mean "
         "template-repo?"],
    ),
    'nets': ({'net': {}}, [
        "unknown key 'net' is ignored; did you mean nets?"
    ]),
    'a version': (
        {'domains': {'vm0': vm(disk(template_versoin='v1', comment='x'))}},
        ["domain vm0, disk root: unknown key 'template_versoin' is ignored; "
         "did you mean template_version?"],
    ),
    'once for a prototype of several': (
        {'domains': {name: {'based-on': TYPO} for name in 'abc'}},
        ["domain a, disk root: unknown key 'formt' is ignored; did you mean "
         "format?"],
    ),
}


@pytest.mark.parametrize('data, expected', WARNED.values(), ids=WARNED)
def test_keys_that_nobody_reads(data: Any, expected: List[str]) -> None:
    found = read_initfile({'domains': {}, **data})
    assert list(found.warnings) == expected


def test_a_key_that_nobody_reads_has_its_line() -> None:
    places: Dict[Way, int] = {('template_repo',): 3}
    found = read_initfile(
        {'domains': {}, 'template_repo': 'x'}, 'x',
        lambda way: places.get(way),
    )
    assert found.warnings[0].startswith('line 3: unknown key')


def test_two_files_of_one_name() -> None:
    """Lago calls the file of a disk NAME.FORMAT."""
    read_initfile({'domains': {'vm0': vm(
        disk(), disk(format='raw', dev='vdb'),
        {'type': 'file', 'name': 'root', 'path': '/x'},
        {'type': 'file', 'name': 'root', 'path': '/y'},
    ), 'vm1': vm(disk())}})
