"""Generators for hypothesis: forests of images, as an index lists them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from hypothesis import strategies as st


GIB = 2**30

#: What a version's entry can have wrong: key, value, and a word that the
#: message must hold.
FAULTS: Tuple[Tuple[str, Any, str], ...] = (
    ('source', 'nowhere', "'nowhere'"),
    ('source', None, 'source'),
    ('handle', '../../etc/passwd', 'handle'),
    ('handle', None, 'handle'),
    ('handle', ['a'], 'handle'),
    ('timestamp', 'yesterday', 'timestamp'),
    ('timestamp', True, 'timestamp'),
    ('timestamp', float('inf'), 'timestamp'),
    ('base', '../el7:v1', 'base'),
    ('base', {'name': 'el7'}, 'base'),
    ('base', 7, 'base'),
    ('format', 'vmdk', 'format'),
    ('format', ['qcow2'], 'format'),
    ('compression', 'rar', 'compression'),
    ('compression', {}, 'compression'),
    ('size', -1, 'size'),
    ('size', '734003200', 'size'),
    ('compressed_size', 1.5, 'compressed_size'),
    ('virtual_size', True, 'virtual_size'),
    ('sha1', 'abc', 'sha1'),
    ('sha256', 5, 'sha256'),
    ('sha512', 'z' * 128, 'sha512'),
    ('metadata', ['distro'], 'metadata'),
)


@dataclass(frozen=True)
class Forest:
    """An index document and what it is meant to say.

    `bases` gives each image's base, both as 'template:version'.
    """

    document: Dict[str, Any]
    bases: Dict[str, Optional[str]]

    @property
    def data(self) -> bytes:
        """The document as a server sends it."""
        return json.dumps(self.document).encode()

    def entry(self, name: str) -> Dict[str, Any]:
        """Return the entry of an image, to be changed."""
        template, version = name.split(':')
        versions = self.document['templates'][template]['versions']
        entry: Dict[str, Any] = versions[version]
        return entry

    def chain(self, name: str) -> List[str]:
        """Return the chain of an image, base first."""
        below = self.bases[name]
        return [*self.chain(below), name] if below else [name]


def digest_of(name: str) -> str:
    """Return a sha512 that no other image has."""
    return hashlib.sha512(name.encode()).hexdigest()


#: Names that the store accepts.
names = st.from_regex(r'[A-Za-z0-9_+@][A-Za-z0-9._+@-]{0,6}', fullmatch=True)
_templates = st.sampled_from(['el7', 'el7-nfs', 'debian_9', 'x@y']) | names
_versions = st.sampled_from(['v1', 'v2', 'latest', '7.2']) | names
_sizes = st.integers(1, 40 * GIB)
_timestamps = st.integers(0, 2**33) | st.floats(0, 2**33)


@st.composite
def forests(draw: st.DrawFn, *, min_size: int = 1) -> Forest:
    """Draw a forest: every image stands on an earlier one or on none."""
    pairs = draw(st.lists(
        st.tuples(_templates, _versions),
        min_size=min_size, max_size=9, unique=True,
    ))
    order = [f'{template}:{version}' for template, version in pairs]
    bases: Dict[str, Optional[str]] = {}
    entries: Dict[str, Dict[str, Any]] = {}
    for number, name in enumerate(order):
        lower: List[Optional[str]] = [None, *order[:number]]
        below = draw(st.sampled_from(lower))
        bases[name] = below
        entries[name] = {
            'source': 'main',
            'handle': f'images/{number}-{name.replace(":", "-")}.qcow2',
            'timestamp': draw(_timestamps),
            'base': below and draw(st.sampled_from(
                _spellings(name, below, entries[below], order)
            )),
            'format': 'qcow2',
            'compression': draw(st.sampled_from([None, 'xz', 'zst', 'gz'])),
            'size': draw(_sizes),
            'compressed_size': draw(_sizes),
            'sha512': digest_of(name),
        }
    templates: Dict[str, Any] = {}
    for name in draw(st.permutations(order)):
        template, version = name.split(':')
        versions = templates.setdefault(template, {'versions': {}})
        versions['versions'][version] = entries[name]
    return Forest(
        {
            'name': 'lab',
            'sources': {'main': {'type': 'http', 'args': {'baseurl': 'x'}}},
            'templates': templates,
        },
        bases,
    )


def _spellings(
    name: str, below: str, entry: Dict[str, Any], order: List[str]
) -> List[str]:
    template = below.split(':')[0]
    found = [
        below,
        f'lab/{below}',
        f'layer:http://builder.invalid/{entry["handle"]}.xz',
        f'{entry["sha512"]}:what-people-say',
        f'lago::{entry["sha512"]}::what-people-say',
    ]
    # Without a version only where there is nothing to choose from.
    if [each.split(':')[0] for each in order].count(template) == 1:
        found.append(template)
    return found


@st.composite
def cyclic_forests(draw: st.DrawFn) -> Tuple[Forest, List[str]]:
    """Draw a forest with a ring in it; the ring's images, each on the next."""
    forest = draw(forests())
    ring = draw(st.lists(
        st.sampled_from(sorted(forest.bases)),
        min_size=1, max_size=5, unique=True,
    ))
    for name, below in zip(ring, ring[1:] + ring[:1]):
        forest.entry(name)['base'] = below
        forest.bases[name] = below
    return forest, ring


@st.composite
def faulty_forests(draw: st.DrawFn) -> Tuple[Forest, str, List[str]]:
    """Draw a forest, its one faulty image and a word for each fault."""
    forest = draw(forests(min_size=2))
    victim = draw(st.sampled_from(sorted(forest.bases)))
    chosen = draw(st.lists(
        st.sampled_from(FAULTS), min_size=1, unique_by=lambda fault: fault[0],
    ))
    words = []
    for key, value, word in chosen:
        if value is None:
            del forest.entry(victim)[key]
        else:
            forest.entry(victim)[key] = value
        words.append(word)
    return forest, victim, words


_keys = st.sampled_from([
    'name', 'sources', 'templates', 'versions', 'type', 'args', 'v1', 'el7',
    'main', *sorted({fault[0] for fault in FAULTS}),
]) | st.text(max_size=5)
_leaves = (
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.text(max_size=8) | names
    | st.sampled_from([10**400, 'qcow2', 'xz', 'main', 'http', 'el7:v1'])
)

#: Any JSON value, with the keys of an index more often than chance has it.
json_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_keys, inner, max_size=5)
    ),
    max_leaves=15,
)

_entries = st.fixed_dictionaries({}, optional={
    **{key: json_values for key in sorted({each[0] for each in FAULTS})},
    'source': st.just('main') | json_values,
    'handle': names | json_values,
    'timestamp': st.integers() | st.floats() | st.just(10**400),
})

#: Index documents whose upper levels are mostly right and whose entries are
#: anything.
documents = st.fixed_dictionaries(
    {
        'name': names,
        'sources': st.just({'main': {'type': 'http'}})
        | st.dictionaries(_keys, json_values, max_size=2),
        'templates': st.dictionaries(
            _keys,
            st.fixed_dictionaries({
                'versions': st.dictionaries(
                    _keys, _entries | json_values, max_size=3,
                ),
            }) | json_values,
            max_size=3,
        ),
    },
)
