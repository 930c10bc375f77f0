"""A process that is killed at any moment while it parks runs and ends their children leaves no run behind that
nobody wakes, and no child that its parent does not know of."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from runner_sqlite.runs import SqliteRunStore

from runner.ledger import RunFilter
from runner.runs import Claimant, NewRun, RunStatus

ROUNDS = 12
PARENTS, CHILDREN = 30, 12
START = datetime(2027, 1, 1, tzinfo=timezone.utc)

WORKER = """
import json, random, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from runner.runs import *
from runner_sqlite.runs import SqliteRunStore

path, round_, most = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(round_)
store = SqliteRunStore.open(path)
now = datetime(2027, 1, 1, tzinfo=timezone.utc) + timedelta(hours=round_)
ours = Claimant(owner=f"round {round_}", namespace="shop", lease_seconds=60)
boom = Failure("Trapped", "trapped: boom", "")
print("ready", flush=True)
sys.stdin.readline()

def parent(claim):
    state = json.loads(claim.state or b'{"made": 0, "seen": 0}')
    ended = store.steps_ended(claim.run_id, after=state["seen"])
    state["seen"] += len(ended)
    if state["made"] == most:
        if state["seen"] == most:
            return Succeeded(claim.run_id, claim.token, b"done", state=json.dumps(state).encode())
        children = []
    else:
        count = min(chance.randrange(1, 5), most - state["made"])
        children = [NewRun("shop", "step", step="s", item=state["made"] + n, retry_count=1) for n in range(count)]
        state["made"] += count
    wake_after = chance.randint(1, state["made"] - state["seen"])
    return Parked(claim.run_id, claim.token, json.dumps(state).encode(), children, state["seen"], wake_after)

def child(claim):
    if chance.random() < 0.2 and not claim.failures:
        return Retry(claim.run_id, claim.token, now, boom)
    if chance.random() < 0.1:
        return Dead(claim.run_id, claim.token, boom)
    return Succeeded(claim.run_id, claim.token, b"out")

outcomes = []
while True:
    _, claims = store.finish_and_claim(outcomes, ours, chance.randint(1, 9), now=now)
    if not claims:
        break
    outcomes = [child(claim) if claim.step else parent(claim) for claim in claims]
print("drained", flush=True)
"""
"""Advances whatever there is until nothing is left: parents make children a few at a time and end after them."""


def test_nothing_is_left_that_nobody_wakes(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    chance = random.Random(3)
    store = SqliteRunStore.open(path)
    store.enqueue([NewRun("shop", "p", plan=b"{}")] * PARENTS, now=START)
    drained = False
    for round_ in range(ROUNDS + 1):
        command = [sys.executable, "-c", WORKER, str(path), str(round_), str(CHILDREN)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.stdin.write(b"\n")
            process.stdin.flush()
            if round_ < ROUNDS:
                time.sleep(chance.uniform(0.005, 0.06))
                process.kill()
            drained = process.stdout.readline() == b"drained\n"
    assert drained
    later = START + timedelta(hours=ROUNDS + 2)
    assert not store.claim(Claimant(owner="last", namespace="shop"), 10, now=later)
    parents = store.list_runs(RunFilter(job="p"), limit=1000)
    # On a slow machine one may be lost three times in a row, and die of that.
    assert {run.status for run in parents} <= {RunStatus.SUCCEEDED, RunStatus.DEAD}
    assert RunStatus.SUCCEEDED in {run.status for run in parents}
    assert len(parents) == PARENTS
    for parent in parents:
        children = store.list_runs(RunFilter(parent_id=parent.run_id), limit=1000)
        assert all(run.status.is_terminal for run in children)
        made = range(CHILDREN if parent.status is RunStatus.SUCCEEDED else len(children))
        assert sorted(run.item for run in children if run.item is not None) == list(made)
        ended = store.steps_ended(parent.run_id)
        assert [end.number for end in ended] == [number + 1 for number in made]
        assert {end.run_id for end in ended} == {run.run_id for run in children}
    store.close()
