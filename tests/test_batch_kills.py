"""Batches that are killed at any byte and started again: the output is that of one that never was."""

from __future__ import annotations

import gzip
import json
import re
import time
from functools import partial
from pathlib import Path

import pytest

from tests.batch_project import BatchProject, json_lines, size_of, sizes

pytestmark = pytest.mark.slow

RECORDS = 12_000
FORMS = {
    "records": ("input: {path: in.jsonl}, output: {path: out.jsonl}, checkpoint: {every: 300}", "out.jsonl"),
    "chunks": (
        "input: {path: in.jsonl}, output: {path: out.jsonl}, isolation: chunk, chunk: {kb: 4}, checkpoint: {every: 50}",
        "out.jsonl",
    ),
    "gzip": ("input: {path: 'in*.jsonl.gz'}, output: {path: out.jsonl.gz}, checkpoint: {every: 700}", "out.jsonl.gz"),
    "csv": ("input: {path: 'in*.csv'}, output: {path: out.csv}, checkpoint: {every: 500}", "out.csv"),
    "quarantine": (
        "input: {path: bad.jsonl}, output: {path: out.jsonl}, checkpoint: {every: 300}, on_error: quarantine",
        "out.jsonl",
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    project = BatchProject(tmp_path)
    data = json_lines(RECORDS)
    lines = data.splitlines(keepends=True)
    project.write("in.jsonl", data)
    project.write("in-1.jsonl.gz", gzip.compress(data[: len(data) // 3 * 2]))
    project.write("in-2.jsonl.gz", gzip.compress(data[len(data) // 3 * 2 :]))
    rows = [b'%d,"name, %d\nof two lines",%s\n' % (number, number, b"y" * (number % 50)) for number in range(RECORDS)]
    project.write("in-1.csv", b"id,name,pad\n" + b"".join(rows[:4000]))
    project.write("in-2.csv", b"id,name,pad\n" + b"".join(rows[4000:]))
    bad = [b"!" + line if number % 997 == 3 else line for number, line in enumerate(lines)]
    project.write("bad.jsonl", b"".join(bad))
    return project


def entries(quarantine: Path) -> list[dict[str, object]]:
    """What a quarantine has, but for what tells of one attempt only."""
    found = [json.loads(line) for line in quarantine.read_text().splitlines()]
    for entry in found:
        assert entry.pop("recording")["function"] == "picky"
    return found


def reaches(file: Path, size: int) -> bool:
    return size_of(file) >= size


def is_past(moment: float) -> bool:
    return time.monotonic() > moment


@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", FORMS)
def test_killed_anywhere_the_output_is_the_same(project: BatchProject, form: str) -> None:
    keys, output = FORMS[form]
    project.declare_batch(keys, function="picky")
    whole = project.batch()
    assert whole.status == 0, whole.err
    expected, rejects = project.data(output), project.folder / f"{output}.rejected.jsonl"
    quarantined = entries(rejects) if rejects.exists() else None
    killed = 0
    for at in sizes(expected, 3):
        (project.folder / output).unlink()
        rejects.unlink(missing_ok=True)
        growing = project.folder / f"{output}.partial"
        for place in (at // 2, at):
            killed += project.killed_when(partial(reaches, growing, place))
            assert not (project.folder / output).exists() or project.data(output) == expected
        report = project.batch()
        assert report.status == 0, report.err
        assert project.data(output) == expected
        assert quarantined is None or entries(rejects) == quarantined
        assert not growing.exists()
    assert killed >= 3


@pytest.mark.timeout(600)
def test_killed_at_random_moments(project: BatchProject) -> None:
    """Publishing, too: whatever the moment, the output is not there, or whole."""
    project.declare_batch("input: {path: in.jsonl}, output: {path: out/deep/out.jsonl}, checkpoint: {every: 100}")
    expected = project.data("in.jsonl").upper()
    output = project.folder / "out/deep/out.jsonl"
    begun = time.monotonic()
    assert project.batch().status == 0
    whole_seconds = time.monotonic() - begun
    resumed = 0
    for number in range(8):
        output.unlink(missing_ok=True)
        until = time.monotonic() + whole_seconds * (number + 1) / 8
        project.killed_when(partial(is_past, until))
        assert not output.exists() or output.read_bytes() == expected
        done = project.batch()
        resumed += done.rows[0]["records_reused"] > 0
        assert output.read_bytes() == expected
    assert resumed


def test_what_is_left_of_a_killed_run_is_told(project: BatchProject) -> None:
    project.declare_batch("input: {path: in.jsonl}, output: {path: out.jsonl}, checkpoint: {every: 100}")
    checkpoint = project.folder / ".runner/batches/b/_/checkpoint.json"
    assert project.killed_when(checkpoint.exists)
    done = project.run("batch", "b")
    found = re.search(r"b: goes on behind ([\d,]+) records of an interrupted run", done.err)
    assert found, done.err
    reused = int(found.group(1).replace(",", ""))
    assert reused >= 100
    assert f"  reused   {reused:,} that were done before" in done.err
    assert project.data("out.jsonl") == project.data("in.jsonl").upper()
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["last.json", "lock"]
