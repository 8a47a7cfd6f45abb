"""Lago's TemplateStore: the same methods and files, filled by chains."""

from __future__ import annotations

import os
from typing import Any, Dict, Sequence, Tuple, Union

from ..core.model import ImageRef
from ..core.store_names import store_names
from ..core.wanted import Pins, Wanted
from ..repositories.template_repository import (
    TemplateRepository, TemplateVersion,
)
from ..store import Store
from . import provision


class TemplateStore:
    """Lago's store: where the images of all environments stand."""

    def __init__(self, path: str, display: provision.Display) -> None:
        self.store = Store(path)
        self._display = display
        self._names: Dict[Union[Tuple[str, ImageRef], Pins], str] = {}

    def provide(
        self, wanted: Sequence[Wanted], repository: TemplateRepository
    ) -> Tuple[str, ...]:
        """Bring the chains of all these templates into the store.

        Returns:
            their names in the store, in the order of `wanted`.
        """
        sources = repository.sources(self.store)
        plan = provision.provision(
            wanted, self.store, sources, self._display
        )
        for each, name in zip(wanted, plan.tops):
            self._names[each.pins or sources.find(each).key] = name
        return plan.tops

    def __contains__(self, temp_ver: TemplateVersion) -> bool:
        return self.store.find(self._name(temp_ver)) is not None

    def get_path(self, temp_ver: TemplateVersion) -> str:
        """Return the path of an image that is in the store."""
        if temp_ver not in self:
            raise RuntimeError(f'Template: {temp_ver.name} not present')
        return self.store.path(self._name(temp_ver))

    def download(
        self, temp_ver: TemplateVersion, store_metadata: bool = True
    ) -> None:
        """Bring the chain of an image into the store."""
        ref = temp_ver.image.ref
        wanted = Wanted(ref.template, ref.version, temp_ver.image.location)
        self.provide([wanted], temp_ver.repository)

    def get_stored_metadata(self, temp_ver: TemplateVersion) -> Dict[str, Any]:
        """Return the metadata that was stored with an image."""
        name = self._name(temp_ver)
        known = temp_ver.image.metadata
        if known is not None and name not in store_names(temp_ver.image):
            # The same bytes, kept for another repository's image: what that
            # one says of them need not be what this one says.
            return dict(known)
        return self.store.read_metadata(name)

    def get_stored_hash(self, temp_ver: TemplateVersion) -> str:
        """Return the sha1 of an image as it was published."""
        stored = self.store.find(self._name(temp_ver))
        for digest in stored.digests if stored else ():
            if digest.algorithm == 'sha1':
                return digest.value
        raise RuntimeError(f'Template: {temp_ver.name} has no hash')

    def get_format(self, path: str) -> str:
        """Return the format of an image by its path in this store."""
        stored = self.store.find(os.path.basename(path))
        if stored is None:
            raise RuntimeError(f'{path} not present')
        return stored.format

    def _name(self, temp_ver: TemplateVersion) -> str:
        return self._names.get(
            temp_ver.pins or temp_ver.image.key, temp_ver.name
        )
