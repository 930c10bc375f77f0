"""What is killed while it works: workers, zygotes, daemons. Nothing that was accepted is lost, each try that
came to nothing has its reason, and no late result counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.runs import RunStatus
from tests.daemon_project import CRASH, HANG, SAY, DaemonProject, Serving, spin
from tests.support import eventually, is_alive

pytestmark = pytest.mark.slow

NEVER = "100000"
"""A lease that does not run out while a test lasts."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DaemonProject]:
    with closing(DaemonProject(tmp_path)) as made:
        made.jobs()
        yield made


def kill_worker(project: DaemonProject, daemon: Serving) -> None:
    """kill -9 the worker that is in a guest."""
    (busy,) = project.begun(daemon)
    os.kill(busy, signal.SIGKILL)
    eventually(lambda: not is_alive(busy))


# Workers


def test_a_killed_workers_run_is_run_again(project: DaemonProject) -> None:
    with project.serving("--lanes", "2", "--lease", NEVER) as daemon:
        (run_id,) = project.enqueue(spin(1))
        kill_worker(project, daemon)
        (run,) = project.ended(run_id)
        daemon.told(f"run {run_id} of work runs again: the worker was lost: its process was killed by SIGKILL")
    assert (run.status, run.attempts, run.failures, run.lost_in_a_row) == (RunStatus.SUCCEEDED, 2, 0, 0)
    lost, _ = project.store.attempts(run_id)
    assert (lost.status.value, lost.error_class) == ("lost", "WorkerLost")
    assert project.store.counters() == {"late_results_refused": 0, "leases_taken_over": 0}


def test_twice_lost_and_then_well(project: DaemonProject) -> None:
    with project.serving("--lanes", "1") as daemon:
        (run_id,) = project.enqueue(spin(1))
        for number in (1, 2):
            kill_worker(project, daemon)
            daemon.told(f"run {run_id} of work runs again", times=number)
        (run,) = project.ended(run_id)
    assert (run.status, run.attempts) == (RunStatus.SUCCEEDED, 3)


def test_what_kills_its_worker_three_times_is_dead_and_others_go_on(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        before = project.enqueue(*[SAY] * 20)
        poison = project.enqueue(CRASH, dlq_topic="work.dead") + project.enqueue(*[CRASH] * 3, retry_count=5)
        after = project.enqueue(*[SAY] * 20)
        assert {run.status for run in project.ended(*before, *after)} == {RunStatus.SUCCEEDED}
        for run in project.ended(*poison):
            assert (run.status, run.attempts, run.error_class) == (RunStatus.DEAD, 3, "WorkerLost")
            assert (run.message or "").startswith("its worker was lost 3 times in a row, lastly: the worker was lost: ")
            assert project.attempts(run.run_id) == ["lost"] * 3
        project.ended(*project.enqueue(SAY))
        assert daemon.stop() == 0
    assert {letter.run_id for letter in project.store.dead_letters()} == set(poison)
    (message,) = project.store.read_topic("work.dead")
    assert message.run_id == poison[0]


def test_a_killed_zygote_is_replaced(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        ids = project.enqueue(spin(1), spin(1))
        project.begun(daemon, 2)
        os.kill(daemon.zygote(), signal.SIGKILL)
        runs = project.ended(*ids)
        assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
        assert {tuple(project.attempts(run_id)) for run_id in ids} == {("lost", "succeeded")}
        assert daemon.stop() == 0


# Daemons


def test_the_next_daemon_takes_back_what_a_killed_one_held(project: DaemonProject) -> None:
    ids = project.enqueue(spin(1), spin(1), SAY)
    with project.serving("--lanes", "2", "--lease", NEVER) as daemon:
        project.begun(daemon, 2)
        owner = daemon.owner
        daemon.kill()
    assert project.store.owners() == [owner]
    with project.serving("--lease", NEVER) as daemon:
        told = daemon.told("took back ")
        assert (told["level"], told["owner"]) == ("warning", owner)
        runs = project.ended(*ids)
        assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
        assert daemon.stop() == 0
    for run_id in ids[:2]:
        lost, _ = project.store.attempts(run_id)
        assert (lost.status.value, lost.message) == ("lost", f"{owner} is gone: its process is gone")
    assert project.store.owners() == []


def test_a_daemon_beside_takes_over_when_the_lease_runs_out(project: DaemonProject) -> None:
    (run_id,) = project.enqueue(spin(1))
    with project.serving("--lanes", "1", "--lease", "1") as killed:
        project.begun(killed)
        with project.serving("--lease", "1") as other:
            killed.kill()
            (run,) = project.ended(run_id)
            assert (run.status, run.owner) == (RunStatus.SUCCEEDED, other.owner)
            assert other.stop() == 0
    lost, _ = project.store.attempts(run_id)
    assert lost.status.value == "lost"
    assert (lost.message or "").startswith(f"the lease of {killed.owner} ran out at ")
    assert project.store.counters()["leases_taken_over"] == 1


def test_a_lease_is_renewed_as_long_as_the_work_takes(project: DaemonProject) -> None:
    (run_id,) = project.enqueue(spin(4))
    with project.serving("--lanes", "2", "--lease", "1"), project.serving("--lease", "1"):
        (run,) = project.ended(run_id)
    assert (run.status, run.attempts) == (RunStatus.SUCCEEDED, 1)
    assert project.store.counters()["leases_taken_over"] == 0


def test_a_late_result_is_refused_and_counted(project: DaemonProject) -> None:
    (run_id,) = project.enqueue(spin(1))
    with project.serving("--lanes", "1", "--lease", "1") as late:
        project.begun(late)
        late.send(signal.SIGSTOP)
        with project.serving("--lease", "1") as other:
            (run,) = project.ended(run_id)
            assert run.owner == other.owner
            late.send(signal.SIGCONT)
            eventually(lambda: project.store.counters()["late_results_refused"] == 1)
            assert project.store.get(run_id) == run
            assert len(project.store.attempts(run_id)) == 2
            assert other.stop() == 0
        project.ended(*project.enqueue(SAY))  # it goes on
        assert late.stop() == 0


def test_a_run_whose_lease_was_lost_is_stopped(project: DaemonProject) -> None:
    (run_id,) = project.enqueue(HANG)
    with project.serving("--lanes", "1", "--lease", "1") as daemon:
        project.begun(daemon)
        daemon.send(signal.SIGSTOP)
        (other,) = project.take_over(seconds=100)  # for good
        assert other.run_id == run_id
        daemon.send(signal.SIGCONT)
        project.ended(*project.enqueue(SAY))  # its only lane is free again
        assert daemon.stop() == 0
    assert project.store.get(run_id).owner == "another"


def test_killed_while_it_starts_and_while_it_ends(project: DaemonProject) -> None:
    ids = project.enqueue(*[SAY] * 200)
    for number in range(12):
        with project.serving(ready=False) as daemon:
            if number % 2:
                daemon.told("guest is version" if number == 1 else "serving")
                daemon.send(signal.SIGTERM)
            else:
                eventually(lambda pid=daemon.pid: Path(f"/proc/{pid}/cmdline").read_bytes())  # type: ignore[misc]
            daemon.kill_anyway()
    with project.serving("--drain") as daemon:
        assert daemon.wait() == 0
    assert {project.store.get(run_id).status for run_id in ids} == {RunStatus.SUCCEEDED}
    assert project.store.owners() == []
