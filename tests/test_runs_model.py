"""The run store `sqlite` and the in-memory double do the same, whatever is asked of them in whatever order;
no run is lost, none is in two states, and none that has ended changes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from runner_sqlite.runs import SqliteRunStore

from runner.errors import RunnerError
from runner.ledger import Retention, Run, RunFilter, SlotEntry
from runner.models import LogEntry, LogLevel
from runner.run_store import RunStore
from runner.runs import (
    Cancelled,
    Claim,
    Claimant,
    Dead,
    Failed,
    Failure,
    Follower,
    Lost,
    NewRun,
    OnConflict,
    Outcome,
    Parked,
    Released,
    Retry,
    RunStatus,
    Succeeded,
)
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START

pytestmark = pytest.mark.slow

T = TypeVar("T")

BOOM = Failure("Trapped", "trapped: boom", "tail")
LINES = (LogEntry(LogLevel.INFO, "a line", START.timestamp()),)
TRIGGERS = ("t", "u")
OWNERS = st.sampled_from(["one", "two"])
SECONDS = st.integers(-5, 90)

RUNS = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(["shop", "shop", "other"]),
        "job": st.sampled_from(["clean", "send"]),
        "payload": st.binary(max_size=8),
        "queue": st.sampled_from(["default", "slow"]),
        "priority": st.integers(-1, 1),
        "unique_key": st.sampled_from([None, None, "k"]),
        "on_conflict": st.sampled_from(OnConflict),
        "retry_count": st.integers(0, 2),
        "dlq_topic": st.sampled_from([None, "dead"]),
    }
).map(lambda facts: NewRun(**facts))
DELAYED_RUNS = st.tuples(RUNS, st.none() | SECONDS)


def outcome(claim: Claim, kind: str, run_at: datetime) -> Outcome:
    """One way in which a claim can end."""
    run_id, token = claim[:2]
    ways: dict[str, Outcome] = {
        "succeeded": Succeeded(run_id, token, b"out", 1.5, 9, LINES),
        "retry": Retry(run_id, token, run_at, BOOM, 2.5, 8, LINES),
        "failed": Failed(run_id, token, BOOM, 3.5, 7, state=b"s"),
        "dead": Dead(run_id, token, BOOM, 4.5, 6),
        "lost": Lost(run_id, token, BOOM),
        "cancelled": Cancelled(run_id, token, "stopped", 5.5, 5),
        "released": Released(run_id, token, "shutdown"),
        "unstarted": Released(run_id, token, "shutdown", started=False),
        "put off": Released(run_id, token, "no engine", run_at=run_at),
    }
    return ways[kind]


SEATS = st.sampled_from([None, None, None, ("seat", 1), ("seat", 2)])
PARKED = st.fixed_dictionaries(
    {
        "steps": st.lists(st.tuples(st.sampled_from("ab"), RUNS), max_size=3),
        "seen": st.integers(0, 3),
        "wake_after": st.integers(0, 3),
        "progress": st.integers(-1, 101),
        "state": st.binary(max_size=3),
        "seat": SEATS,
    }
)
KINDS = st.sampled_from(
    [
        "succeeded",
        "succeeded",
        "retry",
        "failed",
        "dead",
        "lost",
        "lost",
        "cancelled",
        "released",
        "unstarted",
        "put off",
    ]
)


class BothStores(RuleBasedStateMachine):
    """Asks both stores the same and compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # where a commit costs nothing; kills are tested elsewhere
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.sqlite = SqliteRunStore.open(self.folder / "runner.db")
        self.double = MemoryRunStore()
        self.now = START
        self.claims: list[Claim] = []
        self.accepted: set[int] = set()
        self.ended: dict[int, Run] = {}
        self.steps = 0

    def teardown(self) -> None:
        self.sqlite.close()
        shutil.rmtree(self.folder)

    def both(self, ask: Callable[[RunStore], T]) -> T | RunnerError:
        """The answer of both."""
        answers: list[Any] = []
        for store in (self.sqlite, self.double):
            try:
                answers.append(ask(store))
            except RunnerError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1], f"\nsqlite {answers[0]}\ndouble {answers[1]}"
        return answers[0]  # type: ignore[no-any-return]

    def after(self, seconds: int | None) -> datetime | None:
        return None if seconds is None else self.now + timedelta(seconds=seconds)

    @rule(seconds=st.integers(-10, 60))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(runs=st.lists(DELAYED_RUNS, min_size=1, max_size=4))
    def enqueue(self, runs: list[tuple[NewRun, int | None]]) -> None:
        wanted = [run._replace(run_at=self.after(seconds)) for run, seconds in runs]
        self.both(lambda store: store.enqueue(wanted, now=self.now))

    @rule(owner=OWNERS, limit=st.integers(1, 4), slow=st.none() | st.integers(0, 2), lease=st.sampled_from([5, 30]))
    def claim(self, owner: str, limit: int, slow: int | None, lease: int) -> None:
        limits = {} if slow is None else {"slow": slow}
        claimant = Claimant(owner=owner, namespace="shop", lease_seconds=lease, limits=limits)
        claims = self.both(lambda store: store.claim(claimant, limit, now=self.now))
        assert isinstance(claims, list)
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), kinds=st.lists(KINDS, min_size=1, max_size=3), seconds=SECONDS)
    def finish(self, data: st.DataObject, kinds: list[str], seconds: int) -> None:
        moment = self.after(seconds)
        assert moment is not None
        outcomes = [outcome(data.draw(st.sampled_from(self.claims)), kind, moment) for kind in kinds]
        self.both(lambda store: store.finish(outcomes, now=self.now))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), facts=PARKED, others=st.lists(KINDS, max_size=2))
    def park(self, data: st.DataObject, facts: dict[str, Any], others: list[str]) -> None:
        claims = data.draw(st.lists(st.sampled_from(self.claims), min_size=1, max_size=3, unique=True))
        outcomes = [outcome(claim, kind, self.now) for claim, kind in zip(claims[1:], others, strict=False)]
        self.steps += len(facts["steps"])
        runs = enumerate(facts["steps"], self.steps)
        children = [
            run._replace(step=step, item=item, unique_key=None, namespace="shop", job="steps")
            for item, (step, run) in runs
        ]
        facts = {name: value for name, value in facts.items() if name != "steps"}
        if facts["seat"] is not None:
            children = []
        outcomes.append(Parked(*claims[0][:2], **facts, children=children))
        self.both(lambda store: store.finish(outcomes, now=self.now))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seconds=st.integers(0, 60))
    def renew(self, data: st.DataObject, seconds: int) -> None:
        token = data.draw(st.sampled_from(self.claims)).token
        held = [claim[:2] for claim in self.claims if claim.token == token]
        self.both(lambda store: store.renew(held, until=self.now + timedelta(seconds=seconds)))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), percent=st.integers(-1, 101))
    def report(self, data: st.DataObject, percent: int) -> None:
        run_id, token = data.draw(st.sampled_from(self.claims))[:2]
        self.both(lambda store: store.report_progress([(run_id, token, percent)]))
        self.both(lambda store: store.add_logs(run_id, token, LINES))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.accepted)))
        self.both(lambda store: store.cancel(run_id, "enough", now=self.now))

    @rule(owner=OWNERS)
    def take_back(self, owner: str) -> None:
        self.both(lambda store: store.take_back(owner, "it is dead", now=self.now))

    @rule(job=st.sampled_from([None, "clean"]), limit=st.integers(0, 3))
    def redrive(self, job: str | None, limit: int) -> None:
        self.both(lambda store: store.redrive(job=job, limit=limit, now=self.now))

    @rule(job=st.sampled_from([None, "clean"]))
    def drop(self, job: str | None) -> None:
        self.both(lambda store: store.drop(job=job, limit=1))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def rerun(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.accepted)))
        self.both(lambda store: store.rerun(run_id, now=self.now))

    @rule(run=RUNS, slots=st.lists(st.tuples(st.sampled_from(TRIGGERS), st.integers(0, 5)), max_size=3))
    def record_slots(self, run: NewRun, slots: list[tuple[str, int]]) -> None:
        entries = [SlotEntry.ran(trigger, START + timedelta(seconds=n), run) for trigger, n in slots]
        self.both(lambda store: store.record_slots(entries, now=self.now))

    @rule(statuses=st.frozensets(st.sampled_from(sorted(RunStatus)), max_size=2), run=RUNS)
    def follow(self, statuses: frozenset[RunStatus], run: NewRun) -> None:
        follower = Follower("clean", statuses, run._replace(job="after"))
        self.both(lambda store: store.follow([follower]))

    @rule()
    def prune_nothing(self) -> None:
        self.both(lambda store: store.prune(Retention(), now=self.now))

    @invariant()
    def no_run_is_lost_and_none_that_has_ended_changes(self) -> None:
        runs = self.both(lambda store: store.list_runs(RunFilter(), limit=10_000))
        assert isinstance(runs, list)
        found = {run.run_id: run for run in runs}
        assert self.accepted <= found.keys()
        assert self.ended.items() <= found.items()
        self.accepted |= found.keys()
        self.ended |= {run_id: run for run_id, run in found.items() if run.status.is_terminal}
        live = len(found) - len(self.ended)
        with self.sqlite._store.read() as connection:
            (rows,) = connection.execute("SELECT COUNT(*) FROM queue").fetchone()
            (both,) = connection.execute("SELECT COUNT(*) FROM queue JOIN outcomes USING (run_id)").fetchone()
            (idle,) = connection.execute(
                "SELECT COUNT(*) FROM leases WHERE token NOT IN (SELECT token FROM queue WHERE token IS NOT NULL)"
            ).fetchone()
        assert (rows, both, idle) == (live, 0, 0)

    @invariant()
    def all_else_is_the_same(self) -> None:
        for run_id in self.accepted:
            self.both(lambda store, run_id=run_id: store.attempts(run_id))  # type: ignore[misc]
            self.both(lambda store, run_id=run_id: store.logs(run_id))  # type: ignore[misc]
            self.both(lambda store, run_id=run_id: store.why(run_id, now=self.now).children)  # type: ignore[misc]
            self.both(lambda store, run_id=run_id: store.state(run_id))  # type: ignore[misc]
            ended = self.both(lambda store, run_id=run_id: store.steps_ended(run_id))  # type: ignore[misc]
            assert isinstance(ended, list)
            assert [end.number for end in ended] == list(range(1, len(ended) + 1))
            self.both(lambda store, run_id=run_id: store.step_outputs([run_id], "a"))  # type: ignore[misc]
        self.both(lambda store: store.dead_letters())
        self.both(lambda store: store.tail(RunFilter(job="clean")).lines)
        self.both(lambda store: [message[1:] for message in store.read_topic("dead")])
        self.both(lambda store: store.next_due("shop"))
        self.both(lambda store: store.counters())
        self.both(lambda store: [store.cancel_requests(owner) for owner in store.owners()])
        self.both(lambda store: store.live_runs(TRIGGERS))
        self.both(lambda store: [store.slots(trigger) for trigger in TRIGGERS])


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
