"""What the benchmarks share: functions to run, rounds, processes, tables. Prints figures, judges nothing."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from runner.contracts import FunctionExecutor, Host
from runner.models import Function, InvocationContext
from runner.plugins import load
from runner.wasm import content_id

Row = Mapping[str, float | str]
"""A line of a table: column names with their unit, as they are in JSON, and figures."""
Call = Callable[[], object]

median = statistics.median


def make_executor(name: str, modules: Sequence[bytes], state_dir: Path) -> FunctionExecutor | None:
    """The executor of that name over these modules, or None, with the reason printed."""
    provider = load(no_plugins=True).catalogue.executors[name]
    available = provider.available()
    if not available.ok:
        print(f"{name}: skipped: {available.reason}")
        return None
    by_cid = {content_id(module): module for module in modules}
    host = Host(project_dir=state_dir, state_dir=state_dir, get_wasm_bytes=by_cid.__getitem__)
    executor: FunctionExecutor = provider.create(provider.settings() if provider.settings else None, host)
    return executor


def function_of(module: bytes, *, timeout_seconds: float = 10) -> tuple[Function, InvocationContext]:
    """A function with this module, and a context for it."""
    now = datetime.now(timezone.utc)
    function = Function(
        id="bench",
        name="bench",
        namespace="bench",
        version=1,
        wasm_cid=content_id(module),
        created_at=now,
        updated_at=now,
        timeout_seconds=timeout_seconds,
    )
    context = InvocationContext(request_id="bench", function_id="bench", function_name="bench", namespace="bench")
    return function, context


def in_rounds(rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each measure once a round, in turn, so that a machine that changes its speed changes it for all."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def rate(count: int, work: Call) -> float:
    """How many a second, if `work` does so many."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def durations(calls: Sequence[Call]) -> list[float]:
    """Seconds that each call took, sorted."""
    taken = []
    for call in calls:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return sorted(taken)


def in_processes(processes: int, count: int, make: Callable[..., Call], *arguments: object) -> tuple[float, float]:
    """Calls a second of so many processes, and the median call in microseconds.

    Each process gets its call from `make(*arguments)`, warms it up, and makes it `count` times.
    """
    context = multiprocessing.get_context("fork")
    barrier, medians = context.Barrier(processes + 1), context.SimpleQueue()
    started = [
        context.Process(target=_process, args=(barrier, medians, count, make, arguments)) for _ in range(processes)
    ]
    for process in started:
        process.start()
    barrier.wait(60)
    begun = time.perf_counter()
    for process in started:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process of {make.__name__} failed")
    elapsed = time.perf_counter() - begun
    return count * processes / elapsed, median([medians.get() for _ in started]) * 1e6


def _process(barrier: Any, medians: Any, count: int, make: Callable[..., Call], arguments: Sequence[object]) -> None:
    call = make(*arguments)
    for _ in range(count // 10):
        call()
    barrier.wait(60)
    medians.put(median(durations([call] * count)))


def wants_json(description: str | None, *more: str) -> argparse.Namespace:
    """The command line: `--json`, and positional arguments of these names, each any number of times."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    for name in more:
        parser.add_argument(name, nargs="*")
    return parser.parse_args()


def show(title: str, rows: Sequence[Row], *, as_json: bool) -> None:
    """A table in Markdown, or JSON lines with the title as `table`."""
    if as_json:
        for row in rows:
            print(json.dumps({"table": title, **row, "load": round(os.getloadavg()[0], 1)}))
        return
    print(f"\n{title}; {machine()}\n")
    head = [name.replace("_", " ") for name in rows[0]]
    lines = [[_shown(figure) for figure in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, ["-" * width for width in widths], *lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _shown(figure: float | str) -> str:
    if isinstance(figure, str):
        return figure
    if isinstance(figure, int):
        return f"{figure:,}"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def machine() -> str:
    """Cores and load, which every figure depends on."""
    return f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}"
