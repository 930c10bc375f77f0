"""The partitions of a batch job: which there are, what state each is in, and which of them are to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from runner.app import Runner
from runner.batch.checkpoint import StateFolder
from runner.batch.partitions import Partition, by_day, by_file, by_value, day_of, yesterday
from runner.batch.plan import state_folder
from runner.batchkeys import PartitionKeys
from runner.config import JobConfig
from runner.errors import UsageError
from runner.records import Sink, Source

Only = Literal["missing", "failed", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionState:
    """What is known of one partition."""

    partition: Partition
    status: str
    """`missing` (never ended, or its output is gone), `interrupted`, or how its last run ended: `succeeded`,
    `failed`, `cancelled`."""
    finished_at: str | None = None
    """When that was, in RFC 3339."""
    records_in: int | None = None
    records_out: int | None = None
    records_failed: int | None = None
    message: str | None = None
    """Why it failed."""


def keys_of(job: JobConfig) -> PartitionKeys:
    """What the job says about partitions. Raises UsageError for one that has none."""
    if job.batch is None or job.batch.partitions is None:
        raise UsageError(f"job {job.name!r} has no partitions; give it `partitions:` under `batch:`")
    return job.batch.partitions


def partitions_of(
    runner: Runner, job: JobConfig, *, first: str | None = None, last: str | None = None, now: datetime | None = None
) -> list[Partition]:
    """The partitions of a job; of one by day those from `first` to `last`, which is yesterday if not given.
    Raises UsageError, FileUnavailable."""
    keys = keys_of(job)
    if keys.by != "day" and (first or last):
        raise UsageError(f"the partitions of {job.name} are by {keys.by}: --from and --to are for those by day")
    if keys.by == "value":
        return by_value(keys.values)
    if keys.by == "file":
        assert job.batch is not None
        source: Source = runner.make("sources", job.batch.input)
        return by_file(source.parts())
    if first is None:
        raise UsageError(f"say from which day on: --from {yesterday(now or _now())}")
    return by_day(day_of(first), day_of(last) if last else yesterday(now or _now()))


def partition_of(runner: Runner, job: JobConfig, name: str) -> Partition:
    """The partition of that name. Raises UsageError."""
    if keys_of(job).by == "day":
        return Partition(name=day_of(name).isoformat(), day=day_of(name))
    known = {partition.name: partition for partition in partitions_of(runner, job)}
    if name not in known:
        raise UsageError(f"{job.name} has no partition {name!r}; there are {', '.join(list(known)[:20]) or 'none'}")
    return known[name]


def chosen_partitions(
    runner: Runner, job: JobConfig, name: str | None = None, now: datetime | None = None
) -> Sequence[Partition | None]:
    """What one run of the job runs: None, a job without partitions as a whole; the named one; the day before
    `now`; or all. Raises UsageError."""
    if name is not None:
        return [partition_of(runner, job, name)]
    if job.batch is None or job.batch.partitions is None:
        return [None]
    if job.batch.partitions.by == "day":
        day = yesterday(now or _now()).isoformat()
        return partitions_of(runner, job, first=day, last=day)
    return partitions_of(runner, job)


def state_of(runner: Runner, job: JobConfig, partition: Partition) -> PartitionState:
    """What is known of a partition. Raises StoreError."""
    folder = StateFolder(state_folder(runner, job.name, partition.name), job.name)
    last = folder.last()
    if last is None:
        return PartitionState(partition=partition, status="interrupted" if folder.load() else "missing")
    status = str(last["status"])
    if status == "succeeded" and _is_gone(runner, job, partition):
        status = "missing"
    return PartitionState(
        partition=partition,
        status=status,
        finished_at=last.get("finished_at"),
        records_in=last["records_in"],
        records_out=last["records_out"],
        records_failed=last["records_skipped"] + last["records_quarantined"],
        message=last["message"],
    )


def _is_gone(runner: Runner, job: JobConfig, partition: Partition) -> bool:
    assert job.batch is not None
    sink: Sink = runner.make("sinks", partition.applied(job.batch).output)
    return sink.is_published() is False


def is_wanted(state: PartitionState, only: Only) -> bool:
    """Whether a backfill runs this partition."""
    if only == "all":
        return True
    return state.status == "failed" if only == "failed" else state.status in ("missing", "interrupted", "cancelled")


def _now() -> datetime:
    return datetime.now(timezone.utc)
