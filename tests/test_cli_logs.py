"""`runner logs`: lines of functions, jobs and runs, and following them live."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.models import LogEntry, LogLevel
from runner.runs import Succeeded
from tests.cli_project import CliProject
from tests.cli_queue import RFC_3339, Queue, lines, now


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare("{echo: {run: echo}, log: {run: log}}")
    return project


@pytest.fixture
def queue(project: CliProject) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue.store.close()


def messages(project: CliProject, *arguments: str) -> list[str]:
    return [row["message"] for row in project.ok("logs", "--json", *arguments).rows]


def test_lines_of_a_run(project: CliProject, queue: Queue) -> None:
    run_id = queue.retry(0)
    first = queue.store.attempts(run_id)[0].number
    claim = queue.claim()
    entries = [LogEntry(LogLevel.INFO, "one\x1b[2J", 1.5), LogEntry(LogLevel.ERROR, "two", 2.5)]
    queue.store.add_logs(*claim[:2], entries)
    assert first == 1
    rows = project.ok("logs", "--run", str(run_id), "--json").rows
    assert rows == [
        {
            "run_id": run_id,
            "attempt": 2,
            "level": "info",
            "message": "one\x1b[2J",
            "timestamp": "1970-01-01T00:00:01.500Z",
        },
        {"run_id": run_id, "attempt": 2, "level": "error", "message": "two", "timestamp": "1970-01-01T00:00:02.500Z"},
    ]
    one, two = project.ok("logs", "--run", str(run_id)).text.splitlines()
    assert one == f"1970-01-01T00:00:01.500Z  {run_id:>4}.2  info    one\\x1b[2J"
    assert two == f"1970-01-01T00:00:02.500Z  {run_id:>4}.2  error   two"
    assert messages(project, "--run", str(run_id), "-n", "1") == ["two"]


def test_lines_of_a_job_and_of_all(project: CliProject, queue: Queue) -> None:
    queue.succeed(b"", "a", "b")
    queue.succeed(b"", "c", job="log")
    queue.succeed(b"", "d")
    assert messages(project, "--job", "echo") == ["a", "b", "d"]
    assert messages(project) == ["a", "b", "c", "d"]
    assert messages(project, "-n", "2") == ["c", "d"]
    assert messages(project, "-n", "0") == []


def test_lines_of_a_function_with_and_without_runs(project: CliProject, queue: Queue) -> None:
    project.ok("invoke", "log", "--input", "by hand\n")
    run_id = queue.succeed(b"", "in a run", job="log")
    queue.succeed(b"", "of another")
    project.ok("invoke", "log", "--input", "by hand again\n")
    assert messages(project, "log") == ["by hand", "in a run", "by hand again"]
    assert messages(project, "log", "-n", "2") == ["in a run", "by hand again"]
    first, second, _ = project.ok("logs", "log").text.splitlines()
    assert re.fullmatch(rf"{RFC_3339}       -  stderr  by hand", first)
    assert re.fullmatch(rf"{RFC_3339} +{run_id}\.1  stderr  in a run", second)
    by_hand, in_a_run, _ = project.ok("logs", "log", "--json").rows
    assert (by_hand["run_id"], by_hand["attempt"]) == (None, None)
    assert (in_a_run["run_id"], in_a_run["attempt"]) == (run_id, 1)


def test_silence(project: CliProject, queue: Queue) -> None:
    run_id = queue.succeed()
    assert project.ok("logs").err == "no run has logged anything\n"
    assert project.ok("logs", "--job", "echo").err == "job echo has logged nothing\n"
    assert project.ok("logs", "--run", str(run_id)).err == f"run {run_id} has logged nothing\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--run", "99"], 1, "no run 99"),
        (["--run", "99", "-f"], 1, "no run 99"),
        (["--run", "0"], 2, "0 is not in the range"),
        (["--job", "ech"], 2, "did you mean 'echo'?"),
        (["--job", "ech", "--follow"], 2, "did you mean 'echo'?"),
        (["nothing"], 1, "no function 'nothing'"),
        (["nothing", "-f"], 1, "no function 'nothing'"),
        (["echo", "--job", "echo"], 2, "give one of them"),
        (["-n", "-1"], 2, "-1 is not in the range"),
    ],
)
def test_what_is_not_there(project: CliProject, arguments: list[str], status: int, message: str) -> None:
    done = project.run("logs", *arguments)
    assert (done.status, done.out) == (status, b"")
    assert message in done.err


# Following


def read(process: subprocess.Popen[bytes]) -> str:
    """The message of the next line."""
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["message"])


def test_a_run_is_followed_to_its_end(project: CliProject, queue: Queue) -> None:
    queue.put()
    claim = queue.claim()
    queue.store.add_logs(*claim[:2], lines("one", "two"))
    with project.start("logs", "--run", "1", "-f", "--json", "-n", "1") as process:
        assert read(process) == "two"
        queue.store.add_logs(*claim[:2], lines("three"))
        assert read(process) == "three"
        queue.store.finish([Succeeded(*claim[:2], b"", logs=lines("last words"))], now=now())
        assert read(process) == "last words"
        assert process.wait(20) == 0


@pytest.mark.parametrize("arguments", [["--job", "echo"], ["echo"], []])
def test_runs_are_followed_until_ctrl_c(project: CliProject, queue: Queue, arguments: list[str]) -> None:
    project.ok("invoke", "echo", "--input", "registers it")
    queue.succeed(b"", "before")
    with project.start("logs", *arguments, "--follow", "--json") as process:
        assert read(process) == "before"
        queue.succeed(b"", "of one run")
        assert read(process) == "of one run"
        queue.succeed(b"", "of the next")
        assert read(process) == "of the next"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130


def test_following_what_has_ended(project: CliProject, queue: Queue) -> None:
    run_id = queue.succeed(b"", "all")
    assert messages(project, "--run", str(run_id), "--follow") == ["all"]
    assert messages(project, "--run", str(run_id), "--follow", "-n", "0") == []
