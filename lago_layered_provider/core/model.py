"""The values that everything else passes around; valid by construction."""

from __future__ import annotations

import enum
import re
import reprlib
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Tuple, Union

#: Names become file names and are shown to shells: keep them plain.
NAME_PATTERN = re.compile(r'[A-Za-z0-9_+@][A-Za-z0-9._+@-]*')

#: Hexadecimal digits of each digest, strongest first.
DIGEST_LENGTHS = {'sha512': 128, 'sha256': 64, 'sha1': 40}

#: Which of several is compared: the fastest one that is safe, then the rest.
CHECKED = ('sha256', 'sha512', 'sha1')

FORMATS = ('qcow2', 'raw')

#: Value of `compression` in an index -> suffix of the file on the server.
SUFFIXES = {None: '', 'xz': '.xz', 'zst': '.zst', 'gz': '.gz'}


class Unknown(enum.Enum):
    """What an index leaves open, as opposed to what it says there is not."""

    UNKNOWN = 'unknown'


UNKNOWN = Unknown.UNKNOWN


#: What is not printable and may be shown as it is.
HARMLESS = '\n\t\xa0'

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def show(value: object) -> str:
    """Return what somebody else has written, fit for a message.

    Short, whatever its size and depth, and without control characters.
    """
    return _SHORT.repr(value)


def visible(text: str) -> str:
    """Return a text in which a terminal finds nothing to obey.

    Line ends and tabs stay; other control characters, those that are of no
    width or turn the direction of writing, and bytes of no character are
    escaped.
    """
    if text.isprintable():
        return text
    return ''.join(
        each if each.isprintable() or each in HARMLESS
        else each.encode('unicode_escape').decode() for each in text
    )


def check_name(name: object, what: str) -> str:
    """Return `name` when it may be part of a file name in the store.

    Raises:
        ValueError: it may not; the message says what a name may hold.
    """
    if isinstance(name, str) and NAME_PATTERN.fullmatch(name):
        return name
    raise ValueError(
        f'{what} {show(name)} is not a name: letters, digits and ._+@- are '
        f'allowed, and neither . nor - at the beginning'
    )


def check_handle(handle: object) -> str:
    """Return `handle` when it stays inside its source.

    Raises:
        ValueError: it is absolute, has a scheme or climbs out.
    """
    if not isinstance(handle, str) or not handle:
        raise ValueError(f'handle {show(handle)} is not a path')
    # A backslash or a control character has no honest use in a handle and
    # some servers and shells give it a meaning.
    if (
        handle.startswith(('/', '~', '-'))
        or re.match(r'[A-Za-z][A-Za-z0-9+.-]*:', handle)
        # An HTTP client may undo the quoting of a dot.
        or '..' in handle.lower().replace('%2e', '.').split('/')
        or '\\' in handle
        or not handle.isprintable()
    ):
        raise ValueError(f'handle {show(handle)} leaves its source')
    return handle


Age = Tuple[float, Tuple[Tuple[str, int, str], ...], str]


def age_of(timestamp: float, version: str) -> Age:
    """Return what sorts the versions of a template, the newest last.

    Between equal timestamps natural order decides: v1.9 before v1.10.
    """
    parts = []
    for text, digits in re.findall(r'([^0-9]+)|([0-9]+)', version):
        # As text: it may have any number of digits.
        number = digits.lstrip('0')
        parts.append((text, len(number), number))
    return timestamp, tuple(parts), version


@dataclass(frozen=True, order=True)
class ImageRef:
    """The name of an image; its text is Lago's file name in the store."""

    repository: str
    template: str
    version: str

    def __post_init__(self) -> None:
        check_name(self.repository, 'repository')
        check_name(self.template, 'template')
        check_name(self.version, 'version')

    def __str__(self) -> str:
        return f'{self.repository}:{self.template}:{self.version}'

    @property
    def short(self) -> str:
        """The name inside its repository."""
        return f'{self.template}:{self.version}'


@dataclass(frozen=True)
class Digest:
    """A digest of an uncompressed image file."""

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        length = DIGEST_LENGTHS.get(self.algorithm)
        if length is None:
            raise ValueError(f'unknown digest {self.algorithm!r}')
        if not re.fullmatch(f'[0-9a-f]{{{length}}}', self.value):
            raise ValueError(
                f'{self.algorithm} {self.value!r} is not {length} '
                f'hexadecimal digits in lower case'
            )

    def __str__(self) -> str:
        return f'{self.algorithm}:{self.value}'


@dataclass(frozen=True)
class BaseName:
    """A base given by name; what is None is left to the resolver."""

    template: str
    version: Optional[str] = None
    repository: Optional[str] = None

    def __str__(self) -> str:
        text = self.template
        if self.version is not None:
            text = f'{text}:{self.version}'
        return f'{self.repository}/{text}' if self.repository else text


@dataclass(frozen=True)
class BaseFile:
    """A base given by the name of its file, without compression suffix."""

    name: str

    def __str__(self) -> str:
        return f'the file {self.name}'


@dataclass(frozen=True)
class BaseDigest:
    """A base given by its digest; `name` is only what people call it."""

    digest: Digest
    name: str

    def __str__(self) -> str:
        return f'{self.name} ({self.digest})'


Base = Union[BaseName, BaseFile, BaseDigest]


@dataclass(frozen=True)
class Image:
    """What the index, and look-ups where it is silent, say of an image.

    Sizes are in bytes; `timestamp` is in seconds since 1970. `base` is None
    for a bottom image. `location` is that of the index which lists it.
    `max_size` is what the file can have at most, where `size` is not known.
    """

    ref: ImageRef
    source: str
    handle: str
    timestamp: float
    base: Union[Base, None, Unknown] = UNKNOWN
    format: Optional[str] = None
    compression: Union[str, None, Unknown] = UNKNOWN
    size: Optional[int] = None
    compressed_size: Optional[int] = None
    virtual_size: Optional[int] = None
    digests: Tuple[Digest, ...] = ()
    metadata: Optional[Mapping[str, Any]] = None
    location: str = ''
    max_size: Optional[int] = None

    @property
    def key(self) -> Tuple[str, ImageRef]:
        """Tell it from the images of a repository that has the same name."""
        return self.location, self.ref

    @property
    def age(self) -> Age:
        """It sorts images by their timestamps, and then by versions."""
        return age_of(self.timestamp, self.ref.version)

    @property
    def digest(self) -> Optional[Digest]:
        """The strongest digest that was announced."""
        by_name = {digest.algorithm: digest for digest in self.digests}
        for algorithm in DIGEST_LENGTHS:
            if algorithm in by_name:
                return by_name[algorithm]
        return None

    @property
    def checked(self) -> Optional[Digest]:
        """The announced digest that an image is compared with."""
        by_name = {digest.algorithm: digest for digest in self.digests}
        found = [by_name[name] for name in CHECKED if name in by_name]
        return found[0] if found else None

    @property
    def identity(self) -> str:
        """Tell this image from one published later under the same name."""
        return f'{self.handle} {self.compression} {self.digest}'

    @property
    def file(self) -> str:
        """The path of the file inside its source.

        Raises:
            ValueError: the compression is not known yet.
        """
        if isinstance(self.compression, Unknown):
            raise ValueError(f'{self.ref}: compression is not known')
        suffix = SUFFIXES[self.compression]
        if suffix and self.handle.endswith(suffix):
            return self.handle
        return self.handle + suffix


@dataclass(frozen=True)
class Chain:
    """The images from the bottom to the wanted one, base first."""

    images: Tuple[Image, ...]

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError('a chain has at least one image')

    def __iter__(self) -> Iterator[Image]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def top(self) -> Image:
        """The wanted image."""
        return self.images[-1]


@dataclass(frozen=True)
class Stored:
    """An image that is visible in the store.

    `name` is its file name, `size` the length of the file and `disk` what it
    takes of the disk, both in bytes. `digests` are those of the file as it
    was published, `backing` is the store name its header points to.
    `time` is when it came, `published` when it was published, in seconds
    since 1970. What is not `recorded` was put there by a plain Lago.
    """

    name: str
    format: str
    size: int
    disk: int
    virtual_size: int
    digests: Tuple[Digest, ...] = ()
    backing: Optional[str] = None
    time: float = 0.0
    published: float = 0.0
    recorded: bool = True


@dataclass(frozen=True)
class Partial:
    """An unfinished image in the store: bytes fetched and bytes on disk."""

    fetched: int
    disk: int
