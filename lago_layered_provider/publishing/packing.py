"""Write images as they are published: read once, digested and compressed.

=====  ===================================================================
zst    frames of 16 MiB, and a seek table that tells their sizes
gz     members of 16 MiB
xz     one stream of blocks of 16 MiB whose headers tell their sizes; made
       by xz(1), as the library that Python has writes no such headers
none   as it is, with holes where there are zeros
=====  ===================================================================

Each part can be decoded without the others: clients go on after a cut, and
decode several at the same time.
"""

from __future__ import annotations

import collections
import gzip
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import (
    IO, Callable, Deque, Iterable, Iterator, List, Optional, Tuple,
)

from ..core.model import Digest
from ..formats.zstd import make_seek_table
from ..store import sparse
from ..tools import processes
from ..transfer.digester import Digester

#: What can be decoded without the rest; lago-images uses the same.
PART_BYTES = 16 << 20

#: Measured on the files of an installed system: 12 takes twice as long and
#: saves 1 %, 19 takes twenty times as long and saves 10 %.
ZSTD_LEVEL = 9
GZIP_LEVEL = 9

#: The strongest preset, with a window of one block: a longer one would only
#: cost clients memory.
XZ = (
    'xz', '--compress', '--stdout', f'--block-size={PART_BYTES}',
    f'--lzma2=preset=9,dict={PART_BYTES}',
)
XZ_HINT = 'Install xz (Debian: xz-utils, Fedora: xz).'

#: Lago's, the one that is fast to check, and that of lago-images.
DIGESTS = ('sha1', 'sha256', 'sha512')


@dataclass(frozen=True)
class Packed:
    """What was written; sizes in bytes, digests of the uncompressed image."""

    size: int
    compressed_size: int
    digests: Tuple[Digest, ...]


class Packer:
    """Compresses images; several may be packed at the same time.

    Args:
        workers: threads that compress, for all images together.
    """

    def __init__(self, workers: Optional[int] = None) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers)
        #: Processors that no xz uses; each has threads of its own.
        self._idle = self._workers
        self._changed = threading.Condition()

    def close(self) -> None:
        """End the threads; parts that nobody waits for are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def pack(
        self, chunks: Iterable[bytes], output: IO[bytes],
        compression: Optional[str], advance: Callable[[int], None],
        size: Optional[int] = None,
    ) -> Packed:
        """Write the file of an image, and bring it to the disk.

        Args:
            chunks: the image, in pieces of any size.
            compression: as an index gives it.
            advance: told how many bytes of the image were written.
            size: of the image in bytes, as far as is known.

        Raises:
            ToolError: xz is missing or failed.
            OSError: the disk failed.
        """
        counter = _Counter(chunks)
        try:
            if compression == 'xz':
                self._run_xz(_told(counter, advance), output, size)
            elif compression is None:
                _write_sparse(_told(counter, advance), output)
            else:
                self._write_parts(counter, output, compression, advance)
            output.flush()
            os.fsync(output.fileno())
            return Packed(
                counter.size, os.fstat(output.fileno()).st_size,
                counter.finish(),
            )
        finally:
            counter.close()

    def _run_xz(
        self, chunks: Iterable[bytes], output: IO[bytes], size: Optional[int]
    ) -> None:
        """Run xz once there are processors for it: it takes much memory."""
        parts = self._workers if size is None else -(-size // PART_BYTES)
        count = min(max(parts, 1), self._workers)
        with self._changed:
            while self._idle < count:
                self._changed.wait()
            self._idle -= count
        try:
            # With one thread xz would leave the sizes out.
            processes.pipe(
                [*XZ, f'--threads={max(2, count)}'], chunks, output,
                hint=XZ_HINT,
            )
        finally:
            with self._changed:
                self._idle += count
                self._changed.notify_all()

    def _write_parts(
        self, chunks: Iterable[bytes], output: IO[bytes], compression: str,
        advance: Callable[[int], None],
    ) -> None:
        """Compress parts side by side, and write them in order."""
        compress = _COMPRESS[compression]
        sizes: List[Tuple[int, int]] = []
        waiting: Deque[Tuple[int, Future[bytes]]] = collections.deque()

        def write_next() -> None:
            size, future = waiting.popleft()
            data = future.result()
            output.write(data)
            sizes.append((len(data), size))
            advance(size)

        try:
            for part in _parts(chunks):
                waiting.append(
                    (len(part), self._pool.submit(compress, part))
                )
                # One more than there are threads, so that none is idle.
                if len(waiting) > self._workers:
                    write_next()
            while waiting:
                write_next()
        finally:
            for _, future in waiting:
                future.cancel()
        if compression == 'zst':
            output.write(make_seek_table(sizes))


class _Counter:
    """Passes bytes on, and makes their digests beside."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._digester = Digester(DIGESTS)
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digester.update(chunk)
            self.size += len(chunk)
            yield chunk

    def finish(self) -> Tuple[Digest, ...]:
        return self._digester.finish()

    def close(self) -> None:
        self._digester.close()


def digest(chunks: Iterable[bytes]) -> Tuple[Digest, ...]:
    """Return the digests of an image."""
    counter = _Counter(chunks)
    try:
        for _ in counter:
            pass
        return counter.finish()
    finally:
        counter.close()


def _told(
    chunks: Iterable[bytes], advance: Callable[[int], None]
) -> Iterator[bytes]:
    """Pass bytes on, and tell of each piece once it was taken."""
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def _parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put pieces together to parts of `PART_BYTES`; the last is shorter.

    There is at least one, if only an empty one.
    """
    pieces: List[bytes] = []
    size = count = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while size + len(view) >= PART_BYTES:
            pieces.append(bytes(view[:PART_BYTES - size]))
            view = view[PART_BYTES - size:]
            yield b''.join(pieces)
            count += 1
            pieces, size = [], 0
        if view:
            pieces.append(bytes(view))
            size += len(view)
    if pieces or count == 0:
        yield b''.join(pieces)


def _compress_zstd(part: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    option = zstd.CompressionParameter
    return bytes(zstd.compress(part, options={
        option.compression_level: ZSTD_LEVEL, option.checksum_flag: 1,
    }))


def _compress_gzip(part: bytes) -> bytes:
    return gzip.compress(part, GZIP_LEVEL, mtime=0)


_COMPRESS = {'zst': _compress_zstd, 'gz': _compress_gzip}


def _write_sparse(chunks: Iterable[bytes], output: IO[bytes]) -> None:
    position = 0
    for chunk in chunks:
        for start, end in sparse.data_runs(chunk, position):
            output.seek(position + start)
            output.write(memoryview(chunk)[start:end])
        position += len(chunk)
    output.truncate(position)
