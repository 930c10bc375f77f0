"""The contract of the durable queue: runs, leases, dead letters, the ledger of slots.

It speaks in the values of runs.py and ledger.py. `runner.testing` holds its conformance suite,
RunStoreContract, and an in-memory double. A registry backend gives its store with `run_store()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType

from runner.ledger import (
    Attempt,
    DeadLetter,
    Depth,
    LogPage,
    RecordedSlot,
    Retention,
    Run,
    RunFilter,
    RunLog,
    SlotEntry,
    TopicMessage,
    Why,
)
from runner.models import LogEntry
from runner.runs import Claim, Claimant, Enqueued, Follower, NewRun, Outcome, Renewal, RunStatus, StepEnded


class Changes(ABC):
    """Tells that the store has changed, by whichever thread or process. One waiter has one.

    Whatever is committed after it was made wakes it, so: make it, look, wait, look again.
    """

    @abstractmethod
    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Sleep until a change that was not told yet; False if the time ran out first (None: no limit).
        Several changes may be told as one, and one may be told that is of no interest to you."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable while a change was not told yet, for select and poll."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening. May be called twice; a `wait` in another thread should have ended."""

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RunStore(ABC):
    """Keeps runs durably, leases them out and remembers what became of them.

    Every method that changes something is atomic and, when it returns, on the disk; threads that call
    at once share a commit. Every method may be called from several threads and processes at once and
    may raise StoreError; then nothing of the call has happened.

    The clock is the caller's: `now` must be aware. All daemons on a store should agree on it to within
    their lease; the store itself compares moments and never reads a clock.
    """

    # The road

    @abstractmethod
    def enqueue(self, runs: Sequence[NewRun], *, now: datetime) -> list[Enqueued]:
        """Accept all of these runs, in one transaction, or none. One result for each, in order.

        Raises InputTooLarge, or RunConflict for a run whose unique key a live run has (also one
        earlier in `runs`) unless it asks to join.
        """

    @abstractmethod
    def claim(self, claimant: Claimant, limit: int, *, now: datetime) -> list[Claim]:
        """Lease up to `limit` due runs to the claimant: highest priority first, then by run_at, then by
        acceptance. Fewer when there are no more, when queues are at their limits, or when their
        payloads pass CLAIM_BYTES together.

        Leases that have run out are taken over first, whoever's they are: the attempt is recorded as
        lost with its reason. What the run's owner died of is not the run's doing, so this has no part in
        LOST_IN_A_ROW; but it is `dead` after LOST_ALTOGETHER lost attempts.
        """

    @abstractmethod
    def finish(self, outcomes: Sequence[Outcome], *, now: datetime) -> list[RunStatus | None]:
        """Record how attempts ended, in one transaction. For each, in order, the status that its run has
        now, or None: refused, because the lease was lost to another or the run is terminal already.
        Refusals change nothing but the counter `late_results_refused`.
        """

    @abstractmethod
    def finish_and_claim(
        self, outcomes: Sequence[Outcome], claimant: Claimant, limit: int, *, now: datetime
    ) -> tuple[list[RunStatus | None], list[Claim]]:
        """`finish`, then `claim`, in one transaction: what a busy daemon does, for one commit."""

    @abstractmethod
    def renew(self, held: Sequence[tuple[int, int]], *, until: datetime) -> Renewal:
        """Prolong leases, each a (run_id, token); never shortens one. A store may prolong others of the
        same claim with it."""

    @abstractmethod
    def cancel_requests(self, owner: str) -> list[tuple[int, int]]:
        """The (run_id, token) of this owner's running runs that somebody asked to be cancelled."""

    @abstractmethod
    def report_progress(self, reports: Sequence[tuple[int, int, int]]) -> None:
        """Set the progress of running runs, each a (run_id, token, percent from 0 to 100). A late one is
        ignored."""

    @abstractmethod
    def add_logs(self, run_id: int, token: int, entries: Sequence[LogEntry]) -> None:
        """Append log lines to a running attempt, so that they can be followed. Capped with those of its
        outcome at MAX_LOG_LINES; a late one is ignored."""

    @abstractmethod
    def take_back(self, owner: str, reason: str, *, now: datetime) -> int:
        """End all leases of an owner that is known to be dead, as if they had run out; how many."""

    @abstractmethod
    def owners(self) -> list[str]:
        """Everybody who holds a lease, also one that ran out."""

    @abstractmethod
    def next_due(self, namespace: str) -> datetime | None:
        """The earliest moment at which time alone makes more claimable: a delay or a lease ends. None
        when only a change can. It may be past when something became due since the last claim; what a
        claim could have taken and did not (limits) does not count."""

    @abstractmethod
    def changes(self, *, besides: str = "") -> Changes:
        """Listen for changes of any thread and process from now on. A store may leave out what the owner
        `besides` changes by `finish_and_claim`, as long as all it finishes has succeeded: it has claimed
        what became due by that, up to its limit."""

    @abstractmethod
    def follow(self, followers: Sequence[Follower]) -> None:
        """From now on enqueue these after runs that become terminal through this object, in the same
        transaction. Replaces what was given before."""

    # Runs that wait for others

    @abstractmethod
    def plan(self, run_id: int) -> bytes:
        """The plan that it was enqueued with. Raises RunNotFound."""

    @abstractmethod
    def state(self, run_id: int) -> bytes:
        """What it left when it was last Parked; empty if it never was. Raises RunNotFound."""

    @abstractmethod
    def steps_ended(self, run_id: int, *, after: int = 0, limit: int = 1000) -> list[StepEnded]:
        """Its children that have ended, in that order, those after a number. Those that were pruned are
        left out; none is while its parent is live."""

    @abstractmethod
    def step_outputs(
        self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000
    ) -> list[tuple[int, bytes]]:
        """Items of a step that succeeded with their outputs, in order, those after an item; of a step
        without items it is item 0. Where children of several of these runs have the item, the first run's
        counts. Fewer than `limit` when there are no more or the outputs pass CLAIM_BYTES together."""

    @abstractmethod
    def step_items(self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000) -> list[int]:
        """The same without the outputs: which items of a step succeeded."""

    # What people ask for

    @abstractmethod
    def cancel(self, run_id: int, reason: str, *, now: datetime) -> RunStatus:
        """Cancel a pending or Parked run at once, or ask the owner of a running one to. The status it has
        now: `cancelled`, `running` (asked), or the terminal one it had. Raises RunNotFound."""

    @abstractmethod
    def rerun(self, run_id: int, *, now: datetime) -> Enqueued:
        """Enqueue a terminal run again as a new run: same payload, function and version, due at once,
        `parent_id` set. Raises RunNotFound, RunConflict, and UsageError while it is live."""

    @abstractmethod
    def get(self, run_id: int) -> Run:
        """The run. Raises RunNotFound."""

    @abstractmethod
    def payload(self, run_id: int) -> bytes:
        """Its input. Raises RunNotFound."""

    @abstractmethod
    def result(self, run_id: int) -> bytes | None:
        """Its output; None unless it succeeded. Raises RunNotFound."""

    @abstractmethod
    def list_runs(self, filter: RunFilter, *, before: int | None = None, limit: int = 100) -> list[Run]:
        """Runs that pass the filter, newest first; `before` a run_id, to turn the page."""

    @abstractmethod
    def attempts(self, run_id: int) -> list[Attempt]:
        """Its attempts in order, a running one last. Raises RunNotFound."""

    @abstractmethod
    def recording(self, run_id: int, attempt: int) -> bytes | None:
        """What was kept to replay an attempt; None if nothing was, or not any more. Raises RunNotFound."""

    @abstractmethod
    def logs(self, run_id: int, *, after: tuple[int, int] = (0, 0), limit: int = 1000) -> list[RunLog]:
        """Log lines of all its attempts in order, those after an (attempt, number). Raises RunNotFound."""

    @abstractmethod
    def tail(self, filter: RunFilter, *, after: int | None = None, limit: int = 1000) -> LogPage:
        """Log lines of all runs that pass the filter, in the order in which they were stored: the newest,
        or with `after`, the place that an earlier page named, the first that came behind it. Wait for
        `changes` and ask again with the page's `after` to follow them live."""

    @abstractmethod
    def why(self, run_id: int, *, now: datetime) -> Why:
        """What is known about why it ran, waits or failed. Raises RunNotFound."""

    @abstractmethod
    def reuse_facts(self, run_ids: Sequence[int]) -> dict[int, str]:
        """The `reuse` of the outcomes of those of these runs that have one."""

    @abstractmethod
    def depth(self, namespace: str | None = None, *, queues: frozenset[str] | None = None, now: datetime) -> Depth:
        """How much waits, for one namespace or all, and for some queues or all."""

    @abstractmethod
    def counters(self) -> Mapping[str, int]:
        """Counts since the store was made: `late_results_refused`, `leases_taken_over`."""

    # Dead letters and topics

    @abstractmethod
    def dead_letters(
        self, *, namespace: str | None = None, job: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Dead letters, newest run first; `before` a dead_letter_id, to turn the page."""

    @abstractmethod
    def redrive(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
        now: datetime,
    ) -> list[Enqueued]:
        """Run dead letters again, as `rerun`, and drop each in the same transaction: those with these
        ids, or the oldest of a job, or of all, up to `limit`. One whose unique key is live stays and is
        left out of the result; call again until it is empty to redrive all."""

    @abstractmethod
    def drop(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
    ) -> int:
        """Forget dead letters, chosen as in `redrive`; how many. Their runs stay, as `dead`."""

    @abstractmethod
    def publish(self, topic: str, payloads: Sequence[bytes], *, now: datetime) -> None:
        """Append messages to a topic."""

    @abstractmethod
    def read_topic(self, topic: str, *, after: int = 0, limit: int = 100) -> list[TopicMessage]:
        """Messages of a topic in order, those after a number."""

    # The ledger of slots

    @abstractmethod
    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """Write due slots into the ledger and enqueue their runs, in one transaction. One result for
        each, in order; a slot that the ledger has stays as it is, and nothing is enqueued for it.

        A run whose unique key is live is not enqueued: its slot is recorded as skipped, with that
        reason, or as this entry with the live run's id when it asks to join.
        """

    @abstractmethod
    def last_slots(self, triggers: Sequence[str]) -> dict[str, datetime]:
        """The latest slot in the ledger of each of these triggers that has one. Never pruned."""

    @abstractmethod
    def slot(self, trigger: str, slot: datetime) -> RecordedSlot | None:
        """One entry of the ledger."""

    @abstractmethod
    def slots(self, trigger: str, *, before: datetime | None = None, limit: int = 100) -> list[RecordedSlot]:
        """Entries of a trigger, latest slot first."""

    @abstractmethod
    def live_runs(self, triggers: Sequence[str]) -> dict[str, list[int]]:
        """The pending and running runs that these triggers started, in order: what `overlap` looks at."""

    # Care

    @abstractmethod
    def prune(self, retention: Retention, *, now: datetime, limit: int = 500) -> bool:
        """Look at about `limit` rows and delete what is older than it is to be kept. Whether there is
        more to look at: call again later until False, and begin again some time after."""

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections. May be called twice."""
