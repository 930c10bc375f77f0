"""`runner serve` takes up a changed jobs.yaml, or says why not; `runner status` tells what it finds."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.runs import RunStatus
from tests.daemon_project import HANG, SAY, DaemonProject, Serving
from tests.support import marked

REFUSED = "jobs.yaml was not taken up, the old one goes on"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DaemonProject]:
    with closing(DaemonProject(tmp_path)) as made:
        made.jobs()
        yield made


def works(project: DaemonProject) -> bool:
    """Whether a run of the first job ends as it should."""
    return project.ended(*project.enqueue(SAY))[0].status is RunStatus.SUCCEEDED


# Reload


def test_a_changed_file_is_taken_up(project: DaemonProject) -> None:
    with project.serving() as daemon:
        project.jobs("{work: {run: guest}, more: {run: other}}", guest=", memory_limit_mb: 32", other="")
        told = daemon.told("jobs.yaml was loaded again")
        assert (told["jobs"], told["triggers"]) == (2, 0)
        daemon.told("guest is version 2 now")
        daemon.told("other is version 1 now")
        new = project.enqueue(SAY, job="more", function="other") + project.enqueue(SAY, function_version=2)
        old = project.enqueue(SAY)
        assert {run.status for run in project.ended(*new, *old)} == {RunStatus.SUCCEEDED}
        assert project.store.get(old[0]).function_version == 1


def test_a_file_that_is_put_in_its_place_is_taken_up(project: DaemonProject) -> None:
    with project.serving() as daemon:
        text = (project.folder / "jobs.yaml").read_text()
        project.write("jobs.new", text.replace("work:", "task:")).rename(project.folder / "jobs.yaml")
        daemon.told("jobs.yaml was loaded again")


def test_a_signal_takes_up_what_has_changed(project: DaemonProject) -> None:
    with project.serving() as daemon:
        project.write("guest.wasm", marked("another"))
        daemon.send(signal.SIGHUP)
        daemon.told("guest is version 2 now")
        daemon.told("jobs.yaml was loaded again")
        daemon.send(signal.SIGHUP)
        assert works(project)
        assert daemon.stop() == 0
        assert len([line for line in daemon.lines if "loaded again" in line["message"]]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("run: guest", "run: gest"), "jobs.yaml:6:20 jobs.work.run: no function 'gest' is declared; did you mean"),
        (("jobs:", "jobs: ["), "jobs.yaml:7:1: not valid YAML"),
        (
            ("{work: {run: guest}}", "{work: {run: guest, triggers: [{never: {}}]}}"),
            "jobs.yaml:6:39 jobs.work.triggers[0].never",
        ),
        (("guest.wasm", "none.wasm"), "jobs.yaml:5:"),
        (("guest.wasm", "jobs.yaml"), "jobs.yaml:5:1 functions.guest.wasm: jobs.yaml: "),
        (("namespace: shop", "namespace: mall"), "`namespace` and `registry` cannot change while a daemon runs"),
        (("functions:", "registry: {sqlite: {path: a.db}}\nfunctions:"), "`namespace` and `registry` cannot change"),
    ],
)
def test_a_bad_file_changes_nothing_and_is_told(project: DaemonProject, change: tuple[str, str], words: str) -> None:
    good = (project.folder / "jobs.yaml").read_text()
    with project.serving() as daemon:
        project.write("jobs.yaml", good.replace(*change))
        told = daemon.told(REFUSED)
        assert told["level"] == "error"
        assert words in told["message"]
        assert works(project)
        project.write("jobs.yaml", good + "# good again\n")
        project.write("jobs.yaml", good.replace("timeout_seconds: 60", "timeout_seconds: 50"))
        daemon.told("guest is version 2 now")
        assert works(project)
        assert daemon.stop() == 0
    assert [function.version for function in project.functions()] == [2]


def test_a_file_that_is_gone_changes_nothing(project: DaemonProject) -> None:
    with project.serving() as daemon:
        path = project.folder / "jobs.yaml"
        text = path.read_text()
        path.unlink()
        daemon.send(signal.SIGHUP)
        assert "FileUnavailable" in daemon.told(REFUSED)["error_class"]
        assert works(project)
        path.write_text(text.replace("work:", "task:"))
        daemon.told("jobs.yaml was loaded again")


def test_limits_of_queues_are_taken_up(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        project.jobs(more="queues: {one: {concurrency: 1}}")
        daemon.told("jobs.yaml was loaded again")
        first, second = project.enqueue(HANG, HANG, queue="one")
        project.begun(daemon)
        project.ended(*project.enqueue(SAY))
        assert project.store.get(second).status is RunStatus.PENDING
        project.store.cancel(first, "", now=project.now())
        project.running(second)


# Status


def told_by(project: DaemonProject, status: int) -> list[dict[str, Any]]:
    done = project.run("status", "--json")
    assert done.status == status
    return done.rows


def test_status_without_a_daemon(project: DaemonProject) -> None:
    project.enqueue(SAY, SAY)
    (row,) = told_by(project, 1)
    assert row == {"owner": None, "state": "gone", "running": [], "ready": 2, "waiting": 0, "dead_letters": 0}
    shown = project.run("status").text
    assert "no daemon serves this project; `runner serve` starts one" in shown
    assert "2 ready, 0 wait for their moment, 0 running, 0 dead letters" in shown


def test_status_of_one_that_works(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        project.ended(*project.enqueue(SAY, SAY))
        (row,) = told_by(project, 0)
        assert (row["state"], row["pid"], row["owner"]) == ("serving", daemon.pid, daemon.owner)
        assert (row["lanes"], row["running"], row["succeeded"], row["namespace"]) == (2, [], 2, "shop")
        (run_id,) = project.enqueue(HANG)
        project.enqueue(SAY, run_at=project.now(3600))
        project.begun(daemon)
        (row,) = told_by(project, 0)
        (running,) = row["running"]
        assert (running["run_id"], running["job"], running["function"], running["runs"]) == (run_id, "work", "guest", 1)
        assert running["seconds"] > 0
        assert (row["ready"], row["waiting"], row["dead_letters"]) == (0, 1, 0)
        shown = project.ok("status").text
        assert f"process {daemon.pid}, serving for " in shown
        assert f"lane 1:  run {run_id} of work, " in shown
        assert "lane 2:  waits" in shown


def test_status_of_one_that_was_killed(project: DaemonProject) -> None:
    with project.serving() as daemon:
        owner = daemon.owner
        daemon.kill()
    (row,) = told_by(project, 1)
    assert (row["owner"], row["state"]) == (owner, "gone")
    assert "it was killed; the next to start takes back what it held" in project.run("status").text
    with project.serving() as daemon:
        daemon.told("took back 0 runs of a daemon that is gone")
        (row,) = told_by(project, 0)
        assert row["owner"] == daemon.owner


def test_status_of_one_that_does_not_answer(project: DaemonProject) -> None:
    with project.serving() as daemon:
        daemon.send(signal.SIGSTOP)
        (row,) = told_by(project, 0)
        assert row["state"] == "silent"
        daemon.send(signal.SIGCONT)
        (row,) = told_by(project, 0)
        assert row["state"] == "serving"


def test_nobody_who_asks_badly_disturbs_it(project: DaemonProject) -> None:
    with project.serving() as daemon:
        for question in (b"", b"\0" * 4096, b"{}\n", b'{"ask": ["status"]}\n', b"[" * 100_000):
            with connected(project, daemon) as client:
                client.sendall(question)
                client.shutdown(socket.SHUT_WR)
                assert b"error" in b"".join(iter(lambda: client.recv(65536), b""))
        with connected(project, daemon), connected(project, daemon) as client:
            client.sendall(b'{"ask"')
            assert works(project)
        assert daemon.stop() == 0


def connected(project: DaemonProject, daemon: Serving) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    folder = os.open(project.folder / ".runner/daemons", os.O_RDONLY)  # the whole path may be too long
    client.connect(f"/proc/self/fd/{folder}/{daemon.owner}.sock")
    os.close(folder)
    return client
