"""Parts of a file, each of which can be had and decoded without the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A block of .xz, a frame of .zst, a piece of a plain file; in bytes.

    Attributes:
        offset, size: where it is in the file at its source.
        at, makes: where it is in the image, and how much of it.
    """

    offset: int
    size: int
    at: int
    makes: int

    @property
    def end(self) -> int:
        """What follows it in the file at its source."""
        return self.offset + self.size

    @property
    def until(self) -> int:
        """What follows it in the image."""
        return self.at + self.makes


@dataclass(frozen=True)
class Needed:
    """More bytes must be known: `bytes_needed` in all, or even more."""

    bytes_needed: int
