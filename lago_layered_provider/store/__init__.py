"""Keep images in Lago's directory, so that a plain Lago can use them too.

``NAME`` is ``repo:template:version``, with ``+8 hex digits`` at its end for
an image that was published again under the same name::

    STORE/
      NAME                      the image, 0444, never changed once visible
      NAME.metadata             Lago's metadata of the template, JSON
      NAME.hash                 Lago's sha1 of the image as published
      NAME.lock                 flock(2): Lago's and ours, stays
      .layered/
        images/NAME.json        digests, sizes, format, backing, URL, time
        images/NAME.head        a layer's first cluster as published
        partial/NAME            the staged file
        partial/NAME.json       how far it is, whether it is verified
        partial/NAME.N.spool    bytes received since the checkpoint at N
        partial/NAME+repair     a copy that replaces a damaged NAME; with .head
        indexes/DIGEST.index    an index kept, by the digest of its URL; the
                                signed one of a URL beside the other one
        reservations/ID.json    what a running transfer needs, flocked by it
        usage/UUID.json         which images an environment stands on
        holds/NAME.json         that an image shall stay, and why
        use.lock                shared by who uses images, alone by a prune

Who locks what: ``NAME.lock`` guards all files of NAME; who writes any of them
holds it. Nobody holds two. A reservation is locked by the transfer that made
it, for as long as it runs. ``use.lock`` is taken before any of them: shared
from before a transfer until the environment has noted what it stands on, so
that a prune, which takes it alone, sees either nothing of it or all. Reading
needs no lock, nor does a kept index: every small file is replaced in one step.

Visible means complete: an image gets its name when it is verified, its base
is visible, and its bytes are on the disk. A kill at any moment leaves either
nothing to see or all of it.
"""

from __future__ import annotations

from .auditing import Auditor
from .directory import Store
from .indexes import KeptIndex
from .inventory import Inventory, Unfinished
from .record import Record
from .replacing import Replacing
from .staging import Stage
from .state import Resume
from .usage import Usage

__all__ = [
    'Auditor', 'Inventory', 'KeptIndex', 'Record', 'Replacing', 'Resume',
    'Stage', 'Store', 'Unfinished', 'Usage',
]
