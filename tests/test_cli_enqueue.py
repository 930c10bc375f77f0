"""`runner enqueue`: what is accepted, what is told of it, and waiting for its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from runner.ledger import RunFilter
from runner.runs import MAX_PAYLOAD_BYTES, Dead, Failed, Failure, Succeeded
from tests.cli_project import CliProject
from tests.cli_queue import BOOM, Queue, now
from tests.support import eventually


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


def payloads(queue: Queue) -> list[bytes]:
    runs = queue.store.list_runs(RunFilter(), limit=100_000)
    return [queue.store.payload(run.run_id) for run in reversed(runs)]


# One run


def test_a_run_is_in_the_store_when_its_number_is_told(project: CliProject, queue: Queue) -> None:
    done = project.ok("enqueue", "echo", "--input", "größer")
    assert done.text == "1\n"
    run = queue.store.get(1)
    assert (run.job, run.function, run.function_version, run.namespace) == ("echo", "echo", 1, "default")
    assert (run.queue, run.priority, run.trigger, run.trigger_type.value) == ("default", 0, None, "job")
    assert payloads(queue) == ["größer".encode()]
    assert "no daemon serves this project; `runner serve` starts one" in done.err
    assert project.ok("enqueue", "echo", "--quiet").err == ""
    assert payloads(queue)[1:] == [b""]


def test_in_json(project: CliProject) -> None:
    assert project.ok("enqueue", "echo", "--json").rows == [{"run_id": 1, "job": "echo", "created": True}]


def test_everything_that_can_be_said_of_it(project: CliProject, queue: Queue) -> None:
    project.ok("enqueue", "echo", "--at", "2127-01-15T09:00:00+02:00", "--priority", "-5", "--queue", "slow")
    run = queue.store.get(1)
    assert (run.run_at.isoformat(), run.priority, run.queue) == ("2127-01-15T07:00:00+00:00", -5, "slow")
    before = now()
    project.ok("enqueue", "echo", "--in", "1h30m")
    assert before <= queue.store.get(2).run_at - timedelta(hours=1.5) <= now()


def test_input_from_a_file_and_from_stdin(project: CliProject, queue: Queue) -> None:
    data = bytes(range(256)) * 300
    project.write("data.bin", data)
    project.ok("enqueue", "echo", "-i", "data.bin")
    project.ok("enqueue", "echo", "-i", "-", input=data)
    assert payloads(queue) == [data, data]


def test_a_unique_key(project: CliProject, queue: Queue) -> None:
    project.ok("enqueue", "echo", "--unique", "k")
    refused = project.run("enqueue", "echo", "--unique", "k")
    assert (refused.status, refused.out) == (1, b"")
    assert "run 1 is live and has the unique key 'k'" in refused.err
    joined = project.ok("enqueue", "echo", "--unique", "k", "--join", "--json")
    assert joined.rows == [{"run_id": 1, "job": "echo", "created": False}]
    assert "joined run 1, which has the key" in joined.err
    queue.store.cancel(1, "", now=now())
    assert project.ok("enqueue", "echo", "--unique", "k").text == "2\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["ech"], 2, "no job 'ech' in jobs.yaml; did you mean 'echo'?"),
        (["echo", "--at", "tomorrow"], 2, "expected a moment like 2027-01-15T09:00:00Z"),
        (["echo", "--at", "2027-01-15T09:00:00"], 2, "has no time zone"),
        (["echo", "--in", "-5m"], 2, "expected a duration like 90s"),
        (["echo", "--in", "999999999w"], 2, "longer than time lasts"),
        (["echo", "--in", "900000w"], 2, "longer than time lasts"),
        (["echo", "--at", "2027-01-15", "--in", "5m"], 2, "--at and --in both say when"),
        (["echo", "--queue", "a b"], 2, "expected a letter"),
        (["echo", "--priority", "high"], 2, "'high' is not a valid integer"),
        (["echo", "--priority", "9" * 30], 1, "too large for the store"),
        (["echo", "--join"], 2, "give the key with --unique"),
        (["echo", "--lines", "-", "--input", "x"], 2, "give one of them"),
        (["echo", "--lines", "-", "--unique", "x"], 2, "give one of them"),
        (["echo", "--lines", "missing.txt"], 3, "the input missing.txt cannot be read: No such file or directory"),
        (["echo", "--lines", "functions"], 3, "the input functions cannot be read: Is a directory"),
        (["echo", "--input", "@missing.txt"], 3, "the input missing.txt cannot be read"),
    ],
)
def test_what_is_refused(project: CliProject, queue: Queue, arguments: list[str], status: int, message: str) -> None:
    done = project.run("enqueue", *arguments)
    assert (done.status, done.out) == (status, b"")
    assert message in done.err
    assert "Traceback" not in done.err
    assert payloads(queue) == []


def test_input_that_is_too_large_is_not_read_whole(project: CliProject, queue: Queue) -> None:
    with open("/dev/zero", "rb") as endless, project.start("enqueue", "echo", "-i", "-", stdin=endless) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"the input has 16,777,217 bytes" in err
    assert payloads(queue) == []


def test_what_was_accepted_is_told_when_stdout_takes_no_more(project: CliProject, queue: Queue) -> None:
    with open("/dev/full", "wb") as full:
        done = project.run("enqueue", "echo", stdout=full)
        many = project.run("enqueue", "echo", "--lines", "-", input=b"a\nb\n", stdout=full)
    assert (done.status, many.status) == (3, 3)
    assert "accepted run 1\nError: standard output cannot be written" in done.err
    assert "accepted 2 runs: 2 to 3, of lines 1 to 2\nError: standard output cannot be written" in many.err
    assert payloads(queue) == [b"", b"a", b"b"]


# Lines


def test_a_run_for_each_line(project: CliProject, queue: Queue) -> None:
    project.write("lines.txt", "one\r\n\n two \n\xe4\nlast")
    done = project.ok("enqueue", "echo", "--lines", "lines.txt", "--priority", "3")
    assert done.text.split() == ["1", "2", "3", "4"]
    assert payloads(queue) == [b"one", b" two ", "\xe4".encode(), b"last"]
    assert {run.priority for run in queue.store.list_runs(RunFilter())} == {3}
    rows = project.ok("enqueue", "echo", "--lines", "-", "--json", input=b"a\nb\n").rows
    assert rows == [{"run_id": n, "job": "echo", "created": True} for n in (5, 6)]


@pytest.mark.parametrize("data", [b"", b"\n\r\n\n"])
def test_a_file_without_lines(project: CliProject, queue: Queue, data: bytes) -> None:
    done = project.ok("enqueue", "echo", "--lines", "-", input=data)
    assert (done.out, payloads(queue)) == (b"", [])


def test_what_was_accepted_before_an_error_is_told(project: CliProject, queue: Queue) -> None:
    project.write("lines.txt", b"one\n\ntwo\n" + b"x" * (MAX_PAYLOAD_BYTES + 1) + b"\nmore\n")
    done = project.run("enqueue", "echo", "--lines", "lines.txt")
    assert (done.status, done.text) == (1, "1\n2\n")
    assert re.search(r"^accepted 2 runs: 1 to 2, of lines 1 to 3\nError: line 4: the input has", done.err, re.MULTILINE)
    assert payloads(queue) == [b"one", b"two"]


def test_lines_are_accepted_as_they_come(project: CliProject, queue: Queue) -> None:
    process = project.start("enqueue", "echo", "--lines", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\ntwo")
    process.stdin.flush()
    assert process.stdout.readline() == b"1\n"
    assert payloads(queue) == [b"one"]
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().endswith("accepted run 1, of lines 1 to 1\ninterrupted\n")
    assert payloads(queue) == [b"one"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_in_the_middle_loses_nothing_that_was_told(
    project: CliProject, queue: Queue, number: signal.Signals
) -> None:
    reader, writer = os.pipe()
    feeder = subprocess.Popen(["yes", "line"], stdout=writer)
    process = project.start("enqueue", "echo", "--lines", "-", stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    os.close(writer)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(20_000)]
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    feeder.wait(10)
    told += out.splitlines(keepends=True)
    count = len(queue.store.list_runs(RunFilter(), limit=10_000_000))
    assert len([line for line in told if line.endswith(b"\n")]) <= count
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert f"accepted {count:,} runs: 1 to {count}, of lines 1 to {count:,}\n" in err.decode()
        assert int(told[-1]) == count


def test_on_a_terminal_lines_are_counted(project: CliProject) -> None:
    project.write("lines.txt", "line\n" * 3)
    shown = project.on_terminal("enqueue", "echo", "--lines", "lines.txt", NO_COLOR="1")
    assert "accepted 3 runs: 1 to 3" in shown
    assert re.search(r"^\d+\r?$", shown, re.MULTILINE) is None


# Waiting


def waiting(project: CliProject, *arguments: str) -> subprocess.Popen[bytes]:
    """`enqueue --wait`, once it has told what it has accepted."""
    process = project.start("enqueue", *arguments, "--wait")
    assert process.stderr is not None
    for line in iter(process.stderr.readline, b""):
        if line.startswith(b"accepted"):
            return process
    raise AssertionError("it ended")


def test_waiting_for_the_output(project: CliProject, queue: Queue) -> None:
    process = waiting(project, "echo")
    queue.store.finish([Succeeded(*queue.claim()[:2], b"\0out\xff")], now=now())
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"\0out\xff"), err


@pytest.mark.parametrize(
    ("outcome", "failure", "status"),
    [(Dead, BOOM, 1), (Failed, BOOM, 1), (Dead, Failure("EngineUnavailable", "no engine"), 3)],
)
def test_waiting_for_a_failure(
    project: CliProject, queue: Queue, outcome: type[Dead], failure: Failure, status: int
) -> None:
    process = waiting(project, "trap")
    queue.store.finish([outcome(*queue.claim()[:2], failure)], now=now())
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (status, b"")
    message = failure.message.replace("\x1b", "\\x1b")
    ended = outcome.__name__.lower()
    assert f"Error: run 1 of trap is {ended}: {message}\n" in err.decode()
    assert ("the last \\x1b[2Jwords" in err.decode()) == (failure is BOOM)


def test_waiting_for_many_shows_them_in_order(project: CliProject, queue: Queue) -> None:
    project.write("lines.txt", "a\nb\nc\n")
    process = waiting(project, "echo", "--lines", "lines.txt", "--json")
    claims = [queue.claim() for _ in range(3)]
    for claim in reversed(claims):
        queue.store.finish([Succeeded(*claim[:2], b"")], now=now())
    out, _ = process.communicate(timeout=20)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["run_id"], row["status"]) for row in rows] == [(n, "succeeded") for n in (1, 2, 3)]


def test_waiting_that_is_interrupted_leaves_the_run(project: CliProject, queue: Queue) -> None:
    process = waiting(project, "echo")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "what was accepted goes on all the same" in err.decode()
    assert queue.store.get(1).status.value == "pending"


# A real daemon


def test_a_daemon_carries_it_out(project: CliProject) -> None:
    daemon = project.start("serve")
    try:
        eventually(lambda: project.run("status").status == 0, seconds=20)
        done = project.ok("enqueue", "echo", "--input", "through the queue", "--wait")
        assert done.out == b"through the queue"
        assert "no daemon" not in done.err
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=30)
