"""`hold` and `release`, and which image of the store somebody means."""

from __future__ import annotations

import datetime
import getpass
import os
from typing import Collection

from ..core import errors
from ..index.missing import nearest
from ..store import Inventory, Usage
from .context import Context


def find_image(word: str, images: Collection[str]) -> str:
    """Return the store name of an image that somebody names.

    Args:
        word: the name in the store, or TEMPLATE:VERSION or TEMPLATE with or
            without a repository.

    Raises:
        TemplateNotFound: there is none, or there are several.
    """
    plain = word.replace('/', ':')
    found = [name for name in images if name == plain] or [
        name for name in images
        if f':{name}:'.find(f':{plain}:') >= 0
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise errors.TemplateNotFound(
            f'{word} can be any of {", ".join(found)}',
            hint='Name one of them.',
        )
    raise errors.TemplateNotFound(
        f'{word} is not in the store.{nearest(plain, list(images))}',
        hint='See what there is with: lago template-repo store',
    )


def run_hold(context: Context) -> int:
    """Keep an image, whoever uses it."""
    inventory = Inventory(context.store.root)
    name = find_image(context.args.image, inventory.images()[0])
    today = datetime.date.today().isoformat()
    why = f'by {_user()}, {today}'
    Usage(context.store.root).hold(name, why)
    context.show({'held': name}, lambda: print(f'{name} is held.'))
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f'user {os.getuid()}'


def run_release(context: Context) -> int:
    """Undo a hold."""
    usage = Usage(context.store.root)
    inventory = Inventory(context.store.root)
    held = usage.holds()
    known = dict.fromkeys([*inventory.images()[0], *held])
    name = find_image(context.args.image, known)
    if name not in held:
        raise errors.TemplateNotFound(f'{name} is not held.')
    usage.release(name)
    context.show({'released': name}, lambda: print(f'{name} is released.'))
    return 0
