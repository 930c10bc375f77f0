"""The stack that guests run on: how large it is, and whether a guest came to its end.

Wasmer tells a stack overflow from a fault in the memory by where the stack ends, which it reads from
/proc/self/maps at the first fault. Behind the walls it cannot, and takes the one for the other. So
it is looked up here before the walls rise, and afterwards it is seen from its last pages.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
from typing import Final

from runner_wasmer.linear_memory import madvise, mincore

STACK_BYTES: Final = 1 << 20
"""A guest's stack, as other engines have it. Wasmer tells every frame of an overflow, and with the
usual 8 MiB that takes half a second and 140 MB."""
_WINDOW_BYTES: Final = 1 << 18
"""How near to its end the stack must have been used: a larger frame than this jumps over it."""
_MADV_DONTNEED: Final = 4


class GuestStack:
    """The main thread's stack. Made while /proc can be read."""

    def __init__(self) -> None:
        self._end = _main_stack_end()
        self._limit = 0

    def limit(self) -> None:
        """Give this process a stack of STACK_BYTES, or of less if that is the limit already."""
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        self._limit = STACK_BYTES if soft == resource.RLIM_INFINITY else min(STACK_BYTES, soft)
        resource.setrlimit(resource.RLIMIT_STACK, (self._limit, hard))

    def overflowed(self) -> bool:
        """Whether the stack was used to its end since this was asked last."""
        if not self._end or not self._limit:
            return False
        start = self._end - self._limit
        resident = ctypes.create_string_buffer(_WINDOW_BYTES // mmap.PAGESIZE)
        if mincore(start, _WINDOW_BYTES, resident) or not any(flags & 1 for flags in resident.raw):
            return False
        madvise(start, _WINDOW_BYTES, _MADV_DONTNEED)  # far below what this thread uses now
        return True


def _main_stack_end() -> int:
    """One past the stack's highest address; 0 when it cannot be told."""
    try:
        with open("/proc/self/maps") as lines:
            found = next((line for line in lines if line.rstrip().endswith("[stack]")), None)
    except OSError:
        return 0
    return int(found.split()[0].split("-")[1], 16) if found else 0
