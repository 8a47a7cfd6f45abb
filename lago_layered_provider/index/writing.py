"""Write an index (`repo.metadata`); the other direction of `index`.

A plain Lago reads what comes out, as long as its images are such that it can
use: it ignores the keys that are ours.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Mapping, Optional

from ..core.model import Base, BaseDigest, BaseFile, Image, UNKNOWN
from .document import SourceSpec


def make_document(
    name: str,
    sources: Mapping[str, SourceSpec],
    images: Iterable[Image],
    timestamp: float,
    expires: Optional[float] = None,
) -> Dict[str, Any]:
    """Return the document of an index.

    Args:
        name: of the repository.
        timestamp, expires: when it is published, and until when it counts,
            in seconds since 1970.
    """
    templates: Dict[str, Any] = {}
    for image in sorted(images, key=lambda one: one.ref):
        template = templates.setdefault(image.ref.template, {'versions': {}})
        template['versions'][image.ref.version] = make_entry(image)
    return {
        'name': name,
        'timestamp': timestamp,
        **({} if expires is None else {'expires': expires}),
        'sources': {
            key: _make_source(spec) for key, spec in sorted(sources.items())
        },
        'templates': templates,
    }


def render_document(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of an index, the same for the same document."""
    return f'{json.dumps(document, indent=1, ensure_ascii=False)}\n'.encode()


def make_entry(image: Image) -> Dict[str, Any]:
    """Return the entry of a version; `entry.read_entry` reads it again.

    What is not known of the image is left out.
    """
    entry: Dict[str, Any] = {
        'source': image.source,
        'handle': image.handle,
        'timestamp': image.timestamp,
    }
    if image.base is not UNKNOWN:
        entry['base'] = _base_text(image.base)
    if image.compression is not UNKNOWN:
        entry['compression'] = image.compression
    for key in ('format', 'size', 'compressed_size', 'virtual_size'):
        value = getattr(image, key)
        if value is not None:
            entry[key] = value
    entry.update({
        digest.algorithm: digest.value
        for digest in sorted(image.digests, key=lambda one: one.algorithm)
    })
    if image.metadata is not None:
        entry['metadata'] = dict(image.metadata)
    return entry


def _base_text(base: Optional[Base]) -> Optional[str]:
    """Return what `entry.parse_base` reads."""
    if isinstance(base, BaseFile):
        return f'layer:{base.name}'
    if isinstance(base, BaseDigest):
        return f'{base.digest.value}:{base.name}'
    return None if base is None else str(base)


def _make_source(spec: SourceSpec) -> Dict[str, Any]:
    source: Dict[str, Any] = {'type': spec.type, 'args': dict(spec.args)}
    if spec.mirrors:
        source['mirrors'] = list(spec.mirrors)
    return source
