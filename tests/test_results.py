"""Caches of results keep their contract; the one in a SQLite file survives what happens to files and processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from runner_sqlite.functions import SqliteRegistry
from runner_sqlite.results import SqliteResultCache

from runner.results import ResultCache
from runner.testing import MemoryRegistry, MemoryResultCache, ResultCacheContract
from runner.testing.memory_results import Entry
from runner.testing.results import NOW, ROOM, key, new

FILE = "runner-results.db"


def cache_in(folder: Path, told: list[str] | None = None, max_bytes: int = ROOM) -> SqliteResultCache:
    return SqliteResultCache(folder / FILE, max_bytes=max_bytes, tell=(told if told is not None else []).append)


class TestMemoryResultCache(ResultCacheContract):
    durable = False

    @pytest.fixture(autouse=True)
    def _shared(self) -> None:
        self._kept: dict[bytes, Entry] = {}

    def make_cache(self, folder: Path, max_bytes: int) -> ResultCache:  # noqa: ARG002
        return MemoryResultCache(max_bytes=max_bytes, kept=self._kept)


class TestSqliteResultCache(ResultCacheContract):
    def make_cache(self, folder: Path, max_bytes: int) -> ResultCache:
        return cache_in(folder, max_bytes=max_bytes)


def filled(folder: Path, count: int = 500) -> Path:
    with closing(cache_in(folder)) as cache:
        cache.put("shop", "clean", [new(n, b"output %d" % n) for n in range(count)], now=NOW)
    return folder / FILE


def found(cache: ResultCache, count: int = 500) -> int:
    """How many of `filled` are found; what is found must be right."""
    kept = cache.get([key(n) for n in range(count)], now=NOW)
    assert all(each is None or each.output == b"output %d" % n for n, each in enumerate(kept))
    return sum(each is not None for each in kept)


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    cache_in(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 500),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096)),
        lambda path: change(path, "DROP TABLE results"),
        lambda path: change(path, "PRAGMA user_version = 77"),
        lambda path: change(path, "UPDATE results SET output = 'text', rest = rest"),
    ],
    ids=["no database", "cut off", "random", "no table", "another schema", "text"],
)
def test_a_damaged_file_is_made_anew_and_that_is_told_once(tmp_path: Path, damage: object) -> None:
    path = filled(tmp_path)
    assert callable(damage)
    damage(path)
    told: list[str] = []
    with closing(cache_in(tmp_path, told)) as cache:
        assert found(cache) == 0
        cache.put("shop", "clean", [new(1, b"output 1")], now=NOW)
        cache.put("shop", "clean", [new(2, b"output 2")], now=NOW)
        assert found(cache) == 2
    assert len(told) == 1
    assert "made anew" in told[0]


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_no_flipped_bit_changes_a_result(tmp_path: Path) -> None:
    """SQLite would not see it."""
    path = filled(tmp_path)
    data = path.read_bytes()
    for position in range(4096 + 7, len(data), 997):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        with closing(cache_in(tmp_path)) as cache:
            found(cache)  # looks at each
    path.write_bytes(data.replace(b"output 77", b"output 78"))
    with closing(cache_in(tmp_path)) as cache:
        assert cache.get([key(77)], now=NOW) == [None]
        assert cache.stats().results == 499


def test_a_file_that_is_deleted_or_replaced_while_it_is_open(tmp_path: Path) -> None:
    told: list[str] = []
    with closing(cache_in(tmp_path, told)) as cache:
        cache.put("shop", "clean", [new(1)], now=NOW)
        for file in tmp_path.glob(f"{FILE}*"):
            file.unlink()
        assert cache.get([key(1)], now=NOW) == [None]
        cache.put("shop", "clean", [new(2)], now=NOW)
        with closing(cache_in(tmp_path)) as other:
            assert other.get([key(2)], now=NOW)[0] is not None
    assert told == []


def test_a_place_where_nothing_can_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    told: list[str] = []
    with closing(cache_in(tmp_path, told)) as cache:
        for _ in range(3):
            cache.put("shop", "clean", [new(1)], now=NOW)
            assert cache.get([key(1)], now=NOW) == [None]
        assert cache.clear() == 0
    assert len(told) == 1
    assert "results are not used again" in told[0]
    assert (tmp_path / FILE).is_dir()


def test_a_cache_that_somebody_holds_is_no_obstacle(tmp_path: Path) -> None:
    path = filled(tmp_path)
    told: list[str] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other, closing(cache_in(tmp_path, told)) as cache:
        other.execute("BEGIN IMMEDIATE")
        cache.put("shop", "clean", [new("late")], now=NOW)
        assert cache.get([key("late")], now=NOW) == [None]
        assert found(cache) == 500
        assert len(told) == 1
        other.execute("ROLLBACK")
        cache.put("shop", "clean", [new("late")], now=NOW)
        assert cache.get([key("late")], now=NOW)[0] is not None
    assert len(told) == 1


# Processes

WRITER = """
import sys
from pathlib import Path
from runner.testing.results import NOW, key, new
from runner_sqlite.functions import SqliteRegistry
from runner_sqlite.results import SqliteResultCache
cache = SqliteResultCache(Path(sys.argv[1]), max_bytes=1 << 20, tell=lambda message: print(message, flush=True))
first = int(sys.argv[2])
print("ready", flush=True)
for n in range(first, first + int(sys.argv[3]), 10):
    cache.put("shop", "clean", [new(i, b"output %d" % i) for i in range(n, n + 10)], now=NOW)
cache.close()
"""


def writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_write_at_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path / FILE, first, 500) for first in (0, 500, 1000)]
    assert [process.communicate(timeout=60)[0] for process in writers] == ["ready\n"] * 3
    with closing(cache_in(tmp_path)) as cache:
        assert found(cache, 1500) == 1500


def test_processes_find_a_damaged_file_at_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 500)
    writers = [writer(tmp_path / FILE, first, 500) for first in (0, 500, 1000)]
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    told: list[str] = []
    with closing(cache_in(tmp_path, told)) as cache:
        assert found(cache, 1500) > 0
    assert told == []


@pytest.mark.parametrize("round_", range(5))
def test_a_process_that_is_killed_while_it_writes_does_no_harm(tmp_path: Path, round_: int) -> None:
    process = writer(tmp_path / FILE, 0, 10_000_000)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with closing(cache_in(tmp_path)) as cache:
        while found(cache, 50 * (round_ + 1)) < 40 * round_ + 10:
            pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    told: list[str] = []
    with closing(cache_in(tmp_path, told)) as cache:
        assert found(cache, 1000) > 0
        cache.put("shop", "clean", [new("after")], now=NOW)
        assert cache.get([key("after")], now=NOW)[0] is not None
    assert told == []


def test_the_registry_keeps_results_beside_its_store(tmp_path: Path) -> None:
    with closing(SqliteRegistry(tmp_path / "shop.db")) as registry:
        cache = registry.result_cache(max_bytes=ROOM, tell=print)
        cache.put("shop", "clean", [new(1)], now=NOW)
        cache.close()
    assert (tmp_path / "shop-results.db").is_file()
    with closing(MemoryRegistry()) as memory:
        first, second = (memory.result_cache(max_bytes=ROOM, tell=print) for _ in range(2))
        first.put("shop", "clean", [new(1)], now=NOW)
        assert second.get([key(1)], now=NOW)[0] is not None
