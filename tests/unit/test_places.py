"""Where relative roots and mirrors lead, and where they must not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider import providers
from lago_layered_provider.core.errors import (
    IndexFaults, SettingsError, TransferError,
)
from lago_layered_provider.index.document import Index, SourceSpec
from lago_layered_provider.index.source_places import (
    MAX_MIRRORS, find_places, hide_secrets, identity_of, signature_of,
    without_user,
)
from lago_layered_provider.providers import make_provider, open_places
from lago_layered_provider.repositories.where import ByName, ByPath, mark_of
from lago_layered_provider.settings import Settings

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


def test_mirrors_without_end_are_a_few() -> None:
    spec = SourceSpec('http', {'baseurl': 'http://h/'}, tuple(
        f'http://h{number}/' for number in range(3000)
    ))
    found, faults = find_places(spec, WEB)
    assert len(found) == 1 + MAX_MIRRORS
    assert faults == (
        f'3000 mirrors; only the first {MAX_MIRRORS} of them are used',
    )


# What an index may use of the machine that reads it

NOTHING = Index('x', WEB, {}, {})


@pytest.mark.parametrize('location, origin, clone, roots', [
    (FILE, '', '', None),
    ('file:///srv/repo.metadata', '', '', None),
    (FILE, '/srv/other.json', '', None),
    (FILE, 'FILE:///srv/other.json', '', None),
    (WEB, '', '', ('/mnt',)),
    ('HTTP://h/x', '', '', ('/mnt',)),
    ('s3://bucket/x', '', '', ('/mnt',)),
    # Where it lies now says nothing.
    (FILE, WEB, '', ('/mnt',)),
    ('/repos/x/a.json', '', '/repos/x', ('/repos/x', '/mnt')),
    ('/repos/x/a.json', '/tmp', '/repos/x', ('/repos/x', '/mnt')),
])
def test_what_came_over_the_network(
    location: str, origin: str, clone: str,
    roots: Optional[Tuple[str, ...]],
) -> None:
    found = replace(NOTHING, location=location, origin=origin, clone=clone)
    assert found.roots(('/mnt',)) == roots
    assert not roots or found.roots(()) == roots[:-1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with images, one of them a link to elsewhere."""
    for name in ('allowed', 'allowed-not', 'secret'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'image').write_text(name)
    (tmp_path / 'allowed' / 'link').symlink_to('../secret/image')
    (tmp_path / 'allowed' / 'out').symlink_to('../secret')
    (tmp_path / 'to-allowed').symlink_to('allowed')
    monkeypatch.setenv('HERE', str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('root', [
    '{}/secret', '{}/allowed-not', '{}/allowed/..', '{}/allowed/out', '{}',
    '/', '$HERE/allowed', '~/allowed', 'secret', '$UNSET',
])
def test_a_directory_is_refused(root: str, here: Path) -> None:
    args = {'root': root.format(here)}
    for roots in ((), (str(here / 'allowed'), )):
        with pytest.raises(SettingsError, match='refused: root') as caught:
            make_provider('file', args, roots=roots)
        assert 'over the network' in caught.value.message
        assert 'local_roots' in caught.value.hint
    make_provider('file', args, roots=None)


@pytest.mark.parametrize('root', ['allowed', 'to-allowed', 'allowed/.'])
@pytest.mark.parametrize('allowed', ['allowed', 'to-allowed', '.'])
def test_a_directory_that_is_allowed(
    root: str, allowed: str, here: Path
) -> None:
    provider = make_provider(
        'file', {'root': f'{here}/{root}'}, roots=('/mnt', f'{here}/{allowed}')
    )
    stream = provider.open('image')
    assert stream.read(100) == b'allowed'
    stream.close()
    assert provider.stat('image').size == 7
    if allowed == '.':
        return
    for ask in (provider.open, provider.stat):
        for path in ('link', 'out/image'):
            with pytest.raises(TransferError, match='refused: it leads to'):
                ask(path)


def test_a_base_url_that_is_a_file() -> None:
    for url in ('file:///etc/', 'file://localhost/etc/', 'ftp://h/', '/etc'):
        for roots in (None, (), ('/etc',)):
            with pytest.raises(SettingsError, match='no http or https URL'):
                make_provider('http', {'baseurl': url}, roots=roots)


def test_a_refused_place_disables_itself(here: Path) -> None:
    spec = SourceSpec('file', {'root': '/mnt'}, (
        'http://h/', '/etc', 'file:///etc', '~/x', '$HOME/x', 'copy',
    ))
    found, _ = find_places(spec, WEB)
    providers, left_out = open_places(
        [(place.type, place.args) for place in found], timeout=7, roots=()
    )
    assert [each.locate('') for each in providers] == [
        'http://h/', 'https://host:8080/a/b/copy/'
    ]
    assert [fault.split()[2] for fault in left_out] == [
        '/mnt', '/etc', '~/x', '$HOME/x'
    ]
    with pytest.raises(SettingsError, match='/mnt'):
        open_places([('file', {'root': '/mnt'})], timeout=7, roots=())


def test_types_of_other_packages_say_what_they_use(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        pass

    class Remote:
        remote = True

    class Confined:
        def confine(self, roots: Sequence[str]) -> None:
            if '/mnt' not in roots:
                raise ValueError('drawers are of this machine')

    def refused(kind: type, *roots: str) -> bool:
        monkeypatch.setattr(providers, '_find_class', lambda _: kind)
        make_provider('drawer', {}, roots=None)
        try:
            make_provider('drawer', {}, roots=roots)
        except SettingsError as error:
            assert 'drawer' in error.message
            return True
        return False

    assert refused(Silent) and refused(Silent, '/mnt')
    assert not refused(Remote)
    assert refused(Confined) and not refused(Confined, '/mnt')


def test_what_was_added_is_known_again(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def read(path: str) -> Index:
        return ByPath(path).read(Settings(), print)

    for name in ('mine', 'web', 'git/deep/er/cloned'):
        write(f'{name}.json', '{"name": "%s"}' % os.path.basename(name))
    write('web.url', f'{WEB}\n')
    write('mine.url', '[InternetShortcut]\n')
    (tmp_path / 'git' / '.git').mkdir()
    Path(mark_of(str(tmp_path / 'git'))).write_text('/srv/upstream\n')
    # A clone cannot say of itself that it is of this machine.
    write('git/deep/er/cloned.url', '/srv/mine.json\n')
    assert read(f'{tmp_path}/mine.json').roots(()) is None
    for name in ('web', 'cloned'):
        inside = (str(tmp_path / 'git'),) if name == 'cloned' else ()
        found = ByName(name, str(tmp_path)).read(Settings(), print)
        assert found.roots(()) == inside
        for form in ('{}', 'file://{}'):
            assert read(form.format(found.location)).roots(()) == inside


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


SHOWN = {
    'http://me:SECRET@host:80/a/b': 'http://host:80/a/b',
    'HTTPS://SECRET@host/a: HTTP 404': 'HTTPS://host/a: HTTP 404',
    'http://[me:SECRET@host': 'http://host',
    'ssh://git@host:22/x': 'ssh://git@host:22/x',
    'ssh://git:SECRET@host/x': 'ssh://git@host/x',
    'git@host:x and a@b.example': 'git@host:x and a@b.example',
    'http://host/a/@b and /srv/a?b': 'http://host/a/@b and /srv/a?b',
    'Is it "http://host/a?"': 'Is it "http://host/a?"',
    'two: http://a:SECRET@x/, http://b:SECRET@y/':
        'two: http://x/, http://y/',
}


@pytest.mark.parametrize('text', SHOWN)
def test_secrets_are_hidden(text: str) -> None:
    assert hide_secrets(text) == SHOWN[text]
    assert hide_secrets(SHOWN[text]) == SHOWN[text]


def test_queries_are_hidden_and_told_apart() -> None:
    one, other = (
        hide_secrets(f'(http://h/a?sig=SECRET{end}): no')
        for end in ('', '&x=http://y/')
    )
    assert one.startswith('(http://h/a?...') and one.endswith('): no')
    assert 'SECRET' not in one + other
    assert one != other
    assert hide_secrets(one) == one


@given(st.text(max_size=30), st.text('SECRT?&=.', max_size=20))
def test_hiding_twice_changes_nothing(text: str, query: str) -> None:
    once = hide_secrets(f'{text}http://h/a?{query}{text}')
    assert hide_secrets(once) == once


@pytest.mark.parametrize('spelling', [
    'http://Host/a/repo.metadata', 'HTTP://host:80/a/repo.metadata',
    'http://host//a//repo.metadata', 'http://host/./a/b/../repo.metadata',
    'http://me:pw@host/%61/repo%2emetadata', 'http://host/a/repo.metadata#x',
])
def test_one_identity_for_all_spellings(spelling: str) -> None:
    assert identity_of(spelling) == 'http://host/a/repo.metadata'


def test_other_indexes_have_other_identities() -> None:
    others = [
        'http://host/r', 'https://host/r', 'http://host:81/r',
        'http://host/R', 'http://host/r?a', 'http://host/r?b',
        'http://host/r/', 'http://host/%2Fr', '/srv/r', 'file:///srv/r',
    ]
    assert len({identity_of(each) for each in others}) == len(others)


def test_a_url_without_its_user_can_be_used() -> None:
    assert without_user('https://me:pw@h/a?b=c@d') == 'https://h/a?b=c@d'
