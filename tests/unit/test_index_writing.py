"""An index that is written is read again as what it was."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from lago_layered_provider.core.index import SourceSpec, parse_index
from lago_layered_provider.core.index_writing import (
    make_document, render_document,
)
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


def test_mirrors_are_kept() -> None:
    spec = SourceSpec('http', {'baseurl': 'http://a/'}, ('http://b/',))
    data = render_document(make_document('lab', {'s': spec}, [], 1, 2))
    assert parse_index(data, 'here').source('s') == spec
    assert parse_index(data, 'here').source('s') != replace(spec, mirrors=())
