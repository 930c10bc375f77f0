"""Putting an instance back to the state in which it was made, which is quicker than making another.

An invocation can change a module's memory and its mutable globals and nothing else, if instrument.py
says so. Globals are set again. Every page of the memory is either copied from the image it started
with or, where that is all zeros, given back to the kernel, which gives a zeroed one at the next
touch. Copied are the pages of the data segments and those that invocations were seen to touch: a
copy takes a tenth of what dropping and faulting a page takes. Which pages those are decides about
speed only.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any, Final

from runner_wasmer.artifact import Artifact
from runner_wasmer.linear_memory import LinearMemory, madvise, mincore
from runner_wasmer.pages import PAGE_BYTES, ranges

_MADV_DONTNEED, _MADV_NOHUGEPAGE = 4, 15
_TOUCHED_LIMIT: Final = 64
"""Pages copied at the most because they were touched; more of them are dropped."""
_RANGES_LIMIT: Final = 8
"""Ranges copied at the most: between two of them is a system call."""
_LAST_LOOK: Final = 1 << 12
"""After so many invocations the touched pages are known."""


class Restorer:
    """Restores one fresh instance, given before its first invocation."""

    __slots__ = ("_data", "_drops", "_globals", "_invocations", "_memory", "_ranges", "_shrinkable", "_view")

    def __init__(self, exports: Any, memory: LinearMemory | None, artifact: Artifact) -> None:
        self._globals = [(found, found.value) for found in (getattr(exports, name) for name in artifact.globals)]
        self._memory = memory
        self._shrinkable = artifact.shrinkable
        self._view = view = memoryview(b"") if memory is None else memory.view
        self._invocations = 0
        self._data = [(first, bytes(view[first:end])) for first, end in artifact.data]
        self._ranges: list[tuple[int, int, bytes]] = []
        self._drops: list[tuple[int, int]] = []
        if memory is not None and memory.address:
            self._copy(memory, artifact.data)
            # A huge page would be zeroed whole for one byte that is touched; fails where there are none.
            madvise(memory.address, len(view), _MADV_NOHUGEPAGE)

    @property
    def keeps_bits(self) -> bool:
        """Whether every global can be set again: a NaN does not come back from Python as it was."""
        return all(value == value for _, value in self._globals)

    def restore(self) -> bool:
        """Undo an invocation that ended well; False: drop the instance."""
        memory = self._memory
        if memory is not None:
            if memory.data_size != len(self._view) and not self._shrinkable:
                return False
            if not memory.shrink():
                return False
            self._invocations = count = self._invocations + 1
            if not count & (count - 1) and count <= _LAST_LOOK:
                self._look(memory)
        for found, value in self._globals:
            found.value = value
        view = self._view
        for first, end, image in self._ranges:
            view[first:end] = image
        for start, size in self._drops:  # noqa: SIM110  # a generator would cost as much as the call
            if madvise(start, size, _MADV_DONTNEED):
                return False
        return True

    def _look(self, memory: LinearMemory) -> None:
        """Copy the pages that the invocations until now have touched, if they are few."""
        size = len(self._view)
        resident = ctypes.create_string_buffer(size // PAGE_BYTES)
        if not size or mincore(memory.address, size, resident):
            return
        touched = {page for page, flags in enumerate(resident.raw) if flags & 1}
        held = {page for first, data in self._data for page in _pages(first, first + len(data))}
        if len(touched - held) > _TOUCHED_LIMIT:
            return
        gap = 2
        while len(found := list(ranges(touched | held, gap=gap))) > _RANGES_LIMIT:
            gap *= 2
        if sum(end - first for first, end in found) <= len(held | touched) * PAGE_BYTES * 2:
            self._copy(memory, found)

    def _copy(self, memory: LinearMemory, found: Sequence[tuple[int, int]]) -> None:
        """Copy these ranges from now on and drop what lies between them."""
        self._ranges = [(first, end, self._image(first, end)) for first, end in found]
        edges = [0, *(edge for first, end in found for edge in (first, end)), len(self._view)]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        self._drops = [(memory.address + first, end - first) for first, end in gaps if end > first]

    def _image(self, first: int, end: int) -> bytes:
        """What this part of the memory started as."""
        image = bytearray(end - first)
        for start, data in self._data:
            if first <= start < end:
                image[start - first : start - first + len(data)] = data
        return bytes(image)


def _pages(first: int, end: int) -> range:
    return range(first // PAGE_BYTES, end // PAGE_BYTES)


def restorer(exports: Any, memory: LinearMemory | None, artifact: Artifact) -> Restorer | None:
    """A Restorer for a fresh instance, if all it does can be undone on this machine."""
    if not artifact.restorable or mmap.PAGESIZE != PAGE_BYTES:
        return None
    made = Restorer(exports, memory, artifact)
    return made if made.keeps_bits else None
