"""Waiters are woken by other processes at once, without polling, and the dead leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from runner_sqlite.bell import Bell
from runner_sqlite.runs import SqliteRunStore

from runner.errors import StoreError
from runner.runs import Claim, Outcome, Retry
from runner.testing.runs_bench import BOOM, START, claimant, new, succeeded

ENQUEUE = """
import sys, time
from datetime import datetime, timezone
from pathlib import Path
from runner.runs import NewRun
from runner_sqlite.runs import SqliteRunStore

store = SqliteRunStore.open(Path(sys.argv[1]))
print("ready", flush=True)
for _ in sys.stdin:
    store.enqueue([NewRun("shop", "clean")], now=datetime.now(timezone.utc))
    print(time.monotonic(), flush=True)
"""
"""A process that enqueues a run for each line it reads, and prints when that was acknowledged."""

LISTEN = """
import sys, time
from pathlib import Path
from runner_sqlite.bell import Bell

waiter = Bell(Path(sys.argv[1])).listen()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRunStore]:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:
        yield store


def start(code: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_another_process_wakes_a_waiter_within_milliseconds(tmp_path: Path, store: SqliteRunStore) -> None:
    process = start(ENQUEUE, tmp_path / "runner.db")
    assert process.stdin is not None
    assert process.stdout is not None
    late = []
    with store.changes() as changes:
        for number in range(1, 21):
            process.stdin.write("\n")
            process.stdin.flush()
            assert changes.wait(30)
            woken = time.monotonic()
            assert store.depth(now=START).ready == number  # it is there when the bell rings
            late.append(woken - float(process.stdout.readline()))
    process.communicate(timeout=30)
    # The best, because others use this machine too: with polling it would be no better than the rest.
    assert min(late) < 0.005
    assert sorted(late)[10] < 0.1


def test_waiting_costs_nothing(store: SqliteRunStore) -> None:
    with store.changes() as changes:
        before = time.process_time()
        assert not changes.wait(1)
        assert time.process_time() - before < 0.02


def test_a_waiter_wakes_through_a_path_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    with closing(SqliteRunStore.open(folder / "runner.db")) as store, store.changes() as changes:
        store.enqueue([new()], now=START)
        assert changes.wait(5)


def test_the_socket_of_a_killed_process_is_removed(tmp_path: Path, store: SqliteRunStore) -> None:
    folder = tmp_path / "runner.db-wake"
    process = start(LISTEN, tmp_path / "runner.db")
    with store.changes():
        assert len(list(folder.iterdir())) == 2
        process.kill()
        process.communicate()
        assert len(list(folder.iterdir())) == 2
        store.enqueue([new()], now=START)
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_nothing_stands_in_the_way_of_a_commit(tmp_path: Path, store: SqliteRunStore) -> None:
    folder = tmp_path / "runner.db-wake"
    store.enqueue([new()], now=START)
    assert not folder.exists()  # nobody listens
    with store.changes() as changes:
        (folder / "something else").write_text("")
        for _ in range(300):  # more than a socket holds
            store.enqueue([new()], now=START)
        (folder / "something else").unlink(missing_ok=True)
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()
        store.enqueue([new()], now=START)
        assert changes.wait(5)
    folder.write_text("")
    store.enqueue([new()], now=START)
    assert store.depth(now=START).ready == 303
    with pytest.raises(StoreError):
        store.changes()


def test_the_folder_is_for_this_user_only(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "runner.db")
    with bell.listen():
        assert (tmp_path / "runner.db-wake").stat().st_mode & 0o077 == 0
    bell.close()
    bell.close()


def test_who_claims_is_not_woken_by_what_it_knows(store: SqliteRunStore) -> None:
    owner = claimant()
    with store.changes(besides=owner.owner) as own, store.changes(besides="another") as others:

        def exchange(*outcomes: Outcome) -> list[Claim]:
            return store.finish_and_claim(outcomes, owner, 1, now=START)[1]

        store.enqueue([new(), new(), new()], now=START)
        assert own.wait(5)
        (first,) = exchange()
        (second,) = exchange(succeeded(first))
        assert others.wait(5)
        assert not own.wait(0)
        exchange(Retry(second.run_id, second.token, START + timedelta(seconds=5), BOOM))
        assert own.wait(5)  # it has to know until when to sleep
        store.enqueue([new()], now=START)
        assert own.wait(5)
        assert store.finish_and_claim([], claimant("another"), 1, now=START)[1]
        assert own.wait(5)
