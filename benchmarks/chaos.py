"""Kills daemons, workers and zygotes while they work, then counts what that cost.

`python benchmarks/chaos.py --rounds 30`. Two real daemons serve one store under load. In each round one
process is killed with SIGKILL, or a daemon is suspended until its leases have run out; killed daemons are
started again. What was executed is not believed to the store: each execution of a guest leaves a trace of
its own, a run of `trace` that is due in a year. Ends with status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from runner_sqlite.runs import SqliteRunStore

from benchmarks.chaos_audit import Audit, Figures
from benchmarks.chaos_guests import write_project
from benchmarks.measure import Row, show
from runner.runs import NewRun

DAEMONS = 2
LEASE_SECONDS = 2
BACKLOG = 40
"""The load: so many runs are ready at any time."""
PAUSE_SECONDS = 0.35
"""Between two rounds, on average."""
SETTLE_SECONDS = 300.0
"""How long all that was accepted may take to end, once nobody is killed any more."""
VICTIMS = ("daemon", "worker", "zygote", "worker", "daemon", "worker", "zygote", "suspended")


def children(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def is_zygote(pid: int) -> bool:
    """Whether it is one, and no compiler."""
    with contextlib.suppress(OSError):
        return b"runner.workers.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Fleet:
    """The daemons."""

    def __init__(self, folder: Path, *options: str, daemons: int = DAEMONS) -> None:
        self._folder, self._options = folder, options
        self._log_file = folder / "serve.log"
        self._log = self._log_file.open("ab")
        self.daemons = [self._start() for _ in range(daemons)]

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        serve = ["serve", "--json", "--lease", str(LEASE_SECONDS), *self._options, *options]
        command = [sys.executable, "-m", "runner", *serve]
        return subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, stderr=self._log)

    def zygotes(self) -> list[int]:
        """Those of all daemons. Raises SystemExit when one has ended by itself."""
        for daemon in self.daemons:
            if daemon.poll() is not None:
                words = self._log_file.read_text()[-2000:]
                raise SystemExit(f"a daemon ended with status {daemon.returncode}; the log ends so:\n{words}")
        return [child for daemon in self.daemons for child in children(daemon.pid) if is_zygote(child)]

    def workers(self) -> list[int]:
        """Those of all daemons."""
        return [worker for zygote in self.zygotes() for worker in children(zygote)]

    def kill_daemon(self, index: int) -> None:
        """And start it again."""
        self.daemons[index].kill()
        self.daemons[index].wait()
        self.daemons[index] = self._start()

    def suspend(self, index: int) -> None:
        """Until its leases have run out and the other has taken over."""
        pid = self.daemons[index].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 0.5)
        os.kill(pid, signal.SIGCONT)

    def drain(self) -> None:
        """Let all end in good order, then one more carry out what is left. Raises TimeoutExpired."""
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(SETTLE_SECONDS)
        self.daemons = [self._start("--drain")]
        self.daemons[0].wait(SETTLE_SECONDS)

    def close(self) -> None:
        """End all that still runs; zygotes and workers end with their daemon."""
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        self._log.close()


class Load:
    """Enqueues in a thread of its own, and keeps what was acknowledged."""

    def __init__(self, store: SqliteRunStore, jobs: int, chance: random.Random) -> None:
        self._store, self._jobs, self._chance = store, jobs, chance
        self._stopped = threading.Event()
        self.acknowledged: dict[int, tuple[str, bytes]] = {}
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def _feed(self) -> None:
        with self._store.changes() as changes:
            while not self._stopped.is_set() or len(self.acknowledged) < self._jobs:
                missing = BACKLOG - self._store.depth(now=now()).ready
                if self._stopped.is_set():
                    missing = max(missing, min(500, self._jobs - len(self.acknowledged)))
                if missing > 0:
                    self._enqueue([self._new() for _ in range(missing)])
                changes.wait(0.1)

    def _enqueue(self, runs: list[NewRun]) -> None:
        for run, (run_id, _) in zip(runs, self._store.enqueue(runs, now=now()), strict=True):
            self.acknowledged[run_id] = (run.job, run.payload)

    def _new(self) -> NewRun:
        job = self._chance.choices(["traced", "plain", "bad"], [6, 3, 1])[0]
        loops = int(self._chance.expovariate(1 / 3e7))
        payload = loops.to_bytes(4, "little") + self._chance.randbytes(12)
        return NewRun("chaos", job, job, 1, payload, retry_count=1 if job == "bad" else 0, dlq_topic="chaos.dead")

    def stop(self) -> None:
        """Accept the rest, so that there were as many as wanted, and end."""
        self._stopped.set()
        self._thread.join()


def now() -> datetime:
    """This moment."""
    return datetime.now(timezone.utc)


def rounds(fleet: Fleet, count: int, until: float, chance: random.Random) -> Iterator[tuple[str, float]]:
    """Each kill that was made, with its moment."""
    for number in range(count):
        time.sleep(min(chance.expovariate(1 / PAUSE_SECONDS), 10 * PAUSE_SECONDS))
        if time.monotonic() > until:
            return
        victim = VICTIMS[number % len(VICTIMS)]
        moment = time.time()
        if victim == "daemon":
            fleet.kill_daemon(number // len(VICTIMS) % DAEMONS)
        elif victim == "suspended":
            fleet.suspend(chance.randrange(DAEMONS))
        else:
            find = fleet.workers if victim == "worker" else fleet.zygotes
            found = eventually(find, until)
            moment = time.time()
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)
        yield victim, moment


def eventually(find: Callable[[], list[int]], until: float) -> list[int]:
    """What it finds, once that is something."""
    while not (found := find()):
        if time.monotonic() > until:
            raise SystemExit("the daemons did not come up again in time")
        time.sleep(0.005)
    return found


def settle(store: SqliteRunStore, load: Load) -> None:
    """Wait until all that was acknowledged has ended, or the time for it."""
    until = time.monotonic() + SETTLE_SECONDS
    left = set(load.acknowledged)
    with store.changes() as changes:
        while left and time.monotonic() < until:
            left = {run_id for run_id in left if not store.get(run_id).status.is_terminal}
            changes.wait(0.2)


def chaos(folder: Path, wanted: argparse.Namespace) -> Figures:
    """All of it, in an empty folder."""
    chance = random.Random(wanted.seed)
    until = time.monotonic() + wanted.seconds
    write_project(folder)
    database = folder / ".runner" / "runner.db"
    database.parent.mkdir(mode=0o700)
    kills: list[tuple[str, float]] = []
    with contextlib.ExitStack() as stack:
        store = SqliteRunStore.open(database)
        stack.callback(store.close)
        fleet = Fleet(folder)
        stack.callback(fleet.close)
        load = Load(store, wanted.jobs, random.Random(chance.random()))
        try:
            kills += rounds(fleet, wanted.rounds, until, chance)
        finally:
            load.stop()
        settle(store, load)
        fleet.drain()
    return Audit(database, load.acknowledged, kills).figures()


def main() -> int:
    """Print the tables; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="how many kills")
    parser.add_argument("--jobs", type=int, default=0, help="how many runs are accepted at least")
    parser.add_argument("--seconds", type=float, default=3600, help="no kills after so long")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the random moments")
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in and leave as it is at the end")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runner-chaos-") as folder:
        figures = chaos(wanted.keep or Path(folder), wanted)
    never: list[Row] = [{"what must be 0": what, "count": count} for what, count in figures.never.items()]
    seen: list[Row] = [{"what": what, "count": count} for what, count in figures.seen.items()]
    show(f"Chaos, {wanted.rounds} rounds, seed {wanted.seed}", never, as_json=wanted.json)
    show("What happened", seen, as_json=wanted.json)
    for example in figures.examples:
        print(example, file=sys.stderr)
    return 1 if any(figures.never.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
