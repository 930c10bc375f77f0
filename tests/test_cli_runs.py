"""`runner runs`: listing, showing, cancelling and running again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runner.cli import console
from runner.ledger import RunFilter, SlotEntry
from runner.runs import Failed, NewRun, RunStatus
from tests.cli_project import CliProject
from tests.cli_queue import RFC_3339, Queue, now

LISTED = [
    *("run_id", "job", "step", "item", "status", "trigger_type", "slot", "attempts"),
    *("created_at", "started_at", "finished_at", "error_class"),
]


STEP = NewRun("default", "nightly", step="enrich", item=3)


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare("{echo: {run: echo}, trap: {run: trap}}")
    return project


@pytest.fixture
def queue(project: CliProject) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue.store.close()


def listed(project: CliProject, *arguments: str) -> list[int]:
    return [row["run_id"] for row in project.ok("runs", "list", "--json", *arguments).rows]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (-0.9, "just now"),
        (1, "1 s ago"),
        (119.9, "119 s ago"),
        (120, "2 min ago"),
        (7199, "119 min ago"),
        (7200, "2 h ago"),
        (172_799, "47 h ago"),
        (172_800, "2 d ago"),
        (-90, "in 90 s"),
        (-86_400 * 400, "in 400 d"),
    ],
)
def test_how_far_away_a_moment_is(seconds: float, text: str) -> None:
    at = now()
    assert console.relative(at - timedelta(seconds=seconds), at) == text


# list


def test_list_in_json(project: CliProject, queue: Queue) -> None:
    ok, dead = queue.succeed(), queue.fail(job="trap")
    slot = datetime.fromisoformat("2027-01-15T02:15:00+00:00")
    new = NewRun("default", "echo", "echo", 1)
    queue.store.record_slots([SlotEntry.ran("default/echo/cron/x", slot, new)], now=now())
    waits, failed, succeeded = project.ok("runs", "list", "--json").rows
    assert list(waits) == LISTED
    assert (waits["status"], waits["slot"], waits["attempts"]) == ("pending", "2027-01-15T02:15:00.000Z", 0)
    assert waits["started_at"] is waits["finished_at"] is waits["error_class"] is None
    assert (failed["run_id"], failed["job"], failed["status"]) == (dead, "trap", "dead")
    assert (failed["error_class"], failed["attempts"]) == ("Trapped", 1)
    assert (succeeded["run_id"], succeeded["status"], succeeded["trigger_type"]) == (ok, "succeeded", "job")
    for name in ("created_at", "started_at", "finished_at"):
        assert re.fullmatch(RFC_3339, succeeded[name])


def test_list_as_a_table(project: CliProject, queue: Queue) -> None:
    queue.succeed(ago=300)
    queue.fail(job="trap")
    queue.retry(600)
    queue.put(run_at=now(7300))
    again = queue.store.rerun(1, now=now()).run_id
    queue.claim()
    head, *rows = project.ok("runs", "list").text.splitlines()
    assert head.split() == ["run", "job", "status", "started", "by", "attempts", "created", "took"]
    assert re.fullmatch(rf" *{again}  echo  running +run 1 +1 +(just now|\d s ago) +[\d.]+ m?s", rows[0])
    assert re.fullmatch(r" *4  echo  pending +request +0 +(just now|\d s ago) +in 2 h", rows[1])
    assert re.fullmatch(r" *3  echo  pending +request +1 +(just now|\d s ago) +3\.5 ms  again in (9|10) min", rows[2])
    assert re.fullmatch(r" *2  trap  dead +request +1 +\S.* +3\.5 ms  trapped: unreachable in \\x1b\[31minner", rows[3])
    assert re.fullmatch(r" *1  echo  succeeded +request +1 +5 min ago +12 ms", rows[4])


def test_filters_and_pages(project: CliProject, queue: Queue) -> None:
    a = queue.put(ago=7200)
    b = queue.put("trap", queue="slow")
    c = queue.put(namespace="other")
    d = queue.put()
    queue.store.cancel(d, "", now=now())
    assert listed(project) == [d, b, a]
    assert listed(project, "echo") == [d, a]
    assert listed(project, "--status", "pending") == [b, a]
    assert listed(project, "--status", "pending", "--status", "cancelled", "echo") == [d, a]
    assert listed(project, "--queue", "slow") == [b]
    again = queue.store.rerun(d, now=now()).run_id
    assert listed(project, "--parent", str(d)) == [again]
    queue.store.cancel(again, "", now=now())
    assert listed(project, "--since", "1h") == [again, d, b]
    assert listed(project, "--since", now(-3600).isoformat()) == [again, d, b]
    assert listed(project, "-n", "1") == [again]
    assert listed(project, "--before", str(d), "--limit", "1") == [b]
    page = project.ok("runs", "list", "-n", "2")
    assert page.err == f"older ones: --before {d}\n"
    assert c not in listed(project)


def test_steps_of_a_pipeline_are_listed_when_they_are_asked_for(project: CliProject, queue: Queue) -> None:
    pipeline, one, many = queue.park("nightly", NewRun("default", "nightly", step="load"), STEP)
    assert listed(project) == [pipeline]
    assert listed(project, "--steps") == [many, one, pipeline]
    assert listed(project, "--parent", str(pipeline)) == [many, one]
    rows = project.ok("runs", "list", "--steps").text.splitlines()[1:]
    assert [row.split()[:3] for row in rows] == [
        [str(many), "nightly/enrich[3]", "pending"],
        [str(one), "nightly/load", "pending"],
        [str(pipeline), "nightly", "running"],
    ]
    text = project.ok("runs", "show", str(many)).text
    assert re.search(rf"^step +enrich\[3\] of run {pipeline}$", text, re.MULTILINE)
    assert project.ok("runs", "cancel", "--job", "nightly").err == "1 run cancelled\n"
    assert listed(project, "--steps", "--status", "cancelled") == [many, one, pipeline]


def test_those_of_a_trigger(project: CliProject, queue: Queue) -> None:
    run_id = queue.put(trigger="default/echo/cron/15 2 * * *")
    queue.put()
    assert listed(project, "--trigger", "default/echo/cron/15 2 * * *") == [run_id]
    assert listed(project, "--trigger", "default/echo/cron/@daily") == []
    assert "no trigger 'echo' in jobs.yaml" in project.run("runs", "list", "--trigger", "echo").err


def test_nothing_to_list(project: CliProject, queue: Queue) -> None:
    done = project.ok("runs", "list")
    assert (done.out, done.err) == (b"", "no such runs\n")
    assert project.ok("runs", "list", "--json").out == b""
    unknown = project.run("runs", "list", "ech")
    assert (unknown.status, unknown.out) == (2, b"")
    assert "no job 'ech' in jobs.yaml; did you mean 'echo'?" in unknown.err
    queue.put("gone")
    assert listed(project, "gone") == [1]  # a job that is in jobs.yaml no more


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--status", "done"], "'done' is not one of"),
        (["list", "--since", "yesterday"], "expected a moment like 2027-01-15T09:00:00Z"),
        (["list", "--since", "yesterday"], "or a duration like 90s, 15m, 2h, 1d or 1h30m back from now"),
        (["list", "--since", "999999w"], "before all time"),
        (["list", "-n", "0"], "0 is not in the range"),
        (["list", "-n", "-1"], "-1 is not in the range"),
        (["show", "one"], "'one' is not a valid integer"),
        (["show", "-1"], "-1"),
        (["cancel"], "name runs by their numbers, or choose them with"),
        (["cancel", "1", "--job", "echo"], "name runs by their numbers, or choose them with"),
        (["retry"], "name runs by their numbers, or choose them with"),
        (["cancel", "--job", "ech"], "did you mean 'echo'?"),
        (["retry", "--job", "ech"], "did you mean 'echo'?"),
    ],
)
def test_wrong_usage(project: CliProject, arguments: list[str], message: str) -> None:
    done = project.run("runs", *arguments)
    assert (done.status, done.out) == (2, b"")
    assert message in " ".join(done.err.split())


# show


def test_show_in_json(project: CliProject, queue: Queue) -> None:
    run_id = queue.fail(job="trap", priority=7)
    (row,) = project.ok("runs", "show", str(run_id), "--json").rows
    assert list(row)[: len(LISTED)] == LISTED
    assert (row["priority"], row["payload_size"], row["result_size"], row["retry_count"]) == (7, 2, None, 0)
    (attempt,) = row["attempt_list"]
    assert (attempt["attempt"], attempt["status"], attempt["owner"]) == (1, "failed", "host-1")
    assert (attempt["error_class"], attempt["duration_ms"], attempt["memory_peak_bytes"]) == ("Trapped", 3.5, 65_536)
    assert attempt["stderr_tail"] == "the last \x1b[2Jwords\n"


def test_show_as_text(project: CliProject, queue: Queue) -> None:
    run_id = queue.retry(600, unique_key="k\x1b", queue="slow", job="trap")
    text = project.ok("runs", "show", str(run_id)).text
    for line in (
        r"status +pending again in (9|10) min",
        r"function +trap@1",
        r"started by +request",
        r"queue +slow, priority 0, key 'k\\x1b'",
        rf"enqueued +{RFC_3339} \((just now|\d s ago)\)",
        rf"not before +{RFC_3339} \(in (9|10) min\)",
        r"attempts +1, failed 1 of 3 allowed",
        r"sizes +input 2 B",
        r" +1  failed  (just now|\d s ago)  3\.5 ms  65\.5 kB  host-1  trapped: unreachable in \\x1b\[31minner",
    ):
        assert re.search(rf"^{line}$", text, re.MULTILINE), (line, text)
    assert "\x1b" not in text


def test_show_a_run_that_has_succeeded(project: CliProject, queue: Queue) -> None:
    run_id = queue.succeed(b"\0out\xff")
    text = project.ok("runs", "show", str(run_id)).text
    assert re.search(r"^sizes +input 2 B, output 5 B$", text, re.MULTILINE)
    assert "message" not in text
    assert project.ok("runs", "show", str(run_id), "--output").out == b"\0out\xff"
    assert project.ok("runs", "show", str(run_id), "--input").out == b"in"


def test_what_is_not_there(project: CliProject, queue: Queue) -> None:
    run_id = queue.put()
    done = project.run("runs", "show", str(run_id), "--output")
    assert (done.status, done.out) == (1, b"")
    assert f"run {run_id} is pending and has no output" in done.err
    for command in (["show", "99"], ["show", "99", "--input"], ["cancel", "99"], ["retry", "99"]):
        missing = project.run("runs", *command)
        assert (missing.status, missing.out) == (1, b"")
        assert "no run 99; `runner runs list` shows those that are kept" in missing.err


# cancel


def test_cancel_by_number(project: CliProject, queue: Queue) -> None:
    ended = queue.succeed()
    running = queue.put()
    queue.claim()
    waits = queue.put()
    done = project.run("runs", "cancel", str(waits), "99", str(running), str(ended), "--reason", "not needed", "--json")
    assert done.status == 1
    assert done.rows == [
        {"run_id": waits, "status": "cancelled"},
        {"run_id": running, "status": "running"},
        {"run_id": ended, "status": "succeeded"},
    ]
    assert "Error: no run 99" in done.err
    assert "1 run cancelled, 1 run asked to end, 1 run had succeeded\n" in done.err
    assert queue.store.get(waits).message == "not needed"
    assert queue.store.get(running).cancel_requested


def test_cancel_in_bulk(project: CliProject, queue: Queue) -> None:
    queue.put(count=600)
    other = queue.put("trap")
    slow = queue.put(queue="slow")
    foreign = queue.put(namespace="other")
    assert project.ok("runs", "cancel", "--queue", "slow").err == "1 run cancelled\n"
    assert queue.store.get(slow).status is RunStatus.CANCELLED
    done = project.ok("runs", "cancel", "--job", "echo", "--status", "pending")
    assert (done.out, done.err) == (b"", "600 runs cancelled\n")
    assert project.ok("runs", "cancel", "--job", "echo").err == "no such runs\n"
    statuses = {run_id: queue.store.get(run_id).status.value for run_id in (other, foreign)}
    assert statuses == {other: "pending", foreign: "pending"}


@pytest.mark.parametrize(
    ("arguments", "typed", "left"),
    [([], b"n\n", 3), ([], b"\n", 3), ([], b"y\n", 0), (["--yes"], b"", 0)],
)
def test_on_a_terminal_it_asks_first(
    project: CliProject, queue: Queue, arguments: list[str], typed: bytes, left: int
) -> None:
    queue.put(count=3)
    shown = project.on_terminal("runs", "cancel", "--job", "echo", *arguments, typed=typed)
    assert ("cancel 3 runs? [y/N]" in shown) == (not arguments)
    pending = RunFilter(statuses=frozenset({RunStatus.PENDING}))
    assert len(queue.store.list_runs(pending)) == left


def test_one_is_not_asked_about(project: CliProject, queue: Queue) -> None:
    queue.put()
    assert "1 run cancelled" in project.on_terminal("runs", "cancel", "--job", "echo")
    first = queue.put(count=2)
    assert "2 runs cancelled" in project.on_terminal("runs", "cancel", str(first), str(first + 1))


# retry


def test_retry_by_number(project: CliProject, queue: Queue) -> None:
    dead, ok, live = queue.fail(job="trap"), queue.succeed(), queue.put()
    done = project.run("runs", "retry", str(dead), str(ok), str(live))
    assert done.status == 1
    first, second = map(int, done.text.split())
    assert [queue.store.get(run_id).parent_id for run_id in (first, second)] == [dead, ok]
    assert f"run {live} has not ended yet; cancel it first, or wait" in done.err
    assert queue.store.dead_letters() == []
    assert queue.store.payload(first) == b"in"


def test_retry_in_bulk(project: CliProject, queue: Queue) -> None:
    dead, failed = queue.fail(job="trap"), queue.fail(Failed, job="trap")
    ok = queue.succeed(job="trap")
    queue.fail(job="echo")
    rows = project.ok("runs", "retry", "--job", "trap", "--json").rows
    assert [row["parent_id"] for row in rows] == [dead, failed]
    assert project.ok("runs", "retry", "--job", "trap", "--status", "succeeded", "--json").rows[0]["parent_id"] == ok
    assert project.ok("runs", "retry", "--since", "0s").err == "no such runs\n"


def test_on_a_terminal_many_are_told_by_their_number(project: CliProject, queue: Queue) -> None:
    dead, _ = queue.fail(), queue.fail()
    shown = project.on_terminal("runs", "retry", "--job", "echo", "--yes", NO_COLOR="1")
    assert "enqueued 2 runs again" in shown
    assert re.search(r"^3\r?$", shown, re.MULTILINE) is None
    assert re.search(r"^(\r\x1b\[2K)*5\r?$", project.on_terminal("runs", "retry", str(dead)), re.MULTILINE)


def test_retry_of_what_is_live_again(project: CliProject, queue: Queue) -> None:
    queue.fail(unique_key="k")
    for _ in range(12):
        run_id = queue.put()
        queue.store.cancel(run_id, "", now=now())
    queue.put(unique_key="k")
    done = project.run("runs", "retry", "--job", "echo")
    assert (done.status, done.out) == (1, b"")
    assert "run 14 is live and has the unique key 'k'" in done.err


def test_many_errors_are_not_shown_one_by_one(project: CliProject, queue: Queue) -> None:
    queue.put(count=15)
    done = project.run("runs", "retry", "--status", "pending")
    assert done.status == 1
    assert done.err.count("has not ended yet") == 10
    assert "and 5 more like this" in done.err
