"""The RunStore `sqlite`: every method is one transaction of the module beside that holds its statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

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
from runner.run_store import Changes, RunStore
from runner.runs import (
    Claim,
    Claimant,
    Enqueued,
    Follower,
    NewRun,
    Outcome,
    Parked,
    Renewal,
    RunStatus,
    StepEnded,
    Succeeded,
)
from runner_sqlite import counters, dead_letters, leases, pipelines, reading, recordings, run_logs, slots
from runner_sqlite.bell import Bell
from runner_sqlite.connection import Store
from runner_sqlite.enqueue import accept, check
from runner_sqlite.failures import damaged, translated
from runner_sqlite.moments import from_number, or_none, to_number
from runner_sqlite.outcomes import cancel, finish, report_progress
from runner_sqlite.prune import prune
from runner_sqlite.writer import Writer

T = TypeVar("T")


class SqliteRunStore(RunStore):
    """A RunStore in one SQLite file, beside whatever else is kept in it."""

    def __init__(self, store: Store) -> None:
        """Over an open Store, which stays whose it is."""
        self._store = store
        self._bell = Bell(store.path)
        self._writer = Writer(store, self._bell.ring)
        self._followers: tuple[Follower, ...] = ()
        self._owns_store = False
        self._do = self._writer.do

    @classmethod
    def open(cls, path: Path, *, busy_timeout_seconds: float = 10.0) -> SqliteRunStore:
        """Over a Store of its own, which `close` closes."""
        opened = cls(Store(path, busy_timeout_seconds=busy_timeout_seconds))
        opened._owns_store = True
        return opened

    # The road

    def enqueue(self, runs: Sequence[NewRun], *, now: datetime) -> list[Enqueued]:
        """See RunStore.enqueue."""
        check(runs)
        moment = to_number(now)
        return self._do(lambda connection: accept(connection, runs, moment))

    def claim(self, claimant: Claimant, limit: int, *, now: datetime) -> list[Claim]:
        """See RunStore.claim."""
        moment, followers = to_number(now), self._followers

        def work(connection: sqlite3.Connection) -> list[Claim]:
            with self._sound():
                return leases.claim(connection, claimant, limit, moment, followers)

        return self._do(work)

    def finish(self, outcomes: Sequence[Outcome], *, now: datetime) -> list[RunStatus | None]:
        """See RunStore.finish."""
        _check_steps(outcomes)
        moment, followers = to_number(now), self._followers
        return self._do(lambda connection: finish(connection, outcomes, moment, followers))

    def finish_and_claim(
        self, outcomes: Sequence[Outcome], claimant: Claimant, limit: int, *, now: datetime
    ) -> tuple[list[RunStatus | None], list[Claim]]:
        """See RunStore.finish_and_claim."""
        _check_steps(outcomes)
        moment, followers = to_number(now), self._followers

        def both(connection: sqlite3.Connection) -> tuple[list[RunStatus | None], list[Claim]]:
            finished = finish(connection, outcomes, moment, followers)
            with self._sound():
                return finished, leases.claim(connection, claimant, limit, moment, followers)

        # Who claims knows what it left; a failure may have made something due later, or cancelled others.
        by = claimant.owner if all(type(outcome) is Succeeded for outcome in outcomes) else ""
        return self._do(both, by)

    def renew(self, held: Sequence[tuple[int, int]], *, until: datetime) -> Renewal:
        """See RunStore.renew."""
        moment = to_number(until)
        return self._do(lambda connection: leases.renew(connection, held, moment))

    def cancel_requests(self, owner: str) -> list[tuple[int, int]]:
        """See RunStore.cancel_requests."""
        return self._look(lambda connection: leases.cancel_requests(connection, owner))

    def report_progress(self, reports: Sequence[tuple[int, int, int]]) -> None:
        """See RunStore.report_progress."""
        self._do(lambda connection: report_progress(connection, reports))

    def add_logs(self, run_id: int, token: int, entries: Sequence[LogEntry]) -> None:
        """See RunStore.add_logs."""
        self._do(lambda connection: run_logs.add(connection, run_id, token, entries))

    def take_back(self, owner: str, reason: str, *, now: datetime) -> int:
        """See RunStore.take_back."""
        moment, followers = to_number(now), self._followers
        return self._do(lambda connection: leases.take_back(connection, owner, reason, moment, followers))

    def owners(self) -> list[str]:
        """See RunStore.owners."""
        return self._look(leases.owners)

    def next_due(self, namespace: str) -> datetime | None:
        """See RunStore.next_due."""
        return self._look(lambda connection: or_none(leases.next_due(connection, namespace)))

    def changes(self, *, besides: str = "") -> Changes:
        """See RunStore.changes."""
        with translated(self._store.path):
            return self._bell.listen(besides)

    def follow(self, followers: Sequence[Follower]) -> None:
        """See RunStore.follow."""
        check(follower.run for follower in followers)
        self._followers = tuple(followers)

    # Runs that wait for others

    def plan(self, run_id: int) -> bytes:
        """See RunStore.plan."""
        return self._look(lambda connection: pipelines.plan(connection, run_id))

    def state(self, run_id: int) -> bytes:
        """See RunStore.state."""
        return self._look(lambda connection: pipelines.state(connection, run_id))

    def steps_ended(self, run_id: int, *, after: int = 0, limit: int = 1000) -> list[StepEnded]:
        """See RunStore.steps_ended."""
        return self._look(lambda connection: pipelines.steps_ended(connection, run_id, after, limit))

    def step_outputs(
        self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000
    ) -> list[tuple[int, bytes]]:
        """See RunStore.step_outputs."""
        return self._look(lambda connection: pipelines.step_outputs(connection, run_ids, step, after, limit))

    def step_items(self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000) -> list[int]:
        """See RunStore.step_items."""
        return self._look(lambda connection: pipelines.step_items(connection, run_ids, step, after, limit))

    # What people ask for

    def cancel(self, run_id: int, reason: str, *, now: datetime) -> RunStatus:
        """See RunStore.cancel."""
        moment, followers = to_number(now), self._followers
        return self._do(lambda connection: cancel(connection, run_id, reason, moment, followers))

    def rerun(self, run_id: int, *, now: datetime) -> Enqueued:
        """See RunStore.rerun."""
        moment = to_number(now)
        return self._do(lambda connection: dead_letters.rerun(connection, run_id, moment))

    def get(self, run_id: int) -> Run:
        """See RunStore.get."""
        return self._look(lambda connection: reading.run(connection, run_id))

    def payload(self, run_id: int) -> bytes:
        """See RunStore.payload."""
        return self._look(lambda connection: reading.value(connection, run_id, "payload")) or b""

    def result(self, run_id: int) -> bytes | None:
        """See RunStore.result."""
        return self._look(lambda connection: reading.value(connection, run_id, "result"))

    def list_runs(self, filter: RunFilter, *, before: int | None = None, limit: int = 100) -> list[Run]:
        """See RunStore.list_runs."""
        return self._look(lambda connection: reading.page(connection, filter, before, limit))

    def attempts(self, run_id: int) -> list[Attempt]:
        """See RunStore.attempts."""
        return self._look(lambda connection: reading.attempts(connection, run_id))

    def recording(self, run_id: int, attempt: int) -> bytes | None:
        """See RunStore.recording."""
        return self._look(lambda connection: recordings.get(connection, run_id, attempt))

    def logs(self, run_id: int, *, after: tuple[int, int] = (0, 0), limit: int = 1000) -> list[RunLog]:
        """See RunStore.logs."""
        return self._look(lambda connection: reading.logs(connection, run_id, after, limit))

    def tail(self, filter: RunFilter, *, after: int | None = None, limit: int = 1000) -> LogPage:
        """See RunStore.tail."""
        return self._look(lambda connection: reading.tail(connection, filter, after, limit))

    def why(self, run_id: int, *, now: datetime) -> Why:
        """See RunStore.why."""
        moment = to_number(now)
        return self._look(lambda connection: reading.why(connection, run_id, moment))

    def reuse_facts(self, run_ids: Sequence[int]) -> dict[int, str]:
        """See RunStore.reuse_facts."""
        return self._look(lambda connection: reading.reuse_facts(connection, run_ids))

    def depth(self, namespace: str | None = None, *, queues: frozenset[str] | None = None, now: datetime) -> Depth:
        """See RunStore.depth."""
        moment = to_number(now)
        return self._look(lambda connection: reading.depth(connection, namespace, queues, moment))

    def counters(self) -> Mapping[str, int]:
        """See RunStore.counters."""
        names = ("late_results_refused", "leases_taken_over")
        return self._look(lambda connection: {name: counters.value(connection, name) for name in names})

    # Dead letters and topics

    def dead_letters(
        self, *, namespace: str | None = None, job: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """See RunStore.dead_letters."""
        return self._look(lambda connection: dead_letters.listed(connection, namespace, job, before, limit))

    def redrive(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
        now: datetime,
    ) -> list[Enqueued]:
        """See RunStore.redrive."""
        moment = to_number(now)
        return self._do(lambda connection: dead_letters.redrive(connection, ids, namespace, job, limit, moment))

    def drop(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
    ) -> int:
        """See RunStore.drop."""
        return self._do(lambda connection: dead_letters.drop(connection, ids, namespace, job, limit))

    def publish(self, topic: str, payloads: Sequence[bytes], *, now: datetime) -> None:
        """See RunStore.publish."""
        moment = to_number(now)
        self._do(lambda connection: dead_letters.publish(connection, topic, payloads, moment))

    def read_topic(self, topic: str, *, after: int = 0, limit: int = 100) -> list[TopicMessage]:
        """See RunStore.read_topic."""
        return self._look(lambda connection: dead_letters.read_topic(connection, topic, after, limit))

    # The ledger of slots

    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """See RunStore.record_slots."""
        check(entry.run for entry in entries if entry.run is not None)
        moment = to_number(now)
        return self._do(lambda connection: slots.record(connection, entries, moment))

    def last_slots(self, triggers: Sequence[str]) -> dict[str, datetime]:
        """See RunStore.last_slots."""
        return self._look(
            lambda connection: {trigger: from_number(slot) for trigger, slot in slots.last(connection, triggers)}
        )

    def slot(self, trigger: str, slot: datetime) -> RecordedSlot | None:
        """See RunStore.slot."""
        moment = to_number(slot)
        return self._look(lambda connection: slots.one(connection, trigger, moment))

    def slots(self, trigger: str, *, before: datetime | None = None, limit: int = 100) -> list[RecordedSlot]:
        """See RunStore.slots."""
        moment = None if before is None else to_number(before)
        return self._look(lambda connection: slots.of_trigger(connection, trigger, moment, limit))

    def live_runs(self, triggers: Sequence[str]) -> dict[str, list[int]]:
        """See RunStore.live_runs."""
        return self._look(lambda connection: slots.live_runs(connection, triggers))

    # Care

    def prune(self, retention: Retention, *, now: datetime, limit: int = 500) -> bool:
        """See RunStore.prune."""
        moment = to_number(now)
        return self._do(lambda connection: prune(connection, retention, moment, limit))

    def close(self) -> None:
        """See RunStore.close."""
        self._bell.close()
        if self._owns_store:
            self._store.close()

    def _look(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` sees, all of it at the same moment."""
        with self._store.read() as connection:
            connection.execute("BEGIN")
            try:
                with self._sound():
                    return look(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """What was stored and cannot have been is damage: a moment that is text, a status that is none."""
        try:
            yield
        except UnicodeEncodeError:  # of what was asked
            raise
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise damaged(self._store.path, error) from error


def _check_steps(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Parked):
            check(outcome.children, are_steps=True)
