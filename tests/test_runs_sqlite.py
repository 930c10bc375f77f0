"""The run store `sqlite` keeps the contract, beside the registry and with several processes at once. How it
wakes waiters is in test_runs_bell.py, how it shares commits in test_runs_writer.py, how it fails in
test_runs_sqlite_failures.py and test_runs_kills.py."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from runner_sqlite.connection import Store
from runner_sqlite.functions import SqliteRegistry
from runner_sqlite.runs import SqliteRunStore

from runner.ledger import RunFilter
from runner.run_store import RunStore
from runner.runs import Claim, RunStatus
from runner.testing import RunStoreContract
from runner.testing.registry import definition, module
from runner.testing.runs_bench import START, at, claimant, new, succeeded

DRAIN = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from runner.runs import Claimant, Succeeded
from runner_sqlite.runs import SqliteRunStore

path, owner = Path(sys.argv[1]), sys.argv[2]
store, ours = SqliteRunStore.open(path), Claimant(owner=owner, namespace="shop", lease_seconds=3600)
print("ready", flush=True)
sys.stdin.readline()
now, outcomes = datetime(2027, 3, 15, tzinfo=timezone.utc), []
while True:
    statuses, claims = store.finish_and_claim(outcomes, ours, 7, now=now)
    assert None not in statuses
    print(*(outcome.run_id for outcome in outcomes), flush=True)
    if not claims:
        break
    outcomes = [Succeeded(claim.run_id, claim.token, owner.encode() + claim.payload) for claim in claims]
"""
"""A process that runs everything there is and prints what it ran."""


class TestSqliteRunStore(RunStoreContract):
    def make_store(self, folder: Path) -> RunStore:
        return SqliteRunStore.open(folder / "runner.db")


def open_files(folder: Path) -> list[str]:
    links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [link for link in links if link.startswith(str(folder))]


def test_it_is_in_the_file_of_the_registry_and_closed_with_it(tmp_path: Path) -> None:
    registry = SqliteRegistry(tmp_path / "runner.db")
    registry.register(definition(), module("a"))
    store = registry.run_store()
    assert registry.run_store() is store
    store.enqueue([new()], now=START)
    registry.close()
    assert open_files(tmp_path) == []
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as again:
        assert again.depth(now=START).ready == 1


def test_using_it_does_not_wait_for_sqlite_utils(tmp_path: Path) -> None:
    SqliteRunStore.open(tmp_path / "runner.db").close()
    code = (
        "import sys; from pathlib import Path; from datetime import datetime, timezone\n"
        "from runner_sqlite.runs import SqliteRunStore; from runner.runs import NewRun\n"
        "store = SqliteRunStore.open(Path(sys.argv[1]))\n"
        "store.enqueue([NewRun('shop', 'clean')], now=datetime.now(timezone.utc))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "runner.db"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sqlite_utils" not in done.stdout.split()


def test_processes_never_claim_the_same(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    with closing(SqliteRunStore.open(path)) as store:
        runs = [new(payload=b" %d" % n, queue=f"queue {n % 3}") for n in range(1500)]
        accepted = [enqueued.run_id for enqueued in store.enqueue(runs, now=START)]
    owners = ["a", "b", "c"]
    command = [sys.executable, "-c", DRAIN, str(path)]
    processes = [
        subprocess.Popen([*command, owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for owner in owners
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ran = [list(map(int, process.communicate("go\n", timeout=60)[0].split())) for process in processes]
    assert sorted(run_id for part in ran for run_id in part) == accepted
    with closing(SqliteRunStore.open(path)) as store:
        assert store.counters() == {"late_results_refused": 0, "leases_taken_over": 0}
        for owner, part in zip(owners, ran, strict=True):
            for run_id in part[:20]:
                run = store.get(run_id)
                assert (run.status, run.attempts, run.owner) == (RunStatus.SUCCEEDED, 1, owner)
                assert store.result(run_id) == owner.encode() + store.payload(run_id)


def test_the_tables_themselves_refuse_to_change_what_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    with closing(SqliteRunStore.open(path)) as store:
        store.enqueue([new()], now=START)
        store.finish([succeeded(claim) for claim in store.claim(claimant(), 1, now=START)], now=START)
    with (
        closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="a terminal run never changes"),
    ):
        connection.execute("UPDATE outcomes SET status = 'dead'")


def test_many_delayed_runs_do_not_stand_in_the_way(tmp_path: Path) -> None:
    """What is not due yet is not looked at, whatever its priority."""
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:
        store.enqueue([new(run_at=at(3600), priority=9) for _ in range(5_000)], now=START)
        store.enqueue([new(queue="slow", priority=9) for _ in range(5_000)], now=START)
        store.enqueue([new(), new()], now=START)
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        with store._store.read() as connection:  # the only one in the pool
            connection.set_progress_handler(count, 100)
        claims: list[Claim] = store.claim(claimant(limits={"slow": 0}), 10, now=START)
        assert len(claims) == 2
        assert steps < 50


def test_one_page_of_a_long_history_is_read_without_the_rest(tmp_path: Path) -> None:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:
        store.enqueue([new("rare"), *(new() for _ in range(5_000)), new("rare")], now=START)
        store.cancel(7, "", now=START)
        store.finish([succeeded(claim) for claim in store.claim(claimant(), 4_000, now=START)], now=START)
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        with store._store.read() as connection:
            connection.set_progress_handler(count, 100)
        for filter, found in [
            (RunFilter(), 10),
            (RunFilter(job="rare"), 2),
            (RunFilter(statuses=frozenset({RunStatus.CANCELLED})), 1),
            (RunFilter(statuses=frozenset({RunStatus.PENDING})), 10),
            (RunFilter(statuses=frozenset({RunStatus.SUCCEEDED})), 10),
        ]:
            steps = 0
            assert len(store.list_runs(filter, limit=10)) == found
            assert steps < 50, filter


def test_two_stores_over_one_open_file(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "runner.db")) as store:
        one, two = SqliteRunStore(store), SqliteRunStore(store)
        one.enqueue([new()], now=START)
        assert len(two.claim(claimant(), 1, now=START)) == 1
        one.close()
        two.enqueue([new()], now=START)
        two.close()
