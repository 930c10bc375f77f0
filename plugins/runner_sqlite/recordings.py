"""What is kept of attempts so that they can be replayed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from runner.errors import RunNotFound

STATEMENTS = (
    """
    CREATE TABLE recordings (
        recording_id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        data BLOB NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX recordings_attempt ON recordings (run_id, attempt)",
)
"""The table, as one step of the schema."""


def keep(connection: sqlite3.Connection, rows: Sequence[tuple[int, int, int, bytes]]) -> None:
    """Keep recordings, each with its run, attempt and moment."""
    connection.executemany("INSERT INTO recordings (run_id, attempt, created_at, data) VALUES (?, ?, ?, ?)", rows)


def get(connection: sqlite3.Connection, run_id: int, attempt: int) -> bytes | None:
    """See RunStore.recording."""
    row = connection.execute(
        "SELECT data FROM runs LEFT JOIN recordings r ON r.run_id = runs.run_id AND attempt = ? WHERE runs.run_id = ?",
        (attempt, run_id),
    ).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return row[0]  # type: ignore[no-any-return]
