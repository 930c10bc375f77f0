"""Threads share commits, and one that is at fault harms no other."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from runner_sqlite.connection import Store
from runner_sqlite.runs import SqliteRunStore
from runner_sqlite.writer import Writer

from runner.errors import InvalidInput, RunConflict, StoreLocked
from runner.testing.registry import in_threads
from runner.testing.runs_bench import START, claimant, new


class Bench:
    """A writer on a table of numbers, whose commits are counted."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, busy_timeout_seconds=30)
        self.commits = 0
        self.writer = Writer(self.store, self._committed)
        self.writer.do(lambda connection: connection.execute("CREATE TABLE numbers (number INTEGER UNIQUE)"))
        self.commits = 0

    def _committed(self, by: str) -> None:
        self.commits += 1
        self.by = by

    def insert(self, number: Any) -> int:
        """Write a number and return it."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            return int(number)

        return self.writer.do(work)

    def numbers(self) -> list[int]:
        with self.store.read() as connection:
            return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Somebody else writes; who comes meanwhile gathers."""
        with closing(sqlite3.connect(self.store.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "runner.db")
    yield bench
    bench.store.close()


def gathered(bench: Bench, tasks: list[Callable[[], Any]]) -> list[Any]:
    """What the tasks return or raise, each in a thread, when the first had to wait until all had come."""

    def outcome(number: int) -> Any:
        try:
            return tasks[number]()
        except Exception as error:
            return error

    results: list[Any] = []
    with bench.busy():
        threads = threading.Thread(target=lambda: results.extend(in_threads(len(tasks), outcome)))
        threads.start()
        until(lambda: len(bench.writer._waiting) == len(tasks) - 1)
    threads.join()
    return results


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_who_comes_while_another_commits_goes_with_the_next(bench: Bench) -> None:
    assert gathered(bench, [lambda n=n: bench.insert(n) for n in range(20)]) == list(range(20))  # type: ignore[misc]
    assert bench.numbers() == list(range(20))
    assert bench.commits == 2


def test_one_at_fault_harms_no_other(bench: Bench) -> None:
    tasks: list[Callable[[], Any]] = [lambda n=n: bench.insert(n) for n in range(10)]  # type: ignore[misc]
    results = gathered(bench, [*tasks, lambda: bench.insert("\ud800"), lambda: bench.insert(2**70)])
    assert results[:10] == list(range(10))
    assert [type(error) for error in results[10:]] == [InvalidInput, InvalidInput]
    assert bench.numbers() == list(range(10))


def test_a_refusal_costs_the_group_nothing(tmp_path: Path) -> None:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:

        def enqueue(number: int) -> Any:
            try:
                return store.enqueue([new(payload=b"%d" % number, unique_key="k" if number % 2 else None)], now=START)
            except RunConflict as error:
                return error.run_id

        results = in_threads(16, enqueue)
        refused = [result for result in results if isinstance(result, int)]
        assert len(refused) == 7
        assert len(set(refused)) == 1
        assert len(store.claim(claimant(), 100, now=START)) == 9


def test_what_fails_after_writing_leaves_nothing(bench: Bench) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise InvalidInput("no")

    with pytest.raises(InvalidInput, match="no"):
        bench.writer.do(work)
    assert bench.numbers() == []
    assert bench.commits == 0


def test_what_the_store_refuses_is_told_to_all(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "runner.db")
    bench.store._busy_timeout_seconds = 0.3
    bench.store.close()
    bench.store = Store(tmp_path / "runner.db", busy_timeout_seconds=0.3)
    bench.writer._store = bench.store

    def insert(number: int) -> Any:
        try:
            return bench.insert(number)
        except StoreLocked:
            return "locked"

    with bench.busy():
        assert in_threads(4, insert) == ["locked"] * 4
    assert in_threads(4, insert) == [0, 1, 2, 3]
    bench.store.close()


class Interrupted(Exception):
    """What the signal raises in here."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_of_one_who_waits_leaves_the_lead_to_others(bench: Bench) -> None:
    with bench.busy():
        leader = threading.Thread(target=bench.insert, args=[1])
        leader.start()
        until(lambda: bench.writer._has_leader and not bench.writer._waiting)
        with interrupted_after(0.1):
            bench.insert(2)
        follower = threading.Thread(target=bench.insert, args=[3])
        follower.start()
    leader.join()
    follower.join()
    bench.insert(4)
    assert bench.numbers() == [1, 3, 4]


def test_an_interrupt_of_the_leader_does_not_stop_the_others(bench: Bench) -> None:
    def slow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (1)")
        time.sleep(60)

    follower = threading.Timer(0.05, bench.insert, [2])
    follower.start()
    with interrupted_after(0.3):
        bench.writer.do(slow)
    follower.join()
    assert bench.numbers() == [2]


def test_it_tells_whose_change_it_is_if_all_of_it_is_one_s(bench: Bench) -> None:
    def insert(number: int, by: str) -> None:
        bench.writer.do(lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (number,)), by)

    insert(1, "one")
    assert bench.by == "one"
    with bench.busy():
        threads = [threading.Thread(target=insert, args=(number, f"{number % 2}")) for number in range(2, 8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # one waits for the store, the others gather
        bench.by = ""
    for thread in threads:
        thread.join()
    assert bench.numbers() == list(range(1, 8))
    assert bench.by == ""
