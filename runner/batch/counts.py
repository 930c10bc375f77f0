"""What a batch has counted so far. Goes into checkpoints, so that it is right after a resume as well."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SLOWEST = 5
"""How many of the slowest records are kept."""


@dataclass(kw_only=True, slots=True)
class Counts:
    """Counted up while a batch runs; a number may be read from another thread at any time."""

    records_in: int = 0
    """Records that are done with, however they ended."""
    records_out: int = 0
    """Records, lines or rows of output."""
    records_skipped: int = 0
    """Failed records that were left out."""
    records_quarantined: int = 0
    """Failed records that were kept apart."""
    records_reused: int = 0
    """Those of `records_in` that an earlier process, or an earlier run, had done already, and those of a pure
    function whose result was known."""
    attempts: int = 0
    """Invocations, repeated ones included."""
    bytes_in: int = 0
    """Bytes of the records read."""
    bytes_out: int = 0
    """Bytes of output, before they are packed."""
    output_offset: int = 0
    """What the sink calls the end of the output, when the run has succeeded."""
    slowest: list[tuple[float, str]] = field(default_factory=list)
    """The slowest invocations as (milliseconds, place of the record): a heap."""

    @property
    def failed(self) -> int:
        """Records that failed for good."""
        return self.records_skipped + self.records_quarantined

    def note(self, duration_ms: float, place: str) -> float:
        """Keep a slow invocation; returns how long the next one must take to be worth noting."""
        keep = heapq.heappush if len(self.slowest) < SLOWEST else heapq.heappushpop
        keep(self.slowest, (duration_ms, place))
        return self.slowest[0][0] if len(self.slowest) == SLOWEST else 0.0

    def facts(self) -> dict[str, Any]:
        """All of them by name, as JSON values."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Counts:
        """The counts that `facts` told."""
        slowest = [(float(duration), str(place)) for duration, place in facts["slowest"]]
        return cls(**{**facts, "slowest": slowest})
