"""A guest's linear memory as the host functions see it, for one invocation at a time.

Checked addresses and the guest's own allocator live here. What the bytes mean does not.
"""

from __future__ import annotations

from typing import Any, Final

from runner.errors import BadOutput, OutOfMemory
from runner.workers.wasi.abi import U32, U32_MAX, U64

ALLOCATORS: Final = ("orama_alloc", "malloc", "alloc")
"""Exports that may allocate a host function's answer, the first one present is taken."""

_NO_BYTES = memoryview(b"")


class PointerFault(Exception):
    """The guest gave an address outside its memory. Ends as EFAULT or as a trap, never as itself."""


class GuestMemory:
    """The memory of the instance that runs now; empty between invocations.

    `view` may be shorter than the memory after it grew: `at` takes it anew when an address lies
    beyond it. An old view stays valid, because a memory never shrinks and engines reserve the whole
    4 GiB of addresses for every 32-bit memory, so that growing never moves it. Nothing outside the
    invocation may keep the view: it keeps the instance's memory mapped.
    """

    __slots__ = ("_allocating", "_exports", "allocator", "memory", "size", "view")

    def __init__(self) -> None:
        self.view = _NO_BYTES
        self.size = 0
        self.memory: Any = None
        """The memory that is served: it has a `buffer` and a `data_size` in bytes."""
        self._exports: Any = None
        self._allocating = False
        self.allocator: str | None = None
        """The export that allocates a host function's answer; None when the guest has none."""

    def attach(self, exports: Any, memory: Any, view: memoryview | None = None) -> None:
        """Serve the instance with these exports; `memory` is None when it has none. `view` is one of
        the whole memory, if the caller has it already."""
        self._exports = exports
        if memory is not None:
            self.memory = memory
            self.view = view = memoryview(memory.buffer) if view is None else view
            self.size = len(view)

    def detach(self) -> None:
        """Drop everything that belongs to the instance."""
        self.view = _NO_BYTES
        self.size = 0
        self.memory = self._exports = None
        self._allocating = False

    def refresh(self) -> int:
        """Take the view anew if the memory grew; returns its size in bytes."""
        memory = self.memory
        if memory is not None and memory.data_size != self.size:
            self.view = view = memoryview(memory.buffer)
            self.size = len(view)
        return self.size

    def at(self, pointer: int, length: int) -> int:
        """The offset into `view` of `length` bytes at the i32 `pointer`; PointerFault outside it."""
        start = pointer & U32_MAX
        if start + length > self.size and start + length > self.refresh():
            raise PointerFault(f"{length} bytes at {start:#x} of a memory of {self.size} bytes")
        return start

    def read(self, pointer: int, length: int) -> bytes:
        """A copy of `length` (an i32, taken as unsigned) bytes."""
        length &= U32_MAX
        start = self.at(pointer, length)
        return bytes(self.view[start : start + length])

    def write(self, pointer: int, data: bytes) -> None:
        """Copy `data` to `pointer`."""
        start = self.at(pointer, len(data))
        self.view[start : start + len(data)] = data

    def put_u32(self, pointer: int, value: int) -> None:
        """Store a u32."""
        start = self.at(pointer, 4)
        U32.pack_into(self.view, start, value)

    def put_u64(self, pointer: int, value: int) -> None:
        """Store a u64."""
        start = self.at(pointer, 8)
        U64.pack_into(self.view, start, value)

    def check_allocator(self) -> None:
        """Raise BadOutput when `give` is bound to: the guest has no allocator, or is in it."""
        if self._allocating:
            raise BadOutput("the guest's allocator called a host function that returns bytes")
        if self.allocator is None:
            raise BadOutput(
                "a host function has bytes to return, and the guest exports no allocator for them; "
                f"export one of {', '.join(ALLOCATORS)} (i32) -> i32"
            )

    def give(self, data: bytes, memory_limit_mb: int) -> int:
        """Copy `data` into memory that the guest's allocator gives; returns its address.

        Calls the guest. At least one byte is asked for, so that an address never is 0 by right.
        Raises OutOfMemory when the allocator answers 0, BadOutput when there is none, when it calls
        a host function that allocates in turn, or when its address is outside the memory.
        """
        self.check_allocator()
        assert self.allocator is not None
        self._allocating = True
        pointer: int = getattr(self._exports, self.allocator)(max(len(data), 1)) & U32_MAX
        self._allocating = False
        if not pointer:
            raise OutOfMemory(memory_limit_mb, f"the guest's allocator refused {len(data):,} bytes")
        try:
            self.write(pointer, data)
        except PointerFault as fault:
            raise BadOutput(f"the guest's allocator returned an address outside its memory: {fault}") from None
        return pointer
