"""`runner why`: a readable account of a run or a slot."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from runner.ledger import SlotEntry
from runner.runs import Failure, Follower, Lost, NewRun, Parked, RunStatus
from tests.cli_project import CliProject
from tests.cli_queue import BOOM, RFC_3339, Queue, lines, now
from tests.support import eventually

MOMENT = rf"{RFC_3339} \((just now|\d s ago)\)"
CRON = "default/nightly/cron/15 2 * * * UTC"
SLOT = datetime(2026, 11, 20, 2, 15, tzinfo=timezone.utc)


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare(
        "{echo: {run: echo}, trap: {run: trap}, "
        'nightly: {run: echo, triggers: [{cron: {schedule: "15 2 * * *"}}]}}\n'
        "queues: {one: {concurrency: 1}}"
    )
    return project


@pytest.fixture
def queue(project: CliProject) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue.store.close()


def told(project: CliProject, subject: int | str) -> str:
    text = project.ok("why", str(subject)).text
    assert "\x1b" not in text
    return text


def says(text: str, *expected: str) -> None:
    """Each of these is a line of the text, in this order."""
    place = 0
    for pattern in expected:
        found = re.compile(rf"^{pattern}$", re.MULTILINE).search(text, place)
        assert found, f"no line {pattern!r} behind {text[:place]!r} in\n{text}"
        place = found.end()


# Runs


def test_a_run_that_waits_for_a_daemon(project: CliProject, queue: Queue) -> None:
    run_id = queue.put(unique_key="k", priority=2, queue="slow")
    says(
        told(project, run_id),
        f"run {run_id} of echo is pending",
        "started by +a request",
        f"enqueued +{MOMENT}, queue slow, priority 2, unique key 'k'",
        "function +echo@1",
        "waits for +a daemon: none serves this project here; `runner serve` starts one",
    )


def test_a_run_that_waits_for_much(project: CliProject, queue: Queue) -> None:
    queue.put(queue="one", count=2)
    queue.claim()
    delayed, last = queue.put(run_at=now(7300)), queue.put(queue="one")
    says(told(project, delayed), rf"waits for +its moment, {RFC_3339} \(in 2 h\)")
    says(
        told(project, last),
        "waits for +room in queue one: of 1 that may run at once, all do",
        " +1 run before it in queue one",
        " +a daemon: none serves .*",
    )


def test_a_run_between_its_attempts(project: CliProject, queue: Queue) -> None:
    run_id = queue.retry(600, job="trap")
    text = told(project, run_id)
    says(
        text,
        "attempt 1 +failed after 3.5 ms, 65.5 kB of memory",
        r" +trapped: unreachable in \\x1b\[31minner",
        f" +{MOMENT} by host-1",
        rf"waits for +its next attempt, {RFC_3339} \(in (9|10) min\)",
        "the end of the standard error of attempt 1:",
        r"  the last \\x1b\[2Jwords",
    )


def test_a_run_that_runs(project: CliProject, queue: Queue) -> None:
    run_id = queue.put()
    claim = queue.claim()
    queue.store.report_progress([(*claim[:2], 40)])
    queue.store.cancel(run_id, "enough", now=now())
    says(
        told(project, run_id),
        "attempt 1 +running",
        f" +{MOMENT} by host-1",
        "progress +40%",
        rf"held by +host-1, until {RFC_3339} \(in \d+ s\), unless that is prolonged",
        "cancelled +its daemon has been asked to end it",
    )


def test_a_run_that_died_and_what_it_caused(project: CliProject, queue: Queue) -> None:
    queue.store.follow([Follower("trap", frozenset({RunStatus.DEAD}), NewRun("default", "echo"))])
    run_id = queue.fail(job="trap")
    again = queue.store.rerun(run_id, now=now()).run_id
    child = again - 1
    says(
        told(project, run_id),
        f"run {run_id} of trap is dead",
        f"finished +{MOMENT}",
        f"caused +run {child}, run {again}",
        f"dead letter +`runner dlq redrive {run_id}` runs it again, `runner dlq drop {run_id}` forgets it",
    )
    assert "because" not in told(project, run_id)  # its attempt has said it
    says(told(project, again), rf"started by +a request to do the work of run {run_id} of trap \(dead\) again")
    says(told(project, child), rf"started by +run {run_id} of trap \(dead\)")


def test_a_run_that_lost_its_workers(project: CliProject, queue: Queue) -> None:
    run_id = queue.put()
    for _ in range(3):
        claim = queue.claim()
        queue.store.finish([Lost(claim.run_id, claim.token, Failure("WorkerLost", "killed by signal 9"))], now=now())
    says(
        told(project, run_id),
        "attempt 1 +lost",
        " +killed by signal 9",
        "attempt 3 +lost",
        "because +its worker was lost 3 times in a row, lastly: killed by signal 9",
    )


def test_a_run_of_a_slot(project: CliProject, queue: Queue) -> None:
    entry = SlotEntry.caught_up(CRON, SLOT, NewRun("default", "nightly", "echo", 1), "missed by \x1b 40 s")
    run_id = queue.store.record_slots([entry], now=now())[0].run_id
    says(
        told(project, run_id or 0),
        r"started by +job trigger default/nightly/cron/15 2 \* \* \* UTC",
        r"slot +2026-11-20T02:15:00.000Z \(\d+ d ago\) caught up later: missed by \\x1b 40 s",
    )


def test_a_pipeline_and_its_step(project: CliProject, queue: Queue) -> None:
    pipeline, step = queue.park("nightly", NewRun("default", "nightly", step="enrich", item=3))
    says(told(project, pipeline), "progress +0%", f"waits for +its steps; `runner runs show {pipeline}` draws them")
    says(told(project, step), rf"started by +run {pipeline} of nightly \(running\), as its step enrich\[3\]")
    (row,) = project.ok("why", str(step), "--json").rows
    assert (row["cause"], row["run"]["step"], row["run"]["item"]) == ("step", "enrich", 3)


def test_a_run_that_others_keep_waiting(project: CliProject, queue: Queue) -> None:
    one, other = queue.put("nightly"), queue.put("nightly")
    for claim in (queue.claim(), queue.claim()):
        queue.store.finish([Parked(*claim[:2], b"", seat=("nightly", 1))], now=now())
    waits = told(project, other)
    says(waits, f"waits for +the end of run {one}: `concurrency` lets no more run")
    assert "it is next" not in waits
    (row,) = project.ok("why", str(other), "--json").rows
    assert row["waits_for"][0] == {"what": "seat", "until": None, "count": 1, "runs": [one]}


def test_a_run_in_json(project: CliProject, queue: Queue) -> None:
    dead = queue.fail(job="trap")
    waits = queue.store.rerun(dead, now=now()).run_id
    (row,) = project.ok("why", str(dead), "--json").rows
    assert list(row) == [
        *("run", "cause", "attempts", "waits_for", "owner_is_gone", "slot", "dead_letter", "children", "reuse")
    ]
    assert row["reuse"] is None
    assert (row["run"]["run_id"], row["run"]["status"], row["run"]["attempts"]) == (dead, "dead", 1)
    assert (row["attempts"][0]["attempt"], row["attempts"][0]["message"]) == (1, BOOM.message)
    assert (row["cause"], row["waits_for"], row["slot"], row["children"]) == ("request", [], None, [waits])
    assert row["dead_letter"]["dead_letter_id"] == dead
    (row,) = project.ok("why", str(waits), "--json").rows
    assert (row["cause"], row["run"]["parent_id"], row["dead_letter"]) == ("again", dead, None)
    assert row["waits_for"] == [{"what": "daemon", "until": None, "count": 0, "runs": []}]


def test_a_daemon_that_serves_is_seen(project: CliProject, queue: Queue) -> None:
    run_id = queue.put(run_at=now(600))
    daemon = project.start("serve")
    try:
        eventually(lambda: "a daemon" not in told(project, run_id), seconds=20)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=30)
    assert "a daemon: none serves" in told(project, run_id)


def test_a_daemon_that_was_killed_is_told(project: CliProject, queue: Queue) -> None:
    queue.put("loop")
    daemon = project.start("serve", "--lanes", "1")
    eventually(lambda: queue.store.get(1).status is RunStatus.RUNNING, seconds=20)
    daemon.kill()
    daemon.communicate(timeout=30)
    says(told(project, 1), "held by +.*, which is gone: the next daemon takes it over")


# Slots


def test_a_slot_that_was_skipped(project: CliProject, queue: Queue) -> None:
    queue.store.record_slots([SlotEntry.skipped(CRON, SLOT, "the run before has not ended (overlap: skip)")], now=now())
    for subject in (f"{CRON}@2026-11-20T02:15:00Z", "nightly@2026-11-20 04:15+02:00", "nightly/cron@2026-11-20T02:15Z"):
        says(
            told(project, subject),
            r"slot 2026-11-20T02:15:00.000Z \(\d+ d ago\) of default/nightly/cron/15 2 \* \* \* UTC",
            "outcome +skipped",
            r"because +the run before has not ended \(overlap: skip\)",
            f"recorded +{MOMENT}",
        )
    (row,) = project.ok("why", "nightly@2026-11-20T02:15:00Z", "--json").rows
    assert re.fullmatch(RFC_3339, row.pop("recorded_at"))
    assert row == {
        **{"trigger": CRON, "slot": "2026-11-20T02:15:00.000Z", "outcome": "skipped", "run_id": None},
        **{"reason": "the run before has not ended (overlap: skip)"},
    }


def test_a_slot_that_ran_tells_of_its_run(project: CliProject, queue: Queue) -> None:
    (entry,) = queue.store.record_slots([SlotEntry.ran(CRON, SLOT, NewRun("default", "nightly", "echo", 1))], now=now())
    text = told(project, "nightly@2026-11-20T02:15:00Z")
    says(text, "outcome +ran", f"run +{entry.run_id}", "", f"run {entry.run_id} of nightly is pending", "started by .*")


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (SLOT, "it was due, and no daemon has come to it yet, or it is older than what the ledger keeps"),
        (now(3 * 86_400).replace(hour=2, minute=15, second=0, microsecond=0), "it is due and has not come yet"),
        (SLOT + timedelta(minutes=1), "it is no due time of this trigger; around it: 2026-11-19T02:15:00.000Z, "
            "2026-11-21T02:15:00.000Z"),
    ],
)  # fmt: skip
def test_a_slot_that_is_not_in_the_ledger(project: CliProject, queue: Queue, moment: datetime, reason: str) -> None:
    queue.store.record_slots([SlotEntry.skipped(CRON, SLOT - timedelta(days=1), "")], now=now())
    done = project.run("why", f"nightly@{moment.isoformat()}")
    assert done.status == 1
    assert f"not recorded  {reason}\n" in done.text
    json = project.run("why", f"nightly@{moment.isoformat()}", "--json")
    assert (json.status, json.rows[0]["outcome"], json.rows[0]["reason"]) == (1, None, reason)


def test_a_trigger_that_is_gone(project: CliProject, queue: Queue) -> None:
    gone = "default/gone/cron/@daily"
    queue.store.record_slots([SlotEntry.skipped(gone, SLOT, "too late")], now=now())
    says(told(project, f"{gone}@2026-11-20T02:15Z"), "because +too late")
    says(told(project, "gone/cron/@daily@2026-11-20T02:15Z"), "because +too late")
    done = project.run("why", f"{gone}@2026-11-21T02:15Z")
    assert done.status == 1
    assert "the ledger has no such slot, and its due times are not known from jobs.yaml" in done.text


@pytest.mark.parametrize(
    ("subject", "status", "message"),
    [
        ("99", 1, "no run 99; `runner runs list` shows those that are kept"),
        ("nightly", 2, "'nightly': expected a run's number, or TRIGGER@SLOT like nightly@2027-01-15T02:15:00Z"),
        ("nightly@now", 2, "'now': expected a moment like 2027-01-15T09:00:00Z"),
        ("nightly@2027-01-15T02:15", 2, "has no time zone"),
        ("echo@2027-01-15", 2, "no trigger 'echo' in jobs.yaml; jobs with triggers: nightly"),
        ("@2027-01-15", 2, "no trigger '' in jobs.yaml"),
        ("-1", 2, "-1"),
        ("9" * 30, 1, "too large for the store"),
    ],
)
def test_what_is_not_known(project: CliProject, subject: str, status: int, message: str) -> None:
    done = project.run("why", subject)
    assert (done.status, done.out) == (status, b"")
    assert message in done.err
    assert "Traceback" not in done.err


def test_logs_are_no_part_of_it(project: CliProject, queue: Queue) -> None:
    run_id = queue.put()
    queue.store.add_logs(*queue.claim()[:2], lines("secret of the guest"))
    assert "secret" not in told(project, run_id)
