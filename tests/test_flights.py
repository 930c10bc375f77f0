"""The demo, end to end: its figures are those that Python's own csv module gives."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
from runner_builders.settings import ZigSettings
from runner_builders.zig import ZigBuilder

from runner.contracts import Host

ROOT = Path(__file__).parent.parent
FLIGHTS = ROOT / "examples" / "flights"
NAMES = ("clean", "split", "count", "merge", "report", "chart")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of `runner run` on the shipped jobs.yaml, in a copy of the project's demo."""
    project = tmp_path_factory.mktemp("demo")
    (project / "jobs.yaml").write_text((ROOT / "jobs.yaml").read_text())
    (project / "examples").symlink_to(ROOT / "examples")
    _run(project, "run")
    return project / "out"


def _run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_its_own_tests_pass(out: Path) -> None:
    assert "passed" in _run(out.parent, "test").stdout


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _minutes(clock: str) -> int:
    return int(clock) // 100 * 60 + int(clock) % 100


def _is_bad(row: dict[str, str]) -> bool:
    return row["dep_time"] != "NA" and row["arr_delay"] == "NA"


def _good(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if not _is_bad(row)]


def test_clean_keeps_every_flight_that_holds_together(out: Path) -> None:
    expected = [
        {
            "date": f"{int(row['year']):04}-{int(row['month']):02}-{int(row['day']):02}",
            "hour": row["hour"],
            **{key: row[key] for key in ("carrier", "flight", "origin", "dest", "distance")},
            "dep_delay": "" if row["dep_time"] == "NA" else row["dep_delay"],
            "status": "cancelled" if row["dep_time"] == "NA" else "flown",
        }
        for row in _good(_rows(FLIGHTS / "january.csv"))
    ]
    assert len(expected) == 26_919
    assert _rows(out / "clean.csv") == expected


def test_the_bad_rows_are_put_aside_with_their_reasons(out: Path) -> None:
    rows = _rows(FLIGHTS / "january.csv")
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [entry["record"] for entry in rejected] == [line for line, row in enumerate(rows, 2) if _is_bad(row)]
    assert {entry["stderr_tail"].partition(": ")[2] for entry in rejected} == {"it took off and has no arrival\n"}


def test_a_second_run_takes_what_is_known(out: Path) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = _run(out.parent, "run", "--json")
    (report,) = (json.loads(line) for line in done.stdout.splitlines())
    assert report["status"] == "succeeded"
    assert "was not run again" in _run(out.parent, "why", _newest_merge(out)).stdout
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def _percentile(delays: list[int], percent: int) -> int:
    return sorted(delays)[(len(delays) * percent + 99) // 100 - 1]


def _tenths(value: int, count: int) -> str:
    tenths = (value * 20 + count) // (2 * count)
    return f"{'-' if tenths < 0 else ''}{abs(tenths) // 10}.{abs(tenths) % 10}"


def _statistics(out: Path) -> list[dict[str, str]]:
    """What the step `merge` of the newest run came to."""
    return list(csv.DictReader(io.StringIO(_run(out.parent, "runs", "show", _newest_merge(out), "--output").stdout)))


def _newest_merge(out: Path) -> str:
    rows = [line.split() for line in _run(out.parent, "runs", "list", "--steps").stdout.splitlines()]
    return next(row[0] for row in rows if row[1] == "flights/merge")


def test_the_statistics_are_those_of_the_raw_file(out: Path) -> None:
    groups: dict[tuple[str, str], list[int | None]] = defaultdict(list)
    for row in _good(_rows(FLIGHTS / "january.csv")):
        delay = None if row["dep_time"] == "NA" else int(row["dep_delay"])
        hour = f"{int(row['hour']):02}"
        for group, key in (("carrier", row["carrier"]), ("hour", hour), ("origin", row["origin"]), ("total", "all")):
            groups[group, key].append(delay)
    expected = []
    for (group, key), all_delays in sorted(groups.items()):
        delays = [delay for delay in all_delays if delay is not None]
        expected.append(
            {
                "group": group,
                "key": key,
                "flights": str(len(all_delays)),
                "cancelled": str(len(all_delays) - len(delays)),
                "mean_delay": _tenths(sum(delays), len(delays)),
                "median_delay": str(_percentile(delays, 50)),
                "p90_delay": str(_percentile(delays, 90)),
                "late_percent": _tenths(100 * sum(delay > 15 for delay in delays), len(delays)),
            }
        )
    assert _statistics(out) == expected


def test_the_report_and_the_chart_show_those_figures(out: Path) -> None:
    total = _statistics(out)[-1]
    report = (out / "report.md").read_text()
    assert "26,919 flights were scheduled and 521 of them cancelled" in report
    assert f"{total['late_percent']} % were more than a quarter of an hour late" in report
    chart = ElementTree.parse(out / "chart.svg")
    words = "".join(chart.getroot().itertext())
    assert f"all: {total['late_percent']} %" in words
    assert "ExpressJet" in words


@pytest.mark.parametrize(
    ("job", "old", "new", "message"),
    [
        (
            "clean",
            b"2013,1,1,517,515,2,",
            b"2013,1,1,517,515,3,",
            b"flight UA 1545: its delay does not follow from its times",
        ),
        ("clean", b"2013,1,1,517,515,2,", b"2013,13,1,517,515,2,", b"flight UA 1545: no such date"),
        ("clean", b",UA,1545,", b',"U\nA",1545,', b"no such flight"),
        ("clean", b"year,", b"jahr,", b"header must be year,month"),
    ],
)
def test_a_bad_row_ends_it_with_the_reason(tmp_path: Path, job: str, old: bytes, new: bytes, message: bytes) -> None:
    data = (FLIGHTS / "january.csv").read_bytes().replace(old, new, 1)
    (tmp_path / "input.csv").write_bytes(data)
    (tmp_path / "jobs.yaml").write_text(f"version: 1\nfunctions: {{{job}: {{wasm: '{FLIGHTS / job}.wasm'}}}}\n")
    command = [sys.executable, "-m", "runner", "invoke", job, "--input", "input.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_gives_the_committed_module(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.getbasetemp() / "flights-build"
    state.mkdir(exist_ok=True)
    host = Host(project_dir=FLIGHTS, state_dir=state, get_wasm_bytes=lambda _: b"")
    built = ZigBuilder(ZigSettings(), host).build(Path(f"{name}.c"))
    assert built == (FLIGHTS / f"{name}.wasm").read_bytes()
