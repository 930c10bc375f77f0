"""What the benchmarks share: functions to run with, rounds, tables. Prints figures, judges nothing."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from runner.contracts import FunctionExecutor, Host
from runner.models import Function, InvocationContext
from runner.plugins import load
from runner.wasm import content_id


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


def in_rounds(rounds: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Each measure once a round, in turn, so that a machine that changes its speed changes it for all."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown, aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def describe_machine() -> str:
    """Cores and load, which every figure depends on."""
    load_average = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} cores, load {load_average:.1f} at the start"
