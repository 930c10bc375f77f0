"""What passes through the durable queue: a new run, a claim of one, and the ways in which an attempt ends.

Leaves, like models.py, and named tuples, because they pass by the hundred thousand. How an attempt ends
is said by constructing one of the `Outcome`s, so that no impossible change can be asked for. What the
store shows of it all is in ledger.py. Moments are aware datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from runner.errors import RunnerError
from runner.models import LogEntry, TriggerType

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""The largest payload a run may have; a larger one is refused with InputTooLarge."""
CLAIM_BYTES = 64 * 1024 * 1024
"""One claim stops before its payloads pass this together; it always takes one run at least."""
LOST_ALTOGETHER = 10
"""A run that was lost so often, with its worker or its daemon, is dead-lettered; of one that was Parked,
what was lost before that does not count."""
LOST_IN_A_ROW = 3
"""A run whose worker was lost so many times in a row is dead-lettered."""
MAX_LOG_LINES = 1_000
"""Log lines kept of one attempt; the last of them then says that more were left out."""
MAX_MESSAGE_CHARACTERS = 8_192
"""Of a log line, an error's message and a stderr tail this much is kept."""
DEFAULT_QUEUE = "default"


class RunStatus(str, Enum):
    """Where a run stands. The last four are terminal: a run in one of them never changes again."""

    PENDING = "pending"  # waits: for its moment, a worker, or the next attempt
    RUNNING = "running"  # leased to an owner, or Parked with its work going on
    SUCCEEDED = "succeeded"  # its result is stored
    FAILED = "failed"  # it cannot work, however often it is tried; no dead letter
    CANCELLED = "cancelled"  # somebody asked for it
    DEAD = "dead"  # its attempts are used up; a dead letter tells of it

    @property
    def is_terminal(self) -> bool:
        """Whether a run of this status never changes again."""
        return self not in LIVE


LIVE = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
"""The statuses that are not terminal."""
TERMINAL = frozenset(RunStatus) - LIVE
"""The statuses that a run never leaves."""


class OnConflict(str, Enum):
    """What enqueueing does when a live run has the same unique key."""

    REFUSE = "refuse"  # raise RunConflict, which names the live run
    JOIN = "join"  # enqueue nothing and return the live run


class NewRun(NamedTuple):
    """A run to be enqueued. Everything about it that matters later is pinned here."""

    namespace: str
    """The jobs.yaml's namespace: only daemons of the same one claim it."""
    job: str
    function: str | None = None
    """The function it calls; None for a job that is no single function."""
    function_version: int = 0
    """The version it started with; stays whatever is registered later. 0 only without a function."""
    payload: bytes = b""
    """The input, at most MAX_PAYLOAD_BYTES."""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    """Higher runs first within a claim."""
    run_at: datetime | None = None
    """Not before this moment; None: at once."""
    unique_key: str | None = None
    """At most one live run of the namespace has it."""
    on_conflict: OnConflict = OnConflict.REFUSE
    trigger_type: TriggerType = TriggerType.JOB
    trigger: str | None = None
    """Which trigger started it, by the id that the trigger has in the slot ledger; None: a person or API."""
    slot: datetime | None = None
    """The due time it stands for, if a time trigger started it."""
    parent_id: int | None = None
    """The run that caused this one: redriven, run again, followed, or enqueued by its guest."""
    retry_count: int = 0
    """Attempts after the first that may fail before it is dead."""
    dlq_topic: str | None = None
    """The topic told if it dies."""
    step: str | None = None
    """For a run that is `Parked` as one of its `children`: which of its steps this is."""
    item: int | None = None
    """Of a step that is run for each item of a list: which, from 0."""
    plan: bytes = b""
    """Of a run without a function: what there is to do, for whoever carries it out. Its reruns have it too."""


class Enqueued(NamedTuple):
    """What enqueueing one run did."""

    run_id: int
    """Counts up in the order of acceptance; never used twice."""
    created: bool
    """False: a live run with the same unique key was joined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimant:
    """Who claims, and what it takes."""

    owner: str
    """Unique among all that claim from this store, now and ever (host, process, start)."""
    namespace: str
    lease_seconds: float = 30
    """How long a claim holds unless it is renewed."""
    queues: frozenset[str] | None = None
    """The queues it takes from; None: all."""
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By queue, how many of its runs may be running at once, over all owners. Absent: no limit."""


class Claim(NamedTuple):
    """A run that is ours until its lease ends: what is needed to carry it out."""

    run_id: int
    token: int
    """The fencing token: grows with every claim; an outcome with another than the newest is refused."""
    attempt: int
    """Which attempt this is; the first is 1. Lost and released ones count here."""
    failures: int
    """Earlier attempts that count against retry_count."""
    namespace: str
    job: str
    function: str | None
    function_version: int
    payload: bytes
    queue: str
    retry_count: int
    trigger_type: TriggerType
    trigger: str | None
    slot: datetime | None
    dlq_topic: str | None
    parent_id: int | None = None
    step: str | None = None
    item: int | None = None
    state: bytes = b""
    """What it left when it was last Parked; empty if it never was."""


class Failure(NamedTuple):
    """Why an attempt did not succeed."""

    error_class: str
    """The name of the error's class."""
    message: str
    stderr_tail: str = ""

    @classmethod
    def of(cls, error: RunnerError) -> Failure:
        """The facts of an error."""
        return cls(error.error_class, storable(str(error)), storable(str(getattr(error, "stderr_tail", ""))))


def storable(text: str) -> str:
    """The text, with what no store can keep (lone surrogates) shown escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class Succeeded(NamedTuple):
    """The attempt ended well: the run is `succeeded` and keeps its output."""

    run_id: int
    token: int
    output: bytes
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()
    reuse: str = ""
    """What is to be known later of its result's reuse, as runner.reuse writes it; mostly empty."""
    recording: bytes | None = None
    """What is kept to replay the attempt, as runner.replay reads it; likewise below."""
    state: bytes = b""
    """What a run that was Parked leaves at its end; empty: what it left before. Likewise below."""


class Retry(NamedTuple):
    """The attempt failed and there is another: the run is `pending` until `run_at`."""

    run_id: int
    token: int
    run_at: datetime
    failure: Failure
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()
    recording: bytes | None = None


class Failed(NamedTuple):
    """The attempt failed as every other would: the run is `failed`."""

    run_id: int
    token: int
    failure: Failure
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()
    recording: bytes | None = None
    state: bytes = b""


class Dead(NamedTuple):
    """The last attempt failed: the run is `dead`, with a dead letter and a message on its dlq_topic."""

    run_id: int
    token: int
    failure: Failure
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()
    recording: bytes | None = None


class Lost(NamedTuple):
    """The worker died under it. The run is `pending` again at once, and `dead` after LOST_IN_A_ROW in
    a row; retry_count has no part in it."""

    run_id: int
    token: int
    failure: Failure
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()
    recording: bytes | None = None


class Cancelled(NamedTuple):
    """The attempt was stopped because somebody asked for it: the run is `cancelled`."""

    run_id: int
    token: int
    reason: str
    duration_ms: float = 0.0
    memory_peak_bytes: int = 0
    logs: Sequence[LogEntry] = ()


class Released(NamedTuple):
    """The owner gives it back: the run is `pending` again. No failure."""

    run_id: int
    token: int
    reason: str
    started: bool = True
    """False: the guest never saw it, so it was no attempt and none is recorded."""
    run_at: datetime | None = None
    """It is not claimed before this moment; None: at once."""


class Parked(NamedTuple):
    """The run waits for others and holds no lease meanwhile: `running` all the same. No attempt, no failure.

    In the same transaction its children are enqueued, with their `parent_id` set. It can be claimed again
    when so many of them have ended as `wake_after` says, one of them other than well, or at once with 0.
    The children that are live when it ends are cancelled with it.
    """

    run_id: int
    token: int
    state: bytes
    """What the next claim of it is given."""
    children: Sequence[NewRun] = ()
    """New runs, each with its `step`, and no two of them and those before with the same step and item."""
    seen: int = 0
    """The number of the latest StepEnded that the state takes account of."""
    wake_after: int = 1
    """Counted from `seen`."""
    progress: int = 0
    """0 to 100."""
    seat: tuple[str, int] | None = None
    """Wait instead, as `pending`, until fewer runs of the namespace sit under this name than the number
    says, and then sit there to the end. Who waits longest comes first. Without children."""


class StepEnded(NamedTuple):
    """The end of a run that was enqueued as a child of one that is Parked."""

    number: int
    """Counts from 1, for each parent, in the order in which its children ended."""
    run_id: int
    step: str
    item: int | None
    status: RunStatus
    error_class: str | None
    """None unless it failed."""
    message: str | None
    """Likewise, or why it was cancelled."""


Outcome = Succeeded | Retry | Failed | Dead | Lost | Cancelled | Released | Parked
"""How an attempt ends. A run that was asked to be cancelled is `cancelled` by every outcome after which
it would not have ended."""


class Renewal(NamedTuple):
    """What renewing leases told; each a (run_id, token) of those that were to be renewed."""

    lost: frozenset[tuple[int, int]]
    """Runs that are no longer ours: stop them, their outcome would be refused."""
    cancel: frozenset[tuple[int, int]]
    """Runs that somebody asked to be cancelled: stop them and finish them as Cancelled."""


class Follower(NamedTuple):
    """`run` is enqueued when a run of `job` ends with one of `statuses`: in the same transaction, with
    its parent_id set and `{"run_id": ..., "job": ..., "status": ...}` as its payload."""

    job: str
    statuses: frozenset[RunStatus]
    run: NewRun
