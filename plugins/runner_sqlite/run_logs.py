"""Log lines of runs, so many for each attempt and no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from runner.models import LogEntry, LogLevel
from runner.runs import MAX_LOG_LINES, MAX_MESSAGE_CHARACTERS

LEFT_OUT = f"(more than {MAX_LOG_LINES:,} lines: the rest was left out)"
"""The last line of an attempt that logged more than is kept."""


def keep(connection: sqlite3.Connection, run_id: int, attempt: int, entries: Sequence[LogEntry]) -> None:
    """Append lines to an attempt's."""
    (last,) = connection.execute(
        "SELECT COALESCE(MAX(number), 0) FROM run_logs WHERE run_id = ? AND attempt = ?", (run_id, attempt)
    ).fetchone()
    connection.executemany(
        "INSERT INTO run_logs (run_id, attempt, number, level, timestamp, message) VALUES (?, ?, ?, ?, ?, ?)",
        ((run_id, attempt, *line) for line in _capped(entries, last)),
    )


def add(connection: sqlite3.Connection, run_id: int, token: int, entries: Sequence[LogEntry]) -> None:
    """See RunStore.add_logs."""
    row = connection.execute("SELECT attempts FROM queue WHERE run_id = ? AND token = ?", (run_id, token)).fetchone()
    if row is not None:
        keep(connection, run_id, row[0], entries)


def cut(text: str) -> str:
    """As much of a message as is kept."""
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def cut_tail(text: str) -> str:
    """As much of the end of a message as is kept."""
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else "…" + text[1 - MAX_MESSAGE_CHARACTERS :]


def _capped(entries: Sequence[LogEntry], last: int) -> Iterator[tuple[Any, ...]]:
    for number, (level, message, timestamp) in enumerate(entries, last + 1):
        if number > MAX_LOG_LINES:
            return
        if number == MAX_LOG_LINES:
            message = LEFT_OUT
        yield number, LogLevel(level).value, timestamp, cut(message)
