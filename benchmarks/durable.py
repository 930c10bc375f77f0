"""Durable jobs through a real daemon: `python benchmarks/durable.py`. Huey (`pip install huey`) beside it.

Ours: each job is a WebAssembly function in its own sandbox, accepted when it is on the disk (fsync), with
claim and outcome recorded. Huey on SQLite with fsync: each job is a Python function that does nothing, in
two threads, and its row is deleted when it is taken: what is running when it is killed is lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.guests import COMMAND, INPUT, REACTOR
from benchmarks.measure import Row, in_rounds, median, rate, show, wants_json
from runner.app import Runner
from runner.ledger import RunFilter
from runner.plugins import load

ROUNDS = 3
JOBS = 20_000
PEER_JOBS = 5_000
LATE = 300
FILE = """version: 1
namespace: bench
functions: {upper: {wasm: upper.wasm}}
jobs: {upper: {run: upper}}
"""
PEER = Path(__file__).with_name("huey_peer.py")


@contextlib.contextmanager
def project(module: bytes) -> Iterator[Path]:
    """A folder with one job."""
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        path = Path(folder)
        (path / "upper.wasm").write_bytes(module)
        (path / "jobs.yaml").write_text(FILE)
        yield path


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[None]:
    """A daemon over it, warm."""
    command = [sys.executable, "-m", "runner", "serve", "--file", str(folder / "jobs.yaml"), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with opened(folder) as runner:
            drain(runner, 32)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Runner]:
    """The project in this process."""
    with Runner.open(folder / "jobs.yaml", load(no_plugins=True), notify=lambda _: None) as runner:
        yield runner


def enqueue(runner: Runner, count: int) -> int:
    """Accept so many jobs, a thousand at once; the first run's id."""
    first = 0
    for start in range(0, count, 1000):
        accepted = runner.enqueue("upper", [INPUT] * min(1000, count - start))
        first = first or accepted[0].run_id
    return first


def drain(runner: Runner, count: int) -> float:
    """Enqueue so many, wait until they have succeeded, and tell how many a second from first to last."""
    with runner.store.changes() as changes:
        first = enqueue(runner, count)
        while runner.store.get(first + count - 1).finished_at is None or _live(runner):
            changes.wait(1)
    runs = (
        [runner.store.get(run_id) for run_id in (first, *range(first + count - 512, first + count))]
        if count > 512
        else []
    )
    started = runner.store.attempts(first)[0].started_at
    ended = max((run.finished_at for run in runs if run.finished_at), default=started)
    return count / max((ended - started).total_seconds(), 1e-9)


def _live(runner: Runner) -> bool:
    from runner.runs import RunStatus

    live = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
    return bool(runner.store.list_runs(RunFilter(namespace="bench", statuses=live), limit=1))


def ours(module: bytes) -> float:
    """Jobs a second that a warm daemon drains while they are enqueued."""
    with project(module) as folder, serving(folder), opened(folder) as runner:
        return drain(runner, JOBS)


def ours_enqueue() -> float:
    """Jobs a second accepted, no daemon beside it."""
    with project(COMMAND) as folder, opened(folder) as runner:
        runner.enqueue("upper")
        return rate(JOBS, lambda: enqueue(runner, JOBS))


def ours_late() -> list[float]:
    """Milliseconds from the call of enqueue to the end of the wait for the recorded outcome, one at a time."""
    late = []
    with project(COMMAND) as folder, serving(folder), opened(folder) as runner, runner.store.changes() as changes:
        for _ in range(LATE):
            time.sleep(0.005)
            started = time.perf_counter()
            run_id = runner.enqueue("upper", [INPUT])[0].run_id
            while runner.store.get(run_id).finished_at is None:
                changes.wait(1)
            late.append((time.perf_counter() - started) * 1e3)
    return late


def three_commits() -> list[float]:
    """Milliseconds for as many commits as accept, claim and finish need: what the disk alone takes."""
    took = []
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a)")
        for number in range(LATE):
            time.sleep(0.005)
            started = time.perf_counter()
            for _ in range(3):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            took.append((time.perf_counter() - started) * 1e3)
        connection.close()
    return took


def peer(what: str, count: int, *more: str) -> float:
    """What Huey's process tells."""
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        command = [sys.executable, str(PEER), what, str(Path(folder) / "huey.db"), str(count), *more]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the tables."""
    wanted = wants_json(__doc__)
    draining = {"runner, WASI": lambda: ours(COMMAND), "runner, reactor": lambda: ours(REACTOR)}
    enqueuing = {"runner, 1,000 at once": ours_enqueue}
    with_peer = find_spec("huey") is not None
    if with_peer:
        draining["Huey"] = lambda: peer("drain", PEER_JOBS)
        enqueuing["Huey"] = lambda: peer("enqueue", PEER_JOBS)
    else:
        print("Huey: skipped: it is not installed")
    for title, measures in (("Drained jobs", draining), ("Enqueued jobs", enqueuing)):
        figures = in_rounds(ROUNDS, measures)
        theirs = median(figures["Huey"]) if with_peer else float("nan")
        rows: list[Row] = [
            {"what": name, "median_per_s": median(taken), "best_per_s": max(taken), "by_huey": median(taken) / theirs}
            for name, taken in figures.items()
        ]
        show(f"{title}, {ROUNDS} rounds", rows, as_json=wanted.json)
    late = sorted(ours_late())
    floor = sorted(three_commits())
    rows = [
        {"what": "runner", "p50_ms": median(late), "p99_ms": late[int(LATE * 0.99)]},
        {"what": "three commits of SQLite alone", "p50_ms": median(floor), "p99_ms": floor[int(LATE * 0.99)]},
    ]
    if with_peer:
        rows.append({"what": "Huey, polling every 5 ms", "p50_ms": peer("late", 100, "0.005"), "p99_ms": "not taken"})
        rows.append({"what": "Huey as it comes", "p50_ms": peer("late", 50, "0.1"), "p99_ms": "not taken"})
    show("One job at a time, from enqueue to its recorded outcome", rows, as_json=wanted.json)


if __name__ == "__main__":
    main()
