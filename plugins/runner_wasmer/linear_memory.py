"""A guest's linear memory as this engine serves it: it grows for the guest, and shrinks for the next.

Wasmer's memories never shrink. So the pages that an invocation added are made unreachable after it,
and reachable again when a later one asks for them: touching them before that traps, as it would
beyond the end of a fresh memory. That holds for the code of the module; code of Wasmer's or of
Python's that is led there would end the process, so `data_size` and `buffer` tell the size that the
guest knows, and a module with such instructions is not called shrinkable.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

WASM_PAGE_BYTES: Final = 1 << 16
_MADV_DONTNEED: Final = 4
_PROT_NONE, _PROT_READ_WRITE = 0, 3
_U32_MAX: Final = 0xFFFFFFFF

# PyDLL keeps the interpreter's lock: releasing it costs more than these calls.
_libc = ctypes.PyDLL(None)
madvise = _libc.madvise
"""madvise(address, size, advice); 0 when it was done."""
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
mincore = _libc.mincore
"""mincore(address, size, one byte a page): bit 0 is set where the page is in memory; 0 when told."""
mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_mprotect = _libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class LinearMemory:
    """A memory of a fresh instance. `data_size` is its size in bytes as the guest knows it; `refused`
    tells whether growing failed since it was made or shrunk."""

    __slots__ = ("_actual", "_memory", "_start", "address", "data_size", "refused", "view")

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.view = memoryview(memory.buffer)
        """The memory as it was when it was made."""
        self._start = self._actual = self.data_size = len(self.view)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.view)) if self._start else 0
        self.refused = False

    @property
    def buffer(self) -> memoryview:
        """All of it that the guest has now."""
        return memoryview(self._memory.buffer)[: self.data_size]

    def grow(self, old_pages: int, more_pages: int) -> int:
        """What `memory.grow` does, for a memory of `old_pages`: the old size, or -1."""
        size = (old_pages & _U32_MAX) * WASM_PAGE_BYTES
        wanted = size + (more_pages & _U32_MAX) * WASM_PAGE_BYTES
        if size != self.data_size or not self._reach(wanted):
            self.refused = True
            return -1
        self.data_size = wanted
        return old_pages

    def _reach(self, wanted: int) -> bool:
        actual, known = self._actual, self.data_size
        if wanted > actual:
            try:
                self._memory.grow((wanted - actual) // WASM_PAGE_BYTES)
            except RuntimeError:
                return False
            if not self.address:
                self.address = ctypes.addressof(ctypes.c_char.from_buffer(memoryview(self._memory.buffer)))
            self._actual = wanted
        hidden = min(wanted, actual) - known
        return hidden <= 0 or not _mprotect(self.address + known, hidden, _PROT_READ_WRITE)

    def shrink(self) -> bool:
        """Give back what was added since it was made; False: it cannot be used again."""
        start, added = self.address + self._start, self.data_size - self._start
        self.refused = False
        if added:
            self.data_size = self._start
            return not madvise(start, added, _MADV_DONTNEED) and not _mprotect(start, added, _PROT_NONE)
        return True
