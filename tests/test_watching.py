"""Waiting for runs to end and for what they log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runner_sqlite.runs import SqliteRunStore

from runner import watching
from runner.errors import RunNotFound
from runner.ledger import RunFilter
from runner.models import LogEntry, LogLevel
from runner.run_store import RunStore
from runner.runs import Claim, Claimant, Dead, Failed, Failure, NewRun, Retry, Succeeded
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    store = SqliteRunStore.open(tmp_path / "runner.db") if request.param == "sqlite" else MemoryRunStore()
    yield store
    store.close()


def put(store: RunStore, *jobs: str) -> list[int]:
    return [run_id for run_id, _ in store.enqueue([NewRun("shop", job) for job in jobs], now=START)]


def claim(store: RunStore) -> Claim:
    (claimed,) = store.claim(Claimant(owner="one", namespace="shop"), 1, now=START)
    return claimed


def line(text: str) -> LogEntry:
    return LogEntry(LogLevel.INFO, text, START.timestamp())


class Meanwhile:
    """Does things in a thread, one after the other, each when the last has been seen."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self._acts = iter(acts)
        self._threads: list[threading.Thread] = []

    def go_on(self) -> None:
        act = next(self._acts, None)
        if act is not None:
            self._threads.append(threading.Thread(target=act))
            self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_runs_are_told_in_order_once_they_have_ended(store: RunStore) -> None:
    first, second = put(store, "a", "b")
    one, two = claim(store), claim(store)
    meanwhile = Meanwhile(
        lambda: store.finish([Succeeded(*two[:2], b"second")], now=START),
        lambda: store.finish([Succeeded(*one[:2], b"first")], now=START),
    )
    meanwhile.go_on()
    meanwhile.join()
    meanwhile.go_on()
    assert [run.run_id for run in watching.ended(store, [first, second, first])] == [first, second, first]
    meanwhile.join()


def test_waiting_for_a_run_that_is_not_there(store: RunStore) -> None:
    with pytest.raises(RunNotFound):
        list(watching.ended(store, [7]))


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([], 0),
        ([None, None], 0),
        (["Trapped"], 1),
        (["EngineUnavailable"], 3),
        (["EngineUnavailable", "StoreFull", None], 4),
        (["EngineUnavailable", "TimedOut"], 1),
        (["SomethingOfAPlugin"], 1),
        (["cancelled"], 1),
    ],
)
def test_the_exit_status_is_that_of_running_them_here(errors: list[str | None], status: int) -> None:
    store = MemoryRunStore()
    run_ids = put(store, *("a" for _ in errors))
    for run_id, error in zip(run_ids, errors, strict=True):
        if error == "cancelled":
            store.cancel(run_id, "", now=START)
            continue
        key = claim(store)[:2]
        store.finish([Failed(*key, Failure(error, "")) if error else Succeeded(*key, b"")], now=START)
    assert watching.exit_status(watching.ended(store, run_ids)) == status


def test_a_run_is_followed_over_its_attempts_to_its_end(store: RunStore) -> None:
    (run_id,) = put(store, "a")
    first = claim(store)
    store.add_logs(*first[:2], [line("1")])
    failure = Failure("Trapped", "")

    def again() -> None:
        store.finish([Retry(*first[:2], START, failure, logs=[line("2")])], now=START)

    def die() -> None:
        store.finish([Dead(*claim(store)[:2], failure, logs=[line("3"), line("4")])], now=START)

    meanwhile = Meanwhile(again, die)
    seen = []
    for found in watching.follow_run(store, run_id):
        seen.append((found.attempt, found.entry.message))
        meanwhile.go_on()
    meanwhile.join()
    assert seen == [(1, "1"), (1, "2"), (2, "3"), (2, "4")]
    assert [found.entry.message for found in watching.follow_run(store, run_id, after=(1, 2))] == ["3", "4"]


def test_all_runs_of_a_job_are_followed(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAGE", 2)
    put(store, "a", "b", "a")
    first, other, last = claim(store), claim(store), claim(store)
    store.add_logs(*first[:2], [line("before")])
    after = store.tail(RunFilter(job="a")).after
    meanwhile = Meanwhile(
        lambda: store.add_logs(*last[:2], [line("3")]),
        lambda: store.add_logs(*first[:2], [line("4"), line("5"), line("6")]),
    )
    store.add_logs(*first[:2], [line("1")])
    store.add_logs(*other[:2], [line("not mine")])
    store.add_logs(*last[:2], [line("2")])
    seen: list[str] = []
    for found in watching.follow(store, RunFilter(job="a"), after=after):
        seen.append(found.entry.message)
        if found.entry.message in "23":
            meanwhile.go_on()
        if found.entry.message == "6":
            break
    meanwhile.join()
    assert seen == ["1", "2", "3", "4", "5", "6"]


def test_the_newest_lines_of_a_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAGE", 2)
    (run_id,) = put(store, "a")
    store.add_logs(*claim(store)[:2], [line(str(number)) for number in range(7)])
    assert [found.entry.message for found in watching.newest_of(store, run_id, 3)] == ["4", "5", "6"]
    assert len(list(watching.lines_of(store, run_id))) == 7
