"""`runner batch`, `map` and `backfill` as their users have them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.testing import guests
from tests.batch_project import BatchProject, json_lines
from tests.cli_project import Done, Orphans

PLAIN = "input: {path: in.jsonl}, output: {path: out/all.jsonl}"
KEYS = [
    *("job", "partition", "status", "duration_ms", "attempts", "function", "version", "records_in", "records_out"),
    *("records_skipped", "records_quarantined", "records_reused", "records_per_second", "bytes_in", "bytes_out"),
    *("output", "quarantine", "slowest", "error_class", "message"),
]


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    project = BatchProject(tmp_path)
    project.write("in.jsonl", json_lines(3000))
    return project


def events(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.err.splitlines()]


# batch


@pytest.mark.parametrize("function", ["upper", "upper_reactor"])
@pytest.mark.parametrize("isolation", ["record", "chunk"])
def test_a_batch(project: BatchProject, function: str, isolation: str) -> None:
    project.declare_batch(f"{PLAIN}, isolation: {isolation}, workers: 2", function=function)
    (row,) = project.batch().rows
    assert list(row) == KEYS
    assert project.data("out/all.jsonl") == project.data("in.jsonl").upper()
    assert (row["job"], row["status"], row["partition"], row["error_class"]) == ("b", "succeeded", None, None)
    assert row["records_in"] == row["records_out"] == 3000
    assert row["bytes_in"] == row["bytes_out"] == len(project.data("in.jsonl"))
    assert (row["output"], row["quarantine"]) == ("out/all.jsonl", None)
    assert len(row["slowest"]) >= 1
    assert re.fullmatch(r"in\.jsonl:\d+ \(byte \d+\)", row["slowest"][0]["record"])


def test_a_log_tells_counts_rates_and_places(project: BatchProject) -> None:
    project.declare_batch(f"{PLAIN}, on_error: quarantine", function="picky")
    project.write("in.jsonl", json_lines(500) + b'"!"\n')
    err = project.ok("batch", "b").err
    assert re.search(r"^b: succeeded in [\d.]+ m?s, [\d,]+ records/s$", err, re.MULTILINE)
    assert re.search(r"^  records  501 in \(\S+ kB\), 500 out \(\S+ kB\), 1 quarantined$", err, re.MULTILINE)
    assert "\n  output   out/all.jsonl\n  rejects  out/all.jsonl.rejected.jsonl\n  slowest  " in err
    assert "\x1b" not in err


def test_json_has_events_too(project: BatchProject) -> None:
    project.declare_batch(f"{PLAIN}, checkpoint: {{every: 10}}", function="picky", settings=", timeout_seconds: 3")
    project.write("in.jsonl", json_lines(100) + b'"^"\n')
    done = project.batch()
    assert done.status == 1
    told = [event for event in events(done) if event["event"] == "progress"]
    assert told
    assert list(told[0]) == [
        *("event", "job", "done", "records_in", "records_per_second", "records_failed", "records_waiting"),
        *("seconds_left", "workers"),
    ]
    assert any("busy" in " ".join(event["workers"]) for event in told)
    assert any(event["event"] == "message" for event in events(done))
    assert done.rows[0]["error_class"] == "RecordFailed"


def test_a_failure_names_place_and_reason(project: BatchProject) -> None:
    project.declare_batch(PLAIN, function="picky")
    project.write("in.jsonl", b'1\n2\n"!"\n4\n')
    done = project.run("batch", "b")
    assert done.status == 1
    assert "Error: b: in.jsonl:3 (byte 4): trapped: " in done.err
    assert "the end of its standard error:\n  no marks, please\n" in done.err
    assert not (project.folder / "out/all.jsonl").exists()
    assert project.data("out/all.jsonl.partial") == b""  # it was never cut: nothing of it will be used


def test_only_failed_after_a_better_version(project: BatchProject) -> None:
    lines = json_lines(300).splitlines(keepends=True)
    lines[7] = lines[200] = b'"!"\n'
    project.write("in.jsonl", b"".join(lines))
    project.declare_batch(
        f"{PLAIN}, on_error: quarantine", function="picky", settings=", retry_count: 1, retry_delay_seconds: 0"
    )
    (row,) = project.batch().rows
    assert (row["records_quarantined"], row["attempts"]) == (2, 302)
    assert [json.loads(line)["attempts"] for line in project.data("out/all.jsonl.rejected.jsonl").splitlines()] == [
        2,
        2,
    ]
    project.write("functions/picky.wasm", guests.compiled(guests.ECHO))
    (row,) = project.batch("--only", "failed").rows
    assert (row["version"], row["records_in"], row["records_out"], row["records_reused"]) == (2, 300, 300, 298)
    assert project.data("out/all.jsonl") == project.data("in.jsonl")
    assert not (project.folder / "out/all.jsonl.rejected.jsonl").exists()


def test_changes_under_a_checkpoint(project: BatchProject) -> None:
    project.declare_batch(f"{PLAIN}, checkpoint: {{every: 10}}", function="picky")
    project.write("in.jsonl", json_lines(100) + b'"!"\n')
    assert project.batch().status == 1
    project.write("in.jsonl", json_lines(120))
    done = project.run("batch", "b")
    assert done.status == 2
    assert re.search(r"b was interrupted and has changed since:\n  input in.jsonl was [\d,]+ bytes changed ", done.err)
    assert "--restart begins again, --resume goes on from where it was" in done.err
    assert project.run("batch", "b", "--resume", "--restart").status == 2
    (row,) = project.batch("--resume").rows
    assert row["records_reused"] == 100
    assert project.data("out/all.jsonl") == json_lines(120)


def test_two_at_once(project: BatchProject) -> None:
    project.declare_batch(PLAIN, function="picky", settings=", timeout_seconds: 20")
    project.write("in.jsonl", b'1\n"^"\n')
    with project.start("batch", "b", "--json") as first:
        partial = project.folder / "out/all.jsonl.partial"
        while not partial.exists():
            time.sleep(0.01)
        second = project.batch()
        os.kill(first.pid, signal.SIGINT)
        out, _ = first.communicate(timeout=20)
    assert second.status == 4
    assert second.rows[0]["message"] == "b is running already, in another process; wait for it or stop it"
    assert first.returncode == 130
    assert json.loads(out)["status"] == "cancelled"


def test_ctrl_c_keeps_what_is_done(project: BatchProject) -> None:
    orphans = Orphans()
    project.declare_batch(f"{PLAIN}, checkpoint: {{every: 10}}", function="picky", settings=", timeout_seconds: 60")
    project.write("in.jsonl", json_lines(2000) + b'"^"\n')
    process = project.start("batch", "b", "--json")
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("records_in", 0) >= 500:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert err.decode().endswith("interrupted; the same command goes on from the last checkpoint\n")
    assert orphans.left() == []
    project.write("functions/picky.wasm", guests.compiled(guests.ECHO))
    (row,) = project.batch("--resume").rows
    assert row["records_reused"] >= 500
    assert project.data("out/all.jsonl") == project.data("in.jsonl")


def test_a_terminal_shows_a_line_that_is_rewritten(project: BatchProject) -> None:
    project.declare_batch(PLAIN, function="picky", settings=", timeout_seconds: 1.5")
    project.write("in.jsonl", json_lines(1000) + b'"^"\n')
    shown = project.on_terminal("batch", "b", NO_COLOR="1")
    frames = re.findall(r"\r\x1b\[2Kb  \d+%  [\d,]+ records", shown)
    assert len(frames) >= 5
    assert "b: failed in" in shown


def test_a_job_that_is_no_batch(project: BatchProject) -> None:
    project.declare("{a: {run: echo}}")
    assert "job 'a' is no batch; `runner run a` runs it" in project.run("batch", "a").err
    assert project.run("batch", "nothing").status == 2


def test_run_takes_batches_too(project: BatchProject) -> None:
    project.declare_batch(PLAIN)
    (row,) = project.ok("run", "--json").rows
    assert (row["job"], row["status"], row["records_in"], row["records_quarantined"]) == ("b", "succeeded", 3000, 0)
    assert row["output_path"] == str(project.folder / "out/all.jsonl")
    project.write("in.jsonl", b"")
    assert project.ok("run", "b").status == 0
    (project.folder / "in.jsonl").unlink()
    assert project.run("run", "b").status == 3


# map


def wasm(project: BatchProject, name: str = "upper") -> None:
    project.write(f"{name}.wasm", guests.compiled({"upper": guests.UPPER, "echo": guests.ECHO}[name]))


def test_map_needs_no_yaml(project: BatchProject) -> None:
    wasm(project)
    done = project.ok("map", "upper", "--wasm", "upper.wasm", "--input", "in.jsonl", "--output", "out.jsonl.gz")
    assert "upper: version 1\n" in done.err
    assert (
        subprocess.run(["gunzip"], input=project.data("out.jsonl.gz"), capture_output=True).stdout
        == project.data("in.jsonl").upper()
    )
    assert not (project.folder / "jobs.yaml").exists()
    (row,) = project.ok("map", "upper@1", "-i", "in.jsonl", "-o", "out.jsonl", "--isolation", "chunk", "--json").rows
    assert (row["job"], row["records_out"]) == ("upper", 3000)


def test_map_in_a_pipe(project: BatchProject) -> None:
    wasm(project)
    done = project.ok("map", "upper", "--wasm", "upper.wasm", "-i", "-", "-o", "-", "-q", input=b"a\nb")
    assert (done.out, done.err) == (b"A\nB\n", "")


def test_map_from_and_to_tables(project: BatchProject) -> None:
    wasm(project, "echo")
    project.write("in.jsonl", b'{"id": 1, "name": "a"}\n{"id": 2}\n')
    project.ok("map", "echo", "--wasm", "echo.wasm", "-i", "in.jsonl", "-o", "{path: shop.db, table: names}")
    with closing(sqlite3.connect(project.folder / "shop.db")) as connection:
        assert connection.execute("SELECT * FROM names").fetchall() == [(1, "a"), (2, None)]
    query = "{path: shop.db, query: 'SELECT id FROM names ORDER BY id DESC'}"
    assert project.ok("map", "echo", "-i", query, "-o", "-", "-q").out == b'{"id":2}\n{"id":1}\n'


def test_map_writes_rows_of_tables_as_lines(project: BatchProject) -> None:
    pytest.importorskip("pyarrow")
    wasm(project, "echo")
    project.write("in.jsonl", b'{"id": 1}\n{"id": 2}\n')
    project.ok("map", "echo", "--wasm", "echo.wasm", "-i", "in.jsonl", "-o", "names.parquet")
    project.ok("map", "echo", "-i", "in.jsonl", "-o", "{path: names.db, table: names}")
    for source in ("names.parquet", "{path: names.db, table: names}"):
        assert project.ok("map", "echo", "-i", source, "-o", "-", "-q").out == b'{"id":1}\n{"id":2}\n'
    lines = b'{"id":3}\n'
    assert project.ok("map", "echo", "-i", "-", "-o", "three.parquet", "-q", input=lines).status == 0
    assert project.ok("map", "echo", "-i", "three.parquet", "-o", "-", "-q").out == lines
    assert not (project.folder / "-").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("-i", "in.jsonl", "-o", "{path: '-', format: parquet}"), 2, "this format cannot come from stdin or go to"),
        (("-i", "-", "--input-format", "parquet", "-o", "o.jsonl"), 2, "this format cannot come from stdin or go to"),
        (("-i", "in.xyz", "-o", "-"), 2, "--input in.xyz: its ending tells no format; give --input-format, one of"),
        (("-i", "in.jsonl", "-o", "out.xyz"), 2, "--output out.xyz: its ending tells no format; give --output-format"),
        (("-i", "{path: in.jsonl, sort: up}", "-o", "-"), 2, "--input:1:24 sort: expected one of 'name', 'modified'"),
        (("-i", "{path: a.db}", "-o", "-"), 2, "one of 'table' or 'query' is required"),
        (("-i", "nothing*.jsonl", "-o", "-"), 3, "no file matches nothing*.jsonl"),
        (("-i", "in.jsonl", "-o", "in.jsonl"), 2, "in.jsonl is the output and among the input as well"),
        (("-i", "in.jsonl", "-o", "-", "--on-error", "quarantine"), 2, "say where quarantined records go"),
        (("-i", "in.jsonl", "-o", "-", "--wasm", "no.wasm"), 3, "there is no module no.wasm"),
    ],
)
def test_what_map_refuses(project: BatchProject, arguments: tuple[str, ...], status: int, told: str) -> None:
    wasm(project)
    project.ok("map", "upper", "--wasm", "upper.wasm", "-i", "in.jsonl", "-o", "first.jsonl")
    done = project.run("map", "upper", *arguments)
    assert told in done.err
    assert done.status == status
    assert "Traceback" not in done.err


def test_the_same_map_goes_on(project: BatchProject) -> None:
    wasm(project)
    project.write("in.txt", b"line\n" * 100 + b"x" * 2_000_000)
    arguments = ("map", "upper", "--wasm", "upper.wasm", "-i", "{path: in.txt}", "-o", "out.txt", "--every", "10")
    project.ok(*arguments)
    assert project.data("out.txt") == project.data("in.txt").upper() + b"\n"


# backfill

DAILY = (
    'input: {path: "in/{partition:%Y-%m}/{partition}.jsonl"}, output: {path: "out/{partition}.jsonl"}, '
    "partitions: {by: day}"
)


def statuses(done: Done) -> dict[str, str]:
    return {row["partition"]: row["status"] for row in done.rows}


def test_a_backfill_runs_what_is_missing(project: BatchProject) -> None:
    project.declare_batch(DAILY, function="picky")
    for day in ("01", "02", "04"):
        project.write(f"in/2026-11/2026-11-{day}.jsonl", b'"!"\n' if day == "02" else json_lines(10))
    span = ("--from", "2026-11-01", "--to", "2026-11-04", "--json")
    assert set(statuses(project.run("backfill", "b", *span, "--list")).values()) == {"missing"}
    done = project.run("backfill", "b", *span)
    assert done.status == 1
    assert statuses(done) == {
        **{"2026-11-01": "succeeded", "2026-11-02": "failed", "2026-11-03": "failed", "2026-11-04": "succeeded"}
    }
    assert list(done.rows[0]) == [
        *("job", "partition", "status", "finished_at", "records_in", "records_out", "records_failed", "message"),
    ]
    assert "2026-11-02.jsonl:1 (byte 0): trapped" in done.rows[1]["message"]
    project.write("in/2026-11/2026-11-02.jsonl", json_lines(5))
    project.write("in/2026-11/2026-11-03.jsonl", json_lines(6))
    (project.folder / "out/2026-11-04.jsonl").unlink()
    assert statuses(project.run("backfill", "b", *span, "--list"))["2026-11-04"] == "missing"
    assert project.run("backfill", "b", *span, "--only", "failed").status == 0
    assert not (project.folder / "out/2026-11-04.jsonl").exists()
    assert set(statuses(project.ok("backfill", "b", *span)).values()) == {"succeeded"}
    assert project.data("out/2026-11-03.jsonl") == json_lines(6)
    table = project.ok("backfill", "b", "--from", "2026-11-04", "--to", "2026-11-04", "--list").text
    assert re.search(r"^2026-11-04  succeeded  10   10 ", table, re.MULTILINE)


def test_partitions_by_file_and_by_value(project: BatchProject) -> None:
    for name in ("eu", "us"):
        project.write(f"in/{name}.jsonl", json_lines(3))
    project.declare_batch(
        'input: {path: "in/*.jsonl"}, output: {path: "out/{partition}.jsonl"}, partitions: {by: file}'
    )
    assert [row["partition"] for row in project.ok("batch", "b", "--json").rows] == ["eu", "us"]
    assert sorted(path.name for path in (project.folder / "out").iterdir()) == ["eu.jsonl", "us.jsonl"]
    project.declare_batch(
        'input: {path: "in/{partition}.jsonl"}, output: {path: "by/{partition}.jsonl"}, '
        "partitions: {by: value, values: [eu, us, '2026', eu.west-1]}"
    )
    (row,) = project.ok("batch", "b", "--json", "--partition", "us").rows
    assert (row["partition"], row["output"]) == ("us", "by/us.jsonl")
    done = project.run("batch", "b", "--partition", "asia")
    assert "b has no partition 'asia'; there are eu, us, 2026, eu.west-1" in done.err


@pytest.mark.parametrize("command", ["batch", "run"])
def test_a_partition_that_fails_does_not_keep_the_others_from_running(project: BatchProject, command: str) -> None:
    for name in ("a", "b", "c", "d"):
        project.write(f"in/{name}.jsonl", b'"!"\n' if name in ("b", "c") else json_lines(3))
    parts = 'input: {path: "in/*.jsonl"}, output: {path: "out/{partition}.jsonl"}, partitions: {by: file}'
    more = f"  last:\n    batch: {{function: picky, {parts.replace('out/', 'last/')}}}\n"
    project.declare_batch(parts, function="picky", more=more)
    done = project.run(command, "b", "last")
    assert done.status == 1
    assert sorted(path.name for path in (project.folder / "out").glob("*.jsonl")) == ["a.jsonl", "d.jsonl"]
    assert not (project.folder / "last").exists()
    if command == "batch":
        assert "not begun: last" in done.err
        rows = project.run("batch", "b", "--json").rows
        assert [row["status"] for row in rows] == ["succeeded", "failed", "failed", "succeeded"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "2026-13-01"), "'2026-13-01' is no day; write it like 2026-11-25"),
        (("--from", "2026-11-05", "--to", "2026-11-04"), "--to 2026-11-04 is before --from 2026-11-05"),
        ((), "say from which day on: --from "),
    ],
)
def test_what_backfill_refuses(project: BatchProject, arguments: tuple[str, ...], told: str) -> None:
    project.declare_batch(DAILY)
    done = project.run("backfill", "b", *arguments)
    assert done.status == 2
    assert told in done.err


def test_a_batch_without_partitions_has_none_to_fill(project: BatchProject) -> None:
    project.declare_batch(PLAIN)
    assert "job 'b' has no partitions" in project.run("backfill", "b", "--list").err
