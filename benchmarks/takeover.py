"""How long a run waits that lost its worker or its daemon: `python benchmarks/takeover.py`.

A real daemon with one lane carries out a run; as soon as its guest has begun, all workers, or the daemon, are
killed with SIGKILL. Measured until the next attempt of that run is claimed, on the disk. A killed daemon is
started again at once; its start is part of the figure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from runner_sqlite.runs import SqliteRunStore

from benchmarks.chaos import Fleet, now
from benchmarks.chaos_guests import TRACE_JOB, write_project
from benchmarks.measure import Row, median, show, wants_json
from runner.ledger import RunFilter
from runner.runs import NewRun

ROUNDS = 20
LOOPS = 600_000_000
"""About a second."""


def waited_ms(store: SqliteRunStore, kill: Callable[[], None]) -> float:
    """From the kill to the next attempt of the run that was under way."""
    before = len(store.list_runs(RunFilter(job=TRACE_JOB), limit=1000))
    new = NewRun("chaos", "traced", "traced", 1, LOOPS.to_bytes(4, "little"))
    run_id = store.enqueue([new], now=now())[0].run_id
    with store.changes() as changes:
        while len(store.list_runs(RunFilter(job=TRACE_JOB), limit=1000)) == before:
            changes.wait(1)
        killed = time.time()
        kill()
        while store.get(run_id).attempts < 2:
            changes.wait(1)
        again = store.attempts(run_id)[1].started_at.timestamp()
        while not store.get(run_id).status.is_terminal:
            changes.wait(1)
    return (again - killed) * 1e3


def kill_workers(fleet: Fleet) -> None:
    """All of them."""
    for worker in fleet.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def main() -> None:
    """Print the table."""
    wanted = wants_json(__doc__)
    with tempfile.TemporaryDirectory(prefix="runner-takeover-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_project(folder)
        (folder / ".runner").mkdir(mode=0o700)
        store = SqliteRunStore.open(folder / ".runner" / "runner.db")
        stack.callback(store.close)
        fleet = Fleet(folder, "--lanes", "1", daemons=1)
        stack.callback(fleet.close)
        waited_ms(store, lambda: kill_workers(fleet))  # compiles the modules
        rows: list[Row] = []
        kills = {"worker": lambda: kill_workers(fleet), "daemon": lambda: fleet.kill_daemon(0)}
        for what, kill in kills.items():
            waits = sorted(waited_ms(store, kill) for _ in range(ROUNDS))
            rows.append({"killed": what, "median_ms": median(waits), "least_ms": waits[0], "most_ms": waits[-1]})
    show(f"From the kill to the next attempt, {ROUNDS} rounds", rows, as_json=wanted.json)


if __name__ == "__main__":
    main()
