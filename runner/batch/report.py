"""How a batch ended, and what can be seen of one that runs: leaves for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runner.batch.counts import Counts
from runner.errors import RunnerError


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """How one run of a batch, or of a partition, ended."""

    job: str
    partition: str | None
    status: str
    """`succeeded`, `failed` or `cancelled`."""
    duration_ms: float
    """Wall-clock time of this run alone."""
    function: str
    version: int
    counts: Counts
    """Of the whole batch, with what an interrupted run before had done."""
    output: str
    """What was written, as the user would write it."""
    quarantine: str | None
    """The file of quarantined records; None when there are none."""
    error: RunnerError | None = None

    @property
    def records_per_second(self) -> float:
        """Records of this run by its time."""
        done = self.counts.records_in - self.counts.records_reused
        return done / (self.duration_ms / 1e3) if self.duration_ms else 0.0

    def facts(self) -> dict[str, Any]:
        """As JSON values: what `--json` prints."""
        counts, error = self.counts, self.error
        return {
            "job": self.job,
            "partition": self.partition,
            "status": self.status,
            "duration_ms": round(self.duration_ms, 3),
            "attempts": counts.attempts,
            "function": self.function,
            "version": self.version,
            "records_in": counts.records_in,
            "records_out": counts.records_out,
            "records_skipped": counts.records_skipped,
            "records_quarantined": counts.records_quarantined,
            "records_reused": counts.records_reused,
            "records_per_second": round(self.records_per_second, 1),
            "bytes_in": counts.bytes_in,
            "bytes_out": counts.bytes_out,
            "output": self.output,
            "quarantine": self.quarantine,
            "slowest": [
                {"duration_ms": round(duration, 3), "record": place}
                for duration, place in sorted(counts.slowest, reverse=True)
            ],
            "error_class": error.error_class if error else None,
            "message": str(error) if error else None,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A batch that runs, for whoever watches it from another thread."""

    title: str
    counts: Counts
    records: Callable[[], int]
    """How many records have ended, those of earlier runs included."""
    done: Callable[[], float | None]
    """How much of the source has ended, from 0 to 1; None where nobody knows."""
    waiting: Callable[[], int]
    """How many records wait for another try."""
    done_before: float
    """How much of the source had ended when this run began."""
    workers: Callable[[], Sequence[str]] = tuple
    """What each worker is at, for people; empty where nobody tells."""
