"""How the registry `sqlite` fails: damaged, locked, full, read-only and vanished files, each a clear
error with nothing half done."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from runner_sqlite import connection as connection_module
from runner_sqlite import migrations
from runner_sqlite.connection import Store
from runner_sqlite.functions import SqliteRegistry

from runner.errors import (
    InvalidInput,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)
from runner.models import LogEntry, LogLevel
from runner.testing.registry import definition, in_threads, module
from tests.disks import fill, read_only_folder, small_disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one function, its module and a log line, closed."""
    return make_store(tmp_path / "runner.db")


def make_store(path: Path) -> Path:
    with closing(SqliteRegistry(path)) as registry:
        registry.register(definition(env_vars={"REGION": "eu"}), module("a", 20_000))
        registry.add_logs(registry.get("shop", "clean"), "1", [LogEntry(LogLevel.INFO, "kept", 1.0)])
    return path


def change(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def use_everything(path: Path) -> bytes:
    """Every kind of reading and writing once; the module's bytes."""
    with closing(SqliteRegistry(path)) as registry:
        function = registry.get("shop", "clean")
        wasm = registry.get_wasm_bytes(function.wasm_cid)
        registry.list("shop")
        registry.versions("shop", "clean")
        registry.get_logs("shop", "clean")
        registry.add_logs(function, "2", [LogEntry(LogLevel.INFO, "x", 2.0)])
        registry.register(definition(), module("b", 20_000))
        registry.delete("shop", "clean", 1)
    return wasm


# Damage


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreDamaged) as caught:
        SqliteRegistry(path)
    for words in (str(path), "move runner.db", "`runner run` makes a new store"):
        assert words in str(caught.value)
    path.rename(tmp_path / "away.db")
    make_store(path)
    assert use_everything(path) == module("a", 20_000)


def test_flipped_bytes_anywhere_give_an_error_of_ours_or_the_right_module(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    copy = tmp_path / "copy.db"
    damaged = 0
    for offset in range(0, len(whole), 509):
        content = bytearray(whole)
        content[offset : offset + 8] = bytes(byte ^ 0xFF for byte in content[offset : offset + 8])
        copy.write_bytes(content)
        try:
            assert use_everything(copy) == module("a", 20_000)
        except (StoreError, InvalidInput) as error:
            damaged += isinstance(error, StoreDamaged)
        for file in tmp_path.glob("copy.db*"):
            file.unlink()
    assert damaged >= 30


@pytest.mark.parametrize("size", [1, 99, 100, 511, 512, 2000, 4096, 10_000])
def test_a_truncated_file_is_damaged(path: Path, size: int) -> None:
    os.truncate(path, size)
    with pytest.raises(StoreDamaged, match=r"runner\.db"):
        use_everything(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "broken"),
        ("created_at", "yesterday"),
        ("updated_at", "2020-01-01"),
        ("env_vars", "{"),
        ("secrets", 7),
        ("allow", '{"fly": ["home"]}'),
        ("allow", "7"),
    ],
)
def test_a_row_that_cannot_be_is_damage(path: Path, column: str, value: object) -> None:
    change(path, f"UPDATE functions SET {column} = ?", value)
    with closing(SqliteRegistry(path)) as registry, pytest.raises(StoreDamaged, match="runner run"):
        registry.versions("shop", "clean")


def test_a_missing_table_is_damage(path: Path) -> None:
    change(path, "DROP TABLE logs")
    with closing(SqliteRegistry(path)) as registry, pytest.raises(StoreDamaged, match="no such table: logs"):
        registry.get_logs("shop", "clean")


@pytest.mark.parametrize("damage", [module("x", 20_000), b"", "text"])
def test_a_damaged_module_is_repaired_by_registering_it_again(path: Path, damage: bytes | str) -> None:
    change(path, "UPDATE blobs SET bytes = ?", damage)
    with closing(SqliteRegistry(path)) as registry:
        function = registry.get("shop", "clean")
        with pytest.raises(StoreDamaged, match="registering its function again") as caught:
            registry.get_wasm_bytes(function.wasm_cid)
        assert function.wasm_cid in str(caught.value)
        assert registry.register(definition(env_vars={"REGION": "eu"}), module("a", 20_000)) == function
        assert registry.get_wasm_bytes(function.wasm_cid) == module("a", 20_000)
        assert len(registry.versions("shop", "clean")) == 1
        change(path, "UPDATE blobs SET bytes = ?", damage)
        registry.register(definition("other"), module("a", 20_000))
        assert registry.get_wasm_bytes(function.wasm_cid) == module("a", 20_000)


def test_a_file_that_vanishes_while_open_takes_no_more_writes(path: Path) -> None:
    with closing(SqliteRegistry(path)) as registry:
        for how in (path.unlink, lambda: make_store(path)):
            how()
            with pytest.raises(StoreError, match="deleted or replaced while it was open"):
                registry.register(definition(), module("b"))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file"):
        Store(tmp_path)


def test_a_file_where_its_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/runner\.db"):
        Store(tmp_path / "file" / "runner.db")


@pytest.mark.parametrize("name", ["with space.db", "100%25.db", "a?mode=ro.db", "a#b.db", "größe.db", "\udcff.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    make_store(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_values_that_do_not_fit_are_the_callers_fault(path: Path) -> None:
    with closing(SqliteRegistry(path)) as registry:
        with pytest.raises(InvalidInput, match="too large"):
            registry.register(definition("large", retry_count=2**63), module("b"))
        with pytest.raises(InvalidInput, match="surrogates"):
            registry.register(definition("\udcff"), module("b"))
        assert [f.name for f in registry.list("shop")] == ["clean"]


# Locked


def test_a_store_that_another_holds_is_locked_for_writing_only(path: Path) -> None:
    with closing(SqliteRegistry(path, busy_timeout_seconds=0.1)) as registry:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreLocked, match=r"runner\.db is locked"):
                registry.register(definition(), module("b"))
            assert registry.get("shop", "clean").version == 1
        registry.register(definition(), module("b"))
        assert registry.get("shop", "clean").version == 2


def test_threads_wait_for_each_other_no_longer_than_for_others(path: Path) -> None:
    with closing(Store(path, busy_timeout_seconds=0.1)) as store, store.write():

        def write(_: int) -> str:
            try:
                with store.write():
                    return "written"
            except StoreLocked:
                return "locked"

        assert in_threads(2, write) == ["locked", "locked"]


# Full


def test_a_store_that_may_not_grow_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_PRAGMAS", f"{connection_module._PRAGMAS} PRAGMA max_page_count = 60;")
    assert_full(path)


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        assert_full(make_store(disk / "runner.db"))
        filler = disk / "filler"
        fill(filler)
        with pytest.raises(StoreFull, match="no room is left"):
            make_store(disk / "other.db")
        filler.unlink()
        make_store(disk / "other.db")


def assert_full(path: Path) -> None:
    """Registering 2 MB fails and changes nothing; what fits is still taken."""
    with closing(SqliteRegistry(path)) as registry:
        before = registry.get("shop", "clean")
        for name in ("clean", "other"):
            with pytest.raises(StoreFull, match=r"runner\.db; make room"):
                registry.register(definition(name), module("large", 2_000_000))
        assert list(registry.list("shop")) == [before]
        assert registry.register(definition(), module("small")) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT COUNT(*) FROM blobs").fetchall() == [(2,)]


# Read-only


def test_a_read_only_folder_can_be_read(path: Path) -> None:
    with read_only_folder(path.parent) as folder, closing(SqliteRegistry(folder / "runner.db")) as registry:
        function = registry.get("shop", "clean")
        assert registry.get_wasm_bytes(function.wasm_cid) == module("a", 20_000)
        assert [entry.message for entry in registry.get_logs("shop", "clean")] == ["kept"]
        unchanged = registry.register(definition(env_vars={"REGION": "eu"}), module("a", 20_000))
        assert unchanged == function
        for write in (
            lambda: registry.register(definition(), module("b")),
            lambda: registry.delete("shop", "clean"),
            lambda: registry.add_logs(function, "1", [LogEntry(LogLevel.INFO, "x", 1.0)]),
        ):
            with pytest.raises(StoreReadOnly, match=r"runner\.db is read-only; make"):
                write()


def test_a_read_only_folder_with_changes_beside_the_file(path: Path) -> None:
    """A store that was copied, or whose process was killed, before its log was merged."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE logs SET message = 'changed'")
        other.commit()
        copies = path.parent / "copies"
        copies.mkdir()
        for name in ("runner.db", "runner.db-wal"):
            shutil.copy(path.with_name(name), copies)
    with read_only_folder(copies) as folder, pytest.raises(StoreReadOnly, match=r"changes in runner\.db-wal"):
        SqliteRegistry(folder / "runner.db")
    with closing(SqliteRegistry(copies / "runner.db")) as registry:
        assert [entry.message for entry in registry.get_logs("shop", "clean")] == ["changed"]


def test_a_read_only_folder_without_a_store(tmp_path: Path) -> None:
    with read_only_folder(tmp_path) as folder:
        for missing in (folder / "runner.db", folder / ".runner" / "runner.db"):
            with pytest.raises(StoreReadOnly, match="make the file and its folder"):
                SqliteRegistry(missing)


def test_a_read_only_store_of_an_older_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        Store(tmp_path / "runner.db").close()
    with read_only_folder(tmp_path) as folder, pytest.raises(StoreReadOnly, match="make it writable once"):
        SqliteRegistry(folder / "runner.db")
