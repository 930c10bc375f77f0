"""The road of the in-memory run store: enqueue, claim, finish. The rest of it is in memory_runs.py."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from runner.errors import RunConflict
from runner.ledger import Attempt, AttemptStatus, TopicMessage
from runner.models import LogEntry
from runner.run_store import RunStore
from runner.runs import (
    CLAIM_BYTES,
    LIVE,
    LOST_ALTOGETHER,
    LOST_IN_A_ROW,
    Cancelled,
    Claim,
    Claimant,
    Enqueued,
    Failed,
    Failure,
    Follower,
    Lost,
    NewRun,
    OnConflict,
    Outcome,
    Parked,
    Released,
    Renewal,
    Retry,
    RunStatus,
    Succeeded,
)
from runner.testing.memory_steps import check, check_steps, fill_seats, park, tell
from runner.testing.memory_views import Kept, PipeChanges, cut


class MemoryRoad(RunStore):
    """The road of a RunStore in dictionaries, behind one lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[int, Kept] = {}
        self._letters: dict[int, Kept] = {}
        self._messages: list[TopicMessage] = []
        self._followers: tuple[Follower, ...] = ()
        self._counters = {"late_results_refused": 0, "leases_taken_over": 0}
        self._newest = self._claims = self._told = 0
        self._places = itertools.count(1)
        self._waiters: list[PipeChanges] = []
        self._left: list[Kept] = []
        self._ended: list[Kept] = []
        self._parked: list[tuple[Kept, Parked, bool]] = []

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock:
            yield
            for waiter in self._waiters:
                waiter.wake()

    # The road

    def enqueue(self, runs: Sequence[NewRun], *, now: datetime) -> list[Enqueued]:
        """See RunStore.enqueue."""
        with self._change():
            keys: set[tuple[str, str]] = set()
            for run in runs:
                check(run)
                key = (run.namespace, run.unique_key or "")
                holder = self._holder(run)
                if run.unique_key is None:
                    continue
                if (holder or key in keys) and run.on_conflict is not OnConflict.JOIN:
                    raise RunConflict(run.unique_key, holder or 0)
                keys.add(key)
            return [self._accept(run, now) for run in runs]

    def _accept(self, run: NewRun, now: datetime) -> Enqueued:
        holder = self._holder(run)
        if holder is not None:
            return Enqueued(holder, False)
        self._newest += 1
        run_at = run.run_at or now
        self._runs[self._newest] = Kept(
            run_id=self._newest, new=run, created_at=now, run_at=run_at, is_delayed=run_at > now
        )
        return Enqueued(self._newest, True)

    def _holder(self, run: NewRun) -> int | None:
        """The live run with its unique key."""
        if run.unique_key is None:
            return None
        key = (run.namespace, run.unique_key)
        return next((k.run_id for k in self._live() if (k.new.namespace, k.new.unique_key) == key), None)

    def _live(self) -> list[Kept]:
        return [kept for kept in self._runs.values() if kept.status in LIVE]

    def claim(self, claimant: Claimant, limit: int, *, now: datetime) -> list[Claim]:
        """See RunStore.claim."""
        with self._change():
            for held in self._by_token(k for k in self._running() if k.lease_until and k.lease_until <= now):
                self._counters["leases_taken_over"] += len(held)
                for kept in held:
                    assert kept.lease_until is not None
                    self._lose(kept, f"the lease of {kept.owner} ran out at {kept.lease_until.isoformat()}", now)
                self._settle(now)
            chosen = self._choose(claimant, limit, now)
            self._claims += bool(chosen)
            return [self._lease(kept, claimant, now) for kept in chosen]

    def _choose(self, claimant: Claimant, limit: int, now: datetime) -> list[Kept]:
        running = Counter(k.new.queue for k in self._running() if k.new.namespace == claimant.namespace)
        room = CLAIM_BYTES
        chosen: list[Kept] = []
        for kept in self._live():
            kept.is_delayed = kept.is_delayed and kept.run_at > now
        due = (k for k in self._live() if k.status is RunStatus.PENDING and not k.is_delayed and not k.waits)
        for kept in sorted(due, key=lambda kept: kept.order):
            queue = kept.new.queue
            if kept.new.namespace != claimant.namespace or running[queue] >= claimant.limits.get(queue, 2**63):
                continue
            if claimant.queues is not None and queue not in claimant.queues:
                continue
            room -= len(kept.new.payload)
            if len(chosen) >= limit or (room < 0 and chosen):
                break
            running[queue] += 1
            chosen.append(kept)
        return chosen

    def _lease(self, kept: Kept, claimant: Claimant, now: datetime) -> Claim:
        kept.status, kept.token, kept.owner, kept.started_at = RunStatus.RUNNING, self._claims, claimant.owner, now
        kept.lease_until = now + timedelta(seconds=claimant.lease_seconds)
        kept.attempts += 1
        kept.progress = 0
        new = kept.new
        return Claim(
            *(kept.run_id, kept.token, kept.attempts, kept.failures, new.namespace, new.job, new.function),
            *(new.function_version, new.payload, new.queue, new.retry_count, new.trigger_type, new.trigger),
            *(new.slot, new.dlq_topic, new.parent_id, new.step, new.item, kept.state),
        )

    def finish(self, outcomes: Sequence[Outcome], *, now: datetime) -> list[RunStatus | None]:
        """See RunStore.finish."""
        check_steps(outcomes)
        with self._change():
            statuses = [self._finish(outcome, now) for outcome in outcomes]
            self._settle(now)
            return statuses

    def finish_and_claim(
        self, outcomes: Sequence[Outcome], claimant: Claimant, limit: int, *, now: datetime
    ) -> tuple[list[RunStatus | None], list[Claim]]:
        """See RunStore.finish_and_claim."""
        with self._change():
            return self.finish(outcomes, now=now), self.claim(claimant, limit, now=now)

    def _ours(self, run_id: int, token: int) -> Kept | None:
        kept = self._runs.get(run_id)
        return kept if kept and kept.status is RunStatus.RUNNING and kept.token == token else None

    def _finish(self, outcome: Outcome, now: datetime) -> RunStatus | None:
        kept = self._ours(outcome.run_id, outcome.token)
        if kept is None:
            self._counters["late_results_refused"] += 1
            return None
        if isinstance(outcome, Released):
            return self._release(kept, outcome, now)
        if isinstance(outcome, Parked):
            return self._park(kept, outcome, now)
        kept.keep_logs(list(outcome.logs), self._places)
        kept.duration_ms, kept.memory_peak_bytes = outcome.duration_ms, outcome.memory_peak_bytes
        if not isinstance(outcome, Cancelled) and outcome.recording is not None:
            kept.recordings[kept.attempts] = (outcome.recording, now)
        if isinstance(outcome, Succeeded):
            kept.output, kept.progress, kept.lost_in_a_row = bytes(outcome.output), 100, 0
            kept.state = outcome.state or kept.state
            kept.reuse = outcome.reuse
            kept.error_class = kept.message = None
            return self._end(kept, RunStatus.SUCCEEDED, now)
        if isinstance(outcome, Cancelled):
            self._try(kept, AttemptStatus.CANCELLED, Failure("", kept.cancel_reason or outcome.reason), now)
            return self._end(kept, RunStatus.CANCELLED, now)
        if isinstance(outcome, Lost):
            return self._count_lost(kept, outcome.failure, now)
        if isinstance(outcome, Failed):
            kept.state = outcome.state or kept.state
        self._try(kept, AttemptStatus.FAILED, outcome.failure, now)
        kept.failures += 1
        if isinstance(outcome, Retry):
            kept.lost_in_a_row = 0
            return self._wait(kept, now, outcome.run_at)
        return self._end(kept, RunStatus.FAILED if isinstance(outcome, Failed) else RunStatus.DEAD, now)

    def _release(self, kept: Kept, outcome: Released, now: datetime) -> RunStatus:
        if outcome.started:
            kept.duration_ms, kept.memory_peak_bytes = 0.0, 0
            self._try(kept, AttemptStatus.RELEASED, Failure("", outcome.reason), now)
        else:
            kept.forget_attempt()
        return self._wait(kept, now, outcome.run_at)

    def _park(self, kept: Kept, outcome: Parked, now: datetime) -> RunStatus:
        if kept.cancel_reason is not None:
            kept.forget_attempt()
            kept.message, kept.duration_ms, kept.memory_peak_bytes = kept.cancel_reason, 0.0, 0
            return self._end(kept, RunStatus.CANCELLED, now)
        self._parked.append((kept, outcome, park(kept, outcome, kept.started_at)))
        return RunStatus.RUNNING if outcome.seat is None else RunStatus.PENDING

    def _lose(self, kept: Kept, reason: str, now: datetime) -> RunStatus:
        kept.duration_ms, kept.memory_peak_bytes = 0.0, 0
        self._try(kept, AttemptStatus.LOST, Failure("WorkerLost", reason), now)
        lost = sum(attempt.status is AttemptStatus.LOST for attempt in kept.tried[kept.tried_before :])
        if lost < LOST_ALTOGETHER:
            return self._wait(kept, now)
        kept.message = f"it was lost {lost} times, lastly: {reason}"
        return self._end(kept, RunStatus.DEAD, now)

    def _count_lost(self, kept: Kept, failure: Failure, now: datetime) -> RunStatus:
        self._try(kept, AttemptStatus.LOST, failure, now)
        kept.lost_in_a_row += 1
        if kept.lost_in_a_row < LOST_IN_A_ROW:
            return self._wait(kept, now)
        kept.message = f"its worker was lost {kept.lost_in_a_row} times in a row, lastly: {failure.message}"
        return self._end(kept, RunStatus.DEAD, now)

    def _try(self, kept: Kept, status: AttemptStatus, failure: Failure, now: datetime) -> None:
        assert kept.started_at is not None
        kept.error_class, kept.message = failure.error_class or None, cut(failure.message)
        kept.tried.append(
            Attempt(
                run_id=kept.run_id,
                number=kept.attempts,
                status=status,
                owner=kept.owner or "",
                started_at=kept.started_at,
                finished_at=now,
                function_version=kept.new.function_version,
                error_class=kept.error_class,
                message=kept.message,
                stderr_tail=failure.stderr_tail,
                duration_ms=kept.duration_ms,
                memory_peak_bytes=kept.memory_peak_bytes,
            )
        )

    def _wait(self, kept: Kept, now: datetime, run_at: datetime | None = None) -> RunStatus:
        if kept.cancel_reason is not None:
            kept.message = kept.cancel_reason
            return self._end(kept, RunStatus.CANCELLED, now)
        kept.status, kept.lease_until = RunStatus.PENDING, None
        kept.run_at = max(kept.run_at, run_at or kept.run_at)
        kept.is_delayed = run_at is not None and run_at > now
        return RunStatus.PENDING

    def _end(self, kept: Kept, status: RunStatus, now: datetime) -> RunStatus:
        kept.status, kept.finished_at, kept.lease_until = status, now, None
        kept.run_at = kept.new.run_at or kept.created_at
        self._left.append(kept)
        self._ended.append(kept)
        if kept.seat is not None:
            name, kept.seat = kept.seat[0], None
            fill_seats(self._runs, kept.new.namespace, name)
        parent = self._runs.get(kept.new.parent_id or 0)
        if kept.new.step is not None and parent is not None:
            tell(parent, [kept])
        if status is RunStatus.DEAD:
            self._letters[kept.run_id] = kept
            if kept.new.dlq_topic is not None:
                facts = {**kept.new._asdict(), "run_id": kept.run_id, "attempts": kept.attempts}
                facts |= {"error_class": kept.error_class, "message": kept.message, "failed_at": now.isoformat()}
                names = ("run_id", "namespace", "job", "function", "function_version", "error_class", "message")
                message = {name: facts[name] for name in (*names, "attempts", "failed_at")}
                self._tell(kept.new.dlq_topic, json.dumps(message).encode(), now, kept.run_id)
        return status

    def _settle(self, now: datetime) -> None:
        """What comes of it that runs have ended or parked, once all of a call are settled."""
        self._cancel_left(now)
        while self._ended:
            self._follow(self._ended.pop(0), now)
        while self._parked:
            kept, outcome, stands = self._parked.pop(0)
            for child in outcome.children:
                self._accept(child._replace(parent_id=kept.run_id), now)
            if stands and kept.seat is not None:
                fill_seats(self._runs, kept.new.namespace, kept.seat[0])

    def _follow(self, kept: Kept, now: datetime) -> None:
        for job, statuses, run in self._followers:
            ours = (job, run.namespace) == (kept.new.job, kept.new.namespace) and kept.new.step is None
            if ours and kept.status in statuses:
                payload = json.dumps({"run_id": kept.run_id, "job": job, "status": kept.status.value}).encode()
                self._accept(run._replace(parent_id=kept.run_id, payload=payload), now)

    def _cancel_left(self, now: datetime) -> None:
        """Cancel the steps that are live of runs that have ended."""
        while self._left:
            parent = self._left.pop(0)
            steps = (k for k in self._live() if k.new.step is not None and k.new.parent_id == parent.run_id)
            for kept in steps:
                self._ask(kept, "the run that it is a step of has ended", now)

    def _ask(self, kept: Kept, reason: str, now: datetime) -> None:
        """Cancel a live run at once if it is pending, or else ask its owner to."""
        if kept.status is RunStatus.PENDING:
            kept.message, kept.duration_ms, kept.memory_peak_bytes = reason, 0.0, 0
            self._end(kept, RunStatus.CANCELLED, now)
        elif kept.cancel_reason is None:
            kept.cancel_reason = reason

    def renew(self, held: Sequence[tuple[int, int]], *, until: datetime) -> Renewal:
        """See RunStore.renew."""
        with self._lock:
            ours = {(run_id, token): kept for run_id, token in held if (kept := self._ours(run_id, token))}
            for kept in ours.values():
                kept.lease_until = max(kept.lease_until or until, until)
            asked = (lease for lease, kept in ours.items() if kept.cancel_reason is not None)
            return Renewal(frozenset(set(held) - ours.keys()), frozenset(asked))

    def cancel_requests(self, owner: str) -> list[tuple[int, int]]:
        """See RunStore.cancel_requests."""
        with self._lock:
            asked = (k for k in self._running() if k.cancel_reason is not None and k.owner == owner)
            return [(kept.run_id, kept.token) for kept in asked]

    def _running(self) -> list[Kept]:
        return [kept for kept in self._runs.values() if kept.status is RunStatus.RUNNING]

    def report_progress(self, reports: Sequence[tuple[int, int, int]]) -> None:
        """See RunStore.report_progress."""
        with self._change():
            for run_id, token, percent in reports:
                kept = self._ours(run_id, token)
                if kept is not None:
                    kept.progress = max(0, min(100, percent))

    def add_logs(self, run_id: int, token: int, entries: Sequence[LogEntry]) -> None:
        """See RunStore.add_logs."""
        with self._change():
            kept = self._ours(run_id, token)
            if kept is not None:
                kept.keep_logs(list(entries), self._places)

    def take_back(self, owner: str, reason: str, *, now: datetime) -> int:
        """See RunStore.take_back."""
        with self._change():
            count = 0
            for held in self._by_token(kept for kept in self._running() if kept.owner == owner):
                for kept in held:
                    self._lose(kept, f"{owner} is gone: {reason}", now)
                self._settle(now)
                count += len(held)
            return count

    @staticmethod
    def _by_token(runs: Iterable[Kept]) -> list[list[Kept]]:
        ordered = sorted(runs, key=lambda kept: (kept.token, kept.run_id))
        return [list(held) for _, held in itertools.groupby(ordered, key=lambda kept: kept.token)]

    def _tell(self, topic: str, payload: bytes, now: datetime, run_id: int | None = None) -> None:
        self._told += 1
        self._messages.append(TopicMessage(self._told, topic, payload, now, run_id))
