"""What others make of the lines of benchmarks/batch.py: each reads them, upper-cases them and writes them."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.guests import REACTOR

WASMTIME_RECORDS = 4_000
"""It is slow enough for few to tell."""


def peers(source: Path, target: Path, records: int) -> dict[str, Callable[[], float]]:
    """Every peer that is here, which tells how many records a second it did; one that is not is told of."""
    named: dict[str, Callable[[], None]] = {
        "python_upper": partial(_python, source, target, "upper"),
        "duckdb": partial(_duckdb, source, target),
        "dask": partial(_dask, source, target),
    }
    with source.open("rb") as lines:
        if lines.readline().startswith(b"{"):
            named["python_json"] = partial(_python, source, target, "json")
    found: dict[str, Callable[[], float]] = {
        "wasmtime_py": partial(_rate, partial(_wasmtime, source), min(records, WASMTIME_RECORDS))
    }
    for name, work in named.items():
        if name in ("duckdb", "dask") and importlib.util.find_spec(name) is None:
            print(f"{name}: skipped: not installed")
        else:
            found[name] = partial(_rate, work, records)
    return found


def _rate(work: Callable[[], None], records: int) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return records / (time.perf_counter() - started)


def _in_two_processes(target: Callable[..., None], *parts: tuple[object, ...]) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=part) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def _python(source: Path, target: Path, work: str) -> None:
    """Plain Python in two processes, each with half of the file: nothing is isolated."""
    _in_two_processes(_python_part, *((source, target, work, part) for part in _halves(source)))


def _halves(path: Path) -> Iterator[tuple[int, int]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size // 2)
        file.readline()
        middle = file.tell()
    yield 0, middle
    yield middle, size


def _python_part(source: Path, target: Path, work: str, part: tuple[int, int]) -> None:
    start, end = part
    with source.open("rb") as lines, target.with_name(f"{target.name}-{start}").open("wb") as out:
        lines.seek(start)
        for line in lines.read(end - start).splitlines(keepends=True):
            out.write(json.dumps(json.loads(line)).upper().encode() + b"\n" if work == "json" else line.upper())


def _wasmtime(source: Path) -> None:
    """wasmtime-py in two processes: an instance a record, as its documents show it."""
    each = WASMTIME_RECORDS // 2
    _in_two_processes(_wasmtime_part, (source, each, 0), (source, each, each))


def _wasmtime_part(source: Path, count: int, start: int) -> None:
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


def _duckdb(source: Path, target: Path) -> None:
    """DuckDB on two threads."""
    with importlib.import_module("duckdb").connect() as connection:
        connection.execute("SET threads TO 2")
        read = f"read_csv('{source}', columns={{'l': 'VARCHAR'}}, header=false, delim='\\x01', quote='', escape='')"
        connection.execute(
            f"COPY (SELECT upper(l) FROM {read}) TO '{target}' (HEADER false, QUOTE '', DELIMITER '\\x01')"
        )


def _dask(source: Path, target: Path) -> None:
    """A Dask bag on two processes."""
    lines = importlib.import_module("dask.bag").read_text(str(source), blocksize="4MiB").map(str.upper)
    lines.to_textfiles(str(target.with_name("dask-*.txt")), scheduler="processes", num_workers=2)
