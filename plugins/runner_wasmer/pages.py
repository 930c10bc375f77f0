"""Pages of the machine, by which the first state of a memory is kept and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PAGE_BYTES: Final = 4096


def ranges(pages: set[int], *, gap: int = 0) -> Iterator[tuple[int, int]]:
    """The pages as byte ranges; two that are at most `gap` pages apart become one."""
    first = last = -1
    for page in sorted(pages):
        if first >= 0 and page > last + 1 + gap:
            yield first * PAGE_BYTES, (last + 1) * PAGE_BYTES
            first = page
        elif first < 0:
            first = page
        last = page
    if first >= 0:
        yield first * PAGE_BYTES, (last + 1) * PAGE_BYTES
