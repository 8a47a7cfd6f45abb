"""Decompress an .xz file block by block."""

from __future__ import annotations

from typing import List, Optional

from ..core.magics import XZ
from ..formats import xz, xz_index
from ..formats.block import Needed
from .decoders import Checkpoint, MemberDecoder
from .units import CorruptStream, Unit, open_xz


class XzDecoder(MemberDecoder):
    """An .xz file, block by block where the block headers tell sizes.

    Args:
        consumed, preamble: of the checkpoint to go on from; with a preamble
            a block or the index follows there, else a stream.
    """

    def __init__(self, consumed: int, preamble: bytes) -> None:
        super().__init__(open_xz, consumed, (XZ,))
        self._records: List[xz_index.Record] = []
        self._whole = False
        self._index_bytes = 0
        self._preamble = preamble
        try:
            self._check = xz.parse_stream_header(preamble) if preamble else 0
        except xz.BadXz as error:
            raise CorruptStream(f'the checkpoint: {error}') from error
        self.checkpoint = Checkpoint(consumed, 0, preamble)

    def _find_unit(self) -> Optional[Unit]:
        try:
            while self._pending:
                if not self._preamble:
                    found = self._read_stream_header()
                elif self._pending[0]:
                    return self._read_block_header()
                else:
                    found = self._read_index()
                if not found:
                    break
        except xz.BadXz as error:
            raise CorruptStream(str(error)) from error
        return None

    def _read_stream_header(self) -> bool:
        if self.checkpoint.consumed:
            # Stream padding (2.2) comes in fours.
            zeros = len(self._pending) - len(self._pending.lstrip(b'\0'))
            self._drop(zeros & ~3)
            if self._pending.strip(b'\0'):
                self._check_next()
        if len(self._pending) < xz.HEADER_BYTES:
            return False
        self._preamble = bytes(self._pending[:xz.HEADER_BYTES])
        self._check = xz.parse_stream_header(self._preamble)
        self._drop(xz.HEADER_BYTES)
        self._records.clear()
        self._whole = True
        return True

    def _read_block_header(self) -> Optional[Unit]:
        size = xz.block_header_size(self._pending[0])
        if len(self._pending) < size:
            return None
        header = xz.parse_block_header(bytes(self._pending[:size]))
        unpadded = header.unpadded_size(self._check)
        makes = header.uncompressed_size
        if unpadded is not None and makes is not None:
            self._records.append(xz_index.Record(unpadded, makes))
            return Unit(
                open_xz, prime=self._preamble,
                size=header.total(self._check), makes=makes,
            )
        if self._whole and not self._records:
            return Unit(open_xz, prime=self._preamble)
        # liblzma compares all blocks of a stream with its index, so it
        # cannot take over in the middle; and no encoder writes this.
        raise CorruptStream('blocks with and without sizes in one xz stream')

    def _end_unit(self, unit: Unit) -> None:
        if unit.size is None:
            self._preamble = b''

    def _read_index(self) -> bool:
        """Compare the index and the footer with the blocks; end the stream.

        After a checkpoint only the last blocks are known.
        """
        if len(self._pending) < self._index_bytes:
            return False
        data = bytes(self._pending)
        index = xz_index.parse_index(data)
        if isinstance(index, Needed):
            self._index_bytes = index.bytes_needed
            return False
        end = index.size + xz.HEADER_BYTES
        if len(data) < end:
            self._index_bytes = end
            return False
        unseen = len(index.records) - len(self._records)
        if (
            xz.parse_stream_footer(data[index.size:end])
            != (self._check, index.size)
            or index.records[max(unseen, 0):] != tuple(self._records)
            or self._whole and unseen
        ):
            raise CorruptStream('the xz index does not match the blocks')
        self._drop(end)
        self._preamble = b''
        self._records.clear()
        self._index_bytes = 0
        self.checkpoint = Checkpoint(self._position, self._produced)
        return True
