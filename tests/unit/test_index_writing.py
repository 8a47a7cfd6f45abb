"""An index that is written is read again as what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from lago_layered_provider.core.errors import PublishError
from lago_layered_provider.index.document import SourceSpec, parse_index
from lago_layered_provider.index.writing import make_document, render_document
from lago_layered_provider.publishing.indexing import replace_index
from lago_layered_provider.publishing.layout import Place
from tests.unit.strategies import Forest, forests


@given(forests())
def test_round_trip(forest: Forest) -> None:
    found = parse_index(forest.data, 'here')
    images = [
        found.image(template, version)
        for template, version, _ in found.entries()
    ]
    sources = {image.source: found.source(image.source) for image in images}
    data = render_document(make_document(found.name, sources, images, 7))
    again = parse_index(data, 'here')
    assert again.timestamp == 7
    assert again.name == found.name
    for image in images:
        assert again.image(image.ref.template, image.ref.version) == image
        assert again.source(image.source) == sources[image.source]
    other_way = [
        replace(image, digests=image.digests[::-1])
        for image in reversed(images)
    ]
    assert render_document(
        make_document(found.name, sources, other_way, 7)
    ) == data


def test_what_clients_cannot_read_replaces_nothing(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    good = render_document(make_document(
        'lab', {'lab': SourceSpec('file', {'root': '.'})}, [], 1
    ))
    replace_index(place, good, None, None)
    for bad, words in (
        (b'{"name": "lab"', 'is not JSON'),
        (good.replace(b'"templates": {}', b'"templates": {"a": {"versions": '
                      b'{"v1": {"source": "lab", "handle": "a", '
                      b'"timestamp": 1, "virtual_size": 0}}}}'),
         'virtual_size: 0 is not'),
    ):
        assert bad != good
        with pytest.raises(PublishError, match=words):
            replace_index(place, bad, good, None)
        assert Path(place.index).read_bytes() == good


def test_mirrors_are_kept() -> None:
    spec = SourceSpec('http', {'baseurl': 'http://a/'}, ('http://b/',))
    data = render_document(make_document('lab', {'s': spec}, [], 1, 2))
    assert parse_index(data, 'here').source('s') == spec
    assert parse_index(data, 'here').source('s') != replace(spec, mirrors=())
