"""Fetch images with Lago's own provider and store, as `lago init` does.

    fetch_plain.py INDEX STORE PLAIN TEMPLATE...

Run in a process of its own; our package is not imported. Lago's classes do
all the work: HttpTemplateProvider downloads NAME.xz and calls xz,
TemplateStore.download makes the sha1 and converts to raw. Only what they
need to run at all on Python 3 is mended, in `mend`; a Lago that is mended
already is not changed by it.

A layer's conversion reads its base, which Lago knows nothing of: without it
qemu-img fails. So links to the uncompressed images (directory PLAIN) lie in
the store under the names that the headers give. That is a gift to Lago: its
own copy of the base, raw, could not serve, as the headers say qcow2. What
comes out is what Lago makes of a layered image: a flat raw one.

The last line on stderr is JSON: the seconds of each phase.
"""

from __future__ import annotations

import email.message
import functools
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Dict, List

# The command line is what imports the most; `lago init` has it loaded.
import lago.cmd  # noqa: F401
import lago.templates
import lago.utils

#: As in lago.utils.get_hash.
HASH_BYTES = 65536

Function = Callable[..., Any]


def mend() -> None:
    """Make Lago's template code run on Python 3."""
    # A header's values: the method's name in Python 2.
    setattr(
        email.message.Message, 'getheaders',
        lambda self, name: self.get_all(name, []),
    )
    lago.utils.CommandStatus.__bool__ = lambda self: self.code != 0
    lago.utils.get_hash = get_hash
    # Lago expects a RuntimeError where there is no NAME.xz.metadata.
    urllib.request.urlopen = http_error_as_runtime_error(
        urllib.request.urlopen
    )
    provider = lago.templates.HttpTemplateProvider
    provider.get_hash = as_text(provider.get_hash)


def get_hash(file_path: str, checksum: str = 'sha1') -> str:
    """Do what Lago's does, on bytes instead of text."""
    digest = hashlib.new(checksum)
    with open(file_path, 'rb') as stream:
        while chunk := stream.read(HASH_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def http_error_as_runtime_error(urlopen: Function) -> Function:
    """Let a 404 be what Lago takes it for."""
    @functools.wraps(urlopen)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return urlopen(*args, **kwargs)
        except urllib.error.HTTPError as error:
            raise RuntimeError(str(error)) from error

    return wrapper


def as_text(function: Function) -> Function:
    """Return the function's bytes as text."""
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> str:
        found = function(*args, **kwargs)
        return found.decode() if isinstance(found, bytes) else str(found)

    return wrapper


class Phases:
    """The seconds that Lago's functions take."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}

    def watch(self, owner: Any, name: str, phase: str) -> None:
        """Count the calls of a function as a phase."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                past = self.seconds.get(phase, 0.0)
                self.seconds[phase] = past + time.monotonic() - began

        static = isinstance(vars(owner).get(name), staticmethod)
        setattr(owner, name, staticmethod(wrapper) if static else wrapper)


def main(index: str, store_path: str, plain: str, names: List[str]) -> None:
    mend()
    phases = Phases()
    provider = lago.templates.HttpTemplateProvider
    phases.watch(provider, 'download_image', 'received')
    phases.watch(provider, 'extract_image_xz', 'unpacked')
    phases.watch(lago.utils, 'get_hash', 'hashed')
    phases.watch(lago.templates.TemplateStore, 'download', 'all')
    repository = lago.templates.TemplateRepository.from_url(index)
    store = lago.templates.TemplateStore(store_path)
    for base in os.listdir(plain):
        os.symlink(os.path.join(plain, base), os.path.join(store_path, base))
    for name in names:
        version = repository.get_by_name(name).get_version()
        if version not in store:
            store.download(version)
    print(json.dumps(phases.seconds), file=sys.stderr)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
