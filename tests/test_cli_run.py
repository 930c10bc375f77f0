"""`runner run`: order, outputs, failures, what is shown, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli_project import EXECUTOR, CliProject, Orphans


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


KEYS = [
    *(
        "job",
        "status",
        "duration_ms",
        "attempts",
        "records_reused",
        "function",
        "version",
        "output_bytes",
        "output_path",
    ),
    *("memory_peak_bytes", "error_class", "message"),
]


def statuses(rows: list[dict[str, object]]) -> dict[object, object]:
    return {row["job"]: row["status"] for row in rows}


# Which jobs, in what order, and where their output goes


def test_all_jobs_run_in_the_order_of_the_file(project: CliProject) -> None:
    project.declare("{b: {run: echo, input: one}, a: {run: echo, input: two}}")
    assert project.ok("run").out == b"onetwo"


def test_named_jobs_run_once_in_the_order_given(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: A}, b: {run: echo, input: B}, c: {run: echo, input: C}}")
    assert project.ok("run", "c", "a", "c").out == b"CA"


def test_nothing_to_run_is_an_error(project: CliProject) -> None:
    project.declare("{}")
    done = project.run("run")
    assert (done.status, done.out) == (2, b"")
    assert "nothing to run in jobs.yaml: it declares no jobs" in done.err


def test_output_on_stdout_is_untouched(project: CliProject) -> None:
    data = bytes(range(256)) * 300
    project.write("data.bin", data)
    project.declare("{raw: {run: echo, input: {path: data.bin}}}")
    assert project.ok("run").out == data


def test_output_to_a_file(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: text, output: {path: out/deep/a.txt}}}")
    done = project.ok("run")
    assert done.out == b""
    assert (project.folder / "out/deep/a.txt").read_bytes() == b"text"
    assert [path.name for path in (project.folder / "out/deep").iterdir()] == ["a.txt"]


# What is told


def test_a_log_is_plain_lines_and_a_table(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: text, output: {path: out/a.txt}}, b: {run: trap}}")
    err = project.run("run").err
    assert "echo: version 1\n" in err
    assert "a: running\n" in err
    assert re.search(r"^a: succeeded in [\d.]+ m?s, 4 B to \S+/out/a.txt$", err, re.MULTILINE)
    assert re.search(r"^Error: b: trapped: .*unreachable", err, re.MULTILINE)
    head, a, b = err.splitlines()[-3:]
    assert head.split() == ["job", "status", "time", "attempts", "output"]
    assert re.fullmatch(r"a    succeeded +[\d.]+ m?s +1 +4 B  out/a.txt", a)
    assert re.fullmatch(r"b    failed +[\d.]+ m?s +1 +Trapped", b)
    assert "\x1b" not in err
    assert "\r" not in err


def test_only_what_changed_is_registered(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: x}}")
    assert "echo: version 1\n" in project.ok("run").err
    assert "version" not in project.ok("run").err
    project.declare("{a: {run: echo, input: x}}", echo=", timeout_seconds: 9")
    assert "echo: version 2 (was 1)\n" in project.ok("run").err


def test_quiet_tells_errors_only(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: x}, b: {run: trap}}")
    assert project.ok("run", "-q", "a").err == ""
    done = project.run("run", "-q")
    assert done.err.startswith("Error: b: trapped:")
    assert done.err.count("\n") == 1


def test_json_is_one_object_a_job(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: text, output: {path: a.txt}}, b: {run: trap}, c: {run: echo, input: x}}")
    done = project.run("run", "--json")
    a, b, c = done.rows
    assert done.status == 1
    assert list(a) == list(b) == list(c) == KEYS
    assert a["duration_ms"] > 0
    assert a["memory_peak_bytes"] == 2 * 65536
    del a["duration_ms"], a["memory_peak_bytes"]
    assert a == {
        **{"job": "a", "status": "succeeded", "attempts": 1, "function": "echo", "version": 1, "output_bytes": 4},
        **{"records_reused": 0},
        **{"output_path": str(project.folder / "a.txt"), "error_class": None, "message": None},
    }
    assert (b["status"], b["error_class"], b["attempts"]) == ("failed", "Trapped", 1)
    assert b["message"].startswith("trapped: ")
    assert (c["status"], c["attempts"], c["message"]) == ("skipped", 0, "job 'b' failed before it")


def test_the_end_of_stderr_is_shown_with_the_error(project: CliProject) -> None:
    project.declare('{a: {run: complain, input: "row 7 is \\e[31mbad"}}')
    done = project.run("run")
    assert "the end of its standard error:\n  row 7 is \\x1b[31mbad\n" in done.err


def test_retries_are_counted(project: CliProject) -> None:
    project.declare("{a: {run: trap}}", trap=", retry_count: 2, retry_delay_seconds: 0.01")
    (row,) = project.run("run", "--json").rows
    assert row["attempts"] == 3


# Failures


def test_a_failure_stops_what_would_follow(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: A}, b: {run: trap}, c: {run: echo, input: C}}")
    done = project.run("run")
    assert (done.status, done.out) == (1, b"A")
    assert "c: skipped (job 'b' failed before it)" in done.err


def test_keep_going_runs_what_does_not_depend_on_it(project: CliProject) -> None:
    project.declare(
        "{a: {run: trap, output: {path: out/a}}, b: {run: echo, input: {path: ./out/a}, output: {path: out/b}}, "
        "c: {run: echo, input: {path: out/b}}, d: {run: echo, input: D}}"
    )
    project.write("out/a", "of an earlier run")
    done = project.run("run", "--json", "--keep-going")
    assert done.status == 1
    assert statuses(done.rows) == {"a": "failed", "b": "skipped", "c": "skipped", "d": "succeeded"}
    assert done.rows[1]["message"] == "job 'a' did not make its input"
    assert project.run("run", "-k").out == b"D"


@pytest.mark.parametrize(
    ("jobs", "status", "error"),
    [
        ("{a: {run: echo, input: {path: missing.txt}}}", 3, "FileUnavailable"),
        ("{a: {run: echo, input: x, output: {path: functions}}}", 3, "FileUnavailable"),
        ("{a: {run: trap}, b: {run: echo, input: {path: missing.txt}}}", 1, "Trapped"),
        ("{b: {run: echo, input: {path: missing.txt}}, a: {run: trap}}", 1, "FileUnavailable"),
    ],
)
def test_the_status_tells_what_failed(project: CliProject, jobs: str, status: int, error: str) -> None:
    project.declare(jobs)
    done = project.run("run", "-k", "--json")
    assert (done.status, done.rows[0]["error_class"]) == (status, error)


def test_a_module_that_can_never_run_is_not_registered(project: CliProject) -> None:
    project.declare("{a: {run: echo}}")
    project.write("functions/echo.wasm", b"\0asm\1\0\0\0")
    done = project.run("run")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert project.ok("functions", "list").out == b""


def test_a_loop_ends_at_its_deadline(project: CliProject) -> None:
    project.declare("{a: {run: loop}, b: {run: echo, input: B}}", loop=", timeout_seconds: 0.2")
    started = time.monotonic()
    done = project.run("run", "--keep-going")
    assert time.monotonic() - started < 10
    assert "Error: a: timed out after 0.2 s" in done.err
    assert (done.status, done.out) == (1, b"B")


# A terminal


def test_a_terminal_shows_a_line_that_is_rewritten(project: CliProject) -> None:
    project.declare("{first: {run: echo, input: A}, slow: {run: loop}}", loop=", timeout_seconds: 1.2")
    shown = project.on_terminal("run", NO_COLOR="1")
    frames = re.findall(r"\r\x1b\[2K\[2/2\] slow  running  ([\d.]+) s", shown)
    assert len(frames) >= 5
    assert sorted(frames, key=float) == frames
    assert re.search(r"slow +failed +1\.\d s", shown)
    assert "first: running" not in shown
    assert "A\r\n" in shown  # the output, and a line break that is the terminal's alone


# Ctrl-C


def started(project: CliProject, *arguments: str, line: bytes = b"a: running\n") -> subprocess.Popen[bytes]:
    """The program, once it has told on stderr that job `a` runs, and a moment later."""
    process = project.start(*arguments)
    assert process.stderr is not None
    for told in iter(process.stderr.readline, line):
        assert told, "it ended"
    time.sleep(0.5)
    return process


def test_ctrl_c_ends_it_cleanly(project: CliProject) -> None:
    orphans = Orphans()
    project.declare("{a: {run: loop, output: {path: out/a}}, b: {run: echo}}", loop=", timeout_seconds: 60")
    process = started(project, "run", "--json")
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.decode().endswith("interrupted\n")
    assert b"Traceback" not in err
    assert statuses([json.loads(line) for line in out.splitlines()]) == {"a": "cancelled", "b": "skipped"}
    assert orphans.left() == []
    assert not (project.folder / "out").exists()
    assert project.run("run", "b").status == 0  # nothing is left locked


def test_ctrl_c_during_a_compilation(project: CliProject) -> None:
    orphans = Orphans()
    project.declare("{a: {run: slow}}")
    project.write("functions/slow.wat", many_functions(30_000))
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(jobs.read_text().replace("jobs:", "  slow: {source: functions/slow.wat}\njobs:"))
    process = started(project, "run")
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert orphans.left() == []


def many_functions(count: int) -> str:
    """A module that takes the compiler seconds."""
    body = "(i32.add (i32.mul (local.get 0) (i32.const 3)) (i32.const 7))"
    functions = "".join(f"(func (param i32) (result i32) {body})" for _ in range(count))
    return f'(module (memory (export "memory") 1) {functions} (func (export "_start")))'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_it(project: CliProject, number: signal.Signals) -> None:
    orphans = Orphans()
    project.declare("{a: {run: loop}}", loop=", timeout_seconds: 60")
    process = started(project, "run")
    os.kill(process.pid, number)
    process.communicate(timeout=10)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert orphans.left() == []


def test_two_at_once_in_one_folder(project: CliProject) -> None:
    project.declare("{a: {run: echo, input: text, output: {path: a.txt}}}")
    processes = [project.start("run", "--json") for _ in range(3)]
    rows = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [row["status"] for row in rows] == ["succeeded"] * 3, EXECUTOR
    assert (project.folder / "a.txt").read_bytes() == b"text"
    assert [row["version"] for row in project.ok("functions", "versions", "echo", "--json").rows] == [1]


@pytest.mark.parametrize("command", [["run", "a"], ["invoke", "echo"], ["enqueue", "a"], ["test"]])
def test_the_state_is_for_this_user_only(project: CliProject, command: list[str]) -> None:
    project.declare("{a: {run: echo, input: text}}\ntests: {t: {function: echo, input: x, expect: {output: x}}}")
    project.run(*command)
    state = project.folder / ".runner"
    assert state.stat().st_mode & 0o077 == 0
    assert (state / ".gitignore").read_text() == "*\n"
