"""Small parts of the daemon: what its main thread sleeps on, the watch of a file, housekeeping, counts."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from runner_sqlite.runs import SqliteRunStore

from runner import housekeeping, tally, tending
from runner.daemon import Daemon
from runner.errors import StoreGone, StoreLocked
from runner.filewatch import FileWatch
from runner.housekeeping import Housekeeper
from runner.journal import Journal
from runner.reactor import Reactor
from runner.runs import Claim, Dead, Failure, Lost, Retry, RunStatus, Succeeded
from runner.tally import Tally
from runner.tending import Tender
from runner.testing.runs_bench import START, at, new
from tests.support import eventually, open_descriptors
from tests.test_outcomes import claim

# What the main thread sleeps on


def test_a_signal_ends_the_sleep_wherever_it_comes() -> None:
    heard: list[int] = []
    before = open_descriptors()
    handler = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    reactor = Reactor()
    with closing(reactor), reactor.hearing_signals():
        # To another thread: the main one, which runs the handler, is not interrupted by it.
        other = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
        other.start()
        begun = time.monotonic()
        while not heard:
            reactor.turn(30)
        assert time.monotonic() - begun < 20
        other.join()
    signal.signal(signal.SIGUSR1, handler)
    assert signal.set_wakeup_fd(-1) == -1
    assert open_descriptors() == before


def test_a_reactor_reacts_to_what_is_readable() -> None:
    with closing(Reactor()) as reactor:
        reader, writer = os.pipe()
        seen: list[bytes] = []
        reactor.on(reader, lambda: seen.append(os.read(reader, 100)))
        reactor.turn(0)
        assert seen == []
        os.write(writer, b"x")
        reactor.turn(100)
        assert seen == [b"x"]
        os.close(reader)
        os.close(writer)


def test_a_reactor_is_woken_by_any_thread_and_once() -> None:
    with closing(Reactor()) as reactor:
        thread = threading.Timer(0.05, reactor.wake)
        thread.start()
        reactor.turn(100)
        thread.join()
        for _ in range(1000):
            reactor.wake()
        reactor.turn(100)
        begun = time.monotonic()
        reactor.turn(0.05)
        assert time.monotonic() - begun >= 0.05


def test_a_closed_reactor_is_woken_in_vain() -> None:
    before = open_descriptors()
    reactor = Reactor()
    reactor.close()
    reactor.close()
    reactor.wake()
    assert open_descriptors() == before


# Watching a file


def put(path: Path) -> None:
    path.with_suffix(".new").write_text("new")
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [lambda path: path.write_text("new"), put])
def test_a_watch_tells_of_its_file(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text("old")
    with FileWatch(path) as watch:
        assert not watch.changed()
        (tmp_path / "other").write_text("x")
        (tmp_path / "jobs.yaml.swp").write_text("x")
        path.read_text()
        assert not watch.changed()
        change(path)
        assert watch.changed()
        assert not watch.changed()
        path.unlink()
        assert not watch.changed(), "what is gone cannot be taken up"
        path.write_text("again")
        assert watch.changed()


def test_a_watch_tells_of_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    # As a mounted ConfigMap is replaced: jobs.yaml -> ..data/jobs.yaml, ..data -> a folder of its own.
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "jobs.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "jobs.yaml").symlink_to("..data/jobs.yaml")
    with FileWatch(tmp_path / "jobs.yaml") as watch:
        assert not watch.changed()
        (tmp_path / "..new").symlink_to("2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert select.select([watch], [], [], 5)[0]
        assert watch.changed()
        assert not watch.changed()


def test_a_watch_keeps_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    with FileWatch(tmp_path / "jobs.yaml"):
        pass
    with pytest.raises(OSError, match="No such file"):
        FileWatch(tmp_path / "none" / "jobs.yaml")
    assert open_descriptors() == before


# Housekeeping


class House:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.pruned = self.loaded = 0
        self.more = 3
        self.failure: BaseException | None = None
        self.told: list[str] = []
        self.broke: list[BaseException] = []
        self.keeper = Housekeeper(
            prune=self.prune, load_again=self.load_again, tell=self.told.append, broken=self.broke.append
        )

    def prune(self) -> bool:
        self.pruned += 1
        if self.failure is not None:
            raise self.failure
        return self.pruned < self.more

    def load_again(self) -> None:
        self.loaded += 1


def test_housekeeping_prunes_until_there_is_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "STEP_SECONDS", 0.0)
    house = House()
    house.keeper.start()
    eventually(lambda: house.pruned == 3)
    house.keeper.reload()
    eventually(lambda: house.loaded == 1)
    house.keeper.stop()
    assert (house.pruned, house.loaded, house.broke) == (3, 1, [])


def test_housekeeping_loads_between_two_steps() -> None:
    house = House()
    house.more = 1_000_000
    house.keeper.start()
    for number in (1, 2, 3):
        house.keeper.reload()
        eventually(lambda wanted=number: house.loaded == wanted)  # type: ignore[misc]
    house.keeper.stop()


def test_what_stands_in_the_way_of_pruning_is_told() -> None:
    house = House()
    house.failure = StoreLocked("busy")
    house.keeper.start()
    eventually(lambda: house.told)
    house.keeper.reload()
    eventually(lambda: house.loaded)
    house.keeper.stop()
    assert house.told == ["what is past its retention could not be pruned: busy"]


def test_what_nobody_foresaw_in_housekeeping_is_no_secret() -> None:
    house = House()
    house.failure = KeyError("a bug")
    house.keeper.start()
    eventually(lambda: house.broke == [house.failure])
    house.keeper.stop()


def test_housekeeping_that_takes_too_long_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "STOP_SECONDS", 0.05)
    house, end = House(), threading.Event()
    monkeypatch.setattr(house.keeper, "_prune", lambda: end.wait(10))
    house.keeper.start()
    house.keeper.stop()
    end.set()


# Counts


class Told:
    """A Tally and the lines that it told."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.tally = Tally(Journal(self._stream, as_json=True), lambda: START)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


BOOM = Failure("Exited", "exited with code 3")


@pytest.mark.parametrize(
    ("outcome", "status", "level", "words"),
    [
        (Retry(7, 9, at(2), BOOM), RunStatus.PENDING, "warning", "tries again in 2.0 s: exited with code 3"),
        (Retry(7, 9, at(2), BOOM), RunStatus.CANCELLED, "warning", "is cancelled: exited with code 3"),
        (Dead(7, 9, BOOM), RunStatus.DEAD, "error", "is dead: exited with code 3"),
        (Lost(7, 9, BOOM), RunStatus.PENDING, "warning", "runs again: exited with code 3"),
        (Lost(7, 9, BOOM), RunStatus.DEAD, "error", "is dead: exited with code 3"),
        (Dead(7, 9, BOOM), None, "warning", "is refused: its lease was lost: exited with code 3"),
    ],
)
def test_each_failure_has_a_line(outcome: Any, status: RunStatus | None, level: str, words: str) -> None:
    told = Told()
    told.tally.ended([claim()], [outcome], [status])
    (line,) = told.lines
    assert (line["level"], line["message"]) == (level, f"run 7 of work {words}")
    assert (line["run_id"], line["attempt"], line["error_class"]) == (7, 1, "Exited")


def test_health_is_told_when_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "HEALTH_SECONDS", 0.0)
    told = Told()
    assert told.tally.seconds_to_health() is None
    ended(told.tally, 3)
    assert told.tally.seconds_to_health() == 0
    told.tally.tell_health(1, 2)
    (line,) = told.lines
    assert (line["message"], line["succeeded"]) == ("health: 1 of 2 lanes busy", 3)
    assert told.tally.seconds_to_health() is None
    assert told.tally.totals() == {"succeeded": 3, "failed": 0, "cancelled": 0, "dead": 0}


def ended(counted: Tally, count: int) -> None:
    claims: list[Claim] = [claim()] * count
    counted.ended(claims, [Succeeded(7, 9, b"")] * count, [RunStatus.SUCCEEDED] * count)


def test_a_refusal_is_told_once_as_long_as_it_lasts() -> None:
    told = Told()
    for _ in range(5):
        told.tally.refused(StoreLocked("busy"))
    told.tally.refused(StoreLocked("busier"))
    ended(told.tally, 1)
    ended(told.tally, 1)
    told.tally.refused(StoreLocked("busier"))
    assert [line["message"] for line in told.lines] == [
        "the store refused, trying again: busy",
        "the store refused, trying again: busier",
        "the store works again",
        "the store refused, trying again: busier",
    ]


def test_a_refusal_that_lasts_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "HEALTH_SECONDS", 0.0)
    told = Told()
    told.tally.refused(StoreLocked("busy"))
    told.tally.refused(StoreLocked("busy"))
    assert len(told.lines) == 2


def test_threads_count_together() -> None:
    told = Told()
    threads = [
        threading.Thread(target=lambda: [ended(told.tally, 1) for _ in range(500)])  # type: ignore[func-returns-value]
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.tally.totals()["succeeded"] == 2000


# Tending


class Tended:
    """Counts how often it is tended."""

    def __init__(self, store: SqliteRunStore) -> None:
        self.times = 0
        self.failure: BaseException | None = None
        self.refused: list[BaseException] = []
        self.broke: list[BaseException] = []
        self.tender = Tender(
            store.changes(),
            seconds=lambda: 1000.0,
            tend=self.tend,
            refused=self.refused.append,
            broken=self.broke.append,
        )

    def tend(self) -> None:
        self.times += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def tended(tmp_path: Path) -> Iterator[Tended]:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:
        made = Tended(store)
        made.tender.start()
        eventually(lambda: made.times == 1)
        yield made
        made.tender.stop()


def test_what_changes_is_tended(tended: Tended, tmp_path: Path) -> None:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as other:
        for number in (2, 3):
            other.enqueue([new()], now=START)
            eventually(lambda wanted=number: tended.times >= wanted)  # type: ignore[misc]
    before = tended.times
    tended.tender.wake()
    eventually(lambda: tended.times > before)


def test_a_tending_that_the_store_refuses_is_tried_again(tended: Tended) -> None:
    tended.failure = StoreLocked("busy")
    tended.tender.wake()
    eventually(lambda: tended.refused)
    tended.failure, before = None, tended.times
    tended.tender.wake()
    eventually(lambda: tended.times > before)
    assert tended.broke == []


@pytest.mark.parametrize("failure", [StoreGone("it was deleted"), KeyError("a bug")])
def test_a_tending_that_will_never_pass_ends(tended: Tended, failure: BaseException) -> None:
    tended.failure = failure
    tended.tender.wake()
    eventually(lambda: tended.broke == [failure])


def test_a_tending_that_hangs_is_left_behind(tended: Tended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "STOP_SECONDS", 0.05)
    hanging, end = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        end.wait(10)

    monkeypatch.setattr(tended.tender, "_tend", hang)
    tended.tender.wake()
    assert hanging.wait(10)
    tended.tender.stop()
    end.set()


def test_it_need_not_have_begun(tmp_path: Path) -> None:
    with closing(SqliteRunStore.open(tmp_path / "runner.db")) as store:
        before = open_descriptors()
        made = Tended(store)
        made.tender.stop()
        made.tender.stop()
        assert open_descriptors() == before


# Signals before it serves


def test_a_signal_before_there_is_anything_to_drain_ends_it() -> None:
    daemon = object.__new__(Daemon)
    daemon._state = "starting"
    with pytest.raises(SystemExit) as ended_by:
        daemon.stop(15)
    assert ended_by.value.code == 0
