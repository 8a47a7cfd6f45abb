"""The use case of `create`: from a directory of images to a repository.

Read it from `publish` on: what is here and what is published; what is new;
as what; then pack, and show it all in one step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import (
    Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple,
)

from ..core import errors
from ..core.model import Image, NAME_PATTERN
from ..index.entry import strip_suffix
from ..tools import qemu_img, threads
from ..transfer.ports import Progress
from . import decide, indexing, originals
from .decide import Draft, Wishes
from .indexing import Before
from .layout import HINT, Known, Place
from .library import Library
from .options import Options
from .originals import File, Found
from .packing import Packer, digest
from .reading_originals import read_original
from .scratch import disk_errors
from .writing import Writer, Written


@dataclass(frozen=True)
class Publication:
    """What was done.

    Attributes:
        new: the images that were published, each with what it was made of.
        unchanged: how many originals were published before.
        dropped: `TEMPLATE:VERSION` of images whose published file was gone.
        read: bytes of originals that were read to be published.
    """

    index: str
    new: Tuple[Tuple[Image, str], ...]
    unchanged: int
    dropped: Tuple[str, ...]
    read: int


def publish(
    directory: str,
    options: Options,
    *,
    lock_timeout: float,
    progress: Progress,
    warn: Callable[[str], None],
) -> Publication:
    """Publish what is new in a directory.

    Raises:
        PublishError: with all that is in the way; the repository is as it
            was.
        ToolError: a program is missing or failed.
    """
    place = Place(directory)
    with place.alone(
        lock_timeout, lambda holder: warn(f'waiting for {holder}')
    ), disk_errors(place.root, HINT):
        return _Run(place, options, progress, warn).run()


def check_options(directory: str, options: Options) -> None:
    """See whether a directory could be published, before much is done for it.

    Raises:
        PublishError: with all that is in the way.
        ToolError: nothing can be signed with the key.
    """
    place = Place(directory)
    with disk_errors(place.root, HINT):
        before = indexing.read_before(place, options, [], place.read_known())
        faults = [*before.faults, *indexing.signature_faults(place, options)]
    if faults:
        raise errors.PublishError(
            f'{place.root}: cannot be published', faults, hint=HINT
        )


class _Run:
    """One run of `create`, under the lock of the directory."""

    def __init__(
        self, place: Place, options: Options, progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self._place = place
        self._options = options
        self._progress = progress
        self._warn = warn
        self._faults: List[str] = []

    def run(self) -> Publication:
        files = originals.list_files(self._place.root)
        known = self._place.read_known()
        before = indexing.read_before(self._place, self._options, files, known)
        self._faults += before.faults
        self._faults += indexing.signature_faults(self._place, self._options)
        same = {
            file.path: known[file.path] for file in files
            if file.path in known
            and known[file.path].identity == file.identity
            and known[file.path].image in before.images
        }
        found = self._examine(
            [file for file in files if file.path not in same], before
        )
        found, touched = self._leave_out_touched(found, known, before)
        same.update(touched)
        self._tell_left_behind(found, same, known, before)
        drafts = self._decide(found, same, known, before)
        by_path = {each.file.path: each for each in found}
        new = self._write([
            (draft, by_path[draft.original.path]) for draft in drafts
        ], before)
        images = [written.image for written in new]
        self._warn_of_sizes(images, before)
        indexing.write_index(self._place, self._options, before, images)
        again = self._tell_of_returned(new, before)
        same.update({
            written.path: Known(written.identity, written.image.ref.short)
            for written in new
        })
        self._place.write_known(same)
        return Publication(
            index=self._place.index,
            new=tuple((written.image, written.path) for written in new),
            unchanged=len(same) - len(new),
            dropped=tuple(
                short for short in before.dropped if short not in again
            ),
            read=sum(image.size or 0 for image in images),
        )

    def _tell_of_returned(
        self, new: Sequence[Written], before: Before
    ) -> Set[str]:
        """Say which versions are there again, whose files somebody removed.
        """
        again = {
            written.image.ref.short: written.path for written in new
            if written.image.ref.short in before.dropped
        }
        for short, path in again.items():
            self._warn(
                f'{short} was published again: its published file was gone, '
                f'and {path} is still here; to drop it, remove both'
            )
        return set(again)

    def _examine(
        self, files: Sequence[File], before: Before
    ) -> List[Found]:
        """Look into what is new; leave out what holds nothing."""
        hollow: List[str] = []
        examined = (
            originals.examine(
                self._place.root, file, before.listed, self._faults, hollow
            ) for file in files
        )
        found = [each for each in examined if each]
        if not found and before.body is None and not self._faults:
            self._faults += hollow or [
                'there are no images in it: qcow2, or raw ones named *.img '
                'or *.raw'
            ]
        else:
            for each in hollow:
                self._warn(f'{each}, and it is left out')
        return found

    def _tell_left_behind(
        self, found: Sequence[Found], same: Mapping[str, Known],
        known: Mapping[str, Known], before: Before,
    ) -> None:
        """Say which layers stay on what their base was before."""
        changed = {
            known[each.file.path].image: each.file.path for each in found
            if each.file.path in known
        }
        for path, one in same.items():
            base = str(before.images[one.image].base)
            if base in changed:
                self._warn(
                    f'{one.image} stays on {base}; {changed[base]} has '
                    f'changed since, and {path} was not made anew'
                )

    def _leave_out_touched(
        self, found: Sequence[Found], known: Mapping[str, Known],
        before: Before,
    ) -> Tuple[List[Found], Dict[str, Known]]:
        """Tell new images from those that only look so: copied, touched."""
        library = Library(before.images)

        def compare(each: Found) -> Optional[str]:
            template, version = each.original.suggest_name()
            newest = library.newest(template)
            shorts = dict.fromkeys([
                known[each.file.path].image if each.file.path in known else '',
                f'{template}:{version}', newest.ref.short if newest else '',
            ])
            for short in shorts:
                image = before.images.get(short)
                base = before.images.get(str(image.base)) if image else None
                if image and self._is_same(each, image, base):
                    return short
            return None

        results = threads.run_all(compare, found, os.cpu_count() or 1)
        touched = {
            each.file.path: Known(each.file.identity, short)
            for each, short in zip(found, results) if short is not None
        }
        originals.drop_rebased(found, touched)
        return [
            each for each in found if each.file.path not in touched
        ], touched

    def _is_same(
        self, found: Found, image: Image, base: Optional[Image]
    ) -> bool:
        path = self._place.path(found.file.path)
        if (
            image.digest is None
            or (image.base is None) != (found.original.backing is None)
            or (strip_suffix(path) == path
                and os.path.getsize(path) != image.size)
        ):
            return False
        return image.digest in digest(read_original(
            path, None if image.base is None else f'./{image.base}',
            base.format if base else None,
        ))

    def _decide(
        self, found: Sequence[Found], same: Mapping[str, Known],
        known: Mapping[str, Known], before: Before,
    ) -> List[Draft]:
        places = {
            path: one.image for path, one in {**known, **same}.items()
            if one.image in before.images
        }
        drafts: List[Draft] = []
        try:
            drafts = decide.decide(
                [each.original for each in found],
                Library(before.images, places),
                Wishes(self._version(), self._options.bases),
            )
        except ValueError as error:
            self._faults += error.args
        for each in found:
            self._check(each)
        if self._faults:
            raise errors.PublishError(
                f'{self._place.root}: cannot be published', self._faults,
                hint=HINT,
            )
        return drafts

    def _version(self) -> Optional[str]:
        """Return the version that is wished, if it can be one."""
        version = self._options.version or ''
        return version if NAME_PATTERN.fullmatch(version) else None

    def _check(self, found: Found) -> None:
        """Let qemu-img look at the tables, and at who writes the image."""
        path = found.file.path
        if found.header is None or not found.is_safe or (
            strip_suffix(path) != path
        ):
            return
        try:
            qemu_img.check(self._place.path(path), 'qcow2')
        except errors.ToolError as error:
            self._faults.append(f'{path}: {error.stderr or error.message}')

    def _write(
        self, todo: Sequence[Tuple[Draft, Found]], before: Before
    ) -> List[Written]:
        """Write the files of new images, side by side."""
        packer = Packer()
        writer = Writer(
            self._place, before.name, self._options.compression,
            packer, self._progress, in_place=self._options.in_place,
        )
        # The largest first: nobody is left alone with it at the end.
        order = sorted(todo, reverse=True, key=lambda pair: os.path.getsize(
            self._place.path(pair[1].file.path)
        ))
        try:
            return threads.run_all(
                lambda pair: writer.write(*pair), order, os.cpu_count() or 1
            )
        finally:
            packer.close()

    def _warn_of_sizes(
        self, new: Sequence[Image], before: Before
    ) -> None:
        """Say which layers cut off the end of their base."""
        images = {**before.images, **{one.ref.short: one for one in new}}
        for image in new:
            base = images.get(str(image.base))
            if base and (image.virtual_size or 0) < (base.virtual_size or 0):
                self._warn(
                    f'{image.ref.short}: its virtual size '
                    f'{image.virtual_size} bytes is smaller than that of its '
                    f'base, {base.virtual_size}: the end is cut off'
                )
