"""The contract of a cache of results. `runner.testing` holds its conformance suite, ResultCacheContract, and
an in-memory double. A registry backend gives its cache with `result_cache()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

LARGEST_SHARE = 4
"""An output that takes more than one part in so many of the cache is not kept: it would drive out too much."""


class NewResult(NamedTuple):
    """A result that is to be kept."""

    key: bytes
    """32 bytes; see runner.recipe."""
    output: bytes
    duration_ms: float
    memory_peak_bytes: int
    run_id: int | None = None
    """The run of the queue that it is the result of, if it is."""


class Kept(NamedTuple):
    """A result that was kept."""

    output: bytes
    """The very bytes."""
    duration_ms: float
    """What it took then."""
    memory_peak_bytes: int
    run_id: int | None
    made_at: float
    """Seconds since the epoch, UTC."""


class FunctionResults(NamedTuple):
    """What is kept of one function."""

    namespace: str
    function: str
    results: int
    bytes: int
    """Of outputs."""
    used_at: float
    """When one of them was kept or last found, to the hour. Seconds since the epoch, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStats:
    """What a cache holds."""

    results: int
    bytes: int
    """All that it takes, keys and indexes included."""
    max_bytes: int
    functions: tuple[FunctionResults, ...]
    """By namespace and name."""


class ResultCache(ABC):
    """Keeps results by their keys, and forgets those that were not used for longest when it has no room.

    It never stands in the way of work: whatever is wrong with it (damaged, locked, no room on the disk)
    is told once, and then nothing is found and nothing kept. What `get` gives is what `put` was given, to
    the byte, or it is not given. Every method may be called from several threads and processes at once.
    """

    @abstractmethod
    def get(self, keys: Sequence[bytes], *, now: float) -> list[Kept | None]:
        """What is kept under each key, in order. To be asked for thousands at once: that costs least.
        `now`, here and below, is in seconds since the epoch."""

    @abstractmethod
    def put(self, namespace: str, function: str, results: Sequence[NewResult], *, now: float) -> None:
        """Keep these results of a function. What is kept under their keys already is replaced."""

    @abstractmethod
    def stats(self) -> CacheStats:
        """What it holds now."""

    @abstractmethod
    def clear(self, namespace: str | None = None, function: str | None = None) -> int:
        """Forget all results, or those of one namespace, or of one function in it; how many."""

    @abstractmethod
    def close(self) -> None:
        """Give back files. May be called twice."""
