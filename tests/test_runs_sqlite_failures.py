"""How the run store `sqlite` fails: full, read-only, damaged, locked and vanished files, each a clear error,
and whatever was acknowledged is still there."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from runner_sqlite import connection as connection_module
from runner_sqlite.connection import Store
from runner_sqlite.runs import SqliteRunStore

from runner.errors import InvalidInput, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreReadOnly
from runner.ledger import Retention, RunFilter, SlotEntry
from runner.models import LogEntry, LogLevel
from runner.runs import Dead, RunStatus, Succeeded
from runner.testing.runs_bench import BOOM, START, at, claimant, new, succeeded
from tests.disks import fill, read_only_folder, small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "runner.db")


def make_store(path: Path) -> Path:
    """A store with a run that has succeeded, one that is dead, one that is running and one that is pending."""
    with closing(SqliteRunStore.open(path)) as store:
        store.enqueue([new(payload=b"%d" % n, dlq_topic="dead") for n in range(4)], now=START)
        first, second, _ = store.claim(claimant(), 3, now=START)
        store.finish([succeeded(first), Dead(*second[:2], BOOM)], now=START)
    return path


def assert_nothing_is_lost(path: Path) -> None:
    with closing(SqliteRunStore.open(path)) as store:
        runs = store.list_runs(RunFilter(created_before=at(1)), limit=4)[::-1]
        assert [store.payload(run.run_id) for run in runs] == [b"0", b"1", b"2", b"3"]
        assert [run.status.value for run in runs] == ["succeeded", "dead", "running", "pending"]
        assert store.result(1) == b"out"
        assert len(store.dead_letters()) == 1


WRITES: dict[str, Callable[[SqliteRunStore], object]] = {
    "enqueue": lambda store: store.enqueue([new(payload=bytes(600_000))] * 4, now=at(5)),
    "claim": lambda store: store.claim(claimant("two"), 1, now=at(5)),
    "finish": lambda store: store.finish([late_success(store)], now=at(5)),
    "cancel": lambda store: store.cancel(4, "", now=at(5)),
    "redrive": lambda store: store.redrive(now=at(5)),
    "publish": lambda store: store.publish("t", [bytes(600_000)] * 4, now=at(5)),
    "record_slots": lambda store: store.record_slots([SlotEntry.skipped("t", at(5), "x")], now=at(5)),
    "add_logs": lambda store: store.add_logs(3, store.get(3).attempts, [LogEntry(LogLevel.INFO, "x", 0.0)]),
}
"""Every kind of writing."""

READS: dict[str, Callable[[SqliteRunStore], object]] = {
    "get": lambda store: store.get(1),
    "list_runs": lambda store: store.list_runs(RunFilter()),
    "attempts": lambda store: store.attempts(2),
    "why": lambda store: store.why(2, now=at(5)),
    "depth": lambda store: store.depth(now=at(5)),
    "dead_letters": lambda store: store.dead_letters(),
    "read_topic": lambda store: store.read_topic("dead"),
    "next_due": lambda store: store.next_due("shop"),
}


def late_success(store: SqliteRunStore) -> Succeeded:
    """The run that is running ends well, with an output that takes room."""
    with store._store.read() as connection:
        (token,) = connection.execute("SELECT token FROM queue WHERE run_id = 3").fetchone()
    return Succeeded(3, token, bytes(3_000_000))


# Full


def test_a_store_that_may_not_grow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_PRAGMAS", f"{connection_module._PRAGMAS} PRAGMA max_page_count = 100;")
    with closing(SqliteRunStore.open(path)) as store:
        for name in ("enqueue", "finish", "publish"):
            with pytest.raises(StoreFull, match=r"runner\.db; make room"):
                WRITES[name](store)
        assert store.get(3).status is RunStatus.RUNNING
        assert store.depth(now=START).ready == 1
    assert_nothing_is_lost(path)


def test_a_full_disk_and_then_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = make_store(disk / "runner.db")
        with closing(SqliteRunStore.open(path)) as store:
            accepted = 4
            filler = disk / "filler"
            fill(filler)
            with suppress(StoreFull):
                while True:
                    accepted = store.enqueue([new(payload=bytes(500))], now=at(5))[0].run_id
            with pytest.raises(StoreFull):
                WRITES["finish"](store)
            filler.unlink()
            assert store.enqueue([new()], now=at(5))[0].run_id == accepted + 1
            runs = store.list_runs(RunFilter(), limit=100_000)
            assert [run.run_id for run in runs] == list(range(accepted + 1, 0, -1))
        assert_nothing_is_lost(path)


# Read-only


def test_a_read_only_store_is_read_and_nothing_more(path: Path) -> None:
    with read_only_folder(path.parent) as folder, closing(SqliteRunStore.open(folder / path.name)) as store:
        for read in READS.values():
            read(store)
        for name, write in WRITES.items():
            if name != "finish":
                with pytest.raises(StoreReadOnly, match="read-only"):
                    write(store)
        with pytest.raises(StoreReadOnly):
            store.changes()


# Damage


def tables(path: Path) -> Iterator[tuple[str, int]]:
    """Every table and index of the queue with the number of its first page."""
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.execute(
            "SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0 AND tbl_name IN "
            "('runs', 'queue', 'queues', 'leases', 'outcomes', 'attempts', 'dead_letters', 'topic_messages')"
        )


def test_a_damaged_page_is_told(path: Path) -> None:
    whole = path.read_bytes()
    told = 0
    for _, page in tables(path):
        path.write_bytes(whole[: (page - 1) * 4096] + b"\xa5" * 4096 + whole[page * 4096 :])
        told += use_everything(path)
        delete_all(path)
    assert told > 20


def use_everything(path: Path) -> int:
    """Read and write in every way; how often damage was told. Nothing but a StoreError may come of it."""
    told = 0
    try:
        with closing(SqliteRunStore.open(path)) as store:
            for ask in (*READS.values(), *WRITES.values()):
                try:
                    ask(store)
                except StoreDamaged:
                    told += 1
                except (StoreError, InvalidInput):
                    pass
    except StoreError:
        told += 1
    return told


def test_random_bytes_end_in_nothing_but_a_clear_error(path: Path) -> None:
    whole = path.read_bytes()
    chance = random.Random(7)
    for _ in range(60):
        start, length = chance.randrange(100, len(whole) - 64), chance.choice([1, 8, 64])
        path.write_bytes(whole[:start] + chance.randbytes(length) + whole[start + length :])
        use_everything(path)
        delete_all(path)


# Locked


def test_a_store_that_another_process_keeps_busy(path: Path) -> None:
    with (
        closing(SqliteRunStore.open(path, busy_timeout_seconds=0.2)) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match="another process"):
            store.enqueue([new()], now=at(5))
        assert store.get(1).status is RunStatus.SUCCEEDED  # readers go on
        other.execute("ROLLBACK")
        store.enqueue([new()], now=at(5))
    assert_nothing_is_lost(path)


# Vanished


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").rename(path)


def delete_log(path: Path) -> None:
    path.with_name("runner.db-wal").unlink()


def delete_all(path: Path) -> None:
    for entry in path.parent.glob("runner.db*"):
        entry.unlink()


@pytest.mark.parametrize("vanish", [Path.unlink, move, replace, delete_log, delete_all])
def test_a_store_that_vanishes_acknowledges_nothing_more(path: Path, vanish: Callable[[Path], None]) -> None:
    with closing(SqliteRunStore.open(path)) as store:
        store.enqueue([new()], now=at(5))
        vanish(path)
        for name, write in WRITES.items():
            if name != "finish":
                with pytest.raises(StoreError, match="was deleted or replaced while it was open"):
                    write(store)
        with pytest.raises(StoreError, match="was deleted or replaced while it was open"):
            store.prune(Retention(), now=at(5))


def test_a_store_that_vanishes_in_the_middle_of_a_commit(path: Path) -> None:
    with closing(SqliteRunStore.open(path)) as store:

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO counters (name, value) VALUES ('x', 1)")
            path.unlink()

        with pytest.raises(StoreError, match="what was to be written now is lost"):
            store._writer.do(work)


# Values


def test_text_that_cannot_be_stored(path: Path) -> None:
    with closing(SqliteRunStore.open(path)) as store:
        for run in (new("\ud800"), new(unique_key="\udfff"), new(priority=2**70)):
            with pytest.raises(InvalidInput):
                store.enqueue([new(), run], now=at(5))
        with pytest.raises(InvalidInput):
            store.list_runs(RunFilter(job="\ud800"))
        with pytest.raises(InvalidInput):
            store.get(2**70)
        (claim,) = store.claim(claimant("two"), 1, now=at(5))
        with pytest.raises(InvalidInput):
            store.finish([Dead(*claim[:2], BOOM._replace(message="\ud800"))], now=at(5))
        assert store.get(claim.run_id).status is RunStatus.RUNNING
        text = "nul \0, ☃, 𝄞, \x1b[31m, " + "é" * 100
        (run_id,) = (made.run_id for made in store.enqueue([new(text, unique_key=text)], now=at(5)))
        assert (store.get(run_id).job, store.get(run_id).unique_key) == (text, text)
    with closing(Store(path)) as opened, opened.read() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
