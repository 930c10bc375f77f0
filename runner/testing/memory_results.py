"""The in-memory cache of results, for tests that need one and no file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from runner.results import LARGEST_SHARE, CacheStats, FunctionResults, Kept, NewResult, ResultCache

ROW_BYTES = 120
"""What a result counts beside its output."""


class Entry(NamedTuple):
    """A result in memory."""

    namespace: str
    function: str
    used_at: float
    kept: Kept

    @property
    def size(self) -> int:
        """What it counts, in bytes."""
        return len(self.kept.output) + ROW_BYTES


class MemoryResultCache(ResultCache):
    """A ResultCache in a dictionary, in the order of use. Several may have the same one."""

    _lock = threading.Lock()  # one for all of them

    def __init__(self, *, max_bytes: int, kept: dict[bytes, Entry] | None = None) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[bytes, Entry] = {} if kept is None else kept

    def get(self, keys: Sequence[bytes], *, now: float) -> list[Kept | None]:
        """See ResultCache."""
        with self._lock:
            return [self._use(key, now) for key in keys]

    def _use(self, key: bytes, now: float) -> Kept | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._entries[key] = entry._replace(used_at=now)
        return entry.kept

    def put(self, namespace: str, function: str, results: Sequence[NewResult], *, now: float) -> None:
        """See ResultCache."""
        with self._lock:
            for key, output, duration_ms, memory_peak_bytes, run_id in results:
                if len(output) <= self._max_bytes // LARGEST_SHARE:
                    self._entries.pop(key, None)
                    kept = Kept(bytes(output), duration_ms, memory_peak_bytes, run_id, now)
                    self._entries[key] = Entry(namespace, function, now, kept)
            over = self._size() - self._max_bytes
            while over > 0:
                over -= self._entries.pop(next(iter(self._entries))).size

    def _size(self) -> int:
        return sum(entry.size for entry in self._entries.values())

    def stats(self) -> CacheStats:
        """See ResultCache."""
        with self._lock:
            names = sorted({(entry.namespace, entry.function) for entry in self._entries.values()})
            return CacheStats(
                results=len(self._entries),
                bytes=self._size(),
                max_bytes=self._max_bytes,
                functions=tuple(self._of(*name) for name in names),
            )

    def _of(self, namespace: str, function: str) -> FunctionResults:
        found = [
            entry for entry in self._entries.values() if (entry.namespace, entry.function) == (namespace, function)
        ]
        size = sum(len(entry.kept.output) for entry in found)
        return FunctionResults(namespace, function, len(found), size, max(entry.used_at for entry in found))

    def clear(self, namespace: str | None = None, function: str | None = None) -> int:
        """See ResultCache."""
        with self._lock:
            gone = [
                key
                for key, entry in self._entries.items()
                if namespace in (None, entry.namespace) and function in (None, entry.function)
            ]
            for key in gone:
                del self._entries[key]
            return len(gone)

    def close(self) -> None:
        """See ResultCache."""
