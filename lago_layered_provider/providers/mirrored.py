"""One source at its places: a repository and its mirrors, if it has any.

Each request goes to the places in order, beginning with the one that worked
last, until one answers; a file that breaks off is continued at the next one.
Nothing is fetched twice for that: the digest of the whole decides whether
what came from here and there is the image. Where it is not, the file is
fetched anew from one place alone, and from the next one if that is wrong too.

ETags differ between places, and between the nodes that one name may stand
for. So a file is continued without them as long as the digest decides; only
what must be of one state of the file names that state.
"""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import dataclass, field
from typing import (
    Callable,
    Dict,
    FrozenSet,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ..core.errors import TransferError
from ..transfer.ports import Caching, FileInfo, Provider, Stream
from .mirrored_stream import MirroredStream, is_answer, join_failures

#: A place, and the validator of a file there.
State = Tuple[int, Optional[str]]

#: The state of bytes that an earlier run has left.
UNKNOWN: State = (-1, None)


@dataclass
class _History:
    """What is known of the bytes of one file; places by their numbers.

    Attributes:
        used: the states of the file that those at hand are of, each with
            its place.
        wrong: places that have another file of that name.
        alone: the bytes of different states must not be joined.
    """

    used: FrozenSet[State] = frozenset()
    wrong: Set[int] = field(default_factory=set)
    alone: bool = False


class Mirrored:
    """A provider over several places that have the same files.

    Args:
        places: best first; at least one.
        tell: is told once when a place cannot be reached.
    """

    def __init__(
        self, places: Sequence[Provider], tell: Callable[[str], None]
    ) -> None:
        self.tell = tell
        self._places = tuple(places)
        self._lock = threading.Lock()
        self._first = 0
        self._told: Set[int] = set()
        self._histories: Dict[str, _History] = {}
        self._latest: Dict[str, int] = {}

    def locate(self, path: str) -> str:
        """Return the URL or file name of `path` where it was read last."""
        place = self._latest.get(path, self._first)
        return self._places[place].locate(path)

    def stat(self, path: str) -> FileInfo:
        """Ask the places for the size and state of a file."""
        failures: Dict[int, TransferError] = {}
        for place in self._order(path):
            try:
                info = self._places[place].stat(path)
            except TransferError as error:
                failures[place] = error
                continue
            self._went_on(path, failures, place)
            return FileInfo(
                info.size, self._name(path, place, info.validator)
            )
        raise join_failures(failures)

    def open(
        self,
        path: str,
        *,
        start: int = 0,
        end: Optional[int] = None,
        validator: Optional[str] = None,
    ) -> MirroredStream:
        """Open a file as `ports.Provider.open` says.

        It begins at 0 only where no place continues at `start`.
        """
        history = self._histories.setdefault(path, _History())
        named, own = self._split(path, validator)
        # A look-up joins nothing: it knows no state to go on from.
        joined = end is None or validator is not None
        alone = history.alone and joined
        order = self._order(path)
        if start and alone:
            order.sort(key=lambda place: place != named)
        failures: Dict[int, TransferError] = {}
        restarting: Dict[int, Stream] = {}
        for place in order:
            begin = 0 if alone and place != named else start
            try:
                stream = self._places[place].open(
                    path, start=begin, end=end,
                    validator=own if alone and place == named else None,
                )
            except TransferError as error:
                failures[place] = error
                continue
            if stream.start < begin and not alone:
                restarting[place] = stream
                continue
            break
        else:
            if not restarting:
                raise join_failures(failures)
            place = next(iter(restarting))
            stream = restarting.pop(place)
        for other in restarting.values():
            other.close()
        return self._opened(path, place, stream, end, joined, failures)

    def go_on(
        self,
        path: str,
        position: int,
        total: Optional[int],
        failures: Dict[int, TransferError],
        *,
        end: Optional[int],
        joined: bool,
    ) -> Optional[Tuple[int, Stream]]:
        """Continue a file that broke off, at a place that has not failed.

        See `mirrored_stream.GoOn`.
        """
        alone = self._histories[path].alone and joined
        for place in () if alone else self._order(path):
            if place in failures:
                continue
            try:
                stream = self._places[place].open(
                    path, start=position, end=end
                )
            except TransferError as error:
                failures[place] = error
                continue
            same = total is None or stream.total in (None, total)
            if stream.start == position and same:
                if joined:
                    self._note_use(path, place, stream, end)
                self._went_on(path, failures, place)
                return place, stream
            stream.close()
            failures[place] = TransferError(
                self._places[place].locate(path),
                f'it cannot be continued at {position}', retryable=True,
            )
        return None

    def is_alone(self, path: str) -> bool:
        """Tell whether all of a file must come from one place."""
        return self._histories.setdefault(path, _History()).alone

    def reject(self, path: str, old: bool) -> bool:
        """Learn that a file was wrong; tell whether to fetch it anew."""
        history = self._histories.setdefault(path, _History())
        mixed = len(history.used) > 1 and not history.alone
        history.alone = True
        if old or mixed:
            return True
        found = {place for place, _ in history.used}
        if not found and path in self._latest:
            # Its first answer, of the file's size, was wrong already.
            found = {self._latest[path]}
        history.wrong |= found
        return len(history.wrong) < len(self._places)

    def avoid_caches(self) -> None:
        """Let the servers of all places answer themselves."""
        for place in self._places:
            if isinstance(place, Caching):
                place.avoid_caches()

    def keep_apart(self, path: str) -> None:
        """Never join bytes of different places: no digest would notice."""
        self._histories.setdefault(path, _History()).alone = True

    def _order(self, path: str) -> List[int]:
        """Return the places that may have a file, the best one first."""
        history = self._histories.get(path, _History())
        numbers = range(len(self._places))
        turned = [*numbers[self._first:], *numbers[:self._first]]
        left = [place for place in turned if place not in history.wrong]
        return left or turned

    def _opened(
        self,
        path: str,
        place: int,
        stream: Stream,
        end: Optional[int],
        joined: bool,
        failures: Dict[int, TransferError],
    ) -> MirroredStream:
        self._latest[path] = place
        if joined:
            self._note_use(path, place, stream, end)
        self._went_on(path, failures, place)
        return MirroredStream(
            functools.partial(self.go_on, path, end=end, joined=joined),
            place, stream,
            self._name(path, place, stream.validator),
        )

    def _note_use(
        self, path: str, place: int, stream: Stream, end: Optional[int]
    ) -> None:
        self._latest[path] = place
        history = self._histories[path]
        state = frozenset([(place, stream.validator)])
        if end is None and stream.start == 0 and history.alone:
            history.used = state
        elif end is None and stream.start and not history.used:
            history.used = state | {UNKNOWN}
        else:
            history.used = history.used | state

    def _went_on(
        self, path: str, failures: Dict[int, TransferError], place: int
    ) -> None:
        """Remember which places are away, and tell it once."""
        for failed, error in failures.items():
            if is_answer(error):
                continue
            with self._lock:
                new = failed not in self._told
                self._told.add(failed)
                if self._first == failed:
                    self._first = place
            if new:
                self.tell(
                    f'{error.message}; going on with '
                    f'{self._places[place].locate(path)}'
                )

    def _name(
        self, path: str, place: int, validator: Optional[str]
    ) -> str:
        """Return a validator that names its place."""
        return json.dumps([self._places[place].locate(path), validator])

    def _split(
        self, path: str, validator: Optional[str]
    ) -> Tuple[Optional[int], Optional[str]]:
        """Return the place that a validator is of, and its own validator.

        One that names none was given out when there were no mirrors yet.
        """
        if validator is None:
            return None, None
        try:
            value = json.loads(validator)
        except ValueError:
            value = None
        if not isinstance(value, list) or len(value) != 2:
            return 0, validator
        where, own = value
        for number, place in enumerate(self._places):
            if place.locate(path) == where:
                return number, own if isinstance(own, str) else None
        return None, None
