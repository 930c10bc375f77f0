"""Pipelines as they are shown: the tree in little room, news for a log, lines of a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import click
import pytest

from runner.cli.liveline import cut
from runner.cli.steptree import facts, items, news, tree
from runner.ledger import Run
from runner.ownrun import View
from runner.pipeline_state import State, StepState
from runner.plan import Plan, Reuse, StepPlan, Target
from runner.runs import NewRun, RunStatus
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START

NOW = START + timedelta(seconds=75)


def run(status: RunStatus = RunStatus.RUNNING) -> Run:
    store = MemoryRunStore()
    store.enqueue([NewRun("shop", "p")], now=START)
    return replace(store.get(1), status=status)


def view(status: RunStatus = RunStatus.RUNNING, reuse: Reuse | None = None, **states: StepState) -> View:
    needs = {"a": (), "each": ("a",), "b": ("a",), "z": ("each", "b"), "on_failure": ("a", "each", "b", "z")}
    steps = {name: StepPlan(name=name, target=Target(job="p"), needs=needed) for name, needed in needs.items()}
    state = State(steps=states, is_open=True)
    return View(run_id=7, job="p", plan=Plan(steps=steps, reuse=reuse), state=state, run=run(status))


def step(status: str, seconds: float = 0, **counts: Any) -> StepState:
    ended_at = "" if status == "running" else (START + timedelta(seconds=seconds)).isoformat()
    return StepState(status=status, began_at=START.isoformat(), ended_at=ended_at, **counts)


HALF = view(
    a=step("succeeded", 1.25),
    each=step("running", total=1000, succeeded=249, failed=1),
    b=step("running"),
)


def plain(shown: list[str]) -> list[str]:
    return [click.unstyle(line) for line in shown]


def test_a_batch_tells_of_its_records() -> None:
    counts = {"records_in": 27_004, "records_skipped": 0, "records_quarantined": 85, "records_reused": 5}
    shown = replace(view(a=step("succeeded", 1.25)), counts={"a": counts})
    assert "  ✓   a     succeeded  1.2 s  27,004 records, 85 quarantined, 5 reused" in plain(tree(shown, NOW))
    assert list(news(None, shown, NOW)) == ["p.a: succeeded 1.2 s 27,004 records, 85 quarantined, 5 reused"]


def test_a_tree() -> None:
    assert plain(tree(HALF, NOW)) == [
        "p  run 7  1 of 5 steps",
        "  ✓   a     succeeded  1.2 s",
        "  │",
        "  ├─● each  running    1 min 15 s  █████░░░░░░░░░░░░░░░ 250 of 1,000 items, 1 failed",
        "  │ │",
        "  ● │ b     running    1 min 15 s",
        "  │ │",
        "  ○─╯ z",
    ]


def test_with_less_and_less_room() -> None:
    assert len(tree(HALF, NOW, most=8)) == 8
    assert plain(tree(HALF, NOW, most=7))[1:3] == ["  ✓   a     succeeded  1.2 s", plain(tree(HALF, NOW))[3]]
    assert [re.findall(r"each|b", line) for line in plain(tree(HALF, NOW, most=4))[1:]] == [["each"], ["b"]]
    assert len(tree(HALF, NOW, most=1)) == 2


def test_a_failure_shows_what_is_run_on_it() -> None:
    shown = plain(tree(view(a=step("failed", 1), each=step("skipped"), on_failure=step("succeeded", 2)), NOW))
    assert shown[1].startswith("  ✗   a           failed     1.0 s")
    assert "· each        skipped" in shown[3]
    assert shown[-1].startswith("  ✓   on_failure  succeeded  2.0 s")


def test_a_step_that_failed_tells_why() -> None:
    shown = view(a=step("failed", 1, message="item 3: exited\x1b\nwith code 4", total=9, failed=1))
    assert plain(tree(shown, NOW))[1] == "  ✗   a     failed     1.0 s  1 of 9 items, 1 failed  item 3: exited\\x1b"
    assert list(news(None, shown, NOW)) == ["p.a: failed 1.0 s 1 of 9 items, 1 failed item 3: exited\\x1b"]


def test_what_is_taken_over_and_what_waits() -> None:
    shown = tree(view(reuse=Reuse(runs=(3,), whole={"a": None}), a=step("succeeded")), NOW)
    assert click.unstyle(shown[1]) == "  ✓   a     succeeded  as in run 3"
    waiting = view(RunStatus.PENDING)
    assert plain(tree(waiting, NOW))[0] == "p  run 7  waits for its turn"
    assert list(news(None, waiting, NOW)) == ["p: waits for its turn, as its `concurrency` says"]
    assert list(news(waiting, waiting, NOW)) == []


def test_news() -> None:
    before = view(a=step("running"))
    assert list(news(None, before, NOW)) == ["p.a: running"]
    assert list(news(before, before, NOW)) == []
    assert list(news(before, HALF, NOW)) == ["p.a: succeeded 1.2 s", "p.each: running", "p.b: running"]
    assert list(items(HALF)) == ["p.each: 250 of 1,000 items, 1 failed"]


def test_as_json() -> None:
    found = list(facts(HALF))
    assert found[1] == {
        "step": "each",
        "status": "running",
        "total": 1000,
        "succeeded": 249,
        "failed": 1,
        "message": None,
    }
    assert found[3] == {"step": "z", "status": "waiting", "total": None, "succeeded": 0, "failed": 0, "message": None}
    (failed, *_) = facts(view(a=step("failed", 1, message="no 'x'")))
    assert (failed["status"], failed["message"]) == ("failed", "no 'x'")


@pytest.mark.parametrize("columns", [0, 1, 5, 9, 100])
def test_cutting_counts_no_styles(columns: int) -> None:
    line = f"ab{click.style('cde', fg='red')}f{click.style('ghi', bold=True)}"
    assert click.unstyle(cut(line, columns)) == "abcdefghi"[:columns]
    assert re.sub(r"[a-i]", "", cut(line, columns)) == re.sub(r"[a-i]", "", line)
