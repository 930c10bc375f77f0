"""Where idle lanes wait: one listens at a time, each change wakes one, time wakes one, and nobody polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from runner_sqlite.runs import SqliteRunStore

from runner import doorbell as doorbell_module
from runner.doorbell import Doorbell
from runner.testing.runs_bench import START, new
from tests.support import eventually, open_descriptors


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRunStore]:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as opened:
        yield opened


class Waiters:
    """Threads that wait at a doorbell, each once."""

    def __init__(self, doorbell: Doorbell, count: int) -> None:
        self.woken = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._wait, args=(doorbell,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _wait(self, doorbell: Doorbell) -> None:
        doorbell.wait()
        with self._lock:
            self.woken += 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def never() -> float | None:
    return None


def test_each_change_wakes_one(store: SqliteRunStore) -> None:
    with closing(Doorbell(store.changes(), never)) as doorbell:
        waiters = Waiters(doorbell, 3)
        for number in (1, 2, 3):
            store.enqueue([new()], now=START)
            eventually(lambda wanted=number: waiters.woken >= wanted)  # type: ignore[misc]
        waiters.join()


def test_a_change_before_the_wait_is_not_missed(store: SqliteRunStore) -> None:
    with closing(Doorbell(store.changes(), never)) as doorbell:
        store.enqueue([new()], now=START)
        doorbell.wait()


def test_ringing_wakes_one_who_waits_or_the_next_who_will(store: SqliteRunStore) -> None:
    with closing(Doorbell(store.changes(), never)) as doorbell:
        doorbell.ring()
        doorbell.wait()
        waiters = Waiters(doorbell, 2)
        doorbell.ring()
        eventually(lambda: waiters.woken == 1)
        doorbell.ring()
        waiters.join()


@pytest.mark.parametrize("seconds", [0.05, 0.0, -5.0])
def test_time_wakes_one(store: SqliteRunStore, seconds: float) -> None:
    with closing(Doorbell(store.changes(), lambda: seconds)) as doorbell:
        begun = time.monotonic()
        doorbell.wait()
        assert time.monotonic() - begun >= seconds


def test_no_wait_is_for_ever(store: SqliteRunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell_module, "LONGEST_SECONDS", 0.05)
    due: Callable[[], float | None]
    for due in (never, lambda: 1e9):
        with closing(Doorbell(store.changes(), due)) as doorbell:
            doorbell.wait()


def test_open_nobody_waits_any_more(store: SqliteRunStore) -> None:
    with closing(Doorbell(store.changes(), never)) as doorbell:
        waiters = Waiters(doorbell, 5)
        doorbell.open()
        waiters.join()
        doorbell.wait()


def test_closed_it_keeps_nothing(store: SqliteRunStore) -> None:
    before = open_descriptors()
    doorbell = Doorbell(store.changes(), never)
    doorbell.close()
    doorbell.close()
    assert open_descriptors() == before
