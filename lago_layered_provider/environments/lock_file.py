"""The lock file of an environment, ``LagoInitFile.lock`` beside the init file.

It is read and written here, and an environment is held to it; what it is to
hold is told by the repositories, or by the store where only that has it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Callable, Dict, Mapping, Optional, Tuple

from ..core import errors, lock_document
from ..core.lock_document import Lock, Wish
from ..core.model import Chain, Digest, Image, ImageRef
from ..core.store_names import own_place, store_names
from ..core.wanted import Pin, Pins, Wanted, sort_digests
from ..index import resolve, source_places
from ..repositories.sources import Sources
from ..store import Store
from ..tools import files
from ..tools.tree import write_file
from . import provision
from .environment import Environment
from .places import Lines

MAKE_HINT = 'Make it with: lago template-repo lock'


def lock_path(init_file: str) -> str:
    """Return where the lock of an init file is."""
    return init_file + lock_document.SUFFIX


def read_lock(init_file: str) -> Optional[Lock]:
    """Return the lock of an init file, None where there is none.

    Raises:
        IndexFaults: it cannot be read; all its faults with their places.
    """
    path = lock_path(init_file)
    try:
        data = files.read_binary(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.IndexFaults(
            path, [f'cannot be read: {error.strerror}']
        ) from None
    return lock_document.parse_lock(data, path, Lines(path).find)


def write_lock(init_file: str, lock: Lock) -> None:
    """Write the lock of an init file in one step.

    Raises:
        SettingsError: that is not possible there.
    """
    path = lock_path(init_file)
    try:
        write_file(path, lock_document.format_lock(lock).encode(), sync=True)
    except OSError as error:
        raise errors.SettingsError(
            f'{path} cannot be written: {error.strerror}'
        ) from error


def find_wishes(found: Environment) -> Dict[Wish, Wanted]:
    """Return what an environment wants, in the words of its init file."""
    called = _name_locations(found)
    return {_wish(each, called): each for each in found.all_wanted()}


def _wish(wanted: Wanted, called: Callable[[str], str]) -> Wish:
    if wanted.repository is not None:
        wanted = replace(wanted, repository=called(wanted.repository))
    return Wish(str(wanted), str(wanted.digest or ''))


def _name_locations(found: Environment) -> Callable[[str], str]:
    """Return what tells how a lock calls a location.

    As the init file does, where it does: that means the same elsewhere.
    Passwords belong to the user and not into a file.
    """
    names: Dict[str, str] = {}
    for name, location in found.locations.items():
        names.setdefault(location, name)

    def call(location: str) -> str:
        name = names.get(location, location)
        return source_places.hide_secrets(name)

    return call


def hold(found: Environment, init_file: Optional[str]) -> Environment:
    """Return an environment that has to have what its lock says.

    Raises:
        IndexFaults: the lock is missing or faulty.
        NotAsLocked: templates are not in it; all of them.
    """
    path = lock_path(init_file or 'LagoInitFile')
    lock = read_lock(init_file) if init_file else None
    if lock is None:
        raise errors.IndexFaults(
            path, ['there is no such file'], hint=MAKE_HINT
        )
    wishes = find_wishes(found)
    lacking = [wish for wish in wishes if wish not in lock]
    if lacking:
        raise errors.NotAsLocked(
            f'{path} does not fit {os.path.basename(str(init_file))}',
            [
                f'{lock_document.describe_wish(wish)} is not in it'
                for wish in lacking
            ],
            hint='Add it with: lago template-repo lock',
        )
    called = _name_locations(found)
    known = {
        called(location): location for location in (
            *found.locations.values(),
            *(each.location for each in found.repository.repositories),
        )
    }
    return replace(found, pins={
        wanted: _locate(lock[wish], known) for wish, wanted in wishes.items()
    })


def _locate(chain: Pins, known: Mapping[str, str]) -> Pins:
    return tuple(
        replace(pin, location=known.get(pin.location, pin.location))
        for pin in chain
    )


def find_newest(
    found: Environment, wanted: Wanted, store: Store, sources: Sources
) -> Pins:
    """Return what a wanted template is now, to be locked.

    Raises:
        IndexFaults: nobody tells a digest of an image.
        LayeredError: it is not there, or a repository cannot be asked.
    """
    called = _name_locations(found)
    try:
        return tuple(
            _pin(image, store, called(image.location))
            for image in resolve_now(wanted, sources)
        )
    except errors.TemplateNotFound:
        name = wanted.digest and provision.find_copy(wanted.digest, store)
        if not name:
            raise
        return _pin_stored(name, store)


def resolve_now(wanted: Wanted, sources: Sources) -> Chain:
    """Return the chain of a template, with all that tells its images.

    Unlike for a transfer, what is in the store is asked for as well.
    """
    while True:
        resolution = resolve.resolve(sources.catalog, [wanted])
        images = resolution.unknown or [
            image for chain in resolution.chains for image in chain
            if image.digest is None
        ]
        if resolution.needed:
            sources.read(resolution.needed)
        elif not sources.look_up(images):
            return resolution.chains[0]


def _pin(image: Image, store: Store, location: str) -> Pin:
    digests = image.digests or _measured(image, store)
    if not digests:
        raise errors.IndexFaults(
            image.location,
            [f'{image.ref.short} cannot be locked: neither the index nor a '
             f'file beside the image tells a digest'],
            hint=(
                'Fetch it, so that its digest is measured: lago template-repo '
                f'pull {image.ref.repository}/{image.ref.short}'
            ),
        )
    return Pin(image.ref, sort_digests(digests), location)


def _measured(image: Image, store: Store) -> Tuple[Digest, ...]:
    stored = {name: store.find(name) for name in store_names(image)}
    here = own_place(
        image, {name: found for name, found in stored.items() if found}
    )[1]
    return here.digests if here else ()


def _pin_stored(name: str, store: Store) -> Pins:
    """Return the chain of an image that only the store has any more."""
    chain = []
    top: Optional[str] = name
    while top is not None:
        stored = store.find(top)
        if stored is None or not stored.digests:
            raise errors.StoreError(
                f'{name} cannot be locked: the store does not know the '
                f'digest of {top}'
            )
        repository, template, version = top.split(':')
        plain, _, added = version.rpartition('+')
        if any(each.value.startswith(added) for each in stored.digests):
            # The store's own mark of an image that was published again.
            version = plain or version
        chain.append(Pin(
            ImageRef(repository, template, version),
            sort_digests(stored.digests),
        ))
        top = stored.backing
    return tuple(reversed(chain))
