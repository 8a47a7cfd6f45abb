"""The names of the store's files; decides what may be a name, opens nothing.

A name becomes a file name beside others that are told apart by their ending,
so a name that has such an ending itself is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, List

from ..core import errors, model
from ..tools.locks import ImageLock, is_held
from ..tools.tree import Tree

#: With the longest ending, a file name stays below 255 bytes.
MAX_NAME_BYTES = 200

#: `.users` and `.tmp` are Lago's too.
ENDINGS = (
    '.metadata', '.hash', '.lock', '.tmp', '.users', '.json', '.head',
    '.spool',
)


def check_store_name(name: str) -> str:
    """Return `name` when it can be the name of an image in the store.

    Raises:
        StoreError: it cannot; the message says why.
    """
    parts = name.split(':')
    reason = ''
    if len(parts) != 3:
        reason = 'it is not of the form repository:template:version'
    elif name.endswith(ENDINGS):
        reason = f'it must not end in {os.path.splitext(name)[1]}'
    elif len(name) > MAX_NAME_BYTES:
        reason = f'it is longer than {MAX_NAME_BYTES} bytes'
    else:
        try:
            model.ImageRef(*parts)
        except ValueError as error:
            reason = str(error)
    if reason:
        raise errors.StoreError(
            f'{name!r} cannot be kept in the store: {reason}',
            hint='Give the image another name in the index.',
        )
    return name


def is_store_name(name: str) -> bool:
    """Tell whether an image can have that name in the store."""
    try:
        check_store_name(name)
    except errors.StoreError:
        return False
    return True


class Layout:
    """Paths in one store; does not look whether anything is there.

    `tree` opens the files, and is the only way to them.
    """

    def __init__(self, root: str) -> None:
        try:
            self.root = os.path.abspath(root)
        except FileNotFoundError:
            # The working directory is gone; whoever uses the path will tell.
            self.root = root
        self.tree = Tree(self.root)
        state = os.path.join(self.root, '.layered')
        self.images = os.path.join(state, 'images')
        self.partial = os.path.join(state, 'partial')
        self.indexes = os.path.join(state, 'indexes')
        self.reservations = os.path.join(state, 'reservations')
        self.usage = os.path.join(state, 'usage')
        self.holds = os.path.join(state, 'holds')
        self.use_lock = os.path.join(state, 'use.lock')

    @property
    def directories(self) -> List[str]:
        """All directories of the store, a parent before its children."""
        return [
            self.root, os.path.dirname(self.images), self.images,
            self.partial, self.indexes, self.reservations, self.usage,
            self.holds,
        ]

    def image(self, name: str) -> str:
        """The image itself."""
        return os.path.join(self.root, check_store_name(name))

    def metadata(self, name: str) -> str:
        """Lago's metadata of the template."""
        return f'{self.image(name)}.metadata'

    def hash(self, name: str) -> str:
        """Lago's sha1 of the image as published."""
        return f'{self.image(name)}.hash'

    def lock(self, name: str) -> str:
        """The lock, the same as Lago's."""
        return f'{self.image(name)}.lock'

    def lock_of(self, name: str, what: str = '', **waits: Any) -> ImageLock:
        """The lock of an image as an object; see `ImageLock`."""
        return ImageLock(self.lock(name), tree=self.tree, what=what, **waits)

    def is_held(self, name: str) -> bool:
        """Whether anybody holds the lock of an image."""
        return is_held(self.lock(name), self.tree)

    def record(self, name: str) -> str:
        """What is known of the image."""
        return os.path.join(self.images, f'{check_store_name(name)}.json')

    def head(self, name: str) -> str:
        """The first cluster as published."""
        return os.path.join(self.images, f'{check_store_name(name)}.head')

    def staged(self, name: str) -> str:
        """The image while it is incomplete."""
        return os.path.join(self.partial, check_store_name(name))

    def state(self, name: str) -> str:
        """How far the staged image is."""
        return f'{self.staged(name)}.json'

    def spool(self, name: str, offset: int) -> str:
        """Bytes of the file on the server, from `offset` on."""
        return f'{self.staged(name)}.{offset}.spool'

    def is_spool(self, name: str, file_name: str) -> bool:
        """Whether a file in `partial` is a spool of that image.

        A glob would take those of version 1.5 for spools of version 1.
        """
        pattern = re.escape(name) + r'\.[0-9]+\.spool'
        return re.fullmatch(pattern, file_name) is not None

    def hold(self, name: str) -> str:
        """The hold of an image."""
        return os.path.join(self.holds, f'{check_store_name(name)}.json')

    def index(self, url: str) -> str:
        """The kept index of a URL."""
        digest = hashlib.sha256(url.encode('utf-8', 'surrogatepass'))
        return os.path.join(self.indexes, f'{digest.hexdigest()[:32]}.index')
