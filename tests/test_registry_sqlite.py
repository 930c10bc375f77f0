"""The registry `sqlite` keeps the registry contract, with several processes at once, through kills and
through changes of its schema. How it fails is in test_registry_sqlite_failures.py."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from runner_sqlite import migrations, runner_registries
from runner_sqlite.connection import Store, database
from runner_sqlite.functions import SqliteRegistry
from runner_sqlite.settings import SqliteSettings

from runner.contracts import FunctionRegistry, Host
from runner.errors import StoreError, UsageError
from runner.models import LogEntry, LogLevel, Rights
from runner.testing import RegistryContract
from runner.testing.registry import definition, in_threads, module
from runner.wasm import content_id

MODULE_BYTES = 200_000

REGISTER_FOR_EVER = f"""
import sys
from pathlib import Path
from runner.models import FunctionDefinition
from runner_sqlite.functions import SqliteRegistry

path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
registry = SqliteRegistry(path)
for n in range(first, first + count):
    registry.register(FunctionDefinition(name="clean", namespace="shop"), n.to_bytes(4, "big") * ({MODULE_BYTES} // 4))
    print(n, flush=True)
"""
"""A process that registers modules first, first + 1, ... and acknowledges each on stdout."""

OF_THE_FIRST_SCHEMA = (
    "INSERT INTO functions (id, name, namespace, version, wasm_cid, memory_limit_mb, timeout_seconds, is_public, "
    "retry_count, retry_delay_seconds, status, created_at, updated_at, env_vars, executor, secrets) "
    "VALUES ('1', 'clean', 'shop', 1, ?, 64, 30, 0, 0, 5, 'active', ?, ?, '{}', 'auto', '[]')",
    (content_id(module("a")), "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"),
)
"""Puts a function into a store of the first schema."""


class TestSqliteRegistry(RegistryContract):
    def make_registry(self, folder: Path) -> FunctionRegistry:
        return SqliteRegistry(folder / "runner.db")


def start_registering(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", REGISTER_FOR_EVER, str(path), str(first), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def stored_modules(path: Path) -> list[int]:
    """The modules of all versions in order, each whole and verified, after an integrity check."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    with closing(SqliteRegistry(path)) as registry:
        versions = list(registry.versions("shop", "clean"))[::-1]
        assert [f.version for f in versions] == list(range(1, len(versions) + 1))
        modules = [registry.get_wasm_bytes(f.wasm_cid) for f in versions]
    assert {len(wasm) for wasm in modules} == {MODULE_BYTES}
    return [int.from_bytes(wasm[:4], "big") for wasm in modules]


# The provider


def test_hook_runner_registries(tmp_path: Path) -> None:
    (provider,) = runner_registries()
    assert (provider.name, provider.settings) == ("sqlite", SqliteSettings)
    host = Host(project_dir=tmp_path, state_dir=tmp_path / ".runner", get_wasm_bytes=lambda _: b"")
    for settings, file in [
        (None, ".runner/runner.db"),
        (SqliteSettings(), ".runner/runner.db"),
        (SqliteSettings(path=Path("data/other.db")), "data/other.db"),
        (SqliteSettings(path=tmp_path / "absolute.db"), "absolute.db"),
    ]:
        with closing(provider.create(settings, host)) as registry:
            registry.register(definition(), module("a"))
            assert registry.get("shop", "clean").created_by
        assert (tmp_path / file).is_file()
    assert (tmp_path / ".runner").stat().st_mode & 0o077 == 0


def modules_after(code: str, *arguments: object) -> set[str]:
    """The modules that a fresh interpreter has imported after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout
    return set(output.split())


def test_listing_the_plugin_imports_no_database() -> None:
    imported = modules_after("import runner_sqlite; runner_sqlite.runner_registries()")
    assert "runner_sqlite" in imported
    assert not imported & {"sqlite3", "sqlite_utils"}


def test_an_invocation_does_not_wait_for_sqlite_utils(tmp_path: Path) -> None:
    """Its import takes longer than all the rest: reading, logging and checking for changes do without."""
    with closing(SqliteRegistry(tmp_path / "runner.db")) as registry:
        registry.register(definition(), b"wasm")
    imported = modules_after(
        """
from pathlib import Path
from runner.models import FunctionDefinition, LogEntry, LogLevel
from runner_sqlite.functions import SqliteRegistry
registry = SqliteRegistry(Path(sys.argv[1]))
function = registry.get("shop", "clean")
assert registry.get_wasm_bytes(function.wasm_cid) == b"wasm"
registry.add_logs(function, "1", [LogEntry(LogLevel.INFO, "x", 1.0)])
assert registry.register(FunctionDefinition(name="clean", namespace="shop"), b"wasm") == function
""",
        tmp_path / "runner.db",
    )
    assert "sqlite3" in imported
    assert "sqlite_utils" not in imported


# Several processes, threads, kills


def test_processes_that_start_at_once_on_no_file_get_a_version_each(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    processes = [start_registering(path, first * 100, 5) for first in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    acknowledged = [int(line) for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(acknowledged) == 20
    assert sorted(stored_modules(path)) == sorted(acknowledged)


def test_a_kill_while_registering_leaves_no_half_function(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    chance = random.Random(2013)
    acknowledged: list[int] = []
    for round_ in range(6):
        process = start_registering(path, round_ * 1000, 1000)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        acknowledged.append(int(process.stdout.readline()))
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout]
        process.stdin.close()
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGKILL
        stored = stored_modules(path)
        # At most the one that was being written may be there without having been acknowledged.
        extra = set(stored) - set(acknowledged)
        assert set(acknowledged) <= set(stored)
        assert len(extra) <= 1
        acknowledged += extra


def test_connections_are_as_many_as_are_in_use_and_closed_with_the_store(tmp_path: Path) -> None:
    def open_files() -> list[str]:
        links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return [link for link in links if link.startswith(str(tmp_path))]

    registry = SqliteRegistry(tmp_path / "runner.db")
    registry.register(definition(), module("a"))
    for _ in range(5):
        in_threads(3, lambda _: registry.get("shop", "clean"))
    assert 1 <= sum(link.endswith("runner.db") for link in open_files()) <= 3
    registry.close()
    assert open_files() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["runner.db"]
    with pytest.raises(UsageError, match="closed"):
        registry.get("shop", "clean")


def test_a_store_is_not_carried_over_a_fork(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "runner.db")) as store:
        child = os.fork()
        if child == 0:
            try:
                with store.read():
                    os._exit(1)
            except UsageError:
                os._exit(7)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "runner.db")) as store, store.write() as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


# Logs and clock


def test_only_the_newest_log_lines_of_a_function_are_kept(tmp_path: Path) -> None:
    with closing(SqliteRegistry(tmp_path / "runner.db", log_lines=10)) as registry:
        for name in ("clean", "other"):
            registry.register(definition(name), module("a"))
        lines = [LogEntry(LogLevel.INFO, str(n), float(n)) for n in range(35)]
        registry.add_logs(registry.get("shop", "other"), "1", lines[:3])
        for start in range(0, 35, 7):
            registry.add_logs(registry.get("shop", "clean"), "1", lines[start : start + 7])
        assert list(registry.get_logs("shop", "clean")) == lines[-10:]
        assert list(registry.get_logs("shop", "other")) == lines[:3]
        registry.add_logs(registry.get("shop", "other"), "2", lines)
        assert list(registry.get_logs("shop", "other")) == lines[-10:]


def test_the_clock_is_an_argument(tmp_path: Path) -> None:
    moment = datetime(2013, 1, 1, 12, 30, 0, 250, tzinfo=timezone.utc)
    with closing(SqliteRegistry(tmp_path / "runner.db", now=lambda: moment)) as registry:
        registry.register(definition(), module("a"))
        assert registry.get("shop", "clean").created_at == moment


# The schema


def test_columns_have_the_names_of_the_contract(tmp_path: Path) -> None:
    with closing(SqliteRegistry(tmp_path / "runner.db")) as registry:
        registry.register(definition(), module("a"))
        function = registry.get("shop", "clean")
    with closing(sqlite3.connect(tmp_path / "runner.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(functions)")]
    assert sorted(columns) == sorted(function.__dataclass_fields__)


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runner.db"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        Store(path).close()
    assert "logs" not in tables(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO blobs VALUES (?, 1, ?)", (content_id(module("a")), module("a")))
        connection.execute(*OF_THE_FIRST_SCHEMA)
        connection.commit()
    with closing(SqliteRegistry(path)) as registry:
        function = registry.get("shop", "clean")
        assert (function.memory_limit_mb, function.allow, function.pure) == (64, Rights(), False)
        assert registry.register(definition(), module("a")) == function
        assert [each.version for each in registry.versions("shop", "clean")] == [1]
        registry.add_logs(function, "1", [LogEntry(LogLevel.INFO, "x", 1.0)])
    with closing(sqlite3.connect(path)) as connection:
        steps = connection.execute("SELECT number, name FROM migrations ORDER BY number").fetchall()
    assert steps == [
        (1, "functions_and_blobs"),
        (2, "logs"),
        (3, "runs"),
        (4, "rights"),
        (5, "purity"),
        (6, "pipelines"),
        (7, "reuse"),
        (8, "recordings"),
        (9, "pipelines_tried"),
    ]


def test_an_interrupted_migration_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runner.db"
    Store(path).close()
    before = tables(path)

    def broken(db: Any) -> None:
        db.table("later").create({"id": str})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, lambda db: db["a"].create({"b": int}), broken))
        with pytest.raises(KeyboardInterrupt):
            Store(path)
    assert tables(path) == before
    Store(path).close()


def test_applying_migrations_again_changes_nothing(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "runner.db")) as store, store.write() as connection:
        before = connection.total_changes
        migrations.apply(database(connection), store.path)
        assert connection.total_changes == before


def test_a_store_of_a_newer_runner_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runner.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'later', '2030-01-01T00:00:00+00:00', '7.8.9')")
    with pytest.raises(StoreError, match=r"runner\.db has schema 99, made by runner 7\.8\.9; this is runner [0-9.]+, "):
        Store(path)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id)")
    with pytest.raises(StoreError, match=r"something else \(it has the table 'orders'\)"):
        Store(path)
    assert tables(path) == {"orders"}


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
