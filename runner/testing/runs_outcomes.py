"""A part of the conformance suite of a run store: outcomes, logs, cancelling, what follows, durability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunNotFound
from runner.ledger import AttemptStatus, Retention, RunFilter
from runner.models import LogEntry, LogLevel
from runner.run_store import RunStore
from runner.runs import (
    LOST_ALTOGETHER,
    LOST_IN_A_ROW,
    MAX_LOG_LINES,
    MAX_MESSAGE_CHARACTERS,
    Cancelled,
    Dead,
    Failed,
    Failure,
    Follower,
    Lost,
    Outcome,
    Released,
    Retry,
    RunStatus,
    Succeeded,
)
from runner.testing.runs_bench import BOOM, START, Bench, at, claimant, new, succeeded


class OutcomesSuite(Bench):
    """How runs end."""

    # Outcomes

    def test_a_success(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        claim = self.claim_one(store, seconds=1)
        outcome = succeeded(claim, b"\0out\xff", duration_ms=12.5, memory_peak_bytes=65536)
        assert store.finish([outcome], now=at(2)) == [RunStatus.SUCCEEDED]
        run = store.get(run_id)
        assert (run.status, run.result_size, run.progress, run.attempts) == (RunStatus.SUCCEEDED, 5, 100, 1)
        assert (run.started_at, run.finished_at, run.owner) == (at(1), at(2), "one")
        assert (run.duration_ms, run.memory_peak_bytes, run.error_class) == (12.5, 65536, None)
        assert store.result(run_id) == b"\0out\xff"
        (attempt,) = store.attempts(run_id)
        assert (attempt.status, attempt.number, attempt.owner) == (AttemptStatus.SUCCEEDED, 1, "one")
        assert (attempt.started_at, attempt.finished_at, attempt.output_size) == (at(1), at(2), 5)
        assert (attempt.duration_ms, attempt.memory_peak_bytes, attempt.function_version) == (12.5, 65536, 1)

    def test_what_is_known_of_the_reuse_of_results(self, store: RunStore) -> None:
        first, second, third, _ = self.enqueue(store, new(), new(), new(), new())
        one, two, three, _ = self.claim(store)
        facts = '{"parts": {"input": "ü"}}'
        outcomes: list[Outcome] = [succeeded(one, reuse=facts), succeeded(two), Failed(*three[:2], BOOM)]
        store.finish(outcomes, now=at(1))
        assert store.reuse_facts([third, second, first, first, 10_000]) == {first: facts}
        assert store.reuse_facts([]) == {}
        store.prune(Retention(runs_days=1), now=at(2 * 86400))
        assert store.reuse_facts([first]) == {}

    def test_a_retry_waits_and_counts(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(retry_count=1, function_version=3))
        claim = self.claim_one(store)
        retry = Retry(run_id, claim.token, at(10), BOOM, duration_ms=3.5, memory_peak_bytes=100)
        assert store.finish([retry], now=at(1)) == [RunStatus.PENDING]
        run = store.get(run_id)
        assert (run.status, run.run_at, run.failures, run.attempts) == (RunStatus.PENDING, at(10), 1, 1)
        assert (run.error_class, run.message) == (BOOM.error_class, BOOM.message)
        assert (run.owner, run.lease_until, run.started_at) == ("one", None, START)
        assert not self.claim(store, seconds=9)
        again = self.claim_one(store, seconds=10)
        assert (again.attempt, again.failures) == (2, 1)
        assert store.finish([succeeded(again)], now=at(11)) == [RunStatus.SUCCEEDED]
        failed, ok = store.attempts(run_id)
        assert (failed.status, failed.error_class, failed.message) == (AttemptStatus.FAILED, *BOOM[:2])
        assert (failed.stderr_tail, failed.duration_ms, failed.memory_peak_bytes) == (BOOM.stderr_tail, 3.5, 100)
        assert (failed.function_version, ok.function_version, ok.status) == (3, 3, AttemptStatus.SUCCEEDED)
        assert store.get(run_id).error_class is None

    def test_recordings_of_attempts(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(retry_count=1))
        claim = self.claim_one(store)
        assert store.recording(run_id, 1) is None
        store.finish([Lost(*claim[:2], BOOM, recording=b"lost\0\xff")], now=at(1))
        store.finish([Retry(*self.claim_one(store, seconds=1)[:2], at(2), BOOM, recording=b"retry")], now=at(2))
        late = succeeded(claim, recording=b"late")
        assert store.finish([late], now=at(2)) == [None]
        store.finish([succeeded(self.claim_one(store, seconds=2), recording=b"ok")], now=at(3))
        assert [store.recording(run_id, n) for n in range(5)] == [None, b"lost\0\xff", b"retry", b"ok", None]
        with pytest.raises(RunNotFound):
            store.recording(run_id + 1, 1)
        for outcome in (Failed, Dead):
            (other,) = self.enqueue(store, new())
            store.finish([outcome(*self.claim_one(store, seconds=3)[:2], BOOM, recording=b"bad")], now=at(4))
            assert store.recording(other, 1) == b"bad"

    def test_recordings_are_kept_as_long_as_logs(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        store.finish([Failed(*self.claim_one(store)[:2], BOOM, recording=b"bad")], now=at(0))
        retention = Retention(runs_days=90, failed_days=90, logs_days=1)
        store.prune(retention, now=at(86_399))
        assert store.recording(run_id, 1) == b"bad"
        store.prune(retention, now=at(86_401))
        assert store.recording(run_id, 1) is None

    def test_a_failure_for_good(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(dlq_topic="dead"))
        claim = self.claim_one(store)
        assert store.finish([Failed(run_id, claim.token, BOOM, 1.0, 2)], now=at(1)) == [RunStatus.FAILED]
        run = store.get(run_id)
        assert (run.status, run.error_class, run.message, run.finished_at) == (RunStatus.FAILED, *BOOM[:2], at(1))
        assert store.attempts(run_id)[0].status is AttemptStatus.FAILED
        assert store.dead_letters() == []
        assert store.read_topic("dead") == []

    def test_a_released_run_is_pending_again(self, store: RunStore) -> None:
        first, second = self.enqueue(store, new(), new())
        one, two = self.claim(store)
        outcomes = [Released(first, one.token, "shutting down"), Released(second, two.token, "", started=False)]
        assert store.finish(outcomes, now=at(1)) == [RunStatus.PENDING, RunStatus.PENDING]
        assert [(a.status, a.message) for a in store.attempts(first)] == [(AttemptStatus.RELEASED, "shutting down")]
        assert store.attempts(second) == []
        assert (store.get(second).attempts, store.get(second).started_at) == (0, None)
        claims = self.claim(store, seconds=1)
        assert [(claim.attempt, claim.failures) for claim in claims] == [(2, 0), (1, 0)]

    def test_a_released_run_may_have_to_wait(self, store: RunStore) -> None:
        self.enqueue(store, new())
        claim = self.claim_one(store)
        assert store.finish([Released(*claim[:2], "no engine", run_at=at(9))], now=at(1)) == [RunStatus.PENDING]
        assert store.next_due("shop") == at(9)
        assert self.claim(store, seconds=8) == []
        again = self.claim_one(store, seconds=9)
        assert (again.attempt, again.failures) == (2, 0)

    def test_a_lost_worker_does_not_count_as_a_failure(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(retry_count=0))
        claim = self.claim_one(store)
        lost = Failure("WorkerLost", "the worker was lost: killed")
        assert store.finish([Lost(run_id, claim.token, lost)], now=at(1)) == [RunStatus.PENDING]
        again = self.claim_one(store, seconds=1)
        assert (again.attempt, again.failures) == (2, 0)
        assert store.get(run_id).lost_in_a_row == 1
        assert store.attempts(run_id)[0].message == "the worker was lost: killed"

    def test_a_run_that_loses_its_workers_dies_of_it(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(retry_count=99, dlq_topic="dead"))
        (other,) = self.enqueue(store, new(priority=-1))
        for n in range(LOST_IN_A_ROW):
            claim = self.claim(store, 1, seconds=n)[0]
            assert claim.run_id == run_id
            statuses = store.finish([Lost(*claim[:2], Failure("WorkerLost", f"signal {n}"))], now=at(n))
        assert statuses == [RunStatus.DEAD]
        run = store.get(run_id)
        assert (run.status, run.error_class) == (RunStatus.DEAD, "WorkerLost")
        assert run.message == f"its worker was lost {LOST_IN_A_ROW} times in a row, lastly: signal {LOST_IN_A_ROW - 1}"
        assert [letter.run_id for letter in store.dead_letters()] == [run_id]
        assert len(store.read_topic("dead")) == 1
        assert self.claim_one(store, seconds=9).run_id == other

    def test_a_run_that_loses_its_owners_dies_only_if_that_never_ends(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        for n in range(LOST_ALTOGETHER):
            assert self.claim_one(store, seconds=30 * n).attempt == n + 1
            assert store.get(run_id).lost_in_a_row == 0
        assert not self.claim(store, seconds=30 * LOST_ALTOGETHER)
        run = store.get(run_id)
        assert (run.status, run.error_class) == (RunStatus.DEAD, "WorkerLost")
        assert (run.message or "").startswith(f"it was lost {LOST_ALTOGETHER} times, lastly: the lease of one ran out")
        assert [letter.run_id for letter in store.dead_letters()] == [run_id]

    def test_lost_owners_neither_count_as_lost_workers_nor_break_their_row(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        for n in range(LOST_IN_A_ROW):
            assert store.get(run_id).lost_in_a_row == n
            self.claim_one(store, seconds=n)
            assert store.take_back("one", "it is gone", now=at(n)) == 1
            claim = self.claim_one(store, seconds=n)
            (status,) = store.finish([Lost(*claim[:2], BOOM)], now=at(n))
        assert status is RunStatus.DEAD

    def test_another_end_breaks_the_row(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        for n in range(3 * LOST_IN_A_ROW):
            claim = self.claim_one(store, seconds=n)
            lost = n % LOST_IN_A_ROW < LOST_IN_A_ROW - 1
            outcome: Outcome = Lost(*claim[:2], BOOM) if lost else Retry(*claim[:2], at(n), BOOM)
            assert store.finish([outcome], now=at(n)) == [RunStatus.PENDING]
        assert store.get(run_id).failures == 3

    def test_many_outcomes_and_the_next_claim_in_one(self, store: RunStore) -> None:
        self.enqueue(store, *(new(dlq_topic="dead") for _ in range(9)))
        a, b, c, d, e = self.claim(store, 5)
        outcomes: list[Outcome] = [
            succeeded(a),
            Retry(*b[:2], at(0), BOOM),
            Dead(*c[:2], BOOM),
            Failed(*d[:2], BOOM),
            Cancelled(*e[:2], "no more"),
        ]
        statuses, claims = store.finish_and_claim(outcomes, claimant("two"), 3, now=at(1))
        names = ["succeeded", "pending", "dead", "failed", "cancelled"]
        assert [status.value for status in statuses if status] == names
        assert [claim.run_id for claim in claims] == [b.run_id, e.run_id + 1, e.run_id + 2]
        assert store.finish_and_claim([], claimant(), 0, now=at(1)) == ([], [])

    def test_late_outcomes_are_refused_and_counted(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        old = self.claim_one(store)
        claim = self.claim_one(store, seconds=30)
        late: list[Outcome] = [
            succeeded(old),
            Retry(*old[:2], at(0), BOOM),
            Dead(*old[:2], BOOM),
            Lost(*old[:2], BOOM),
            Released(*old[:2], ""),
            Succeeded(run_id, claim.token + 1, b""),
            Succeeded(99, 1, b""),
        ]
        assert store.finish(late, now=at(31)) == [None] * 7
        assert store.counters()["late_results_refused"] == 7
        assert store.finish([succeeded(claim), succeeded(claim, b"twice")], now=at(32)) == [RunStatus.SUCCEEDED, None]
        before = (store.get(run_id), store.attempts(run_id))
        for outcome in (succeeded(claim), Dead(*claim[:2], BOOM), Released(*claim[:2], "")):
            assert store.finish([outcome], now=at(33)) == [None]
        assert store.cancel(run_id, "", now=at(33)) is RunStatus.SUCCEEDED
        assert (store.get(run_id), store.attempts(run_id)) == before
        assert store.result(run_id) == b"out"
        assert store.counters()["late_results_refused"] == 11

    # Progress and logs

    def test_progress(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        claim = self.claim_one(store)
        store.report_progress([(run_id, claim.token, 40), (run_id, claim.token - 1, 99), (99, 1, 1)])
        assert store.get(run_id).progress == 40
        store.report_progress([(run_id, claim.token, 400)])
        assert store.get(run_id).progress == 100
        self.claim_one(store, seconds=30)
        assert store.get(run_id).progress == 0

    def test_logs_of_all_attempts_in_order(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        lines = [LogEntry(level, f"line {level.value} ✓", 1.5) for level in LogLevel]
        claim = self.claim_one(store)
        store.add_logs(run_id, claim.token, lines[:1])
        store.add_logs(run_id, claim.token - 1, lines)
        store.finish([Retry(*claim[:2], at(0), BOOM, logs=lines[1:])], now=START)
        store.add_logs(run_id, claim.token, lines)
        claim = self.claim_one(store)
        store.finish([succeeded(claim, logs=lines)], now=START)
        logs = store.logs(run_id)
        assert [(line.attempt, line.number) for line in logs] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
        assert [line.entry for line in logs] == lines * 2
        assert store.logs(run_id, after=(1, 2), limit=2) == logs[2:4]

    def test_a_flood_of_logs_is_capped(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        claim = self.claim_one(store)
        store.add_logs(run_id, claim.token, [LogEntry(LogLevel.INFO, "x" * 2 * MAX_MESSAGE_CHARACTERS, 0.0)] * 10)
        flood = [LogEntry(LogLevel.INFO, "y", 0.0)] * (MAX_LOG_LINES * 2)
        store.finish([succeeded(claim, logs=flood)], now=START)
        logs = store.logs(run_id, limit=MAX_LOG_LINES * 3)
        assert len(logs) == MAX_LOG_LINES
        assert len(logs[0].entry.message) == MAX_MESSAGE_CHARACTERS
        assert "left out" in logs[-1].entry.message
        assert logs[-2].entry.message == "y"

    def test_logs_of_many_runs(self, store: RunStore) -> None:
        clean, other, foreign = new(), new("other", function="send"), new(namespace="foreign")
        first, _, last, _ = self.enqueue(store, clean, other, clean, foreign)
        for n, claim in enumerate([*self.claim(store), *self.claim(store, namespace="foreign")]):
            lines = [LogEntry(LogLevel.INFO, f"{claim.job} {number}", -n) for number in range(2)]
            store.add_logs(claim.run_id, claim.token, lines)

        def messages(after: int | None = None, limit: int = 9, **wanted: Any) -> list[str]:
            page = store.tail(RunFilter(namespace="shop", **wanted), after=after, limit=limit)
            return [line.entry.message for line in page.lines]

        assert messages() == ["clean 0", "clean 1", "other 0", "other 1", "clean 0", "clean 1"]
        assert messages(limit=3) == ["other 1", "clean 0", "clean 1"]
        assert messages(limit=0) == []
        assert messages(job="other") == messages(function="send") == ["other 0", "other 1"]
        assert messages(statuses=frozenset({RunStatus.SUCCEEDED})) == []
        page = store.tail(RunFilter(job="clean"), after=0, limit=3)
        assert [line[:3] for line in page.lines] == [(first, 1, 1), (first, 1, 2), (last, 1, 1)]
        assert messages(page.after) == ["clean 1"]

    def test_logs_are_followed_from_where_they_ended(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        claim = self.claim_one(store)
        seen: list[str] = []
        after = store.tail(RunFilter(job="clean")).after
        for n in range(3):
            store.add_logs(*claim[:2], [LogEntry(LogLevel.INFO, str(n), START.timestamp())])
            page = store.tail(RunFilter(job="clean"), after=after)
            seen += [line.entry.message for line in page.lines]
            after = page.after
            while store.prune(Retention(logs_days=1), now=at(2 * 86_400)):
                pass
            assert store.logs(run_id) == []
            assert store.tail(RunFilter(job="clean"), after=after) == ([], after)
        assert seen == ["0", "1", "2"]

    # Cancelling

    def test_a_pending_run_is_cancelled_at_once(self, store: RunStore) -> None:
        now, later = self.enqueue(store, new(), new(run_at=at(60)))
        for run_id in (now, later):
            assert store.cancel(run_id, "not needed", now=at(1)) is RunStatus.CANCELLED
            run = store.get(run_id)
            assert (run.status, run.message, run.finished_at) == (RunStatus.CANCELLED, "not needed", at(1))
        assert not self.claim(store, seconds=99)
        assert store.next_due("shop") is None

    def test_the_owner_of_a_running_run_is_asked(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        claim = self.claim_one(store)
        assert store.cancel(run_id, "not needed", now=at(1)) is RunStatus.RUNNING
        assert store.get(run_id).cancel_requested
        assert store.cancel_requests("one") == [(run_id, claim.token)]
        assert store.cancel_requests("two") == []
        assert store.renew([(run_id, claim.token)], until=at(40)).cancel == {claim[:2]}
        assert store.finish([Cancelled(*claim[:2], "as asked", 5.0)], now=at(2)) == [RunStatus.CANCELLED]
        assert (store.get(run_id).message, store.get(run_id).cancel_requested) == ("not needed", False)
        assert [a.status for a in store.attempts(run_id)] == [AttemptStatus.CANCELLED]
        assert store.cancel_requests("one") == []

    def test_one_that_was_to_be_cancelled_is_not_tried_again(self, store: RunStore) -> None:
        self.enqueue(store, *(new() for _ in range(5)))
        a, b, c, d, e = self.claim(store)
        for claim in (a, b, c, d, e):
            store.cancel(claim.run_id, "enough", now=START)
        outcomes: list[Outcome] = [Retry(*a[:2], at(9), BOOM), Lost(*b[:2], BOOM), Released(*c[:2], ""), succeeded(d)]
        statuses = store.finish(outcomes, now=at(1))
        assert [s.value for s in statuses if s] == ["cancelled", "cancelled", "cancelled", "succeeded"]
        assert not self.claim(store, seconds=30)
        assert (store.get(e.run_id).status, store.get(e.run_id).message) == (RunStatus.CANCELLED, "enough")

    # Followers

    def test_what_follows_is_enqueued_with_the_end(self, store: RunStore) -> None:
        ended = frozenset({RunStatus.SUCCEEDED, RunStatus.CANCELLED})
        after = new("after", queue="later", unique_key="one at a time")
        store.follow([Follower("clean", ended, after), Follower("clean", frozenset({RunStatus.DEAD}), new("alarm"))])
        first, second, third, _ = self.enqueue(store, new(), new(), new(), new(namespace="other"))
        claims = self.claim(store)
        store.finish([succeeded(claims[0]), Retry(*claims[1][:2], at(50), BOOM), succeeded(claims[2])], now=at(1))
        (follower,) = self.claim(store, seconds=1)  # one: the second joined it
        assert (follower.job, follower.queue) == ("after", "later")
        assert follower.payload == b'{"run_id": %d, "job": "clean", "status": "succeeded"}' % first
        assert store.get(follower.run_id).parent_id == first
        assert store.why(first, now=at(1)).children == (follower.run_id,)
        store.finish([succeeded(follower)], now=at(2))
        store.cancel(second, "", now=at(2))
        assert self.claim_one(store, seconds=2).payload.endswith(b'"cancelled"}')
        other = self.claim_one(store, namespace="other")
        store.finish([succeeded(other)], now=at(2))
        store.follow([])
        assert not self.claim(store, seconds=3)
        assert third

    # Durability

    def test_the_next_store_finds_everything(self, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this store is not meant to last")
        store = self.make_store(tmp_path)
        done, running, waiting = self.enqueue(store, new(), new(), new(run_at=at(60)))
        claims = self.claim(store)
        store.finish([succeeded(claims[0])], now=START)
        before = [store.get(run_id) for run_id in (done, running, waiting)]
        store.close()
        store = self.make_store(tmp_path)
        assert [store.get(run_id) for run_id in (done, running, waiting)] == before
        assert store.finish([succeeded(claims[1])], now=at(1)) == [RunStatus.SUCCEEDED]
        assert self.claim_one(store, seconds=60).run_id == waiting
        store.close()
        store.close()
