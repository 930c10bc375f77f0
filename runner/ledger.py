"""What a store shows of its runs: runs, attempts, log lines, dead letters, the ledger of slots.

Leaves, like models.py; what is put into the queue and taken out of it is in runs.py. Moments are aware
datetimes, field names those of tables and JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from runner.models import LogEntry, TriggerType
from runner.runs import NewRun, RunStatus


class AttemptStatus(str, Enum):
    """How one attempt ended."""

    RUNNING = "running"  # not yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # its error_class says how
    LOST = "lost"  # worker or owner died, or the lease ran out
    CANCELLED = "cancelled"
    RELEASED = "released"  # given back by its owner


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try of a run."""

    run_id: int
    number: int
    """Counts from 1."""
    status: AttemptStatus
    owner: str
    started_at: datetime
    """When it was claimed."""
    finished_at: datetime | None
    function_version: int
    error_class: str | None = None
    message: str | None = None
    """The error, or why it was lost, cancelled or released."""
    stderr_tail: str = ""
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    output_size: int | None = None
    """Bytes; None unless it succeeded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of a job as the store has it, without payload and result, which may be large."""

    run_id: int
    namespace: str
    job: str
    function: str | None
    function_version: int
    status: RunStatus
    queue: str
    priority: int
    run_at: datetime
    """Not before this moment; while it waits for another attempt, the moment of that."""
    unique_key: str | None
    trigger_type: TriggerType
    trigger: str | None
    slot: datetime | None
    parent_id: int | None
    retry_count: int
    dlq_topic: str | None
    payload_size: int
    """Bytes."""
    result_size: int | None
    """Bytes; None unless it succeeded."""
    attempts: int
    """Tries so far, lost and released ones included."""
    failures: int
    """Tries that count against retry_count."""
    lost_in_a_row: int
    progress: int
    """0 to 100, as the guest reports it."""
    created_at: datetime
    started_at: datetime | None
    """When its latest attempt was claimed."""
    finished_at: datetime | None
    """When it became terminal."""
    error_class: str | None
    """Of its latest attempt that failed."""
    message: str | None
    duration_ms: float
    """Of its latest attempt."""
    memory_peak_bytes: int
    owner: str | None
    """Whose it is, or was last."""
    lease_until: datetime | None
    """While it is running."""
    cancel_requested: bool
    step: str | None = None
    """If it is a step of the pipeline `parent_id`: which."""
    item: int | None = None
    """And for which item of its list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFilter:
    """Which runs to list; None takes all."""

    namespace: str | None = None
    job: str | None = None
    function: str | None = None
    statuses: frozenset[RunStatus] | None = None
    trigger: str | None = None
    queue: str | None = None
    parent_id: int | None = None
    created_from: datetime | None = None
    """Enqueued at or after this moment."""
    created_before: datetime | None = None
    is_step: bool | None = None
    """Whether it is a step of a pipeline."""


class RunLog(NamedTuple):
    """One log line of a run. (attempt, number) orders the lines of a run and is unique in it."""

    run_id: int
    attempt: int
    number: int
    entry: LogEntry


class LogPage(NamedTuple):
    """Log lines of several runs, in the order in which they were stored."""

    lines: list[RunLog]
    after: int
    """The place from which to go on; good for as long as the store lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A run that used up its attempts, until it is redriven or dropped."""

    dead_letter_id: int
    """The same number as `run_id`: a run dies once."""
    run_id: int
    namespace: str
    job: str
    function: str | None
    error_class: str
    message: str
    failed_at: datetime
    attempts: int


class TopicMessage(NamedTuple):
    """A message of a durable topic."""

    number: int
    """Grows within the store."""
    topic: str
    payload: bytes
    created_at: datetime
    run_id: int | None
    """The run it tells of."""


class SlotOutcome(str, Enum):
    """What became of a due slot."""

    RAN = "ran"  # a run was enqueued for it in time
    CAUGHT_UP = "caught_up"  # a run was enqueued for it later, after downtime
    SKIPPED = "skipped"  # none, for a stated reason


class SlotEntry(NamedTuple):
    """What is to be written into the ledger for one due slot. Use the constructors."""

    trigger: str
    """The trigger's id, unique in the store and stable over restarts."""
    slot: datetime
    outcome: SlotOutcome
    reason: str
    """Why it was skipped or comes late; may be empty for one that ran."""
    run: NewRun | None

    @classmethod
    def ran(cls, trigger: str, slot: datetime, run: NewRun, reason: str = "") -> SlotEntry:
        """The slot is due now and `run` is to be enqueued; its trigger and slot are filled in."""
        return cls(trigger, slot, SlotOutcome.RAN, reason, run._replace(trigger=trigger, slot=slot))

    @classmethod
    def caught_up(cls, trigger: str, slot: datetime, run: NewRun, reason: str) -> SlotEntry:
        """The slot was missed and `run` makes up for it; its trigger and slot are filled in."""
        return cls(trigger, slot, SlotOutcome.CAUGHT_UP, reason, run._replace(trigger=trigger, slot=slot))

    @classmethod
    def skipped(cls, trigger: str, slot: datetime, reason: str) -> SlotEntry:
        """Nothing runs for the slot."""
        return cls(trigger, slot, SlotOutcome.SKIPPED, reason, None)


class RecordedSlot(NamedTuple):
    """A ledger entry."""

    trigger: str
    slot: datetime
    outcome: SlotOutcome
    reason: str
    run_id: int | None
    """The run of the slot; it may have been pruned since."""
    recorded_at: datetime
    is_new: bool = True
    """False: the slot was in the ledger already, and this is the entry that stands; nothing was enqueued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How much waits, for health lines and `status`."""

    ready: int
    """Pending, and due."""
    waiting: int
    """Pending until a later moment."""
    running: int
    dead_letters: int
    oldest_ready_at: datetime | None
    """Since when the oldest of the ready has been due."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """Everything the store knows about why a run is what it is."""

    run: Run
    attempts: tuple[Attempt, ...]
    slot: RecordedSlot | None
    """The ledger entry it came from."""
    dead_letter: DeadLetter | None
    children: tuple[int, ...]
    """Runs that it caused, without those that are its steps."""
    ahead: int
    """If it is ready: how many of its queue are claimed before it."""
    seated: tuple[int, ...] = ()
    """If it waits for a seat (see Parked): the runs that have one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How long finished things are kept, counted from when they finished."""

    runs_days: float = 30
    """Succeeded and cancelled runs, slots, and messages of topics."""
    failed_days: float = 90
    """Failed and dead runs, with their dead letters."""
    logs_days: float = 14
    """Log lines of any run."""
