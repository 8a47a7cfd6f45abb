"""The repositories of an environment, and the sources behind their images.

Here all questions to servers come together that are asked before the
transfer; each is asked when its answer is needed, and only once.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from ..core import errors
from ..core.json_text import describe
from ..core.model import Image, ImageRef, Unknown
from ..core.wanted import Wanted
from ..index import source_places
from ..index.catalog import Catalog, IndexNeeded, Unread
from ..index.document import Index, SourceSpec
from ..settings import Settings
from ..store import Store
from ..transfer.ports import Caching, Provider
from .reading import Warn, try_again
from .where import Repository

if TYPE_CHECKING:
    from .lookup import Lookups

#: Small requests that run at the same time.
LOOKUP_THREADS = 8

#: The one source type that is on this machine.
LOCAL_TYPE = 'file'

LEAVE_OUT_HINT = (
    'To leave it out, take it out of template-repo in the init file, or set '
    'template_repo_path in section [init] of lago.conf to another one or to '
    'nothing.'
)

T = TypeVar('T')


def describe_unread(place: Unread, error: errors.LayeredError) -> str:
    """Return which repository cannot be used, and why."""
    if isinstance(error, errors.TransferError):
        return (
            f'Repository {place.location} could not be asked: {error.reason}'
        )
    return error.message


class Sources:
    """What can be asked, and what has been answered so far.

    Args:
        repositories: in order of search.
        store: where indexes are kept for a day without a network.
        keep: keep the indexes that are read there.

    Attributes:
        catalog: what is known of the repositories.
    """

    def __init__(
        self,
        repositories: Sequence[Repository],
        settings: Settings,
        warn: Warn,
        store: Optional[Store] = None,
        keep: bool = True,
    ) -> None:
        self.settings = settings
        self.warn = warn
        self._repositories = {each.place: each for each in repositories}
        self._store = store
        self._keep = keep
        self._told: Set[str] = set()
        self._renewed = False
        self._start_anew()

    def _start_anew(self) -> None:
        self.catalog = Catalog(list(self._repositories))
        self._lookups: Dict[Tuple[str, str], Lookups] = {}
        self._looked_up: Set[Tuple[str, ImageRef]] = set()

    def read(self, needed: IndexNeeded) -> None:
        """Read the index that a question to the catalog ended with.

        Raises:
            TransferError, IndexFaults, Offline: it cannot be read; the
                message says what it was needed for.
        """
        try:
            index = self._repositories[needed.place].read(
                self.settings, self.warn, self._store, self._keep,
                self._renewed,
            )
        except errors.LayeredError as error:
            self._answer_without(needed, error)
            raise
        if index.doubled:
            self.warn(f'{index.location}: {describe(index.doubled)}')
        self.catalog = self.catalog.with_index(needed.place, index)

    def _answer_without(
        self, needed: IndexNeeded, error: errors.LayeredError
    ) -> None:
        """Say what the other repositories know of what is sought.

        An image of a repository that comes later is none of them: this one
        may have another one of that name.

        Raises:
            ResolveError: they have not what is sought.
        """
        read = ', '.join(each.name for each in self.catalog.indexes)
        if not read:
            return
        if needed.question is not None:
            try:
                needed.question(self.catalog.only_read())
            except errors.ResolveError as missing:
                missing.message += f'\n{describe_unread(needed.place, error)}'
                missing.hint = f'{missing.hint}\n{LEAVE_OUT_HINT}'
                raise missing from error
        error.message = (
            f'{needed.sought} is not in {read}, and the next '
            f'repository cannot be read:\n{error.message}'
        )

    def read_each(self) -> Tuple[Catalog, Tuple[str, ...]]:
        """Read what can be read of the repositories.

        Returns:
            what was read, and what to say of each of the others.

        Raises:
            LayeredError: none can be read.
        """
        failures: Dict[str, errors.LayeredError] = {}
        for place in self.catalog.unread:
            try:
                self.read(IndexNeeded(place, 'A list of all templates'))
            except errors.LayeredError as error:
                text = f'{describe_unread(place, error)}. {LEAVE_OUT_HINT}'
                failures[text] = error
        if not self.catalog.indexes:
            errors.raise_all(list(failures.values()))
        return self.catalog.only_read(), tuple(failures)

    def was_read(self, repository: Repository) -> bool:
        """Tell whether somebody needed the index of a repository."""
        return repository.place not in self.catalog.unread

    def ask(self, question: Callable[[Catalog], T]) -> T:
        """Return the catalog's answer, reading the indexes that it takes."""
        while True:
            try:
                return question(self.catalog)
            except IndexNeeded as error:
                needed = error
            self.read(needed)

    def find(self, wanted: Wanted) -> Image:
        """Return the image that is wanted; see `Catalog.find`."""
        return self.ask(lambda catalog: catalog.find(wanted))

    def read_all(self) -> Tuple[Index, ...]:
        """Return the indexes of all repositories."""
        return self.ask(Catalog.read_all)

    def first(self) -> Index:
        """Return the index of the repository that is searched first."""
        return self.ask(Catalog.first)

    def renew(self) -> None:
        """Forget all answers: an image was not what they said.

        Caches on the way may have given them, and are not asked again.
        """
        self._renewed = True
        self._start_anew()

    def provider(self, image: Image) -> Provider:
        """Return the provider of an image's source."""
        from ..providers.mirrored import Mirrored

        provider = self._lookups_of(image).provider
        if (
            isinstance(provider, Mirrored) and image.digest is None
            # Nobody fetches an image whose file is not known.
            and not isinstance(image.compression, Unknown)
        ):
            provider.keep_apart(image.file)
        return provider

    def is_local(self, image: Image) -> bool:
        """Tell whether an image can be had without asking a server."""
        return any(
            place.type == LOCAL_TYPE for place in self._places_of(image)[0]
        )

    def look_up(self, images: Iterable[Image]) -> List[Image]:
        """Complete the images that the index leaves open, in parallel.

        Returns:
            those of them that were not looked up before.
        """
        images = [
            image for image in images if image.key not in self._looked_up
        ]
        if not images:
            return []
        from ..tools import threads
        from . import lookup

        todo = [image for image in images if not lookup.is_complete(image)]
        if self.settings.offline:
            for image in todo:
                self._check_local(image)
        found = threads.run_all(
            self._look_up,
            [(image, self._lookups_of(image)) for image in todo],
            LOOKUP_THREADS,
        )
        self.catalog = self.catalog.with_known(found)
        self._looked_up.update(image.key for image in found)
        return found

    def know(self, images: Iterable[Image]) -> None:
        """Take what is known of images from elsewhere."""
        self.catalog = self.catalog.with_known(images)

    def _look_up(self, pair: Tuple[Image, Lookups]) -> Image:
        image, lookups = pair
        return try_again(
            lambda: lookups.look_up(image), self.settings.retries,
            self._tell_once,
        )

    def _tell_once(self, error: errors.TransferError, pause: str) -> None:
        """Tell of a server that makes wait; many images wait for the same."""
        if error.reason not in self._told:
            self._told.add(error.reason)
            self.warn(f'{error.message}; {pause}')

    def _check_local(self, image: Image) -> None:
        if not self.is_local(image):
            raise errors.Offline(
                f'{image.ref} is not in the store, and no server is asked '
                f'about it (--offline).',
                hint='Run it once without --offline.',
            )

    def _places_of(
        self, image: Image
    ) -> Tuple[Tuple[SourceSpec, ...], Tuple[str, ...]]:
        index = self.catalog.index_of(image)
        return source_places.find_places(
            index.source(image.source), index.origin or index.location
        )

    def _lookups_of(self, image: Image) -> Lookups:
        from .lookup import Lookups

        key = (image.location, image.source)
        if key not in self._lookups:
            provider = self._make_provider(image)
            if self._renewed and isinstance(provider, Caching):
                provider.avoid_caches()
            self._lookups[key] = Lookups(provider)
        return self._lookups[key]

    def _make_provider(self, image: Image) -> Provider:
        from ..providers import open_places
        from ..providers.mirrored import Mirrored

        found, faults = self._places_of(image)
        if self.settings.offline:
            found = tuple(
                place for place in found if place.type == LOCAL_TYPE
            ) or found
        where = f'{image.location}: source {image.source}'
        try:
            providers, left_out = open_places(
                [(place.type, place.args) for place in found],
                timeout=self.settings.timeout,
                roots=self.catalog.index_of(image).roots(
                    self.settings.local_roots
                ),
            )
        except errors.SettingsError as error:
            error.message = f'{where}: {error.message}'
            raise
        for fault in (*faults, *left_out):
            self.warn(f'{where}: {fault}; going on without it')
        return Mirrored(providers, self.warn)
