"""Where relative roots and mirrors lead, and where they must not."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.core.index import SourceSpec
from lago_layered_provider.core.places import find_places, signature_of

WEB = 'https://host:8080/a/b/repo.metadata'
FILE = '/srv/images/repo.metadata'

RELATIVE: Dict[str, Tuple[str, str, str, str, str]] = {
    'beside a URL': ('file', '.', WEB, 'http', 'https://host:8080/a/b/'),
    'below a URL': ('file', './x/y/', WEB, 'http',
                    'https://host:8080/a/b/x/y/'),
    'quoted for a URL': ('file', 'my images#1', WEB, 'http',
                         'https://host:8080/a/b/my%20images%231/'),
    'a URL with a query': ('file', '.', 'http://h/a/repo?b=/c/', 'http',
                           'http://h/a/'),
    'at the top': ('file', '.', 'http://h/repo.metadata', 'http',
                   'http://h/'),
    'no path at all': ('file', 'x', 'http://h', 'http', 'http://h/x/'),
    'with a user': ('file', '.', 'http://me:pw@h/a/r', 'http',
                    'http://me:pw@h/a/'),
    'beside a file': ('file', '.', FILE, 'file', '/srv/images'),
    'below a file': ('file', 'x//./y', FILE, 'file', '/srv/images/x/y'),
    'a relative file': ('file', '.', 'repo.metadata', 'file', '.'),
    'below a home': ('file', 'x', '~/r/repo.metadata', 'file', '~/r/x'),
    'a file URL': ('file', 'x', 'file:///srv/my%20images/repo.metadata',
                   'file', '/srv/my images/x'),
    'a file URL with its host': ('file', '.', 'file://localhost/s/r',
                                 'file', '/s'),
    'baseurl over http': ('http', './', WEB, 'http',
                          'https://host:8080/a/b/'),
    'baseurl stays quoted': ('http', 'my%20images', WEB, 'http',
                             'https://host:8080/a/b/my%20images/'),
    'baseurl in a file': ('http', './my%20images/', FILE, 'file',
                          '/srv/images/my images'),
}

AS_IT_IS = {
    'an absolute root': ('file', {'root': '/srv/images'}),
    'a home': ('file', {'root': '~/images'}),
    'a variable': ('file', {'root': '$HOME/images'}),
    'a URL': ('http', {'baseurl': 'http://other/'}),
    'none': ('http', {'baseurl': ''}),
    'no text': ('http', {'baseurl': 7}),
    'another argument': ('http', {'url': 'x'}),
    'another type': ('s3', {'root': 'x', 'baseurl': 'y'}),
}

LEAVING = [
    '..', '../x', 'x/../../y', './..', 'x\\..\\y', 'a\nb', '\x7f',
]


def argument(kind: str) -> str:
    return {'file': 'root', 'http': 'baseurl'}[kind]


@pytest.mark.parametrize(
    'kind, value, location, found, expected', RELATIVE.values(), ids=RELATIVE
)
def test_relative(
    kind: str, value: str, location: str, found: str, expected: str
) -> None:
    spec = SourceSpec(kind, {argument(kind): value})
    assert find_places(spec, location) == (
        (SourceSpec(found, {argument(found): expected}),), ()
    )


@pytest.mark.parametrize('location', [WEB, FILE])
@pytest.mark.parametrize('kind, args', AS_IT_IS.values(), ids=AS_IT_IS)
def test_as_it_is(kind: str, args: Dict[str, Any], location: str) -> None:
    spec = SourceSpec(kind, args)
    assert find_places(spec, location) == ((spec,), ())


@pytest.mark.parametrize('location', [WEB, FILE])
@pytest.mark.parametrize('kind', ['file', 'http'])
@pytest.mark.parametrize('value', [
    *LEAVING, '%2e%2E/x', 'x%2f..%2F..', 'x?y', 'x#y'
])
def test_leaving(kind: str, value: str, location: str) -> None:
    if kind == 'file' and ('%' in value or '?' in value or '#' in value):
        return  # a directory may have such a name
    with pytest.raises(IndexFaults) as caught:
        find_places(SourceSpec(kind, {argument(kind): value}), location)
    assert 'leaves the directory of the index' in caught.value.message
    assert location in caught.value.message


def test_relative_with_other_args() -> None:
    with pytest.raises(IndexFaults, match='other args'):
        find_places(
            SourceSpec('http', {'baseurl': './', 'timeout': 3}), WEB
        )


def test_mirrors_in_order_without_repetitions() -> None:
    spec = SourceSpec('file', {'root': '.'}, (
        'http://one/x', 'https://host:8080/a/b/', '/mnt/images', 'copy',
        'file:///mnt/my%20images', 'http://one/x', '~/images',
    ))
    found, faults = find_places(spec, WEB)
    assert [(place.type, *place.args.values()) for place in found] == [
        ('http', 'https://host:8080/a/b/'),
        ('http', 'http://one/x'),
        ('file', '/mnt/images'),
        ('http', 'https://host:8080/a/b/copy/'),
        ('file', '/mnt/my images'),
        ('file', '~/images'),
    ]
    assert faults == ()
    assert not any(place.mirrors for place in found)


def test_a_faulty_mirror_disables_itself() -> None:
    spec = SourceSpec('http', {'baseurl': 'http://h/'}, (
        'rsync://one/x', '../up', 'http://two/',
    ))
    found, faults = find_places(spec, WEB)
    assert [place.args['baseurl'] for place in found] == [
        'http://h/', 'http://two/'
    ]
    assert [fault.split()[1] for fault in faults] == [
        "'rsync://one/x'", "'../up'"
    ]


@given(st.text(max_size=20), st.sampled_from(['file', 'http']),
       st.sampled_from([WEB, FILE]))
def test_nothing_relative_leads_out(
    value: str, kind: str, location: str
) -> None:
    spec = SourceSpec(kind, {argument(kind): value})
    try:
        [place], _ = find_places(spec, location)
    except IndexFaults:
        return
    if place == spec:
        return
    directory = location.rpartition('/')[0]
    where = str(place.args[argument(place.type)])
    assert where == directory or where.startswith(f'{directory}/')
    assert '..' not in where.replace('%2E', '.').split('/')


@pytest.mark.parametrize('location, expected', [
    (WEB, f'{WEB}.asc'), (FILE, f'{FILE}.asc'),
    ('http://h/repo?x=1', 'http://h/repo.asc?x=1'),
    ('http://h/repo#x', 'http://h/repo.asc#x'),
    ('/srv/what?/repo', '/srv/what?/repo.asc'),
])
def test_where_a_signature_is(location: str, expected: str) -> None:
    assert signature_of(location) == expected
