"""Who stands on which image: what environments note in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..core.model import Stored


@dataclass(frozen=True)
class Use:
    """A disk of a VM and the image in the store that it stands on."""

    vm: str
    disk: str
    image: str


@dataclass(frozen=True)
class UsageNote:
    """What one environment uses.

    Attributes:
        prefix: the directory of the environment (Lago's prefix).
        uuid: tells it from another one at the same place, or after a move.
        mount: the mount point of its file system.
        time: when that was noted, in seconds since 1970.
    """

    prefix: str
    uuid: str
    uses: Tuple[Use, ...]
    mount: str = '/'
    time: float = 0.0

    def to_json(self) -> Dict[str, Any]:
        """Return the note as JSON's values."""
        return {
            'prefix': self.prefix,
            'uuid': self.uuid,
            'mount': self.mount,
            'time': self.time,
            'uses': [
                {'vm': use.vm, 'disk': use.disk, 'image': use.image}
                for use in self.uses
            ],
        }


def parse_note(value: object) -> Optional[UsageNote]:
    """Return the note that JSON's values describe, None for garbage."""
    if not isinstance(value, Mapping):
        return None
    try:
        return UsageNote(
            prefix=_text(value['prefix']),
            uuid=_text(value['uuid']),
            mount=_text(value['mount']),
            time=float(value['time']),
            uses=tuple(
                Use(_text(use['vm']), _text(use['disk']), _text(use['image']))
                for use in value['uses']
            ),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a text')
    return value


@dataclass(frozen=True)
class Needs:
    """Who needs which image of a store.

    Attributes:
        environments: image -> the disks that stand on it itself.
        images: image -> the images that stand on it itself.
        holds: image -> why it is held.
    """

    environments: Mapping[str, Tuple[Tuple[UsageNote, Use], ...]]
    images: Mapping[str, Tuple[str, ...]]
    holds: Mapping[str, str]

    def reasons(self, name: str) -> bool:
        """Tell whether an environment or a hold needs an image itself."""
        return bool(self.environments.get(name)) or name in self.holds


def find_needs(
    images: Iterable[Stored],
    notes: Iterable[UsageNote],
    holds: Mapping[str, str],
) -> Needs:
    """Collect who needs which image."""
    standing: Dict[str, List[str]] = {}
    for image in images:
        if image.backing is not None:
            standing.setdefault(image.backing, []).append(image.name)
    used: Dict[str, List[Tuple[UsageNote, Use]]] = {}
    for note in notes:
        for use in note.uses:
            used.setdefault(use.image, []).append((note, use))
    return Needs(
        environments={name: tuple(uses) for name, uses in used.items()},
        images={name: tuple(sorted(above)) for name, above in
                standing.items()},
        holds=dict(holds),
    )


def with_bases(
    names: Iterable[str], images: Mapping[str, Stored]
) -> List[str]:
    """Return these images and all that they stand on, each once."""
    found: Dict[str, None] = {}
    for start in names:
        name: Optional[str] = start
        while name is not None and name not in found:
            found[name] = None
            name = images[name].backing if name in images else None
    return list(found)
