"""Records a second of whole batches, from file to published file: `python benchmarks/batch.py`.

Lines through a function that upper-cases, with 2 workers: each record in fresh memory, and in chunks. They
are 200,000 JSON records of about 200 bytes, and 336,776 flights of about 90, made of those in
examples/flights. Beside ours, in the same run and in turn: Python in two processes, which isolates nothing,
wasmtime-py with an instance a record, DuckDB and Dask where they are installed. Checkpoints are on, every
5,000 records. At last the peak memory of the whole command, with one and with ten times the input.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.batch_peers import peers
from benchmarks.guests import COMMAND, REACTOR
from benchmarks.measure import Row, in_rounds, median, show, wants_json
from runner.app import Runner
from runner.batch.jobs import run_batch
from runner.plugins import load

RECORDS = 200_000
FLIGHTS = 336_776
"""As many as left New York in 2013."""
EXAMPLE = Path(__file__).parent.parent / "examples/flights/january.csv"
ROUNDS = 5
JOBS = """version: 1
defaults: {{executor: {executor}}}
functions:
  wasi: {{wasm: wasi.wasm}}
  reactor: {{wasm: reactor.wasm}}
jobs:
  record_wasi: {{batch: {{function: wasi, {input}, {output}}}}}
  record_reactor: {{batch: {{function: reactor, {input}, {output}}}}}
  chunk_wasi: {{batch: {{function: wasi, isolation: chunk, {input}, {output}}}}}
  gzip_wasi: {{batch: {{function: wasi, isolation: chunk, {input}, output: {{path: out.txt.gz, format: lines}}}}}}
"""
ENDS = {"input": "input: {path: in.txt, format: lines}", "output": "output: {path: out.txt, format: lines}, workers: 2"}
KINDS = {
    "record_wasi": "isolation record, WASI",
    "record_reactor": "isolation record, reactor",
    "chunk_wasi": "isolation chunk, WASI",
    "gzip_wasi": "isolation chunk, WASI, to gzip",
}

WAIT = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small process between: a new one counts as large as the one that it was started by."""


def make_records(path: Path, count: int) -> None:
    """JSON lines of 200 bytes or so, all different."""
    with path.open("w") as file:
        for number in range(count):
            note = "x" * (80 + number % 101)
            record = {"id": number, "name": f"customer {number}", "note": note, "amount": number / 8}
            file.write(json.dumps(record) + "\n")


def make_flights(path: Path, count: int) -> None:
    """Flights of January, again and again."""
    flights = EXAMPLE.read_bytes().splitlines(keepends=True)[1:]
    with path.open("wb") as file:
        file.writelines(itertools.islice(itertools.cycle(flights), count))


def make_project(folder: Path, executor: str) -> Path:
    """A project with one job of each kind; its jobs.yaml."""
    (folder / "wasi.wasm").write_bytes(COMMAND)
    (folder / "reactor.wasm").write_bytes(REACTOR)
    (folder / "jobs.yaml").write_text(JOBS.format(executor=executor, **ENDS))
    return folder / "jobs.yaml"


def ours(runner: Runner, job: str, records: int, cost: list[float]) -> float:
    """Records a second of one job; the app's own seconds of CPU for each record are added to `cost`."""
    configured = runner.config.job(job)
    function = runner.register(configured.functions[0]).function
    os.sync()  # whoever ran before may not have waited for the disk
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    report = run_batch(runner, configured, function, tell=lambda _: None)
    elapsed = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    if report.error is not None or report.counts.records_out != records:
        raise SystemExit(f"{job}: {report.error or report.counts}")
    cost.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / records)
    return records / elapsed


def speed(name: str, make: Callable[[Path, int], None], records: int, executor: str, *, as_json: bool) -> None:
    """Every kind of batch over one input, and the peers beside it."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), executor)
        make(Path(folder) / "in.txt", records)
        others = peers(Path(folder) / "in.txt", Path(folder) / "peer.txt", records)
        costs: dict[str, list[float]] = {job: [] for job in KINDS}
        with Runner.open(project, load(no_plugins=True), notify=lambda _: None) as runner:
            own: dict[str, Callable[[], float]] = {
                job: partial(ours, runner, job, records, costs[job]) for job in KINDS
            }
            for job in KINDS:
                ours(runner, job, records, [])
            figures = {key: median(values) for key, values in in_rounds(ROUNDS, {**own, **others}).items()}
    rows: list[Row] = [
        {
            "batch": KINDS[job],
            "records_per_second": figures[job],
            "app_us_per_record": median(costs[job]) * 1e6,
            **{f"by_{peer}": figures[job] / figures[peer] for peer in others},
        }
        for job in KINDS
    ]
    show(f"{executor}, {records:,} {name}, 2 workers", rows, as_json=as_json)
    beside: list[Row] = [{"peer": peer, "records_per_second": figures[peer]} for peer in others]
    show(f"beside, {name}", beside, as_json=as_json)


def peak_mb(project: Path, job: str) -> float:
    """The peak memory of the largest process of `runner batch JOB`."""
    command = [sys.executable, "-m", "runner", "batch", job, "--file", str(project), "--quiet", "--restart"]
    ran = subprocess.run([sys.executable, "-c", WAIT, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{job}: {ran.stderr}")
    return int(ran.stdout) / 1024


def memory(executor: str, *, as_json: bool) -> None:
    """The same batch over one and ten times the records."""
    rows: list[dict[str, float | str]] = [{"batch": KINDS[job]} for job in ("record_wasi", "chunk_wasi")]
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), executor)
        make_records(Path(folder) / "in.txt", 1)
        peak_mb(project, "record_wasi")  # compiling takes more than running
        for times in (1, 10):
            make_records(Path(folder) / "in.txt", RECORDS * times)
            for row, job in zip(rows, ("record_wasi", "chunk_wasi"), strict=True):
                row[f"peak_mb_{RECORDS * times:,}"] = peak_mb(project, job)
    show("Peak memory of the largest process, by records", rows, as_json=as_json)


def main() -> None:
    """Measure all, in rounds."""
    wanted = wants_json(__doc__, "executor")
    executor = (wanted.executor or ["wasmer"])[0]
    speed("records", make_records, RECORDS, executor, as_json=wanted.json)
    speed("flights", make_flights, FLIGHTS, executor, as_json=wanted.json)
    memory(executor, as_json=wanted.json)


if __name__ == "__main__":
    main()
