"""Named numbers of the store: what was counted, and where slow walks through tables have come to."""

from __future__ import annotations

import sqlite3

_ADD = (
    "INSERT INTO counters (name, value) VALUES (?, ?) "
    "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value"
)


def add(connection: sqlite3.Connection, name: str, by: int = 1) -> int:
    """Advance a counter, which begins at 0; its new value."""
    return int(connection.execute(_ADD, (name, by)).fetchone()[0])


def put(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Set a number."""
    connection.execute("INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)", (name, value))


def value(connection: sqlite3.Connection, name: str) -> int:
    """A number; 0 if it was never set."""
    row = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])
