"""The durable queue without workers: `python benchmarks/run_store.py`.

Payloads and outputs of 200 bytes. Everything is on the disk (fsync) before it counts. The floor is SQLite
itself in the same file system and round: one narrow table, no history, nothing to find again.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from runner_sqlite.runs import SqliteRunStore

from benchmarks.measure import Row, in_rounds, median, rate, show, wants_json
from runner.runs import Claimant, NewRun, Outcome, Succeeded

ROUNDS = 5
JOBS = 20_000
SINGLE = 500
THREADS = 64
PAYLOAD, OUTPUT = b"x" * 200, b"X" * 200
NOW = datetime.now(timezone.utc)
RUN = NewRun("bench", "upper", "upper", 1, PAYLOAD, retry_count=2)

ENQUEUE = """
import sys, time
from datetime import datetime, timezone
from pathlib import Path
from runner.runs import NewRun
from runner_sqlite.runs import SqliteRunStore
store = SqliteRunStore.open(Path(sys.argv[1]))
for _ in sys.stdin:
    store.enqueue([NewRun("bench", "upper")], now=datetime.now(timezone.utc))
    print(time.monotonic(), flush=True)
"""
"""A process that enqueues one run for each line and prints when that was acknowledged."""


@contextmanager
def store() -> Iterator[SqliteRunStore]:
    """A fresh store."""
    folder = Path(tempfile.mkdtemp(prefix="runner-bench-"))
    opened = SqliteRunStore.open(folder / "runner.db")
    try:
        yield opened
    finally:
        opened.close()
        shutil.rmtree(folder)


@contextmanager
def floor() -> Iterator[sqlite3.Connection]:
    """SQLite with one narrow table, as durable."""
    folder = Path(tempfile.mkdtemp(prefix="runner-bench-"))
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, status TEXT, payload BLOB)")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(folder)


def floor_enqueue(count: int, group: int) -> float:
    """Rows a second, so many to a commit."""
    with floor() as connection:
        return rate(count, lambda: _floor_fill(connection, count, group))


def _floor_fill(connection: sqlite3.Connection, count: int, group: int) -> None:
    for _ in range(0, count, group):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO jobs (status, payload) VALUES ('pending', ?)", [(PAYLOAD,)] * group)
        connection.execute("COMMIT")


def floor_drain(group: int) -> float:
    """Rows a second that are marked as running, read, and marked as done, so many to a commit."""

    def drain() -> None:
        for first in range(1, JOBS + 1, group):
            span = (first, first + group - 1)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE jobs SET status = 'done' WHERE id BETWEEN ? AND ?", (first - group, first - 1))
            connection.execute("UPDATE jobs SET status = 'running' WHERE id BETWEEN ? AND ?", span)
            connection.execute("SELECT id, payload FROM jobs WHERE id BETWEEN ? AND ?", span).fetchall()
            connection.execute("COMMIT")

    with floor() as connection:
        _floor_fill(connection, JOBS, 1000)
        return rate(JOBS, drain)


def enqueue(count: int, group: int) -> float:
    """Runs a second, so many to a call."""
    with store() as opened:
        return rate(count, lambda: _fill(opened, count, group))


def _fill(opened: SqliteRunStore, count: int, group: int) -> None:
    for _ in range(0, count, group):
        opened.enqueue([RUN._replace(payload=PAYLOAD) for _ in range(group)], now=NOW)


def enqueue_by_threads() -> float:
    """Runs a second by many threads, each one run a call: they share commits."""
    with store() as opened:
        threads = [threading.Thread(target=_fill, args=(opened, SINGLE // 2, 1)) for _ in range(THREADS)]

        def work() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return rate(SINGLE // 2 * THREADS, work)


def drain(group: int) -> float:
    """Runs a second that are claimed and finished: the outcomes of one group with the claim of the next."""
    claimant = Claimant(owner="bench", namespace="bench")

    def work() -> None:
        outcomes: list[Outcome] = []
        while True:
            _, claims = opened.finish_and_claim(outcomes, claimant, group, now=NOW)
            if not claims:
                return
            outcomes = [Succeeded(claim.run_id, claim.token, OUTPUT, 0.02, 65536) for claim in claims]

    with store() as opened:
        _fill(opened, JOBS, 1000)
        return rate(JOBS, work)


def wake_up() -> list[float]:
    """Milliseconds from the acknowledgement in another process to the end of the wait in this one."""
    with store() as opened, opened.changes() as changes:
        command = [sys.executable, "-c", ENQUEUE, str(opened._store.path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        late = []
        for _ in range(100):
            process.stdin.write("\n")
            process.stdin.flush()
            changes.wait(30)
            woken = time.monotonic()
            late.append((woken - float(process.stdout.readline())) * 1e3)
        process.communicate()
        return late


def main() -> None:
    """Print the tables."""
    wanted = wants_json(__doc__)
    enqueuing = {
        "floor, a commit each": lambda: floor_enqueue(SINGLE, 1),
        "floor, 1,000 to a commit": lambda: floor_enqueue(JOBS, 1000),
        "enqueue one, one thread": lambda: enqueue(SINGLE, 1),
        f"enqueue one, {THREADS} threads": enqueue_by_threads,
        "enqueue 1,000 at once": lambda: enqueue(JOBS, 1000),
    }
    draining = {
        "floor, 512 to a commit": lambda: floor_drain(512),
        "finish and claim 64": lambda: drain(64),
        "finish and claim 256": lambda: drain(256),
        "finish and claim 512": lambda: drain(512),
    }
    for title, measures in (("Accepted runs", enqueuing), ("Claimed and finished runs", draining)):
        figures = in_rounds(ROUNDS, measures)
        rows: list[Row] = [
            {"what": name, "median_per_s": median(taken), "best_per_s": max(taken)} for name, taken in figures.items()
        ]
        show(f"{title}, {ROUNDS} rounds", rows, as_json=wanted.json)
    late = sorted(wake_up())
    wakes: list[Row] = [{"what": "another process's commit", "p50_ms": median(late), "p99_ms": late[98]}]
    show("Wake-up", wakes, as_json=wanted.json)


if __name__ == "__main__":
    main()
