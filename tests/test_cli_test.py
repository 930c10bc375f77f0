"""`runner test`: functions, jobs and records under test, what is shown, what is never touched."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest
import wasmtime

from runner.testing import guests
from tests.cli_project import CliProject, Done, Orphans
from tests.support import children, command_line, eventually

SECRET = """(module
  (import "env" "get_secret" (func $get (param i32 i32) (result i64)))
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (data (i32.const 0) "KEY")
  (func (export "malloc") (param $size i32) (result i32)
    (global.get $next)
    (global.set $next (i32.add (global.get $next) (local.get $size))))
  (func (export "handle") (param i32 i32) (result i64)
    (i64.rotl (call $get (i32.const 0) (i32.const 3)) (i64.const 32))))"""
# Copies its input to its output, and exits with 3 if that begins with an `x`, after logging it.
PICKY = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 60000))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 120)) (then
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $exit (i32.const 3))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
JOBS = """{
  greet: {run: echo, input: hello, output: {path: out.txt}, env_vars: {NAME: job}},
  name: {run: env, env_vars: {NAME: job}},
  rows: {batch: {function: picky, input: {path: rows.txt}, output: {path: out.txt.gz}, on_error: skip}},
  strict: {batch: {function: picky, input: {path: rows.txt}, output: {path: out.txt}}},
  budget: {batch: {function: picky, input: {path: rows.txt}, output: {path: out.txt},
                   on_error: {action: quarantine, path: rejected.jsonl, max_errors: 0}}},
  folder: {batch: {function: echo, input: {format: files, path: "parts/*.txt"}, output: {format: files, path: to}}},
  table: {batch: {function: echo, input: {path: in.jsonl}, output: {format: sqlite, path: to.db, table: t}}},
  waits: {steps: {a: {run: loop}}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


def declare(project: CliProject, tests: str, **settings: str) -> None:
    """A jobs.yaml with the functions of tests.cli_project and two more, these jobs and the tests."""
    project.declare(JOBS, **settings)
    project.write("rows.txt", "a\nxb\nc\n")
    project.write("functions/secret.wasm", bytes(wasmtime.wat2wasm(SECRET)))
    project.write("functions/picky.wasm", bytes(wasmtime.wat2wasm(PICKY)))
    more = "  secret: {wasm: functions/secret.wasm, secrets: [KEY]}\n  picky: {wasm: functions/picky.wasm}\n"
    text = (project.folder / "jobs.yaml").read_text().replace("functions:\n", f"functions:\n{more}", 1)
    project.write("jobs.yaml", f"{text}secrets: {{KEY: {{env: KEY}}}}\ntests:\n{tests}")


def run(project: CliProject, *arguments: str) -> tuple[int, dict[str, str], Done]:
    """Status, the tests' statuses by name, and everything."""
    done = project.run("test", "--json", *arguments)
    return done.status, {row["test"]: row["status"] for row in done.rows}, done


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# What is expected, and what comes


@pytest.mark.parametrize(
    "case",
    [
        '{function: echo, input: "a\\n", expect: {output: "a\\n"}}',
        "{function: echo, expect: {output: ''}}",
        "{function: echo, input: {json: {a: ü}}, expect: {output: {json: {a: ü}}}}",
        "{function: echo, input: {path: rows.txt}, expect: {output: {path: rows.txt}}}",
        "{function: echo, input: {path: rows.txt}, expect: {output: {matches: '^xb$'}}}",
        "{function: env, env_vars: {NAME: test}, expect: {output: test}}",
        "{function: secret, secrets: {KEY: made-up}, expect: {output: made-up}}",
        "{function: trap, expect: {error: Trapped, trap: unreachable}}",
        "{function: trap, expect: {message: inner}}",
        "{function: loop, expect: {error: TimedOut}}",
        "{function: picky, input: x is bad, expect: {exit_code: 3, message: is bad}}",
        "{job: greet, expect: {output: hello}}",
        "{job: greet, input: other, expect: {output: other}}",
        "{job: name, expect: {output: job}}",
        "{job: name, env_vars: {NAME: test}, expect: {output: test}}",
        '{function: picky, records: {path: rows.txt}, expect: {records_in: 3, failed: 1, output: "a\\nc\\n"}}',
        '{job: rows, expect: {records_in: 3, records_out: 2, failed: 1, output: "a\\nc\\n"}}',
        "{job: rows, records: {path: jobs.yaml, format: lines}, expect: {status: succeeded}}",
        "{job: strict, expect: {error: RecordFailed, message: 'rows.txt:2'}}",
        "{job: budget, expect: {error: TooManyFailures, failed: 1}}",
    ],
)
def test_passes(project: CliProject, case: str) -> None:
    declare(project, f"  t: {case}\n", loop=", timeout_seconds: 0.3")
    project.environment["KEY"] = "real"
    done = project.run("test")
    assert done.status == 0, done.text
    assert re.fullmatch(r"passed   t +\S+ \S+\n\n1 passed in .*\n", done.text)


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            '{function: echo, input: "a\\nB\\n", expect: {output: "a\\nb\\n"}}',
            ["the output differs: expected 2 lines (-), got 2 lines (+)", "  1 | a", "- 2 | b", "+ 2 | B"],
        ),
        (
            "{function: echo, input: {json: {a: [1, 2]}}, expect: {output: {json: {a: [1, 3]}}}}",
            ["the output differs:", "  a[1]: expected 3, got 2"],
        ),
        (
            "{function: log, input: why, expect: {output: out}}",
            ["the output differs: expected 1 line, got nothing", "- 1 | out (no line break at the end)"],
        ),
        ("{function: trap, expect: {output: a}}", ["expected it to succeed, and it failed: Trapped: trapped: "]),
        ("{function: complain, input: no, expect: {error: Exited}}", ["expected Exited, got Trapped: "]),
        ("{function: echo, input: a, expect: {error: Exited}}", ["expected it to fail with Exited, and it succeeded"]),
        (
            "{function: picky, records: {path: rows.txt}, expect: {output: {contains: a}}}",
            ["failed: expected 0, got 1", "  rows.txt:2 (byte 2): Exited: exited with code 3"],
        ),
        ("{job: rows, expect: {failed: 1, records_out: 3}}", ["records_out: expected 3, got 2"]),
        ("{job: strict, expect: {output: a}}", ["expected it to succeed, and it failed: RecordFailed: rows.txt:2"]),
    ],
)
def test_fails(project: CliProject, case: str, lines: list[str]) -> None:
    declare(project, f"  t: {case}\n")
    done = project.run("test")
    assert done.status == 1
    told = done.text.splitlines()
    assert re.fullmatch(r"failed   t +\S+ \S+  jobs.yaml:\d+", told[0])
    for line, beginning in zip(told[1 : len(lines) + 1], lines, strict=True):
        assert line.startswith(f"  {beginning}")


def test_what_a_guest_logged_is_shown_with_a_failure(project: CliProject) -> None:
    declare(
        project,
        '  t: {function: complain, input: "one\\n\\e[31mtwo\\n", expect: {output: a}}\n'
        "  u: {function: picky, records: {path: rows.txt}, expect: {failed: 0}}\n"
        "  v: {function: log, input: fine, expect: {output: ''}}\n",
    )
    text = project.run("test").text
    assert "\n  the end of its standard error:\n    one\n    \\x1b[31mtwo\n" in text
    assert "\n  the end of its standard error:\n    xb\n" in text
    assert "fine" not in text


def test_binary_output(project: CliProject) -> None:
    project.write("a.bin", bytes(range(256)))
    project.write("b.bin", bytes(range(255)) + b"\0")
    declare(project, "  t: {function: echo, input: {path: a.bin}, expect: {output: {path: b.bin}}}\n")
    assert project.run("test").text.splitlines()[1] == (
        "  the output differs from b.bin: expected 256 bytes (-), got 256 bytes (+); the first difference is at byte "
        "255 (0xff)"
    )


def test_records_of_csv_keep_one_header(project: CliProject) -> None:
    project.write("in.csv", "id,name\n1,Ada\n2,Grace\n")
    declare(
        project, "  t: {function: echo, records: {path: in.csv}, expect: {records_in: 2, output: {path: in.csv}}}\n"
    )
    assert project.ok("test").status == 0


def test_records_of_every_format(project: CliProject) -> None:
    with closing(sqlite3.connect(project.folder / "in.db")) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.executemany("INSERT INTO people VALUES (?)", [("Ada",), ("Grace",)])
    project.write("in.jsonl", '{"a": 1}\n{"a": 2}\n')
    project.write("parts/a.txt", "one\n")
    project.write("parts/b.txt", "two\n")
    declare(
        project,
        "  jsonl: {function: echo, records: {path: in.jsonl}, expect: {records_in: 2, output: {path: in.jsonl}}}\n"
        "  sqlite: {function: echo, records: {format: sqlite, path: in.db, table: people},"
        ' expect: {records_in: 2, output: {contains: "Grace"}}}\n'
        '  files: {function: echo, records: {format: files, path: "parts/*.txt"}, expect: {output: "one\\ntwo\\n"}}\n',
    )
    done = project.run("test")
    assert done.status == 0, done.text


def test_a_batch_into_a_folder_or_a_table(project: CliProject) -> None:
    project.write("parts/a.txt", "one\n")
    project.write("in.jsonl", '{"a": 1}\n')
    declare(
        project,
        "  folder: {job: folder, expect: {records_out: 1}}\n"
        "  table: {job: table, expect: {records_out: 1, failed: 0}}\n"
        "  no_output: {job: folder, expect: {output: a}}\n",
    )
    _, statuses, done = run(project)
    assert statuses == {"folder": "passed", "table": "passed", "no_output": "failed"}, done.text
    assert done.rows[2]["message"] == "an output is expected, and what was run has none of its own"
    assert not {"to", "to.db"} & {path.name for path in project.folder.iterdir()}


# What a test does not do


def test_nothing_of_the_project_changes(project: CliProject) -> None:
    declare(
        project,
        "  a: {job: greet, expect: {output: hello}}\n"
        "  b: {job: rows, expect: {failed: 1}}\n"
        "  c: {job: budget, expect: {error: TooManyFailures}}\n"
        "  d: {function: picky, records: {path: rows.txt}, expect: {failed: 1}}\n",
    )
    before = files(project.folder)
    project.environment["TMPDIR"] = str(project.write("tmp/.keep", "").parent)
    project.ok("test")
    after = files(project.folder)
    assert {name for name in after if not name.startswith((".runner/", "home/"))} == {*before, "tmp/.keep"}
    assert all(after[name] == data for name, data in before.items())
    kept = {path.name for path in (project.folder / ".runner").iterdir()}
    assert kept <= {".gitignore", "artifacts", "llvm"}


def test_the_registry_of_the_project_is_not_asked(project: CliProject) -> None:
    """However it stands with it: here its file is damaged."""
    declare(project, "  t: {function: echo, input: a, expect: {output: a}}\n")
    project.ok("run", "name")
    (store,) = (project.folder / ".runner").glob("*.db")
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.write_bytes(b"no database" * 1000)
    assert project.run("run", "name").status == 4
    assert project.ok("test").status == 0


def test_what_a_guest_enqueues_is_accepted_and_gone(project: CliProject) -> None:
    declare(project, "  t: {function: ask, input: {path: ask.bin}, expect: {output: {matches: '^[0-9]+$'}}}\n")
    project.write("functions/ask.wasm", guests.compiled(guests.ENQUEUE))
    project.write("ask.bin", guests.enqueue(b"greet"))
    ask = "  ask: {wasm: functions/ask.wasm, allow: {enqueue: [greet]}}\n"
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(jobs.read_text().replace("functions:\n", f"functions:\n{ask}", 1))
    done = project.run("test")
    assert done.status == 0, done.text
    assert not list((project.folder / ".runner").glob("*.db*"))


def test_nothing_is_tried_twice(project: CliProject) -> None:
    declare(
        project,
        "  t: {function: trap, expect: {error: Trapped}}\n"
        "  u: {function: trap, records: {path: rows.txt}, expect: {failed: 3}}\n",
        trap=", retry_count: 5, retry_delay_seconds: 3600",
    )
    assert project.ok("test").status == 0


def test_no_secret_is_looked_up(project: CliProject) -> None:
    declare(project, "  t: {function: secret, expect: {output: real}}\n")
    project.environment["KEY"] = "real"
    done = project.run("test")
    assert done.status == 3
    assert "function 'secret' is granted the secret 'KEY', and a test looks up no real one; add a made-up" in done.text
    assert "secrets: {KEY: ...}" in done.text


def test_a_state_folder_that_cannot_be_made_is_done_without(project: CliProject) -> None:
    declare(project, "  t: {function: echo, input: a, expect: {output: a}}\n")
    project.write(".runner", "a file")
    assert project.ok("test").status == 0
    assert (project.folder / ".runner").read_text() == "a file"


# What cannot be run


def test_one_that_cannot_be_run_does_not_disturb_the_others(project: CliProject) -> None:
    project.write("functions/broken.wat", "(module (nonsense))")
    declare(
        project,
        "  a: {function: broken, expect: {output: a}}\n"
        "  b: {function: echo, input: {path: nowhere.txt}, expect: {output: a}}\n"
        "  c: {function: echo, input: a, expect: {output: a}}\n"
        "  d: {function: echo, records: {path: nowhere.txt}, expect: {failed: 0}}\n"
        "  e: {function: echo, input: a, expect: {output: {path: functions}}}\n",
    )
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(
        jobs.read_text().replace("functions:\n", "functions:\n  broken: {source: functions/broken.wat}\n", 1)
    )
    status, statuses, done = run(project)
    assert (status, statuses) == (1, {"a": "error", "b": "error", "c": "passed", "d": "error", "e": "error"})
    rows = {row["test"]: row for row in done.rows}
    assert rows["a"]["error_class"] == "BuildError"
    assert "nonsense" in rows["a"]["message"]
    assert {rows[name]["error_class"] for name in "bde"} == {"FileUnavailable"}
    assert "nowhere.txt" in rows["b"]["message"]


def test_the_status_when_all_that_is_wrong_is_that_something_is_missing(project: CliProject) -> None:
    declare(project, "  a: {function: echo, input: {path: nowhere.txt}, expect: {output: a}}\n")
    assert project.run("test").status == 3


# Which


ALL = (
    "".join(
        f"  {name}: {{function: {function}, input: a, expect: {{output: a}}}}\n"
        for name, function in [("one", "echo"), ("two", "echo"), ("other", "log"), ("third", "echo")]
    )
    + "  job: {job: greet, expect: {output: hello}}\n"
)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["one", "two", "other", "third", "job"]),
        (["two", "one"], ["one", "two"]),
        (["t*", "one"], ["one", "two", "third"]),
        (["--function", "log"], ["other"]),
        (["--function", "echo"], ["one", "two", "third", "job"]),
        (["--function", "echo", "o*"], ["one"]),
    ],
)
def test_which_run(project: CliProject, arguments: list[str], names: list[str]) -> None:
    declare(project, ALL)
    assert list(run(project, *arguments)[1]) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tow"], "no test 'tow' in jobs.yaml; did you mean 'two'?"),
        (["z*"], "no test 'z*' in jobs.yaml; there are one, two, other, third, job"),
        (["--function", "ecoh"], "no function 'ecoh' in jobs.yaml; did you mean 'echo'?"),
        (["--function", "trap"], "nothing to test: none of these tests runs function 'trap'"),
    ],
)
def test_what_is_not_there(project: CliProject, arguments: list[str], message: str) -> None:
    declare(project, ALL)
    done = project.run("test", *arguments)
    assert (done.status, done.text) == (2, "")
    assert message in done.err


def test_nothing_to_test(project: CliProject) -> None:
    project.declare("{}")
    done = project.run("test")
    assert (done.status, done.text) == (2, "")
    assert "nothing to test in jobs.yaml: it declares no tests; put some under `tests:`" in done.err


def test_fail_fast(project: CliProject) -> None:
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: a}}\n"
        "  b: {function: echo, input: a, expect: {output: b}}\n"
        "  c: {function: loop, expect: {output: b}}\n",
        loop=", timeout_seconds: 600",
    )
    status, statuses, done = run(project, "-x")
    assert (status, statuses) == (1, {"a": "passed", "b": "failed", "c": "skipped"})
    assert done.rows[2]["message"] == "b went wrong before it"


# --update


def test_update(project: CliProject) -> None:
    declare(
        project,
        "  new: {function: echo, input: a, expect: {output: {path: new/a.txt}}}\n"
        "  other: {function: echo, input: b, expect: {output: {path: b.txt}}}\n"
        "  same: {function: echo, input: c, expect: {output: {path: c.txt}}}\n"
        "  inline: {function: echo, input: d, expect: {output: e}}\n"
        "  fails: {function: trap, expect: {output: {path: f.txt}}}\n"
        "  counts: {function: picky, records: {path: rows.txt}, expect: {failed: 0, output: {path: g.txt}}}\n",
    )
    project.write("b.txt", "old")
    project.write("c.txt", "c")
    jobs, touched = files(project.folder)["jobs.yaml"], (project.folder / "c.txt").stat().st_mtime_ns
    done = project.run("test", "--update")
    assert done.status == 1
    assert re.findall(r"^(\w+) +(\w+) ", done.text, re.MULTILINE)[:6] == [
        *(("updated", "new"), ("updated", "other"), ("passed", "same")),
        *(("failed", "inline"), ("failed", "fails"), ("failed", "counts")),
    ]
    assert "  wrote new/a.txt\n" in done.text
    assert "3 failed, 1 passed, 2 updated in" in done.text
    after = files(project.folder)
    assert (after["new/a.txt"], after["b.txt"], after["jobs.yaml"]) == (b"a", b"b", jobs)
    assert (project.folder / "c.txt").stat().st_mtime_ns == touched
    assert not {"f.txt", "g.txt"} & {*after}
    assert project.run("test", "new", "other", "same").status == 0


def test_update_of_one_file_with_two_outputs(project: CliProject) -> None:
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: {path: out}}}\n"
        "  b: {function: echo, input: b, expect: {output: {path: out}}}\n"
        "  c: {function: echo, input: a, expect: {output: {path: out}}}\n",
    )
    status, statuses, done = run(project, "--update")
    assert (status, statuses) == (1, {"a": "updated", "b": "failed", "c": "passed"})
    assert done.rows[1]["message"] == "out has just been written for a, whose output is another; use two files"
    assert (project.folder / "out").read_bytes() == b"a"


# What is shown


def test_json(project: CliProject) -> None:
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: a}}\n"
        "  b: {job: greet, expect: {output: {json: 1}}}\n"
        "  c: {function: complain, input: why, expect: {output: a}}\n",
    )
    done = project.run("test", "--json")
    assert done.status == 1
    rows = done.rows
    keys = ["test", "function", "job", "status", "duration_ms", "line", "error_class", "message", "stderr_tail"]
    assert [list(row) for row in rows] == [keys] * 3
    assert [(row["test"], row["function"], row["job"]) for row in rows] == [
        *(("a", "echo", None), ("b", None, "greet"), ("c", "complain", None))
    ]
    assert rows[0]["duration_ms"] > 0
    assert rows[0]["message"] is rows[0]["stderr_tail"] is None
    assert rows[1]["message"].startswith(
        "the output is no JSON (Expecting value: line 1 column 1 (char 0)):\n+ 1 | hello"
    )
    assert rows[1]["line"] == rows[0]["line"] + 1
    assert rows[2]["stderr_tail"] == "why"
    assert "2 failed, 1 passed in" in done.err


def test_quiet(project: CliProject) -> None:
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: a}}\n  b: {function: echo, expect: {output: b}}\n",
    )
    done = project.run("test", "-q")
    assert done.text.splitlines()[0].startswith("failed   b")
    assert "passed" not in done.text
    assert done.err == ""


def test_on_a_terminal(project: CliProject) -> None:
    declare(project, "  a: {function: loop, expect: {error: TimedOut}}\n", loop=", timeout_seconds: 1")
    shown = project.on_terminal("test")
    assert re.search(r"\r\x1b\[2K\[0/1\] [0-9.]+ m?s  a", shown)
    assert "\x1b[32mpassed " in shown
    assert shown.rstrip().splitlines()[-1].startswith("\x1b[32m1 passed\x1b[0m in ")


def test_the_bad_ones_of_many_are_listed_once_more(project: CliProject) -> None:
    tests = "".join(f"  t{number}: {{function: echo, input: a, expect: {{output: a}}}}\n" for number in range(30))
    declare(project, tests + "  bad: {function: echo, input: a, expect: {output: b}}\n")
    last = project.run("test").text.splitlines()[-2:]
    assert re.fullmatch(r"failed  bad  jobs.yaml:\d+", last[0])
    assert last[1].startswith("1 failed, 30 passed in ")


def test_junit(project: CliProject) -> None:
    declare(
        project,
        '  a: {function: complain, input: "\\e[31m", expect: {output: a}}\n'
        "  b: {function: echo, input: a, expect: {output: a}}\n",
    )
    done = project.run("test", "--junit", "build/tests.xml")
    assert done.status == 1
    (suite,) = ElementTree.parse(project.folder / "build/tests.xml").getroot()
    assert (suite.attrib["name"], suite.attrib["tests"], suite.attrib["failures"]) == ("default", "2", "1")
    assert [case.attrib["classname"] for case in suite] == ["default.complain", "default.echo"]
    assert suite[0].findtext("system-err") == "\\x1b[31m"
    assert float(suite[1].attrib["time"]) < float(suite.attrib["time"])


def test_junit_that_cannot_be_written(project: CliProject) -> None:
    declare(project, "  a: {function: echo, input: a, expect: {output: a}}\n")
    done = project.run("test", "--junit", "rows.txt/tests.xml")
    assert done.status == 3
    assert "cannot write rows.txt/tests.xml" in done.err


# Ended from outside


def started(project: CliProject, *arguments: str) -> subprocess.Popen[bytes]:
    """The program, once the first of its lines tells that it runs tests."""
    process = project.start("test", "--json", *arguments)
    assert process.stdout is not None
    assert b'"status": "passed"' in process.stdout.readline()
    return process


def test_ctrl_c(project: CliProject) -> None:
    orphans = Orphans()
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: a}}\n"
        "  b: {function: loop, expect: {output: a}}\n"
        "  c: {function: loop, records: {path: rows.txt}, expect: {failed: 0}}\n",
        loop=", timeout_seconds: 600",
    )
    project.environment["TMPDIR"] = str(project.write("tmp/.keep", "").parent)
    process = started(project, "--junit", "tests.xml")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.decode().endswith("interrupted\n")
    assert b"Traceback" not in err
    assert out.count(b'"status": "skipped"') == 2
    (suite,) = ElementTree.parse(project.folder / "tests.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["skipped"]) == ("3", "2")
    assert orphans.left() == []
    assert [path.name for path in (project.folder / "tmp").iterdir()] == [".keep"]


def test_ctrl_c_during_a_compilation(project: CliProject) -> None:
    orphans = Orphans()
    body = "(i32.add (i32.mul (local.get 0) (i32.const 3)) (i32.const 7))"
    functions = "".join(f"(func (param i32) (result i32) {body})" for _ in range(30_000))
    slow = f'(module (memory (export "memory") 1) {functions} (func (export "_start")))'
    project.write("functions/slow.wasm", bytes(wasmtime.wat2wasm(slow)))
    declare(project, "  a: {function: slow, expect: {output: a}}\n")
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(jobs.read_text().replace("functions:\n", "functions:\n  slow: {wasm: functions/slow.wasm}\n", 1))
    process = project.start("test", "--json")
    eventually(lambda: any("workers.compiler" in command_line(pid) for pid in children(process.pid)), seconds=30)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert out.count(b'"status": "skipped"') == 1
    assert orphans.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_it(project: CliProject, number: signal.Signals) -> None:
    orphans = Orphans()
    declare(
        project,
        "  a: {function: echo, input: a, expect: {output: a}}\n"
        "  b: {function: loop, expect: {output: a}}\n"
        "  c: {job: waits, expect: {output: a}}\n",
        loop=", timeout_seconds: 600",
    )
    project.environment["TMPDIR"] = str(project.write("tmp/.keep", "").parent)
    process = started(project)
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert orphans.left() == []
    if number == signal.SIGTERM:
        assert [path.name for path in (project.folder / "tmp").iterdir()] == [".keep"]


def test_two_at_once_in_one_folder(project: CliProject) -> None:
    declare(project, ALL)
    processes = [project.start("test", "--json", "one", "two", "job") for _ in range(2)]
    assert [process.communicate(timeout=60)[0].count(b'"passed"') for process in processes] == [3, 3]
