"""The cache of results, in a SQLite file of its own beside the store.

It may be lost at any time, and is written accordingly: commits do not wait for the disk, and a file that is
damaged, or of another runner, is thrown away. What is found in it is compared with a checksum, for
SQLite has none. The tables are below.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from runner.results import LARGEST_SHARE, CacheStats, FunctionResults, Kept, NewResult, ResultCache

T = TypeVar("T")

SCHEMA = 1
"""Of the tables below. A file of another is thrown away."""
STAMP_SECONDS = 3600
"""When a result was used last is known to so many seconds: else every look would be a write."""
STEP = 500
"""So many results at most go in one transaction when room is made: others get their turn between."""
ROW_BYTES = 120
"""About what a result takes beside its output."""

_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA cell_size_check = ON;
PRAGMA cache_size = -16384;
PRAGMA journal_size_limit = 67108864;
"""
# `place` is the first 8 bytes of a key, as a number: a small index, and no two keys share one in practice.
# If they do, the later takes the place. `rest` is what is left of the key.
_TABLES = (
    "CREATE TABLE functions (function_id INTEGER PRIMARY KEY, namespace TEXT, name TEXT, UNIQUE (namespace, name))",
    """
    CREATE TABLE results (
        result_id INTEGER PRIMARY KEY,
        place INTEGER NOT NULL,
        rest BLOB NOT NULL,
        checksum INTEGER NOT NULL,
        function_id INTEGER NOT NULL,
        used INTEGER NOT NULL,
        made_at REAL NOT NULL,
        run_id INTEGER,
        duration_ms REAL NOT NULL,
        memory_peak_bytes INTEGER NOT NULL,
        output BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX results_place ON results (place)",
    "CREATE INDEX results_used ON results (used)",
    f"PRAGMA user_version = {SCHEMA}",
)
_GET = (
    "SELECT place, rest, checksum, used, output, duration_ms, memory_peak_bytes, run_id, made_at "
    "FROM json_each(?) CROSS JOIN results ON place = value"
)
_PUT = (
    "INSERT OR REPLACE INTO results (place, rest, checksum, function_id, used, made_at, run_id, duration_ms, "
    "memory_peak_bytes, output) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_STATS = (
    "SELECT namespace, name, COUNT(*), SUM(LENGTH(output)), MAX(used) FROM results JOIN functions USING (function_id) "
    "GROUP BY function_id ORDER BY namespace, name"
)


class SqliteResultCache(ResultCache):
    """A ResultCache in one SQLite file, which is opened, and made if it is missing, at its first use."""

    def __init__(
        self, path: Path, *, max_bytes: int, tell: Callable[[str], None], busy_timeout_seconds: float = 1.0
    ) -> None:
        self.path = path.absolute()
        self._max_bytes, self._tell, self._busy_timeout_seconds = max_bytes, tell, busy_timeout_seconds
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._told = False

    def get(self, keys: Sequence[bytes], *, now: float) -> list[Kept | None]:
        """See ResultCache."""
        if not keys:
            return []
        return self._with(lambda connection: _get(connection, keys, int(now)), [None] * len(keys))

    def put(self, namespace: str, function: str, results: Sequence[NewResult], *, now: float) -> None:
        """See ResultCache."""
        largest = self._max_bytes // LARGEST_SHARE
        rows = [result for result in results if len(result.output) <= largest]
        if rows:
            self._with(lambda connection: self._put(connection, namespace, function, rows, now), None)

    def stats(self) -> CacheStats:
        """See ResultCache."""
        nothing: tuple[tuple[FunctionResults, ...], int] = (), 0
        functions, size = self._with(_stats, nothing)
        return CacheStats(
            results=sum(each.results for each in functions), bytes=size, max_bytes=self._max_bytes, functions=functions
        )

    def clear(self, namespace: str | None = None, function: str | None = None) -> int:
        """See ResultCache."""
        return self._with(lambda connection: _clear(connection, namespace, function), 0)

    def close(self) -> None:
        """See ResultCache."""
        with self._lock:
            self._close()

    def _put(
        self, connection: sqlite3.Connection, namespace: str, function: str, rows: Sequence[NewResult], now: float
    ) -> None:
        with _transaction(connection):
            connection.execute("INSERT OR IGNORE INTO functions (namespace, name) VALUES (?, ?)", (namespace, function))
            (function_id,) = connection.execute(
                "SELECT function_id FROM functions WHERE namespace = ? AND name = ?", (namespace, function)
            ).fetchone()
            connection.executemany(
                _PUT,
                (
                    (
                        *(_place(key), key[8:], _checksum(key, output), function_id, int(now), now),
                        *(run_id, duration_ms, memory_peak_bytes, output),
                    )
                    for key, output, duration_ms, memory_peak_bytes, run_id in rows
                ),
            )
        while (over := _used_bytes(connection) - self._max_bytes) > 0 and _evict(connection, over):
            pass

    # Opening, and what may be wrong

    def _with(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What the work gives; `otherwise` where the cache is of no use now."""
        with self._lock:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:  # the latter: values that nobody stored
                self._refused(error)
                return otherwise

    def _refused(self, error: Exception) -> None:
        if isinstance(error, sqlite3.OperationalError) and _is_passing(str(error)):
            self._tell_once(f"results are not used again for now: {self.path} refused ({error})")
            return
        if not isinstance(error, OSError | sqlite3.OperationalError) or "no such" in str(error):
            self._tell_once(f"{self.path} was damaged and is made anew: results are made again ({error})")
            with suppress(OSError, sqlite3.Error):
                self._throw_away()
            return
        self._close()
        self._tell_once(f"results are not used again: {self.path} cannot be used ({error})")

    def _tell_once(self, message: str) -> None:
        if not self._told:
            self._told = True
            self._tell(message)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity == _identity(self.path):
            return self._connection
        self._close()  # somebody has thrown the file away, and so may anybody
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema == 0:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is written
            connection.executescript(_PRAGMAS)
            if schema == 0:
                with _transaction(connection):
                    for statement in _TABLES:
                        connection.execute(statement)
            elif schema != SCHEMA:
                raise ValueError(f"it has schema {schema}, this runner {SCHEMA}")
        except BaseException:
            connection.close()
            self._identity = _identity(self.path)
            raise
        self._identity = _identity(self.path)
        return connection

    def _throw_away(self) -> None:
        """Delete the file, unless another process was faster and this is a new one."""
        self._close()
        with self._alone():
            if _identity(self.path) == self._identity:
                for ending in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While others do not open or throw away the file: SQLite holds no lock then."""
        descriptor = os.open(
            self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _is_passing(message: str) -> bool:
    """Whether SQLite may take it when it is asked again."""
    return any(words in message for words in ("locked", "full", "busy"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _place(key: bytes) -> int:
    return int.from_bytes(key[:8], "big", signed=True)


def _checksum(key: bytes, output: bytes) -> int:
    return zlib.crc32(output, zlib.crc32(key))


def _get(connection: sqlite3.Connection, keys: Sequence[bytes], now: int) -> list[Kept | None]:
    places = [_place(key) for key in keys]
    found: dict[int, tuple[bytes, int, Kept]] = {}
    stale = []
    for place, rest, checksum, used, *kept in connection.execute(_GET, (json.dumps(places),)):
        found[place] = rest, checksum, Kept(*kept)
        if used <= now - STAMP_SECONDS:
            stale.append(place)
    results: list[Kept | None] = []
    damaged = []
    for key, place in zip(keys, places, strict=True):
        entry = found.get(place)
        if entry is None or entry[0] != key[8:]:
            results.append(None)
        elif entry[1] != _checksum(key, entry[2].output):
            results.append(None)
            damaged.append(place)
        else:
            results.append(entry[2])
    if stale or damaged:
        _note(connection, stale, damaged, now)
    return results


def _note(connection: sqlite3.Connection, stale: list[int], damaged: list[int], now: int) -> None:
    """Stamp what was used, and forget what is not what was kept. Not worth an error, nor a wait."""
    with suppress(sqlite3.OperationalError), _transaction(connection):
        among = "place IN (SELECT value FROM json_each(?))"
        connection.execute(f"UPDATE results SET used = ? WHERE {among}", (now, json.dumps(stale)))
        connection.execute(f"DELETE FROM results WHERE {among}", (json.dumps(damaged),))


def _used_bytes(connection: sqlite3.Connection) -> int:
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _evict(connection: sqlite3.Connection, over: int) -> int:
    """Forget results that were not used for longest: enough to free about so many bytes, or STEP of them."""
    with _transaction(connection):
        gone = []
        for result_id, size in connection.execute(
            "SELECT result_id, LENGTH(output) FROM results ORDER BY used, result_id LIMIT ?", (STEP,)
        ):
            gone.append(result_id)
            over -= size + ROW_BYTES
            if over <= 0:
                break
        connection.execute(
            "DELETE FROM results WHERE result_id IN (SELECT value FROM json_each(?))", (json.dumps(gone),)
        )
    return len(gone)


def _stats(connection: sqlite3.Connection) -> tuple[tuple[FunctionResults, ...], int]:
    rows = connection.execute(_STATS).fetchall()
    return tuple(FunctionResults(*row) for row in rows), _used_bytes(connection)


def _clear(connection: sqlite3.Connection, namespace: str | None, function: str | None) -> int:
    with _transaction(connection):
        gone = connection.execute(
            "DELETE FROM results WHERE function_id IN (SELECT function_id FROM functions "
            "WHERE namespace = COALESCE(?, namespace) AND name = COALESCE(?, name))",
            (namespace, function),
        ).rowcount
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    return gone
