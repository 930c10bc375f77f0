"""A part of the conformance suite of a run store: enqueue, claim, renew."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from runner.errors import InputTooLarge, RunConflict, RunNotFound, UsageError
from runner.ledger import AttemptStatus
from runner.models import TriggerType
from runner.run_store import RunStore
from runner.runs import (
    CLAIM_BYTES,
    MAX_PAYLOAD_BYTES,
    Enqueued,
    OnConflict,
    Retry,
    RunStatus,
)
from runner.testing.registry import in_threads
from runner.testing.runs_bench import BOOM, START, Bench, at, new, succeeded


class RoadSuite(Bench):
    """Runs come in and are leased out."""

    # Enqueueing

    def test_a_run_comes_back_as_it_was_enqueued(self, store: RunStore) -> None:
        run = new(
            "nächtlich ☾",
            bytes(range(256)),
            queue="slow",
            priority=-3,
            run_at=at(60),
            unique_key="schlüssel/1",
            trigger_type=TriggerType.CRON,
            trigger="nightly#0",
            slot=at(50),
            parent_id=7,
            retry_count=2,
            dlq_topic="clean.dead",
            function_version=4,
            plan=b"{}",
        )
        (run_id,) = self.enqueue(store, run)
        kept = store.get(run_id)
        for name, value in run._asdict().items():
            if name not in ("payload", "on_conflict", "plan"):
                assert getattr(kept, name) == value, name
        assert (kept.status, kept.payload_size, kept.created_at) == (RunStatus.PENDING, 256, START)
        assert (kept.attempts, kept.failures, kept.progress, kept.result_size) == (0, 0, 0, None)
        assert (kept.started_at, kept.finished_at, kept.owner, kept.lease_until) == (None, None, None, None)
        assert store.payload(run_id) == bytes(range(256))
        assert store.result(run_id) is None
        assert (store.plan(run_id), store.state(run_id)) == (b"{}", b"")
        claim = self.claim_one(store, seconds=60)
        assert (claim.run_id, claim.attempt, claim.failures, claim.payload) == (run_id, 1, 0, bytes(range(256)))
        for name in ("namespace", "job", "function", "function_version", "queue", "retry_count", "trigger_type"):
            assert getattr(claim, name) == getattr(run, name)
        assert (claim.trigger, claim.slot, claim.dlq_topic) == ("nightly#0", at(50), "clean.dead")

    def test_ids_grow_in_the_order_of_acceptance(self, store: RunStore) -> None:
        first = self.enqueue(store, new(), new(), new())
        assert first == sorted(first)
        assert self.enqueue(store, new())[0] > first[-1]
        assert store.enqueue([], now=START) == []

    def test_an_unknown_run(self, store: RunStore) -> None:
        for ask in (store.get, store.payload, store.result, store.attempts, store.logs, store.plan, store.state):
            with pytest.raises(RunNotFound, match="no run 99"):
                ask(99)
        with pytest.raises(RunNotFound):
            store.cancel(99, "", now=START)
        with pytest.raises(RunNotFound):
            store.why(99, now=START)

    def test_a_payload_up_to_the_limit(self, store: RunStore) -> None:
        payload = bytes(MAX_PAYLOAD_BYTES)
        (run_id,) = self.enqueue(store, new(payload=payload))
        assert store.payload(run_id) == payload
        with pytest.raises(InputTooLarge):
            store.enqueue([new("other"), new(payload=payload + b"x")], now=START)
        assert store.depth(now=START).ready == 1

    def test_large_payloads_are_claimed_a_few_at_a_time(self, store: RunStore) -> None:
        size = CLAIM_BYTES // 5
        self.enqueue(store, *(new(payload=bytes(size)) for _ in range(7)))
        assert [len(self.claim(store)) for _ in range(3)] == [5, 2, 0]

    def test_a_naive_moment_is_refused(self, store: RunStore) -> None:
        with pytest.raises((ValueError, TypeError)):
            store.enqueue([new(run_at=datetime(2027, 1, 1))], now=START)
        assert store.depth(now=START).waiting == 0

    def test_a_function_needs_its_version(self, store: RunStore) -> None:
        with pytest.raises(UsageError, match="pin its version"):
            store.enqueue([new(function_version=0)], now=START)
        self.enqueue(store, new(function=None, function_version=0))

    def test_moments_of_other_zones_are_the_same_moments(self, store: RunStore) -> None:
        zone = timezone(timedelta(hours=5, minutes=30))
        (run_id,) = self.enqueue(store, new(run_at=at(10).astimezone(zone)))
        assert store.get(run_id).run_at == at(10)
        assert not self.claim(store, seconds=9.999999)
        assert self.claim(store, seconds=10)

    # Unique keys

    def test_a_live_unique_key_is_refused(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(unique_key="k"))
        for _ in ("pending", "running"):
            with pytest.raises(RunConflict, match=f"run {run_id} is live") as caught:
                store.enqueue([new("other"), new(unique_key="k")], now=START)
            assert (caught.value.run_id, caught.value.unique_key) == (run_id, "k")
            claims = self.claim(store)
        assert [claim.run_id for claim in claims] == []
        self.enqueue(store, new(unique_key="k", namespace="other"), new(unique_key="l"))

    def test_a_unique_key_is_free_when_its_run_has_ended(self, store: RunStore) -> None:
        self.enqueue(store, new(unique_key="k"))
        store.finish([succeeded(self.claim_one(store))], now=START)
        (run_id,) = self.enqueue(store, new(unique_key="k"))
        store.cancel(run_id, "", now=START)
        self.enqueue(store, new(unique_key="k"))

    def test_a_live_unique_key_is_joined(self, store: RunStore) -> None:
        joining = new(unique_key="k", on_conflict=OnConflict.JOIN)
        first, again, other = store.enqueue([joining, joining, new()], now=START)
        assert (first.created, again, other.created) == (True, Enqueued(first.run_id, False), True)
        assert other.run_id == first.run_id + 1
        assert store.enqueue([joining], now=START) == [Enqueued(first.run_id, False)]
        assert len(self.claim(store)) == 2

    def test_a_unique_key_twice_in_one_call_is_refused_whole(self, store: RunStore) -> None:
        with pytest.raises(RunConflict, match="another run of the same call has the unique key 'k'") as caught:
            store.enqueue([new(), new(unique_key="k"), new(unique_key="k")], now=START)
        assert caught.value.run_id == 0
        assert store.depth(now=START).ready == 0

    def test_of_many_who_want_a_unique_key_one_gets_it(self, store: RunStore) -> None:
        def want(number: int) -> int | None:
            try:
                return self.enqueue(store, new(payload=b"%d" % number, unique_key="k"))[0]
            except RunConflict as error:
                return -error.run_id

        results = in_threads(8, want)
        (winner,) = [result for result in results if result and result > 0]
        assert results.count(-winner) == 7
        assert len(self.claim(store)) == 1

    # Claiming

    def test_by_priority_then_by_moment_then_by_acceptance(self, store: RunStore) -> None:
        a, b, c, d, e = self.enqueue(
            store,
            new(run_at=at(2)),
            new(run_at=at(1)),
            new(priority=5, run_at=at(3)),
            new(priority=-1),
            new(run_at=at(1)),
        )
        assert [claim.run_id for claim in self.claim(store, seconds=3)] == [c, b, e, a, d]

    def test_in_the_order_of_queues_together(self, store: RunStore) -> None:
        a, b, c = self.enqueue(
            store, new(queue="a", priority=1), new(queue="b", priority=2), new(queue="a", priority=3)
        )
        assert [claim.run_id for claim in self.claim(store, 2)] == [c, b]
        assert [claim.run_id for claim in self.claim(store, 2)] == [a]

    def test_not_before_its_moment(self, store: RunStore) -> None:
        self.enqueue(store, new(run_at=at(60), priority=9))
        (soon,) = self.enqueue(store, new())
        assert [claim.run_id for claim in self.claim(store)] == [soon]
        assert not self.claim(store, seconds=29)
        assert len(self.claim(store, seconds=60, owner="two")) == 2  # the other's lease has run out as well

    def test_only_its_namespace_and_queues(self, store: RunStore) -> None:
        ours, slow, _ = self.enqueue(store, new(), new(queue="slow"), new(namespace="other"))
        assert [claim.run_id for claim in self.claim(store, queues=frozenset({"slow"}))] == [slow]
        assert [claim.run_id for claim in self.claim(store)] == [ours]
        assert len(self.claim(store, namespace="other")) == 1
        assert not self.claim(store, queues=frozenset())

    def test_a_queue_is_held_to_its_limit(self, store: RunStore) -> None:
        self.enqueue(store, *(new(queue="slow", priority=9) for _ in range(5)), new())
        limits = {"slow": 2, "other": 1}
        first = self.claim(store, limits=limits)
        assert [claim.queue for claim in first] == ["slow", "slow", "default"]
        assert not self.claim(store, owner="two", limits=limits)
        store.finish([succeeded(first[0])], now=START)
        assert len(self.claim(store, owner="two", limits=limits)) == 1
        assert len(self.claim(store, limits={"slow": 0})) == 0
        assert len(self.claim(store)) == 2

    def test_threads_never_claim_the_same(self, store: RunStore) -> None:
        self.enqueue(store, *(new() for _ in range(200)))
        claims = in_threads(4, lambda n: [c for _ in range(25) for c in self.claim(store, 3, owner=f"owner {n}")])
        taken = [claim.run_id for part in claims for claim in part]
        assert len(taken) == len(set(taken)) == 200

    def test_tokens_grow(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        tokens = [self.claim_one(store, seconds=30 * n).token for n in range(3)]
        assert tokens == sorted(set(tokens))
        assert store.get(run_id).attempts == 3

    # Leases

    def test_a_lease_that_ran_out_is_taken_over(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        old = self.claim_one(store)
        assert store.get(run_id).lease_until == at(30)
        assert not self.claim(store, seconds=29.999, owner="two")
        claim = self.claim_one(store, seconds=30, owner="two")
        assert (claim.run_id, claim.attempt, claim.failures) == (run_id, 2, 0)
        lost, running = store.attempts(run_id)
        assert (lost.status, lost.owner, lost.error_class) == (AttemptStatus.LOST, "one", "WorkerLost")
        assert "the lease of one ran out" in (lost.message or "")
        assert (lost.started_at, lost.finished_at) == (START, at(30))
        assert (running.status, running.owner, running.number) == (AttemptStatus.RUNNING, "two", 2)
        assert store.counters()["leases_taken_over"] == 1
        assert store.finish([succeeded(old)], now=at(31)) == [None]
        assert store.get(run_id).status is RunStatus.RUNNING

    def test_a_renewed_lease_holds(self, store: RunStore) -> None:
        self.enqueue(store, new())
        claim = self.claim_one(store)
        renewal = store.renew([(claim.run_id, claim.token)], until=at(50))
        assert (renewal.lost, renewal.cancel) == (frozenset(), frozenset())
        store.renew([(claim.run_id, claim.token)], until=at(10))
        assert store.get(claim.run_id).lease_until == at(50)
        assert not self.claim(store, seconds=49, owner="two")
        assert store.finish([succeeded(claim)], now=at(49)) == [RunStatus.SUCCEEDED]
        assert store.renew([(claim.run_id, claim.token)], until=at(99)).lost == {claim[:2]}

    def test_renewing_tells_what_was_lost(self, store: RunStore) -> None:
        self.enqueue(store, new(), new())
        old = self.claim(store, lease_seconds=1)
        (fresh,) = self.claim(store, 1, seconds=1, owner="two")
        lost = store.renew([(claim.run_id, claim.token) for claim in [*old, fresh]], until=at(99)).lost
        assert lost == {claim[:2] for claim in old}
        assert store.get(fresh.run_id).owner == "two"

    def test_an_owner_that_is_gone_is_taken_back_at_once(self, store: RunStore) -> None:
        first, second, _ = self.enqueue(store, new(), new(), new())
        self.claim(store, 2)
        (other,) = self.claim(store, owner="two")
        assert store.owners() == ["one", "two"]
        assert store.take_back("one", "process 17 is dead", now=at(1)) == 2
        assert store.take_back("one", "process 17 is dead", now=at(1)) == 0
        assert store.owners() == ["two"]
        claims = self.claim(store, seconds=1, owner="two")
        assert [(claim.run_id, claim.attempt) for claim in claims] == [(first, 2), (second, 2)]
        assert "process 17 is dead" in (store.attempts(first)[0].message or "")
        assert store.finish([succeeded(other)], now=at(1)) == [RunStatus.SUCCEEDED]

    def test_when_time_alone_makes_more_claimable(self, store: RunStore) -> None:
        assert store.next_due("shop") is None
        self.enqueue(store, new(), new(run_at=at(20)), new(run_at=at(25), namespace="other"))
        assert store.next_due("shop") == at(20)
        assert store.next_due("other") == at(20 + 5)
        claim = self.claim_one(store, lease_seconds=10)
        assert store.next_due("shop") == at(10)
        store.finish([Retry(claim.run_id, claim.token, at(15), BOOM)], now=at(5))
        assert store.next_due("shop") == at(15)
        assert len(self.claim(store, seconds=20, limits={"default": 1})) == 1
        assert store.next_due("shop") == at(50)  # the one that its queue's limit keeps back does not count
