"""A part of the conformance suite of a run store: runs that wait for others, which are their steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import InputTooLarge, UsageError
from runner.ledger import Retention, RunFilter
from runner.run_store import RunStore
from runner.runs import (
    CLAIM_BYTES,
    LOST_ALTOGETHER,
    LOST_IN_A_ROW,
    MAX_PAYLOAD_BYTES,
    Claim,
    Dead,
    Failed,
    Follower,
    NewRun,
    Released,
    Retry,
    RunStatus,
    StepEnded,
)
from runner.testing.runs_bench import BOOM, START, Bench, at, claimant, new, parked, step, succeeded

PIPELINE = NewRun("shop", "nightly", plan=b"the plan")


class StepsSuite(Bench):
    """Runs that are parked until their children have ended."""

    def park(self, store: RunStore, *children: NewRun, run: NewRun = PIPELINE, **settings: object) -> int:
        """Enqueue a run and park it with children; its id."""
        (run_id,) = self.enqueue(store, run)
        (claim,) = [claim for claim in self.claim(store) if claim.run_id == run_id]
        assert store.finish([parked(claim, *children, **settings)], now=START) == [RunStatus.RUNNING]
        return run_id

    def end(self, store: RunStore, claim: Claim, output: bytes = b"out", *, seconds: float = 1) -> None:
        """End a claim well."""
        assert store.finish([succeeded(claim, output)], now=at(seconds)) == [RunStatus.SUCCEEDED]

    # Parking and waking

    def test_a_parked_run_waits_for_its_children(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, PIPELINE)
        claim = self.claim_one(store, seconds=1)
        assert (claim.function, claim.state, claim.step, claim.item, claim.parent_id) == (None, b"", None, None, None)
        outcome = parked(claim, step("shards", payload=b"one"), step("enrich", 3, priority=2), progress=40)
        assert store.finish([outcome], now=at(2)) == [RunStatus.RUNNING]
        run = store.get(run_id)
        assert (run.status, run.attempts, run.failures, run.progress) == (RunStatus.RUNNING, 0, 0, 40)
        assert (run.started_at, run.lease_until, run.result_size) == (at(1), None, None)
        assert (store.state(run_id), store.plan(run_id), store.attempts(run_id)) == (b"state", b"the plan", [])
        enrich, shards = self.claim(store, seconds=2)
        assert (shards.step, shards.item, shards.parent_id, shards.payload) == ("shards", None, run_id, b"one")
        assert (enrich.step, enrich.item, enrich.attempt) == ("enrich", 3, 1)
        kept = store.get(enrich.run_id)
        assert (kept.step, kept.item, kept.parent_id, kept.job) == ("enrich", 3, run_id, "nightly")
        self.end(store, shards, seconds=3)
        woken = self.claim_one(store, seconds=3)
        assert (woken.run_id, woken.state, woken.attempt) == (run_id, b"state", 1)
        assert woken.token > claim.token

    def test_it_ends_like_any_other(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"))
        self.end(store, self.claim_one(store))
        woken = self.claim_one(store, seconds=5)
        outcome = succeeded(woken, b"all", duration_ms=5000.0, state=b"last")
        assert store.finish([outcome], now=at(6)) == [RunStatus.SUCCEEDED]
        run = store.get(run_id)
        assert (run.status, run.attempts, run.started_at, run.finished_at) == (RunStatus.SUCCEEDED, 1, START, at(6))
        assert (store.result(run_id), store.state(run_id)) == (b"all", b"last")
        (attempt,) = store.attempts(run_id)
        assert (attempt.number, attempt.duration_ms) == (1, 5000.0)

    def test_what_it_leaves_when_it_fails(self, store: RunStore) -> None:
        first, second = self.enqueue(store, PIPELINE, PIPELINE)
        one, two = self.claim(store, seconds=1)
        store.finish([Failed(*one[:2], BOOM, state=b"never parked"), parked(two, wake_after=0)], now=at(2))
        assert (store.state(first), store.get(first).started_at) == (b"never parked", at(1))
        store.finish([Failed(*self.claim_one(store, seconds=3)[:2], BOOM)], now=at(4))
        assert store.state(second) == b"state"

    def test_what_its_children_became(self, store: RunStore) -> None:
        run_id = self.park(store, step("a", 0), step("a", 1), step("b"), wake_after=3)
        assert store.steps_ended(run_id) == []
        one, two, three = self.claim(store)
        store.finish([Dead(*three[:2], BOOM), succeeded(two)], now=at(1))
        ended = store.steps_ended(run_id)
        assert ended == [
            StepEnded(1, three.run_id, "b", None, RunStatus.DEAD, BOOM.error_class, BOOM.message),
            StepEnded(2, two.run_id, "a", 1, RunStatus.SUCCEEDED, None, None),
        ]
        self.end(store, one)
        assert [end.number for end in store.steps_ended(run_id, after=1)] == [2, 3]
        assert store.steps_ended(run_id, after=1, limit=1) == ended[1:]
        assert store.steps_ended(99) == []

    def test_waking_when_enough_have_ended(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(5)), wake_after=3)
        claims = self.claim(store)
        store.finish([succeeded(claims[0]), succeeded(claims[1])], now=at(1))
        assert not self.claim(store, seconds=1)
        self.end(store, claims[2])
        woken = self.claim_one(store, seconds=1)
        store.finish([parked(woken, seen=3, wake_after=2, state=b"second")], now=at(2))
        self.end(store, claims[3], seconds=2)
        assert not self.claim(store, seconds=2)
        self.end(store, claims[4], seconds=2)
        assert self.claim_one(store, seconds=2).state == b"second"
        assert store.get(run_id).started_at == START

    def test_a_failure_wakes_at_once(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(3)), wake_after=3)
        claims = self.claim(store)
        store.finish([Retry(*claims[0][:2], at(60), BOOM)], now=at(1))
        assert not self.claim(store, seconds=1)
        store.finish([Failed(*claims[1][:2], BOOM)], now=at(1))
        assert self.claim_one(store, seconds=1).run_id == run_id

    def test_what_ends_while_it_is_not_parked_is_not_missed(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(4)))
        claims = self.claim(store)
        self.end(store, claims[0])
        woken = self.claim_one(store, seconds=1)
        store.finish([succeeded(claims[1]), succeeded(claims[2])], now=at(1))
        store.finish([parked(woken, seen=1, wake_after=2)], now=at(1))
        woken = self.claim_one(store, seconds=1)
        store.finish([Failed(*claims[3][:2], BOOM)], now=at(1))
        store.finish([parked(woken, seen=3, wake_after=9)], now=at(1))
        woken = self.claim_one(store, seconds=1)
        store.finish([parked(woken, seen=4, wake_after=1)], now=at(1))
        assert not self.claim(store, seconds=1)
        assert store.get(run_id).status is RunStatus.RUNNING

    def test_one_that_waits_for_nothing_is_due_at_once(self, store: RunStore) -> None:
        self.park(store, wake_after=0)
        for turn in range(LOST_IN_A_ROW + 2):  # being parked is no attempt and no loss
            claim = self.claim_one(store, seconds=turn)
            assert (claim.attempt, claim.failures) == (1, 0)
            assert store.finish([parked(claim, wake_after=0)], now=at(turn)) == [RunStatus.RUNNING]

    def test_a_child_that_was_there_before_the_lease_was_lost(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, PIPELINE)
        late = self.claim_one(store)
        claim = self.claim_one(store, seconds=30, owner="two")
        assert store.finish([parked(late, step("a"))], now=at(30)) == [None]
        assert store.finish([parked(claim, step("a"))], now=at(30)) == [RunStatus.RUNNING]
        assert self.claim_one(store, seconds=30).step == "a"
        assert [end.status.value for end in store.attempts(run_id)] == ["lost"]
        assert store.get(run_id).started_at == at(30)

    def test_what_was_lost_before_it_was_parked_does_not_count(self, store: RunStore) -> None:
        run_id = self.park(store, wake_after=0)
        for turn in range(2 * LOST_ALTOGETHER):
            self.claim_one(store, seconds=100 * turn)
            claim = self.claim_one(store, seconds=100 * turn + 50)
            store.finish([parked(claim, wake_after=0)], now=at(100 * turn + 60))
        assert store.get(run_id).status is RunStatus.RUNNING
        begun = 200 * LOST_ALTOGETHER
        for turn in range(LOST_ALTOGETHER):
            assert self.claim_one(store, seconds=begun + 30 * turn).run_id == run_id
        assert not self.claim(store, seconds=begun + 30 * LOST_ALTOGETHER)
        assert store.get(run_id).status is RunStatus.DEAD

    def test_an_owner_that_gives_it_back(self, store: RunStore) -> None:
        run_id = self.park(store, wake_after=0)
        claim = self.claim_one(store, seconds=1)
        store.finish([Released(*claim[:2], "shutdown", started=False)], now=at(2))
        assert store.get(run_id).status is RunStatus.RUNNING  # it has begun, whoever goes on with it
        assert self.claim_one(store, seconds=2).state == b"state"

    def test_children_in_the_same_call(self, store: RunStore) -> None:
        first = self.park(store, step("a"))
        claim = self.claim_one(store)
        (second,) = self.enqueue(store, PIPELINE)
        other = self.claim_one(store)
        statuses, claims = store.finish_and_claim(
            [succeeded(claim), parked(other, step("a"), step("b"))], claimant(), 9, now=at(1)
        )
        assert statuses == [RunStatus.SUCCEEDED, RunStatus.RUNNING]
        assert sorted(str(claim.step) for claim in claims) == ["None", "a", "b"]
        assert {claim.parent_id for claim in claims} == {None, second}
        assert first in [claim.run_id for claim in claims]

    def test_what_cannot_be_a_step(self, store: RunStore) -> None:
        with pytest.raises(UsageError, match="by parking the run"):
            store.enqueue([step("a")], now=START)
        (run_id,) = self.enqueue(store, PIPELINE)
        claim = self.claim_one(store)
        with pytest.raises(UsageError, match="by parking the run"):
            store.finish([parked(claim, new())], now=START)
        with pytest.raises(InputTooLarge):
            store.finish([parked(claim, step("a", payload=bytes(MAX_PAYLOAD_BYTES + 1)))], now=START)
        assert store.get(run_id).status is RunStatus.RUNNING
        assert store.finish([parked(claim, step("a"))], now=START) == [RunStatus.RUNNING]

    # Cancelling

    def test_cancelling_one_that_is_parked(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(3)))
        running, pending, ended = self.claim(store)
        store.finish([succeeded(ended), Released(*pending[:2], "", started=False)], now=at(1))
        assert store.cancel(run_id, "enough", now=at(2)) is RunStatus.CANCELLED
        assert store.get(run_id).message == "enough"
        child = store.get(pending.run_id)
        assert (child.status, child.message) == (RunStatus.CANCELLED, "the run that it is a step of has ended")
        assert store.cancel_requests("one") == [running[:2]]
        assert store.get(ended.run_id).status is RunStatus.SUCCEEDED
        self.end(store, running, seconds=3)
        assert not self.claim(store, seconds=3)

    def test_cancelling_one_that_is_claimed(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"), wake_after=0)
        child, claim = sorted(self.claim(store), key=lambda claim: claim.step is None)
        assert store.cancel(run_id, "enough", now=at(1)) is RunStatus.RUNNING
        assert store.finish([parked(claim, step("b"))], now=at(2)) == [RunStatus.CANCELLED]
        assert store.cancel_requests("one") == [child[:2]]
        assert not self.claim(store, seconds=2)

    def test_the_end_of_a_run_is_that_of_its_steps_and_of_theirs(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"), step("inner", function=None, function_version=0, plan=b"inner"))
        a, inner = self.claim(store)
        store.finish([parked(inner, step("deep"), step("deeper"))], now=at(1))
        deep, deeper = self.claim(store, seconds=1)
        store.finish([Released(*deeper[:2], "", started=False)], now=at(1))
        assert store.plan(inner.run_id) == b"inner"
        self.end(store, a)
        (woken,) = self.claim(store, 1, seconds=1)
        assert woken.run_id == run_id
        assert store.finish([Failed(*woken[:2], BOOM)], now=at(2)) == [RunStatus.FAILED]
        assert store.get(inner.run_id).status is RunStatus.CANCELLED
        assert store.cancel_requests("one") == [deep[:2]]
        runs = store.list_runs(RunFilter(parent_id=inner.run_id))
        assert [run.status for run in runs] == [RunStatus.CANCELLED, RunStatus.RUNNING]
        assert store.get(run_id).status is RunStatus.FAILED

    def test_a_child_that_is_cancelled_wakes_its_parent(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"), step("b"), wake_after=2)
        (a, _) = self.claim(store)
        store.finish([Released(*a[:2], "", started=False)], now=at(1))
        store.cancel(a.run_id, "not this one", now=at(1))
        assert self.claim_one(store, seconds=1).run_id == run_id
        assert [(end.status.value, end.message) for end in store.steps_ended(run_id)] == [("cancelled", "not this one")]

    # Seats

    def test_no_more_sit_than_there_are_seats(self, store: RunStore) -> None:
        ids = self.enqueue(store, *[PIPELINE] * 4)
        claims = self.claim(store)
        seat = [parked(claim, seat=("deploy", 2)) for claim in claims]
        assert store.finish(seat[:3], now=at(1)) == [RunStatus.PENDING] * 3
        depth = store.depth(now=at(1))
        assert (depth.ready, depth.waiting, depth.running) == (2, 1, 1)
        first, second = self.claim(store, seconds=1)
        assert [first.run_id, second.run_id] == ids[:2]
        assert [store.get(run_id).status.value for run_id in ids] == ["running", "running", "pending", "running"]
        assert store.get(ids[2]).started_at is None
        assert [store.why(claim.run_id, now=at(2)).seated for claim in claims[1:3]] == [
            (),
            tuple(claim.run_id for claim in claims[:2]),
        ]
        store.finish([parked(first, step("a"), state=b"sits"), seat[3]], now=at(2))
        child = self.claim_one(store, seconds=2)
        self.end(store, child, seconds=3)
        (first,) = self.claim(store, seconds=3)
        self.end(store, first, seconds=4)
        assert self.claim_one(store, seconds=4).run_id == ids[2]
        store.finish([Failed(*second[:2], BOOM)], now=at(5))
        assert self.claim_one(store, seconds=5).run_id == ids[3]

    def test_a_seat_that_is_not_waited_for_any_more(self, store: RunStore) -> None:
        ids = self.enqueue(store, *[PIPELINE] * 3, PIPELINE._replace(namespace="other"))
        for claim in [*self.claim(store), *self.claim(store, namespace="other")]:
            store.finish([parked(claim, seat=("deploy", 1))], now=at(1))
        assert self.claim_one(store, seconds=1, namespace="other").run_id == ids[3]
        first = self.claim_one(store, seconds=1)
        assert store.cancel(ids[1], "enough", now=at(1)) is RunStatus.CANCELLED
        assert not self.claim(store, seconds=1)
        self.end(store, first)
        assert self.claim_one(store, seconds=1).run_id == ids[2]

    def test_a_seat_is_kept_while_its_run_is_parked_again(self, store: RunStore) -> None:
        first, second = self.enqueue(store, PIPELINE, PIPELINE)
        claims = self.claim(store)
        store.finish([parked(claim, seat=("deploy", 1)) for claim in claims], now=at(1))
        claim = self.claim_one(store, seconds=1)
        store.finish([parked(claim, seat=("deploy", 1), wake_after=0)], now=at(1))
        claim = self.claim_one(store, seconds=1)
        assert claim.run_id == first
        store.finish([parked(claim, step("a"))], now=at(1))
        assert self.claim_one(store, seconds=1).step == "a"
        assert store.get(second).status is RunStatus.PENDING

    # Outputs

    def test_the_outputs_of_steps(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(5)), step("b"), wake_after=9)
        claims = self.claim(store)
        outcomes = [succeeded(claim, b"%d" % n) for n, claim in enumerate(claims) if n != 2]
        store.finish([*outcomes, Dead(*claims[2][:2], BOOM)], now=at(1))
        assert store.step_outputs([run_id], "a") == [(0, b"0"), (1, b"1"), (3, b"3"), (4, b"4")]
        assert store.step_outputs([run_id], "a", after=1, limit=1) == [(3, b"3")]
        assert store.step_outputs([run_id], "b") == [(0, b"5")]
        assert store.step_outputs([run_id], "c") == store.step_outputs([], "a") == []
        assert store.step_items([run_id], "a", after=0) == [1, 3, 4]
        assert store.step_items([run_id], "a", limit=2) == [0, 1]
        again = self.park(store, step("a", 2), step("a", 4))
        for claim in self.claim(store, seconds=1):
            if claim.step:
                self.end(store, claim, b"new")
        assert store.step_outputs([again, run_id], "a", after=1) == [(2, b"new"), (3, b"3"), (4, b"new")]
        assert store.step_outputs([run_id, again], "a", after=3) == [(4, b"4")]
        assert store.step_items([again, run_id], "a") == [0, 1, 2, 3, 4]

    def test_large_outputs_come_a_few_at_a_time(self, store: RunStore) -> None:
        run_id = self.park(store, *(step("a", n) for n in range(4)), wake_after=9)
        size = CLAIM_BYTES // 2 - 1
        store.finish([succeeded(claim, bytes(size)) for claim in self.claim(store)], now=at(1))
        assert [item for item, _ in store.step_outputs([run_id], "a")] == [0, 1]
        assert [item for item, _ in store.step_outputs([run_id], "a", after=1)] == [2, 3]

    # Among other runs

    def test_counting_and_listing(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"))
        (plain,) = self.enqueue(store, new())
        depth = store.depth(now=START)
        assert (depth.ready, depth.waiting, depth.running) == (2, 0, 1)
        assert [run.run_id for run in store.list_runs(RunFilter(is_step=False))] == [plain, run_id]
        (child,) = store.list_runs(RunFilter(is_step=True))
        assert child.parent_id == run_id
        running = store.list_runs(RunFilter(statuses=frozenset({RunStatus.RUNNING})))
        assert [run.run_id for run in running] == [run_id]
        why = store.why(run_id, now=START)
        assert (why.children, why.ahead) == ((), 0)
        assert store.next_due("shop") is None

    def test_nothing_follows_a_step(self, store: RunStore) -> None:
        store.follow([Follower("nightly", frozenset({RunStatus.SUCCEEDED}), new("after", plan=b"of the follower"))])
        run_id = self.park(store, step("a"))
        self.end(store, self.claim_one(store))
        woken = self.claim_one(store, seconds=1)
        self.end(store, woken)
        follower = self.claim_one(store, seconds=1)
        assert (follower.job, follower.parent_id, store.plan(follower.run_id)) == ("after", run_id, b"of the follower")

    def test_running_a_pipeline_again(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"))
        child = self.claim_one(store)
        self.end(store, child)
        self.end(store, self.claim_one(store, seconds=1))
        again = store.rerun(run_id, now=at(2)).run_id
        assert (store.plan(again), store.state(again)) == (b"the plan", b"")
        claim = self.claim_one(store, seconds=2)
        assert (claim.run_id, claim.state) == (again, b"")
        alone = store.rerun(child.run_id, now=at(2)).run_id
        claim = self.claim_one(store, seconds=2)
        assert (claim.run_id, claim.step, claim.parent_id) == (alone, None, child.run_id)

    def test_steps_are_kept_as_long_as_their_run_is_live(self, store: RunStore) -> None:
        run_id = self.park(store, step("a"), wake_after=9)
        claim = self.claim_one(store)
        self.end(store, claim)
        late = Retention(runs_days=1, failed_days=1, logs_days=1)
        while store.prune(late, now=at(10 * 86400)):
            pass
        assert store.step_outputs([run_id], "a") == [(0, b"out")]
        store.cancel(run_id, "enough", now=at(1))
        self.enqueue(store, new())
        while store.prune(late, now=at(10 * 86400)):
            pass
        assert store.step_outputs([run_id], "a") == []
        assert store.steps_ended(run_id) == []

    def test_the_next_store_finds_a_parked_run(self, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this store is not meant to last")
        store = self.make_store(tmp_path)
        run_id = self.park(store, step("a"), step("b"), wake_after=2)
        a, b = self.claim(store)
        self.end(store, a)
        store.close()
        store = self.make_store(tmp_path)
        self.end(store, b, seconds=2)
        assert self.claim_one(store, seconds=2)[:1] == (run_id,)
        assert [end.step for end in store.steps_ended(run_id)] == ["a", "b"]
        store.close()
