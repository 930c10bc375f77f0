"""A table of a SQLite database that rows are put into, in one transaction."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.contracts import Host
from runner.errors import FileUnavailable
from runner.records import Sink
from runner_files.rows import BLOB, encoded
from runner_files.settings import SqliteOutput
from runner_files.staging import StagedSink, Target
from runner_files.tables import quoted, refused

PUBLISHED = "_runner_published"
"""Remembers, of tables that rows are added to, which collected rows were added last."""
BUSY_SECONDS = 30.0


class TableTarget(Target):
    """One table."""

    def __init__(self, folder: Path, settings: SqliteOutput) -> None:
        self._settings = settings
        self._path = folder / settings.path
        self.name = f"{settings.path}:{settings.table}"
        self.staging = self._path.with_name(f"{self._path.name}.{settings.table.replace('/', '_')}")
        self._columns: frozenset[str] | None = None

    def check(self) -> None:
        """See Target."""
        if self._path.is_dir():
            raise FileUnavailable(f"cannot write {self.name}: {self._settings.path} is a folder")
        try:
            if self._path.exists():
                with closing(self._connect()) as connection:
                    self._columns = frozenset(name.lower() for name in self._existing(connection)) or None
        except sqlite3.Error as error:
            raise refused(self._settings.path, error) from error

    def refuses(self, row: dict[str, Any]) -> str:
        """See Target."""
        if self._settings.mode == "append" and self._columns is not None:
            for name in row:
                if name.lower() not in self._columns:
                    return f"{self.name} has no column {name!r}"
        return next((f"{name} is too large for SQLite" for name, value in row.items() if _too_large(value)), "")

    def put(self, lines: Path) -> None:
        """See Target."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                if self._settings.mode == "append":
                    self._append(connection, lines)
                else:
                    connection.execute(f"DROP TABLE IF EXISTS {quoted(self._settings.table)}")
                    self._fill(connection, lines)
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise FileUnavailable(f"cannot write {self.name}: {error}") from error

    def old_rows(self) -> Iterator[bytes] | None:
        """See Target."""
        return None if self._settings.mode == "append" else self._selected()

    def _selected(self) -> Iterator[bytes]:
        try:
            with closing(self._connect()) as connection:
                cursor = connection.execute(f"SELECT * FROM {quoted(self._settings.table)} ORDER BY rowid")
                names = [column[0] for column in cursor.description]
                for values in cursor:
                    row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                    yield encoded(row)
        except sqlite3.Error as error:
            raise refused(self._settings.path, error) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)

    def _existing(self, connection: sqlite3.Connection) -> list[str]:
        found = connection.execute("SELECT name FROM pragma_table_info(?)", (self._settings.table,)).fetchall()
        return [name for (name,) in found]

    def _append(self, connection: sqlite3.Connection, lines: Path) -> None:
        status = lines.stat()
        mark = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {PUBLISHED} (name TEXT PRIMARY KEY, rows TEXT NOT NULL) WITHOUT ROWID"
        )
        key = (self._settings.table,)
        done = connection.execute(f"SELECT rows FROM {PUBLISHED} WHERE name = ?", key).fetchone()
        if done != (mark,):
            self._fill(connection, lines)
            connection.execute(f"INSERT OR REPLACE INTO {PUBLISHED} VALUES (?, ?)", (*key, mark))

    def _fill(self, connection: sqlite3.Connection, lines: Path) -> None:
        """Insert every row; a column is added with the first row that has it."""
        table = quoted(self._settings.table)
        columns = {name.lower() for name in self._existing(connection)}
        with lines.open("rb") as file:
            for line in file:
                row = json.loads(line)
                for name in row:
                    if name.lower() not in columns:
                        connection.execute(_with_column(table, name, first=not columns))
                        columns.add(name.lower())
                names = ", ".join(map(quoted, row))
                marks = ", ".join("?" * len(row))
                insert = f"({names}) VALUES ({marks})" if row else "DEFAULT VALUES"
                if columns:
                    connection.execute(f"INSERT INTO {table} {insert}", [_stored(value) for value in row.values()])
        if not columns:
            connection.execute(f'CREATE TABLE {table} ("empty")')  # a table needs a column, and no row had one


def _with_column(table: str, name: str, *, first: bool) -> str:
    return f"CREATE TABLE {table} ({quoted(name)})" if first else f"ALTER TABLE {table} ADD COLUMN {quoted(name)}"


def _too_large(value: Any) -> bool:
    return isinstance(value, int) and not -(1 << 63) <= value < 1 << 63


def _stored(value: Any) -> Any:
    """A JSON value as SQLite keeps it."""
    if isinstance(value, dict) and value.keys() == {BLOB}:
        return base64.b64decode(value[BLOB])
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def sqlite_sink(settings: SqliteOutput, host: Host) -> Sink:
    """A sink that is a table."""
    return StagedSink(TableTarget(host.project_dir, settings))
