"""What virt-builder is told of the images of a repository.

virt-builder knows no versions: the newest one of a template is [TEMPLATE],
with the alias TEMPLATE-VERSION; older ones are [TEMPLATE-VERSION], hidden
from its list and still to be had by that name. Layers, and what it cannot
unpack, are hidden as well; their notes say why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ..core.model import Image
from ..formats.virt_index import Key, Section, quote

#: It takes images as they are, or packed as .xz (its `builder.ml`).
UNPACKED = (None, 'xz')

DEFAULT_ARCH = 'x86_64'


@dataclass(frozen=True)
class Offer:
    """An image as it is published; sizes in bytes.

    Attributes:
        path: of the file, beside the index.
        file_size, file_sha512: of the file as it is fetched.
    """

    image: Image
    path: str
    virtual_size: int
    file_size: int
    file_sha512: str

    @property
    def age(self) -> Tuple[float, str]:
        """What the versions of a template are sorted by."""
        return self.image.timestamp, self.image.ref.version


def make_sections(
    offers: Iterable[Offer]
) -> Tuple[List[Section], List[str]]:
    """Return the sections, and what people should know."""
    templates: Dict[str, List[Offer]] = {}
    for offer in offers:
        templates.setdefault(offer.image.ref.template, []).append(offer)
    warnings: List[str] = []
    found: Dict[str, Section] = {}
    ordered = [
        sorted(templates[name], key=lambda one: one.age, reverse=True)
        for name in sorted(templates)
    ]
    # A template comes before another one's version that is called so.
    for newest, *_ in ordered:
        _add(found, newest, newest.image.ref.template, False, warnings)
    for _, *older in ordered:
        for offer in older:
            _add(found, offer, _long_name(offer), True, warnings)
    for newest, *_ in ordered:
        _add_alias(found, newest)
    warnings += _explain(ordered)
    return [found[name] for name in sorted(found)], warnings


def _long_name(offer: Offer) -> str:
    return f'{offer.image.ref.template}-{offer.image.ref.version}'


def plain_name(name: str) -> str:
    """Return a name as a section may have it: it knows neither + nor @."""
    return re.sub('[^-A-Za-z0-9._]', '_', name)


def _add(
    found: Dict[str, Section], offer: Offer, name: str, older: bool,
    warnings: List[str],
) -> None:
    plain = plain_name(name)
    if plain in found:
        warnings.append(
            f'{offer.image.ref.short} is left out: another image is called '
            f'{plain} there'
        )
        return
    found[plain] = Section(plain, tuple(_fields(offer, older)))


def _add_alias(found: Dict[str, Section], offer: Offer) -> None:
    name = plain_name(offer.image.ref.template)
    alias = plain_name(_long_name(offer))
    section = found[name]
    taken = {each.get('aliases') for each in found.values()} | set(found)
    own = section.get('name') == _title(offer)
    if own and alias not in taken:
        found[name] = Section(
            name, (*section.fields, (('aliases', ''), alias))
        )


def _fields(offer: Offer, older: bool) -> List[Tuple[Key, str]]:
    image = offer.image
    metadata = image.metadata or {}
    reason = _reason(image)
    values: Dict[Key, Optional[str]] = {
        ('name', ''): _title(offer),
        ('osinfo', ''): _line(metadata.get('osinfo')),
        ('arch', ''): _line(metadata.get('arch')) or DEFAULT_ARCH,
        ('file', ''): quote(offer.path),
        ('checksum', 'sha512'): offer.file_sha512,
        ('format', ''): image.format,
        ('size', ''): str(offer.virtual_size),
        ('compressed_size', ''): str(offer.file_size),
        # Another number has virt-builder fetch it anew.
        ('revision', ''): str(max(1, int(image.timestamp))),
        ('expand', ''): _find_partition(metadata),
        ('notes', ''): reason or _line(metadata.get('notes')),
        ('hidden', ''): 'true' if older or reason else None,
    }
    return [(key, value) for key, value in values.items() if value]


def _title(offer: Offer) -> str:
    ref = offer.image.ref
    title = _line((offer.image.metadata or {}).get('name'))
    if title in (None, ref.template):
        title = ref.template
    return f'{title} {ref.version}'


def _line(value: object) -> Optional[str]:
    """Return a text as one line, None where there is none."""
    if not isinstance(value, str):
        return None
    plain = ''.join(each if each.isprintable() else ' ' for each in value)
    return ' '.join(plain.split()) or None


def _find_partition(metadata: Any) -> Optional[str]:
    """Return the partition that virt-resize may make larger."""
    for key in ('root-partition', 'expand'):
        # libguestfs calls a disk of any kind sda.
        found = re.fullmatch(
            r'/dev/[svh]da([1-9][0-9]?)', str(metadata.get(key))
        )
        if found:
            return f'/dev/sda{found[1]}'
    return None


def _reason(image: Image) -> Optional[str]:
    """Say why virt-builder cannot use an image, None where it can."""
    if image.base is not None:
        return f'A layer on {image.base}: not for virt-builder'
    if image.compression not in UNPACKED:
        return f'Packed as {image.compression}: not for virt-builder'
    return None


def _explain(ordered: Sequence[Sequence[Offer]]) -> List[str]:
    """Say which images would be usable if they were packed otherwise."""
    packed = [
        offer.image.ref.short for offers in ordered for offer in offers
        if offer.image.base is None
        and offer.image.compression not in UNPACKED
    ]
    if not packed:
        return []
    more = f' and {len(packed) - 3} more' if len(packed) > 3 else ''
    return [
        f'virt-builder unpacks .xz only, so these are hidden: '
        f'{", ".join(packed[:3])}{more}; publish them with --compress xz or '
        f'none'
    ]
