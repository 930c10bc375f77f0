"""Packing of output, in pieces that can be cut off again: each piece is a member or frame of its own."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

GZIP_LEVEL, ZSTD_LEVEL = 6, 3
_GZIP_BITS = 31
"""What zlib calls a window of 32 KiB in a gzip file. It writes no name and no time into the header, so
that the same bytes are packed to the same bytes."""


class Packer(ABC):
    """Packs one output."""

    @abstractmethod
    def pack(self, data: bytes) -> bytes:
        """What of these bytes, and of those before, is ready to be written."""

    @abstractmethod
    def end(self) -> bytes:
        """The end of this piece, if there is one; the next `pack` begins another."""


class Nothing(Packer):
    """Leaves bytes as they are."""

    def pack(self, data: bytes) -> bytes:
        """See Packer."""
        return data

    def end(self) -> bytes:
        """See Packer."""
        return b""


class Members(Packer):
    """Packs into members that `new` begins: it has `compress` and `flush`, like those of zlib."""

    def __init__(self, new: Callable[[], Any], *, empty: bool) -> None:
        self._new = new
        self._member = new() if empty else None
        """With `empty` the first piece is written even if nothing is in it: no member at all is no such file."""

    def pack(self, data: bytes) -> bytes:
        """See Packer."""
        if self._member is None:
            self._member = self._new()
        packed: bytes = self._member.compress(data)
        return packed

    def end(self) -> bytes:
        """See Packer."""
        if self._member is None:
            return b""
        packed: bytes = self._member.flush()
        self._member = None
        return packed


def packer_for(path: str, level: int, *, begins: bool) -> Packer:
    """What packs a file of this name; `begins` if nothing is in it yet. Raises NotAvailable."""
    suffix = PurePath(path).suffix
    if suffix == ".gz":
        gzip_level = min(level, 9) or GZIP_LEVEL
        return Members(lambda: zlib.compressobj(gzip_level, zlib.DEFLATED, _GZIP_BITS), empty=begins)
    if suffix == ".zst":
        from runner_files import zstd

        return Members(lambda: zstd.packer(level or ZSTD_LEVEL), empty=begins)
    return Nothing()
