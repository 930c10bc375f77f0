"""Huey on SQLite with fsync, for durable.py: `drain|enqueue|late FILE COUNT [POLL_SECONDS]` prints one figure."""

from __future__ import annotations

import statistics
import sys
import threading
import time

from huey import SqliteHuey

what, file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
poll_seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 0.001
huey = SqliteHuey(filename=file, fsync=True)
ran = 0
all_ran = threading.Event()
lock = threading.Lock()
moments: list[float] = []


@huey.task()  # type: ignore[untyped-decorator]
def nothing(_: str) -> bool:
    """Do nothing, and count."""
    global ran
    with lock:
        ran += 1
        moments.append(time.perf_counter())
        if ran == count:
            all_ran.set()
    return True


def fill() -> float:
    """Enqueue all; how many a second."""
    started = time.perf_counter()
    for _ in range(count):
        nothing("x" * 200)
    return count / (time.perf_counter() - started)


consumer = huey.create_consumer(workers=2, worker_type="thread", initial_delay=poll_seconds, max_delay=poll_seconds)
if what == "enqueue":
    print(fill())
elif what == "drain":
    fill()
    consumer.start()
    all_ran.wait()
    print(count / (moments[-1] - moments[0]))
else:
    consumer.start()
    late = []
    for _ in range(count):
        time.sleep(0.005)
        started = time.perf_counter()
        result = nothing("x")
        while result.get() is None:
            time.sleep(0.0002)
        late.append((time.perf_counter() - started) * 1e3)
    print(statistics.median(late))
if what != "enqueue":
    consumer.stop()
