"""The index of virt-builder: sections of fields, as its own parser has them.

`builder/index-scan.l` and `index_parser.ml` of guestfs-tools say what is
right; ``virt-index-validate`` says yes to more than ``virt-builder`` does::

    [el7-base]
    name=el7-base v1
    arch=x86_64
    file=published/el7-base/v1.qcow2.xz
    checksum[sha512]=...
    size=6442450944
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import (
    Dict, Iterable, Iterator, List, Optional, Set, Tuple,
)

from ..core import model

SECTION_PATTERN = re.compile(r'\[([-A-Za-z0-9._]+)\][ \t]*')
FIELD_PATTERN = re.compile(
    r'([A-Za-z0-9_.]+)(?:\[([A-Za-z0-9_,.]+)\])?=(.*)'
)
REQUIRED = ('arch', 'file', 'size')

SIGNED = '-----BEGIN PGP SIGNED MESSAGE-----'
SIGNATURE = '-----BEGIN PGP SIGNATURE-----'

#: What a path in a URL holds as it is; curl and libxml2 agree on these.
_PLAIN = frozenset(
    b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
    b'-._~/@+,=:'
)

#: (key, subkey or '')
Key = Tuple[str, str]


@dataclass(frozen=True)
class Section:
    """What virt-builder is told of one image."""

    name: str
    fields: Tuple[Tuple[Key, str], ...]

    def get(self, key: str, subkey: str = '') -> Optional[str]:
        """Return the value of a field, None where there is none."""
        for found, value in self.fields:
            if found == (key, subkey):
                return value
        return None

    @property
    def path(self) -> str:
        """The file, beside the index."""
        return unquote(self.get('file') or '')

    @property
    def checksum(self) -> Optional[str]:
        """The sha512 of the file as it is fetched."""
        return self.get('checksum', 'sha512') or self.get('checksum')

    @property
    def hidden(self) -> bool:
        """Whether a list leaves it out."""
        return self.get('hidden') == 'true'


@dataclass(frozen=True)
class Fault:
    """What is wrong; `code` as in `lint.LEVELS`."""

    code: str
    message: str


def render(sections: Iterable[Section]) -> bytes:
    """Return the bytes of an index."""
    return '\n'.join(map(_render_section, sections)).encode()


def _render_section(section: Section) -> str:
    lines = [f'[{section.name}]']
    for (key, subkey), value in section.fields:
        shown = f'{key}[{subkey}]' if subkey else key
        # A line that goes on begins with a space.
        lines.append(f'{shown}={value}'.replace('\n', '\n '))
    return ''.join(f'{line}\n' for line in lines)


def parse(data: bytes) -> Tuple[List[Section], List[Fault]]:
    """Read an index.

    Returns:
        the sections that can be read, and all that is wrong with the rest.
    """
    sections: List[Section] = []
    faults: List[Fault] = []
    name: Optional[str] = None
    fields: List[Tuple[Key, str]] = []
    text = data.decode('utf-8', 'replace')
    if text and not text.endswith('\n'):
        faults.append(Fault(
            'virt-syntax', 'the last line does not end: a newline is missing'
        ))
    for number, line in _lines(text):
        header = SECTION_PATTERN.fullmatch(line)
        field = FIELD_PATTERN.fullmatch(line)
        if header:
            if name is not None:
                sections.append(Section(name, tuple(fields)))
            name, fields = header[1], []
        elif line[:1] in (' ', '\t') and fields:
            last, value = fields[-1]
            fields[-1] = last, f'{value}\n{line[1:]}'
        elif field and name is not None:
            fields.append(((field[1], field[2] or ''), field[3]))
        else:
            faults.append(Fault(
                'virt-syntax', f'line {number}: {model.show(line)} is '
                f'neither [NAME] nor KEY=VALUE' if name is not None else
                f'line {number}: {model.show(line)} is before the first '
                f'[NAME]',
            ))
    if name is not None:
        sections.append(Section(name, tuple(fields)))
    return sections, faults + list(_judge(sections))


def _lines(text: str) -> Iterator[Tuple[int, str]]:
    """Yield the lines that count, with their numbers."""
    signed = text.startswith(SIGNED)
    in_prologue = signed
    for number, line in enumerate(text.split('\n'), 1):
        if in_prologue:
            in_prologue = line != ''
        elif signed and line == SIGNATURE:
            return
        elif line and not line.startswith('#'):
            yield number, line


def _judge(sections: Iterable[Section]) -> Iterator[Fault]:
    """Find what virt-builder refuses although it could be read."""
    seen: Set[Tuple[str, str]] = set()
    for section in sections:
        name = f'[{section.name}]'
        arch = section.get('arch') or ''
        if (section.name, arch) in seen:
            yield Fault('virt-syntax', f'{name} {arch} stands there twice')
        seen.add((section.name, arch))
        counts: Dict[Key, int] = {}
        for each, _ in section.fields:
            counts[each] = counts.get(each, 0) + 1
        for (key, subkey), count in counts.items():
            if count > 1:
                shown = f'{key}[{subkey}]' if subkey else key
                yield Fault(
                    'virt-syntax', f'{name}: {shown} stands there {count} '
                    f'times',
                )
        yield from _judge_fields(section, name)


def _judge_fields(section: Section, name: str) -> Iterator[Fault]:
    for key in REQUIRED:
        if not section.get(key):
            yield Fault('virt-field', f'{name}: {key} is missing')
    for key in ('size', 'compressed_size', 'revision'):
        value = section.get(key)
        if value and not re.fullmatch('[0-9]{1,18}', value):
            yield Fault(
                'virt-field',
                f'{name}: {key} {model.show(value)} is not a whole number',
            )
    hidden = section.get('hidden')
    if hidden not in (None, 'true', 'false'):
        yield Fault(
            'virt-field', f'{name}: hidden {model.show(hidden)} is neither '
            f'true nor false',
        )
    file = section.get('file') or ''
    if file.startswith('/') or '://' in file:
        yield Fault(
            'virt-field', f'{name}: file {model.show(file)} is not a path '
            f'beside the index',
        )
    if not re.fullmatch('[0-9A-Fa-f]{128}', section.checksum or '0' * 128):
        yield Fault(
            'virt-field', f'{name}: its checksum is not a sha512 of 128 '
            f'hexadecimal digits',
        )


def quote(path: str) -> str:
    """Return a path as it stands in a URL."""
    return ''.join(
        chr(byte) if byte in _PLAIN else f'%{byte:02X}'
        for byte in path.encode('utf-8', 'surrogateescape')
    )


def unquote(path: str) -> str:
    """Return the path of a part of a URL."""
    data = re.sub(
        b'%([0-9A-Fa-f]{2})', lambda found: bytes([int(found[1], 16)]),
        path.encode('utf-8', 'surrogateescape'),
    )
    return data.decode('utf-8', 'surrogateescape')
