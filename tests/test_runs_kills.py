"""A process that is killed at any moment loses nothing that it acknowledged, and leaves no run behind that
nobody will take."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

from runner_sqlite.runs import SqliteRunStore

from runner.ledger import RunFilter
from runner.runs import Claimant, RunStatus, Succeeded

EVERYTHING = """
import random, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from runner.ledger import Retention, SlotEntry
from runner.runs import *
from runner_sqlite.runs import SqliteRunStore

path, round_ = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(round_)
store = SqliteRunStore.open(path)
now = datetime(2027, 1, 1, tzinfo=timezone.utc) + timedelta(hours=round_)
ours = Claimant(owner=f"round {round_}", namespace="shop", lease_seconds=60)
boom = Failure("Trapped", "trapped: boom", "")
print("ready", flush=True)
sys.stdin.readline()

def ended(claim):
    if claim.run_id % 7 == 0 and claim.failures < 2:
        return Retry(claim.run_id, claim.token, now, boom)
    if claim.run_id % 11 == 0:
        return Dead(claim.run_id, claim.token, boom)
    return Succeeded(claim.run_id, claim.token, b"out" + claim.payload)

outcomes, slot = [], 0
while True:
    runs = [NewRun("shop", "clean", payload=chance.randbytes(chance.choice([3, 3, 3000])), dlq_topic="dead")
            for _ in range(chance.randrange(8))]
    made = store.enqueue(runs, now=now)
    for run, (run_id, _) in zip(runs, made):
        print("enqueued", run_id, run.payload.hex(), flush=True)
    slot += 1
    entry = SlotEntry.ran("t", now + timedelta(seconds=slot), NewRun("shop", "slot", dlq_topic="dead"))
    recorded, = store.record_slots([entry], now=now)
    print("slot", recorded.slot.timestamp(), recorded.run_id, flush=True)
    statuses, claims = store.finish_and_claim(outcomes, ours, 6, now=now)
    for outcome, status in zip(outcomes, statuses):
        if status is not None and status.is_terminal:
            print("ended", outcome.run_id, status.value, flush=True)
    outcomes = [ended(claim) for claim in claims]
    if made and chance.random() < 0.2:
        status = store.cancel(made[0].run_id, "enough", now=now)
        if status.is_terminal:
            print("ended", made[0].run_id, status.value, flush=True)
    if chance.random() < 0.1:
        store.redrive(limit=2, now=now)
        store.prune(Retention(), now=now)
"""
"""A process that does everything a daemon does and acknowledges it on stdout."""

START = datetime(2027, 1, 1, tzinfo=timezone.utc)


class Acknowledged:
    """What killed processes have promised."""

    def __init__(self) -> None:
        self.payloads: dict[int, bytes] = {}
        self.ended: dict[int, str] = {}
        self.slots: dict[float, int] = {}

    def read(self, line: str) -> None:
        if not line.endswith("\n"):
            return  # killed in the middle of it
        what, first, second = line.split(maxsplit=2)
        if what == "enqueued":
            self.payloads[int(first)] = bytes.fromhex(second)
        elif what == "slot":
            self.slots[float(first)] = int(second)
        else:
            assert self.ended.setdefault(int(first), second.strip()) == second.strip()


def run_and_kill(path: Path, round_: int, seconds: float, promised: Acknowledged) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", EVERYTHING, str(path), str(round_)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    promised.read(process.stdout.readline())
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    for line in process.stdout:
        promised.read(line)
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL


def check(path: Path, promised: Acknowledged) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT * FROM queue JOIN outcomes USING (run_id)").fetchall() == []
        (live,) = connection.execute("SELECT COUNT(*) FROM queue").fetchone()
        (ended,) = connection.execute("SELECT COUNT(*) FROM outcomes").fetchone()
        (runs,) = connection.execute("SELECT COUNT(*) FROM runs").fetchone()
        assert live + ended == runs
        held = "SELECT COUNT(*) FROM queue WHERE token IS NOT NULL AND token NOT IN (SELECT token FROM leases)"
        assert connection.execute(held).fetchone() == (0,)
        lettered = "SELECT run_id FROM outcomes WHERE status = 'dead' AND run_id NOT IN (SELECT run_id FROM {0})"
        told = connection.execute(lettered.format("topic_messages WHERE run_id IS NOT NULL")).fetchall()
        assert told == []  # each death is told; its letter may have been redriven since
    with closing(SqliteRunStore.open(path)) as store:
        for run_id, payload in promised.payloads.items():
            assert store.payload(run_id) == payload
        for run_id, status in promised.ended.items():
            assert store.get(run_id).status.value == status
        for slot, slot_run in promised.slots.items():
            recorded = store.slot("t", datetime.fromtimestamp(slot, timezone.utc))
            assert recorded is not None
            assert recorded.run_id == slot_run
            assert store.get(slot_run).job == "slot"


def drain(path: Path) -> None:
    """Run everything there is, well after all leases have run out."""
    with closing(SqliteRunStore.open(path)) as store:
        now = START + timedelta(days=30)
        ours = Claimant(owner="the last", namespace="shop")
        outcomes: list[Succeeded] = []
        while True:
            statuses, claims = store.finish_and_claim(outcomes, ours, 100, now=now)
            assert statuses == [RunStatus.SUCCEEDED] * len(outcomes)
            if not claims:
                break
            outcomes = [Succeeded(claim.run_id, claim.token, b"out" + claim.payload) for claim in claims]
        assert store.owners() == []
        depth = store.depth(now=now)
        assert (depth.ready, depth.waiting, depth.running) == (0, 0, 0)
        for run in store.list_runs(RunFilter(statuses=frozenset({RunStatus.SUCCEEDED})), limit=10_000):
            assert store.result(run.run_id) == b"out" + store.payload(run.run_id)
            assert [attempt.number for attempt in store.attempts(run.run_id)] == list(range(1, run.attempts + 1))


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    chance = random.Random(2027)
    promised = Acknowledged()
    for round_ in range(12):
        run_and_kill(path, round_, chance.uniform(0, 0.25), promised)
        check(path, promised)
    assert len(promised.payloads) > 20
    assert promised.ended
    drain(path)
    check(path, promised)
    with closing(SqliteRunStore.open(path)) as store:
        assert store.counters()["late_results_refused"] == 0
        assert all(store.get(run_id).status.is_terminal for run_id in promised.payloads)
