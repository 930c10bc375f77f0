"""Records a second of whole batches, from file to published file: `python benchmarks/batch.py`.

200,000 JSON lines of about 200 bytes through a function that upper-cases, with 2 workers: each record in
fresh memory, and in chunks. Beside ours, in the same run and in turn: Python in two processes, which
isolates nothing, wasmtime-py with an instance a record, DuckDB and Dask where they are installed.
Checkpoints are on, every 5000 records.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.guests import COMMAND, REACTOR
from benchmarks.measure import Row, in_rounds, median, show, wants_json
from runner.app import Runner
from runner.batch.jobs import run_batch
from runner.plugins import load

RECORDS = 200_000
WASMTIME_RECORDS = 4_000
WORKERS = 2
ROUNDS = 3
JOBS = """version: 1
defaults: {{executor: {executor}}}
functions:
  wasi: {{wasm: wasi.wasm}}
  reactor: {{wasm: reactor.wasm}}
jobs:
  record_wasi: {{batch: {{function: wasi, {ends}}}}}
  record_reactor: {{batch: {{function: reactor, {ends}}}}}
  chunk_wasi: {{batch: {{function: wasi, isolation: chunk, {ends}}}}}
  gzip_wasi: {{batch: {{function: wasi, isolation: chunk, input: {{path: in.jsonl}}, output: {{path: out.jsonl.gz}}}}}}
"""
ENDS = "input: {path: in.jsonl}, output: {path: out.jsonl}, workers: 2"
KINDS = {
    "record_wasi": "isolation record, WASI",
    "record_reactor": "isolation record, reactor",
    "chunk_wasi": "isolation chunk, WASI",
    "gzip_wasi": "isolation chunk, WASI, to gzip",
}


def make_input(path: Path) -> None:
    """JSON lines of 200 bytes or so, all different."""
    with path.open("w") as file:
        for number in range(RECORDS):
            record = {
                "id": number,
                "name": f"customer {number}",
                "note": "x" * (80 + number % 101),
                "amount": number / 8,
            }
            file.write(json.dumps(record) + "\n")


def ours(runner: Runner, job: str, cost: list[float]) -> float:
    """Records a second of one job; the app's own seconds of CPU for each record are added to `cost`."""
    configured = runner.config.job(job)
    function = runner.register(configured.functions[0]).function
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    report = run_batch(runner, configured, function, tell=lambda _: None)
    elapsed = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    if report.error is not None or report.counts.records_out != RECORDS:
        raise SystemExit(f"{job}: {report.error or report.counts}")
    cost.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / RECORDS)
    return RECORDS / elapsed


def _halves(path: Path) -> Iterator[tuple[int, int]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size // 2)
        file.readline()
        middle = file.tell()
    yield 0, middle
    yield middle, size


def _python(source: Path, target: Path, work: str, part: tuple[int, int]) -> None:
    start, end = part
    with source.open("rb") as lines, target.with_name(f"{target.name}-{start}").open("wb") as out:
        lines.seek(start)
        for line in lines.read(end - start).splitlines(keepends=True):
            out.write(json.dumps(json.loads(line)).upper().encode() + b"\n" if work == "json" else line.upper())


def python_processes(source: Path, target: Path, work: str) -> float:
    """Records a second of plain Python in two processes, each with half of the file."""
    context = multiprocessing.get_context("fork")
    started = time.perf_counter()
    processes = [context.Process(target=_python, args=(source, target, work, part)) for part in _halves(source)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return RECORDS / (time.perf_counter() - started)


def _wasmtime(source: Path, count: int, start: int) -> None:
    import wasmtime

    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, REACTOR)
    with source.open("rb") as lines:
        for _ in range(start):
            lines.readline()
        for _ in range(count):
            line = lines.readline().rstrip(b"\n")
            store = wasmtime.Store(engine)
            exports = wasmtime.Instance(store, module, []).exports(store)
            memory, pointer = exports["memory"], exports["malloc"](store, len(line))  # type: ignore[operator]
            memory.write(store, line, pointer)  # type: ignore[union-attr]
            packed = exports["handle"](store, pointer, len(line))  # type: ignore[operator]
            memory.read(store, packed & 0xFFFFFFFF, (packed & 0xFFFFFFFF) + (packed >> 32))  # type: ignore[union-attr]


def wasmtime_processes(source: Path) -> float:
    """Records a second of wasmtime-py in two processes, an instance a record."""
    context = multiprocessing.get_context("fork")
    each = WASMTIME_RECORDS // 2
    started = time.perf_counter()
    processes = [context.Process(target=_wasmtime, args=(source, each, start)) for start in (0, each)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return WASMTIME_RECORDS / (time.perf_counter() - started)


def duckdb(source: Path, target: Path) -> float:
    """Records a second of DuckDB, reading, upper-casing and writing lines."""
    module = importlib.import_module("duckdb")
    started = time.perf_counter()
    with module.connect() as connection:
        connection.execute("SET threads TO 2")
        read = f"read_csv('{source}', columns={{'l': 'VARCHAR'}}, header=false, delim='\\x01', quote='', escape='')"
        connection.execute(
            f"COPY (SELECT upper(l) FROM {read}) TO '{target}' (HEADER false, QUOTE '', DELIMITER '\\x01')"
        )
    return RECORDS / (time.perf_counter() - started)


def dask(source: Path, target: Path) -> float:
    """Records a second of a Dask bag on two processes."""
    bag = importlib.import_module("dask.bag")
    started = time.perf_counter()
    lines = bag.read_text(str(source), blocksize="4MiB").map(str.upper)
    lines.to_textfiles(str(target.with_name("dask-*.txt")), scheduler="processes", num_workers=2)
    return RECORDS / (time.perf_counter() - started)


def peers(source: Path, target: Path) -> dict[str, Callable[[], float]]:
    """Every peer that is here; one that is not is told of."""
    found: dict[str, Callable[[], float]] = {
        "python_upper": partial(python_processes, source, target, "upper"),
        "python_json": partial(python_processes, source, target, "json"),
        "wasmtime_py": partial(wasmtime_processes, source),
    }
    for name, measure in (("duckdb", duckdb), ("dask", dask)):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: skipped: not installed")
        else:
            found[name] = partial(measure, source, target)
    return found


def main() -> None:
    """Measure all, in rounds."""
    wanted = wants_json(__doc__, "executor")
    executor = (wanted.executor or ["wasmer"])[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_input(folder / "in.jsonl")
        (folder / "wasi.wasm").write_bytes(COMMAND)
        (folder / "reactor.wasm").write_bytes(REACTOR)
        (folder / "jobs.yaml").write_text(JOBS.format(executor=executor, ends=ENDS))
        with Runner.open(folder / "jobs.yaml", load(no_plugins=True), notify=lambda _: None) as runner:
            costs: dict[str, list[float]] = {job: [] for job in KINDS}
            own: dict[str, Callable[[], float]] = {job: partial(ours, runner, job, costs[job]) for job in KINDS}
            others = peers(folder / "in.jsonl", folder / "peer.txt")
            for job in KINDS:
                ours(runner, job, [])
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
    show(f"{executor}, {RECORDS:,} records, {WORKERS} workers", rows, as_json=wanted.json)
    show("beside", [{"peer": peer, "records_per_second": figures[peer]} for peer in others], as_json=wanted.json)


if __name__ == "__main__":
    main()
