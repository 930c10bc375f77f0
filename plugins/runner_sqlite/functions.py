"""The registry `sqlite`: functions, their modules and logs in the store.

What every invocation needs (get, get_wasm_bytes, add_logs) is plain SQL; sqlite-utils, which takes
long to import, writes what is registered.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runner.contracts import FunctionRegistry
from runner.errors import FunctionNotFound, InvalidInput, UsageError
from runner.models import Function, FunctionDefinition, FunctionStatus, LogEntry, LogLevel, Rights
from runner.wasm import content_id
from runner_sqlite.connection import Store, database
from runner_sqlite.failures import damaged, damaged_module

if TYPE_CHECKING:
    from runner.results import ResultCache
    from runner.run_store import RunStore

_SETTINGS = tuple(field.name for field in fields(FunctionDefinition) if field.name != "version")
_COLUMNS = tuple(field.name for field in fields(Function))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM functions WHERE namespace = ? AND name = ?"

_TO_COLUMN: dict[str, Callable[[Any], Any]] = {
    "status": lambda status: status.value,
    "is_public": int,
    "pure": int,
    "created_at": datetime.isoformat,
    "updated_at": datetime.isoformat,
    "env_vars": lambda env_vars: json.dumps(dict(env_vars), sort_keys=True),
    "secrets": lambda secrets: json.dumps(list(secrets)),
    "allow": lambda rights: json.dumps({name: list(value) for name, value in asdict(rights).items() if value}),
}
_FROM_COLUMN: dict[str, Callable[[Any], Any]] = {
    "status": FunctionStatus,
    "is_public": bool,
    "pure": bool,
    "created_at": datetime.fromisoformat,
    "updated_at": datetime.fromisoformat,
    "env_vars": lambda text: MappingProxyType(dict(json.loads(text))),
    "secrets": lambda text: tuple(json.loads(text)),
    "allow": lambda text: Rights(**{name: tuple(value) for name, value in dict(json.loads(text)).items()}),
}


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class SqliteRegistry(FunctionRegistry):
    """A FunctionRegistry in one SQLite file, which is made when it is missing.

    `now` is the clock of created_at and updated_at; it must return aware datetimes.
    `log_lines` is how many log lines are kept for each function, `created_by` who registers.
    Every method may raise StoreError: damaged, locked, full, or read-only when it writes.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout_seconds: float = 10.0,
        log_lines: int = 10_000,
        created_by: str | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = Store(path, busy_timeout_seconds=busy_timeout_seconds)
        self._log_lines = log_lines
        self._created_by = created_by
        self._now = now
        self._run_store: RunStore | None = None
        self._run_store_lock = threading.Lock()

    def register(
        self, definition: FunctionDefinition, wasm: bytes, *, source_cid: str | None = None
    ) -> Function | None:
        """See FunctionRegistry.register. A damaged copy of these module bytes is repaired by it."""
        wasm_cid = content_id(wasm)
        key = (definition.namespace, definition.name)
        with self._store.read() as connection:
            current = self._newest_active(connection, *key)
            _check_version(definition, _next_version(connection, *key))
            if _is_same(current, definition, wasm_cid) and _has_module(connection, wasm_cid, wasm):
                return current
        with self._store.write() as connection:
            current = self._newest_active(connection, *key)
            following = _next_version(connection, *key)
            _check_version(definition, following)
            db = database(connection)
            if not _has_module(connection, wasm_cid, wasm):
                db.table("blobs").upsert({"wasm_cid": wasm_cid, "size": len(wasm), "bytes": wasm}, pk="wasm_cid")
            if not _is_same(current, definition, wasm_cid):
                db.table("functions").insert(_to_row(self._new(definition, following, wasm_cid, source_cid)))
        return current

    def get(self, namespace: str, name: str, version: int = 0) -> Function:
        """See FunctionRegistry.get."""
        wanted = "" if version == 0 else "AND version = ?"
        values = (namespace, name) if version == 0 else (namespace, name, version)
        with self._store.read() as connection:
            row = connection.execute(
                f"{_SELECT} AND status = 'active' {wanted} ORDER BY version DESC LIMIT 1", values
            ).fetchone()
            if row is None:
                raise _not_found(connection, namespace, name, version)
        return self._function(row)

    def list(self, namespace: str) -> Sequence[Function]:
        """See FunctionRegistry.list."""
        with self._store.read() as connection:
            # Beside MAX() SQLite takes the other columns from the row of the maximum.
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)}, MAX(version) FROM functions "
                "WHERE namespace = ? AND status = 'active' GROUP BY name ORDER BY name",
                (namespace,),
            ).fetchall()
        return [self._function(row[:-1]) for row in rows]

    def versions(self, namespace: str, name: str) -> Sequence[Function]:
        """See FunctionRegistry.versions."""
        with self._store.read() as connection:
            rows = connection.execute(f"{_SELECT} ORDER BY version DESC", (namespace, name)).fetchall()
            if not rows:
                raise _not_found(connection, namespace, name)
        return [self._function(row) for row in rows]

    def delete(self, namespace: str, name: str, version: int = 0) -> int:
        """See FunctionRegistry.delete."""
        with self._store.write() as connection:
            changed = connection.execute(
                "UPDATE functions SET status = 'inactive', updated_at = ? "
                "WHERE namespace = ? AND name = ? AND status = 'active' AND ? IN (0, version)",
                (self._now().isoformat(), namespace, name, version),
            ).rowcount
            if not changed:
                raise _not_found(connection, namespace, name, version)
        return changed

    def get_wasm_bytes(self, wasm_cid: str) -> bytes:
        """See FunctionRegistry.get_wasm_bytes."""
        with self._store.read() as connection:
            row = connection.execute("SELECT bytes FROM blobs WHERE wasm_cid = ?", (wasm_cid,)).fetchone()
        if row is None:
            raise InvalidInput(f"no module {wasm_cid!r} in the store {self._store.path}")
        wasm = row[0]
        if not isinstance(wasm, bytes) or content_id(wasm) != wasm_cid:
            raise damaged_module(self._store.path, wasm_cid)
        return wasm

    def add_logs(self, function: Function, request_id: str, entries: Sequence[LogEntry]) -> None:
        """See FunctionRegistry.add_logs. Drops the function's oldest lines beyond `log_lines`."""
        if not entries:
            return
        key = (function.namespace, function.name)
        with self._store.write() as connection:
            (last,) = connection.execute(
                "SELECT COALESCE(MAX(number), 0) FROM logs WHERE namespace = ? AND name = ?", key
            ).fetchone()
            connection.executemany(
                "INSERT INTO logs (namespace, name, number, function_id, request_id, level, message, timestamp) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (*key, number, function.id, request_id, LogLevel(level).value, message, timestamp)
                    for number, (level, message, timestamp) in enumerate(entries, last + 1)
                ),
            )
            connection.execute(
                "DELETE FROM logs WHERE namespace = ? AND name = ? AND number <= ?",
                (*key, last + len(entries) - self._log_lines),
            )

    def get_logs(self, namespace: str, name: str, limit: int = 100) -> Sequence[LogEntry]:
        """See FunctionRegistry.get_logs."""
        with self._store.read() as connection:
            if _next_version(connection, namespace, name) == 1:
                raise _not_found(connection, namespace, name)
            rows = connection.execute(
                "SELECT level, message, timestamp FROM logs WHERE namespace = ? AND name = ? "
                "ORDER BY number DESC LIMIT ?",
                (namespace, name, max(limit, 0)),
            ).fetchall()
        try:
            return [LogEntry(LogLevel(level), message, timestamp) for level, message, timestamp in reversed(rows)]
        except ValueError as error:
            raise damaged(self._store.path, error) from error

    def run_store(self) -> RunStore:
        """See FunctionRegistry.run_store. In the same file."""
        from runner_sqlite.runs import SqliteRunStore

        with self._run_store_lock:
            if self._run_store is None:
                self._run_store = SqliteRunStore(self._store)
            return self._run_store

    def result_cache(self, *, max_bytes: int, tell: Callable[[str], None]) -> ResultCache:
        """See FunctionRegistry.result_cache. In a file beside the store: `runner.db` has `runner-results.db`."""
        from runner_sqlite.results import SqliteResultCache

        path = self._store.path
        beside = path.with_name(f"{path.stem}-results{path.suffix or '.db'}")
        return SqliteResultCache(beside, max_bytes=max_bytes, tell=tell)

    def close(self) -> None:
        """See FunctionRegistry.close."""
        if self._run_store is not None:
            self._run_store.close()
        self._store.close()

    def _new(self, definition: FunctionDefinition, version: int, wasm_cid: str, source_cid: str | None) -> Function:
        moment = self._now()
        return Function(
            **{name: getattr(definition, name) for name in _SETTINGS},
            id=os.urandom(16).hex(),
            version=version,
            wasm_cid=wasm_cid,
            source_cid=source_cid,
            created_at=moment,
            updated_at=moment,
            created_by=self._created_by,
        )

    def _newest_active(self, connection: sqlite3.Connection, namespace: str, name: str) -> Function | None:
        row = connection.execute(
            f"{_SELECT} AND status = 'active' ORDER BY version DESC LIMIT 1", (namespace, name)
        ).fetchone()
        return None if row is None else self._function(row)

    def _function(self, row: Sequence[Any]) -> Function:
        facts = dict(zip(_COLUMNS, row, strict=True))
        try:
            return Function(**{name: _FROM_COLUMN.get(name, _as_is)(value) for name, value in facts.items()})
        except (ValueError, TypeError) as error:
            raise damaged(self._store.path, f"function {facts['id']!r}: {error}") from error


def _as_is(value: Any) -> Any:
    return value


def _to_row(function: Function) -> dict[str, Any]:
    return {name: _TO_COLUMN.get(name, _as_is)(getattr(function, name)) for name in _COLUMNS}


def _is_same(function: Function | None, definition: FunctionDefinition, wasm_cid: str) -> bool:
    return (
        function is not None
        and function.wasm_cid == wasm_cid
        and all(getattr(function, name) == getattr(definition, name) for name in _SETTINGS)
    )


def _next_version(connection: sqlite3.Connection, namespace: str, name: str) -> int:
    """Deleted versions count too: no number is used twice."""
    (newest,) = connection.execute(
        "SELECT COALESCE(MAX(version), 0) FROM functions WHERE namespace = ? AND name = ?", (namespace, name)
    ).fetchone()
    return int(newest) + 1


def _check_version(definition: FunctionDefinition, following: int) -> None:
    if definition.version not in (0, following):
        raise UsageError(
            f"function {definition.name!r} cannot become version {definition.version}: "
            f"the next is {following}; ask for that or for 0"
        )


def _has_module(connection: sqlite3.Connection, wasm_cid: str, wasm: bytes) -> bool:
    """Whether these very bytes are stored; False for a damaged copy."""
    row = connection.execute("SELECT bytes = ? FROM blobs WHERE wasm_cid = ?", (wasm, wasm_cid)).fetchone()
    return row is not None and bool(row[0])


def _not_found(connection: sqlite3.Connection, namespace: str, name: str, version: int = 0) -> FunctionNotFound:
    from difflib import get_close_matches

    rows = connection.execute(
        "SELECT DISTINCT name FROM functions WHERE namespace = ? AND status = 'active'", (namespace,)
    )
    nearest = get_close_matches(name, [known for (known,) in rows], n=1)
    return FunctionNotFound(name, namespace=namespace, version=version, suggestion=nearest[0] if nearest else None)
