"""How runs end or go back to waiting: the outcomes of attempts, lost leases, cancelling.

A Settlement gathers what is to change and writes it with a few statements. A run is in `queue` or in
`outcomes` and never in both: its row is deleted from the one as it is inserted into the other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from runner.errors import RunNotFound
from runner.ledger import AttemptStatus
from runner.models import LogEntry
from runner.runs import (
    LOST_ALTOGETHER,
    LOST_IN_A_ROW,
    Cancelled,
    Dead,
    Failed,
    Failure,
    Follower,
    Lost,
    Outcome,
    Parked,
    Released,
    Retry,
    RunStatus,
    Succeeded,
)
from runner_sqlite import counters, dead_letters, pipelines, recordings, run_logs
from runner_sqlite.followers import enqueue_followers
from runner_sqlite.moments import to_number

_STATES = (
    "SELECT q.run_id, q.token, attempts, failures, lost_in_a_row, progress, cancel_reason, owner, claimed_at "
    "FROM json_each(?) CROSS JOIN queue q ON q.run_id = value LEFT JOIN leases l ON l.token = q.token"
)
_END = (
    "INSERT INTO outcomes (run_id, status, finished_at, started_at, owner, attempts, failures, lost_in_a_row, "
    "progress, duration_ms, memory_peak_bytes, error_class, message, result_size, result) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BACK = (
    "UPDATE queue SET token = NULL, ready = ?, run_at = MAX(run_at, ?), attempts = ?, failures = ?, lost_in_a_row = ? "
    "WHERE run_id = ? AND token = ?"
)
_ATTEMPT = (
    "INSERT INTO attempts (run_id, attempt, status, owner, started_at, finished_at, duration_ms, memory_peak_bytes, "
    "error_class, message, stderr_tail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


_ASK = "UPDATE queue SET cancel_reason = COALESCE(cancel_reason, ?) WHERE run_id = ?"
_EMPTY_LEASES = (
    "DELETE FROM leases WHERE token IN (SELECT value FROM json_each(?)) "
    "AND NOT EXISTS (SELECT 1 FROM queue WHERE queue.token = leases.token)"
)


class State(NamedTuple):
    """A live run: its row in `queue` and the lease it is under, if it is."""

    run_id: int
    token: int | None
    attempts: int
    failures: int
    lost_in_a_row: int
    progress: int
    cancel_reason: str | None
    owner: str | None
    started_at: int | None


def states(connection: sqlite3.Connection, run_ids: Sequence[int]) -> dict[int, State]:
    """Those of these runs that are live."""
    rows = connection.execute(_STATES, (json.dumps(run_ids),))
    return {row[0]: State._make(row) for row in rows}


def finish(
    connection: sqlite3.Connection, outcomes: Sequence[Outcome], now: int, followers: Sequence[Follower]
) -> list[RunStatus | None]:
    """See RunStore.finish."""
    live = states(connection, [outcome.run_id for outcome in outcomes])
    settlement = Settlement(now)
    results: list[RunStatus | None] = []
    for outcome in outcomes:
        state = live.get(outcome.run_id)
        if state is None or state.token != outcome.token:
            results.append(None)
            continue
        del live[outcome.run_id]  # a second outcome of it in the same call is late
        results.append(_SETTLE[type(outcome)](settlement, state, outcome))
        if isinstance(outcome, _RECORDED) and outcome.recording is not None:
            settlement.keep_recording(state, outcome.recording)
    settlement.write(connection, followers)
    late = results.count(None)
    if late:
        counters.add(connection, "late_results_refused", late)
    return results


def cancel(
    connection: sqlite3.Connection, run_id: int, reason: str, now: int, followers: Sequence[Follower]
) -> RunStatus:
    """See RunStore.cancel."""
    state = states(connection, [run_id]).get(run_id)
    if state is None:
        row = connection.execute("SELECT status FROM outcomes WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise RunNotFound(run_id)
        return RunStatus(row[0])
    cancel_all(connection, [run_id], reason, now, followers)
    return RunStatus.CANCELLED if state.token is None else RunStatus.RUNNING


def cancel_all(
    connection: sqlite3.Connection, run_ids: Sequence[int], reason: str, now: int, followers: Sequence[Follower]
) -> None:
    """Cancel what is pending of these live runs, and ask the owners of those that run to."""
    settlement = Settlement(now)
    for state in states(connection, run_ids).values():
        if state.token is None:
            settlement.cancel_pending(state, reason)
        else:
            connection.execute(_ASK, (run_logs.cut(reason), state.run_id))
    settlement.write(connection, followers)


def report_progress(connection: sqlite3.Connection, reports: Sequence[tuple[int, int, int]]) -> None:
    """See RunStore.report_progress."""
    connection.executemany(
        "UPDATE queue SET progress = MAX(0, MIN(100, ?)) WHERE run_id = ? AND token = ?",
        [(percent, run_id, token) for run_id, token, percent in reports],
    )


_RECORDED = (Succeeded, Retry, Failed, Dead, Lost)
_Measured = Retry | Failed | Dead | Lost | Cancelled
"""Outcomes of attempts that did not succeed, with what was measured."""


class Settlement:
    """What is to become of live runs, gathered and then written at once."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._ended: list[tuple[Any, ...]] = []
        self._back: list[tuple[Any, ...]] = []
        self._attempts: list[tuple[Any, ...]] = []
        self._logs: list[tuple[int, int, Sequence[LogEntry]]] = []
        self._recordings: list[tuple[int, int, int, bytes]] = []
        self._dead: list[int] = []
        self._parked: list[tuple[State, Parked]] = []
        self._states: list[tuple[int, int | None, bytes]] = []
        self._tokens: set[int] = set()
        self._reuse: list[tuple[int, str]] = []

    def succeeded(self, state: State, outcome: Succeeded) -> RunStatus:
        """The run ends well."""
        _, token, output, duration_ms, memory_peak_bytes, logs, reuse, _, left = outcome
        run_id, _, attempts, failures, _, _, _, owner, started_at = state
        self._ended.append(
            (
                *(run_id, "succeeded", self._now, started_at, owner, attempts, failures, 0, 100),
                *(duration_ms, memory_peak_bytes, None, None, len(output), output),
            )
        )
        self._tokens.add(token)
        if logs:
            self._logs.append((run_id, attempts, logs))
        if reuse:
            self._reuse.append((run_id, reuse))
        if left:
            self._states.append((run_id, started_at, left))
        return RunStatus.SUCCEEDED

    def failed(self, state: State, outcome: Failed) -> RunStatus:
        """The run ends as failed."""
        if outcome.state:
            self._states.append((state.run_id, state.started_at, outcome.state))
        self._attempt(state, AttemptStatus.FAILED, outcome.failure, outcome)
        return self._end(state._replace(failures=state.failures + 1), RunStatus.FAILED, outcome.failure, outcome)

    def dead(self, state: State, outcome: Dead) -> RunStatus:
        """The run dies of its last failure."""
        self._attempt(state, AttemptStatus.FAILED, outcome.failure, outcome)
        return self._end(state._replace(failures=state.failures + 1), RunStatus.DEAD, outcome.failure, outcome)

    def retry(self, state: State, outcome: Retry) -> RunStatus:
        """The run waits for another attempt."""
        self._attempt(state, AttemptStatus.FAILED, outcome.failure, outcome)
        after = state._replace(failures=state.failures + 1, lost_in_a_row=0)
        return self._wait(after, to_number(outcome.run_at), outcome.failure, outcome)

    def lost(self, state: State, outcome: Lost) -> RunStatus:
        """The run waits again, or dies of what it does to its workers."""
        self._attempt(state, AttemptStatus.LOST, outcome.failure, outcome)
        lost = state.lost_in_a_row + 1
        after = state._replace(lost_in_a_row=lost)
        if lost < LOST_IN_A_ROW:
            return self._wait(after, 0, outcome.failure, outcome)
        message = f"its worker was lost {lost} times in a row, lastly: {outcome.failure.message}"
        return self._end(after, RunStatus.DEAD, outcome.failure._replace(message=message), outcome)

    def abandoned(self, state: State, reason: str, lost_before: int) -> RunStatus:
        """Its owner is gone: the run waits again, unless this has happened too often."""
        failure = Failure("WorkerLost", reason)
        self._attempt(state, AttemptStatus.LOST, failure)
        lost = lost_before + 1
        if lost < LOST_ALTOGETHER:
            return self._wait(state, 0, failure)
        return self._end(state, RunStatus.DEAD, failure._replace(message=f"it was lost {lost} times, lastly: {reason}"))

    def cancelled(self, state: State, outcome: Cancelled) -> RunStatus:
        """The run ends because somebody asked for it."""
        failure = Failure("", state.cancel_reason or outcome.reason)
        self._attempt(state, AttemptStatus.CANCELLED, failure, outcome)
        return self._end(state, RunStatus.CANCELLED, failure, outcome)

    def released(self, state: State, outcome: Released) -> RunStatus:
        """The run waits again as if nothing had been."""
        failure = Failure("", outcome.reason)
        if outcome.started:
            self._attempt(state, AttemptStatus.RELEASED, failure)
        else:
            self._tokens.add(outcome.token)
            state = state._replace(attempts=state.attempts - 1, owner=None, started_at=None)
        return self._wait(state, 0 if outcome.run_at is None else to_number(outcome.run_at), failure)

    def parked(self, state: State, outcome: Parked) -> RunStatus:
        """The run waits for others, unless somebody asked for its end."""
        self._tokens.add(outcome.token)
        if state.cancel_reason is not None:
            before = state._replace(attempts=state.attempts - 1, owner=None, started_at=None)
            return self._end(before, RunStatus.CANCELLED, Failure("", state.cancel_reason))
        self._parked.append((state, outcome))
        return RunStatus.RUNNING if outcome.seat is None else RunStatus.PENDING

    def keep_recording(self, state: State, recording: bytes) -> None:
        """Something is kept to replay the attempt that has ended."""
        self._recordings.append((state.run_id, state.attempts, self._now, recording))

    def cancel_pending(self, state: State, reason: str) -> None:
        """The run ends before it was tried (again)."""
        self._end(state, RunStatus.CANCELLED, Failure("", reason))

    def write(self, connection: sqlite3.Connection, followers: Sequence[Follower]) -> None:
        """Write it all."""
        if self._ended:
            self._write_ended(connection)
        if self._reuse:
            connection.executemany("INSERT INTO reuse (run_id, facts) VALUES (?, ?)", self._reuse)
        if self._back:
            connection.executemany(_BACK, self._back)
        if self._attempts:
            connection.executemany(_ATTEMPT, self._attempts)
        for run_id, attempt, entries in self._logs:
            run_logs.keep(connection, run_id, attempt, entries)
        if self._recordings:
            recordings.keep(connection, self._recordings)
        if self._states:
            pipelines.keep_states(connection, self._states)
        if self._dead:
            dead_letters.bury(connection, self._dead, self._now)
        if self._ended:
            self._tell(connection, followers)
        for state, outcome in self._parked:
            pipelines.park(connection, outcome, state.started_at, self._now)
        if self._tokens:
            connection.execute(_EMPTY_LEASES, (json.dumps(sorted(self._tokens)),))

    def _tell(self, connection: sqlite3.Connection, followers: Sequence[Follower]) -> None:
        """Let those know who wait for runs that have ended."""
        ended = [row[:2] for row in self._ended]
        left = pipelines.settle(connection, ended)
        if left:
            cancel_all(connection, left, "the run that it is a step of has ended", self._now, followers)
        if followers:
            enqueue_followers(connection, ended, followers, self._now)

    def _write_ended(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM queue WHERE run_id IN (SELECT value FROM json_each(?))",
            (json.dumps([row[0] for row in self._ended]),),
        )
        connection.executemany(_END, self._ended)

    def _attempt(self, state: State, status: AttemptStatus, failure: Failure, outcome: _Measured | None = None) -> None:
        assert state.token is not None
        self._tokens.add(state.token)
        self._attempts.append(
            (
                *(state.run_id, state.attempts, status.value, state.owner, state.started_at, self._now),
                *(*_measures(outcome), failure.error_class or None),
                *(run_logs.cut(failure.message), run_logs.cut_tail(failure.stderr_tail)),
            )
        )
        if outcome is not None and outcome.logs:
            self._logs.append((state.run_id, state.attempts, outcome.logs))

    def _end(self, state: State, status: RunStatus, failure: Failure, outcome: _Measured | None = None) -> RunStatus:
        self._ended.append(
            (
                *(state.run_id, status.value, self._now, state.started_at, state.owner, state.attempts),
                *(state.failures, state.lost_in_a_row, state.progress, *_measures(outcome)),
                *(failure.error_class or None, run_logs.cut(failure.message), None, None),
            )
        )
        if status is RunStatus.DEAD:
            self._dead.append(state.run_id)
        return status

    def _wait(self, state: State, run_at: int, failure: Failure, outcome: _Measured | None = None) -> RunStatus:
        """Pending again, unless somebody asked for its end."""
        if state.cancel_reason is not None:
            return self._end(state, RunStatus.CANCELLED, failure._replace(message=state.cancel_reason), outcome)
        self._back.append(
            (
                *(run_at <= self._now, run_at, state.attempts, state.failures, state.lost_in_a_row),
                *(state.run_id, state.token),
            )
        )
        return RunStatus.PENDING


def _measures(outcome: _Measured | None) -> tuple[float, int]:
    return (0.0, 0) if outcome is None else (outcome.duration_ms, outcome.memory_peak_bytes)


_SETTLE: Mapping[type[Outcome], Callable[[Settlement, State, Any], RunStatus]] = {
    Succeeded: Settlement.succeeded,
    Failed: Settlement.failed,
    Dead: Settlement.dead,
    Retry: Settlement.retry,
    Lost: Settlement.lost,
    Cancelled: Settlement.cancelled,
    Released: Settlement.released,
    Parked: Settlement.parked,
}
