"""The run store `sqlite` keeps the contract."""

from __future__ import annotations

from pathlib import Path

from runner_sqlite.runs import SqliteRunStore

from runner.run_store import RunStore
from runner.testing import RunStoreContract


class TestSqliteRunStore(RunStoreContract):
    def make_store(self, folder: Path) -> RunStore:
        return SqliteRunStore.open(folder / "runner.db")
