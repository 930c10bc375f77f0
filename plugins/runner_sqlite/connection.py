"""One SQLite file as the store of everything: opening, pragmas, a pool of connections, transactions.

What is kept in it lives beside: migrations.py makes the tables, functions.py is the registry. Errors
get their meaning in failures.py.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import StoreGone, StoreReadOnly, UsageError
from runner_sqlite import migrations
from runner_sqlite.failures import damaged, is_writable, locked, read_only, translated

if TYPE_CHECKING:
    from sqlite_utils import Database

_PRAGMAS = """
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA cell_size_check = ON;
PRAGMA journal_size_limit = 16777216;
"""
"""FULL: a commit is on the disk (fsync) before it returns, in WAL mode too."""

_WAIT_SECONDS = 0.01
"""Between two tries where SQLite itself does not wait."""

_SMALLEST_BYTES = 512
"""The smallest page, and so the smallest database that is not empty."""


class Store:
    """An open database file with an up-to-date schema.

    Safe for several threads and processes at once. Each `read` and `write` has a connection to
    itself, taken from a pool that grows to as many as are in use at a time; writers of one process
    queue on a lock, writers of several on SQLite's. Not to be carried over a fork.

    A file that may not be written is opened for reading; `write` then raises StoreReadOnly.
    """

    def __init__(self, path: Path, *, busy_timeout_seconds: float = 10.0) -> None:
        """Opens `path`; makes the file, its folder and its tables when they are missing.

        Raises StoreError, StoreDamaged, StoreLocked, StoreFull or StoreReadOnly.
        """
        self.path = path.absolute()
        self._log = self.path.with_name(self.path.name + "-wal")
        self._busy_timeout_seconds = busy_timeout_seconds
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._identity: tuple[int, int] | None = None
        with translated(self.path):
            self._uri, self.writable = self._find()
        try:
            with self.read() as connection:
                self._identity = self._file_identity()
                outdated = migrations.are_pending(connection, self.path)
            if outdated:
                self._migrate()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection in autocommit mode, for this block only."""
        with translated(self.path):
            connection = self._take()
            try:
                yield connection
            except sqlite3.Error:
                # It may be in the middle of something: a new one costs less than finding out.
                connection.close()
                raise
            except BaseException:
                self._give(connection)
                raise
            self._give(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a write transaction, for this block only.

        Committed, and on the disk, when the block ends; rolled back when it raises.
        """
        if not self.writable:
            raise read_only(self.path)
        if not self._write_lock.acquire(timeout=self._busy_timeout_seconds):
            raise locked(self.path)
        try:
            with self.read() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    self._check_file_identity()
                    yield connection
                    connection.execute("COMMIT")
                    self._check_file_identity()  # before anybody is told that it is safe
                except BaseException:
                    if connection.in_transaction:
                        with suppress(sqlite3.Error):  # the first error is the one to tell
                            connection.execute("ROLLBACK")
                    raise
        finally:
            self._write_lock.release()

    def close(self) -> None:
        """Close every connection; those in use are closed when their block ends. May be called twice."""
        with self._pool_lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection:
        if os.getpid() != self._process:
            raise UsageError(f"the store {self.path} was opened by another process; open it after the fork")
        with self._pool_lock:
            if self._closed:
                raise UsageError(f"the store {self.path} is closed")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            # Without a lock on the file (immutable) a connection must not outlive its block: someone
            # else may write later.
            if not self._closed and "immutable" not in self._uri:
                self._idle.append(connection)
                return
        connection.close()

    def _find(self) -> tuple[str, bool]:
        """The URI to open and whether it may be written; makes the folder if need be."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        quoted = str(self.path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        if self.path.is_file() and 0 < self.path.stat().st_size < _SMALLEST_BYTES:
            raise damaged(self.path, "cut off in its header")  # SQLite would take it for a new file
        if is_writable(self.path):
            return f"file:{quoted}?mode=rwc", True
        if not self.path.exists():
            raise read_only(self.path)
        log = self._log
        index = self.path.with_name(self.path.name + "-shm")
        if not log.exists() or (log.stat().st_size == 0 and not index.exists()):
            return f"file:{quoted}?mode=ro&immutable=1", False
        if not index.exists() and not os.access(self.path.parent, os.W_OK):
            raise StoreReadOnly(
                f"the store {self.path} is read-only and has changes in {log.name} that cannot be read without "
                f"writing; make the folder {self.path.parent} writable once, or copy both files to one that is"
            )
        return f"file:{quoted}?mode=ro", False

    def _connect(self) -> sqlite3.Connection:
        if self.writable and self._identity is not None and not self._is_in_place():
            raise self._gone()  # SQLite would make an empty one
        connection = sqlite3.connect(
            self._uri,
            uri=True,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,  # the pool sees to it that one thread has it at a time
        )
        try:
            if self.writable:
                self._use_wal(connection)
            connection.executescript(_PRAGMAS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """The mode is kept in the file, so this changes something once in its life. SQLite does not
        wait for others who do the same at the same moment: we do."""
        deadline = time.monotonic() + self._busy_timeout_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_WAIT_SECONDS)

    def _migrate(self) -> None:
        if not self.writable:
            raise StoreReadOnly(
                f"the store {self.path} was made by an older runner and is read-only; "
                "make it writable once, so that its tables can be brought up to date"
            )
        with self.write() as connection:
            migrations.apply(database(connection), self.path)

    def _file_identity(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def _check_file_identity(self) -> None:
        """SQLite goes on writing to a deleted file, and all of it would be lost."""
        if not self._log.exists() or not self._is_in_place():
            raise self._gone()

    def _is_in_place(self) -> bool:
        try:
            return self._file_identity() == self._identity
        except FileNotFoundError:
            return False

    def _gone(self) -> StoreGone:
        return StoreGone(
            f"the store {self.path} or its {self._log.name} was deleted or replaced while it was open; "
            "what was to be written now is lost; start again"
        )


def database(connection: sqlite3.Connection) -> Database:
    """sqlite-utils over this connection, inside the transaction that it is in.

    Imported here and not above: it takes longer than the rest of `runner invoke`.
    """
    from sqlite_utils import Database

    return Database(connection, recursive_triggers=False, execute_plugins=False)
