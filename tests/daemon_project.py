"""Daemons as their users have them: real `runner serve` processes on a real store, with puppets for guests.

A puppet does what its input says (tests/engines), so a run's payload decides how long it takes, whether it
kills its worker, and what it logs. What tests/test_daemon*.py share.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from runner_sqlite.bell import Bell
from runner_sqlite.functions import SqliteRegistry
from runner_sqlite.runs import SqliteRunStore

from runner.ledger import Run, RunFilter
from runner.models import Function
from runner.run_store import RunStore
from runner.runs import Claim, Claimant, NewRun, RunStatus
from tests.cli_project import CliProject
from tests.support import COMMAND, command_line, eventually, is_alive, steps

STATE = ".runner"
WAIT_SECONDS = 30.0

PUPPET_PLUGIN = """
import sys
from runner.contracts import Provider
from runner.hookspecs import hookimpl
from runner.workers.settings import WorkerSettings

def create(settings, host):
    from tests.support import puppet_executor
    return puppet_executor(settings or WorkerSettings(), host)

@hookimpl
def runner_executors():
    return [Provider(name="puppet", summary="for tests", create=create, settings=WorkerSettings)]

class Builder:
    suffixes, version = (".slow",), "1"

    def build(self, source):
        import time
        source.with_suffix(".begun").touch()
        while not source.with_suffix(".done").exists():
            time.sleep(0.01)
        return source.with_suffix(".wasm").read_bytes()

@hookimpl
def runner_builders():
    return [Provider(name=".slow", summary="for tests", create=lambda settings, host: Builder())]
"""
"""An executor for puppets, and a builder that takes its time: until there is a file `.done` beside the source."""

SAY = steps(["say", "hello"])
FOREVER = steps(["sleep", 1000])
HANG = steps(["hang"])
"""As FOREVER, and can be seen to have begun: it keeps a core busy."""
CRASH = steps(["crash"])


def sleep(seconds: float) -> bytes:
    """The payload of a run that takes so long."""
    return steps(["sleep", seconds], ["say", "slept"])


def spin(seconds: float) -> bytes:
    """The payload of a run that uses so much CPU time, by which it can be seen to have begun."""
    return steps(["spin", seconds], ["say", "spun"])


def fail(name: str, *arguments: Any) -> bytes:
    """The payload of a run that ends with this error."""
    return steps(["fail", name, *arguments])


class Serving:
    """A daemon that was started, and what it has told."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        """What it printed that was no line of its log."""
        self.started = time.time()
        self._condition = threading.Condition()
        self._ended = False
        self._descendants: set[int] = set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._condition:
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.other.append(line.decode())
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def told(self, *words: str, times: int = 1, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """Wait for a line whose message has all these words, for the so-manieth."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if all(word in line["message"] for word in words)]

        with self._condition:
            self._condition.wait_for(lambda: len(found()) >= times or self._ended, seconds)
            assert len(found()) >= times, f"it did not tell {words}: {self.lines[-20:]} {self.other}"
            return found()[times - 1]

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self.process.pid

    @property
    def owner(self) -> str:
        """The name under which it leases runs."""
        return str(self.told("serving")["owner"])

    def zygote(self) -> int:
        """Its zygote."""
        (found,) = eventually(
            lambda: self._remember([pid for pid in children(self.pid) if "runner.workers.zygote" in command_line(pid)])
        )
        return int(found)

    def workers(self, count: int = 1) -> list[int]:
        """Its workers, once there are so many at least."""
        return list(eventually(lambda: self._workers(count)))

    def _workers(self, count: int) -> list[int]:
        found = [worker for zygote in children(self.pid) for worker in self._remember(children(zygote))]
        return found if len(found) >= count else []

    def _remember(self, pids: list[int]) -> list[int]:
        self._descendants.update(pids)
        return pids

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end, and that of all its processes; its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        eventually(lambda: not any(map(is_alive, self._descendants)))
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal that ends it, and wait."""
        self._remember([pid for child in self._remember(children(self.pid)) for pid in children(child)])
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """kill -9."""
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def kill_anyway(self) -> None:
        """kill -9, which may come too late."""
        assert self.stop(signal.SIGKILL) in (0, 143, -signal.SIGKILL)

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()


class DaemonProject(CliProject):
    """A folder with a jobs.yaml whose functions are puppets. Close it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.write("site/puppet_plugin.py", PUPPET_PLUGIN)
        self.write("site/puppet-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: puppet\nVersion: 1\n")
        self.write("site/puppet-1.dist-info/entry_points.txt", "[runner]\npuppet = puppet_plugin\n")
        self.write("guest.wasm", COMMAND)
        self.environment["PYTHONPATH"] += os.pathsep + str(folder / "site")
        self._store: SqliteRunStore | None = None
        self._serving: list[Serving] = []

    def jobs(self, jobs: str = "{work: {run: guest}}", *, more: str = "", **functions: str) -> None:
        """Write jobs.yaml with these jobs. Functions are puppets, each given with what is to stand behind its
        module (`, retry_count: 2`); `more` is whole lines."""
        lines = ["version: 1", "namespace: shop", "defaults: {executor: puppet, timeout_seconds: 60}"]
        lines += [more, "functions:"] if more else ["functions:"]
        lines += [f"  {name}: {{wasm: guest.wasm{rest}}}" for name, rest in (functions or {"guest": ""}).items()]
        self.write("jobs.yaml", "\n".join([*lines, f"jobs: {jobs}", ""]))

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.folder / STATE / "runner.db"

    @property
    def store(self) -> SqliteRunStore:
        """The store, open in this process."""
        if self._store is None:
            self.database.parent.mkdir(mode=0o700, exist_ok=True)
            self._store = SqliteRunStore.open(self.database)
        return self._store

    def functions(self) -> Sequence[Function]:
        """The newest versions of what is registered."""
        with contextlib.closing(SqliteRegistry(self.database)) as registry:
            return registry.list("shop")

    @contextlib.contextmanager
    def serving(self, *options: str, ready: bool = True) -> Iterator[Serving]:
        """A daemon, which has begun to serve unless `ready` is False. It is killed if it still runs at the end."""
        daemon = Serving(self.start("serve", "--json", *options, stdout=subprocess.DEVNULL))
        try:
            if ready:
                daemon.told("serving")
            yield daemon
        finally:
            daemon.close()

    def enqueue(self, *payloads: bytes, moment: datetime | None = None, **facts: Any) -> list[int]:
        """Accept a run of `work` for each payload, now or then, without any part of a daemon; their ids."""
        new = NewRun("shop", **{"job": "work", "function": "guest", "function_version": 1, **facts})
        runs = [new._replace(payload=payload) for payload in payloads]
        made = self.store.enqueue(runs, now=moment or now())
        return [run.run_id for run in made]

    def ended(self, *run_ids: int, seconds: float = WAIT_SECONDS) -> list[Run]:
        """Wait until these runs have ended."""
        return self.until(lambda run: run.status.is_terminal, *run_ids, seconds=seconds)

    def running(self, *run_ids: int) -> list[Run]:
        """Wait until these runs are running."""
        return self.until(lambda run: run.status is RunStatus.RUNNING, *run_ids)

    def until(self, condition: Callable[[Run], bool], *run_ids: int, seconds: float = WAIT_SECONDS) -> list[Run]:
        """Wait until the condition holds for each of these runs."""
        until = time.monotonic() + seconds
        with self.store.changes() as changes:
            while True:
                runs = [self.store.get(run_id) for run_id in run_ids]
                if all(map(condition, runs)):
                    return runs
                left = [run for run in runs if not condition(run)]
                assert time.monotonic() < until, f"{len(left)} did not get there in {seconds:g} s, as {left[0]}"
                changes.wait(0.2)

    def is_quiet(self, daemon: Serving) -> bool:
        """Whether a daemon holds nothing and has all its workers at rest."""
        return not self.store.owners() and len(daemon.workers()) >= 2 and all(map(is_asleep, daemon.workers()))

    def begun(self, daemon: Serving, count: int = 1) -> list[int]:
        """Wait until so many workers are in a guest that keeps its core busy; their pids."""

        def busy() -> list[int]:
            found = [worker for worker in daemon.workers() if cpu_ticks(worker) > 8]
            return found if len(found) >= count else []

        return list(eventually(busy, seconds=WAIT_SECONDS))

    def kept(self) -> set[int]:
        """The runs that the store still has."""
        return {run.run_id for run in self.store.list_runs(RunFilter(), limit=100_000)}

    def claim_all(self, moment: datetime) -> list[Claim]:
        """Claim everything, as a daemon that lives at that moment."""
        return self.store.claim(Claimant(owner="another", namespace="shop"), 100_000, now=moment)

    def take_over(self, seconds: float) -> list[Claim]:
        """Claim what has run out so much later, as another daemon would."""
        another = Claimant(owner="another", namespace="shop", lease_seconds=1000)
        return self.store.claim(another, 1, now=self.now(seconds))

    def now(self, seconds: float = 0) -> datetime:
        """This moment, or one later."""
        return now() + timedelta(seconds=seconds)

    def attempts(self, run_id: int) -> list[str]:
        """How each attempt of a run ended."""
        return [attempt.status.value for attempt in self.store.attempts(run_id)]

    def cpu_used(self, daemon: Serving) -> list[int]:
        """The ticks that each worker has used in a while."""
        before = {worker: cpu_ticks(worker) for worker in daemon.workers()}
        time.sleep(0.1)
        return [cpu_ticks(worker) - ticks for worker, ticks in before.items()]

    def damage(self) -> None:
        """Overwrite what the store's file holds, and wake who looks at it."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            size = self.database.stat().st_size
            with self.database.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * (size - 4096))
            connection.execute("PRAGMA user_version = 77")
            connection.commit()
        with contextlib.closing(Bell(self.database)) as bell:
            bell.ring()

    def close_store(self) -> None:
        """Close the store; it is opened again when it is needed."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def close(self) -> None:
        """Close the store."""
        self.close_store()


def now() -> datetime:
    """This moment."""
    return datetime.now(timezone.utc)


def outputs(store: RunStore, run_ids: Sequence[int]) -> list[bytes | None]:
    """What these runs put out."""
    return [store.result(run_id) for run_id in run_ids]


def children(pid: int) -> list[int]:
    """The children of a process, living or not waited for; quicker than tests.support.children."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def descriptors(pid: int) -> int:
    """How many files a process has open, besides the store's: its pool has as many connections as
    were once in use at a time, which is chance."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += not link.readlink().name.startswith("runner.db")
    return count


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def is_asleep(pid: int) -> bool:
    """Whether a process waits."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def cpu_ticks(pid: int) -> int:
    """The CPU time that a process has used, user and system, in ticks (a hundredth of a second)."""
    with contextlib.suppress(FileNotFoundError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0
