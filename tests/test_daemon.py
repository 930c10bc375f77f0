"""`runner serve` as its users have it: what it carries out, how it ends, how several share a store."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from runner.models import LogLevel
from runner.runs import MAX_LOG_LINES, RunStatus, Succeeded
from tests.daemon_project import (
    FOREVER,
    HANG,
    SAY,
    DaemonProject,
    cpu_ticks,
    descriptors,
    fail,
    outputs,
    sleep,
    spin,
    threads,
)
from tests.support import eventually, steps


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DaemonProject]:
    with closing(DaemonProject(tmp_path)) as made:
        made.jobs()
        yield made


# Work


def test_it_carries_out_what_is_enqueued(project: DaemonProject) -> None:
    before = project.enqueue(SAY, SAY)
    with project.serving() as daemon:
        after = project.enqueue(*[steps(["say", number]) for number in range(50)])
        runs = project.ended(*before, *after)
        assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
        assert outputs(project.store, after) == [b"%d" % number for number in range(50)]
        assert all(run.attempts == 1 and run.function_version == 1 for run in runs)
        assert all(run.duration_ms > 0 and run.memory_peak_bytes == 65536 and run.result_size for run in runs)
        assert daemon.stop() == 0
        assert daemon.other == []
    assert project.store.owners() == []


def test_input_and_output_are_those_of_the_job(project: DaemonProject) -> None:
    project.write("said.json", steps(["say", "from the file"]))
    project.jobs("{work: {run: guest, input: {path: said.json}, output: {path: out/said.txt}}}")
    (from_file,) = project.enqueue(b"")
    with project.serving():
        project.ended(from_file)
        assert (project.folder / "out/said.txt").read_bytes() == b"from the file"
        assert project.store.result(from_file) == b""
        (with_payload,) = project.enqueue(steps(["say", "from the payload"]))
        project.ended(with_payload)
        assert (project.folder / "out/said.txt").read_bytes() == b"from the payload"
        (project.folder / "said.json").unlink()
        (without,) = project.enqueue(b"")
        (run,) = project.ended(without)
        assert (run.status, run.error_class) == (RunStatus.DEAD, "FileUnavailable")
        assert "said.json" in (run.message or "")


def test_logs_belong_to_their_attempt_and_are_capped(project: DaemonProject) -> None:
    project.jobs(guest=", retry_count: 1, retry_delay_seconds: 0")
    talk = steps(["log", "told"], ["stderr", "a line\n"], ["fail", "Exited", 3])
    (twice,) = project.enqueue(talk, retry_count=1)
    flood, much = project.enqueue(steps(["log", "x" * 1000, 5000]), steps(["flood", 300, 100_000]))
    with project.serving() as daemon:
        project.ended(twice, flood, much)
        lines = project.store.logs(twice)
        assert [(line.attempt, line.entry.level, line.entry.message) for line in lines] == [
            (1, LogLevel.INFO, "told"),
            (1, LogLevel.STDERR, "a line"),
            (2, LogLevel.INFO, "told"),
            (2, LogLevel.STDERR, "a line"),
        ]
        assert all(abs(line.entry.timestamp - daemon.started) < 60 for line in lines)
        for flooded in (flood, much):
            assert project.store.get(flooded).status is RunStatus.SUCCEEDED
            assert 0 < len(project.store.logs(flooded, limit=10_000)) <= MAX_LOG_LINES


def test_a_long_run_keeps_nobody_waiting(project: DaemonProject) -> None:
    quick = project.enqueue(*[SAY] * 100)
    with project.serving("--lanes", "2"):
        project.ended(*quick)
        slow, *others = project.enqueue(FOREVER, *[SAY] * 200)
        assert {run.attempts for run in project.ended(*others)} == {1}
        assert project.store.get(slow).status is RunStatus.RUNNING
        project.store.cancel(slow, "enough", now=project.now())
        project.ended(slow)


def test_idle_it_does_nothing(project: DaemonProject) -> None:
    with project.serving() as daemon:
        project.ended(*project.enqueue(*[SAY] * 20))
        processes = [daemon.pid, daemon.zygote(), *daemon.workers(2)]
        eventually(lambda: project.is_quiet(daemon))
        before = [cpu_ticks(pid) for pid in processes]
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(4)
        assert sum(map(cpu_ticks, processes)) - sum(before) <= 1


def test_it_keeps_nothing_of_what_is_over(project: DaemonProject) -> None:
    with project.serving() as daemon:
        project.ended(*project.enqueue(*[SAY] * 50, *[steps(["crash"])]))
        eventually(lambda: project.is_quiet(daemon))
        before = descriptors(daemon.pid), threads(daemon.pid)
        for _ in range(5):
            project.ended(*project.enqueue(*[SAY] * 50, steps(["crash"]), fail("Exited", 1)))
            project.write("jobs.yaml", (project.folder / "jobs.yaml").read_text() + "\n# changed\n")
        eventually(lambda: descriptors(daemon.pid) <= before[0] and threads(daemon.pid) <= before[1])
        assert daemon.stop() == 0
    assert list((project.folder / ".runner/daemons").iterdir()) == []


def test_what_is_past_its_retention_is_deleted_while_it_works(project: DaemonProject) -> None:
    week = -7 * 86_400
    old = project.enqueue(*[SAY] * 1200, moment=project.now(week))
    for claim in project.claim_all(project.now(week)):
        project.store.finish([Succeeded(claim.run_id, claim.token, b"")], now=project.now(week))
    project.jobs(more="retention: {runs_days: 6}")
    with project.serving():
        new = project.enqueue(*[SAY] * 20)
        eventually(lambda: project.kept() == set(new), seconds=30)
        project.ended(*new)
    assert not project.kept() & set(old)


# Failure


def test_retries_survive_a_restart_and_end_in_a_dead_letter(project: DaemonProject) -> None:
    project.jobs(guest=", retry_delay_seconds: 1")
    (run_id,) = project.enqueue(fail("Exited", 3), retry_count=2, dlq_topic="work.dead")
    with project.serving() as daemon:
        told = daemon.told(f"run {run_id} of work tries again in ")
        assert (told["level"], told["run_id"], told["error_class"]) == ("warning", run_id, "Exited")
        daemon.kill()
    assert project.store.get(run_id).status is RunStatus.PENDING
    assert project.store.read_topic("work.dead") == []
    with project.serving() as daemon:
        (run,) = project.ended(run_id)
        daemon.told(f"run {run_id} of work is dead: exited with code 3")
    assert (run.status, run.attempts, run.failures) == (RunStatus.DEAD, 3, 3)
    assert project.attempts(run_id) == ["failed"] * 3
    (letter,) = project.store.dead_letters()
    assert (letter.run_id, letter.error_class, letter.message) == (run_id, "Exited", "exited with code 3")
    (message,) = project.store.read_topic("work.dead")
    assert message.run_id == run_id


@pytest.mark.parametrize(
    ("payload", "error_class"),
    [
        (fail("BadOutput", "a pointer"), "BadOutput"),
        (fail("GrantMissing", "http_fetch", "allow"), "GrantMissing"),
        (fail("OutputTooLarge", 5), "OutputTooLarge"),
    ],
)
def test_what_cannot_work_is_not_tried_again(project: DaemonProject, payload: bytes, error_class: str) -> None:
    (run_id,) = project.enqueue(payload, retry_count=5, dlq_topic="work.dead")
    with project.serving() as daemon:
        (run,) = project.ended(run_id)
        daemon.told(f"run {run_id} of work failed: ")
    assert (run.status, run.error_class, run.attempts) == (RunStatus.FAILED, error_class, 1)
    assert project.store.dead_letters() == []
    assert project.store.read_topic("work.dead") == []


def test_a_function_that_is_not_there_is_the_callers_fault(project: DaemonProject) -> None:
    ids = project.enqueue(SAY, function="gone") + project.enqueue(SAY, function_version=7)
    with project.serving():
        for run in project.ended(*ids):
            assert (run.status, run.error_class) == (RunStatus.FAILED, "FunctionNotFound")


def test_every_end_of_a_guest_is_told_apart(project: DaemonProject) -> None:
    project.jobs(guest=", timeout_seconds: 0.5")
    ids = project.enqueue(
        fail("Trapped", "unreachable", "unreachable"), fail("Exited", 3), FOREVER, fail("OutOfMemory", 64, "x"), SAY
    )
    with project.serving():
        runs = project.ended(*ids)
    assert [run.error_class for run in runs] == ["Trapped", "Exited", "TimedOut", "OutOfMemory", None]
    assert runs[2].duration_ms >= 500


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(project: DaemonProject, number: signal.Signals) -> None:
    with project.serving("--lanes", "2") as daemon:
        running = project.enqueue(spin(2), spin(2))
        project.begun(daemon, 2)  # the store knows of what is claimed before the daemon has begun with it
        waiting = project.enqueue(SAY, SAY)
        daemon.send(number)
        daemon.told("stopping: 2 running, up to 30 s for them")
        (status,) = project.ok("status", "--json").rows
        assert status["state"] == "draining"
        assert daemon.wait() == 0
        assert daemon.told("stopped")["succeeded"] == 2
    assert {project.store.get(run_id).status for run_id in running} == {RunStatus.SUCCEEDED}
    assert {project.store.get(run_id).status for run_id in waiting} == {RunStatus.PENDING}
    assert {project.store.get(run_id).attempts for run_id in waiting} == {0}
    with project.serving():
        project.ended(*waiting)


def test_what_takes_longer_than_the_grace_goes_back(project: DaemonProject) -> None:
    with project.serving("--grace", "0.2", "--lanes", "2") as daemon:
        ids = project.enqueue(spin(3), spin(3))
        project.begun(daemon, 2)
        assert daemon.stop() == 0
    assert project.store.owners() == []
    for run_id in ids:
        assert project.store.get(run_id).status is RunStatus.PENDING
        (attempt,) = project.store.attempts(run_id)
        assert (attempt.status.value, attempt.message) == ("released", "the daemon stopped")
    with project.serving():
        runs = project.ended(*ids)
    assert {(run.status, run.attempts, run.failures) for run in runs} == {(RunStatus.SUCCEEDED, 2, 0)}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(project: DaemonProject, number: signal.Signals, status: int) -> None:
    (run_id,) = project.enqueue(HANG)
    with project.serving("--grace", "1000") as daemon:
        project.begun(daemon)
        daemon.send(number)
        daemon.told("stopping")
        assert daemon.stop(number) == status
    assert project.store.get(run_id).status is RunStatus.PENDING
    assert project.attempts(run_id) == ["released"]


def test_a_signal_while_it_starts_ends_it(project: DaemonProject) -> None:
    slow_to_build(project)
    with project.serving(ready=False) as daemon:
        eventually(lambda: (project.folder / "guest.begun").exists(), seconds=30)
        assert daemon.stop() == 0
        assert daemon.other == []
    assert list((project.folder / ".runner").glob("daemons/*")) == []


def test_a_signal_while_it_loads_again_ends_it(project: DaemonProject) -> None:
    with project.serving() as daemon:
        slow_to_build(project)
        eventually(lambda: (project.folder / "guest.begun").exists())
        project.ended(*project.enqueue(SAY))  # it goes on meanwhile
        assert daemon.stop() == 0
    assert project.store.owners() == []


def slow_to_build(project: DaemonProject) -> None:
    """Let jobs.yaml have a source that takes for ever to build."""
    project.write("guest.slow", b"")
    text = (project.folder / "jobs.yaml").read_text()
    project.write("jobs.yaml", text.replace("wasm: guest.wasm", "source: guest.slow"))


def test_drained_it_ends_by_itself(project: DaemonProject) -> None:
    with project.serving("--drain") as daemon:
        assert daemon.wait() == 0
    ids = project.enqueue(*[SAY] * 30, sleep(0.5))
    later = project.enqueue(SAY, run_at=project.now(3600))
    project.enqueue(fail("Exited", 1), retry_count=1, job="retried")
    project.jobs(guest=", retry_delay_seconds: 3600")
    with project.serving("--drain") as daemon:
        assert daemon.wait() == 0
    assert {project.store.get(run_id).status for run_id in ids} == {RunStatus.SUCCEEDED}
    assert project.store.get(later[0]).attempts == 0


def test_its_log_is_for_people_unless_told_otherwise(project: DaemonProject) -> None:
    project.enqueue(fail("Exited", 3))
    done = project.run("serve", "--drain")
    assert (done.status, done.out) == (0, b"")
    told = [line.split(None, 2)[1:] for line in done.err.splitlines()]
    assert told[0] == ["info", "guest is version 1 now"]
    assert told[1][1].startswith("serving  jobs=1  triggers=0  owner=")
    assert told[2][0] == "error"
    assert told[2][1].startswith("run 1 of work is dead: exited with code 3  run_id=1  job=work  attempt=1")
    assert told[-1][1].startswith("stopped  succeeded=0  failed=0  cancelled=0  dead=1")
    assert project.run("serve", "--drain", "--quiet").err == ""


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [("version: 1\njobs: {a: {run: b}}\n", 2, "no function 'b' is declared"), (None, 3, "jobs.yaml")],
)
def test_what_keeps_it_from_starting_is_told(project: DaemonProject, text: str | None, status: int, words: str) -> None:
    if text is None:
        (project.folder / "jobs.yaml").unlink()
    else:
        project.write("jobs.yaml", text)
    assert words in project.run("serve").err
    with project.serving(ready=False) as daemon:
        assert daemon.wait() == status
        assert daemon.told(words)["level"] == "error"
        assert daemon.other == []


# Cancelling


def test_a_running_run_is_cancelled(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        one, other = project.enqueue(HANG, sleep(1))
        project.begun(daemon)
        assert project.store.cancel(one, "no longer wanted", now=project.now()) is RunStatus.RUNNING
        cancelled, done = project.ended(one, other)
    assert (cancelled.status, cancelled.message) == (RunStatus.CANCELLED, "no longer wanted")
    assert project.attempts(one) == ["cancelled"]
    assert (done.status, done.attempts) == (RunStatus.SUCCEEDED, 1)


# Queues


def test_a_queues_limit_holds_over_all_daemons(project: DaemonProject) -> None:
    project.jobs(more="queues: {one: {concurrency: 1}}")
    ids = project.enqueue(*[sleep(0.2)] * 6, queue="one")
    with project.serving("--lanes", "2"), project.serving("--lanes", "2"):
        runs = sorted(project.ended(*ids), key=lambda run: run.run_id)
        assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
        for before, after in pairwise(runs):
            assert before.finished_at is not None
            assert after.started_at is not None
            assert before.finished_at <= after.started_at


def test_it_takes_from_the_queues_that_it_was_told(project: DaemonProject) -> None:
    others = project.enqueue(SAY)
    ids = project.enqueue(SAY, queue="heavy") + project.enqueue(SAY, queue="light")
    with project.serving("--queue", "heavy", "--queue", "light", "--drain") as daemon:
        assert daemon.wait() == 0
    assert {project.store.get(run_id).status for run_id in ids} == {RunStatus.SUCCEEDED}
    assert project.store.get(others[0]).status is RunStatus.PENDING


def test_two_daemons_share_the_work(project: DaemonProject) -> None:
    with project.serving("--lanes", "1") as one, project.serving("--lanes", "1") as other:
        ids = project.enqueue(sleep(1), sleep(1))
        owners = {run.owner for run in project.running(*ids)}
        assert owners == {one.owner, other.owner}
        rows = project.ok("status", "--json").rows
        assert {row["owner"] for row in rows} == owners
        assert [row["running"][0]["job"] for row in rows] == ["work", "work"]
        project.ended(*ids)
        many = project.enqueue(*[SAY] * 500)
        assert {(run.status, run.attempts) for run in project.ended(*many)} == {(RunStatus.SUCCEEDED, 1)}
        assert one.stop() == 0
        project.ended(*project.enqueue(SAY))
        assert other.stop() == 0
    assert project.store.counters() == {"late_results_refused": 0, "leases_taken_over": 0}


@pytest.mark.parametrize("option", [("--lease", "inf"), ("--lease", "0.5"), ("--grace", "nan"), ("--lanes", "0")])
def test_an_option_that_makes_no_sense_is_refused(project: DaemonProject, option: tuple[str, str]) -> None:
    done = project.run("serve", *option)
    assert done.status == 2
    assert option[1] in done.err
