"""What the in-memory run store keeps of a run, and how it is shown."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from runner.ledger import Attempt, AttemptStatus, DeadLetter, Run, RunFilter, RunLog
from runner.models import LogEntry
from runner.run_store import Changes
from runner.runs import MAX_LOG_LINES, MAX_MESSAGE_CHARACTERS, NewRun, RunStatus


@dataclass(slots=True, kw_only=True)
class Kept:
    """A run in memory."""

    run_id: int
    new: NewRun
    created_at: datetime
    run_at: datetime
    is_delayed: bool
    """Whether it waits for its moment; a claim that finds the moment come ends that."""
    status: RunStatus = RunStatus.PENDING
    token: int = 0
    owner: str | None = None
    started_at: datetime | None = None
    lease_until: datetime | None = None
    attempts: int = 0
    failures: int = 0
    lost_in_a_row: int = 0
    progress: int = 0
    cancel_reason: str | None = None
    tried: list[Attempt] = field(default_factory=list)
    logs: dict[int, RunLog] = field(default_factory=dict)
    """By their places among the lines of all runs."""
    recordings: dict[int, tuple[bytes, datetime]] = field(default_factory=dict)
    """By attempt, and when each was kept."""
    finished_at: datetime | None = None
    error_class: str | None = None
    message: str | None = None
    output: bytes | None = None
    reuse: str = ""
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    begun_at: datetime | None = None
    """When a run began that waits for others."""
    state: bytes = b""
    tried_before: int = 0
    """How many attempts were recorded when it was last Parked."""
    waits: bool = False
    """Whether it is Parked, and not to be claimed."""
    wake_at: int | None = None
    """How many of its children have to have ended; None unless it waits for that."""
    seat: tuple[str, int] | None = None
    sits: bool = False
    ended: list[Kept] = field(default_factory=list)
    """Its children that have ended, in that order."""

    @property
    def order(self) -> tuple[int, datetime, int]:
        """Its place among the runs of its queue that are due."""
        return -self.new.priority, self.run_at, self.run_id

    @property
    def shown_status(self) -> RunStatus:
        """A run that waits for others is running as long as it is live, once it has begun."""
        begun = self.begun_at is not None and self.status is RunStatus.PENDING
        return RunStatus.RUNNING if begun else self.status

    def show(self) -> Run:
        """The run as the contract has it."""
        new = self.new
        return Run(
            **{name: getattr(new, name) for name in ("namespace", "job", "function", "function_version", "queue")},
            **{name: getattr(new, name) for name in ("priority", "unique_key", "trigger_type", "trigger", "slot")},
            **{name: getattr(new, name) for name in ("parent_id", "retry_count", "dlq_topic", "step", "item")},
            **{name: getattr(self, name) for name in ("run_id", "run_at", "attempts", "failures", "owner")},
            **{name: getattr(self, name) for name in ("lost_in_a_row", "progress", "created_at")},
            status=self.shown_status,
            started_at=self.begun_at or self.started_at,
            **{name: getattr(self, name) for name in ("finished_at", "error_class", "message", "duration_ms")},
            memory_peak_bytes=self.memory_peak_bytes,
            lease_until=self.lease_until,
            payload_size=len(new.payload),
            result_size=None if self.output is None else len(self.output),
            cancel_requested=self.cancel_reason is not None and self.status is RunStatus.RUNNING,
        )

    def show_attempts(self) -> list[Attempt]:
        """Its attempts in order, one that runs or has succeeded last."""
        if self.status not in (RunStatus.RUNNING, RunStatus.SUCCEEDED):
            return list(self.tried)
        assert self.started_at is not None
        latest = Attempt(
            run_id=self.run_id,
            number=self.attempts,
            status=AttemptStatus(self.status.value),
            owner=self.owner or "",
            started_at=self.begun_at or self.started_at,
            finished_at=self.finished_at,
            function_version=self.new.function_version,
            duration_ms=self.duration_ms if self.finished_at else 0.0,
            memory_peak_bytes=self.memory_peak_bytes if self.finished_at else 0,
            output_size=None if self.output is None else len(self.output),
        )
        return [*self.tried, latest]

    def show_letter(self) -> DeadLetter:
        """The dead letter of a run that is dead."""
        assert self.finished_at is not None
        return DeadLetter(
            dead_letter_id=self.run_id,
            run_id=self.run_id,
            namespace=self.new.namespace,
            job=self.new.job,
            function=self.new.function,
            error_class=self.error_class or "",
            message=self.message or "",
            failed_at=self.finished_at,
            attempts=self.attempts,
        )

    def forget_attempt(self) -> None:
        """Undo the claim of a run that was given back before it began."""
        self.attempts -= 1
        latest = self.tried[-1] if self.tried else None
        self.started_at = latest.started_at if latest else None
        self.owner = latest.owner if latest else None

    def keep_logs(self, entries: list[LogEntry], places: Iterator[int]) -> None:
        """Append lines to the latest attempt's, up to the limit."""
        last = sum(line.attempt == self.attempts for line in self.logs.values())
        for number, entry in enumerate(entries, last + 1):
            if number > MAX_LOG_LINES:
                return
            message = "(the rest was left out)" if number == MAX_LOG_LINES else cut(entry.message)
            self.logs[next(places)] = RunLog(self.run_id, self.attempts, number, entry._replace(message=message))


def cut(text: str) -> str:
    """As much of a message as is kept."""
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def passes(kept: Kept, filter: RunFilter) -> bool:
    """Whether a run is one of those asked for."""
    new = kept.new
    for name in ("namespace", "job", "function", "trigger", "queue", "parent_id"):
        wanted = getattr(filter, name)
        if wanted is not None and wanted != getattr(new, name):
            return False
    return (
        (filter.statuses is None or kept.shown_status in filter.statuses)
        and (filter.is_step is None or filter.is_step is (new.step is not None))
        and (filter.created_from is None or kept.created_at >= filter.created_from)
        and (filter.created_before is None or kept.created_at < filter.created_before)
    )


class PipeChanges(Changes):
    """A waiter that is woken through a pipe."""

    def __init__(self, forget: Callable[[PipeChanges], None]) -> None:
        self._forget = forget
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._is_open = True

    def wake(self) -> None:
        """Tell it of a change."""
        with suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """See Changes.wait."""
        if not select.select([self._reader], [], [], timeout_seconds)[0]:
            return False
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        return True

    def fileno(self) -> int:
        """See Changes.fileno."""
        return self._reader

    def close(self) -> None:
        """See Changes.close."""
        if self._is_open:
            self._is_open = False
            self._forget(self)
            os.close(self._reader)
            os.close(self._writer)
