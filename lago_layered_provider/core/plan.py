"""What a set of chains needs: layers, bytes to fetch and to keep, room.

Sizes are in bytes. Where no index and no server tells a size the worst case
counts; where there is none, the sums hold what is known. Either way the plan
says that it is not exact.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from . import errors
from .model import Image
from .sizes import size_text


class State(enum.Enum):
    """Where a layer is before the transfer."""

    PRESENT = 'present'
    PARTIAL = 'partial'
    MISSING = 'missing'


@dataclass(frozen=True)
class Layer:
    """An image as a member of a plan.

    `name` and `base` are names in the store. `fetch` and `keep` are the
    bytes that are still to come from the source and to the disk; None where
    nobody knows. Not `exact` is a layer where one of them is not known, or
    where `keep` is the most that it can be. `image` is None for a base that
    only the store knows; `base_image` is the base as the image's own index
    has it, whatever its name in the store.
    """

    name: str
    base: Optional[str]
    state: State
    image: Optional[Image]
    fetch: Optional[int] = 0
    keep: Optional[int] = 0
    fetched: int = 0
    on_disk: int = 0
    exact: bool = True
    base_image: Optional[Image] = None


@dataclass(frozen=True)
class Room:
    """What the store's file system offers, in bytes.

    `reserved` is what other running transfers on this store still need,
    `total` the size of the file system.
    """

    directory: str
    free: int
    reserved: int = 0
    total: int = 0


@dataclass(frozen=True)
class Plan:
    """All layers of all wanted images, base before layer, each one once.

    `tops` are the store names of the wanted images, as they were asked for.
    """

    layers: Tuple[Layer, ...]
    tops: Tuple[str, ...]
    room: Room
    reserve: int = 0
    temporary: int = 0

    @property
    def missing(self) -> Tuple[Layer, ...]:
        """The layers that have to be fetched, base before layer."""
        return tuple(
            layer for layer in self.layers if layer.state != State.PRESENT
        )

    @property
    def to_fetch(self) -> int:
        """Bytes to come from the sources."""
        return sum(layer.fetch or 0 for layer in self.missing)

    @property
    def to_keep(self) -> int:
        """Bytes that the store grows by."""
        return sum(layer.keep or 0 for layer in self.missing)

    @property
    def exact(self) -> bool:
        """Whether all sizes are known."""
        return all(layer.exact for layer in self.missing)

    @property
    def needed(self) -> int:
        """Room that must be free, with what is needed for a while."""
        return self.to_keep + self.temporary if self.missing else 0

    @property
    def available(self) -> int:
        """Room that may be taken: free, less what others and we reserve.

        Negative when others have reserved more than there is.
        """
        return self.room.free - self.room.reserved - self.reserve

    @property
    def room_left(self) -> int:
        """Bytes free after the transfer; negative when it does not fit."""
        return self.available - self.needed

    def layer(self, name: str) -> Layer:
        """Return the layer of that store name."""
        return next(layer for layer in self.layers if layer.name == name)

    def check_room(self) -> None:
        """Raise NotEnoughSpace when the plan does not fit."""
        if not self.missing or self.room_left >= 0:
            return
        free = max(0, self.available)
        others = self.room.reserved
        layers = ''.join(
            f'\n  - {layer.name}: {_amount(layer.keep or 0)}'
            for layer in self.missing
        )
        raise errors.NotEnoughSpace(
            f'{self.room.directory}: not enough room:'
            f'\n  needed {_amount(self.needed)}'
            f'\n  free {_amount(free)}'
            + (f'; {_amount(others)} are for other transfers'
               if others else '')
            + f'\n  short {_amount(-self.room_left)}'
            f'\nNothing was fetched. To keep are:{layers}',
            needed=self.needed,
            free=free,
            short=-self.room_left,
            hint=(
                'Free some room there, or choose another store with '
                '--template-store.'
            ),
        )


def _amount(size: int) -> str:
    """Return bytes for people, exactly and at a glance."""
    return f'{size} bytes ({size_text(size)})'


def plan_document(plan: Plan) -> Dict[str, Any]:
    """Return the plan as data for JSON; sizes in bytes."""
    return {
        'layers': [
            {
                'name': layer.name,
                'base': layer.base,
                'state': layer.state.value,
                'to_fetch': layer.fetch,
                'to_keep': layer.keep,
                'fetched': layer.fetched,
                'on_disk': layer.on_disk,
                'exact': layer.exact,
            }
            for layer in plan.layers
        ],
        'wanted': list(plan.tops),
        'to_fetch': plan.to_fetch,
        'to_keep': plan.to_keep,
        'temporary': plan.temporary,
        'exact': plan.exact,
        'directory': plan.room.directory,
        'free': plan.room.free,
        'reserved': plan.room.reserved,
        'reserve': plan.reserve,
        'room_left': plan.room_left,
        'fits': not plan.missing or plan.room_left >= 0,
    }
