"""Every error of this package, each with a message for people.

A message says what failed and on what, what was expected and what was found;
`hint` says what to do next. The facts stand as attributes too.
"""

from __future__ import annotations

from typing import Iterable, Optional, Sequence


class LayeredError(Exception):
    """An error that a user, an admin, a server or a disk can cause."""

    def __init__(self, message: str, *, hint: str = '') -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f'{self.message}\n{self.hint}' if self.hint else self.message


class SettingsError(LayeredError):
    """A setting has a value that cannot be used."""


class IndexFaults(LayeredError):
    """A document is faulty; `faults` holds all that is wrong with it."""

    def __init__(
        self, document: str, faults: Sequence[str], *, hint: str = ''
    ) -> None:
        self.document = document
        self.faults = tuple(faults)
        said = f'{len(self.faults)} faults:{_list(self.faults)}'
        if len(self.faults) == 1:
            said = self.faults[0]
        super().__init__(f'{document}: {said}', hint=hint)


class ResolveError(LayeredError):
    """The chain of a wanted image cannot be told from the index."""


class TemplateNotFound(ResolveError):
    """A template, or a version of it, is in no repository."""


class BaseNotFound(ResolveError):
    """The base that an image names is in no repository."""


class AmbiguousBase(ResolveError):
    """Several images could be the base that an image names."""


class ChainCycle(ResolveError):
    """An image stands on itself; `path` names the images, in order."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path = tuple(path)
        super().__init__(
            'The bases go round in a circle: ' + ' -> '.join(self.path),
            hint='The index is wrong; tell the admin of the repository.',
        )


class ChainTooDeep(ResolveError):
    """A chain has more layers than allowed."""


class NotEnoughSpace(LayeredError):
    """The plan does not fit; all amounts in bytes."""

    def __init__(
        self, message: str, *, needed: int, free: int, short: int,
        hint: str = '',
    ) -> None:
        self.needed = needed
        self.free = free
        self.short = short
        super().__init__(message, hint=hint)


class NotEnoughMemory(LayeredError):
    """Memory, or a thread, cannot be had; `image` wanted it, if one did."""

    def __init__(self, reason: str = '', *, image: str = '') -> None:
        self.reason = reason
        super().__init__(
            (f'{image}: ' if image else '') + 'not enough memory'
            + (f': {reason}' if reason else ''),
            hint=(
                'Allow more (ulimit -v, the limits of a container), or set '
                'jobs and connections to 1. What was fetched is kept.'
            ),
        )


class TransferError(LayeredError):
    """Bytes could not be had from a source.

    `retryable` tells whether trying again can help; `retry_after` is the
    server's own wish, in seconds. `refused` tells that nobody is at the
    address, as opposed to one that is slow or broken.
    """

    def __init__(
        self,
        url: str,
        reason: str,
        *,
        status: Optional[int] = None,
        retryable: bool = False,
        retry_after: Optional[float] = None,
        refused: bool = False,
        hint: str = '',
    ) -> None:
        self.url = url
        self.reason = reason
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after
        self.refused = refused
        if retryable:
            hint = hint or 'Run it again later; what was fetched is kept.'
        elif status is not None:
            hint = hint or (
                'Check the address, or tell the admin of the repository.'
            )
        super().__init__(f'{url}: {reason}', hint=hint)


class OutputError(LayeredError):
    """A command cannot work here: its output or its directory is gone."""


class Offline(LayeredError):
    """Something is not here, and no server may be asked for it."""


class Cancelled(LayeredError):
    """The user stopped the work; what was fetched is kept."""


class VerifyError(LayeredError):
    """An image is not what the index announced."""

    def __init__(
        self, image: str, *, expected: str, found: str, what: str,
        hint: str = '',
    ) -> None:
        self.image = image
        self.expected = expected
        self.found = found
        super().__init__(
            f'{image}: {what}:\n  expected {expected}\n  found {found}',
            hint=hint,
        )


class SizeMismatch(VerifyError):
    """An image has another size than announced."""


class DigestMismatch(VerifyError):
    """An image has another digest than announced.

    The message shows where long ones begin: nobody compares 128 digits.
    """

    def __init__(
        self, image: str, *, expected: str, found: str, **said: str
    ) -> None:
        super().__init__(
            image, expected=_beginning(expected), found=_beginning(found),
            **said,
        )
        self.expected = expected
        self.found = found


class DamagedImage(VerifyError):
    """The compressed file of an image cannot be decompressed."""


class UnsafeImage(LayeredError):
    """An image is refused; `reasons` holds all of them.

    `url` is where it came from, empty for a file that is in the store.
    """

    def __init__(
        self, image: str, reasons: Sequence[str], *, url: str = ''
    ) -> None:
        self.image = image
        self.reasons = tuple(reasons)
        self.url = url
        origin = f' from {url}' if url else ''
        super().__init__(
            f'{image}{origin}: refused before use:{_list(self.reasons)}',
            hint=(
                'Nothing of it was kept; tell the admin of the repository.'
                if url else
                'If no disk stands on it, remove it, so that it is fetched '
                'again.'
            ),
        )


class NotAsLocked(LayeredError):
    """An environment cannot be what its lock says; `differences` say why."""

    def __init__(
        self, where: str, differences: Sequence[str], *, hint: str
    ) -> None:
        self.differences = tuple(differences)
        super().__init__(
            f'{where}; nothing was fetched:{_list(self.differences)}',
            hint=hint,
        )


class RepositoryError(LayeredError):
    """A repository cannot be added, removed or updated."""


class StoreError(LayeredError):
    """The store cannot do what it was asked."""


class StoreNotWritable(StoreError):
    """The store cannot be written."""


class StoreFull(StoreError):
    """The store's disk has no room left."""


class LockTimeout(StoreError):
    """Another process holds an image for too long."""


class LocalLayerError(LayeredError):
    """A qcow2 file that a disk stands on cannot be used."""


class ExportError(LayeredError):
    """A disk cannot be exported."""


class PublishError(LayeredError):
    """Images cannot be published; `faults` holds all that is in the way."""

    def __init__(
        self, where: str, faults: Sequence[str], *, hint: str = ''
    ) -> None:
        self.faults = tuple(faults)
        super().__init__(f'{where}:{_list(self.faults)}', hint=hint)


class SignatureRefused(LayeredError):
    """An index is not signed as the keyring demands."""


class NotReady(LayeredError):
    """This machine lacks what is needed; `lacking` says what, all of it."""

    def __init__(self, what: str, lacking: Sequence[str]) -> None:
        self.lacking = tuple(lacking)
        super().__init__(f'{what}:{_list(self.lacking)}')


class ToolError(LayeredError):
    """A program is missing or failed."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        status: Optional[int] = None,
        stderr: str = '',
        hint: str = '',
    ) -> None:
        self.command = tuple(command)
        self.status = status
        self.stderr = stderr
        if status is None:
            message = f'Cannot run {self.command[0]}: {stderr}'
        else:
            message = (
                f'{" ".join(self.command)} failed with status {status}:\n'
                f'{stderr}'
            )
        super().__init__(message, hint=hint)


class SeveralFailed(LayeredError):
    """More than one image failed; `errors` holds each one's error."""

    def __init__(self, errors: Iterable[LayeredError]) -> None:
        self.errors = tuple(errors)
        lines = _list((each.message for each in self.errors), '')
        # A server that is gone is the same advice for all of its images.
        hints = dict.fromkeys(each.hint for each in self.errors)
        super().__init__(
            f'{len(self.errors)} images failed:{lines}',
            hint='\n'.join(filter(None, hints)),
        )


def _list(items: Iterable[str], indent: str = '  ') -> str:
    return ''.join(
        f'\n{indent}- ' + item.replace('\n', f'\n{indent}  ')
        for item in items
    )


def _beginning(digest: str) -> str:
    return digest if len(digest) <= 64 else f'{digest[:32]}...'


def raise_all(failures: Sequence[BaseException]) -> None:
    """Raise what went wrong: a fault of ours first, else all of it."""
    for error in failures:
        if not isinstance(error, LayeredError):
            raise error
    known = [error for error in failures if isinstance(error, LayeredError)]
    if len(known) > 1:
        raise SeveralFailed(known)
    if known:
        raise known[0]
