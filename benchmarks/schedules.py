"""50,000 cron entries, of which 1,000 are due in the same second: `python benchmarks/schedules.py`.

Ours is the source of `cron` over a real SQLite store: lag is the time from the slot to when its run and its
ledger entry are on the disk. The peer is APScheduler 3 with the same entries in memory: lag is the time until
its function is called, nothing is kept and what happens meanwhile is lost. Each in a process of its own.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from runner_apscheduler.settings import CronSettings
from runner_apscheduler.sources import CronSource
from runner_sqlite.runs import SqliteRunStore

from benchmarks.measure import Row, show, wants_json
from runner.ledger import RecordedSlot, SlotEntry
from runner.runs import Follower, NewRun
from runner.triggers import Intake, Trigger

ENTRIES, DUE = 50_000, 1_000
PERIOD_SECONDS = 5
BURSTS = 5


class TimedStore(SqliteRunStore):
    """Notes how late each slot was when it was on the disk."""

    lags: list[float]

    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """See RunStore."""
        recorded = super().record_slots(entries, now=now)
        done = time.time()
        self.lags += [done - entry.slot.timestamp() for entry in entries if entry.run is not None]
        return recorded


class Desk(Intake):
    """An Intake without a daemon."""

    def __init__(self, store: TimedStore) -> None:
        self.store: TimedStore = store

    def now(self) -> datetime:
        """See Intake."""
        return datetime.now(timezone.utc)

    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        """See Intake."""
        return NewRun("bench", trigger.job, "upper", 1, payload, retry_count=2, trigger=trigger.id)

    def follow(self, followers: Sequence[Follower]) -> None:
        """See Intake."""

    def tell(self, level: str, message: str, **facts: Any) -> None:
        """See Intake."""
        print(level, message, facts, file=sys.stderr)


def expressions() -> list[str]:
    """Those that are due every few seconds, and as many as it takes that are due at other times of the day."""
    later = datetime.now(timezone.utc) + timedelta(hours=2)
    rare = [
        f"{number // 60 % 60} {(later.hour + number % 20) % 24} * * {number // 3600 % 7}"
        for number in range(ENTRIES - DUE)
    ]
    return [f"*/{PERIOD_SECONDS} * * * * *"] * DUE + rare


def ours() -> dict[str, float]:
    """The figures of our source."""
    triggers = []
    source = CronSource()
    begun = time.perf_counter()
    for number, expression in enumerate(expressions()):
        settings = CronSettings(schedule=expression, overlap="allow")
        name = f"bench/job{number}/cron/{source.key(settings)}"
        triggers.append(Trigger(id=name, job=f"job{number}", kind="cron", settings=settings, line=number))
    folder = Path(tempfile.mkdtemp(prefix="runner-bench-"))
    store = TimedStore.open(folder / "runner.db")
    assert isinstance(store, TimedStore)
    store.lags = []
    try:
        source.start(triggers, Desk(store))
        loaded = time.perf_counter() - begun
        figures = watched(lambda: store.lags)
        source.stop()
    finally:
        store.close()
        shutil.rmtree(folder)
    return {"load_s": loaded, **figures}


def peer() -> dict[str, float]:
    """The figures of APScheduler on its own."""
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.cron import CronTrigger

    lags: list[float] = []
    lock = threading.Lock()

    def job() -> None:
        now = time.time()
        with lock:
            lags.append(now % PERIOD_SECONDS)

    def trigger(expression: str) -> CronTrigger:
        parts = expression.split()
        second, minute, hour, week = parts[0] if len(parts) == 6 else "0", parts[-5], parts[-4], parts[-1]
        return CronTrigger(second=second, minute=minute, hour=hour, day_of_week=week, timezone=timezone.utc)

    begun = time.perf_counter()
    scheduler = BackgroundScheduler(timezone=timezone.utc)
    for expression in expressions():
        scheduler.add_job(job, trigger(expression), misfire_grace_time=None)
    scheduler.start()
    loaded = time.perf_counter() - begun
    figures = watched(lambda: lags)
    scheduler.shutdown(wait=False)
    return {"load_s": loaded, **figures}


def watched(lags: Callable[[], list[float]]) -> dict[str, float]:
    """Wait for the bursts behind this moment, and sum up what was noted of them."""
    gc.collect()
    time.sleep(2 * PERIOD_SECONDS - time.time() % PERIOD_SECONDS - 1)  # what loading has held up is not counted
    lags().clear()
    used = time.process_time()
    until = time.monotonic() + 60 + BURSTS * PERIOD_SECONDS
    while len(lags()) < BURSTS * DUE and time.monotonic() < until:
        time.sleep(0.2)
    found = sorted(lags()[: BURSTS * DUE])
    used = time.process_time() - used
    return {
        "p50_ms": statistics.median(found) * 1e3,
        "p99_ms": found[len(found) * 99 // 100] * 1e3,
        "worst_ms": found[-1] * 1e3,
        "cpu_ms_per_burst": used / BURSTS * 1e3,
        "memory_mb": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


def in_a_process(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The figures of a fresh process."""
    context = multiprocessing.get_context("fork")
    results: Any = context.SimpleQueue()
    process = context.Process(target=lambda: results.put(work()))
    process.start()
    figures: dict[str, float] = results.get()
    process.join()
    return figures


def main() -> None:
    """Print the table."""
    wanted = wants_json(__doc__)
    figures = {"runner, on the disk": in_a_process(ours), "APScheduler, in memory": in_a_process(peer)}
    rows: list[Row] = [{"what": name, **measured} for name, measured in figures.items()]
    first, second = figures.values()
    rows.append({"what": "ratio", **{name: first[name] / second[name] for name in first}})
    show(f"{DUE:,} of {ENTRIES:,} entries due in one second, {BURSTS} times", rows, as_json=wanted.json)


if __name__ == "__main__":
    main()
