"""What an admin asks for when images are published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple


@dataclass(frozen=True)
class Options:
    """What an admin has asked for; see `cli_publishing`.

    Attributes:
        compression: of new images, as an index gives it.
        key: the key of gpg that signs the index, None for no signature.
    """

    name: Optional[str] = None
    base_url: Optional[str] = None
    mirrors: Optional[Tuple[str, ...]] = None
    version: Optional[str] = None
    compression: Optional[str] = 'zst'
    key: Optional[str] = None
    bases: Mapping[str, str] = field(default_factory=dict)
    in_place: bool = False
