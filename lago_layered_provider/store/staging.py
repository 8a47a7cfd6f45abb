"""Receive an image where nobody looks; go on after a kill.

The staged file holds what was made of the bytes received. From time to time
the caller says "up to here, this is what I made of that": a checkpoint. What
was received since is kept in the spool as it came, because a decompressor can
only begin again at a checkpoint. After a kill the staged file is cut back to
the checkpoint and the spool is fed in once more; nothing is fetched twice.

All files are named in the package's docstring. A stage is used by one thread,
which holds the image's lock; where a file can be had block by block, `blocks`
takes these in any order, from several threads.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Callable, Iterator, Optional

from ..core import errors
from ..formats import qcow2
from ..tools import files
from . import layout, sparse, spool, state
from .blocks import Blocks
from .record import Record

READ_BYTES = 2**20


class Stage:
    """One image being received.

    Every method may raise StoreError when the disk fails: no room left, no
    right to write. What was received until then stays.

    Args:
        identity: tells one published image from another; what was received
            of another one is of no use.
        spare, keep_free: as for `spool.Spool`.
    """

    def __init__(
        self,
        paths: layout.Layout,
        name: str,
        identity: str,
        spare: Optional[Callable[[], int]] = None,
        keep_free: int = 0,
    ) -> None:
        self.name = name
        self._paths = paths
        self._identity = identity
        self._spool = spool.Spool(paths, name, spare, keep_free)
        self._spare = spare
        self._keep_free = keep_free
        self._position = 0
        with files.disk_errors(paths.root):
            self._fd = state.open_staged(paths, name)
            try:
                found = state.read_progress(paths, name)
                if found is not None and self._can_use(found):
                    self._progress = found
                    self._position = found.produced
                else:
                    self.reset()
            except BaseException:
                self.close()
                raise

    @property
    def path(self) -> str:
        """Where the image is staged."""
        return self._paths.staged(self.name)

    @property
    def size(self) -> int:
        """Bytes of the image that were written, holes included."""
        return self._position

    @property
    def verified(self) -> Optional[Record]:
        """The record of a complete and proven image; only commit is left."""
        return self._progress.verified

    @property
    def begun(self) -> bool:
        """Whether something is left of an earlier transfer."""
        now = self._progress
        with files.disk_errors(self._paths.root):
            return bool(
                now.consumed or now.ahead
                or any(state.spool_sizes(self._paths, self.name).values())
            )

    @property
    def validator(self) -> Optional[str]:
        """The state of the file on the server that all is of."""
        return self._progress.validator

    def by_blocks(self, size: int) -> Blocks:
        """Take blocks in any order from now on, until `finish`.

        Args:
            size: of the whole image in bytes.
        """
        self._spool.close()
        with files.disk_errors(self._paths.root):
            os.ftruncate(self._fd, size)
        self._position = size
        return Blocks(
            self._paths, self.name, self._fd, self._progress, self._save
        )

    def resume(self) -> state.Resume:
        """Go back to the last checkpoint; may be called again and again.

        Blocks that are done beyond it are forgotten.
        """
        now = self._progress
        with files.disk_errors(self._paths.root):
            if now.ahead:
                now = replace(now, ahead=())
                self._save(now)
            if now.verified is None:
                os.ftruncate(self._fd, now.produced)
                self._spool.begin(now.consumed)
            else:
                self._spool.remove()
        self._position = now.produced
        return state.Resume(
            now.validator, now.consumed, now.produced, now.preamble,
            self._spool.size,
        )

    def replay(self) -> Iterator[bytes]:
        """Return the bytes before the checkpoint, for the digest."""
        here, end = 0, self._progress.produced
        while here < end:
            with files.disk_errors(self._paths.root):
                chunk = os.pread(self._fd, min(READ_BYTES, end - here), here)
            if not chunk:
                raise errors.StoreError(
                    f'{self._paths.staged(self.name)} has become shorter: '
                    f'{here} bytes, expected {end}'
                )
            here += len(chunk)
            yield chunk

    def spooled_chunks(self) -> Iterator[bytes]:
        """Return the bytes received since the checkpoint."""
        chunks = self._spool.chunks()
        while True:
            with files.disk_errors(self._paths.root):
                chunk = next(chunks, b'')
            if not chunk:
                return
            yield chunk

    def spool(self, data: bytes) -> None:
        """Keep bytes of the file on the server as they came.

        As long as there is room: see `spool.Spool`.
        """
        with files.disk_errors(self._paths.root):
            self._spool.append(data)

    def checkpoint(
        self,
        consumed: int,
        produced: int,
        validator: Optional[str],
        *,
        preamble: bytes = b'',
    ) -> None:
        """Say what was made of the bytes received.

        Spooled bytes beyond `consumed` stay spooled. A first checkpoint at
        0, 0 keeps the validator for what is spooled until the next one.

        Args:
            consumed: offset in the file on the server, at which a
                decompressor can begin.
            produced: bytes of the image made of what lies before it; all
                written.
            validator: the state of the file on the server.
            preamble: what a decompressor must know to begin there.
        """
        before = self._progress.consumed
        if consumed < before or produced > self._position:
            raise ValueError(
                f'checkpoint at {consumed} -> {produced}, behind {before} or '
                f'beyond {self._position}'
            )
        now = replace(
            self._progress, consumed=consumed, produced=produced,
            validator=validator, preamble=preamble,
        )
        with files.disk_errors(self._paths.root):
            # A hole at the end is no part of the file until it is told; a
            # file that is too short shall be a sign of damage.
            if os.fstat(self._fd).st_size < self._position:
                os.ftruncate(self._fd, self._position)
            self._spool.branch(consumed)
            self._save(now)
            if consumed > before:
                self._spool.open(consumed)

    def write(self, data: bytes) -> None:
        """Append to the image; zeros become holes."""
        here = self._position
        with files.disk_errors(self._paths.root):
            view = memoryview(data)
            for start, end in sparse.data_runs(data, here):
                files.write_all(self._fd, view[start:end], here + start)
        self._position = here + len(data)

    def check_room(self) -> None:
        """Raise NotEnoughSpace when room was taken that shall stay free.

        For images whose size no plan knew; the disk is looked at.
        """
        if self._spare is None:
            return
        with files.disk_errors(self._paths.root):
            short = self._keep_free - self._spare()
        if short <= 0:
            return
        raise errors.NotEnoughSpace(
            f'{self._paths.root}: not enough room for {self.name}, whose '
            f'size is not in the index: {short} bytes short, with '
            f'{self._keep_free} that shall stay free',
            needed=self._keep_free, free=self._keep_free - short,
            short=short,
            hint=(
                'Nothing of it was kept. Free some room there, choose another '
                'store with --template-store, or ask the admin of the '
                'repository for an index with sizes.'
            ),
        )

    def finish(self) -> None:
        """Give the file its final size: a hole at the end needs it."""
        with files.disk_errors(self._paths.root):
            os.ftruncate(self._fd, self._position)

    def head(self, length: int) -> bytes:
        """Return the first bytes, fewer when there are not as many."""
        length = min(length, self._position)
        with files.disk_errors(self._paths.root):
            data = os.pread(self._fd, length, 0)
        return data.ljust(length, b'\0')

    def tail(self, length: int) -> bytes:
        """Return the last bytes, fewer when there are not as many."""
        length = min(length, self._position)
        with files.disk_errors(self._paths.root):
            data = os.pread(self._fd, length, self._position - length)
        return data.ljust(length, b'\0')

    def mark_verified(self, record: Record) -> None:
        """Say that the image is complete and proven to be what it claims.

        For a layer (`record.backing`) the first cluster is kept as it is, for
        commit will change it.
        """
        if record.size != self._position:
            raise ValueError(f'{record.size} is not the size written')
        self.finish()
        done = replace(
            self._progress, verified=record, produced=record.size,
            consumed=max(self._progress.consumed, self._spool.end),
        )
        with files.disk_errors(self._paths.root):
            # What says "verified" must not reach the disk before the bytes.
            os.fsync(self._fd)
            self._keep_head(record)
            self._save(done)
            self._spool.remove()

    def reset(self) -> None:
        """Forget what was received and begin anew."""
        with files.disk_errors(self._paths.root):
            self._forget()
            os.ftruncate(self._fd, 0)
            self._save(state.Progress(self._identity))
            self._spool.begin(0)
        self._position = 0

    def discard(self) -> None:
        """Remove all of it; the stage is of no more use."""
        with files.disk_errors(self._paths.root):
            self._forget()
            state.remove_staged(self._paths, self.name)
        self._progress = state.Progress(self._identity)
        self._position = 0
        self.close()

    def close(self) -> None:
        """Close the files; what was received stays. May be called twice."""
        self._spool.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _save(self, now: state.Progress) -> None:
        state.write_progress(self._paths, self.name, now)
        self._progress = now

    def _can_use(self, found: state.Progress) -> bool:
        """Tell whether a state belongs to this image and to its file."""
        size = os.fstat(self._fd).st_size
        if found.identity != self._identity:
            return False
        if found.verified is None:
            ends = [block.until for block in found.ahead]
            return max(found.produced, *ends, 0) <= size
        kept = self._paths.tree.exists(self._paths.head(self.name))
        return found.verified.size == found.produced == size and (
            kept or found.verified.backing is None
        )

    def _keep_head(self, record: Record) -> None:
        tree, path = self._paths.tree, self._paths.head(self.name)
        if record.backing is None:
            tree.remove(path)
            return
        first = self.head(qcow2.HEAD_BYTES)
        tree.write(path, first[:qcow2.head_length(first)], sync=True)
        tree.sync(self._paths.images)

    def _forget(self) -> None:
        """Remove what speaks for the bytes, before the bytes."""
        self._paths.tree.remove(self._paths.state(self.name))
        self._spool.remove()
        self._paths.tree.remove(self._paths.head(self.name))
