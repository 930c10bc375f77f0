"""Lanes over a real store: what they claim, hold, record and give back, whatever the carrier and the store do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runner_sqlite.runs import SqliteRunStore

from runner import lanes as lanes_module
from runner import plugins
from runner.app import Runner
from runner.carrier import Carrier, Watch
from runner.errors import InvalidInput, Stopped, StoreDamaged, StoreError, StoreLocked
from runner.lanes import CLAIM_RUNS, Key, Lanes, Observer
from runner.runs import Claim, Claimant, Outcome, Released, RunStatus, Succeeded
from runner.testing.runs_bench import claimant, new
from tests.daemon_project import HANG, SAY, DaemonProject
from tests.support import eventually, open_descriptors


def now() -> datetime:
    return datetime.now(timezone.utc)


class Script(Carrier):
    """Carries out what payloads say: `quick`, `wait` (until it is stopped or let go), `bug`, and `told`, which
    has its outcome without having begun, as a turn of a pipeline has."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun: list[int] = []
        self.let_go = threading.Event()
        self.together = False

    def carry_out(self, claims: Sequence[Claim], watch: Watch) -> Iterator[Outcome]:
        self.sizes.append(len(claims))
        if self.together:
            stopped = threading.Event()
            watch.begin(claims, stopped.set)
            assert stopped.wait(10)
            yield from (Released(each.run_id, each.token, "stopped") for each in claims)
            return
        for claim in claims:
            told = Succeeded(claim.run_id, claim.token, b"out") if claim.payload == b"told" else None
            yield watch.verdict(claim) or told or self._one(claim, watch)

    def _one(self, claim: Claim, watch: Watch) -> Outcome:
        stopped = threading.Event()
        try:
            watch.begin([claim], stopped.set)
        except Stopped:
            verdict = watch.verdict(claim)
            assert verdict is not None
            return verdict
        self.begun.append(claim.run_id)
        if claim.payload == b"bug":
            raise KeyError("a bug")
        while claim.payload == b"wait" and not self.let_go.is_set():
            if stopped.wait(0.005):
                return watch.verdict(claim) or Released(claim.run_id, claim.token, "stopped")
        return Succeeded(claim.run_id, claim.token, b"out")


class Watcher(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ends: list[tuple[Claim, Outcome, RunStatus | None]] = []
        self.refusals: list[StoreError] = []
        self.breaks: list[BaseException] = []
        self.stirs = 0
        self.holding: Callable[[], Sequence[Key]] = list
        self.held_at_end: set[Any] = set()
        """What was still held when it was told that it had ended."""

    def stirred(self) -> None:
        self.stirs += 1

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        self.ends += zip(claims, outcomes, statuses, strict=True)
        self.held_at_end |= {outcome[:2] for outcome in outcomes} & set(self.holding())

    def refused(self, error: StoreError) -> None:
        self.refusals.append(error)

    def broken(self, error: BaseException) -> None:
        self.breaks.append(error)


class Refusing(SqliteRunStore):
    """Raises what it is told to, when outcomes are recorded or runs claimed."""

    failure: Exception | None = None

    def finish_and_claim(self, *given: Any, **facts: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return super().finish_and_claim(*given, **facts)

    def finish(self, *given: Any, **facts: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return super().finish(*given, **facts)


class Bench:
    """Lanes that have begun, and all that belongs to them."""

    def __init__(self, store: Refusing, *, count: int = 2, lease_seconds: float = 30) -> None:
        self.store, self.carrier, self.watcher = store, Script(), Watcher()
        self.lanes = Lanes(
            store=store,
            claimant=claimant("ours", lease_seconds=lease_seconds),
            carrier=self.carrier,
            now=now,
            count=count,
            observer=self.watcher,
        )
        self.watcher.holding = self.lanes.holding

    def enqueue(self, *payloads: bytes) -> list[int]:
        return [run.run_id for run in self.store.enqueue([new(payload=each) for each in payloads], now=now())]

    def statuses(self, run_ids: Sequence[int]) -> list[str]:
        return [self.store.get(run_id).status.value for run_id in run_ids]

    def ended(self, run_ids: Sequence[int], status: str = "succeeded") -> bool:
        """Wait until all have, tending the lanes."""
        return bool(self.until(lambda: set(self.statuses(run_ids)) == {status}))

    def until(self, condition: Callable[[], Any]) -> Any:
        def tended() -> Any:
            self.lanes.tend()
            return condition()

        return eventually(tended, seconds=20)

    def close(self) -> None:
        self.carrier.let_go.set()
        self.lanes.leave()
        self.lanes.give_back("the test is over")
        assert self.lanes.join(10)
        self.lanes.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Refusing]:
    opened = Refusing.open(tmp_path / "runner.db")
    assert isinstance(opened, Refusing)
    with closing(opened):
        yield opened


@pytest.fixture
def bench(store: Refusing) -> Iterator[Bench]:
    with closing(Bench(store)) as made:
        made.lanes.start()
        yield made


@pytest.fixture
def single(store: Refusing) -> Iterator[Bench]:
    with closing(Bench(store, count=1)) as made:
        made.lanes.start()
        yield made


# Claiming


def test_what_is_enqueued_is_carried_out(bench: Bench) -> None:
    ids = bench.enqueue(*[b"quick"] * 50)
    assert bench.ended(ids)
    assert sorted(bench.carrier.begun) == ids
    eventually(lambda: len(bench.watcher.ends) == 50)
    assert {status for _, _, status in bench.watcher.ends} == {RunStatus.SUCCEEDED}
    assert all((claim.run_id, claim.token) == outcome[:2] for claim, outcome, _ in bench.watcher.ends)
    eventually(lambda: bench.lanes.holding() == [])
    assert bench.watcher.held_at_end == set()


def test_claims_grow_with_quick_work_and_never_by_much(single: Bench) -> None:
    assert single.ended(single.enqueue(*[b"quick"] * 3000))
    sizes = single.carrier.sizes
    assert sizes[0] == 1
    assert max(sizes) > 16
    assert all(after <= min(before * 4, CLAIM_RUNS) for before, after in pairwise(sizes))


def test_every_lane_gets_some(store: Refusing) -> None:
    with closing(Bench(store, count=4)) as bench:
        ids = bench.enqueue(*[b"wait"] * 4)
        bench.lanes.start()
        eventually(lambda: len(bench.lanes.busy()) == 4)
        busy = bench.lanes.busy()
        assert sorted(each.run_id for each in busy) == ids
        assert {(each.job, each.function, each.runs) for each in busy} == {("clean", "clean", 1)}
        assert bench.watcher.stirs >= 4
        bench.carrier.let_go.set()
        assert bench.ended(ids)


def test_delayed_runs_wake_a_lane(bench: Bench) -> None:
    moment = datetime.fromtimestamp(time.time() + 0.2, timezone.utc)
    (made,) = bench.store.enqueue([new(payload=b"quick", run_at=moment)], now=now())
    assert bench.ended([made.run_id])
    started = bench.store.get(made.run_id).started_at
    assert started is not None
    assert started >= moment


# Behind a long run


def test_what_waits_behind_a_long_run_goes_to_others(bench: Bench) -> None:
    assert bench.ended(bench.enqueue(*[b"quick"] * 200))
    slow, *others = bench.enqueue(b"wait", *[b"quick"] * 100)
    assert bench.ended(others)
    assert bench.statuses([slow]) == ["running"]
    assert {bench.store.get(run_id).attempts for run_id in others} == {1}
    assert len(bench.carrier.begun) == 301, "none has begun twice"
    bench.carrier.let_go.set()
    assert bench.ended([slow])
    assert bench.store.counters()["late_results_refused"] == 0


def test_what_has_ended_before_a_long_run_is_recorded(single: Bench) -> None:
    assert single.ended(single.enqueue(*[b"quick"] * 200))
    *before, slow = single.enqueue(*[b"quick"] * 5, b"wait")
    assert single.ended(before)
    assert single.statuses([slow]) == ["running"]


def test_what_ends_without_having_begun_is_not_given_back_as_well(single: Bench) -> None:
    assert single.ended(single.enqueue(*[b"quick"] * 200))
    *before, slow, behind = single.enqueue(*[b"told"] * 5, b"wait", b"told")
    assert single.ended(before)
    single.until(lambda: single.statuses([behind]) == ["pending"])
    assert single.statuses([slow]) == ["running"]
    single.carrier.let_go.set()
    assert single.ended([*before, slow, behind])
    assert single.watcher.breaks == []
    assert {single.store.get(run_id).attempts for run_id in before} == {1}
    assert single.store.counters()["late_results_refused"] == 0


def test_together_they_are_stopped_when_none_ends(single: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "HOLD_UP_SECONDS", 0.1)
    assert single.ended(single.enqueue(*[b"quick"] * 200))
    single.carrier.together = True
    ids = single.enqueue(*[b"x"] * 3)
    single.until(lambda: all(single.store.get(run_id).attempts for run_id in ids))
    single.carrier.together = False
    assert single.ended(ids)
    assert {attempt.status.value for run_id in ids for attempt in single.store.attempts(run_id)[:-1]} == {"released"}


# Ended from outside


def test_a_cancelled_run_is_stopped(bench: Bench) -> None:
    one, other = bench.enqueue(b"wait", b"wait")
    eventually(lambda: len(bench.carrier.begun) == 2)
    bench.store.cancel(one, "enough", now=now())
    assert bench.ended([one], "cancelled")
    assert bench.statuses([other]) == ["running"]


def test_a_run_whose_lease_was_lost_is_stopped(bench: Bench) -> None:
    (run_id,) = bench.enqueue(b"wait")
    eventually(lambda: bench.carrier.begun)
    later = datetime.fromtimestamp(time.time() + 100, timezone.utc)
    (other,) = bench.store.claim(claimant("another", lease_seconds=1000), 1, now=later)
    bench.lanes._renewed = 0.0
    bench.until(lambda: bench.watcher.ends)
    ((claim, _, status),) = bench.watcher.ends
    assert (claim.run_id, status) == (run_id, None)
    assert bench.store.finish([Succeeded(run_id, other.token, b"theirs")], now=later) == [RunStatus.SUCCEEDED]
    assert bench.store.counters()["late_results_refused"] == 1


def test_leases_are_renewed(store: Refusing) -> None:
    with closing(Bench(store, lease_seconds=0.6)) as bench:
        (run_id,) = bench.enqueue(b"wait")
        bench.lanes.start()
        eventually(lambda: bench.carrier.begun)
        first = store.get(run_id).lease_until
        assert first is not None
        bench.until(lambda: (store.get(run_id).lease_until or first) > first)
        bench.until(lambda: now() > first)
        assert (store.get(run_id).status, store.get(run_id).attempts) == (RunStatus.RUNNING, 1)


def test_who_slept_renews_before_it_claims(store: Refusing) -> None:
    with closing(Bench(store, lease_seconds=0.5)) as bench:
        (run_id,) = bench.enqueue(b"wait")
        bench.lanes.start()
        eventually(lambda: bench.carrier.begun == [run_id])
        until = store.get(run_id).lease_until  # nobody tends from now on
        assert until is not None
        eventually(lambda: now() > until)
        assert bench.ended(bench.enqueue(b"quick"))
        assert (store.get(run_id).status, store.get(run_id).attempts) == (RunStatus.RUNNING, 1)
        assert store.counters()["leases_taken_over"] == 0


# When the store refuses


def test_outcomes_are_kept_until_the_store_takes_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "AGAIN_SECONDS", 0.01)
    ids = bench.enqueue(b"wait", b"wait")
    eventually(lambda: len(bench.carrier.begun) == 2)
    bench.store.failure = StoreLocked("busy")
    bench.carrier.let_go.set()
    eventually(lambda: len(bench.watcher.refusals) > 3)
    assert len(bench.lanes.holding()) == 2
    assert bench.lanes.busy() == []
    bench.store.failure = None
    assert bench.ended(ids)
    assert {bench.store.get(run_id).attempts for run_id in ids} == {1}
    assert bench.watcher.breaks == []


def test_a_tending_that_is_refused_loses_nothing(single: Bench) -> None:
    assert single.ended(single.enqueue(*[b"quick"] * 200))
    quick, slow = single.enqueue(b"quick", b"wait")
    eventually(lambda: slow in single.carrier.begun)
    single.store.failure = StoreLocked("busy")
    time.sleep(lanes_module.TEND_SECONDS)
    single.lanes.tend()
    single.store.failure = None
    assert single.ended([quick])
    assert single.statuses([slow]) == ["running"]


@pytest.mark.parametrize("failure", [StoreDamaged("broken"), InvalidInput("nothing a store can keep")])
def test_what_will_never_pass_ends_the_lanes(bench: Bench, failure: Exception) -> None:
    bench.store.failure = failure
    bench.enqueue(b"quick")
    eventually(lambda: bench.watcher.breaks)
    assert set(bench.watcher.breaks) == {failure}


def test_a_bug_ends_the_lane_and_is_told(bench: Bench) -> None:
    bench.enqueue(b"bug")
    eventually(lambda: bench.watcher.breaks)
    assert isinstance(bench.watcher.breaks[0], KeyError)


# The end


def test_leaving_they_finish_what_they_are_at(bench: Bench) -> None:
    running = bench.enqueue(b"wait", b"wait")
    eventually(lambda: len(bench.carrier.begun) == 2)
    waiting = bench.enqueue(b"quick")
    bench.lanes.leave()
    assert not bench.lanes.join(0.05)
    bench.carrier.let_go.set()
    assert bench.lanes.join(10)
    assert bench.statuses(running) == ["succeeded"] * 2
    assert bench.statuses(waiting) == ["pending"]


def test_what_is_given_back_is_stopped_and_pending(bench: Bench) -> None:
    ids = bench.enqueue(b"wait", b"wait")
    eventually(lambda: len(bench.carrier.begun) == 2)
    bench.lanes.leave()
    bench.lanes.give_back("the daemon stopped")
    assert bench.lanes.join(10)
    assert bench.statuses(ids) == ["pending"] * 2
    assert [attempt.message for run_id in ids for attempt in bench.store.attempts(run_id)] == ["the daemon stopped"] * 2
    assert bench.lanes.holding() == []


def test_given_back_while_the_store_refuses_they_end_all_the_same(bench: Bench) -> None:
    bench.enqueue(b"wait")
    eventually(lambda: bench.carrier.begun)
    bench.store.failure = StoreLocked("busy")
    bench.lanes.leave()
    bench.lanes.give_back("the daemon stopped")
    assert bench.lanes.join(10)
    assert len(bench.lanes.holding()) == 1
    bench.store.failure = None


def test_they_need_not_have_begun(store: Refusing) -> None:
    before = open_descriptors()
    bench = Bench(store)
    bench.lanes.leave()
    assert bench.lanes.join(0)
    bench.lanes.close()
    bench.lanes.close()
    assert open_descriptors() == before


# With real workers


def test_with_real_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with closing(DaemonProject(tmp_path)) as project:
        project.jobs()
        with Runner.open(project.folder / "jobs.yaml", plugins.load()) as runner:
            runner.register("guest")
            watcher = Watcher()
            lanes = Lanes(
                store=runner.store,
                claimant=Claimant(owner="ours", namespace="shop"),
                carrier=Carrier(runner, now=now),
                now=now,
                count=2,
                observer=watcher,
            )
            lanes.start()
            quick, (slow,) = project.enqueue(*[SAY] * 100), project.enqueue(HANG)

            def reached(status: RunStatus, *run_ids: int) -> bool:
                lanes.tend()
                return {project.store.get(run_id).status for run_id in run_ids} == {status}

            eventually(lambda: reached(RunStatus.SUCCEEDED, *quick), seconds=30)
            assert project.store.get(slow).status is RunStatus.RUNNING
            project.store.cancel(slow, "enough", now=now())
            eventually(lambda: reached(RunStatus.CANCELLED, slow), seconds=30)
            lanes.leave()
            assert lanes.join(10)
            lanes.close()
            assert watcher.breaks == []
