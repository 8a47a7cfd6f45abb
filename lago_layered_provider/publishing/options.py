"""What an admin asks for when images are published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple


@dataclass(frozen=True)
class Options:
    """What an admin has asked for; see `commands.parser_publishing`.

    Attributes:
        compression: of new images, as an index gives it.
        key: the key of gpg that signs the index, None for no signature.
        valid_days: how long the index counts from now on, None for ever.
    """

    name: Optional[str] = None
    base_url: Optional[str] = None
    mirrors: Optional[Tuple[str, ...]] = None
    version: Optional[str] = None
    compression: Optional[str] = 'zst'
    key: Optional[str] = None
    valid_days: Optional[float] = None
    bases: Mapping[str, str] = field(default_factory=dict)
    in_place: bool = False
