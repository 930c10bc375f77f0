"""The schema of the store, as numbered steps that are applied in order and recorded in the store.

A step, once released, is never changed: a change is a new step at the end of MIGRATIONS. Steps use
sqlite-utils, which is imported when there is one to apply.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StoreError
from runner_sqlite import pipelines, recordings, run_tables
from runner_sqlite.failures import damaged

if TYPE_CHECKING:
    from sqlite_utils import Database

TABLE = "migrations"
"""Holds one row for each step applied."""


def _functions_and_blobs(db: Database) -> None:
    db.table("blobs").create(
        {"wasm_cid": str, "size": int, "bytes": bytes},
        pk="wasm_cid",
        not_null={"size", "bytes"},
    )
    db.table("functions").create(
        {
            "id": str,
            "name": str,
            "namespace": str,
            "version": int,
            "wasm_cid": str,
            "source_cid": str,
            "memory_limit_mb": int,
            "timeout_seconds": float,
            "is_public": int,
            "retry_count": int,
            "retry_delay_seconds": float,
            "dlq_topic": str,
            "status": str,
            "created_at": str,
            "updated_at": str,
            "created_by": str,
            "env_vars": str,
            "executor": str,
            "secrets": str,
        },
        pk="id",
        not_null={"name", "namespace", "version", "wasm_cid", "status", "created_at", "updated_at"},
        foreign_keys=[("wasm_cid", "blobs", "wasm_cid")],
    )
    # Also the way to the newest version of a function.
    db.table("functions").create_index(["namespace", "name", "version"], unique=True)


def _logs(db: Database) -> None:
    # `number` counts the lines of one function, so that the newest N are found without counting.
    db.table("logs").create(
        {
            "namespace": str,
            "name": str,
            "number": int,
            "function_id": str,
            "request_id": str,
            "level": str,
            "message": str,
            "timestamp": float,
        },
        pk=("namespace", "name", "number"),
        not_null={"function_id", "request_id", "level", "message", "timestamp"},
    )


def _runs(db: Database) -> None:
    # In SQL: sqlite-utils knows no partial indexes.
    for statement in run_tables.STATEMENTS:
        db.execute(statement)


def _rights(db: Database) -> None:
    # In JSON. Functions registered before were granted nothing.
    db.table("functions").add_column("allow", str, not_null_default="{}")


def _purity(db: Database) -> None:
    db.table("functions").add_column("pure", int, not_null_default=0)


def _pipelines(db: Database) -> None:
    for statement in pipelines.STATEMENTS:
        db.execute(statement)


def _reuse(db: Database) -> None:
    # Of runs of pure functions that succeeded, as runner.reuse writes it. In SQL: a rowid is all its key.
    db.execute("CREATE TABLE reuse (run_id INTEGER PRIMARY KEY, facts TEXT NOT NULL)")


def _recordings(db: Database) -> None:
    for statement in recordings.STATEMENTS:
        db.execute(statement)


def _pipelines_tried(db: Database) -> None:
    # How many attempts were recorded when it was last parked: what was lost before that counts no more.
    db.table("pipelines").add_column("tried", int, not_null_default=0)


MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    *(_functions_and_blobs, _logs, _runs, _rights, _purity, _pipelines),
    *(_reuse, _recordings, _pipelines_tried),
)
"""Step n brings a store from schema n - 1 to schema n."""


def are_pending(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the store lacks steps. Raises StoreError for a store of a newer runner or of something
    that is not runner."""
    return _schema(connection, path) < len(MIGRATIONS)


def apply(db: Database, path: Path) -> None:
    """Apply the steps that are still missing.

    The database must be in a write transaction: all steps and their records are committed together
    or not at all, and of two processes the second finds nothing left to do.
    """
    current = _schema(db.conn, path)
    if current == 0:
        db.table(TABLE).create(
            {"number": int, "name": str, "applied_at": str, "runner_version": str},
            pk="number",
            not_null={"name", "applied_at", "runner_version"},
        )
    for number, step in enumerate(MIGRATIONS[current:], current + 1):
        step(db)
        db.table(TABLE).insert(
            {
                "number": number,
                "name": step.__name__.lstrip("_"),
                "applied_at": datetime.now(timezone.utc).isoformat(),
                "runner_version": _runner_version(),
            }
        )


def _schema(connection: sqlite3.Connection, path: Path) -> int:
    """The number of the last step applied; 0 for an empty file."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if TABLE not in tables:
        if tables:
            raise StoreError(
                f"{path} is a database of something else (it has the table {tables[0]!r}); "
                "choose another file with `registry: {sqlite: {path: ...}}`"
            )
        return 0
    row = connection.execute(f"SELECT number, runner_version FROM {TABLE} ORDER BY number DESC").fetchone()
    number, by = row or (None, None)
    if not isinstance(number, int):
        raise damaged(path, "its schema has no number")
    if number > len(MIGRATIONS):
        raise StoreError(
            f"the store {path} has schema {number}, made by runner {by}; this is runner {_runner_version()}, "
            f"which knows schema {len(MIGRATIONS)}; update runner, or choose another file with "
            "`registry: {sqlite: {path: ...}}`"
        )
    return int(number)


def _runner_version() -> str:
    from importlib.metadata import version

    return version("runner")
