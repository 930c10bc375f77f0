"""A part of the conformance suite of a run store: looking, dead letters, slots, changes, care."""

from __future__ import annotations

import json
import select
import threading
import time
from datetime import timedelta

import pytest

from runner.errors import RunConflict, UsageError
from runner.ledger import Retention, RunFilter, SlotEntry, SlotOutcome
from runner.models import LogEntry, LogLevel, TriggerType
from runner.run_store import RunStore
from runner.runs import Failed, OnConflict, Outcome, Retry, RunStatus
from runner.testing.registry import in_threads
from runner.testing.runs_bench import BOOM, START, Bench, at, ids, new, succeeded

DAY = 86_400.0


class LedgerSuite(Bench):
    """Looking at runs, dead letters and topics, the ledger of slots, changes, pruning."""

    # Looking

    def test_a_page_of_runs(self, store: RunStore) -> None:
        ids = self.enqueue(store, *(new() for _ in range(5)))[::-1]
        assert [run.run_id for run in store.list_runs(RunFilter())] == ids
        assert [run.run_id for run in store.list_runs(RunFilter(), limit=2)] == ids[:2]
        assert [run.run_id for run in store.list_runs(RunFilter(), limit=2, before=ids[1])] == ids[2:4]
        assert store.list_runs(RunFilter(), limit=0) == []
        assert store.list_runs(RunFilter())[0] == store.get(ids[0])

    def test_filters(self, store: RunStore) -> None:
        a, b, c, d = self.enqueue(
            store, new("a"), new("b", queue="slow", parent_id=1), new("a", trigger="t#0"), new("a", namespace="other")
        )
        (e,) = self.enqueue(store, new("e", run_at=at(99)), seconds=10)
        claims = self.claim(store)
        store.finish([succeeded(claims[0]), Failed(*claims[1][:2], BOOM)], now=at(10))

        def found(**wanted: object) -> list[int]:
            return [run.run_id for run in store.list_runs(RunFilter(**wanted))]  # type: ignore[arg-type]

        assert [claim.run_id for claim in claims] == [a, b, c]
        assert found(namespace="other") == [d]
        assert found(job="a") == [d, c, a]
        assert found(queue="slow") == found(parent_id=1) == [b]
        assert found(trigger="t#0") == [c]
        assert found(created_from=at(10)) == [e]
        assert found(created_before=at(10)) == [d, c, b, a]
        assert found(statuses=frozenset({RunStatus.SUCCEEDED})) == [a]
        assert found(statuses=frozenset({RunStatus.FAILED, RunStatus.DEAD})) == [b]
        assert found(statuses=frozenset({RunStatus.RUNNING})) == [c]
        assert found(statuses=frozenset({RunStatus.PENDING}), namespace="shop") == [e]
        assert found(statuses=frozenset({RunStatus.PENDING, RunStatus.RUNNING})) == [e, d, c]
        assert found(statuses=frozenset({RunStatus.RUNNING, RunStatus.SUCCEEDED}), job="a") == [c, a]
        assert found(statuses=frozenset()) == []

    def test_how_much_waits(self, store: RunStore) -> None:
        assert store.depth(now=START).oldest_ready_at is None
        self.enqueue(store, new(), new(), new(run_at=at(50)), new(run_at=at(60), queue="slow"), new(namespace="other"))
        self.claim(store, 1)
        depth = store.depth("shop", now=at(50))
        assert (depth.ready, depth.waiting, depth.running, depth.dead_letters) == (2, 1, 1, 0)
        assert depth.oldest_ready_at == START
        assert store.depth(now=at(50)).ready == 3
        assert store.depth("none", now=START).ready == 0
        slow = store.depth("shop", queues=frozenset({"slow", "none"}), now=at(50))
        assert (slow.ready, slow.waiting, slow.running) == (0, 1, 0)
        assert store.depth(queues=frozenset(), now=at(50)).ready == 0

    def test_why(self, store: RunStore) -> None:
        entry = SlotEntry.ran("nightly#0", at(-1), new("nightly"))
        (recorded,) = store.record_slots([entry], now=START)
        first, urgent, _ = self.enqueue(store, new(), new(priority=1), new(queue="slow"))
        assert recorded.run_id is not None
        why = store.why(recorded.run_id, now=START)
        assert (why.slot, why.run, why.attempts, why.ahead) == (recorded, store.get(recorded.run_id), (), 1)
        why = store.why(first, now=START)
        assert (why.slot, why.ahead, why.dead_letter, why.children) == (None, 2, None, ())
        assert store.why(urgent, now=START).ahead == 0

    # Dead letters and topics

    def test_a_dead_run_leaves_a_letter_and_a_message(self, store: RunStore) -> None:
        run_id = self.die(store, new(dlq_topic="clean.dead", function_version=3), seconds=5)
        quiet = self.die(store, new("quiet"), seconds=6)
        letter = store.dead_letters(job="clean")[0]
        assert (letter.run_id, letter.dead_letter_id, letter.job, letter.function) == (run_id, run_id, "clean", "clean")
        assert (letter.error_class, letter.message, letter.failed_at, letter.attempts) == (*BOOM[:2], at(5), 1)
        assert store.why(run_id, now=START).dead_letter == letter
        assert [entry.run_id for entry in store.dead_letters()] == [quiet, run_id]
        assert [entry.run_id for entry in store.dead_letters(before=quiet, limit=5)] == [run_id]
        assert store.dead_letters(namespace="other") == []
        (message,) = store.read_topic("clean.dead")
        assert (message.topic, message.run_id, message.created_at) == ("clean.dead", run_id, at(5))
        facts = json.loads(message.payload)
        assert (facts["run_id"], facts["job"], facts["function"], facts["function_version"]) == (
            run_id,
            "clean",
            "clean",
            3,
        )
        assert (facts["namespace"], facts["attempts"], facts["error_class"]) == ("shop", 1, "Trapped")
        assert store.depth(now=START).dead_letters == 2

    def test_redriving_makes_a_new_run(self, store: RunStore) -> None:
        run = new(payload=b"again", retry_count=2, priority=3, queue="slow", function_version=7, dlq_topic="dead")
        run_id = self.die(store, run._replace(trigger="t#0", slot=at(0), trigger_type=TriggerType.CRON))
        before = store.get(run_id)
        ((fresh, created),) = store.redrive([run_id], now=at(9))
        assert created
        assert store.dead_letters() == []
        assert store.get(run_id) == before
        again = store.get(fresh)
        assert (again.parent_id, again.created_at, again.run_at, again.status.value) == (
            run_id,
            at(9),
            at(9),
            "pending",
        )
        assert (again.trigger, again.slot, again.trigger_type) == (None, None, TriggerType.JOB)
        claim = self.claim_one(store, seconds=9)
        assert (claim.payload, claim.retry_count, claim.queue, claim.function_version) == (b"again", 2, "slow", 7)
        assert (claim.attempt, claim.dlq_topic) == (1, "dead")
        assert store.redrive([run_id], now=at(9)) == []

    def test_redriving_in_bulk(self, store: RunStore) -> None:
        clean = [self.die(store, new()) for _ in range(5)]
        other = self.die(store, new("other"))
        foreign = self.die(store, new("other", namespace="shop"))
        made = store.redrive(job="clean", limit=3, now=at(1))
        assert [store.get(run_id).parent_id for run_id in ids(made)] == clean[:3]
        assert len(store.redrive(job="clean", limit=3, now=at(1))) == 2
        assert store.redrive(job="clean", limit=3, now=at(1)) == []
        assert [letter.run_id for letter in store.dead_letters()] == [foreign, other]
        assert len(store.redrive(now=at(1))) == 2
        assert len(self.claim(store, seconds=1)) == 7

    def test_redriving_leaves_what_is_live_again(self, store: RunStore) -> None:
        dead = self.die(store, new(unique_key="k"))
        (live,) = self.enqueue(store, new(unique_key="k"))
        assert store.redrive(now=START) == []
        assert [letter.run_id for letter in store.dead_letters()] == [dead]
        with pytest.raises(RunConflict) as caught:
            store.rerun(dead, now=START)
        assert caught.value.run_id == live
        store.cancel(live, "", now=START)
        assert len(store.redrive(now=START)) == 1

    def test_dropping_dead_letters(self, store: RunStore) -> None:
        a, b, c = (self.die(store, new(job)) for job in ("x", "y", "x"))
        assert store.drop([b, 99]) == 1
        assert store.drop(job="x", limit=1) == 1
        assert [letter.run_id for letter in store.dead_letters()] == [c]
        assert store.drop() == 1
        assert store.drop() == 0
        assert [store.get(run_id).status for run_id in (a, b, c)] == [RunStatus.DEAD] * 3

    def test_running_again(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new(payload=b"same"))
        with pytest.raises(UsageError, match="has not ended"):
            store.rerun(run_id, now=START)
        claim = self.claim_one(store)
        with pytest.raises(UsageError, match="has not ended"):
            store.rerun(run_id, now=START)
        store.finish([succeeded(claim)], now=START)
        again = store.rerun(run_id, now=at(1)).run_id
        assert (store.get(again).parent_id, store.payload(again)) == (run_id, b"same")
        assert store.get(run_id).status is RunStatus.SUCCEEDED

    def test_topics(self, store: RunStore) -> None:
        store.publish("a", [b"1", b"\xff"], now=at(1))
        store.publish("b", [b"other"], now=at(2))
        store.publish("a", [b"3"], now=at(3))
        messages = store.read_topic("a")
        assert [(message.payload, message.created_at) for message in messages] == [
            (b"1", at(1)),
            (b"\xff", at(1)),
            (b"3", at(3)),
        ]
        assert store.read_topic("a", after=messages[0].number, limit=1) == messages[1:2]
        assert store.read_topic("none") == []

    # Slots

    def test_a_slot_is_recorded_once_and_with_its_run(self, store: RunStore) -> None:
        ran = SlotEntry.ran("nightly#0", at(0), new("nightly", trigger_type=TriggerType.CRON))
        (entry,) = store.record_slots([ran], now=at(1))
        assert entry.is_new
        assert (entry.trigger, entry.slot, entry.outcome, entry.recorded_at) == (
            "nightly#0",
            at(0),
            SlotOutcome.RAN,
            at(1),
        )
        claim = self.claim_one(store, seconds=1)
        assert (claim.run_id, claim.trigger, claim.slot) == (entry.run_id, "nightly#0", at(0))
        other = SlotEntry.skipped("nightly#0", at(0), "too late")
        assert store.record_slots([ran, other], now=at(2)) == [entry._replace(is_new=False)] * 2
        assert store.slot("nightly#0", at(0)) == entry
        assert store.slot("nightly#0", at(1)) is None
        assert not self.claim(store, seconds=2)

    def test_a_slot_twice_in_one_call(self, store: RunStore) -> None:
        ran = SlotEntry.ran("t", at(0), new())
        first, second, third = store.record_slots([ran, ran, SlotEntry.ran("u", at(0), new())], now=START)
        assert (first.is_new, second, third.is_new) == (True, first._replace(is_new=False), True)
        assert len(self.claim(store)) == 2

    def test_skipped_and_caught_up_slots(self, store: RunStore) -> None:
        skipped = SlotEntry.skipped("t", at(0), "the run before has not ended (overlap: skip)")
        caught_up = SlotEntry.caught_up("t", at(60), new(), "missed by 40 s")
        entries = store.record_slots([skipped, caught_up], now=at(100))
        assert [(e.outcome.value, e.reason, e.run_id is None) for e in entries] == [
            ("skipped", "the run before has not ended (overlap: skip)", True),
            ("caught_up", "missed by 40 s", False),
        ]
        assert store.slots("t") == entries[::-1]
        assert store.slots("t", before=at(60)) == entries[:1]
        assert store.slots("t", limit=1) == entries[1:]

    def test_of_many_schedulers_one_fires_a_slot(self, store: RunStore) -> None:
        entries = [SlotEntry.ran("t", at(n), new(payload=b"%d" % n)) for n in range(20)]
        results = in_threads(4, lambda _: store.record_slots(entries, now=at(20)))
        assert [sum(result[n].is_new for result in results) for n in range(20)] == [1] * 20
        assert len({tuple(entry.run_id for entry in result) for result in results}) == 1
        assert len(self.claim(store, seconds=20)) == 20

    def test_a_slot_whose_unique_key_is_live(self, store: RunStore) -> None:
        (live,) = self.enqueue(store, new(unique_key="k"))
        joining = new(unique_key="k", on_conflict=OnConflict.JOIN)
        entries = [SlotEntry.ran("t", at(0), new(unique_key="k")), SlotEntry.ran("t", at(1), joining)]
        refused, joined = store.record_slots(entries, now=START)
        assert (refused.outcome, refused.run_id) == (SlotOutcome.SKIPPED, None)
        assert f"run {live} is live" in refused.reason
        assert (joined.outcome, joined.run_id) == (SlotOutcome.RAN, live)

    def test_the_last_slot_of_triggers(self, store: RunStore) -> None:
        entries = [SlotEntry.skipped(trigger, at(n), "") for trigger in ("a", "b") for n in (5, 9, 7)]
        store.record_slots(entries, now=START)
        assert store.last_slots(["b", "a", "none"]) == {"a": at(9), "b": at(9)}
        assert store.last_slots([]) == {}

    def test_live_runs_of_triggers(self, store: RunStore) -> None:
        entries = [SlotEntry.ran(trigger, at(n), new()) for n in range(2) for trigger in ("a", "b")]
        a, _, c, _ = (entry.run_id for entry in store.record_slots(entries, now=at(2)))
        self.enqueue(store, new())
        assert store.live_runs(["a", "none"]) == {"a": [a, c]}
        claims = self.claim(store, seconds=2)
        store.finish([succeeded(claim) for claim in claims if claim.run_id == a], now=at(2))
        assert store.live_runs(["a"]) == {"a": [c]}

    # Changes

    def test_a_waiter_is_woken_by_a_change(self, store: RunStore) -> None:
        with store.changes() as changes:
            assert not changes.wait(0)
            self.enqueue(store, new())
            assert select.select([changes], [], [], 5)[0]
            assert changes.wait(5)
            assert not changes.wait(0)
            timer = threading.Timer(0.05, self.enqueue, [store, new()])
            timer.start()
            begin = time.monotonic()
            assert changes.wait(30)
            assert time.monotonic() - begin < 20
            timer.join()

    def test_every_waiter_is_woken_until_it_closes(self, store: RunStore) -> None:
        first, second = store.changes(), store.changes()
        self.enqueue(store, new())
        assert first.wait(5)
        first.close()
        first.close()
        for _ in range(50):  # more than anybody keeps in mind
            self.enqueue(store, new())
        assert second.wait(5)
        assert not second.wait(0)
        second.close()

    # Care

    def test_old_runs_are_pruned(self, store: RunStore) -> None:
        keep = Retention(runs_days=30, failed_days=90, logs_days=14)
        log = LogEntry(LogLevel.INFO, "x", START.timestamp())
        dead = self.die(store, new(dlq_topic="dead"))
        ok, bad, again, live = self.enqueue(store, *(new() for _ in range(4)))
        claims = {claim.run_id: claim for claim in self.claim(store)}
        ended: list[Outcome] = [succeeded(claims[ok], logs=[log]), Failed(*claims[bad][:2], BOOM, logs=[log])]
        store.finish([*ended, Retry(*claims[again][:2], at(0), BOOM)], now=START)
        store.cancel(again, "", now=at(20 * DAY))
        (newest,) = self.enqueue(store, new(), seconds=95 * DAY)

        def kept(days: float) -> list[int]:
            while store.prune(keep, now=at(days * DAY), limit=2):
                pass
            return [run.run_id for run in store.list_runs(RunFilter())][::-1]

        assert kept(13) == [dead, ok, bad, again, live, newest]
        assert len(store.logs(ok)) == len(store.logs(bad)) == 1
        assert kept(15) == [dead, ok, bad, again, live, newest]
        assert store.logs(ok) == store.logs(bad) == []
        assert kept(31) == [dead, bad, again, live, newest]
        assert kept(51) == [dead, bad, live, newest]
        assert len(store.dead_letters()) == 1
        assert store.read_topic("dead") == []
        assert kept(91) == [live, newest]
        assert store.dead_letters() == []

    def test_pruning_never_frees_a_number(self, store: RunStore) -> None:
        (run_id,) = self.enqueue(store, new())
        store.cancel(run_id, "", now=START)
        while store.prune(Retention(), now=at(365 * DAY)):
            pass
        assert self.enqueue(store, new())[0] > run_id

    def test_old_slots_are_pruned_but_the_last(self, store: RunStore) -> None:
        entries = [SlotEntry.skipped(trigger, at(n), "") for n in range(9) for trigger in ("a", "b")]
        store.record_slots(entries, now=START)
        for _ in range(2):
            while store.prune(Retention(), now=at(31 * DAY), limit=4):
                pass
            assert store.last_slots(["a", "b"]) == {"a": at(8), "b": at(8)}
            assert len(store.slots("a")) == len(store.slots("b")) == 1

    def test_pruning_goes_in_small_steps(self, store: RunStore) -> None:
        store.record_slots([SlotEntry.skipped("t", at(n), "") for n in range(50)], now=START)
        late = START + timedelta(days=31)
        steps = [store.prune(Retention(), now=late, limit=10) for _ in range(6)]
        assert not steps[-1]
        assert len(store.slots("t")) == 1
