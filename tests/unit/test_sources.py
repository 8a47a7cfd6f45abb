"""The providers of the sources that an index names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

from lago_layered_provider.core.errors import LayeredError
from lago_layered_provider.core.model import Image
from lago_layered_provider.core.wanted import Wanted
from lago_layered_provider.providers.http import HttpProvider
from lago_layered_provider.repositories.sources import Sources
from lago_layered_provider.repositories.where import ByPath
from lago_layered_provider.settings import Settings
from lago_layered_provider.transfer.ports import Mirrors

ENTRY = {
    'source': 'here', 'handle': 'base.qcow2', 'timestamp': 1, 'base': None,
    'format': 'qcow2', 'compression': None, 'size': 4,
    'sha256': 'ab' * 32, 'metadata': {},
}

#: Addresses of which no provider can be made.
FAULTY = ['http://[bad/x/', 'http:///x/']


def open_source(
    tmp_path: Path, entry: Dict[str, Any] = ENTRY, **source: Any
) -> Tuple[Sources, Image, List[str]]:
    """Return an image whose index names a source, and what is said."""
    (tmp_path / 'base.qcow2').write_bytes(b'1234')
    index: Dict[str, Any] = {
        'name': 'lab', 'sources': {'here': source},
        'templates': {'base': {'versions': {'v1': entry}}},
    }
    path = tmp_path / 'repo.metadata'
    path.write_text(json.dumps(index))
    said: List[str] = []
    sources = Sources([ByPath(str(path))], Settings(), said.append)
    return sources, sources.find(Wanted('base')), said


@pytest.mark.parametrize('faulty', FAULTY)
@pytest.mark.parametrize('first', [False, True])
def test_one_faulty_place_does_not_take_the_others_away(
    first: bool, faulty: str, tmp_path: Path
) -> None:
    root: Dict[str, Any] = {
        'type': 'file', 'args': {'root': '.'}, 'mirrors': [faulty],
    }
    if first:
        root = {
            'type': 'http', 'args': {'baseurl': faulty}, 'mirrors': ['.']
        }
    sources, image, said = open_source(tmp_path, **root)
    assert sources.provider(image).stat(image.file).size == 4
    note, = said
    assert faulty in note
    assert 'going on without it' in note


@pytest.mark.parametrize('faulty', FAULTY)
def test_without_any_place_the_source_is_faulty(
    faulty: str, tmp_path: Path
) -> None:
    sources, image, said = open_source(
        tmp_path, type='http', args={'baseurl': faulty}, mirrors=[faulty]
    )
    with pytest.raises(LayeredError, match='baseurl=') as caught:
        sources.provider(image)
    assert faulty in caught.value.message
    assert said == []


@pytest.mark.parametrize('mirrors', [[], ['http://127.0.0.1:9/']])
def test_an_image_with_neither_digest_nor_compression_has_a_provider(
    mirrors: List[str], tmp_path: Path
) -> None:
    """It is asked for before look-ups, and where they fail."""
    sources, image, said = open_source(
        tmp_path, {'source': 'here', 'handle': 'base', 'timestamp': 1},
        type='file', args={'root': '.'}, mirrors=mirrors,
    )
    provider = sources.provider(image)
    assert provider.locate(image.handle) == str(tmp_path / 'base')
    assert said == []


@pytest.mark.parametrize('digest, alone', [('ab' * 32, False), (None, True)])
def test_without_a_digest_all_of_an_image_comes_from_one_place(
    digest: Optional[str], alone: bool, tmp_path: Path
) -> None:
    """Nothing would tell a mixture of two files."""
    sources, image, _ = open_source(
        tmp_path, {**ENTRY, 'sha256': digest}, type='file',
        args={'root': '.'}, mirrors=['http://127.0.0.1:9/'],
    )
    provider = sources.provider(image)
    assert isinstance(provider, Mirrors)
    assert provider.is_alone(image.file) is alone


def test_servers_are_asked_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And past the caches, once an image was not what they said."""
    asked_anew: List[HttpProvider] = []
    monkeypatch.setattr(
        HttpProvider, 'avoid_caches', lambda place: asked_anew.append(place)
    )
    url = 'http://127.0.0.1:9/'
    _, image, _ = open_source(
        tmp_path, type='http', args={'baseurl': url}, mirrors=[f'{url}2/'],
    )
    sources = Sources(
        [ByPath(image.location)], Settings(timeout=7), pytest.fail
    )
    sources.find(Wanted('base'))
    provider: Any = sources.provider(image)
    assert [place.timeout for place in provider._places] == [7, 7]
    assert asked_anew == []
    sources.renew()
    sources.find(Wanted('base'))
    anew: Any = sources.provider(image)
    assert asked_anew == list(anew._places)
