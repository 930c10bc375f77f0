"""SQLite: the rows of a table or query as records, and a table as the place for output."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_url

from runner.contracts import Host
from runner.errors import FileUnavailable, InvalidRecord, SourceChanged, UsageError
from runner.records import Limits, Place, Position, Reader, Source
from runner_files.inputs import find
from runner_files.lines import KEPT_BYTES
from runner_files.rows import RowBlock, encoded
from runner_files.settings import SqliteInput

FETCH_ROWS = 1000


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused when it becomes JSON


class SqliteSource(Source):
    """A table, a view or a query of a database."""

    def __init__(self, folder: Path, settings: SqliteInput) -> None:
        self._folder, self._settings = folder, settings
        self._path = folder / settings.path
        self._name = f"{settings.path}:{settings.table or 'query'}"

    def parts(self) -> Mapping[str, str]:
        """See Source."""
        (file,) = find(self._folder, self._settings.path, "name")
        log = self._path.with_name(self._path.name + "-wal")
        logged = f", {size:,} bytes in its log" if (size := log.stat().st_size if log.exists() else 0) else ""
        return {self._name: f"{file.state}{logged}"}

    def open(self, limits: Limits, position: Position | None = None) -> Reader:
        """See Source."""
        self.parts()
        try:
            return RowReader(self._path, self._name, self._settings, limits, position)
        except sqlite3.Error as error:
            raise refused(self._settings.path, error) from error


def refused(path: str, error: sqlite3.Error) -> FileUnavailable:
    """The error of ours for a database that does not do what it is asked."""
    return FileUnavailable(f"the database {path} cannot be used: {error}")


class RowReader(Reader):
    """Reads rows in a transaction, which sees the database as it was when it began."""

    def __init__(self, path: Path, name: str, settings: SqliteInput, limits: Limits, position: Position | None) -> None:
        self._name, self._path, self._limits = name, settings.path, limits
        address = f"file:{quote_url(str(path))}?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            self._connection.text_factory = _text
            self._connection.execute("BEGIN")
            after = 0 if position is None else position["row"]
            self._numbered, cursor = self._select(settings, after, position is not None)
        except BaseException:
            self._connection.close()
            raise
        self._columns = [column[0] for column in cursor.description][1 if self._numbered else 0 :]
        self._rows = self._fetch(cursor)
        self._row = after
        self._held: tuple[int, bytes, InvalidRecord | None] | None = None
        if not self._numbered:
            for number in range(after):
                if next(self._rows, None) is None:
                    raise SourceChanged(f"{name} has {number:,} rows and the run is to go on behind row {after:,}")

    def _select(self, settings: SqliteInput, after: int, resumed: bool) -> tuple[bool, sqlite3.Cursor]:
        """The rows, and whether each has its number in front, by which it can be found again."""
        execute = self._connection.execute
        if settings.query is not None:
            return False, execute(settings.query)
        table = settings.table or ""
        self._check(table)
        try:
            where = "WHERE rowid > ?" if resumed else ""
            return True, execute(
                f"SELECT rowid, * FROM {quoted(table)} {where} ORDER BY rowid", (after,) if resumed else ()
            )
        except sqlite3.OperationalError:  # a view, or a table without row numbers
            return False, execute(f"SELECT * FROM {quoted(table)}")

    def _check(self, table: str) -> None:
        names = self._connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        known = [name for (name,) in names]
        if table.lower() not in map(str.lower, known):
            near = difflib.get_close_matches(table, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known) or 'none'}"
            raise UsageError(f"{self._path} has no table {table!r}; {hint}")

    def _fetch(self, cursor: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        try:
            while rows := cursor.fetchmany(FETCH_ROWS):
                yield from rows
        except sqlite3.Error as error:
            raise refused(self._path, error) from error

    def read(self) -> RowBlock | None:
        """See Reader."""
        records: list[bytes] = []
        places: list[Place] = []
        bad: dict[int, InvalidRecord] = {}
        size = 0
        while len(records) < self._limits.block_records:
            row = self._held or self._next()
            self._held = None
            if row is None:
                break
            number, data, error = row
            if records and size + len(data) > self._limits.block_bytes:
                self._held = row
                break
            if error is not None:
                bad[len(records)] = error
            records.append(data)
            places.append(Place(self._name, number))
            size += len(data)
            self._row = number
        if not records:
            return None
        block = RowBlock(records, places, {"row": self._row})
        block.refused = bad
        return block

    def _next(self) -> tuple[int, bytes, InvalidRecord | None] | None:
        """A row's number, its JSON, and what is wrong with it."""
        values = next(self._rows, None)
        if values is None:
            return None
        number = values[0] if self._numbered else self._row + 1
        row = dict(zip(self._columns, values[1:] if self._numbered else values, strict=False))
        try:
            data = encoded(row)
        except InvalidRecord as error:
            return number, repr(row)[:KEPT_BYTES].encode("utf-8", "backslashreplace"), error
        limit = self._limits.record_bytes
        if len(data) > limit:
            return number, data[:KEPT_BYTES], InvalidRecord(f"longer than {limit >> 20} MiB (max_record_mb)")
        return number, data, None

    def close(self) -> None:
        """See Reader."""
        self._connection.close()


def sqlite_source(settings: SqliteInput, host: Host) -> Source:
    """A source of rows."""
    return SqliteSource(host.project_dir, settings)
